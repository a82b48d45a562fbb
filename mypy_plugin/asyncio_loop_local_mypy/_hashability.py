"""The static types that cannot be part of a key: neither hashable, nor compared by value."""

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

from ._class_statement import is_generated, is_without_eq
from ._symbols import in_stub_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mypy.nodes import MypyFile

# Containers: the library compares them by their items, or they hash by their items.
_CONTAINERS = frozenset(
    {"builtins.dict", "builtins.list", "builtins.set", "builtins.bytearray", "collections.deque"}
    | {"builtins.tuple", "builtins.frozenset"}
)
# Stub files call these unhashable. They are written in Python, so the library compares them by value; the last one is hashable.
_COMPARED_BY_VALUE = frozenset(
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
# These are compiled, and unhashable: what a checker reads of them is Python code, or a stub that does not say so.
_COMPILED = frozenset(
    {
        "google.protobuf.message.Message",
        "msgspec.Raw",
        "msgspec.msgpack.Ext",
        "multidict.MultiDict",
        "multidict.MultiDictProxy",
        "multidict._multidict_py.MultiDict",
        "multidict._multidict_py.MultiDictProxy",
        "pydantic_core._pydantic_core.ArgsKwargs",
    }
)
# Stub files call these unhashable. From this version of Python on, they hash as what they hold, which the type does not say.
_HASHABLE_FROM = {"types.MappingProxyType": (3, 12)}
_NEVER = (99, 0)
STRUCT = "msgspec.Struct"


def unhashable_part(typ: Type, modules: Mapping[str, MypyFile], python: tuple[int, int]) -> ProperType | None:
    """Return the type, or one inside it, that cannot be part of a key; None if there is none, or it is unknown."""
    return _Search(modules, python).find(typ)


class _Search:
    def __init__(self, modules: Mapping[str, MypyFile], python: tuple[int, int]) -> None:
        self._modules = modules
        self._python = python
        self._seen: set[Type] = set()  # a type can be recursive

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
            if base.fullname in _COMPILED:
                break
            if _defines_hash(base) or self._python >= _HASHABLE_FROM.get(base.fullname, _NEVER):
                return None
        return instance if _is_mutable_struct(info) or self._is_unusable(info) else None

    def _is_unusable(self, info: TypeInfo) -> bool:
        for base in info.mro[:-1]:
            if base.fullname in _COMPILED:
                return True
            if "__hash__" in base.names:  # None, because `_defines_hash` was false
                return in_stub_file(base, self._modules) and base.fullname not in _COMPARED_BY_VALUE
            if has_generated_eq(base) or ("__eq__" in base.names and not in_stub_file(base, self._modules)):
                return False  # written in Python, so the library compares it by value
        return False


def _is_mutable_struct(info: TypeInfo) -> bool:
    """Tell whether a class is a ``msgspec.Struct`` without ``frozen=True`` or ``eq=False``, which subclasses inherit."""
    if info.fullname == STRUCT or not info.has_base(STRUCT):
        return False
    return not any(base.metadata.get("dataclass", {}).get("frozen") or is_without_eq(base) for base in info.mro)


def _parts(typ: ProperType) -> Iterable[Type]:
    if isinstance(typ, UnionType | TupleType):
        return typ.items
    if isinstance(typ, TypedDictType):
        return typ.items.values()
    if isinstance(typ, TypeVarType):
        return typ.values or [typ.upper_bound]
    return ()


def _defines_hash(info: TypeInfo) -> bool:
    symbol = info.names.get("__hash__")
    if symbol is None:
        return False
    return not (isinstance(symbol.node, Var) and isinstance(get_proper_type(symbol.node.type), NoneType))


def has_generated_eq(info: TypeInfo) -> bool:
    """Tell whether a class is a dataclass, an attrs class or similar, with the ``__eq__`` that is then generated."""
    return is_generated(info) and not is_without_eq(info)
