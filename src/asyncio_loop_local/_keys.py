"""Keys of calls: two calls of a factory are the same call if their keys are equal. Independent of asyncio."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from operator import is_
from struct import calcsize
from types import FunctionType, MemberDescriptorType, NoneType
from typing import Any, NamedTuple, cast
from weakref import ref

from ._cpython import frozendict, signature
from ._names import call_name, name_of, qualified_name

_POINTER = calcsize("P")
_NON_FIELD_SLOTS = ("__dict__", "__weakref__")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Plain types: their instances never equal one of another type, so a key holds them without their type.
_PLAIN = frozenset({str, bytes, NoneType})
# Other hashable types that are not containers. Most arguments are of one of these.
ATOMS = _PLAIN | {int, float, complex, bool, type, FunctionType}
# pydantic records there which fields were given. Its own == ignores that, and so do keys.
_IGNORED_SLOTS = frozenset({"__dict__", "__weakref__", "__pydantic_fields_set__"})


class Snapshot(tuple[Hashable, ...]):
    """A frozen copy of an unhashable argument or a container. Its type is private, so no argument equals one by accident."""

    __slots__ = ()


class _CannotBeKey(TypeError):
    """A value can neither be hashed nor frozen. The arguments are the value and the reason."""


def freeze(value: object) -> Hashable:
    """Return the value if it is hashable and not a container, else a frozen snapshot of it."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is dict and _PLAIN.issuperset(map(type, _dict_values(value))) and _PLAIN.issuperset(map(type, _dict_keys(value))):
        # A fast path for dicts of strings, such as headers: the same result in half the time.
        return Snapshot((dict, frozenset(_dict_items(value)), None))
    frozen = _freeze_with_type(value, kind, set())
    return Snapshot(frozen) if len(frozen) == 3 else frozen[1]


def _freeze_item(value: object, ancestors: set[int]) -> Hashable:
    """Freeze an item of a container, or an attribute's value."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    return _freeze_with_type(value, kind, ancestors)


def _freeze_with_type(value: Any, kind: type, ancestors: set[int]) -> tuple[Hashable, ...]:
    """Return (type, value) if the value is hashable and not a container, else (type, frozen items, frozen attributes).

    The two are told apart by their lengths.

    ``ancestors`` are the ids of the containers and objects that hold the value.
    """
    if kind in ATOMS:
        return kind, value
    exact_freezer = FREEZERS.get(kind)
    freezer = exact_freezer or _freezer_for(kind)
    if freezer is None:
        try:
            hash(value)
        except (TypeError, ValueError) as error:
            if isinstance(error, ValueError) and kind is not memoryview:  # a writable memoryview raises ValueError, not TypeError
                raise
            if type(kind.__eq__) is not FunctionType or not known_class(kind).state_is_in_attributes:
                KNOWN_CLASSES.pop(id(kind), None)  # the next instance may find it changed
                raise _CannotBeKey(value, "is unhashable and cannot be compared by value") from error
        else:
            return kind, value
    if id(value) in ancestors:
        raise _CannotBeKey(value, "contains itself")
    ancestors.add(id(value))
    try:
        items = freezer(value, ancestors) if freezer is not None else ()
        return kind, items, None if exact_freezer is not None else _freeze_attributes(value, kind, ancestors)
    finally:
        ancestors.discard(id(value))


def _freezer_for(kind: type[Any]) -> Callable[[Any, set[int]], Hashable] | None:
    """Return the freezer for a subclass of a container; None for other types and for subclasses with a hash of their own."""
    for container, freezer in FREEZERS.items():
        if container in kind.__mro__:  # isinstance() would trust the __class__ of a proxy
            own_hash = kind.__hash__ is not container.__hash__ and kind.__hash__ is not None
            return None if own_hash else freezer
    return None


Freezer = Callable[[Any, set[int]], Hashable]

# The methods of the base classes: those of a subclass may hide items. A multidict shows one value for each key.
_dict_items: Callable[[Any], Iterable[tuple[Any, Any]]] = cast("Any", dict).items
_dict_keys: Callable[[Any], Iterable[Any]] = cast("Any", dict).keys
_dict_values: Callable[[Any], Iterable[Any]] = cast("Any", dict).values
_ordered_items: Callable[[Any], Iterable[tuple[Any, Any]]] = cast("Any", OrderedDict).items


def _freeze_in_order(items_of: Callable[[Any], Iterable[Any]]) -> Freezer:
    return lambda container, ancestors: tuple([_freeze_item(item, ancestors) for item in items_of(container)])


def _freeze_in_any_order(items_of: Callable[[Any], Iterable[Any]]) -> Freezer:
    return lambda container, ancestors: frozenset([_freeze_item(item, ancestors) for item in items_of(container)])


def _freeze_pairs_in_order(container: Any, ancestors: set[int]) -> Hashable:
    return tuple([(_freeze_item(key, ancestors), _freeze_item(value, ancestors)) for key, value in _ordered_items(container)])


def _freeze_pairs_in_any_order(container: Any, ancestors: set[int]) -> Hashable:
    return frozenset([(_freeze_item(key, ancestors), _freeze_item(value, ancestors)) for key, value in _dict_items(container)])


def _freeze_frozendict(container: Any, ancestors: set[int]) -> Hashable:
    items = cast("Any", frozendict).items(container)
    return frozenset([(_freeze_item(key, ancestors), _freeze_item(value, ancestors)) for key, value in items])


def _freeze_bytearray(container: Any, _around: set[int]) -> Hashable:
    return bytes(bytearray.copy(container))


FREEZERS: dict[type[Any], Freezer] = {
    OrderedDict: _freeze_pairs_in_order,
    dict: _freeze_pairs_in_any_order,
    tuple: _freeze_in_order(cast("Any", tuple).__iter__),
    list: _freeze_in_order(cast("Any", list).__iter__),
    frozenset: _freeze_in_any_order(cast("Any", frozenset).__iter__),
    set: _freeze_in_any_order(cast("Any", set).__iter__),
    deque: _freeze_in_order(cast("Any", deque).__iter__),
    bytearray: _freeze_bytearray,
}
if frozendict is not None:
    FREEZERS[frozendict] = _freeze_frozendict


def state_is_in_attributes(kind: type) -> bool:
    """Whether all state of an instance is in its attributes: no base but `object` is implemented in C."""
    for base in kind.__mro__:
        made_in_c = getattr(base.__new__, "__self__", None) is base
        if base is not object and (made_in_c or _has_hidden_fields(base)):
            return False
    return True


def _has_hidden_fields(kind: type) -> bool:
    """Whether instances have more fields than slots: a class implemented in C, without a ``__new__``, has such fields."""
    slots = sum(type(slot) is MemberDescriptorType or name in _NON_FIELD_SLOTS for name, slot in vars(kind).items())
    base = kind.__base__
    return base is not None and kind.__basicsize__ > base.__basicsize__ + slots * _POINTER


def _is_for_cached_property(kind: type, slot: str) -> bool:
    """Whether attrs has given its class this slot for the value of a `functools.cached_property`, with a ``__getattr__``."""
    fields: Iterable[Any] | None = vars(kind).get("__attrs_attrs__")
    return fields is not None and "__getattr__" in vars(kind) and all(slot != each.name for each in fields)


class KnownClass:
    """Facts about a class whose instances count by value, found once. The class is not kept alive."""

    __slots__ = ("_bases", "_class", "fields", "flat_form", "slots", "state_is_in_attributes")

    def __init__(self, kind: type) -> None:
        self._class = ref(kind, partial(KNOWN_CLASSES.pop, id(kind)))  # before another class can have its id
        self._bases = [*map(id, kind.__mro__)]
        self.state_is_in_attributes = state_is_in_attributes(kind)
        self.slots = [  # with their places, since two classes may have slots of the same name
            (place, name)
            for place, base in enumerate(kind.__mro__)
            for name, slot in vars(base).items()
            if type(slot) is MemberDescriptorType and name not in _IGNORED_SLOTS and not _is_for_cached_property(base, name)
        ]
        self.fields: Any = None  # what `_flat_form` knows besides
        self.flat_form: Callable[[Any], tuple[Any, ...]] = _snapshot_alone

    def is_true_of(self, kind: type) -> bool:
        """Whether the class has the same bases and slots as when it was looked at."""
        return self._bases == [*map(id, kind.__mro__)] and all(
            type(vars(kind.__mro__[place]).get(name)) is MemberDescriptorType for place, name in self.slots
        )


KNOWN_CLASSES: dict[int, KnownClass] = {}
"""By the id of the class: a `weakref.WeakKeyDictionary` would take ten times as long."""


def _snapshot_alone(value: object) -> tuple[Hashable]:
    return (freeze(value),)


def known_class(kind: type) -> KnownClass:
    """Return what is known of a class, and look at it if it is new, or has changed."""
    known = KNOWN_CLASSES.get(id(kind))
    if known is None or not known.is_true_of(kind):
        known = KNOWN_CLASSES[id(kind)] = KnownClass(kind)
    return known


for _container in FREEZERS:
    known_class(_container)

IN_DICT = -1
"""The place of the attributes that are not in slots."""


def _freeze_attributes(value: Any, kind: type, ancestors: set[int]) -> Hashable:
    """Freeze all attributes and slots, but for the values that ``functools.cached_property`` has stored."""
    found: list[tuple[int, str, Any]] = []
    for place, name in known_class(kind).slots:
        with suppress(AttributeError):
            found.append((place, name, vars(kind.__mro__[place])[name].__get__(value, kind)))
    of_classes = [vars(base) for base in kind.__mro__]
    for name, item in getattr(value, "__dict__", _NO_ATTRIBUTES).items():
        for names in of_classes:
            if name in names:
                is_cached = isinstance(names[name], cached_property)
                break
        else:
            is_cached = False
        if not is_cached:
            found.append((IN_DICT, name, item))
    return frozenset([(place, name, _freeze_item(item, ancestors)) for place, name, item in found]) if found else None


_NO_ATTRIBUTES: dict[str, Any] = {}


class _Signature(NamedTuple):
    """How a factory takes its arguments: names of its parameters, and frozen defaults.

    The name of a ``*`` or ``**`` parameter is None if there is none, and empty if it is not known.
    """

    order: tuple[str, ...]
    positional: tuple[str, ...]
    by_keyword: frozenset[str]
    required: frozenset[str]
    defaults: dict[str, Hashable]
    var_positional: str | None
    var_keyword: str | None

    @classmethod
    def of(cls, factory: Callable[..., object]) -> _Signature:
        """Read the factory's signature. A built-in callable without one is assumed to take any arguments."""
        try:
            parameters = list(signature(factory).parameters.values())
        except (TypeError, ValueError):
            return cls((), (), frozenset(), frozenset(), {}, "", "")
        positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        by_keyword = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        order = tuple(dict.fromkeys(chain(positional, by_keyword)))
        defaults = {each.name: _freeze_default(each.default) for each in parameters if each.default is not each.empty}
        return cls(
            order,
            tuple(positional),
            frozenset(by_keyword),
            frozenset(order) - defaults.keys(),
            defaults,
            next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), None),
            next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None),
        )


def _need_freezing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether any argument is not of an atomic type."""
    for value in args:  # any() takes three times as long, and this runs at each call that misses the first cache
        if type(value) not in ATOMS:
            return True
    return not ATOMS.issuperset(map(type, kwargs.values()))


_NO_NAMES: frozenset[Any] = frozenset()


class CallKeys:
    """Makes the keys of one factory's calls. Reads its signature once, when it is first needed."""

    __slots__ = ("_factory", "_known_signatures")

    def __init__(self, factory: Callable[..., object]) -> None:
        self._factory = factory
        self._known_signatures: list[_Signature] = []

    @property
    def _signature(self) -> _Signature:
        known = self._known_signatures
        if not known:  # two threads may do this at the same time: the first result is everybody's, with its unique defaults
            known.append(_Signature.of(self._factory))
        return known[0]

    def describe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the call as text, with the secrets in its arguments masked."""
        known = self._signature
        extra = dict.fromkeys(kwargs.keys() - known.by_keyword, known.var_keyword or "")
        return call_name(
            self._factory, known.positional, args, kwargs, var_positional=known.var_positional or "", var_keyword=extra
        )

    def freeze(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Replace each argument that is unhashable, or a container, with a frozen snapshot of it.

        :returns: the same tuple and dict if there is nothing to replace.
        :raises TypeError: if an argument cannot be part of a key; the message names the first such argument.
        """
        if not _need_freezing(args, kwargs):
            return args, kwargs
        argument: int | str = 0
        try:
            frozen_args: list[Hashable] = []
            for argument, value in enumerate(args):  # noqa: B007  # read if freezing fails
                frozen_args.append(freeze(value))
            frozen_kwargs: dict[str, Hashable] = {}
            for argument, value in kwargs.items():
                frozen_kwargs[argument] = freeze(value)
        except _CannotBeKey as error:
            culprit, reason = error.args
            cause = error.__cause__
        else:
            if all(map(is_, frozen_args, args)) and all(map(is_, frozen_kwargs.values(), kwargs.values())):
                return args, kwargs
            return tuple(frozen_args), frozen_kwargs
        raise TypeError(self._error_message(argument, (args, kwargs), culprit, reason)) from cause

    def _error_message(self, argument: int | str, call: Arguments, culprit: object, reason: str) -> str:
        if isinstance(argument, str):
            name, value = argument, call[1][argument]
        else:
            positional, var_positional = self._signature.positional, self._signature.var_positional
            known = argument < len(positional)
            name = positional[argument] if known else f"*{var_positional}" if var_positional else f"#{argument + 1}"
            value = call[0][argument]
        what = _type_name(culprit)
        where = f"is of type {what}, which" if culprit is value else f"holds an object of type {what}, which"
        return (
            f"argument {name!r} of {name_of(self._factory)}() {where} {reason}, so it cannot be part of the key of a call: "
            f"pass something hashable, or give the factory a key=… function that returns something hashable"
        )

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call. It is the same for arguments by position or by name, and for defaults given or omitted.

        :param args: as `freeze` returned them, and ``kwargs`` too.
        """
        signature = self._signature
        if not kwargs and len(args) == len(signature.order) == len(signature.positional):
            return _with_types(args), (), _NO_NAMES
        bound: dict[str, Any] = dict(zip(signature.positional, args, strict=False))
        rest = args[len(signature.positional) :]
        extra: dict[str, Any] = {}
        mismatch = bool(rest) and signature.var_positional is None
        for name, value in kwargs.items():
            if name not in signature.by_keyword:
                mismatch = mismatch or signature.var_keyword is None
                extra[name] = value
            elif name in bound:
                mismatch = True
            else:
                bound[name] = value
        if mismatch or not bound.keys() >= signature.required:
            # The signature does not take these arguments. If the factory takes them all the same, they are the key as written.
            return _with_types(args), frozenset(zip(kwargs, _with_types(kwargs.values()), strict=True))
        for name, default in signature.defaults.items():
            bound.setdefault(name, default)
        values = _with_types([bound[name] for name in signature.order])
        return values, _with_types(rest), frozenset(zip(extra, _with_types(extra.values()), strict=True))

    def differing(self, key: Any, other: Any) -> list[str]:
        """Return the names of the parameters in which two keys of this factory differ; empty if that cannot be determined."""
        if len(key) != 3 or len(other) != 3:
            return []
        names = [name for name, one, two in zip(self._signature.order, key[0], other[0], strict=True) if one != two]
        if key[1] != other[1]:
            names.append(f"*{self._signature.var_positional}")
        return names + sorted({name for name, _ in key[2] ^ other[2]})


class OwnKeys(CallKeys):
    """Makes the keys of a factory that was given a ``key=`` function."""

    __slots__ = ("_own_key",)

    def __init__(self, factory: Callable[..., object], own_key: Callable[..., Hashable]) -> None:
        super().__init__(factory)
        self._own_key = own_key

    def freeze(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Call the user's key function, and return its frozen result as the only argument.

        :raises TypeError: if the result cannot be a key.
        """
        return self.freeze_own(self._own_key(*args, **kwargs))

    def freeze_own(self, value: object) -> Arguments:
        """Do the same for a result that is there already."""
        try:
            return (freeze(value),), {}
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
        """Return the frozen result of the user's key function, with its type."""
        return _with_types(args)

    def differing(self, key: Any, other: Any) -> list[str]:
        """Return nothing: only the user's function knows which parameters it reads."""
        return []


def _with_types(values: Iterable[object]) -> tuple[Hashable, ...]:
    """Pair each frozen value with its type where needed: 1, True and 1.0 are equal, but different arguments."""
    return tuple([value if type(value) in _PLAIN or type(value) is Snapshot else (type(value), value) for value in values])


def _type_name(value: object) -> str:
    return qualified_name(type(value)).removeprefix("builtins.")


class _UnfreezableDefault:
    """Takes the place of a default that cannot be frozen. No argument equals it, only the omitted default does."""


def _freeze_default(default: Any) -> Hashable:
    try:
        return freeze(default)
    except _CannotBeKey:
        return _UnfreezableDefault()
