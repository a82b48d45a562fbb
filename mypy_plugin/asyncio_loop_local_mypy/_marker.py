"""The mark by which the plugin recognises a function of the library: a literal in its fallback type, which every cache keeps."""

from __future__ import annotations

from typing import NamedTuple

from mypy.types import CallableType, FunctionLike, Instance, LiteralType, Overloaded, Type, get_proper_type

FACTORY = "factory"
DECORATOR = "decorator"
BY_ARGUMENTS = "by-arguments"
BY_OWN_KEY = "by-own-key"

NOTHING = "nothing"
CLOSE = "close"
VALID = "valid"

_OURS = "asyncio_loop_local"
_ATTRIBUTE = "__asyncio_loop_local__"


class Marker(NamedTuple):
    """What the plugin notes about a decorator or a wrapped factory.

    Its role, how it makes keys, whether it was given ``valid``, else whether ``close``, and its name for errors.
    """

    role: str
    keys: str
    given: str
    name: str

    @property
    def is_decorator(self) -> bool:
        """True for the result of ``singleton()``, which takes the factory; False for a wrapped factory."""
        return self.role == DECORATOR


def marker_of(typ: Type | None) -> Marker | None:
    """Return the mark of a callable; None if it has none."""
    if typ is None:
        return None
    carrier: Type | None = get_proper_type(typ)
    if isinstance(carrier, Instance) and carrier.extra_attrs is not None:
        carrier = get_proper_type(carrier.extra_attrs.attrs.get(_ATTRIBUTE))
    if isinstance(carrier, FunctionLike):
        carrier = carrier.items[0].fallback
    literal = carrier.last_known_value if isinstance(carrier, Instance) else None
    if literal is None or not isinstance(literal.value, str):
        return None
    ours, *fields = literal.value.split(" ", 4)  # a name may hold spaces: "get of Pool"
    return Marker(*fields) if ours == _OURS and len(fields) == 4 else None


def marked(typ: FunctionLike, marker: Marker, string_type: Instance) -> FunctionLike:
    """Return the same signature with a mark.

    The literal is in ``last_known_value``, which mypy uses for strings and never for functions. A fallback of a class of our
    own would show in joins and in attributes. The definition is dropped, because no cache keeps it.
    """
    literal = _literal(marker, string_type)
    items: list[CallableType] = []
    for item in typ.items:
        fallback = item.fallback.copy_modified(last_known_value=literal)  # pyright: ignore[reportUnknownMemberType]
        new = item.copy_modified(fallback=fallback, name=marker.name)  # pyright: ignore[reportUnknownMemberType]
        new.definition = None
        items.append(new)
    return items[0] if len(items) == 1 else Overloaded(items)


def marked_object(typ: Instance, marker: Marker, string_type: Instance) -> Instance:
    """Return the type of a callable object with a mark."""
    carrier = string_type.copy_modified(last_known_value=_literal(marker, string_type))  # pyright: ignore[reportUnknownMemberType]
    return typ.copy_with_extra_attr(_ATTRIBUTE, carrier)


def _literal(marker: Marker, string_type: Instance) -> LiteralType:
    return LiteralType(" ".join([_OURS, *marker]), string_type)


def marked_staticmethod(typ: Type, function: Type) -> Type:
    """Return the type of a ``staticmethod`` object with the type of its function, whose mark mypy would lose."""
    instance = get_proper_type(typ)
    if not isinstance(instance, Instance) or marker_of(function) is None:
        return typ
    return instance.copy_with_extra_attr(_ATTRIBUTE, function)


def unmarked(typ: Type) -> Type:
    """Return the same signature without a mark."""
    function = get_proper_type(typ)
    if not isinstance(function, CallableType) or marker_of(function) is None:
        return typ
    fallback = function.fallback.copy_modified(last_known_value=None)  # pyright: ignore[reportUnknownMemberType]
    return function.copy_modified(fallback=fallback)  # pyright: ignore[reportUnknownMemberType]


def named(item: CallableType, name: str) -> CallableType:
    """Return a signature with its name, which mypy drops when it infers a variable's type."""
    if item.definition is None and item.name:
        return item
    new = item.copy_modified(name=item.name or name)  # pyright: ignore[reportUnknownMemberType]
    new.definition = None
    return new


def quoted(name: str) -> str:
    """Return a callable's name as mypy quotes it in an error."""
    return name if name.startswith("<") else f'"{name}"'.replace(" of ", '" of "')
