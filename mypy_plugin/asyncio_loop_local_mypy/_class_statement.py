"""What a class statement says that no cache of mypy keeps: its decorators, ``eq=False``, ``if TYPE_CHECKING``. It is noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import CallExpr, IfStmt, MemberExpr, NameExpr
from mypy.reachability import MYPY_FALSE, MYPY_TRUE, infer_condition_value

if TYPE_CHECKING:
    from mypy.nodes import ClassDef, Expression, TypeInfo
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


def note(statement: ClassDef, options: Options) -> None:
    """Note it in the class's metadata, which every cache keeps."""
    decorators = set(map(_name, statement.decorators)) - _RETURN_THE_CLASS
    notes = {
        _IS_REPLACED: not decorators <= _GENERATE or _is_partly_hidden(statement, options),
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
