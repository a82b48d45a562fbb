"""``loop-local-escape``: ``asyncio.run`` that returns a value which is closed when it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import AwaitExpr, CallExpr, ComparisonExpr, ExpressionStmt, FuncDef, FuncItem, NameExpr, RefExpr, ReturnStmt, Var

from . import _shared_values
from ._call_site import is_unreachable, path_of
from ._marker import quoted
from ._tree import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.checker import TypeChecker
    from mypy.nodes import Expression, Node
    from mypy.plugin import FunctionContext, MethodContext

RUN = frozenset({"asyncio.run", "asyncio.runners.run"})


def finding(ctx: FunctionContext | MethodContext, api: TypeChecker) -> str | None:
    """Return the error message about a call of ``asyncio.run``; None if it is not known to return a value that is closed."""
    call = ctx.context
    if not isinstance(call, CallExpr) or not ctx.args[0] or not _shared_values.can_be_closed(ctx.default_return_type):
        return None
    giver = _giver(ctx.args[0][0], api)
    path = path_of(call, api) if giver is not None else []
    if giver is None or len(path) < 2 or _is_not_used(path[-2]) or is_unreachable(path, api):
        return None
    return (
        f"asyncio.run() returns the value of {quoted(giver.name)}, which is closed with its loop: "
        "use the value inside the coroutine, and return what you need of it"
    )


def _is_not_used(node: Node) -> bool:
    """Tell whether what is evaluated directly in a node is let go: nobody takes it, or only its identity counts."""
    return isinstance(node, ExpressionStmt) or (isinstance(node, ComparisonExpr) and set(node.operators) <= {"is", "is not"})


def _giver(coroutine: Expression, api: TypeChecker) -> _shared_values.Giver | None:
    giver = _shared_values.of_await(coroutine)
    if giver is not None:
        return giver
    function = coroutine.callee.node if isinstance(coroutine, CallExpr) and isinstance(coroutine.callee, RefExpr) else None
    if not isinstance(function, FuncDef) or not function.is_coroutine or not _is_in(function, api):
        return None
    return next((giver for value in _returned(function.body) if (giver := _giver_of_value(value, function))), None)


def _is_in(function: FuncDef, api: TypeChecker) -> bool:
    """Tell whether a function is of the module that is being checked: of those of other modules, a cache has no code."""
    return function.fullname == f"{api.tree.fullname}.{function.name}"


def _returned(node: Node) -> Iterator[Expression]:
    for part in parts(node):
        if isinstance(part, ReturnStmt) and part.expr is not None:
            yield part.expr
        elif not isinstance(part, FuncItem):
            yield from _returned(part)


def _giver_of_value(value: Expression, function: FuncDef) -> _shared_values.Giver | None:
    """Return what gave a value that a function returns; None if it is not sure that something shared did."""
    if isinstance(value, AwaitExpr):
        return _shared_values.of_await(value.expr)
    if not isinstance(value, NameExpr) or not isinstance(value.node, Var):
        return None
    if any(argument.variable is value.node for argument in function.arguments):
        return None
    givers = list(_shared_values.bindings(value.node, function.body))
    return givers[0] if all(givers) and givers else None
