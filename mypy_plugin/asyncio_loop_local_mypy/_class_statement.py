"""What a class statement says that no cache of mypy keeps: its decorators, ``eq=False``, ``if TYPE_CHECKING``. It is noted."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from mypy.nodes import Block, CallExpr, IfStmt, MemberExpr, MypyFile, NameExpr, Statement
from mypy.reachability import MYPY_FALSE, MYPY_TRUE, infer_condition_value

from ._tree import parts

if TYPE_CHECKING:
    from mypy.nodes import ClassDef, Expression, Node, TypeInfo
    from mypy.options import Options

_NOTES = "asyncio_loop_local"
_IS_REPLACED = "may_be_replaced"
_IS_GENERATED = "is_generated"
_WITHOUT_EQ = "without_eq"

# These decorators return the class itself.
_RETURN_THE_CLASS = frozenset(
    {"final", "runtime_checkable", "deprecated", "disjoint_base", "type_check_only", "dataclass_transform"}
)
# So do these, or they make another one with the same methods, if they are those of dataclasses and attrs. What they add is known.
_GENERATE = frozenset({"dataclass", "define", "frozen", "mutable", "s", "attrs", "attributes"})


def note(statement: ClassDef, module: MypyFile | None, options: Options) -> None:
    """Note it in the class's metadata, which every cache keeps."""
    decorators = set(map(_name, statement.decorators)) - _RETURN_THE_CLASS
    notes = {
        _IS_REPLACED: (
            not decorators <= _GENERATE or _is_partly_hidden(statement, options) or _is_for_checkers(statement, module, options)
        ),
        _IS_GENERATED: bool(decorators),
        _WITHOUT_EQ: _is_false(statement.keywords.get("eq")) or any(map(_has_eq_false, statement.decorators)),
    }
    if any(notes.values()):
        statement.info.metadata[_NOTES] = notes


def may_be_replaced(info: TypeInfo) -> bool:
    """Tell whether something else may stand in the place of the class at run time, or one with other methods."""
    return _noted(info, _IS_REPLACED) or (_noted(info, _IS_GENERATED) and not is_generated(info))


def is_generated(info: TypeInfo) -> bool:
    """Tell whether a class is a dataclass, an attrs class or similar."""
    return "dataclass" in info.metadata or "attrs" in info.metadata


def is_without_eq(info: TypeInfo) -> bool:
    """Tell whether the class says ``eq=False``, as a dataclass can, or what resembles one."""
    return _noted(info, _WITHOUT_EQ)


def _is_for_checkers(statement: ClassDef, module: MypyFile | None, options: Options) -> bool:
    """Tell whether only checkers see a class: at run time, another may have its name."""
    node: Node | None = module if statement.column > 0 else None  # all others are in no branch
    while node is not None and node is not statement:
        if isinstance(node, IfStmt) and _is_about_checkers(node, options):
            return True
        node = _part_with(statement.line, node)
    return False


def _part_with(line: int, node: Node) -> Node | None:
    """Return the statement, or list of statements, directly inside a node in which a line is."""
    if isinstance(node, MypyFile):
        candidates: list[Statement] = node.defs
    elif isinstance(node, Block):
        candidates = node.body
    else:
        candidates = sorted((part for part in parts(node) if isinstance(part, Statement)), key=lambda part: part.line)
    after = bisect_right(candidates, line, key=lambda part: part.line)
    return candidates[after - 1] if after else None


def _is_partly_hidden(statement: ClassDef, options: Options) -> bool:
    """Tell whether a part of a class is hidden from checkers. It can define anything."""
    branches = [part for part in statement.defs.body if isinstance(part, IfStmt)]
    return any(_is_about_checkers(branch, options) and _has_skipped_code(branch) for branch in branches)


def _is_about_checkers(branch: IfStmt, options: Options) -> bool:
    return any(infer_condition_value(condition, options) in {MYPY_TRUE, MYPY_FALSE} for condition in branch.expr)


def _has_skipped_code(branch: IfStmt) -> bool:
    return any(block is not None and block.is_unreachable and block.body for block in (*branch.body, branch.else_body))


def _noted(info: TypeInfo, name: str) -> bool:
    return bool(info.metadata.get(_NOTES, {}).get(name))


def _name(decorator: Expression) -> str:
    function = decorator.callee if isinstance(decorator, CallExpr) else decorator
    return function.name if isinstance(function, NameExpr | MemberExpr) else ""


def _has_eq_false(decorator: Expression) -> bool:
    if not isinstance(decorator, CallExpr):
        return False
    return any(name == "eq" and _is_false(value) for name, value in zip(decorator.arg_names, decorator.args, strict=True))


def _is_false(value: Expression | None) -> bool:
    return isinstance(value, NameExpr) and value.name == "False"
