"""Which calls of a wrapped factory are the same call."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import threading
import warnings
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol, TypeVar

import aiohttp
import attrs
import httpx
import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncio_loop_local import _keys, singleton, sticky_singleton_acm
from asyncio_loop_local._keys import Snapshot, freeze

T = TypeVar("T")
Written = tuple[tuple[Any, ...], dict[str, Any]]


def call(*args: Any, **kwargs: Any) -> Written:
    """A call, as it is written."""
    return args, kwargs


def on_a_loop(what: Callable[[], T]) -> T:
    async def main() -> T:
        return what()

    return asyncio.run(main())


class Count(Protocol):
    """How many calls of a wrapped factory these are."""

    def __call__(self, factory: Callable[..., Any], /, *calls: Written) -> int: ...


def counting(wrap: Callable[[Callable[..., Any]], Callable[..., object]]) -> Count:
    def count(factory: Callable[..., Any], /, *calls: Written) -> int:
        make = wrap(factory)

        def all_twice() -> int:
            values = [make(*args, **kwargs) for args, kwargs in calls]
            for value, (args, kwargs) in zip(values, calls, strict=True):
                assert make(*args, **kwargs) is value
            return len({id(value) for value in values})

        return on_a_loop(all_twice)

    return count


COUNTS: dict[str, Count] = {"singleton": counting(singleton), "sticky_singleton_acm": counting(sticky_singleton_acm)}


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


def test_positional_keyword_and_default_forms_are_one_call(count: Count) -> None:
    """It does not matter how arguments are written, in which order, or whether a default is given."""
    assert (
        count(
            connect,
            call("h"),
            call(host="h"),
            call("h", 80),
            call("h", port=80),
            call(host="h", port=80),
            call(port=80, host="h"),
            call(tls=False, port=80, host="h"),
            call("h", tls=False),
        )
        == 1
    )


def test_other_arguments_are_another_call(count: Count) -> None:
    """Each argument counts, and so does the parameter for which it is given."""
    assert count(connect, call("h"), call("g"), call("h", 81), call(80, "h"), call("h", tls=True), call("h", tls=None)) == 6


def test_types_are_told_apart(count: Count) -> None:
    """1, True and 1.0 are different arguments, though they are equal."""
    assert count(make_of, call(1), call(True), call(1.0), call(1 + 0j), call("1"), call(b"1")) == 6
    assert count(make_of, call(value=1), call(value=True), call(value=1.0)) == 3
    assert count(connect, call("h", 80), call("h", 80.0), call("h", port=80.0)) == 2
    assert count(connect, call("h"), call("h", tls=0)) == 2


class Name(str):
    __slots__ = ()


class Color(StrEnum):
    RED = "red"


def test_a_subclass_of_str_is_no_str(count: Count) -> None:
    """Members of a string enumeration, and instances of other subclasses of str, differ from equal strings."""
    assert count(make_of, call("red"), call(Name("red")), call(Color.RED)) == 3
    assert count(make_of, call(["red"]), call([Name("red")]), call([Color.RED])) == 3


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

    __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it, said so that checkers see it


class SlottedMore(Slotted):
    __slots__ = "more"  # noqa: PLC0205  # a single slot may be written so

    def __init__(self, value: Any, more: Any) -> None:
        super().__init__(value)
        self.more = more


AROUND: list[Callable[[Any], Any]] = [
    lambda value: (value,),
    lambda value: [value],
    lambda value: {"k": value},
    lambda value: {value: "v"},
    lambda value: {value},
    lambda value: frozenset({value}),
    lambda value: deque([value]),
    lambda value: OrderedDict[str, Any](k=value),
    lambda value: defaultdict(int, k=value),
    lambda value: {"k": [({value},)]},
    Settings,
    Attrs,
    AttrsWithDict,
    lambda value: Model(value=value),
    Slotted,
    lambda value: Pair(value, 0),
    lambda value: Frozen([value]),
    lambda value: Settings([Attrs({"k": value})]),
]
AROUND_IDS = [
    *("tuple", "list", "dict value", "dict key", "set", "frozenset", "deque", "OrderedDict", "defaultdict", "nested"),
    *("dataclass", "attrs", "attrs with __dict__", "pydantic", "slots", "namedtuple", "frozen dataclass", "nested objects"),
]


@pytest.mark.parametrize("around", AROUND, ids=AROUND_IDS)
def test_types_are_told_apart_inside_containers(count: Count, around: Callable[[Any], Any]) -> None:
    """What a container, or an object that counts by value, holds is told apart by type, and found again by value."""
    different = [around(1), around(True), around(1.0), around("1"), around(b"1"), around(None)]
    assert count(make_of, *map(call, different)) == 6
    assert count(make_of, *map(call, different), *map(call, copy.deepcopy(different))) == 6


def by_value() -> list[Callable[[Any], Any]]:
    def deque_of(value: Any) -> Any:
        return deque([value])

    return [
        *(lambda value: {"k": value}, lambda value: [value], lambda value: {value}, deque_of),
        *(lambda value: bytearray(str(value), "ascii"), lambda value: [bytearray(str(value), "ascii")]),
        *(Settings, Attrs, AttrsWithDict, lambda value: Model(value=value), Slotted, lambda value: SlottedMore(0, value)),
        *(lambda value: httpx.Timeout(value), lambda value: OpenModel.model_validate({"k": value})),
        *(lambda value: ([value],), lambda value: Frozen([value]), lambda value: Pair({}, [value])),
    ]  # fmt: skip


@pytest.mark.parametrize("made", by_value(), ids=lambda made: type(made(1)).__name__)
def test_what_is_unhashable_counts_by_value(count: Count, made: Callable[[Any], Any]) -> None:
    """Dicts, lists, sets, byte arrays, deques and objects that compare by value are equal arguments if they hold the same."""
    assert made(1) is not made(1)
    assert count(make_of, call(made(1)), call(made(1)), call(value=made(1)), call(made(2)), call(value=made(2))) == 2


def test_private_slots_and_extra_and_private_attributes_count(count: Count) -> None:
    """Everything that an object holds counts: name-mangled slots, a pydantic model's extra and private attributes."""
    assert count(make_of, call(Slotted(1, 2)), call(Slotted(1, 2)), call(Slotted(1, 3))) == 2
    assert count(make_of, call(OpenModel().hiding(1)), call(OpenModel().hiding(1)), call(OpenModel().hiding(2))) == 2


def test_which_fields_of_a_pydantic_model_were_given_does_not_count(count: Count) -> None:
    """A pydantic model's default that was left alone is the same as that default given, as in its own ==."""
    assert count(make_of, call(Model(value=1)), call(Model(value=1, more=0)), call(Model(value=1, more=1))) == 2


def test_equal_contents_of_another_type_are_another_argument(count: Count) -> None:
    """A list is no tuple, a dict no OrderedDict, one dataclass no other."""
    assert count(make_of, *map(call, [(1, 2), [1, 2], Pair(1, 2), deque([1, 2]), {1, 2}, frozenset({1, 2})])) == 6
    dicts: list[Any] = [{"k": 1}, OrderedDict(k=1), defaultdict(int, k=1), [("k", 1)], frozenset({("k", 1)})]
    assert count(make_of, *map(call, dicts)) == 5
    assert count(make_of, *map(call, [Settings(1), Attrs(1), AttrsWithDict(1), Slotted(1), Model(value=1), Frozen(1)])) == 6
    assert count(make_of, call(b"ab"), call(bytearray(b"ab")), call("ab")) == 3


def test_order_counts_where_it_counts_in_comparisons(count: Count) -> None:
    """The order of a dict or set does not matter; that of a list or an OrderedDict does."""
    assert count(make_of, call({"a": 1, "b": 2}), call({"b": 2, "a": 1})) == 1
    assert count(make_of, call({8, 0}), call({0, 8})) == 1
    assert count(make_of, call([1, 2]), call([2, 1])) == 2
    assert count(make_of, call(OrderedDict(a=1, b=2)), call(OrderedDict(b=2, a=1))) == 2


class Opaque:
    """Compares by identity."""


def test_what_has_no_eq_of_its_own_counts_as_itself(count: Count) -> None:
    """An object without __eq__ is equal to itself alone, inside containers too."""
    one, other = Opaque(), Opaque()
    assert count(make_of, call(one), call(other), call(value=one)) == 2
    assert count(make_of, call([one]), call([other]), call([one])) == 2
    assert count(make_of, call(print), call(len), call(Opaque), call(Opaque.__init__)) == 4


def test_what_is_hashable_counts_as_it_hashes(count: Count) -> None:
    """A frozen dataclass, or any class with a hash of its own, is found by its own == and hash."""

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
    assert count(make_of, call(Frozen("a")), call(Frozen("a")), call(Frozen("b"))) == 2
    assert count(make_of, call(Folded("A")), call(Folded("a")), call([Folded("A")]), call([Folded("a")])) == 2
    assert count(make_of, call(first), call(second), call(first)) == 2


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
]


@pytest.mark.parametrize(("argument", "change"), CHANGES, ids=lambda it: type(it).__name__)
def test_changing_an_argument_afterwards_changes_no_key(argument: Any, change: Callable[[Any], object]) -> None:
    """What counts by value counts as it was at the time of the call."""
    argument, before = copy.deepcopy(argument), copy.deepcopy(argument)
    make = singleton(make_of)

    def check() -> None:
        first = make(argument)
        assert make(argument) is first
        change(argument)
        changed = make(argument)
        assert changed is not first
        assert make(before) is first
        assert make(argument) is changed

    on_a_loop(check)


def test_the_factory_gets_the_arguments_themselves() -> None:
    """Only the key is made of values: the factory is called with the very objects that the caller gave."""
    got: list[Any] = []

    @singleton
    def make(*args: Any, **kwargs: Any) -> None:
        got.extend((*args, *kwargs.values()))

    settings, headers = Settings(1), {"a": "b"}
    on_a_loop(lambda: make(settings, headers=headers))
    assert got[0] is settings
    assert got[1] is headers


def test_reading_a_cached_property_changes_no_key(count: Count) -> None:
    """What functools.cached_property leaves on an object is no part of its value."""

    @dataclass
    class Cached:
        value: int

        @functools.cached_property
        def twice(self) -> int:
            return 2 * self.value

    read = Cached(1)
    assert read.twice == 2
    assert count(make_of, call(read), call(Cached(1)), call(Cached(2))) == 2


def test_parameters_that_take_any_number(count: Count) -> None:
    """*args count in order, **kwargs by name, and neither is taken for the other."""

    def gather(first: Any, *rest: Any, **named: Any) -> nullcontext[None]:
        return nullcontext()

    assert count(gather, call(1), call(first=1)) == 1
    assert count(gather, call(1, a=1, b=2), call(1, b=2, a=1), call(b=2, first=1, a=1)) == 1
    assert count(gather, call(1, 2, 3), call(1, 3, 2), call(1, 2), call(1, (2, 3)), call(1, [2, 3]), call((1, 2, 3))) == 6
    assert count(gather, call(1, 2), call(1, True), call(1, [2]), call(1, [2.0]), call(1, a=2), call(1, a=2.0), call(1, b=2)) == 7
    assert count(gather, call(1, ("a", 2)), call(1, a=2), call(1, "a", 2), call(1, {"a": 2})) == 4


def test_positional_only_and_keyword_only_parameters(count: Count) -> None:
    """A positional-only parameter may share its name with one of **kwargs; defaults of both kinds count."""

    def strict(a: Any, b: Any = 2, /, *, c: Any, d: Any = 4) -> nullcontext[None]:
        return nullcontext()

    def sharing(a: Any, /, **more: Any) -> nullcontext[None]:
        return nullcontext()

    assert count(strict, call(1, c=3), call(1, 2, c=3), call(1, d=4, c=3), call(1, 2, c=3, d=4)) == 1
    assert count(strict, call(1, c=3), call(1, 3, c=3), call(1, c=4), call(1, c=3, d=3)) == 4
    assert count(sharing, call(1), call(1, a=1), call(1, a=2), call(2, a=1)) == 4


def test_classes_partials_and_bound_methods(count: Count) -> None:
    """Of a class, the parameters of its constructor count; of a partial, what it leaves open; of a method, not self."""

    class Client(nullcontext[None]):
        def __init__(self, host: str, port: int = 80) -> None:
            super().__init__()

        def session(self, name: str, size: int = 1) -> nullcontext[None]:
            return nullcontext()

    client = Client("h")
    assert count(Client, call("h"), call(host="h"), call("h", 80), call("h", 81)) == 2
    assert count(functools.partial(Client, port=80), call("h"), call(host="h"), call("h", port=80), call("h", port=81)) == 2
    assert count(functools.partial(Client, "h"), call(), call(80), call(port=80), call(81)) == 2
    assert count(client.session, call("n"), call(name="n"), call("n", 1), call("m")) == 2


def test_a_callable_without_a_signature_tells_calls_apart_as_they_are_written() -> None:
    """Where no signature can be read, keyword order does not matter, and all other ways to write a call are their own."""
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(dict)
    count = COUNTS["singleton"]
    assert count(dict, call(a=1, b=2), call(b=2, a=1)) == 1
    assert count(dict, call(a=1), call({"a": 1}), call([("a", 1)]), call(a=True), call({"a": True}), call()) == 6


def test_a_default_that_cannot_be_a_key_is_no_obstacle(count: Count) -> None:
    """A factory whose default is unhashable works: left alone, the default is one and the same."""
    grid = np.zeros(2)

    def plot(name: str, grid: Any = grid) -> nullcontext[None]:
        return nullcontext()

    assert count(plot, call("a"), call(name="a"), call("b")) == 2


def test_httpx_clients_of_equal_timeouts_are_one() -> None:
    """A real httpx.AsyncClient is made once for equal timeouts, its own default among them."""
    client = sticky_singleton_acm(httpx.AsyncClient)

    async def main() -> httpx.AsyncClient:
        async with client(timeout=httpx.Timeout(3)) as one, client(timeout=httpx.Timeout(3)) as two:
            assert one is two
        async with client() as plain, client(timeout=httpx.Timeout(5.0)) as given, client(timeout=httpx.Timeout(4)) as other:
            assert plain is given
        assert len({id(it) for it in (one, plain, other)}) == 3
        assert not one.is_closed
        return one

    assert asyncio.run(main()).is_closed


def test_aiohttp_sessions_of_equal_headers_are_one() -> None:
    """A real aiohttp.ClientSession is made once for equal headers and timeouts."""
    session = sticky_singleton_acm(aiohttp.ClientSession)

    async def main() -> aiohttp.ClientSession:
        async with session(headers={"a": "b"}) as one, session(headers={"a": "b"}) as two:
            assert one is two
        async with session(headers={"a": "c"}) as other, session(headers={"a": "b"}, timeout=aiohttp.ClientTimeout(3)) as third:
            assert len({id(it) for it in (one, other, third)}) == 3
        assert not one.closed
        return one

    assert asyncio.run(main()).closed


def itself() -> list[Any]:
    inner: list[Any] = []
    inner.append({"k": inner})
    return inner


def settings_of_itself() -> Settings:
    settings = Settings(1)
    settings.more = [settings]
    return settings


UNHASHABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "array": (lambda: array("i", [1]), "array.array"),
    "numpy": (lambda: np.zeros(2), "numpy.ndarray"),
    "namespace": (lambda: SimpleNamespace(a=1), "types.SimpleNamespace"),
    "dict view": (lambda: {"a": 1}.keys(), "dict_keys"),
    "list in itself": (itself, "list"),
    "dataclass in itself": (settings_of_itself, "Settings"),
}


@pytest.mark.parametrize(("made", "named"), UNHASHABLE.values(), ids=list(UNHASHABLE))
def test_other_unhashable_arguments_are_refused(count: Count, made: Callable[[], Any], named: str) -> None:
    """What neither hashes nor counts by value is a TypeError that names the parameter and the type, and points at key=."""
    argument = made()
    for value in (argument, [argument], {"k": (argument,)}, Settings(argument), Frozen(argument), Attrs(argument)):
        for written in (call("h", value), call(port=value, host="h"), call("h", port=value)):
            with pytest.raises(TypeError) as caught:
                count(connect, written)
            for word in ("'port'", named, "key=", "connect()"):
                assert word in str(caught.value)


def test_a_writable_memoryview_is_refused_too(count: Count) -> None:
    """What says in another way that it is unhashable gets the same TypeError."""
    for value in (memoryview(bytearray(b"a")), [memoryview(bytearray(b"a"))], Settings(memoryview(bytearray(b"a")))):
        with pytest.raises(TypeError, match=r"'port'.*memoryview.*key="):
            count(connect, call("h", value))


def test_the_refusal_names_the_parameter_of_many() -> None:
    """An argument of *args is named by that parameter, one of **kwargs by its keyword, one of a method by its parameter."""

    class Hub:
        @singleton
        def feed(self, first: Any, *items: Any, **options: Any) -> None: ...

    hub = Hub()
    written = [(call(array("i")), "'first'"), (call(1, 2, array("i")), "items'"), (call(1, depth=array("i")), "'depth'")]
    for (args, kwargs), name in written:
        with pytest.raises(TypeError, match=name):
            on_a_loop(functools.partial(hub.feed, *args, **kwargs))


def test_a_factory_without_a_signature_still_names_the_place() -> None:
    """Where no parameter is known, the refusal counts the argument."""
    with pytest.raises(TypeError, match=r"#1.*dict.*array\.array.*key="):
        on_a_loop(lambda: singleton(dict)(array("i")))  # type: ignore[arg-type,loop-local-key]  # wrong on purpose


def test_a_key_never_overlooks_what_an_object_holds(count: Count) -> None:
    """Objects whose state is not in their attributes are told apart by it, or refused; never mistaken for each other."""

    class Word(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return str.__eq__(self, other)

        __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it, said so that checkers see it

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


@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, LookupError, RuntimeError])
@pytest.mark.parametrize("argument", ["a", ["a"]], ids=["hashable", "by value"])
def test_an_error_of_the_factory_passes_through_untouched(kind: type[Exception], argument: Any) -> None:
    """The factory runs once a call; its error, a TypeError too, arrives as it was raised, and is not remembered."""
    raised: list[Exception] = []

    def fail(value: Any) -> Any:
        if len(raised) == 2:
            return nullcontext()
        raised.append(kind("own"))
        raise raised[-1]

    for make in (singleton(fail), sticky_singleton_acm(fail)):

        def check(make: Callable[[Any], object] = make) -> None:
            for times in (1, 2):
                with pytest.raises(kind) as caught:
                    make(argument)
                assert len(raised) == times
                assert caught.value is raised[-1]
                assert caught.value.__context__ is None
                assert caught.value.__cause__ is None
                assert not caught.value.__suppress_context__
                assert not hasattr(caught.value, "__notes__")
            assert make(argument) is make(argument)

        on_a_loop(check)
        raised.clear()


def test_arguments_that_do_not_fit_are_refused_by_the_factory_itself() -> None:
    """A call with too few, too many or unknown arguments gets Python's own TypeError."""
    make = singleton(connect)
    wrong = [call(), call("h", 1, 2), call("h", host="h"), call("h", colour="red"), call(port=1), call("h", **{"": 1})]

    def check() -> None:
        make("h")  # what is remembered is no answer to a wrong call
        for args, kwargs in wrong:
            with pytest.raises(TypeError, match=r"connect\(\)") as ours:
                make(*args, **kwargs)
            with pytest.raises(TypeError) as own:
                connect(*args, **kwargs)
            assert str(ours.value) == str(own.value)
            assert ours.value.__context__ is None

    on_a_loop(check)


class BrokenHash:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __hash__(self) -> int:
        raise self.error("broken hash")

    def __repr__(self) -> str:
        raise self.error("broken repr")


class BrokenEq:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __eq__(self, other: object) -> bool:
        raise self.error("broken eq")

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise self.error("broken repr")


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, AttributeError, KeyError, LookupError, KeyboardInterrupt])
def test_an_error_of_an_arguments_own_hash_or_eq_comes_through(error: type[BaseException]) -> None:
    """What an argument's __hash__ or __eq__ raises is what the caller gets."""
    make = singleton(make_of)

    def check() -> None:
        for broken in (BrokenHash(error), [BrokenHash(error)], Settings(BrokenHash(error))):
            with pytest.raises(error, match="broken hash"):
                make(broken)
        make(BrokenEq(error))
        with pytest.raises(error, match="broken eq"):
            make(BrokenEq(error))
        assert make(1) is make(value=1)

    on_a_loop(check)


def test_a_type_error_of_a_hash_is_named() -> None:
    """An argument whose __hash__ raises TypeError is unhashable, and named so, with the error as the cause."""
    with pytest.raises(TypeError, match=r"'value'.*BrokenHash.*key=") as caught:
        on_a_loop(lambda: singleton(make_of)(BrokenHash(TypeError)))
    assert str(caught.value.__cause__) == "broken hash"


def test_a_broken_repr_spoils_nothing(count: Count) -> None:
    """Arguments that cannot be shown can be counted, and so can what holds them."""
    one, other = BrokenEq(ValueError), BrokenHash(ValueError)
    other.__class__ = type("Mended", (BrokenHash,), {"__hash__": object.__hash__})
    assert count(make_of, call(one), call([one]), call(other), call([other])) == 4


def new_keys(make: Callable[[Any], object], first: int, last: int) -> None:
    for number in range(first, last):
        make(number)


def test_a_factory_that_never_finds_its_key_again_is_reported_once_per_loop() -> None:
    """More than 2,000 keys of one factory on one loop give one ResourceWarning, which names factory and parameter."""

    def open_channel(host: str, token: object = None) -> object:
        return object()

    make, calm = singleton(open_channel), singleton(open_channel)

    def check() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            new_keys(lambda number: make("h", number), 0, 2_000)
            new_keys(lambda number: calm("h", number), 0, 2_000)
            new_keys(lambda number: make(token=number, host="h"), 0, 2_000)
            assert caught == []
            new_keys(lambda number: make("h", number), 2_000, 5_000)
            new_keys(lambda number: calm("h", number), 0, 2_000)
        (warning,) = caught
        assert warning.category is ResourceWarning
        assert "open_channel()" in str(warning.message)
        assert "'token'" in str(warning.message)
        assert "'host'" not in str(warning.message)
        assert "key=" in str(warning.message)

    on_a_loop(check)
    on_a_loop(check)


def test_the_report_points_at_the_call() -> None:
    """The ResourceWarning of too many keys is that of the line that made the call."""
    make = singleton(make_of)

    def check() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            new_keys(make, 0, 2_001)
        (warning,) = caught
        lines, start = inspect.getsourcelines(new_keys)
        assert warning.filename == __file__
        assert warning.lineno == start + next(index for index, line in enumerate(lines) if "make(number)" in line)

    on_a_loop(check)


def test_names_of_differing_parameters_of_any_kind_are_reported() -> None:
    """The report names *args and the keywords of **kwargs too."""

    def anything(*parts: object, **options: object) -> object:
        return object()

    by_position, by_name = singleton(anything), singleton(anything)
    with pytest.warns(ResourceWarning, match="parts"):
        on_a_loop(lambda: new_keys(by_position, 0, 2_001))
    with pytest.warns(ResourceWarning, match="depth"):
        on_a_loop(lambda: new_keys(lambda number: by_name(depth=number), 0, 2_001))


def test_making_one_key_anew_often_is_no_new_key() -> None:
    """A resource that fails to enter thousands of times, with the same arguments, is not reported as new keys."""
    attempts = 0

    class Failing:
        async def __aenter__(self) -> None:
            nonlocal attempts
            attempts += 1
            raise ConnectionError

        async def __aexit__(self, *exc: object) -> None: ...

    make = sticky_singleton_acm(Failing)

    async def main() -> None:
        for _ in range(2_010):
            with pytest.raises(ConnectionError):
                await make().__aenter__()

    asyncio.run(main())
    assert attempts == 2_010


def test_a_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be known of a factory once is found out once, not once a loop: its signature, the key of its defaults."""
    reads: list[object] = []
    keyed: list[object] = []
    signature = inspect.signature

    def counting_signature(of: Callable[..., Any], **options: Any) -> inspect.Signature:
        reads.append(of)
        return signature(of, **options)

    freeze_default = _keys._freeze_default

    def counting_defaults(default: object) -> Hashable:
        keyed.append(default)
        return freeze_default(default)

    def connect(host: str, options: dict[str, int] = {"a": 1}) -> object:
        return object()

    monkeypatch.setattr(inspect, "signature", counting_signature)
    monkeypatch.setattr(_keys, "_freeze_default", counting_defaults)
    make = singleton(connect)
    for _ in range(3):
        assert on_a_loop(lambda: make("h") is make(host="h"))
        assert on_a_loop(lambda: make("h") is not make("g", {}))
    assert reads == [connect]
    assert len(keyed) == 1


def test_two_threads_may_be_the_first_to_call() -> None:
    """A factory that two loops call for the first time at once has the right keys in both."""
    first_reading, others_reading, first_done = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def __init__(self, wait: Callable[[], object]) -> None:
            self.wait = wait

        def __hash__(self) -> int:
            self.wait()
            return 1

    def wait_in_other() -> None:
        if threading.current_thread() is other:
            others_reading.set()
            first_done.wait(5)

    def wait_in_first() -> None:
        if threading.current_thread() is first:
            first_reading.set()
            others_reading.wait(5)

    one, two = Slow(wait_in_other), Slow(wait_in_first)

    def connect(host: str, one: Slow = one, two: Slow = two) -> object:
        return object()

    make = singleton(connect)
    same: list[bool] = []

    def check() -> None:
        same.append(on_a_loop(lambda: make("h") is make("h", one, two)))

    def check_first() -> None:
        try:
            check()
        finally:
            first_done.set()

    other, first = threading.Thread(target=check), threading.Thread(target=check_first)
    first.start()
    first_reading.wait(5)
    other.start()
    for thread in (first, other):
        thread.join()
    assert same == [True, True]


# What follows is found by hypothesis: arguments that are easily confused, and calls written in all ways that there are.

generated = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

ATOMS: list[Any] = [0, 1, True, False, 0.0, 1.0, 1j, None, "", "a", "1", b"", b"a", b"1", int, bool, str, tuple, dict, frozenset]


def hashable() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.sampled_from(ATOMS) | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | st.builds(Pair, inner, inner),
        max_leaves=3,
    )


def anything() -> st.SearchStrategy[Any]:
    return st.recursive(
        hashable() | st.builds(bytearray, st.binary(max_size=2)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.lists(inner, max_size=3).map(deque)
            | st.sets(hashable(), max_size=3)
            | st.dictionaries(hashable(), inner, max_size=3)
            | st.dictionaries(hashable(), inner, max_size=3).map(OrderedDict)
            | st.builds(Settings, inner, inner)
            | st.builds(Attrs, inner)
            | st.builds(Slotted, inner)
            | st.builds(Pair, inner, inner)
        ),
        max_leaves=4,
    )


def worth(value: Any) -> str:
    """What an argument is worth, in words: equal for two if and only if they count as the same."""
    kind = type(value).__qualname__
    if isinstance(value, (frozenset, set)):
        return f"{kind}{sorted(worth(item) for item in value)}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, OrderedDict):
        return f"{kind}{[(worth(key), worth(item)) for key, item in value.items()]}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return f"{kind}{sorted((worth(key), worth(item)) for key, item in value.items())}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (tuple, list, deque)):
        return f"{kind}{[worth(item) for item in value]}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Settings):
        return f"{kind}{worth(value.value)}{worth(value.more)}"
    if isinstance(value, (Attrs, Slotted)):
        return f"{kind}{worth(value.value)}"
    return f"{kind} {value + 0.0 if isinstance(value, float) else value!r}"


@generated
@given(st.lists(anything(), min_size=2, max_size=6))
def test_arguments_are_one_exactly_if_they_are_worth_the_same(values: list[Any]) -> None:
    """No two arguments of other types or contents are one, and no two of the same are not."""
    values = values + copy.deepcopy(values)
    expected = len({worth(value) for value in values})
    assert COUNTS["singleton"](make_of, *map(call, values)) == expected
    assert COUNTS["singleton"](by_place_and_name, *map(call, values)) == expected
    assert COUNTS["singleton"](by_place_and_name, *(call(k=value) for value in values)) == expected


@generated
@given(anything())
def test_nothing_is_mistaken_for_the_key_of_something_else(value: Any) -> None:
    """An argument that is built like the inside of a key is not taken for what that key stands for."""
    key = freeze(value)
    form: Any = tuple(key) if isinstance(key, Snapshot) else (type(value), value)
    disguises: list[Any] = [form, (form,), [*form], (form[0], form), frozenset({form})]
    for disguise in disguises:
        assert COUNTS["singleton"](make_of, call(value), call(disguise)) == 2
        assert COUNTS["singleton"](make_of, call([value]), call([disguise])) == 2
        assert COUNTS["singleton"](make_of, call(disguise), call(value)) == 2


class Everything:
    """Says that it is equal to everything, and hashes as it is told."""

    def __init__(self, hashed: int) -> None:
        self.hashed = hashed

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return self.hashed


class EverythingElse(Everything):
    pass


@generated
@given(hashable())
def test_objects_that_lie_about_being_equal_never_collide_with_other_types(value: Any) -> None:
    """An argument of another type is another argument, whatever its __eq__ and __hash__ say."""
    liar, other_liar = Everything(hash(value)), EverythingElse(hash(value))
    arguments: list[Any] = [value, liar, other_liar]
    for arounds in (
        arguments,
        [[it] for it in arguments],
        [{"k": it} for it in arguments],
        [(it, it) for it in arguments],
        [Settings(it) for it in arguments],
    ):
        assert COUNTS["singleton"](make_of, *map(call, arounds)) == 3
        assert COUNTS["singleton"](make_of, *map(call, reversed(arounds))) == 3


@dataclass
class Shape:
    """The parameters of a generated factory."""

    positional_only: list[str]
    positional: list[str]
    keyword_only: list[str]
    takes_more: bool
    takes_more_by_name: bool
    defaults: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def by_position(self) -> list[str]:
        return self.positional_only + self.positional

    def factory(self) -> Callable[..., Any]:
        def written(names: list[str]) -> list[str]:
            return [f"{name}=defaults[{name!r}]" if name in self.defaults else name for name in names]

        parts = written(self.positional_only) + ["/"] * bool(self.positional_only) + written(self.positional)
        parts += ["*more"] if self.takes_more else ["*"] * bool(self.keyword_only)
        parts += written(self.keyword_only) + ["**by_name"] * self.takes_more_by_name
        space: dict[str, Any] = {"defaults": self.defaults}
        exec(f"def made({', '.join(parts)}): return object()", space)
        made: Callable[..., Any] = space["made"]
        return made


@dataclass
class Meaning:
    """What a call gives to each parameter."""

    values: dict[str, Any]
    more: list[Any]
    by_name: dict[str, Any]

    def worth(self) -> str:
        return worth([self.values, self.more, self.by_name])


# Few, so that two are often the same.
CONFUSABLE: list[Any] = [
    0,
    False,
    0.0,
    "0",
    None,
    (),
    [],
    {},
    set(),
    (0,),
    [0],
    [False],
    {0: 0},
    {0: False},
    {"a": 0},
    Settings(0),
    Attrs(0),
]
confusable = st.sampled_from(CONFUSABLE)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    names = iter("abcdefgh")

    def some() -> list[str]:
        return [next(names) for _ in range(draw(st.integers(0, 2)))]

    shape = Shape(some(), some(), some(), draw(st.booleans()), draw(st.booleans()))
    first_default = draw(st.integers(0, len(shape.by_position)))
    with_default = shape.by_position[first_default:] + [name for name in shape.keyword_only if draw(st.booleans())]
    shape.defaults = {name: draw(confusable) for name in with_default}
    return shape


@st.composite
def meanings(draw: st.DrawFn, shape: Shape) -> Meaning:
    def value(name: str) -> Any:
        default: st.SearchStrategy[Any] = st.just(shape.defaults[name]) if name in shape.defaults else st.nothing()
        return draw(default | confusable)

    names = shape.by_position + shape.keyword_only
    allowed = ["x", "y", *shape.positional_only]
    return Meaning(
        {name: value(name) for name in names},
        draw(st.lists(confusable, max_size=2)) if shape.takes_more else [],
        draw(st.dictionaries(st.sampled_from(allowed), confusable, max_size=2)) if shape.takes_more_by_name else {},
    )


@st.composite
def writings(draw: st.DrawFn, shape: Shape, meaning: Meaning) -> Written:
    """One way to write a call that means this, of new objects where they count by value."""
    meant = copy.deepcopy(meaning)

    def can_be_left(name: str) -> bool:
        return name in shape.defaults and worth(meant.values[name]) == worth(shape.defaults[name])

    least = len(shape.by_position) if meant.more else len(shape.positional_only)
    while not meant.more and 0 < least <= len(shape.positional_only) and can_be_left(shape.by_position[least - 1]):
        if not draw(st.booleans()):
            break
        least -= 1
    most = len(shape.by_position) if least >= len(shape.positional_only) else least
    places = draw(st.integers(least, most))
    args = [meant.values[name] for name in shape.by_position[:places]] + meant.more
    by_keyword = [name for name in shape.positional + shape.keyword_only if name not in shape.by_position[:places]]
    kwargs = {name: meant.values[name] for name in by_keyword if not (can_be_left(name) and draw(st.booleans()))} | meant.by_name
    return tuple(args), {name: kwargs[name] for name in draw(st.permutations(list(kwargs)))}


@st.composite
def calls_of_one_factory(draw: st.DrawFn) -> tuple[Shape, list[Written], int]:
    shape = draw(shapes())
    meant = [draw(meanings(shape)) for _ in range(draw(st.integers(1, 3)))]
    near = copy.deepcopy(meant[0])
    if near.values:
        near.values[draw(st.sampled_from(sorted(near.values)))] = draw(confusable)
    meant.append(near)
    written = [draw(writings(shape, meaning)) for meaning in meant for _ in range(2)]
    return shape, written, len({meaning.worth() for meaning in meant})


@generated
@given(calls_of_one_factory())
def test_calls_are_one_exactly_if_they_give_every_parameter_the_same(drawn: tuple[Shape, list[Written], int]) -> None:
    """For any signature, however a call is written: equal arguments find one value, all others find others."""
    shape, written, expected = drawn
    assert COUNTS["singleton"](shape.factory(), *written) == expected


def test_equal_numbers_of_odd_kinds(count: Count) -> None:
    """A float that is no number is equal to itself alone, as the very object; minus zero is zero."""
    nan = float("nan")
    assert count(make_of, call(nan), call(nan), call(float("nan")), call([nan]), call([nan])) == 3
    assert count(make_of, call(0.0), call(-0.0)) == 1


def test_an_iterator_counts_as_itself(count: Count) -> None:
    """Nothing is consumed to make a key: a generator or iterator is one argument, and still whole when the factory gets it."""
    numbers = iter([1, 2])

    def generated() -> Iterator[int]:
        yield 1

    generator = generated()
    assert count(make_of, call(numbers), call(generator), call(value=numbers), call(generated())) == 3
    assert list(numbers) == [1, 2]
    assert list(generator) == [1]
