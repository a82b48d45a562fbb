"""Look-up of the names that mypy passes to a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import Decorator, MemberExpr, OverloadedFuncDef, RefExpr, TypeInfo, Var
from mypy.types import Instance, get_proper_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy.nodes import MypyFile, SymbolNode, SymbolTableNode

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


def referred_to(reference: RefExpr) -> SymbolNode | None:
    """Return the symbol that a name or an attribute refers to. Of an attribute of an object, the tree itself does not say it."""
    if reference.node is not None or not isinstance(reference, MemberExpr) or not isinstance(reference.expr, RefExpr):
        return reference.node
    owner = variable(referred_to(reference.expr))
    typ = None if owner is None else get_proper_type(owner.type)
    symbol = typ.type.get(reference.name) if isinstance(typ, Instance) else None
    return None if symbol is None else symbol.node


def in_stub_file(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    """Tell whether a class is defined in a stub file, which has the signatures of its methods and not their code."""
    module = modules.get(info.module_name)
    return module is not None and module.is_stub


def in_source_file(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    """Tell whether a class is defined in a Python file, which has all that the class has."""
    module = modules.get(info.module_name)
    return module is not None and not module.is_stub
