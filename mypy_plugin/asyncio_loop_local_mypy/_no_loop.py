"""``loop-local-no-loop``: a call that runs while its module is imported, when no event loop is running."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mypy.nodes import (
    CallExpr,
    ConditionalExpr,
    Expression,
    FuncItem,
    GeneratorExpr,
    IfStmt,
    ListComprehension,
    MemberExpr,
    NameExpr,
    Node,
    OpExpr,
    SetComprehension,
    Statement,
    TryStmt,
    TupleExpr,
    WhileStmt,
    WithStmt,
)
from mypy.reachability import ALWAYS_FALSE, ALWAYS_TRUE, MYPY_FALSE, MYPY_TRUE, infer_condition_value

from ._tree import defaults, nodes_in, parts

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.options import Options


def finding(call: CallExpr, api: TypeChecker) -> str | None:
    """Return the end of an error message that begins with the factory; None if the call does not run on import."""
    if any(isinstance(item, FuncItem) for item in api.scope.stack):
        return None
    statements = (statement for statement in api.tree.defs if _may_hold(statement, call))
    if not any(_runs(statement, call, api.options) for statement in statements):
        return None
    return (
        "is called while the module is imported, when no event loop is running: "
        "call it in a coroutine, or in a function that a coroutine calls"
    )


def _may_hold(statement: Statement, call: CallExpr) -> bool:
    last_line = statement.end_line
    return last_line is None or call.line <= last_line


def _runs(node: Node, call: CallExpr, options: Options) -> bool:
    """Tell whether the call runs when this node runs. Searches each branch that can run on import."""
    return node is call or any(_runs(part, call, options) for part in _run_with(node, options))


def _run_with(node: Node, options: Options) -> Iterator[Node]:
    if isinstance(node, FuncItem):  # its body runs later
        yield from defaults(node)
    elif isinstance(node, IfStmt):
        yield from _run_of_branches(list(zip(node.expr, node.body, strict=True)), node.else_body, options)
    elif isinstance(node, ConditionalExpr):
        yield from _run_of_branches([(node.cond, node.if_expr)], node.else_expr, options)
    elif isinstance(node, WhileStmt):
        yield from _run_of_branches([(node.expr, node.body)], None, options)
        yield from nodes_in(node.else_body)
    elif isinstance(node, OpExpr) and node.op == "and":
        yield from _run_of_branches([(node.left, node.right)], None, options)
    elif isinstance(node, OpExpr) and node.op == "or":
        yield from _run_of_branches([(node.left, None)], node.right, options)
    elif isinstance(node, ListComprehension | SetComprehension):
        yield from parts(node.generator)
    elif isinstance(node, TryStmt) and any(map(_catches_it, node.types)):
        yield from nodes_in([node.handlers, node.finally_body])
    elif isinstance(node, WithStmt) and any(map(_suppresses, node.expr)):
        yield from node.expr
    elif isinstance(node, GeneratorExpr):
        yield node.sequences[0]  # the rest runs when the first item is requested
    else:
        yield from parts(node)


def _catches_it(caught: Expression | None) -> bool:
    """Tell whether an ``except`` catches the error that such a call raises. What runs there is meant to fail."""
    if isinstance(caught, TupleExpr):
        return any(map(_catches_it, caught.items))
    return caught is None or (isinstance(caught, NameExpr) and caught.name in {"RuntimeError", "Exception", "BaseException"})


def _suppresses(entered: Expression) -> bool:
    """Tell whether a block is one of ``contextlib.suppress`` or ``pytest.raises``, by its name."""
    called = entered.callee if isinstance(entered, CallExpr) else None
    return isinstance(called, NameExpr | MemberExpr) and called.name in {"suppress", "raises"}


def _run_of_branches(branches: list[tuple[Expression, Node | None]], otherwise: Node | None, options: Options) -> Iterator[Node]:
    """Return what can run, of branches with a condition each, and of what runs if none of them holds."""
    for condition, branch in branches:
        yield condition
        value = infer_condition_value(condition, options)
        if branch is not None and value not in {MYPY_TRUE, ALWAYS_FALSE}:  # if TYPE_CHECKING
            yield branch
        if value in {MYPY_FALSE, ALWAYS_TRUE}:  # if not TYPE_CHECKING
            return
    if otherwise is not None:
        yield otherwise
