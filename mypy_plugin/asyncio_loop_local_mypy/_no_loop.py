"""``loop-local-no-loop``: a call that runs while its module is imported, when no event loop is running."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from mypy.nodes import (
    AssignmentStmt,
    ClassDef,
    Decorator,
    Expression,
    FuncItem,
    GeneratorExpr,
    IfStmt,
    ListComprehension,
    Node,
    OverloadedFuncDef,
    SetComprehension,
    Statement,
)
from mypy.reachability import MYPY_TRUE, infer_condition_value

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.nodes import CallExpr
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
    """Tell whether the call runs when this node runs. Searches only nodes that are known to run, so doubt gives no report."""
    return node is call or any(_runs(part, call, options) for part in _run_with(node, options))


def _run_with(node: Node, options: Options) -> Iterator[Node]:
    if isinstance(node, FuncItem):  # its body runs later
        yield from (argument.initializer for argument in node.arguments if argument.initializer is not None)
    elif isinstance(node, Decorator):
        yield from (*node.decorators, node.func)
    elif isinstance(node, OverloadedFuncDef):
        yield from node.items
        if node.impl is not None:
            yield node.impl
    elif isinstance(node, ClassDef):
        yield from (*node.decorators, *node.base_type_exprs, *node.keywords.values(), node.defs)
    elif isinstance(node, AssignmentStmt):
        yield from (node.rvalue, *node.lvalues)
    elif isinstance(node, IfStmt):
        yield from node.expr
        yield from (
            block
            for condition, block in zip(node.expr, node.body, strict=True)
            if infer_condition_value(condition, options) != MYPY_TRUE  # if TYPE_CHECKING
        )
        if node.else_body is not None:
            yield node.else_body
    elif isinstance(node, GeneratorExpr):
        yield node.sequences[0]  # the rest runs when the first item is requested
    elif isinstance(node, ListComprehension | SetComprehension):
        yield from _nodes_in([getattr(node.generator, part) for part in node.generator.__match_args__])
    else:
        yield from _nodes_in([getattr(node, part, None) for part in getattr(node, "__match_args__", ()) if part != "node"])


def _nodes_in(value: object) -> Iterator[Node]:
    if isinstance(value, Expression | Statement):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast("list[object] | tuple[object, ...]", value):
            yield from _nodes_in(item)
