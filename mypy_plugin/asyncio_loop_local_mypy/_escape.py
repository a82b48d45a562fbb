"""``loop-local-escape``: a run of a loop that returns a value which is closed with that loop."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from mypy.nodes import (
    LDEF,
    AssignmentStmt,
    CallExpr,
    ComparisonExpr,
    ConditionalExpr,
    DictExpr,
    ExpressionStmt,
    FuncItem,
    ListExpr,
    MemberExpr,
    NameExpr,
    RefExpr,
    ReturnStmt,
    SetExpr,
    TupleExpr,
    Var,
    WithStmt,
)

from ._bindings import bindings
from ._call_site import is_unreachable, path_of
from ._marker import quoted
from ._shared_values import SharedValues, can_be_closed
from ._tree import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.checker import TypeChecker
    from mypy.nodes import Expression, Node
    from mypy.plugin import FunctionContext, MethodContext

_RUN = {
    "asyncio.run": "asyncio.run",
    "asyncio.runners.run": "asyncio.run",
    "uvloop.run": "uvloop.run",
    "anyio.run": "anyio.run",
    "anyio._core._eventloop.run": "anyio.run",
}
_RUNNER = frozenset({"asyncio.Runner", "asyncio.runners.Runner"})
_RUN_OF_RUNNER = "asyncio.runners.Runner.run"
_TAKES_A_FUNCTION = "anyio.run"
RUN = frozenset({*_RUN, _RUN_OF_RUNNER})


def finding(fullname: str, ctx: FunctionContext | MethodContext, api: TypeChecker) -> str | None:
    """Return the error message about a call of one of ``RUN``; None if it is not known to return a value that is closed."""
    call = ctx.context
    if not isinstance(call, CallExpr) or not ctx.args[0] or not can_be_closed(ctx.default_return_type):
        return None
    shared, given, name = SharedValues(api), ctx.args[0][0], _RUN.get(fullname, "asyncio.Runner.run")
    function = given if name == _TAKES_A_FUNCTION else given.callee if isinstance(given, CallExpr) else None
    givers = [] if function is None else shared.of_awaited_call(function)
    giver = next((giver for giver in givers if giver is not None), None)
    path = path_of(call, api) if giver is not None else []
    if giver is None or len(path) < 2 or _is_not_used(path, api) or is_unreachable(path, api):
        return None
    if fullname == _RUN_OF_RUNNER and not _outlives_its_runner(call, path, api):
        return None
    return (
        f"{name}() returns the value of {quoted(giver.name)}, which is closed with its loop: "
        "use the value inside the coroutine, and return what you need of it"
    )


def _is_not_used(path: list[Node], api: TypeChecker) -> bool:
    """Tell whether the value at the end of a path is let go, at once or by the variable that it is assigned to."""
    *_, node, _value = path
    variable = node.lvalues[0] if isinstance(node, AssignmentStmt) and len(node.lvalues) == 1 else None
    if not isinstance(variable, NameExpr):
        return _lets_go(node)
    users = [user for _, user in _uses(variable, path, api)]
    is_used_here_only = bool(users) or variable.kind == LDEF or variable.name == "_"  # other modules can use a global variable
    return is_used_here_only and all(map(_lets_go, users))


def _lets_go(user: Node) -> bool:
    """Tell whether a node does not use what is evaluated directly in it, but as something that is closed, or by its identity."""
    if isinstance(user, ComparisonExpr):
        return set(user.operators) <= {"is", "is not", "==", "!="}
    if isinstance(user, CallExpr):
        asks = user.callee.name if isinstance(user.callee, NameExpr | MemberExpr) else ""
        return asks in {"isinstance", "type", "id"} or asks.startswith("assertIs")
    if isinstance(user, MemberExpr):
        return "closed" in user.name or "closing" in user.name
    return isinstance(user, ExpressionStmt)


def _outlives_its_runner(call: CallExpr, path: list[Node], api: TypeChecker) -> bool:
    """Tell whether the value of ``runner.run()`` is used after the block of the runner, or there is none.

    In the block, the loop is open, and so is the value.
    """
    runner = call.callee.expr if isinstance(call.callee, MemberExpr) else None
    if isinstance(runner, CallExpr):
        return _makes_runner(runner)
    block = _block_of(runner, path)
    if block is None:
        return False
    statement, *inside = path[path.index(block) + 2 :]  # of the block and its list of statements
    for node, part in pairwise([statement, *inside]):
        if isinstance(node, ReturnStmt):
            return all(isinstance(each, _PASSING_ON) for each in inside[inside.index(part) : -1])
        if isinstance(node, AssignmentStmt) and part is call and len(node.lvalues) == 1:
            return _is_used_after(block, node.lvalues[0], path, api)
    return False


_PASSING_ON = (TupleExpr, ListExpr, SetExpr, DictExpr, ConditionalExpr)


def _makes_runner(call: CallExpr) -> bool:
    return isinstance(call.callee, RefExpr) and call.callee.fullname in _RUNNER


def _block_of(runner: Expression | None, path: list[Node]) -> WithStmt | None:
    """Return the block that ends a runner, if the runner was made for it."""
    if not isinstance(runner, NameExpr):
        return None
    for node, part in pairwise(path):
        if isinstance(node, WithStmt) and part is node.body:
            for made, target in zip(node.expr, node.target, strict=True):
                if isinstance(target, NameExpr) and target.node is runner.node:
                    return node if isinstance(made, CallExpr) and _makes_runner(made) else None
    return None


def _is_used_after(block: WithStmt, variable: Expression, path: list[Node], api: TypeChecker) -> bool:
    """Tell whether code after a block uses a variable that only one statement sets, which is in the block."""
    if not isinstance(variable, NameExpr) or not isinstance(variable.node, Var) or block.end_line is None:
        return False
    is_set_once = sum(len(list(bindings(variable.node, root))) for root in _scope(path, api)) == 1
    return is_set_once and any(name.line > block.end_line for name, _ in _uses(variable, path, api))


def _scope(path: list[Node], api: TypeChecker) -> list[Node]:
    """Return the function that a path is in, or the statements of the module."""
    return [path[0]] if isinstance(path[0], FuncItem) else list(api.tree.defs)


def _uses(variable: Expression, path: list[Node], api: TypeChecker) -> Iterator[tuple[NameExpr, Node]]:
    """Return the uses of a variable in the function or the module of a path, each with the node directly around it."""
    if isinstance(variable, NameExpr) and isinstance(variable.node, Var):
        for root in _scope(path, api):
            yield from _uses_in(root, variable.node)


def _uses_in(node: Node, var: Var) -> Iterator[tuple[NameExpr, Node]]:
    for part in parts(node):
        if not isinstance(part, NameExpr):
            yield from _uses_in(part, var)
        elif part.node is var and not (isinstance(node, AssignmentStmt) and part in node.lvalues):
            yield part, node
