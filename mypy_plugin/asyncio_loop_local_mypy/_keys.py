"""``loop-local-key``: an argument that can be no part of the key of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.maptype import map_instance_to_supertype
from mypy.messages import format_type
from mypy.nodes import ArgKind
from mypy.types import Instance, ProperType, TupleType, Type, TypedDictType, get_proper_type

from ._hashability import uncountable_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy.checker import TypeChecker

_MEND = "pass something hashable, or say with key=... what makes two calls the same"


def finding(typ: Type, kind: ArgKind, api: TypeChecker) -> str | None:
    """What is wrong with an argument of this type, as the rest of a sentence that its name begins."""
    proper = get_proper_type(typ)
    for part in _passed(proper, kind):
        culprit = uncountable_part(part, api.modules)
        if culprit is not None:
            what = format_type(proper, api.options)
            holds = "which" if culprit == proper else f"which holds {format_type(culprit, api.options)}, which"
            return f"has type {what}, {holds} is neither hashable nor counted by value, so it cannot be part of a key: {_MEND}"
    return None


def _passed(typ: ProperType, kind: ArgKind) -> Iterable[Type]:
    """What the call gets of an argument: the items of a starred one."""
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
