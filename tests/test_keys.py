"""Which calls of a wrapped factory are the same call: by its arguments, or by a ``key=`` function."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import sqlite3
import sys
import threading
import warnings
from array import array
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Iterator
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import attrs
import httpx
import numpy as np
import pydantic
import pytest
from django.utils.datastructures import MultiValueDict  # type: ignore[import-untyped]  # it has no types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from asyncio_loop_local import _cpython, _keys, aclose, release, singleton, sticky_singleton_acm
from conftest import Run
from key_counts import COUNTS, Count, Written, call, on_a_loop
from recording import Recorded, in_threads, on_each_loop, on_one_loop, reports_of_this_loop, turns

T = TypeVar("T")

generated = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(params=list(COUNTS))
def count(request: pytest.FixtureRequest) -> Count:
    """Counts different calls of a wrapped factory, and checks that each finds its value again."""
    return COUNTS[request.param]


def connect(host: Any, port: Any = 80, *, tls: Any = False) -> nullcontext[None]:
    return nullcontext()


def make_of(value: Any) -> nullcontext[None]:
    return nullcontext()


def by_place_and_name(*more: Any, **by_name: Any) -> nullcontext[None]:
    return nullcontext()


def gather(first: Any, *rest: Any, **named: Any) -> nullcontext[None]:
    return nullcontext()


def strict(a: Any, b: Any = 2, /, *, c: Any, d: Any = 4) -> nullcontext[None]:
    return nullcontext()


def sharing(a: Any, /, **more: Any) -> nullcontext[None]:
    return nullcontext()


def plot(name: str, grid: Any = np.zeros(2)) -> nullcontext[None]:  # a default that cannot be part of a key
    return nullcontext()


class Client(nullcontext[None]):
    def __init__(self, host: str, port: int = 80) -> None:
        super().__init__()

    def session(self, name: str, size: int = 1) -> nullcontext[None]:
        return nullcontext()


class Static:
    @staticmethod
    def __call__(host: str, port: int = 80) -> nullcontext[None]:
        return nullcontext()


class ClientOf(Client, Generic[T]):
    """One of many types of clients."""


# Arguments by position, by name, or left out.

FORMS: dict[str, tuple[Callable[..., Any], int, list[Written]]] = {
    "by position, by name, and defaults": (
        *(connect, 1),
        [
            *(call("h"), call(host="h"), call("h", 80), call("h", port=80), call(host="h", port=80), call(port=80, host="h")),
            *(call(tls=False, port=80, host="h"), call("h", tls=False)),
        ],
    ),
    "each argument counts, for its own parameter": (
        *(connect, 6),
        [call("h"), call("g"), call("h", 81), call(80, "h"), call("h", tls=True), call("h", tls=None)],
    ),
    "a default counts with its type": (connect, 3, [call("h"), call("h", 80), call("h", 80.0), call("h", tls=0)]),
    "*args: first by name": (gather, 1, [call(1), call(first=1)]),
    "**kwargs: in any order": (gather, 1, [call(1, a=1, b=2), call(1, b=2, a=1), call(b=2, first=1, a=1)]),
    "*args: order and number count": (
        *(gather, 6),
        [call(1, 2, 3), call(1, 3, 2), call(1, 2), call(1, (2, 3)), call(1, [2, 3]), call((1, 2, 3))],
    ),
    "*args and **kwargs: types count": (
        *(gather, 7),
        [call(1, 2), call(1, True), call(1, [2]), call(1, [2.0]), call(1, a=2), call(1, a=2.0), call(1, b=2)],
    ),
    "*args are not **kwargs": (gather, 4, [call(1, ("a", 2)), call(1, a=2), call(1, "a", 2), call(1, {"a": 2})]),
    "positional-only and keyword-only": (strict, 1, [call(1, c=3), call(1, 2, c=3), call(1, d=4, c=3), call(1, 2, c=3, d=4)]),
    "defaults of both count": (strict, 4, [call(1, c=3), call(1, 3, c=3), call(1, c=4), call(1, c=3, d=3)]),
    "a positional-only name in **kwargs": (sharing, 4, [call(1), call(1, a=1), call(1, a=2), call(2, a=1)]),
    "a class": (Client, 2, [call("h"), call(host="h"), call("h", 80), call("h", 81)]),
    "a class with type arguments": (ClientOf[int], 2, [call("h"), call(host="h"), call("h", 80), call("h", 81)]),
    "a class of the standard library with type arguments": (
        nullcontext[int],
        2,
        [call(), call(None), call(enter_result=None), call(1)],
    ),
    "a partial of a class with type arguments": (
        *(functools.partial(ClientOf[int], port=80), 2),
        [call("h"), call(host="h"), call("h", port=80), call("h", port=81)],
    ),
    "a partial by name": (
        *(functools.partial(Client, port=80), 2),
        [call("h"), call(host="h"), call("h", port=80), call("h", port=81)],
    ),
    "a partial by position": (functools.partial(Client, "h"), 2, [call(), call(80), call(port=80), call(81)]),
    "a bound method": (Client("h").session, 2, [call("n"), call(name="n"), call("n", 1), call("m")]),
    "a default that cannot be part of a key": (plot, 2, [call("a"), call(name="a"), call("b")]),
}


if sys.version_info >= (3, 14):  # in some versions before, inspect finds other parameters

    @warnings.deprecated("use Client")
    class OldClient(Client):
        """Its ``__new__`` takes anything."""

    FORMS["a deprecated class"] = (OldClient, *FORMS["a class"][1:])
    FORMS["an object with a static __call__"] = (Static(), *FORMS["a class"][1:])


@pytest.mark.filterwarnings("ignore:use Client:DeprecationWarning")
@pytest.mark.parametrize(("factory", "number", "calls"), FORMS.values(), ids=list(FORMS))
def test_a_call_is_the_same_however_it_is_written(
    count: Count, factory: Callable[..., Any], number: int, calls: list[Written]
) -> None:
    """By position or by name, in any order, defaults given or left out: what counts is the value of each parameter."""
    assert count(factory, *calls) == number


def test_calls_of_a_callable_without_a_signature_count_as_written() -> None:
    """Where no signature can be read, keyword order does not matter, and all other ways to write a call are their own."""
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(dict)
    count = COUNTS["singleton"]
    assert count(dict, call(a=1, b=2), call(b=2, a=1)) == 1
    assert count(dict, call(a=1), call({"a": 1}), call([("a", 1)]), call(a=True), call({"a": True}), call()) == 6


# Arguments that are easily mistaken for each other are different.


class Made:
    """What a factory made, and for what."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class Resource(Made, nullcontext[None]):
    """A context manager besides, which is never entered."""


async def assert_apart(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    """Two arguments are two, in whatever order and form they come, and a release of one leaves the other."""
    for first, second in ((one, other), (other, one)):
        for make in (singleton(Made), sticky_singleton_acm(Resource)):
            assert make(first()) is not make(second())
            assert make(k=first()) is not make(k=second())
            kept = second()
            mine = make(kept)
            await release(make, first())
            assert make(kept) is mine


def liars(kind: Any) -> tuple[type[Any], type[Any]]:
    """Two subclasses whose instances say that they are equal to everything, and hash alike."""

    def equal(_self: object, _other: object) -> bool:
        return True

    def unequal(_self: object, _other: object) -> bool:
        return False

    def hashed(_self: object) -> int:
        return hash("a")

    lies: dict[str, Any] = {"__eq__": equal, "__ne__": unequal, "__hash__": hashed}
    return type("Ours", (kind,), lies), type("Theirs", (kind,), lies)


class Color(StrEnum):
    A = "a"


class Level(IntEnum):
    ONE = 1


class Name(str):
    __slots__ = ()


@dataclass
class Settings:
    value: Any
    more: Any = None


@dataclass(frozen=True)
class Frozen:
    value: Any


class Pair(NamedTuple):
    one: Any
    two: Any


@attrs.define
class Attrs:
    value: Any


@attrs.define(slots=False)
class AttrsWithDict:
    value: Any


class Model(pydantic.BaseModel):
    value: Any
    more: int = 0


class OpenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    _hidden: int = pydantic.PrivateAttr(default=0)

    def hiding(self, value: int) -> OpenModel:
        self._hidden = value
        return self


class Slotted:
    __slots__ = ("__private", "value")

    def __init__(self, value: Any, private: Any = None) -> None:
        self.value = value
        self.__private = private

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and (self.value, self.__private) == (other.value, other.__private)

    __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it


class SlottedMore(Slotted):
    __slots__ = "more"  # noqa: PLC0205  # a single slot may be written so

    def __init__(self, value: Any, more: Any) -> None:
        super().__init__(value)
        self.more = more


class SameSlots(Slotted):
    """Has two slots of one name, and an attribute of that name besides."""

    __slots__ = ("__dict__", "value")

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        vars(Slotted)["value"].__set__(self, "same")  # the slot that the class has hidden
        vars(self)["value"] = "same"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameSlots) and self.value == other.value

    __hash__ = None  # counts by value


NOTHING: dict[str, Any] = {}


def hiding(kind: Any) -> Any:
    """A subclass of a container whose instances hide their contents."""
    methods: dict[str, Any] = {
        "__iter__": lambda _self: iter(()),  # pyright: ignore[reportUnknownLambdaType]
        "items": lambda _self: NOTHING.items(),  # pyright: ignore[reportUnknownLambdaType]
        "keys": lambda _self: NOTHING.keys(),  # pyright: ignore[reportUnknownLambdaType]
        "values": lambda _self: NOTHING.values(),  # pyright: ignore[reportUnknownLambdaType]
        "__len__": lambda _self: 0,  # pyright: ignore[reportUnknownLambdaType]
        "__bytes__": lambda _self: b"",  # pyright: ignore[reportUnknownLambdaType]
    }
    return type("Hiding", (kind,), methods)


class SaysItIsADict:
    """A proxy of nothing: its class is another one than it says."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def __class__(self) -> Any:
        return dict

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError

    def items(self) -> Any:
        return NOTHING.items()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # counts by value


OurStr, TheirStr = liars(str)
OurInt, TheirInt = liars(int)
OurFloat, TheirFloat = liars(float)
OurBytes, TheirBytes = liars(bytes)
OurTuple, TheirTuple = liars(tuple)
OurFrozenset, TheirFrozenset = liars(frozenset)
OurObject, TheirObject = liars(object)

# Of each group, all are different, and so are containers of one and containers of another.
HASHABLE: dict[str, Callable[[], list[Any]]] = {
    "numbers": lambda: [1, True, 1.0, 1 + 0j, Decimal(1), Fraction(1), Level.ONE, "1", b"1"],
    "nothings": lambda: [0, False, None, "None", "", b"", (), frozenset[Any]()],
    "equal hashes": lambda: [0, 2**61 - 1, -1, -2],
    "strings": lambda: ["a", Color.A, Name("a"), OurStr("a"), TheirStr("a"), b"a", OurObject(), TheirObject()],
    "liars: strings": lambda: [OurStr("a"), TheirStr("b")],
    "liars: numbers": lambda: [1, OurInt(1), TheirInt(1), OurFloat(1), TheirFloat(1)],
    "liars: bytes": lambda: [b"a", OurBytes(b"a"), TheirBytes(b"a")],
    "liars: containers": lambda: [("a",), OurTuple(("a",)), TheirTuple(("b",)), OurFrozenset({"a"}), TheirFrozenset({"b"})],
    "classes": lambda: [int, bool, Level, OurObject, TheirObject],
    "NaNs": lambda: [float("nan"), float("nan")],
    "tuples": lambda: [(1, 2), (True, 2), (1.0, 2), Pair(1, 2), (1, (2,)), ((1, 2),)],
    "nested": lambda: [(1, (2, (3,))), (1, (2, (3.0,)))],
    "frozensets": lambda: [frozenset({1}), frozenset({1.0}), (1,), frozenset({"1"})],
    "inside of a key": lambda: [(str, "a"), "a", ((str, "a"),)],
}
UNHASHABLE: dict[str, Callable[[], list[Any]]] = {
    "byte arrays": lambda: [b"ab", bytearray(b"ab"), "ab"],
    "sequences": lambda: [(1, 2), [1, 2], Pair(1, 2), deque([1, 2]), {1, 2}, frozenset({1, 2}), UserList([1, 2]), [2, 1]],
    "dicts": lambda: [
        *({"a": 1}, {"a": True}, OrderedDict(a=1), Counter(a=1), UserDict({"a": 1}), UserDict({"a": True})),
        *(defaultdict[str, Any](list, a=1), defaultdict[str, Any](dict, a=1)),
        *([("a", 1)], (("a", 1),), frozenset({("a", 1)})),
    ],
    "keys of dicts": lambda: [{1: "a"}, {True: "a"}, {1.0: "a"}],
    "empty": lambda: [{}, [], set[Any](), deque[Any]()],
    "order": lambda: [OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), [1, 2], [2, 1]],
    "objects": lambda: [Settings(1), Attrs(1), AttrsWithDict(1), Slotted(1), Model(value=1), Frozen([1]), Settings(True)],
    "nested objects": lambda: [Settings({"a": [1]}), Settings({"a": [True]}), UserList([1]), UserList([1.0])],
    "private slots": lambda: [Slotted(1, 2), Slotted(1, 3), SlottedMore(1, 2), SlottedMore(1, 3)],
    "slots of one name": lambda: [SameSlots("a"), SameSlots("b")],
    "private attributes of models": lambda: [OpenModel(), OpenModel().hiding(1), OpenModel().hiding(2)],
    "extra attributes of models": lambda: [OpenModel.model_validate({"k": value}) for value in (1, True, "1")],
    "proxies": lambda: [SaysItIsADict("a"), SaysItIsADict("b")],
    "many values a key": lambda: [MultiDict([("role", "user")]), MultiDict([("role", "user"), ("role", "admin")])],
    "Django's": lambda: [MultiValueDict({"role": ["user"]}), MultiValueDict({"role": ["admin", "user"]})],
}
HIDING: list[tuple[Any, list[Any]]] = [
    *((kind, [["a"], ["b"]]) for kind in (tuple, frozenset, list, set, deque, bytearray)),
    *((kind, [{"a": 1}, {"a": 2}]) for kind in (dict, OrderedDict)),
]
for base, contents in HIDING:
    kind = hiding(base)
    UNHASHABLE[f"hiding {base.__name__}"] = lambda kind=kind, base=base, contents=contents: [  # type: ignore[misc]  # it has defaults
        kind(b"".join(map(str.encode, each)) if base is bytearray else each) for each in contents
    ]
AROUND: dict[str, Callable[[Any], Any]] = {
    "alone": lambda value: value,
    "list": lambda value: [value],
    "tuple": lambda value: (value, value),
    "deque": lambda value: deque([0, value]),
    "dict": lambda value: {"k": value},
    "OrderedDict": lambda value: OrderedDict([("k", value)]),
    "defaultdict": lambda value: defaultdict(int, k=value),
    "MultiDict": lambda value: MultiDict([("k", value)]),
    "UserDict": lambda value: UserDict(k=value),
    "named tuple": lambda value: Pair(value, [0]),
    "dataclass": Settings,
    "frozen dataclass": lambda value: Frozen([value]),
    "attrs": Attrs,
    "attrs with __dict__": AttrsWithDict,
    "pydantic": lambda value: Model(value=value),
    "slots": Slotted,
    "nested": lambda value: Settings([Attrs({"k": ([value],)})]),
}
AROUND_HASHABLE: dict[str, Callable[[Any], Any]] = {
    "set": lambda value: {value},
    "frozenset": lambda value: frozenset({value}),
    "key of a dict": lambda value: {value: 0},
    "nested tuple": lambda value: ((value, 0), value),
    "nested set": lambda value: {"k": [({value},)]},
}


@pytest.mark.parametrize("group", [*HASHABLE.values(), *UNHASHABLE.values()], ids=[*HASHABLE, *UNHASHABLE])
@on_one_loop
async def test_arguments_that_can_be_mistaken_are_different(group: Callable[[], list[Any]]) -> None:
    """Arguments are different though they are equal, hash alike, lie about it, or hide their contents; inside others too."""
    containers = [*AROUND.values(), *(AROUND_HASHABLE.values() if group in HASHABLE.values() else ())]
    for around in containers:
        for one, other in itertools.combinations(range(len(group())), 2):
            await assert_apart(lambda: around(group()[one]), lambda: around(group()[other]))  # called at once


# Arguments that are unhashable, or containers, count by value.

BY_VALUE: dict[str, Callable[[Any], Any]] = {
    **{name: around for name, around in (AROUND | AROUND_HASHABLE).items() if name != "alone"},
    "bytearray": lambda value: bytearray(str(value), "ascii"),
    "list of bytearrays": lambda value: [bytearray(str(value), "ascii")],
    "inherited slots": lambda value: SlottedMore(0, value),
    "httpx.Timeout": httpx.Timeout,
    "extra attributes of a model": lambda value: OpenModel.model_validate({"k": value}),
    "private attributes of a model": lambda value: OpenModel().hiding(value),
    "private slots": lambda value: Slotted(1, value),
}


@pytest.mark.parametrize("made", BY_VALUE.values(), ids=list(BY_VALUE))
def test_equal_contents_are_one_argument(count: Count, made: Callable[[Any], Any]) -> None:
    """Containers, and objects that compare by value, are the same argument if their contents are; otherwise they are not."""
    assert made(1) is not made(1)
    assert count(make_of, call(made(1)), call(made(1)), call(value=made(1)), call(made(2)), call(value=made(2))) == 2
    assert count(make_of, call(made(1)), call(copy.deepcopy(made(1)))) == 1


class Opaque:
    """Compares by identity."""


@dataclass
class Cached:
    value: int

    @functools.cached_property
    def twice(self) -> int:
        return 2 * self.value


@attrs.define
class CachedInSlot:
    value: int

    @functools.cached_property
    def twice(self) -> int:
        return 2 * self.value


@attrs.define
class CachedInSlots(CachedInSlot):
    more: int = 0

    @functools.cached_property
    def thrice(self) -> int:
        return self.twice + self.value

    def read(self) -> CachedInSlots:
        assert self.thrice == 3 * self.value
        return self


AnyCached = TypeVar("AnyCached", Cached, CachedInSlot)


def read(cached: AnyCached) -> AnyCached:
    assert cached.twice == 2 * cached.value
    return cached


ONE, OTHER, NAN = Opaque(), Opaque(), float("nan")
SAME: dict[str, tuple[int, list[Any]]] = {
    "order of a dict": (1, [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
    "order of a set": (1, [{8, 0}, {0, 8}]),
    "objects without __eq__": (2, [ONE, OTHER, ONE]),
    "objects without __eq__, inside": (2, [[ONE], [OTHER], [ONE]]),
    "functions and classes": (4, [print, len, Opaque, Opaque.__init__, len]),
    "NaN is itself": (3, [NAN, NAN, float("nan"), [NAN], [NAN]]),
    "minus zero is zero": (1, [0.0, -0.0]),
    "which fields of a model were given": (2, [Model(value=1), Model(value=1, more=0), Model(value=1, more=1)]),
    "values of functools.cached_property": (2, [read(Cached(1)), Cached(1), Cached(2)]),
    "values of functools.cached_property in slots": (2, [read(CachedInSlot(1)), CachedInSlot(1), CachedInSlot(2)]),
    "values of functools.cached_property in slots of two classes": (
        *(3, [CachedInSlots(1).read(), CachedInSlots(1), CachedInSlots(2), CachedInSlots(2, 1)]),
    ),
    "hashable dataclasses": (2, [Frozen("a"), Frozen("a"), Frozen("b")]),
}


@pytest.mark.parametrize(("number", "arguments"), SAME.values(), ids=list(SAME))
def test_arguments_that_are_the_same(count: Count, number: int, arguments: list[Any]) -> None:
    """What does not count in comparisons does not count in keys; objects without __eq__ are equal only to themselves."""
    assert count(make_of, *map(call, arguments)) == number
    assert count(make_of, *(call(value=argument) for argument in arguments)) == number


def test_hashable_objects_count_by_their_own_hash(count: Count) -> None:
    """A class with a hash of its own, a container's subclass too, is found by its own == and hash."""

    class Folded(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Folded) and self.lower() == other.lower()

        def __hash__(self) -> int:
            return hash(self.lower())

    class HashedList(list[int]):
        def __hash__(self) -> int:  # type: ignore[override]  # a list that hashes, on purpose
            return 0

        def __eq__(self, other: object) -> bool:
            return self is other

    first, second = HashedList([1]), HashedList([1])
    assert count(make_of, call(Folded("A")), call(Folded("a")), call([Folded("A")]), call([Folded("a")])) == 2
    assert count(make_of, call(first), call(second), call(first)) == 2


def test_an_iterator_counts_as_itself(count: Count) -> None:
    """Nothing is consumed to make a key: a generator or iterator is one argument, and still whole when the factory gets it."""
    numbers = iter([1, 2])

    def generated() -> Iterator[int]:
        yield 1

    generator = generated()
    assert count(make_of, call(numbers), call(generator), call(value=numbers), call(generated())) == 3
    assert list(numbers) == [1, 2]
    assert list(generator) == [1]


CHANGES: list[tuple[Any, Callable[[Any], object]]] = [
    ({"a": 1}, lambda it: it.update(b=2)),
    ([1], lambda it: it.append(2)),
    ({1}, lambda it: it.add(2)),
    (bytearray(b"a"), lambda it: it.extend(b"b")),
    (deque([1]), lambda it: it.append(2)),
    (Settings(1), lambda it: setattr(it, "value", 2)),
    (Attrs(1), lambda it: setattr(it, "value", 2)),
    (Model(value=1), lambda it: setattr(it, "value", 2)),
    (Slotted(1), lambda it: setattr(it, "value", 2)),
    (httpx.Timeout(1), lambda it: setattr(it, "read", 2.0)),
    ({"a": [1]}, lambda it: it["a"].append(2)),
    (([1],), lambda it: it[0].append(2)),
    (Frozen([1]), lambda it: it.value.append(2)),
    (Settings({"a": [1]}), lambda it: it.value["a"].append(2)),
    (MultiDict([("a", [1])]), lambda it: it["a"].append(2)),
    ([Settings(({"a": deque([1])},))], lambda it: it[0].value[0]["a"].append(2)),
]


def itself(value: Any) -> Any:
    return value


@pytest.mark.parametrize("key", [None, itself], ids=["", "key="])
@pytest.mark.parametrize(("argument", "change"), CHANGES, ids=lambda it: type(it).__name__)
@on_one_loop
async def test_changing_an_argument_afterwards_changes_no_key(argument: Any, change: Callable[[Any], object], key: Any) -> None:
    """An argument counts by its value at the time of the call; so does the result of a key function."""
    argument, before = copy.deepcopy(argument), copy.deepcopy(argument)
    make = singleton(make_of, key=key)
    first = make(argument)
    assert make(argument) is first
    change(argument)
    changed = make(argument)
    assert changed is not first
    assert make(before) is first
    assert make(argument) is changed
    assert await release(make, before)
    assert make(argument) is changed
    assert make(before) is not first


def test_the_factory_gets_the_arguments_themselves() -> None:
    """Only the key is made of values: the factory is called with the very objects that the caller gave."""
    settings, headers = Settings(1), {"a": "b"}
    made = on_a_loop(lambda: singleton(Made)(settings, headers=headers))
    assert made.args[0] is settings
    assert made.kwargs["headers"] is headers


@on_one_loop
async def test_httpx_clients_of_equal_arguments_are_one() -> None:
    """A real httpx.AsyncClient is made once for equal headers and timeouts, its own default among them."""
    client = sticky_singleton_acm(httpx.AsyncClient)
    one = await client(timeout=httpx.Timeout(3), headers={"a": "b"})
    assert await client(headers={"a": "b"}, timeout=httpx.Timeout(3)) is one
    plain = await client()
    assert await client(timeout=httpx.Timeout(5.0)) is plain
    assert len({one, plain, await client(timeout=httpx.Timeout(4)), await client(headers={"a": "c"})}) == 4
    assert not one.is_closed
    await aclose()
    assert one.is_closed


# Arguments that cannot be part of a key.


class Database(sqlite3.Connection):
    """Has its state in C, in no attribute."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it


def cyclic_list() -> list[Any]:
    inner: list[Any] = []
    inner.append({"k": inner})
    return inner


def cyclic_settings() -> Settings:
    cyclic = Settings(1)
    cyclic.more = [cyclic]
    return cyclic


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "array": (lambda: array("i", [1]), "array.array"),
    "numpy": (lambda: np.zeros(2), "numpy.ndarray"),
    "namespace": (lambda: SimpleNamespace(a=1), "types.SimpleNamespace"),
    "dict view": (lambda: {"a": 1}.keys(), "dict_keys"),
    "writable memoryview": (lambda: memoryview(bytearray(b"a")), "memoryview"),
    "state in C": (lambda: Database(":memory:"), "Database"),
    "list in itself": (cyclic_list, "list"),
    "dataclass in itself": (cyclic_settings, "Settings"),
}


@pytest.mark.parametrize(("made", "named"), REFUSED.values(), ids=list(REFUSED))
def test_other_unhashable_arguments_are_refused(count: Count, made: Callable[[], Any], named: str) -> None:
    """What can neither be hashed nor compared by value is a `TypeError` that names parameter and type, and suggests key=."""

    def connect(host: str, port: object) -> object:
        raise AssertionError("the factory does not run")

    argument = made()
    with closing(argument) if isinstance(argument, Database) else nullcontext():
        values = [argument, [argument], {"k": (argument,)}, Settings(argument), Attrs(argument), Frozen([argument])]
        for value in values:
            for written in (call("h", value), call(port=value, host="h"), call("h", port=value)):
                with pytest.raises(TypeError, match=rf"'port' of connect\(\).*{named}.*key="):
                    count(connect, written)


@on_one_loop
async def test_the_error_names_the_parameter_of_any_kind() -> None:
    """An argument of *args is named by that parameter, one of **kwargs by its keyword, one of a method by its parameter."""

    class Hub:
        @singleton
        def feed(self, first: Any, *items: Any, **options: Any) -> None: ...

    written = [(call(array("i")), "'first'"), (call(1, 2, array("i")), "items'"), (call(1, depth=array("i")), "'depth'")]
    for (args, kwargs), name in written:
        with pytest.raises(TypeError, match=name):
            Hub().feed(*args, **kwargs)


def test_without_a_signature_the_error_gives_the_position() -> None:
    """Where parameters have no names, the error gives the argument's position."""
    with pytest.raises(TypeError, match=r"#1.*dict.*array\.array.*key="):
        on_a_loop(lambda: singleton(dict)(array("i")))  # type: ignore[arg-type,loop-local-key]  # wrong on purpose


def test_a_key_never_overlooks_what_an_object_holds(count: Count) -> None:
    """Objects whose state is not in their attributes are compared by it or refused, but never mistaken for each other."""

    class Word(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return str.__eq__(self, other)

        __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it

    class Failure(Exception):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Failure) and self.args == other.args

        __hash__ = None  # type: ignore[assignment]  # as above

    class LateSlots:
        __slots__ = iter(("value",))

        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, LateSlots) and self.value == other.value

        __hash__ = None  # type: ignore[assignment]  # as above

    masked: Any = np.ma  # type: ignore[attr-defined,unused-ignore]  # numpy's types of it are partly unknown
    pairs: list[tuple[Any, Any]] = [
        (Word("a"), Word("b")),
        (Failure(1), Failure(2)),
        (LateSlots(1), LateSlots(2)),
        (masked.array([1, 2]), masked.array([3, 4])),
    ]
    for one, other in pairs:
        try:
            different = count(make_of, call(one), call(other))
        except TypeError as error:
            assert "'value'" in str(error)
            assert "key=" in str(error)
        else:
            assert different == 2, type(one)


# Errors of the factory, and of the arguments' own methods.


@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, LookupError, RuntimeError])
@pytest.mark.parametrize("argument", ["a", ["a"]], ids=["hashable", "by value"])
@on_one_loop
async def test_an_error_of_the_factory_passes_through_untouched(kind: type[Exception], argument: Any) -> None:
    """The factory runs once a call; its error, a TypeError too, arrives as it was raised, and is not remembered."""
    raised: list[Exception] = []

    def fail(value: Any) -> Any:
        if len(raised) == 2:
            return nullcontext()
        raised.append(kind("own"))
        raise raised[-1]

    for make in (singleton(fail), sticky_singleton_acm(fail)):
        raised.clear()
        for times in (1, 2):
            with pytest.raises(kind) as caught:
                make(argument)
            assert len(raised) == times
            assert caught.value is raised[-1]
            assert caught.value.__context__ is caught.value.__cause__ is None
            assert not caught.value.__suppress_context__
            assert not hasattr(caught.value, "__notes__")
        assert make(argument) is make(argument)


@on_one_loop
async def test_arguments_that_do_not_fit_are_refused_by_the_factory_itself() -> None:
    """A call with too few, too many or unknown arguments gets Python's own TypeError."""
    make = singleton(connect)
    make("h")  # a remembered value does not answer a wrong call
    wrong = [call(), call("h", 1, 2), call("h", host="h"), call("h", colour="red"), call(port=1), call("h", **{"": 1})]
    for args, kwargs in wrong:
        with pytest.raises(TypeError, match=r"connect\(\)") as ours:
            make(*args, **kwargs)
        with pytest.raises(TypeError) as own:
            connect(*args, **kwargs)
        assert str(ours.value) == str(own.value)
        assert ours.value.__context__ is None


class BrokenHash:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __hash__(self) -> int:
        raise self.error("broken hash")

    def __repr__(self) -> str:
        raise self.error("broken repr")


class BrokenEq(BrokenHash):
    def __eq__(self, other: object) -> bool:
        raise self.error("broken eq")

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, AttributeError, KeyError, LookupError, KeyboardInterrupt])
@on_one_loop
async def test_an_error_of_an_arguments_own_hash_or_eq_comes_through(error: type[BaseException]) -> None:
    """The caller gets the error that an argument's __hash__ or __eq__ raises, and other calls are not affected."""
    make = singleton(make_of)
    for broken in (BrokenHash(error), [BrokenHash(error)], Settings(BrokenHash(error))):
        with pytest.raises(error, match="broken hash"):
            make(broken)
    make(BrokenEq(error))
    with pytest.raises(error, match="broken eq"):
        make(BrokenEq(error))
    assert make(1) is make(value=1)


def test_a_type_error_of_a_hash_is_the_cause_of_the_refusal() -> None:
    """An argument whose __hash__ raises `TypeError` is unhashable; the error names it, with the original as its cause."""
    with pytest.raises(TypeError, match=r"'value'.*BrokenHash.*key=") as caught:
        on_a_loop(lambda: singleton(make_of)(BrokenHash(TypeError)))
    assert str(caught.value.__cause__) == "broken hash"


def test_a_broken_repr_breaks_no_key(count: Count) -> None:
    """Arguments whose repr fails work like any others, inside containers too."""
    one, other = BrokenEq(ValueError), type("Mended", (BrokenHash,), {"__hash__": object.__hash__})(ValueError)
    assert count(make_of, call(one), call([one]), call(other), call([other])) == 4


@pytest.mark.parametrize("moment", ["hash", "eq"])
@on_one_loop
async def test_a_call_made_while_a_key_is_looked_up_gets_its_own(moment: str) -> None:
    """A call made by an argument's __hash__ or __eq__ gets its own value, and so does the call that it interrupts."""
    make = singleton(Made)
    got: dict[str, Made] = {}

    class Calling:
        is_busy = False

        def call(self, what: str) -> None:
            if what == moment and not self.is_busy and len(got) < 30:
                self.is_busy = True
                name = f"{len(got)}"
                got[name] = make(name)
                self.is_busy = False

        def __hash__(self) -> int:
            self.call("hash")
            return 1

        def __eq__(self, other: object) -> bool:
            self.call("eq")
            return self is other

    for _ in range(2):
        callings = [Calling(), Calling(), Calling()]
        for calling in callings * 2:
            assert make(calling).args == (calling,)
            assert make(calling) is make(calling)
    assert len(got) > 5
    for name, made in got.items():
        assert made.args == (name,)
        assert make(name) is made


class Unstable:
    """Has another hash every time, and is equal to everything."""

    def __init__(self) -> None:
        self.hashes = 0

    def __hash__(self) -> int:
        self.hashes += 1
        return self.hashes

    def __eq__(self, other: object) -> bool:
        return True


@generated
@given(st.lists(st.sampled_from([0, 1, "a", True, 1.0, None]) | st.builds(Unstable), min_size=2, max_size=8))
def test_an_unstable_hash_gets_no_other_arguments_value(arguments: list[Any]) -> None:
    """An object whose hash always changes gets a new value, or that of another such object, and other arguments keep theirs."""

    def check() -> None:
        make = singleton(Made)
        for argument in arguments * 3:
            made = make(argument)
            assert type(made.args[0]) is type(argument)
            if type(argument) is not Unstable:
                assert made.args == (argument,)
                assert make(argument) is made

    on_a_loop(check)


class Changing:
    """Hashes by a value that can be changed, and its hash can be broken."""

    def __init__(self, held: Hashable) -> None:
        self.held = held
        self.is_broken = False

    def __hash__(self) -> int:
        if self.is_broken:
            raise ZeroDivisionError
        return hash(self.held)

    def __eq__(self, other: object) -> bool:
        if self.is_broken:
            raise ZeroDivisionError
        return isinstance(other, Changing) and self.held == other.held


@pytest.mark.parametrize("how", ["changed", "broken"])
@pytest.mark.parametrize("end", ["aclose", "run"])
@on_each_loop
async def test_an_argument_whose_hash_has_changed_does_not_disturb_the_end(log: list[Any], how: str, end: str) -> list[Any]:
    """All resources are exited at the end of the loop, though an argument's __hash__ has changed or broken since it was given."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def pool(name: Any) -> AsyncGenerator[None]:
        yield
        log.append(name)

    middle = Changing(1)
    for name in ("first", middle, "last"):
        await pool(name)
    middle.held, middle.is_broken = 2, how == "broken"
    if end == "aclose":
        await aclose()
        assert len(log) == 3
    return ["last", middle, "first"]


@pytest.mark.parametrize("how", ["changed", "broken"])
@on_each_loop
async def test_a_resource_that_died_is_not_found_again(how: str) -> None:
    """A resource that died while its argument hashed otherwise is made anew, once the argument is what it was before."""
    reports = reports_of_this_loop()

    @sticky_singleton_acm
    def pool(argument: Changing) -> Recorded:
        return Recorded()

    argument = Changing(1)
    first = await pool(argument)
    argument.held, argument.is_broken = 2, how == "broken"
    first.die()
    await turns()
    assert len(reports) == 1
    argument.held, argument.is_broken = 1, False
    second = await pool(argument)
    assert await pool(argument) is second is not first
    assert await release(pool, argument)
    assert not await release(pool, argument)


# Thousands of different keys.


def new_keys(make: Callable[[Any], object], first: int, last: int) -> None:
    for number in range(first, last):
        make(number)


def reports(*calls: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in calls:
            each()
    return caught


def test_more_than_2000_keys_are_reported_once_per_loop() -> None:
    """More than 2,000 keys of one factory on one loop give one `ResourceWarning`, which names factory, parameter and key=."""

    def open_channel(host: str, token: object = None) -> object:
        return object()

    make, calm = singleton(open_channel), singleton(open_channel)

    def check() -> None:
        assert not reports(
            lambda: new_keys(lambda number: make("h", number), 0, 2_000),
            lambda: new_keys(lambda number: calm("h", number), 0, 2_000),
            lambda: new_keys(lambda number: make(token=number, host="h"), 0, 2_000),
        )
        (warning,) = reports(
            lambda: new_keys(lambda number: make("h", number), 2_000, 5_000),
            lambda: new_keys(lambda number: calm("h", number), 0, 2_000),
        )
        assert warning.category is ResourceWarning
        assert [word in str(warning.message) for word in ("open_channel()", "'token'", "key=", "'host'")] == [True] * 3 + [False]

    on_a_loop(check)
    on_a_loop(check)


by_name = singleton(by_place_and_name)


def by_depth(number: int) -> object:
    return by_name(depth=number)


KEYED: dict[str, tuple[Callable[..., Any], str]] = {
    "*args": (singleton(by_place_and_name), "more"),
    "**kwargs": (by_depth, "depth"),
    "key=": (singleton(make_of, key=int), "make_of() has been called with 2,001 different keys on one event loop"),
}


@pytest.mark.parametrize(("make", "text"), KEYED.values(), ids=list(KEYED))
def test_the_report_points_at_the_call(make: Callable[[Any], object], text: str) -> None:
    """The report has the line of the call, once a loop; it names ``*args``, the keywords of ``**kwargs``, or just the factory."""
    lines, start = inspect.getsourcelines(new_keys)
    for _ in range(2):
        (warning,) = on_a_loop(lambda: reports(lambda: new_keys(make, 0, 5_000)))
        assert warning.category is ResourceWarning
        assert text in str(warning.message)
        assert warning.filename == __file__
        if make is not by_depth:
            assert warning.lineno == start + next(index for index, line in enumerate(lines) if "make(number)" in line)


@on_one_loop
async def test_making_one_key_anew_often_is_no_new_key(log: list[str]) -> list[str]:
    """A resource that fails to enter thousands of times, with the same arguments, is not reported as new keys."""

    class Failing(nullcontext[None]):
        async def __aenter__(self) -> None:
            log.append("attempt")
            raise ConnectionError

    make = sticky_singleton_acm(Failing)
    for _ in range(2_010):
        with pytest.raises(ConnectionError):
            await make()
    return ["attempt"] * 2_010


# Work that is done once, and threads.


def test_a_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory's signature and the key of its defaults are determined once, not on every loop."""
    reads: list[object] = []
    keyed: list[object] = []
    signature = _cpython.signature

    def counting_signature(of: Callable[..., Any]) -> inspect.Signature:
        reads.append(of)
        return signature(of)

    freeze_default = _keys._freeze_default

    def counting_defaults(default: object) -> Hashable:
        keyed.append(default)
        return freeze_default(default)

    def connect(host: str, options: dict[str, int] = {"a": 1}) -> object:
        return object()

    monkeypatch.setattr(_keys, "signature", counting_signature)
    monkeypatch.setattr(_keys, "_freeze_default", counting_defaults)
    make = singleton(connect)
    for _ in range(3):
        assert on_a_loop(lambda: make("h") is make(host="h"))
        assert on_a_loop(lambda: make("h") is not make("g", {}))
    assert reads == [connect]
    assert len(keyed) == 1


def test_two_threads_may_be_the_first_to_call() -> None:
    """A factory that two loops call for the first time at once has the right keys in both."""
    together = threading.Barrier(2, timeout=20)

    class Default:
        """Its hash, which is needed for the key of the defaults, waits for the other thread at its first call."""

        def __hash__(self) -> int:
            if (name := threading.current_thread().name) not in met:
                met.append(name)
                together.wait()
            return 1

    met: list[str] = []
    same: list[bool] = []
    default = [Default()]

    def connect(host: str, options: list[Default] = default) -> object:
        return object()

    make = singleton(connect)
    in_threads(*[lambda: same.append(on_a_loop(lambda: make("h") is make("h", default)))] * 2)
    assert same == [True, True]
    assert len(met) == 2


# A user's own key.


class Get(Protocol):
    """Wraps a factory with a key, and returns an async function that calls it, or enters what it returns."""

    def __call__(self, factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]: ...


def awaitable(factory: Callable[..., object]) -> Callable[..., Coroutine[Any, Any, object]]:
    async def get(*args: Any, **kwargs: Any) -> object:
        return factory(*args, **kwargs)

    return get


def entered(factory: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, object]]:
    async def get(*args: Any, **kwargs: Any) -> object:
        async with factory(*args, **kwargs) as value:
            return value

    return get


def acm_of(factory: Callable[..., object]) -> Callable[..., nullcontext[object]]:
    return lambda *args, **kwargs: nullcontext(factory(*args, **kwargs))


DECORATORS: dict[str, Get] = {
    "singleton(key=…)(f)": lambda factory, key: awaitable(singleton(key=key)(factory)),
    "singleton(f, key=…)": lambda factory, key: awaitable(singleton(factory, key=key)),
    "sticky_singleton_acm(key=…)(f)": lambda factory, key: entered(sticky_singleton_acm(key=key)(acm_of(factory))),
    "sticky_singleton_acm(f, key=…)": lambda factory, key: entered(sticky_singleton_acm(acm_of(factory), key=key)),
    "singleton of a coroutine function": lambda factory, key: singleton(key=key)(awaitable(factory)),
}


@pytest.fixture(params=DECORATORS.values(), ids=list(DECORATORS))
def decorated(request: pytest.FixtureRequest) -> Get:
    """Each decorator in each form."""
    decorator: Get = request.param
    return decorator


class Recording:
    """A factory that records its calls."""

    def __init__(self) -> None:
        self.calls: list[Written] = []

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.calls.append((args, kwargs))
        return object()


def constant(*args: object, **kwargs: object) -> str:
    return "k"


def by_user(user: str, trace: int = 0) -> str:
    return user


@on_each_loop
async def test_calls_of_one_key_are_the_same(decorated: Get) -> None:
    """Calls with one key get what the first of them made; calls with another key do not."""
    made = Recording()
    get = decorated(made, by_user)
    first = await get("u", 1)
    assert await get("u", 2) is await get("u", trace=3) is await get(user="u", trace=1) is first
    assert await get("v", 1) is not first
    assert made.calls == [call("u", 1), call("v", 1)]


@on_each_loop
async def test_the_key_function_gets_the_arguments_of_the_call(decorated: Get) -> None:
    """At every call it gets the arguments as they were written, the very objects, without defaults."""
    seen: list[Written] = []

    def key(*args: object, **kwargs: object) -> str:
        seen.append((args, kwargs))
        return "always"

    get = decorated(Recording(), key)
    mutable: list[int] = []
    assert await get(mutable, 2, c=3) is await get(b=2) is await get()
    assert seen == [call([], 2, c=3), call(b=2), call()]
    assert seen[0][0][0] is mutable


@on_each_loop
async def test_with_an_own_key_arguments_need_not_be_hashable(decorated: Get) -> None:
    """With a key of one's own the arguments need not be hashable."""
    get = decorated(Recording(), bytes)
    one = await get(array("i", [1, 2]))
    assert await get(array("i", [1, 2])) is one
    assert await get(array("i", [1, 3])) is not one


@on_each_loop
async def test_none_is_a_key_like_any_other(decorated: Get) -> None:
    """A key function that always returns None gives one value for the whole loop."""
    made = Recording()
    get = decorated(made, lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
    assert await get(1) is await get(2) is await get()
    assert made.calls == [call(1)]


@on_each_loop
async def test_an_own_key_counts_like_an_argument(decorated: Get) -> None:
    """What the key function returns counts as an argument would: types told apart, dicts and lists by value at that time."""
    get = decorated(Recording(), itself)
    assert len({id(await get(value)) for value in (1, True, 1.0, "1", (1,), (True,), [1], [1.0])}) == 8
    changing = {"a": [1]}
    first = await get(changing)
    assert await get({"a": [1]}) is first
    changing["a"].append(2)
    assert await get(changing) is not first
    assert await get({"a": [1]}) is first


@on_each_loop
async def test_key_none_is_the_default(decorated: Get) -> None:
    """`key=None` is as if it were not given."""
    get = decorated(Recording(), None)
    assert await get("u", 1) is await get("u", 1) is not await get("u", 2)


def test_a_key_is_of_one_factory_and_loop(run: Run, decorated: Get) -> None:
    """The same key makes a new value on another loop, and another value for another factory."""
    one, other = Recording(), Recording()
    get, get_other = decorated(one, constant), decorated(other, constant)

    async def main() -> None:
        assert await get(1) is await get(2) is not await get_other(1)

    run(main())
    run(main())
    assert one.calls == other.calls == [call(1)] * 2


@pytest.mark.parametrize("key", ["name", 1, ["a"], ()])
def test_a_key_that_is_not_callable_is_refused(decorated: Get, key: object) -> None:
    """A key that cannot be called is a `TypeError` at decoration, which says what is needed."""
    message = rf"argument 'key' of (sticky_)?singleton(_acm)?\(\) must be callable, not {type(key).__name__}: pass a func"
    with pytest.raises(TypeError, match=message):
        decorated(Recording(), key)


@on_each_loop
async def test_an_error_of_the_key_function_passes_through(decorated: Get) -> None:
    """It is raised by the call as it is, the factory does not run, and the next call asks again."""
    made = Recording()
    errors: list[Exception] = [KeyError("no"), TypeError("not this"), AttributeError("nor that")]

    def key(value: int) -> int:
        if value < len(errors):
            raise errors[value]
        return value

    get = decorated(made, key)
    for value, error in enumerate(errors):
        with pytest.raises(type(error)) as caught:
            await get(value)
        assert caught.value is error
    assert made.calls == []
    assert await get(7) is await get(7)
    assert made.calls == [call(7)]


@on_each_loop
async def test_the_error_of_an_argument_that_the_key_function_does_not_take(decorated: Get) -> None:
    """Its own `TypeError` says which one."""
    get = decorated(Recording(), by_user)
    with pytest.raises(TypeError, match=r"by_user\(\) got an unexpected keyword argument 'colour'"):
        await get("u", colour=1)


@on_each_loop
async def test_an_unhashable_key_is_refused(decorated: Get) -> None:
    """A key that neither hashes nor counts by value is a `TypeError` that names its type and the fix; nothing is made."""
    made = Recording()
    get = decorated(made, itself)
    for value in array("i"), [array("i")]:
        with pytest.raises(TypeError, match=r"key=… of .*\(\) returned .* of type array.*return something hashable$"):
            await get(value)
    assert made.calls == []


@on_each_loop
async def test_an_error_of_the_factory_is_not_remembered_under_its_key(log: list[int], decorated: Get) -> list[int]:
    """A factory's error, a `TypeError` too, arrives unchanged; the next call of that key runs the factory with its arguments."""
    error = TypeError("the factory's own")

    def factory(value: int) -> object:
        log.append(value)
        if len(log) == 1:
            raise error
        return object()

    get = decorated(factory, constant)
    with pytest.raises(TypeError) as caught:
        await get(1)
    assert caught.value is error
    assert await get(2) is await get(3)
    return [1, 2]


@pytest.mark.parametrize("wrap", [singleton, sticky_singleton_acm])
def test_without_a_loop_the_key_is_not_asked(wrap: Any) -> None:
    """A call where no loop runs is a `RuntimeError`, without asking the key function."""
    key = Recording()
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        wrap(nullcontext, key=key)(1)
    assert key.calls == []


@on_each_loop
async def test_the_wrapper_looks_like_the_factory() -> None:
    """With a key too, name, documentation and signature are the factory's."""

    @singleton(key=by_user)
    def token(user: str, trace: int = 0) -> str:
        """Make a token."""
        return user

    @sticky_singleton_acm(key=by_user)
    @asynccontextmanager
    async def session(user: str, trace: int = 0) -> AsyncGenerator[str]:
        """Open a session."""
        yield user

    assert (token.__name__, token.__doc__) == ("token", "Make a token.")
    assert (session.__name__, session.__doc__) == ("session", "Open a session.")
    assert list(inspect.signature(token).parameters) == list(inspect.signature(session).parameters) == ["user", "trace"]
    assert token("u") == token("u", 5) == "u"
    async with session("u") as value, session("u", trace=3) as again:
        assert value == again == "u"


@pytest.mark.parametrize("wrap", [singleton, sticky_singleton_acm])
def test_key_is_given_by_name_alone(wrap: Any) -> None:
    """A key cannot be given by position."""
    with pytest.raises(TypeError, match="positional argument"):
        wrap(object, lambda: 1)


def whose(owner: object, user: str, trace: int = 0) -> Hashable:
    return owner, user


def name_and_user(account: Account, user: str, trace: int = 0) -> Hashable:
    return account.name, user


def second(owner: object, user: str, trace: int = 0) -> str:
    return user


class Account:
    """Its methods have keys of their own."""

    def __init__(self, name: str) -> None:
        self.name = name

    @singleton(key=whose)
    def token(self, user: str, trace: int = 0) -> object:
        return object()

    @singleton(key=second)
    def for_all(self, user: str, trace: int = 0) -> str:
        return f"{self.name}/{user}"

    @singleton(key=name_and_user)
    async def shared(self, user: str, trace: int = 0) -> object:
        return object()

    @sticky_singleton_acm(key=whose)
    @asynccontextmanager
    async def session(self, user: str, trace: int = 0) -> AsyncGenerator[object]:
        yield object()

    @classmethod
    @singleton(key=whose)
    def of_class(cls, user: str, trace: int = 0) -> object:
        return object()

    @staticmethod
    @singleton(key=by_user)
    def static(user: str, trace: int = 0) -> object:
        return object()


class SubAccount(Account):
    """Inherits them."""


@on_each_loop
async def test_the_key_of_a_method() -> None:
    """The key function of a method gets the instance or class first; if it ignores it, all instances share."""
    one, other, twin = Account("1"), Account("2"), Account("1")
    assert one.token("u") is one.token("u", trace=2) is Account.token(one, "u", 3) is not other.token("u")
    assert one.for_all("u") == other.for_all("u", 5) == "1/u"
    assert await one.shared("u") is await twin.shared("u", 2) is not await other.shared("u")
    assert await one.session("u") is await one.session("u", 2) is not await other.session("u")
    assert Account.of_class("u") is Account.of_class("u", 2) is not SubAccount.of_class("u")
    assert Account.static("u") is one.static("u", 2)
