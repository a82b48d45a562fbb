"""What a name that mypy gives to a hook stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import Decorator, OverloadedFuncDef, TypeInfo, Var

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy.nodes import MypyFile, SymbolNode, SymbolTableNode

    Lookup = Callable[[str], SymbolTableNode | None]


def find(lookup: Lookup, fullname: str) -> SymbolNode | None:
    """What a full name stands for."""
    symbol = lookup(fullname)
    if symbol is None:
        class_name, _, attribute = fullname.rpartition(".")
        owner = lookup(class_name)
        if owner is None or not isinstance(owner.node, TypeInfo):
            return None
        symbol = owner.node.get(attribute)  # along the MRO: mypy names the subclass that a call goes through
    return None if symbol is None else symbol.node


def variable(node: SymbolNode | None) -> Var | None:
    """The variable or attribute that a symbol is, or that a decorated function is in; None for what is none of them."""
    if isinstance(node, OverloadedFuncDef):  # whose own type is that of its overloads
        node = node.impl
    if isinstance(node, Decorator):
        return node.var
    return node if isinstance(node, Var) else None


def in_stub_file(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    """A class of whose methods only the signatures are known."""
    module = modules.get(info.module_name)
    return module is not None and module.is_stub
