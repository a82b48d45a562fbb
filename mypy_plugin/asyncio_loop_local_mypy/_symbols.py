"""Look-up of the names that mypy passes to a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import Decorator, MemberExpr, OverloadedFuncDef, RefExpr, TypeInfo, Var
from mypy.types import FunctionLike, Instance, TypeType, TypeVarType, get_proper_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy.checker import TypeChecker
    from mypy.nodes import Expression, MypyFile, SymbolNode, SymbolTableNode
    from mypy.types import ProperType

    Lookup = Callable[[str], SymbolTableNode | None]


def find(lookup: Lookup, fullname: str) -> SymbolNode | None:
    """Return the node that a full name refers to; None if there is none."""
    symbol = lookup(fullname)
    if symbol is None:
        class_name, _, attribute = fullname.rpartition(".")
        owner = lookup(class_name)
        if owner is None or not isinstance(owner.node, TypeInfo):
            return None
        symbol = owner.node.get(attribute)  # searches the MRO: mypy passes the subclass's name for an inherited attribute
    return None if symbol is None else symbol.node


def variable(node: SymbolNode | None) -> Var | None:
    """Return the variable of a symbol: a variable, an attribute or a decorated function; None for any other symbol."""
    if isinstance(node, OverloadedFuncDef):  # its own type has lost the mark, the implementation's has not
        node = node.impl
    if isinstance(node, Decorator):
        return node.var
    return node if isinstance(node, Var) else None


def referred_to(reference: RefExpr, api: TypeChecker) -> SymbolNode | None:
    """Return the symbol that a name or an attribute refers to. Of an attribute of an object, the tree itself does not say it."""
    if reference.node is not None or not isinstance(reference, MemberExpr):
        return reference.node
    owner = _class_of(type_of(reference.expr, api))
    symbol = None if owner is None else owner.get(reference.name)
    return None if symbol is None else symbol.node


def _class_of(typ: ProperType | None) -> TypeInfo | None:
    """Return the class in which an attribute of an object is looked up, of a class too."""
    if isinstance(typ, TypeType):
        typ = get_proper_type(typ.item)
    if isinstance(typ, FunctionLike) and typ.is_type_obj():
        return typ.type_object()
    return typ.type if isinstance(typ, Instance) else None


def type_of(expression: Expression, api: TypeChecker) -> ProperType | None:
    """Return the type of an expression: of an object of a class, that, also where it is known as a type variable's bound."""
    typ: ProperType | None = None
    if api.has_type(expression):
        typ = get_proper_type(api.lookup_type(expression))
    elif isinstance(expression, RefExpr):
        var = variable(referred_to(expression, api))
        typ = None if var is None else get_proper_type(var.type)
    return get_proper_type(typ.upper_bound) if isinstance(typ, TypeVarType) else typ


def in_stub_file(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    """Tell whether a class is defined in a stub file, which has the signatures of its methods and not their code."""
    module = modules.get(info.module_name)
    return module is not None and module.is_stub


def is_in_stub(fullname: str, modules: Mapping[str, MypyFile]) -> bool:
    """Tell whether a function of a module is defined in a stub file."""
    module = modules.get(fullname.rpartition(".")[0])
    return module is not None and module.is_stub


def in_source_file(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    """Tell whether a class is defined in a Python file, which has all that the class has."""
    module = modules.get(info.module_name)
    return module is not None and not module.is_stub
