"""Which static types can be no part of a key: neither hashable, nor counted by value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.maptype import map_instance_to_supertype
from mypy.nodes import TypeInfo, Var
from mypy.types import (
    Instance,
    NoneType,
    ProperType,
    TupleType,
    Type,
    TypedDictType,
    TypeVarType,
    UnionType,
    get_proper_type,
)

from ._symbols import in_stub_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mypy.nodes import MypyFile

# What the library counts by its items, or as bytes, and what hashes by its items.
_CONTAINERS = frozenset(
    {"builtins.dict", "builtins.list", "builtins.set", "builtins.bytearray", "collections.deque"}
    | {"builtins.tuple", "builtins.frozenset"}
)
# Stub files say of these, too, that they do not hash. They are written in Python, so they count by value; the last one hashes.
_COUNTED = frozenset(
    {
        "_frozen_importlib.ModuleSpec",
        "importlib.machinery.ModuleSpec",
        "_weakrefset.WeakSet",
        "argparse.Namespace",
        "collections.UserList",
        "email.charset.Charset",
        "email.header.Header",
        "email.headerregistry.Address",
        "email.headerregistry.Group",
        "inspect.BoundArguments",
        "lib2to3.pgen2.pgen.DFAState",
        "lib2to3.pytree.Base",
        "numbers.Complex",
        "optparse.Values",
        "tkinter.Variable",
        "tkinter.font.Font",
        "traceback.FrameSummary",
        "traceback.TracebackException",
        "typing.ParamSpecArgs",
        "typing.ParamSpecKwargs",
        "unittest.mock._ANY",
        "unittest.mock._Call",
        "unittest.suite.BaseTestSuite",
        "xml.dom.minidom.NamedNodeMap",
        "xmlrpc.client.Binary",
        "xmlrpc.client.DateTime",
        "decimal.Context",
    }
)


def uncountable_part(typ: Type, modules: Mapping[str, MypyFile]) -> ProperType | None:
    """The type itself, or one that it holds, if that can be no part of a key; None also where nothing is known."""
    return _Search(modules).find(typ)


class _Search:
    def __init__(self, modules: Mapping[str, MypyFile]) -> None:
        self._modules = modules
        self._seen: set[Type] = set()  # types may hold themselves

    def find(self, typ: Type) -> ProperType | None:
        if typ in self._seen:
            return None
        self._seen.add(typ)
        proper = get_proper_type(typ)
        if isinstance(proper, Instance):
            return self._find_in_instance(proper)
        return self._find_in(_parts(proper))

    def _find_in(self, types: Iterable[Type]) -> ProperType | None:
        for typ in types:
            found = self.find(typ)
            if found is not None:
                return found
        return None

    def _find_in_instance(self, instance: Instance) -> ProperType | None:
        info = instance.type
        if info.is_protocol or info.is_abstract or info.fallback_to_any:
            return None
        for base in info.mro[:-1]:
            if base.fullname in _CONTAINERS:
                return self._find_in(map_instance_to_supertype(instance, base).args)
            if _hashes_in_its_own_way(base):
                return None
        return instance if self._is_lost_to_keys(info) else None

    def _is_lost_to_keys(self, info: TypeInfo) -> bool:
        for base in info.mro[:-1]:
            if "__hash__" in base.names:  # set to None, since it is none of its own
                return in_stub_file(base, self._modules) and base.fullname not in _COUNTED
            if has_generated_eq(base) or ("__eq__" in base.names and not in_stub_file(base, self._modules)):
                return False  # written in Python, so it counts by value
        return False


def _parts(typ: ProperType) -> Iterable[Type]:
    if isinstance(typ, UnionType | TupleType):
        return typ.items
    if isinstance(typ, TypedDictType):
        return typ.items.values()
    if isinstance(typ, TypeVarType):
        return typ.values or [typ.upper_bound]
    return ()


def _hashes_in_its_own_way(info: TypeInfo) -> bool:
    symbol = info.names.get("__hash__")
    if symbol is None:
        return False
    return not (isinstance(symbol.node, Var) and isinstance(get_proper_type(symbol.node.type), NoneType))


def has_generated_eq(info: TypeInfo) -> bool:
    """A dataclass or attrs class: it may have been told to write no ``__eq__``, which no cache remembers."""
    return "dataclass" in info.metadata or "attrs" in info.metadata


def hashes_by_identity(info: TypeInfo) -> bool:
    """Instances of this very class are equal to themselves alone, as far as can be known."""
    if info.is_protocol or info.is_enum or info.is_newtype or info.fallback_to_any or info.typeddict_type or info.tuple_type:
        return False
    for base in info.mro[:-1]:
        if "__eq__" in base.names or "__hash__" in base.names or has_generated_eq(base):
            return False
    return bool(info.mro)
