"""``loop-local-key``: an argument that cannot be part of the key of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.maptype import map_instance_to_supertype
from mypy.messages import format_type
from mypy.nodes import ArgKind
from mypy.types import Instance, ProperType, TupleType, Type, TypedDictType, get_proper_type

from ._hashability import unhashable_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy.checker import TypeChecker

_FIX = "pass something hashable, or use key=... to say which calls are the same"


def finding(typ: Type, kind: ArgKind, api: TypeChecker) -> str | None:
    """Return the end of an error message that begins with the argument; None if its type can be part of a key."""
    proper = get_proper_type(typ)
    for part in _passed(proper, kind):
        part_found = unhashable_part(part, api.modules, api.options.python_version)
        if part_found is not None:
            whole = format_type(proper, api.options)
            holds = "which" if part_found == proper else f"which holds {format_type(part_found, api.options)}, which"
            return f"has type {whole}, {holds} is neither hashable nor compared by value, so it cannot be part of a key: {_FIX}"
    return None


def _passed(typ: ProperType, kind: ArgKind) -> Iterable[Type]:
    """Return the types that an argument passes: its own, or those of the items of a starred one."""
    if not kind.is_star():
        return [typ]
    if isinstance(typ, TupleType):
        return typ.items
    if isinstance(typ, TypedDictType):
        return typ.items.values()
    if isinstance(typ, Instance):
        wanted = "typing.Iterable" if kind == ArgKind.ARG_STAR else "typing.Mapping"
        for base in typ.type.mro:
            if base.fullname == wanted:
                return map_instance_to_supertype(typ, base).args[-1:]
    return []
