"""The parts of a syntax tree. mypy's own visitors are compiled, and no plugin can inherit from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mypy.nodes import (
    AssignmentStmt,
    ClassDef,
    Decorator,
    Expression,
    FuncItem,
    ListComprehension,
    OverloadedFuncDef,
    SetComprehension,
    Statement,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.nodes import Node


def parts(node: Node) -> Iterator[Node]:
    """Return the expressions and statements directly inside a node, in no particular order."""
    if isinstance(node, FuncItem):
        yield from defaults(node)
        yield node.body
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
    elif isinstance(node, ListComprehension | SetComprehension):
        yield node.generator
    else:
        yield from nodes_in([getattr(node, part, None) for part in getattr(node, "__match_args__", ()) if part != "node"])


def defaults(function: FuncItem) -> Iterator[Expression]:
    """Return the defaults of a function's parameters."""
    return (argument.initializer for argument in function.arguments if argument.initializer is not None)


def nodes_in(value: object) -> Iterator[Node]:
    """Return the nodes in an attribute of a node, which can be a list, of lists too."""
    if isinstance(value, Expression | Statement):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast("list[object] | tuple[object, ...]", value):
            yield from nodes_in(item)


def path_to(target: Node, node: Node) -> list[Node]:
    """Return the nodes from one down to a part of it, both included; empty if it is no part."""
    if node is target:
        return [node]
    for part in parts(node):
        if isinstance(part, Statement) and part.end_line is not None and part.end_line < target.line:
            continue
        path = path_to(target, part)
        if path:
            return [node, *path]
    return []
