"""What makes two calls of a factory the same call. Knows nothing of asyncio."""

from __future__ import annotations

import inspect
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import cached_property
from itertools import chain
from struct import calcsize
from types import FunctionType, MemberDescriptorType, NoneType
from typing import Any, Generic, NamedTuple, cast

from ._names import call_name, name_of

_PY_TPFLAGS_HEAPTYPE = 1 << 9
_POINTER = calcsize("P")
_ROOMS = ("__dict__", "__weakref__")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Equal to nothing but their own kind, so they can stand in a key as they are; of all others the type is told too.
_PLAIN = frozenset({str, bytes, NoneType})
# Hashable by themselves and no containers: what most arguments are.
_ATOMS = _PLAIN | {int, float, complex, bool, type, FunctionType}
# pydantic's record of which fields were given: no part of the value, and its own == leaves it out too.
_NO_ATTRIBUTES = frozenset({"__dict__", "__weakref__", "__pydantic_fields_set__"})


class ByValue(tuple[Hashable, ...]):
    """The key of an argument that counts by value: a type of its own, so that no argument is ever equal to it."""

    __slots__ = ()


class _CannotBeKey(Exception):
    """Raised with the value that neither hashes nor counts by value, and why."""


def counted(value: object) -> Hashable:
    """The value itself if it is hashable and no container, else what it is worth now, as a `ByValue`."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict and _PLAIN.issuperset(map(type, _dict_values(value))) and _PLAIN.issuperset(map(type, _dict_keys(value))):
        return ByValue((dict, frozenset(_dict_items(value)), None))  # headers and the like: as below, in half the time
    form = _form(value, kind, set())
    return ByValue(form) if len(form) == 3 else form[1]


def _frozen(value: object, around: set[int]) -> Hashable:
    """What a value inside a container, or an attribute, is in a key."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    return _form(value, kind, around)


def _form(value: Any, kind: type, around: set[int]) -> tuple[Hashable, ...]:
    """The type and the value, if that is hashable and no container; else the type and what it is worth now."""
    if kind in _ATOMS:
        return kind, value
    exact = _CONTAINERS.get(kind)
    contents = exact or _contents_of(kind)
    if contents is None:
        try:
            hash(value)
        except (TypeError, ValueError) as error:
            if isinstance(error, ValueError) and kind is not memoryview:  # which says so of a writable one
                raise
            if type(kind.__eq__) is not FunctionType or not _is_told_by_attributes(kind):
                raise _CannotBeKey(value, "is unhashable and not counted by value") from error
        else:
            return kind, value
    if id(value) in around:
        raise _CannotBeKey(value, "holds itself")
    around.add(id(value))
    try:
        form = contents(value, around) if contents is not None else ()
        return kind, form, None if exact is not None else _attributes(value, kind, around)
    finally:
        around.discard(id(value))


def _contents_of(kind: type[Any]) -> Callable[[Any, set[int]], Hashable] | None:
    """How the items of a container are counted; None if it is none, or hashes in a way of its own."""
    for container, contents in _CONTAINERS.items():
        if container in kind.__mro__:  # not isinstance, which believes what a proxy says of its class
            own_hash = kind.__hash__ is not container.__hash__ and kind.__hash__ is not None
            return None if own_hash else contents
    return None


Contents = Callable[[Any, set[int]], Hashable]

# Read in the ways of the container itself: a subclass may show less than it holds, as dicts of many values a key do.
_dict_items: Callable[[Any], Iterable[tuple[Any, Any]]] = cast("Any", dict).items
_dict_keys: Callable[[Any], Iterable[Any]] = cast("Any", dict).keys
_dict_values: Callable[[Any], Iterable[Any]] = cast("Any", dict).values
_ordered_items: Callable[[Any], Iterable[tuple[Any, Any]]] = cast("Any", OrderedDict).items


def _in_order(items_of: Callable[[Any], Iterable[Any]]) -> Contents:
    return lambda container, around: tuple([_frozen(item, around) for item in items_of(container)])


def _in_any_order(items_of: Callable[[Any], Iterable[Any]]) -> Contents:
    return lambda container, around: frozenset([_frozen(item, around) for item in items_of(container)])


def _pairs_in_order(container: Any, around: set[int]) -> Hashable:
    return tuple([(_frozen(key, around), _frozen(value, around)) for key, value in _ordered_items(container)])


def _pairs_in_any_order(container: Any, around: set[int]) -> Hashable:
    return frozenset([(_frozen(key, around), _frozen(value, around)) for key, value in _dict_items(container)])


def _as_bytes(container: Any, _around: set[int]) -> Hashable:
    return bytes(bytearray.copy(container))


_CONTAINERS: dict[type[Any], Contents] = {
    OrderedDict: _pairs_in_order,
    dict: _pairs_in_any_order,
    tuple: _in_order(cast("Any", tuple).__iter__),
    list: _in_order(cast("Any", list).__iter__),
    frozenset: _in_any_order(cast("Any", frozenset).__iter__),
    set: _in_any_order(cast("Any", set).__iter__),
    deque: _in_order(cast("Any", deque).__iter__),
    bytearray: _as_bytes,
}


def _is_told_by_attributes(kind: type) -> bool:
    """Whether instances have no state but their attributes: no class written in C is among the bases, save `object`."""
    for base in kind.__mro__:
        made_in_c = not base.__flags__ & _PY_TPFLAGS_HEAPTYPE or getattr(base.__new__, "__self__", None) is base
        if base is not object and (made_in_c or _has_hidden_room(base)):
            return base is Generic
    return True


def _has_hidden_room(kind: type) -> bool:
    """Whether instances have more room than their slots need, as those of a class written in C that has no ``__new__`` have."""
    slots = sum(type(slot) is MemberDescriptorType or name in _ROOMS for name, slot in vars(kind).items())
    base = kind.__base__
    return base is not None and kind.__basicsize__ > base.__basicsize__ + slots * _POINTER


def _attributes(value: Any, kind: type, around: set[int]) -> Hashable:
    """Attributes and slots by name, without the caches that ``functools.cached_property`` leaves among them."""
    found: list[tuple[int, str, Any]] = []
    for place, base in enumerate(kind.__mro__):  # two of them may have slots of one name
        for name, slot in vars(base).items():
            if type(slot) is MemberDescriptorType and name not in _NO_ATTRIBUTES:
                with suppress(AttributeError):
                    found.append((place, name, slot.__get__(value, kind)))
    found += [(-1, name, item) for name, item in getattr(value, "__dict__", {}).items()]
    if not found:
        return None
    return frozenset(
        [
            (place, name, _frozen(item, around))
            for place, name, item in found
            if not isinstance(inspect.getattr_static(kind, name, None), cached_property)
        ]
    )


class _Parameters(NamedTuple):
    """What a signature says of how arguments are taken."""

    order: tuple[str, ...]
    positional: tuple[str, ...]
    by_keyword: frozenset[str]
    required: frozenset[str]
    defaults: dict[str, Hashable]
    more: str | None
    more_by_name: str | None

    @classmethod
    def of(cls, factory: Callable[..., object]) -> _Parameters:
        """Those of a factory; of a built-in callable that tells no signature, all that can be."""
        try:
            parameters = list(inspect.signature(factory).parameters.values())
        except (TypeError, ValueError):
            return cls((), (), frozenset(), frozenset(), {}, "", "")
        positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        by_keyword = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        order = tuple(dict.fromkeys(chain(positional, by_keyword)))
        defaults = {each.name: _counted_default(each.default) for each in parameters if each.default is not each.empty}
        return cls(
            order,
            tuple(positional),
            frozenset(by_keyword),
            frozenset(order) - defaults.keys(),
            defaults,
            next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), None),
            next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None),
        )


def _have_others(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether there is any argument that is no atom."""
    for value in args:  # with any() it takes three times as long, at each call that is not found as it is
        if type(value) not in _ATOMS:
            return True
    return not _ATOMS.issuperset(map(type, kwargs.values()))


_NO_NAMES: frozenset[Any] = frozenset()


class CallKeys:
    """The keys of one factory's calls; its signature is read once, at the first call that asks."""

    __slots__ = ("_factory", "_known_parameters")

    def __init__(self, factory: Callable[..., object]) -> None:
        self._factory = factory
        self._known_parameters: _Parameters | None = None

    @property
    def _parameters(self) -> _Parameters:
        known = self._known_parameters
        if known is None:  # two threads may both come here, and find out the same
            known = self._known_parameters = _Parameters.of(self._factory)
        return known

    def shown(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The call as people read it, without the secrets that are among its arguments."""
        known = self._parameters
        more_by_name = dict.fromkeys(kwargs.keys() - known.by_keyword, known.more_by_name or "")
        return call_name(self._factory, known.positional, args, kwargs, more=known.more or "", more_by_name=more_by_name)

    def count(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments with each that is no hashable value of its own replaced by what it is worth now.

        :returns: the very arguments, where there is none to be replaced.
        :raises TypeError: for the first that cannot be part of a key, by its name.
        """
        if not _have_others(args, kwargs):
            return args, kwargs
        argument: int | str = 0
        try:
            counted_args: list[Hashable] = []
            for argument, value in enumerate(args):  # noqa: B007  # read when counting fails
                counted_args.append(counted(value))
            counted_kwargs: dict[str, Hashable] = {}
            for argument, value in kwargs.items():
                counted_kwargs[argument] = counted(value)
        except _CannotBeKey as error:
            culprit, reason = error.args
            cause = error.__cause__
        else:
            return tuple(counted_args), counted_kwargs
        raise TypeError(self._complaint(argument, (args, kwargs), culprit, reason)) from cause

    def _complaint(self, argument: int | str, call: Arguments, culprit: object, reason: str) -> str:
        if isinstance(argument, str):
            name, value = argument, call[1][argument]
        else:
            positional, more = self._parameters.positional, self._parameters.more
            known = argument < len(positional)
            name = positional[argument] if known else f"*{more}" if more else f"#{argument + 1}"
            value = call[0][argument]
        what = _type_name(culprit)
        where = f"is of type {what}, which" if culprit is value else f"holds an object of type {what}, which"
        return (
            f"argument {name!r} of {name_of(self._factory)}() {where} {reason}, so it cannot be part of the key "
            f"by which a call finds its value again: pass something hashable, or say with key=… what makes two calls the same"
        )

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """One key for all the ways to write a call of counted arguments: by position, by name, defaults given or not."""
        parameters = self._parameters
        if not kwargs and len(args) == len(parameters.order) == len(parameters.positional):
            return _typed(args), (), _NO_NAMES
        bound: dict[str, Any] = dict(zip(parameters.positional, args, strict=False))
        more = args[len(parameters.positional) :]
        by_name: dict[str, Any] = {}
        misfit = bool(more) and parameters.more is None
        for name, value in kwargs.items():
            if name not in parameters.by_keyword:
                misfit = misfit or parameters.more_by_name is None
                by_name[name] = value
            elif name in bound:
                misfit = True
            else:
                bound[name] = value
        if misfit or not bound.keys() >= parameters.required:
            # The factory will refuse these arguments itself; should it take them, the way they were written is the key.
            return _typed(args), frozenset(zip(kwargs, _typed(kwargs.values()), strict=True))
        for name, default in parameters.defaults.items():
            bound.setdefault(name, default)
        values = _typed([bound[name] for name in parameters.order])
        return values, _typed(more), frozenset(zip(by_name, _typed(by_name.values()), strict=True))

    def differing(self, key: Any, other: Any) -> list[str]:
        """The parameters whose values two keys of this factory do not share, as far as it can be told."""
        if len(key) != 3 or len(other) != 3:
            return []
        names = [name for name, one, two in zip(self._parameters.order, key[0], other[0], strict=True) if one != two]
        if key[1] != other[1]:
            names.append(f"*{self._parameters.more}")
        return names + sorted({name for name, _ in key[2] ^ other[2]})


class OwnKeys(CallKeys):
    """The keys of a factory for which the user has said what makes two calls the same."""

    __slots__ = ("_own_key",)

    def __init__(self, factory: Callable[..., object], own_key: Callable[..., Hashable]) -> None:
        super().__init__(factory)
        self._own_key = own_key

    def count(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """What the user's function returns for these arguments, as the one argument there is.

        :raises TypeError: if that cannot be a key.
        """
        value = self._own_key(*args, **kwargs)
        try:
            return (counted(value),), {}
        except _CannotBeKey as error:
            culprit, reason = error.args
        kind = _type_name(culprit)
        raise TypeError(
            f"key=… of {name_of(self._factory)}() returned an object of type {kind}, which {reason}: return something hashable"
            if culprit is value
            else f"key=… of {name_of(self._factory)}() returned something that holds an object of type {kind}, which {reason}: "
            f"return something hashable"
        )

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """The user's key, with its type told."""
        return _typed(args)

    def differing(self, key: Any, other: Any) -> list[str]:
        """Nothing: which parameters the user's function has looked at is its own affair."""
        return []


def _typed(values: Iterable[object]) -> tuple[Hashable, ...]:
    """Counted values, each with its type where that is not told already: 1, True and 1.0 are not the same."""
    return tuple([value if type(value) in _PLAIN or type(value) is ByValue else (type(value), value) for value in values])


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


class _UncountableDefault:
    """Stands in keys for a default that cannot be part of one: nobody can pass it, so it is equal to itself alone."""


def _counted_default(default: Any) -> Hashable:
    try:
        return counted(default)
    except _CannotBeKey:
        return _UncountableDefault()
