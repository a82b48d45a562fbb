"""The places that set a variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mypy.nodes import (
    AssignmentExpr,
    AssignmentStmt,
    DelStmt,
    ForStmt,
    ListExpr,
    MatchStmt,
    NameExpr,
    OperatorAssignmentStmt,
    StarExpr,
    TempNode,
    TryStmt,
    TupleExpr,
    WithStmt,
)

from ._tree import nodes_in, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.nodes import Expression, Node, Var
    from mypy.patterns import Pattern


class Binding(NamedTuple):
    """A place that sets a variable: to a value, or to that of an asynchronous block; None if it is another, or unset."""

    target: Node
    value: Expression | None = None
    entered: Expression | None = None


def bindings(var: Var, node: Node) -> Iterator[Binding]:
    """Return the places in a node that set a variable, without those that set it to ``None``."""
    for binding in _bindings(node):
        if isinstance(binding.target, NameExpr) and binding.target.node is var:
            yield binding
        elif any(isinstance(item, NameExpr) and item.node is var for item in _items(binding.target)):
            yield Binding(binding.target)
    for part in parts(node):
        yield from bindings(var, part)


def _bindings(node: Node) -> Iterator[Binding]:
    if isinstance(node, WithStmt):
        for entered, target in zip(node.expr, node.target, strict=True):
            if target is not None:
                yield Binding(target, entered=entered if node.is_async else None)
    elif isinstance(node, AssignmentStmt):
        if not is_none(node.rvalue):
            yield from (Binding(lvalue, node.rvalue) for lvalue in node.lvalues)
    elif isinstance(node, AssignmentExpr):
        yield Binding(node.target, node.value)
    elif isinstance(node, OperatorAssignmentStmt):
        yield Binding(node.lvalue)
    elif isinstance(node, ForStmt):
        yield Binding(node.index)
    elif isinstance(node, DelStmt):
        yield Binding(node.expr)
    elif isinstance(node, TryStmt):
        yield from (Binding(var) for var in nodes_in(node.vars))
    elif isinstance(node, MatchStmt):
        yield from (Binding(var) for pattern in node.patterns for var in _captured_by(pattern))


def is_none(value: Expression) -> bool:
    """Tell whether a value is None, or missing: that of ``session: Session``."""
    return isinstance(value, TempNode) or (isinstance(value, NameExpr) and value.fullname == "builtins.None")


_CAPTURING = ("name", "capture", "rest")
_INSIDE_A_PATTERN = ("pattern", "patterns", "values", "positionals", "keyword_values")


def _captured_by(pattern: Pattern) -> Iterator[Node]:
    yield from nodes_in([getattr(pattern, attribute, None) for attribute in _CAPTURING])
    for attribute in _INSIDE_A_PATTERN:
        inside: list[Pattern] | Pattern | None = getattr(pattern, attribute, None)
        for part in inside if isinstance(inside, list) else [inside]:
            if part is not None:
                yield from _captured_by(part)


def _items(target: Node) -> Iterator[Node]:
    if isinstance(target, TupleExpr | ListExpr):
        for item in target.items:
            yield from (item, *_items(item))
    elif isinstance(target, StarExpr):
        yield from (target.expr, *_items(target.expr))
