"""The flat form of a call: what the C-level cache is asked for where arguments count by value.

A frozen snapshot of an object takes far longer to make than to look up. So the cache gets the values of the object's
attributes as so many arguments of their own, after one object that stands for the class and the names: it tells their types
apart, and hashes them, in C. A call that is not found by its flat form is looked up by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from operator import attrgetter, itemgetter
from types import GetSetDescriptorType, NoneType
from typing import Any, cast

from ._keys import ATOMS, IN_DICT, KNOWN_CLASSES, KnownClass, Snapshot, freeze, known_class

Parts = tuple[Any, ...]
Read = Callable[[Any], tuple[Any, ...]]


class TUPLE:
    """In a flat form this, the length and the items stand for a tuple. A class, since cloudpickle pickles one by its name."""


_BY_NAME = object()  # stands before the number and the names of the arguments by name; their values come last


def flat_form(args: tuple[object, ...], kwargs: dict[str, object]) -> Iterable[Any] | None:
    """Return the flat form of a call. If an argument holds something unusual, it may be the flat form of no call at all.

    :returns: None if no argument is known to count by value.
    :raises Exception: if the attributes of one cannot be read, or something in it cannot be part of a key.
    """
    flat: list[Any] = [_BY_NAME, len(kwargs), *kwargs] if kwargs else []
    by_value = False
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) in ATOMS:
            flat.append(value)
        elif (known := KNOWN_CLASSES.get(id(type(value)))) is not None:
            flat += known.flat_form(value)
            by_value = True
        else:
            flat.append(value)  # it hashes, or the class is new
    return flat if by_value else None


def _flat_form_of_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return TUPLE, len(value), *[item if type(item) in ATOMS else freeze(item) for item in value]


known_class(tuple).flat_form = _flat_form_of_tuple


def flat_form_of_frozen(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the flat form of a call by its frozen arguments, so that it is of the same reading of them as the call's key."""
    flat: list[Any] = [_BY_NAME, len(kwargs), *kwargs] if kwargs else []
    for frozen in (*args, *kwargs.values()):
        flat += _flat_form_of_frozen(frozen)
    return tuple(flat)


def _flat_form_of_frozen(frozen: object) -> tuple[Any, ...]:
    if type(frozen) is not Snapshot:
        return (frozen,)
    kind, items, attributes = cast("Parts", frozen)
    if kind is tuple:
        return TUPLE, len(items), *map(_without_type, items)
    if attributes is None or kind.__hash__ is not None:
        return (frozen,)
    known = known_class(kind)
    values: dict[tuple[int, str], Any] = {(place, name): item for place, name, item in attributes}
    fields: _Fields | None = known.fields or _fields_of(kind, known, values)
    if fields is None or len(fields.places) != len(values) or not values.keys() >= set(fields.places):
        return (frozen,)
    flat = [_without_type(values[place]) for place in fields.places]
    are_atoms = ATOMS.issuperset(map(type, flat))
    if known.fields is None or not are_atoms:  # once an instance had other values, those of all later ones are frozen
        known.flat_form = fields.read if are_atoms else fields.read_and_freeze
        known.fields = fields
    return *fields.marker, *flat


def _without_type(item: Parts | str | bytes | None) -> Any:
    """Return a frozen item or attribute as `freeze` returns it: in a snapshot its type is beside it."""
    if not isinstance(item, tuple):
        return item
    return Snapshot(item) if len(item) == 3 else item[1]


def unfrozen(frozen: Hashable) -> Hashable:
    """Return a tuple as it was before it was frozen, if none of its items was replaced; anything else as it is."""
    if type(frozen) is Snapshot and frozen[0] is tuple:
        own = tuple(map(_without_type, cast("Parts", frozen[1])))
        if Snapshot not in map(type, own):
            return own
    return frozen


class _Fields:
    """Makes the flat form of an instance: it reads all attributes at once, by the names that the class's first instance had."""

    __slots__ = ("marker", "places", "read")

    def __init__(self, kind: type, slots: list[tuple[int, str]], names: list[str]) -> None:
        self.places = [*slots, *[(IN_DICT, name) for name in names]]
        self.marker = (object(),)
        marker, number = self.marker, len(names)
        # Where a slot is not set, attrgetter would call the class's __getattr__.
        has_getattr = any("__getattr__" in vars(base) for base in kind.__mro__)
        of_slots = _reader(_slots_alone if has_getattr else attrgetter, [name for _, name in slots])
        of_dict = _reader(itemgetter, names)

        def read_slots(value: Any) -> tuple[Any, ...]:
            return marker + of_slots(value) if value.__hash__ is None else _flat_form_of_frozen(freeze(value))

        def read_dict(value: Any) -> tuple[Any, ...]:
            attributes = value.__dict__
            if len(attributes) != number or value.__hash__ is not None:
                return _flat_form_of_frozen(freeze(value))
            return marker + of_dict(attributes)

        def read_both(value: Any) -> tuple[Any, ...]:
            attributes = value.__dict__
            if len(attributes) != number or value.__hash__ is not None:
                return _flat_form_of_frozen(freeze(value))
            return marker + of_slots(value) + of_dict(attributes)

        self.read: Read = read_slots if not kind.__dictoffset__ else read_both if slots else read_dict

    def read_and_freeze(self, value: Any) -> tuple[Any, ...]:
        """Do the same, and freeze the values that are not atoms: as they are, the C-level cache would not find them."""
        first, *values = self.read(value)
        return first, *[item if type(item) in ATOMS or type(item) is Snapshot else freeze(item) for item in values]


def _reader(getter: Callable[..., Callable[[Any], Any]], names: list[str]) -> Read:
    if not names:
        return lambda _owner: ()
    read = getter(*names)
    return read if len(names) > 1 else lambda owner: (read(owner),)


def _slots_alone(first: str, *others: str) -> Callable[[Any], Any]:
    read = object.__getattribute__
    if not others:
        return lambda owner: read(owner, first)
    if len(others) == 1:  # as a pydantic model has it, whose key takes a tenth less so
        [second] = others
        return lambda owner: (read(owner, first), read(owner, second))
    return lambda owner: (read(owner, first), *[read(owner, name) for name in others])


def _fields_of(kind: type, known: KnownClass, places: Collection[tuple[int, str]]) -> _Fields | None:
    """Return how to read the attributes of a class, if they can be read by their names alone."""
    names = [name for place, name in places if place == IN_DICT]
    can_be_read = (
        known.state_is_in_attributes  # which is not so for a container with attributes
        and _of_class(kind, "__getattribute__")[1] is vars(object)["__getattribute__"]
        and type(_of_class(kind, "__dict__")[1]) in (GetSetDescriptorType, NoneType)
        and all(_of_class(kind, name)[0] == place for place, name in known.slots)
        and all(type(name) is str for name in names)
    )
    return _Fields(kind, known.slots, names) if can_be_read else None


def _of_class(kind: type, name: str) -> tuple[int, Any]:
    """Return what a class has by a name, and the place of its base that has it."""
    return next(((place, vars(base)[name]) for place, base in enumerate(kind.__mro__) if name in vars(base)), (-1, None))
