"""``loop-local-fresh-key``: an argument that is a new object at every call, equal to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import (
    AssignmentExpr,
    CallExpr,
    CastExpr,
    ConditionalExpr,
    DictExpr,
    FuncDef,
    GeneratorExpr,
    Import,
    ImportFrom,
    LambdaExpr,
    ListExpr,
    MemberExpr,
    NameExpr,
    OpExpr,
    RefExpr,
    SetExpr,
    StarExpr,
    TupleExpr,
)
from mypy.types import FunctionLike, get_proper_type

from ._freshness import makes_fresh_instances
from ._symbols import is_in_stub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy.checker import TypeChecker
    from mypy.nodes import ArgKind, Expression, ImportBase, TypeInfo

_FIX = "create it once and pass that one, create it inside the factory, or use key=... to say which calls are the same"


def finding(argument: Expression, kind: ArgKind, api: TypeChecker) -> str | None:
    """Return the end of an error message that begins with the argument; None if the expression makes no new object."""
    if kind.is_star() and not isinstance(argument, _DISPLAYS):  # its items are passed, and they are unknown
        return None
    new = _first_new(argument, api)
    if new is None:
        return None
    verb = "holds" if isinstance(argument, _DISPLAYS) else "is"
    return f"{verb} a new {new} at every call, equal to no other, so each call makes a value of its own: {_FIX}"


_DISPLAYS = (TupleExpr, ListExpr, SetExpr, DictExpr)


def _first_new(expression: Expression, api: TypeChecker) -> str | None:
    if isinstance(expression, LambdaExpr):
        return "lambda"
    if isinstance(expression, GeneratorExpr):
        return "generator"
    if isinstance(expression, CallExpr) and not isinstance(expression.analyzed, CastExpr):
        made = _class_called(expression, api)
        if made is None:
            return _made_by_function(expression.callee, api)
        if made.is_newtype:  # it returns its argument
            return _first_new(expression.args[0], api) if len(expression.args) == 1 else None
        return f'"{made.name}"' if makes_fresh_instances(made, api.modules) else None
    for part in _parts(expression):
        new = _first_new(part, api)
        if new is not None:
            return new
    return None


def _made_by_function(callee: Expression, api: TypeChecker) -> str | None:
    """Return what a function makes that has nothing around it: each call of a generator function makes a new generator."""
    function = callee.node if isinstance(callee, RefExpr) else None
    if not isinstance(function, FuncDef) or function.info or is_in_stub(function.fullname, api.modules):
        return None
    if function.is_async_generator or function.is_generator:
        return "generator"
    return "coroutine" if function.is_coroutine else None


def _parts(expression: Expression) -> Iterable[Expression]:
    """Return the expressions that can be the value of this one, or an item of it."""
    if isinstance(expression, TupleExpr | ListExpr | SetExpr):
        return expression.items
    if isinstance(expression, DictExpr):
        return [part for item in expression.items for part in item if part is not None]
    if isinstance(expression, ConditionalExpr):
        return [expression.if_expr, expression.else_expr]
    if isinstance(expression, OpExpr) and expression.op in {"or", "and"}:
        return [expression.right] if expression.op == "and" else [expression.left, expression.right]
    if isinstance(expression, AssignmentExpr):
        return [expression.value]
    if isinstance(expression, CallExpr) and isinstance(expression.analyzed, CastExpr):
        return [expression.analyzed.expr]
    if isinstance(expression, StarExpr):  # the items are known only of a display
        return _parts(expression.expr) if isinstance(expression.expr, _DISPLAYS) else []
    return []


def _class_called(call: CallExpr, api: TypeChecker) -> TypeInfo | None:
    if call.analyzed is not None:  # a cast, or a special form such as NewType
        return None
    callee = get_proper_type(api.lookup_type(call.callee)) if api.has_type(call.callee) else None
    if not isinstance(callee, FunctionLike) or not callee.is_type_obj():
        return None
    if any(item.from_type_type for item in callee.items):  # a variable of type `type[X]`, which may be a subclass
        return None
    return None if _is_imported_for_checkers(call.callee, api) else callee.type_object()


def _is_imported_for_checkers(name: Expression, api: TypeChecker) -> bool:
    """Tell whether only checkers see the import of a name. At run time, the name of a call is of something else."""
    while isinstance(name, MemberExpr):
        name = name.expr
    imports = [each for each in api.tree.imports if each.is_mypy_only]
    return isinstance(name, NameExpr) and any(name.name in _names_of(each) for each in imports)


def _names_of(statement: ImportBase) -> set[str]:
    """Return the names that an import sets."""
    if isinstance(statement, ImportFrom):
        return {new or name for name, new in statement.names}
    if isinstance(statement, Import):
        return {new or name.partition(".")[0] for name, new in statement.ids}
    return set()
