"""Arguments that count by value are found by a flat form of the call; what they count is decided by their key alone."""

from __future__ import annotations

import copy
import functools
import gc
import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import attrs
import pydantic
import pytest

from asyncio_loop_local import release, singleton
from asyncio_loop_local._keys import KNOWN_CLASSES, CallKeys
from key_counts import call, on_a_loop
from recording import on_one_loop


@dataclass
class Settings:
    host: Any
    port: Any = 80


@dataclass(slots=True)
class Slotted:
    host: Any
    port: Any = 80


@attrs.define
class Attrs:
    host: Any
    port: Any = 80


class Model(pydantic.BaseModel):
    host: Any
    port: Any = 80


@dataclass
class One:
    host: Any


@dataclass(slots=True)
class OneSlot:
    host: Any


class Both:
    """Has a slot, and attributes besides."""

    __slots__ = ("__dict__", "host")

    def __init__(self, host: Any, port: Any = 80) -> None:
        self.host, self.port = host, port

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Both) and (self.host, self.port) == (other.host, other.port)

    __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it


class Lazy:
    """Makes the value of a slot when it is read."""

    __slots__ = ("host", "other", "port")

    def __init__(self, host: Any, *port: Any) -> None:
        self.host, self.other = host, 0
        if port:
            [self.port] = port

    def __getattr__(self, name: str) -> Any:
        assert name not in {"host", "other", "port"}, f"{name} has been read"
        raise AttributeError(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lazy) and self.host == other.host

    __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it


def make_of(*args: Any, **kwargs: Any) -> object:
    return object()


def make_of_value(value: Any) -> object:
    return object()


KINDS: list[Callable[[Any], Any]] = [Settings, Slotted, Attrs, lambda host: Model(host=host), One, OneSlot, Both, Lazy]
VALUES: list[Any] = [
    *(1, True, 1.0, "1", b"1", None, (1,), (True,)),
    *([1], [True], {"a": 1}, {"a": True}, frozenset({1}), Settings(1)),
]


@pytest.mark.parametrize("kind", KINDS)
@on_one_loop
async def test_each_call_finds_its_own_value_however_often_it_is_made(kind: Callable[[Any], Any]) -> None:
    """The second, third and fourth call find what the first has made: by position, by name, and among other arguments."""
    make = singleton(make_of)
    calls: list[Callable[[Any], Any]] = [
        make,
        lambda it: make(value=it),
        lambda it: make(1, it),
        lambda it: make(it, 1),
        lambda it: make(1, value=it),
        lambda it: make(it, it),
        lambda it: make(a=it, b=it),
        lambda it: make((it, 1)),
        lambda it: make([it]),
    ]
    made = [called(kind(value)) for called in calls for value in VALUES]
    assert len(set(map(id, made))) == len(calls) * len(VALUES)
    for _ in range(4):
        assert [called(kind(value)) for called in calls for value in VALUES] == made


@pytest.mark.parametrize("kind", KINDS)
@on_one_loop
async def test_a_warm_call_needs_no_key(kind: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third such call on, what an argument counts is not found out anew."""
    frozen: list[object] = []
    freeze = CallKeys.freeze

    def counting(self: CallKeys, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        frozen.append(args)
        return freeze(self, args, kwargs)

    monkeypatch.setattr(CallKeys, "freeze", counting)
    calls: list[Callable[[Any, Any], Any]] = [
        lambda make, it: make(it),
        lambda make, it: make(1, value=it),
        lambda make, it: make((it, 1), [it]),
        lambda make, it: make(Decimal(1), it, value=Decimal(2)),
    ]
    for value in VALUES:
        for called in calls:
            make = singleton(make_of)
            for _ in range(3):
                called(make, kind(value))
            frozen.clear()
            called(make, kind(value))
            assert not frozen, value
    make = singleton(make_of)
    make(kind(1))
    make(kind(1))
    assert make(1) is make(1) is make(1)
    frozen.clear()
    for _ in range(3):  # by turns, too
        make(1)
        make(kind(1))
    assert not frozen


@on_one_loop
async def test_arguments_are_not_mistaken_for_the_values_inside_of_others() -> None:
    """Where one argument ends and the next begins counts, and so do the names."""
    make = singleton(make_of)
    calls = [
        *(call(("a",), "b"), call(("a", "b")), call("a", ("b",)), call((), "a", "b"), call(tuple), call(())),
        *(call(One("a"), "b"), call(Settings("a", "b")), call(OneSlot("a"), "b"), call(Slotted("a", "b")), call("a", One("b"))),
        *(call(a=One("b"), c="d"), call("a", One("b"), c="d"), call(One("b"), a="d"), call(One("b"), "a", "d")),
        *(call(a=("b", "c")), call(a=("b",), c="d")),
    ]

    def made() -> list[object]:
        return [make(*args, **kwargs) for args, kwargs in copy.deepcopy(calls)]

    first = made()
    assert len(set(map(id, first))) == len(calls)
    for _ in range(3):
        assert made() == first


@on_one_loop
async def test_calls_of_both_kinds_can_alternate() -> None:
    """A factory that is called now with such arguments, now without them, finds each value each time."""
    make = singleton(make_of)
    plain, by_value, none, frozen = make("a"), make(Settings("a")), make(), make(frozenset("a"))
    for _ in range(4):
        assert make("a") is plain
        assert make(Settings("a")) is by_value
        assert make() is none
        assert make(frozenset("a")) is frozen
        assert make(Settings("a")) is by_value


@on_one_loop
async def test_what_is_released_is_not_found_by_its_flat_form() -> None:
    """After a release the next such call makes a new value."""
    make = singleton(make_of)
    for value in (Settings("a"), Slotted("a"), ("a", "b"), {"a": "b"}):
        first = make(value)
        assert make(value) is make(value) is first
        assert await release(make, value)
        assert make(value) is not first
        assert make(value) is make(value)


@on_one_loop
async def test_an_instance_with_other_attributes_than_the_first_is_another() -> None:
    """Attributes that only some instances have count like all others; so do those that are missing."""
    make = singleton(make_of)

    def of(**attributes: Any) -> Settings:
        settings = Settings("a")
        for name, value in attributes.items():
            setattr(settings, name, value)
        return settings

    def without_port(**attributes: Any) -> Settings:
        settings = of(**attributes)
        del vars(settings)["port"]
        return settings

    instances: list[Callable[[], Settings]] = [
        of,
        lambda: of(more=1),
        lambda: of(more=True),
        lambda: of(other=1),
        without_port,
        lambda: without_port(more=80),
        lambda: without_port(other=80),
    ]
    made = [make(instance()) for instance in instances]
    assert len(set(map(id, made))) == len(instances)
    for _ in range(3):
        assert [make(instance()) for instance in instances] == made


@on_one_loop
async def test_the_order_in_which_attributes_were_set_does_not_count() -> None:
    """Two instances with equal attributes are the same argument, though these were set in another order."""
    make = singleton(make_of)
    one, other = Settings("a"), Settings("a")
    host = vars(other).pop("host")
    vars(other)["host"] = host
    assert list(vars(one)) != list(vars(other))
    for _ in range(3):
        assert make(one) is make(other)


@on_one_loop
async def test_no_code_of_a_class_reads_a_slot_that_is_not_set() -> None:
    """A slot that is not set is a difference like any other; the class's `__getattr__` is not called for it."""
    make = singleton(make_of)
    for _ in range(3):
        assert make(Lazy(1, 2)) is make(Lazy(1, 2))
        assert make(Lazy(1)) is make(Lazy(1)) is not make(Lazy(1, None))


def equal(one: object, other: object) -> bool:
    return vars(one) == vars(other)


def changing() -> Any:
    @dataclass
    class Changing:
        value: Any
        other: Any = 0

    return Changing


@on_one_loop
async def test_a_cached_property_that_a_class_gets_later_does_not_count() -> None:
    """A `functools.cached_property` is none of the attributes, even if the class gets it after the first call."""
    make, kind = singleton(make_of), changing()
    first = make(kind(1))
    assert make(kind(1)) is make(kind(1)) is first
    kind.twice = functools.cached_property(lambda self: 2 * self.value)
    kind.twice.__set_name__(kind, "twice")
    one = kind(1)
    for _ in range(3):
        assert make(one) is make(kind(1)) is first
        assert one.twice == 2
    del kind.twice
    for _ in range(3):
        assert make(one) is not first  # the value is an attribute like any other now
        assert make(one) is make(one)


@on_one_loop
async def test_a_class_that_gets_a_hash_later_counts_by_it() -> None:
    """What counts is how the class is at the time of the call."""
    make, kind = singleton(make_of), changing()
    one, other = kind(1), kind(1)
    assert make(one) is make(one) is make(other)
    kind.__hash__, kind.__eq__ = object.__hash__, object.__eq__
    assert make(one) is make(one) is not make(other)
    assert make(other) is make(other)
    del kind.__eq__
    kind.__eq__, kind.__hash__ = equal, None
    assert make(one) is make(other)


@on_one_loop
async def test_a_class_that_gets_other_bases_later_counts_by_all_its_slots() -> None:
    """Slots are found where they are, also if a class gets other bases after the first call."""

    class Base:
        __slots__ = ("host",)

        def __init__(self, host: Any) -> None:
            self.host = host

    class Mixin:
        __slots__ = ()

    class Kind(Base):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Kind) and self.host == other.host

        __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it

    make = singleton(make_of)
    one, two = make(Kind(1)), make(Kind(2))
    assert make(Kind(1)) is one is not two
    Kind.__bases__ = (Mixin, Base)
    for _ in range(3):
        assert make([Kind(1)]) is make([Kind(1)]) is not make([Kind(2)])
        assert make(Kind(3)) is make(Kind(3)) is not make(Kind(4))


def test_a_slot_that_is_hidden_later_is_not_overlooked() -> None:
    """A class whose slots were replaced after the first call is refused, as long as its state cannot be seen."""
    kind: Any = Slotted
    slot: Any = kind.host

    def host(it: Any) -> Any:
        return slot.__get__(it)

    def check() -> None:
        make = singleton(make_of)
        two = Slotted(2)
        assert make(one) is make(one) is make(Slotted(1))
        kind.host = property(host)
        with pytest.raises(TypeError, match=r"Slotted.*key="):
            make(two)
        with pytest.raises(TypeError, match=r"Slotted.*key="):
            make([one])

    one = Slotted(1)
    try:
        on_a_loop(check)
    finally:
        kind.host = slot
    on_a_loop(lambda: singleton(make_of)(one))


def test_a_class_is_not_kept_alive_by_having_been_an_argument() -> None:
    """What the library finds out of a class goes with the class, once no loop holds an instance."""

    def use() -> weakref.ref[type]:
        kind = changing()
        make = singleton(make_of)
        on_a_loop(lambda: [make(kind(1)) for _ in range(3)])
        assert id(kind) in KNOWN_CLASSES
        return weakref.ref(kind)

    gc.collect()
    before = len(KNOWN_CLASSES)
    assert [use() for _ in range(3)]
    gc.collect()
    assert len(KNOWN_CLASSES) == before


def test_what_cannot_be_part_of_a_key_is_refused_at_every_call() -> None:
    """An argument that cannot be part of a key is a `TypeError` that names it, at every call and inside of others."""
    bad: list[Any] = [memoryview(bytearray(b"a")), array("i", [1])]

    def check(around: Callable[[Any], Any]) -> None:
        make: Any = singleton(make_of_value)
        for _ in range(2):
            make(around(1))
            make(around(1))
            for argument in bad:
                for _ in range(2):
                    with pytest.raises(TypeError, match=r"'value'.*(memoryview|array).*key="):
                        make(value=around(argument))
                    with pytest.raises(TypeError, match=r"'value'.*(memoryview|array).*key="):
                        make(around(argument))

    containers: list[Callable[[Any], Any]] = [lambda it: {"a": it}, lambda it: (it, 1), lambda it: [Settings(it)], lambda it: it]
    for around in (*containers, Settings, Slotted):
        on_a_loop(functools.partial(check, around))


def test_an_error_of_an_arguments_own_hash_comes_through_from_inside() -> None:
    """The caller gets the error of a `__hash__`, also where the object that holds it counted by value before."""

    class Broken:
        def __hash__(self) -> int:
            raise error

    def check() -> None:
        make = singleton(make_of)
        assert make(Settings(1)) is make(Settings(1)) is make(Settings(1))
        with pytest.raises(type(error)) as caught:
            make(Settings(Broken()))
        assert caught.value is error
        assert caught.value.__context__ is None
        assert make(Settings(1)) is make(Settings(1))

    for error in (ZeroDivisionError(), ValueError(), KeyError(), RuntimeError(), AttributeError()):
        on_a_loop(check)
