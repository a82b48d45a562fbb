"""Which expressions give a value that a loop's tasks share, and that is closed with the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mypy.nodes import (
    AssignmentExpr,
    AssignmentStmt,
    AwaitExpr,
    CallExpr,
    DelStmt,
    ForStmt,
    ListExpr,
    MatchStmt,
    NameExpr,
    OperatorAssignmentStmt,
    RefExpr,
    StarExpr,
    TryStmt,
    TupleExpr,
    Var,
    WithStmt,
)
from mypy.types import FunctionLike, Instance, UnionType, get_proper_type

from ._marker import VALID, marker_of
from ._symbols import referred_to, variable
from ._tree import nodes_in, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.nodes import Expression, Node
    from mypy.patterns import Pattern
    from mypy.types import Type

_STICKY_ACM = "asyncio_loop_local._sticky_acm.StickyACM"
_ENTER = {
    f"asyncio_loop_local.{module}{name}": name
    for module, name in [("", "enter"), ("_enter.", "enter"), ("", "enter_once"), ("_enter.", "enter_once")]
}
_BLOCK_OF = {"asyncio_loop_local.sticky_acm": "sticky_acm", "asyncio_loop_local._sticky.sticky_acm": "sticky_acm"}
CLOSING = ("close", "aclose")


class Giver(NamedTuple):
    """What gave a shared value: its name for errors, and whether it was given ``valid``."""

    name: str
    has_valid: bool


def of_block(entered: Expression) -> Giver | None:
    """Return what ``async with`` this expression gets its value from; None if that is not known to be shared."""
    return _called(entered, _BLOCK_OF)


def of_await(awaited: Expression) -> Giver | None:
    """Return what ``await`` of this expression gets its value from; None if that is not known to live as long as the loop."""
    return _called(awaited, _ENTER)


def _called(call: Expression, functions: dict[str, str]) -> Giver | None:
    if not isinstance(call, CallExpr) or not isinstance(call.callee, RefExpr):
        return None
    if call.callee.fullname in functions:
        return Giver(functions[call.callee.fullname], has_valid=False)
    var = variable(referred_to(call.callee))
    function = None if var is None else get_proper_type(var.type)
    marker = marker_of(function)
    if marker is None or marker.is_decorator or not isinstance(function, FunctionLike):
        return None
    made = get_proper_type(function.items[0].ret_type)
    is_sticky = isinstance(made, Instance) and made.type.fullname == _STICKY_ACM
    return Giver(marker.name, marker.given == VALID) if is_sticky else None


def bindings(var: Var, node: Node) -> Iterator[Giver | None]:
    """Return what gives a variable its value, for each place in a node that sets it; None where that may be anything else."""
    for target, giver in _set_by(node):
        if isinstance(target, NameExpr) and target.node is var:
            yield giver
        elif any(isinstance(item, NameExpr) and item.node is var for item in _items(target)):
            yield None
    for part in parts(node):
        yield from bindings(var, part)


def _set_by(node: Node) -> Iterator[tuple[Node, Giver | None]]:
    if isinstance(node, WithStmt):
        for entered, target in zip(node.expr, node.target, strict=True):
            if target is not None:
                yield target, of_block(entered) if node.is_async else None
    elif isinstance(node, AssignmentStmt):
        giver = of_await(node.rvalue.expr) if isinstance(node.rvalue, AwaitExpr) else None
        yield from ((lvalue, giver) for lvalue in node.lvalues)
    elif isinstance(node, OperatorAssignmentStmt):
        yield node.lvalue, None
    elif isinstance(node, ForStmt):
        yield node.index, None
    elif isinstance(node, DelStmt):
        yield node.expr, None
    elif isinstance(node, AssignmentExpr):
        yield node.target, None
    elif isinstance(node, TryStmt):
        yield from ((var, None) for var in nodes_in(node.vars))
    elif isinstance(node, MatchStmt):
        yield from ((var, None) for pattern in node.patterns for var in _captured_by(pattern))


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


def can_be_closed(typ: Type) -> bool:
    """Tell whether a value is something that ends with its loop, as far as its type shows: it can be closed, or exited."""
    proper = get_proper_type(typ)
    if isinstance(proper, UnionType):
        return any(can_be_closed(item) for item in proper.items)
    if not isinstance(proper, Instance):
        return False
    return any(proper.type.get(name) is not None for name in (*CLOSING, "__aexit__", "__exit__"))
