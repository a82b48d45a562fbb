"""``loop-local-closed``: a shared value, closed by one user for all others."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from mypy.nodes import LDEF, AssignmentExpr, AwaitExpr, CallExpr, FuncItem, MemberExpr, NameExpr, RefExpr, Var, WithStmt
from mypy.types import CallableType, Instance, get_proper_type

from ._bindings import bindings
from ._call_site import innermost_function, is_unreachable, path_of
from ._marker import quoted
from ._shared_values import CLOSING, Giver, SharedValues
from ._tree import parts

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.nodes import Expression, Node
    from mypy.plugin import MethodContext

_RELEASE = frozenset(
    f"asyncio_loop_local.{module}{name}"
    for module, name in [("", "release"), ("_release.", "release"), ("", "release_all"), ("_release.", "release_all")]
)
_AENTER = "__aenter__"
METHODS = frozenset({*CLOSING, _AENTER})
_VALUES = (NameExpr, AwaitExpr, AssignmentExpr)


def finding(ctx: MethodContext, api: TypeChecker) -> str | None:
    """Return the error message about a call of one of ``METHODS``; None if it closes no shared value."""
    closing, function = _closing(ctx, api), innermost_function(api)
    if closing is None or function is None or not function.is_coroutine:  # no other function gets such a value
        return None
    value, code = closing
    path = path_of(value, api)
    giver = _giver(value, path, api)
    if giver is None or giver.may_be_closed or is_unreachable(path, api) or any(map(_releases, path[:1])):
        return None
    return (
        f'"{code}" closes the value of {quoted(giver.name)} for all others that use it: '
        "leave that to the end of the loop or to release(), or use valid=... to say when a new one is made"
    )


def _releases(node: Node) -> bool:
    """Tell whether a part of a node makes factories forget their values. What was one of them can be closed then."""
    if isinstance(node, CallExpr) and isinstance(node.callee, RefExpr) and node.callee.fullname in _RELEASE:
        return True
    return any(map(_releases, parts(node)))


def _closing(ctx: MethodContext, api: TypeChecker) -> tuple[Expression, str] | None:
    """Return the expression whose value is closed, and the code that does so."""
    node = ctx.context
    if isinstance(node, CallExpr):
        method = node.callee
        if isinstance(method, MemberExpr) and isinstance(method.expr, _VALUES) and _closes_its_object(method, api):
            value = _written(method.expr)
            return method.expr, f"{value if isinstance(method.expr, NameExpr) else f'({value})'}.{method.name}()"
    elif isinstance(node, _VALUES) and _is_closed_by_a_block(ctx):
        return node, f"async with {_written(node)}"
    return None


def _closes_its_object(method: MemberExpr, api: TypeChecker) -> bool:
    """Tell whether a method closes the object that has it. One that needs an argument closes something else: that argument."""
    signature = get_proper_type(api.lookup_type(method)) if api.has_type(method) else None
    needs_argument = isinstance(signature, CallableType) and signature.min_args > 0
    return method.name in CLOSING and not needs_argument


def _written(value: Expression) -> str:
    """Return a variable's name without the marks by which mypy tells variables of one name apart, of several blocks."""
    return value.name.rstrip("'") if isinstance(value, NameExpr) else "await ..."


def _is_closed_by_a_block(ctx: MethodContext) -> bool:
    """Tell whether a block of the value itself closes it: it gives the value again, and can be closed. A lock gives nothing."""
    value, entered = get_proper_type(ctx.type), get_proper_type(ctx.default_return_type)
    if not isinstance(value, Instance) or not isinstance(entered, Instance) or not entered.args:
        return False
    given = get_proper_type(entered.args[-1])
    return given == value and any(value.type.get(name) is not None for name in CLOSING)


def _giver(value: Expression, path: list[Node], api: TypeChecker) -> Giver | None:
    """Return what gave the value, if that is shared."""
    shared = SharedValues(api)
    if not isinstance(value, NameExpr):
        return shared.of_value(value)
    if not isinstance(value.node, Var) or value.kind != LDEF:  # other functions can set a global variable
        return None
    for node, part in reversed(list(pairwise(path))):
        if isinstance(node, WithStmt) and part is node.body:
            for entered, target in zip(node.expr, node.target, strict=True):
                if isinstance(target, NameExpr) and target.node is value.node:
                    is_set_anew = any(True for _ in bindings(value.node, node.body))
                    return None if is_set_anew or not node.is_async else shared.of_block(entered)
    function = next((node for node in path if isinstance(node, FuncItem)), None)
    if function is None or _is_set_by_others(value.node, function, api):
        return None
    return shared.of_variable(value.node, function)


def _is_set_by_others(var: Var, function: FuncItem, api: TypeChecker) -> bool:
    """Tell whether functions around this one set the variable, too, or others in them."""
    outermost = next(item for item in api.scope.stack if isinstance(item, FuncItem))
    return outermost is not function and len(list(bindings(var, outermost))) > len(list(bindings(var, function)))
