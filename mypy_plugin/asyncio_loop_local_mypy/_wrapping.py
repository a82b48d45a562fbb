"""The type of what ``singleton`` and ``sticky_singleton_acm`` return, and what is wrong with what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mypy.nodes import ARG_POS, Decorator, FuncDef, MemberExpr, NameExpr, OverloadedFuncDef, RefExpr, TempNode
from mypy.types import CallableType, FunctionLike, Instance, NoneType, Overloaded, ProperType, Type, get_proper_type

from . import _single_use
from ._marker import BY_ARGUMENTS, BY_OWN_KEY, DECORATOR, FACTORY, Known, marked, shown
from ._reporting import SINGLE_USE, report

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.nodes import Expression
    from mypy.plugin import FunctionContext, MethodContext

    from ._symbols import Lookup

_SINGLETON = "singleton"
_STICKY = "sticky_singleton_acm"
_DEFINED_AS = {_SINGLETON: "asyncio_loop_local._singleton.singleton", _STICKY: "asyncio_loop_local._sticky.sticky_singleton_acm"}
DECORATORS = {fullname: name for name, defined in _DEFINED_AS.items() for fullname in (defined, f"asyncio_loop_local.{name}")}
_PARTIAL = "functools.partial"


class _Given(NamedTuple):
    """A factory as it was given to a decorator."""

    written: Expression
    type: ProperType
    function: FuncDef | None


def wrapped(decorator: Known, ctx: FunctionContext | MethodContext, api: TypeChecker, lookup: Lookup) -> Type:
    """What a call of a decorator returns: a wrapped factory, or a decorator again where none was given."""
    result = get_proper_type(ctx.default_return_type)
    keys = BY_OWN_KEY if decorator.keys == BY_OWN_KEY or _has_own_key(ctx) else BY_ARGUMENTS
    given = _factory(ctx)
    if given is None:
        return _with_marker(result, Known(DECORATOR, keys, decorator.name), api)
    name = _name(given, ctx)
    if decorator.name == _SINGLETON:
        reason = _single_use.finding(given.type, given.function)
        if reason is not None:
            report(api, f"A singleton of {shown(name)} {reason}", ctx.context, SINGLE_USE)
    of_partial = _of_partial(given.type, decorator.name, ctx, api, lookup)
    return _with_marker(result if of_partial is None else of_partial, Known(FACTORY, keys, name), api)


def _with_marker(result: ProperType, what: Known, api: TypeChecker) -> ProperType:
    if not isinstance(result, FunctionLike) or result.is_type_obj():
        return result
    return marked(result, what, api.named_type("builtins.str"))


def _factory(ctx: FunctionContext | MethodContext) -> _Given | None:
    for parameter, written, types in zip(ctx.callee_arg_names, ctx.args, ctx.arg_types, strict=True):
        if parameter != "key" and len(written) == 1:
            return _Given(written[0], get_proper_type(types[0]), _function(written[0], ctx))
    return None


def _function(written: Expression, ctx: FunctionContext | MethodContext) -> FuncDef | None:
    """The function given, if nothing else has decorated it before."""
    if isinstance(ctx.context, Decorator):
        innermost = ctx.context.decorators[-1]
        return ctx.context.func if (innermost.line, innermost.column) == (written.line, written.column) else None
    return written.node if isinstance(written, RefExpr) and isinstance(written.node, FuncDef) else None


def _has_own_key(ctx: FunctionContext | MethodContext) -> bool:
    return any(
        parameter == "key" and types and not isinstance(get_proper_type(types[0]), NoneType)
        for parameter, types in zip(ctx.callee_arg_names, ctx.arg_types, strict=True)
    )


def _name(given: _Given, ctx: FunctionContext | MethodContext) -> str:
    """What mypy calls the factory in its errors, else how it is written."""
    factory = _partially_applied(given.type) or given.type
    name = factory.get_name() if isinstance(factory, FunctionLike) else None
    if name is not None:
        return name
    if isinstance(ctx.context, Decorator):
        return ctx.context.func.name
    if isinstance(given.written, NameExpr | MemberExpr):
        return given.written.name
    return f"__call__ of {factory.type.name}" if isinstance(factory, Instance) else "<unknown>"


def _partially_applied(typ: ProperType) -> CallableType | None:
    """What mypy knows of a ``functools.partial`` object; private to its own plugin, so it may be gone."""
    if not isinstance(typ, Instance) or typ.type.fullname != _PARTIAL or typ.extra_attrs is None:
        return None
    function = get_proper_type(typ.extra_attrs.attrs.get("__mypy_partial"))
    if not isinstance(function, CallableType):
        return None
    return function.copy_modified(special_sig=None)  # pyright: ignore[reportUnknownMemberType]


def _of_partial(
    factory: ProperType, decorator: str, ctx: FunctionContext | MethodContext, api: TypeChecker, lookup: Lookup
) -> ProperType | None:
    """What a decorator returns for the signature that a partial object has, which mypy tells only to its own plugin."""
    function = _partially_applied(factory)
    symbol = lookup(_DEFINED_AS[decorator])
    if function is None or symbol is None or not isinstance(symbol.node, OverloadedFuncDef):
        return None
    overloads = get_proper_type(symbol.node.type)
    if not isinstance(overloads, Overloaded):
        return None
    takes_factory = next((item for item in overloads.items if item.arg_kinds[:1] == [ARG_POS]), None)
    if takes_factory is None:
        return None
    with api.msg.filter_errors():  # what can be said of the partial object has been said
        result, _ = api.expr_checker.check_call(takes_factory, [TempNode(function, context=ctx.context)], [ARG_POS], ctx.context)
    return get_proper_type(result)
