"""The type of what ``singleton`` and ``sticky_singleton_acm`` return, and the check of the factory that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mypy.nodes import (
    ARG_POS,
    CallExpr,
    Decorator,
    FuncDef,
    LambdaExpr,
    MemberExpr,
    NameExpr,
    OverloadedFuncDef,
    RefExpr,
    TempNode,
)
from mypy.subtypes import find_member
from mypy.types import CallableType, FunctionLike, Instance, NoneType, Overloaded, ProperType, Type, UnionType, get_proper_type

from . import _key_function, _single_use
from ._marker import BY_ARGUMENTS, BY_OWN_KEY, CLOSE, DECORATOR, FACTORY, NOTHING, VALID, Marker, marked, marked_object, quoted
from ._reporting import KEY_FUNCTION, SINGLE_USE, report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.checker import TypeChecker
    from mypy.nodes import Expression
    from mypy.plugin import FunctionContext, MethodContext

    from ._symbols import Lookup

_SINGLETON = "singleton"
_STICKY = "sticky_singleton_acm"
_DEFINED_AS = {_SINGLETON: "asyncio_loop_local._singleton.singleton", _STICKY: "asyncio_loop_local._sticky.sticky_singleton_acm"}
DECORATORS = {fullname: name for name, defined in _DEFINED_AS.items() for fullname in (defined, f"asyncio_loop_local.{name}")}
_KEY = "key"
_PARTIAL = "functools.partial"
_WAITING = frozenset({"asyncio_loop_local._singleton._Decorator", "asyncio_loop_local._sticky._DecoratorWithValid"})
CALLS_OF_WAITING = frozenset(f"{waiting}.__call__" for waiting in _WAITING)
_FACTORY_PARAMETER = {None, "factory"}  # mypy drops the name of a parameter that takes no keyword


class _Factory(NamedTuple):
    """A factory as a decorator takes it: the expression, its type, and its definition where that is known."""

    expression: Expression
    type: ProperType
    function: FuncDef | None


def type_of_wrapped(decorator: Marker, ctx: FunctionContext | MethodContext, api: TypeChecker, lookup: Lookup) -> Type:
    """Return the marked type of a decorator's result: a wrapped factory, or a decorator if the call passes no factory."""
    result = get_proper_type(ctx.default_return_type)
    keys = BY_OWN_KEY if decorator.keys == BY_OWN_KEY or _is_given(_KEY, ctx) else BY_ARGUMENTS
    given = _given(decorator, ctx)
    factory = _factory_argument(ctx)
    if factory is None:
        return _with_marker(result, Marker(DECORATOR, keys, given, decorator.name), api)
    name = _name(factory, ctx)
    if decorator.name == _SINGLETON:
        reason = _single_use.finding(_partially_applied(factory.type) or factory.type, factory.function)
        if reason is not None:
            report(api, f"A singleton of {quoted(name)} {reason}", ctx.context, SINGLE_USE)
    for written, typ in _key_arguments(ctx, api):
        reason = _key_function.finding(typ, _partially_applied(factory.type) or factory.type, api)
        if reason is not None:
            report(api, f"The key function of {quoted(name)} {reason}", written, KEY_FUNCTION)
    exact: ProperType | None = None
    if decorator.name == _STICKY and isinstance(factory.type, CallableType):
        exact = _of_parts(factory.type, ctx, api, lookup)
    signature = _signature(factory.type, is_alone=not _has_other_arguments(ctx), is_waited_for=decorator.given != NOTHING)
    if exact is None and signature is not None:
        exact = _of_signature(signature, decorator.name, ctx, api, lookup)
    result = exact or result
    return _with_marker(result, Marker(FACTORY, keys, given, name), api)


def _with_marker(result: ProperType, marker: Marker, api: TypeChecker) -> ProperType:
    string_type = api.named_type("builtins.str")
    if isinstance(result, FunctionLike) and not result.is_type_obj():
        return marked(result, marker, string_type)
    if isinstance(result, Instance) and result.type.fullname in _WAITING:
        return marked_object(result, marker, string_type)
    return result


def _factory_argument(ctx: FunctionContext | MethodContext) -> _Factory | None:
    for parameter, written, types in zip(ctx.callee_arg_names, ctx.args, ctx.arg_types, strict=True):
        if parameter in _FACTORY_PARAMETER and len(written) == 1:
            return _Factory(written[0], get_proper_type(types[0]), _function(written[0], ctx))
    return None


def _function(written: Expression, ctx: FunctionContext | MethodContext) -> FuncDef | None:
    """Return the definition of the factory, unless another decorator comes between it and ours."""
    if isinstance(ctx.context, Decorator):
        innermost = ctx.context.decorators[-1]
        return ctx.context.func if (innermost.line, innermost.column) == (written.line, written.column) else None
    return written.node if isinstance(written, RefExpr) and isinstance(written.node, FuncDef) else None


def _is_given(parameter: str, ctx: FunctionContext | MethodContext) -> bool:
    """Tell whether the call passes an argument, and not None."""
    return any(
        name == parameter and types and not isinstance(get_proper_type(types[0]), NoneType)
        for name, types in zip(ctx.callee_arg_names, ctx.arg_types, strict=True)
    )


def _key_arguments(ctx: FunctionContext | MethodContext, api: TypeChecker) -> Iterator[tuple[Expression, Type]]:
    """Return the key function and its type, also if it was passed to the call that gave the decorator."""
    for name, written, types in zip(ctx.callee_arg_names, ctx.args, ctx.arg_types, strict=True):
        if name == _KEY:
            yield from zip(written, types, strict=True)
    context = ctx.context
    before = context.callee if isinstance(context, CallExpr) else None
    if isinstance(context, Decorator):
        calls = [each for each in context.decorators if isinstance(each, CallExpr)]
        ours = [each for each in calls if isinstance(each.callee, RefExpr) and each.callee.fullname in DECORATORS]
        before = ours[0] if len(ours) == 1 else None
    if isinstance(before, CallExpr) and isinstance(before.callee, RefExpr) and before.callee.fullname in DECORATORS:
        for name, argument in zip(before.arg_names, before.args, strict=True):
            if name == _KEY and api.has_type(argument):
                yield argument, api.lookup_type(argument)


def _given(decorator: Marker, ctx: FunctionContext | MethodContext) -> str:
    return next((parameter for parameter in (VALID, CLOSE) if _is_given(parameter, ctx)), decorator.given)


def _name(factory: _Factory, ctx: FunctionContext | MethodContext) -> str:
    """Return the factory's name in mypy's errors, else the name in the source."""
    typ = _partially_applied(factory.type) or factory.type
    name = typ.get_name() if isinstance(typ, FunctionLike) else None
    if name is not None:
        return name
    if isinstance(ctx.context, Decorator):
        return ctx.context.func.name
    if isinstance(factory.expression, NameExpr | MemberExpr):
        return factory.expression.name
    if isinstance(factory.expression, LambdaExpr):
        return "<lambda>"
    return f"__call__ of {typ.type.name}" if isinstance(typ, Instance) else "<unknown>"


def _partially_applied(typ: ProperType) -> CallableType | None:
    """Return the signature of a ``functools.partial`` object; mypy keeps it in a private attribute, which may be missing."""
    if not isinstance(typ, Instance) or typ.type.fullname != _PARTIAL or typ.extra_attrs is None:
        return None
    function = get_proper_type(typ.extra_attrs.attrs.get("__mypy_partial"))
    if not isinstance(function, CallableType):
        return None
    return function.copy_modified(special_sig=None)  # pyright: ignore[reportUnknownMemberType]


def _signature(factory: ProperType, *, is_alone: bool, is_waited_for: bool) -> FunctionLike | None:
    """Return the full signature of a factory, where what mypy has passed to the decorator has lost some of it; else None.

    A decorator that waited for its factory, with ``close`` or ``valid``, gives what those take: ``object``, say.
    """
    if isinstance(factory, Overloaded) and not is_alone:
        return factory  # mypy keeps the overloads only of a call's single argument
    if isinstance(factory, FunctionLike) and is_waited_for:
        return factory
    if not isinstance(factory, Instance):
        return None
    partial = _partially_applied(factory)
    call = get_proper_type(find_member("__call__", factory, factory))
    return partial or (call if isinstance(call, Overloaded) else None)


def _of_parts(factory: CallableType, ctx: FunctionContext | MethodContext, api: TypeChecker, lookup: Lookup) -> ProperType | None:
    """Return the result for a factory of which mypy alone loses something; None for other factories.

    Of a union of context managers it infers only their common base, and of type variables it loses the defaults. So each member
    of the union is tried alone, and as it is inside a generic function, where type variables are types like others.
    """
    made = get_proper_type(factory.ret_type)
    if not isinstance(made, UnionType) and not any(variable.has_default() for variable in factory.variables):
        return None
    members = made.items if isinstance(made, UnionType) else [made]
    each_alone = [factory.copy_modified(ret_type=each, variables=[]) for each in members]  # pyright: ignore[reportUnknownMemberType]
    results = [_of_signature(function, _STICKY, ctx, api, lookup) for function in each_alone]
    callables = [result for result in results if isinstance(result, CallableType)]
    if len(callables) != len(members):
        return None
    together = UnionType.make_union([each.ret_type for each in callables])
    return callables[0].copy_modified(ret_type=together, variables=factory.variables)  # pyright: ignore[reportUnknownMemberType]


def _has_other_arguments(ctx: FunctionContext | MethodContext) -> bool:
    pairs = zip(ctx.callee_arg_names, ctx.arg_types, strict=True)
    return any(types and parameter not in _FACTORY_PARAMETER for parameter, types in pairs)


def _of_signature(
    function: FunctionLike, decorator: str, ctx: FunctionContext | MethodContext, api: TypeChecker, lookup: Lookup
) -> ProperType | None:
    """Return the type of a decorator's result if this signature were its only argument."""
    symbol = lookup(_DEFINED_AS[decorator])
    if symbol is None or not isinstance(symbol.node, OverloadedFuncDef):
        return None
    overloads = get_proper_type(symbol.node.type)
    if not isinstance(overloads, Overloaded):
        return None
    takes_factory = next((item for item in overloads.items if item.arg_kinds[:1] == [ARG_POS]), None)
    if takes_factory is None:
        return None
    takes_factory = takes_factory.copy_modified(name=None)  # pyright: ignore[reportUnknownMemberType]  # mypy asks no hook about it
    with api.msg.filter_errors():  # errors about the factory are already reported
        result, _ = api.expr_checker.check_call(takes_factory, [TempNode(function, context=ctx.context)], [ARG_POS], ctx.context)
    return get_proper_type(result)
