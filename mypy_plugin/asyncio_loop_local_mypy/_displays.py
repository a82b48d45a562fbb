"""Lists, sets and dicts of functions that are written out. mypy makes one type of all items, with the mark of any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.types import Instance, TupleType, get_proper_type

from ._marker import marker_of, unmarked

if TYPE_CHECKING:
    from mypy.plugin import FunctionContext, MethodContext
    from mypy.types import Type

DISPLAYS = frozenset({"<list>", "<set>", "<dict>"})


def type_of_display(ctx: FunctionContext | MethodContext) -> Type:
    """Return the type of a display, without a mark if that does not hold for all items."""
    made = get_proper_type(ctx.default_return_type)
    if not isinstance(made, Instance) or all(marker_of(argument) is None for argument in made.args):
        return ctx.default_return_type
    markers = [marker_of(_value(typ)) for types in ctx.arg_types for typ in types]
    kinds = {None if marker is None else (marker.role, marker.keys, marker.given) for marker in markers}
    if len(kinds) == 1:
        return ctx.default_return_type
    return made.copy_modified(args=[unmarked(argument) for argument in made.args])  # pyright: ignore[reportUnknownMemberType]


def _value(typ: Type) -> Type:
    """Return the type of a value in a display. mypy passes the items of a dict as tuples."""
    item = get_proper_type(typ)
    return item.items[-1] if isinstance(item, TupleType) and item.items else typ
