"""The classes whose every call surely makes a new object that equals no other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ._class_statement import may_be_replaced
from ._hashability import STRUCT, has_generated_eq
from ._symbols import in_source_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy.nodes import MypyFile, TypeInfo

# A class with one of these in its MRO may return an old object, or one that equals another.
_MAY_BE_OLD_OR_EQUAL = ("__eq__", "__hash__", "__new__", "__init_subclass__")
_IN_A_METACLASS = ("__call__", "__new__", "__init__")
_PLAIN_METACLASSES = frozenset({"builtins.type", "builtins.object", "abc.ABCMeta", "msgspec.StructMeta"})

# The stubs of the standard library do not say of these that they have an `__eq__`, a `__hash__` or a `__new__`.
# `benchmarks/fresh_key_scan.py` finds them.
_STUBS_THAT_HIDE_IT = frozenset(
    {
        "_ctypes._CData",
        "_frozen_importlib_external.FileLoader",
        "_ssl.Certificate",
        "_threading_local.local",
        "ast.Bytes",
        "ast.Ellipsis",
        "ast.ExtSlice",
        "ast.Index",
        "ast.NameConstant",
        "ast.Num",
        "ast.Str",
        "functools._PlaceholderType",
        "importlib.abc.FileLoader",
        "importlib.metadata.DeprecatedNonAbstract",
        "importlib.metadata.Distribution",
        "lib2to3.pytree.BasePattern",
        "types.EllipsisType",
        "types.NoneType",
        "types.NotImplementedType",
        "typing.Any",
    }
)
# A stub's `__new__` can return an old object. That of these is known to return a new one.
_NEW_IN_STUBS = frozenset(
    {
        "builtins.enumerate",
        "builtins.filter",
        "builtins.map",
        "builtins.zip",
        "functools.partial",
        "itertools.chain",
        "itertools.count",
        "itertools.cycle",
    }
)


def makes_fresh_instances(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    """Tell whether each call of exactly this class makes a new instance, equal only to itself. Where it is unsure: False."""
    if info.is_protocol or info.is_enum or info.is_newtype or info.fallback_to_any or info.typeddict_type or info.tuple_type:
        return False
    if not info.mro or not all(_is_plain(base, modules) for base in info.mro[:-1]):
        return False
    metaclasses = info.metaclass_type.type.mro if info.metaclass_type is not None else []
    return all(each.fullname in _PLAIN_METACLASSES or _is_plain_metaclass(each, modules) for each in metaclasses)


def _is_plain(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    if has_generated_eq(info) or may_be_replaced(info):
        return False
    if info.fullname == STRUCT:
        return True
    if any(_has_own(name, info) for name in _MAY_BE_OLD_OR_EQUAL) and info.fullname not in _NEW_IN_STUBS:
        return False
    if in_source_file(info, modules):
        return True
    # The stubs of other packages leave out too much: for what is compiled, nobody compares them with the classes.
    is_of_stdlib = info.module_name.partition(".")[0] in sys.stdlib_module_names
    return is_of_stdlib and info.fullname not in _STUBS_THAT_HIDE_IT


def _has_own(name: str, info: TypeInfo) -> bool:
    """Tell whether a class has a method of its own. mypy gives a frozen class of attrs the ``__hash__`` of ``object``."""
    symbol = info.names.get(name)
    return symbol is not None and symbol.fullname != f"builtins.object.{name}"


def _is_plain_metaclass(info: TypeInfo, modules: Mapping[str, MypyFile]) -> bool:
    return in_source_file(info, modules) and not any(name in info.names for name in _IN_A_METACLASS)
