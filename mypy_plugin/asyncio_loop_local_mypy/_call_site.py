"""Whether a call is in the source, since mypy makes some up, and whether mypy knows that it is never reached."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

from mypy.nodes import ConditionalExpr, FuncItem, IfStmt, Node, OpExpr
from mypy.reachability import MYPY_FALSE, MYPY_TRUE, infer_condition_value
from mypy.types import UninhabitedType, get_proper_type

from ._tree import path_to

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.nodes import Expression
    from mypy.types import Type


def path_of(expression: Expression, api: TypeChecker) -> list[Node]:
    """Return the nodes from the innermost function, or a statement of the module, down to an expression that is being checked.

    It is empty if the expression is not in the source: mypy makes up a call for ``functools.partial(function, argument)``.
    """
    function = innermost_function(api)
    roots: list[Node] = list(api.tree.defs) if function is None else [function]
    paths = (path_to(expression, root) for root in roots)
    return next((path for path in paths if path), list[Node]())


def innermost_function(api: TypeChecker) -> FuncItem | None:
    """Return the function whose code mypy is checking; None for that of a module or a class outside functions."""
    return next((item for item in reversed(api.scope.stack) if isinstance(item, FuncItem)), None)


def is_unreachable(path: list[Node], api: TypeChecker) -> bool:
    """Tell whether the end of a path is known never to run. mypy looks into such code too, and discards its own errors."""
    return api.binder.is_unreachable() or any(_is_skipped(part, node, api) for node, part in pairwise(path))


def _is_skipped(part: Node, node: Node, api: TypeChecker) -> bool:
    """Tell whether a node is known never to evaluate this part of it."""
    if isinstance(node, IfStmt):
        return _is_for_checkers(part, node, api)
    if isinstance(node, ConditionalExpr) and part is not node.cond:
        condition, wanted = node.cond, part is node.if_expr
    elif isinstance(node, OpExpr) and node.op in {"and", "or"} and part is not node.left:
        condition, wanted = node.left, node.op == "and"
    else:
        return False
    if not api.has_type(condition):
        return False
    both = api.find_isinstance_check(condition)
    narrowed = cast("dict[Expression, Type] | None", both[0 if wanted else 1])  # up to mypy 1.19, it can be None
    return narrowed is None or any(isinstance(get_proper_type(typ), UninhabitedType) for typ in narrowed.values())


def _is_for_checkers(part: Node, statement: IfStmt, api: TypeChecker) -> bool:
    """Tell whether a part of a statement is a branch that only checkers see."""
    values = [infer_condition_value(condition, api.options) for condition in statement.expr]
    if part is statement.else_body:
        return MYPY_FALSE in values
    return any(part is body and value == MYPY_TRUE for body, value in zip(statement.body, values, strict=True))
