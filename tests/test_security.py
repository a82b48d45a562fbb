"""Nothing of one loop or tenant reaches another one, and no secret is told: attacked on purpose."""

from __future__ import annotations

import asyncio
import copy
import functools
import sqlite3
import threading
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

import attrs
import pytest
from django.utils.datastructures import MultiValueDict  # type: ignore[import-untyped]  # it has no types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from asyncio_loop_local import (
    aclose,
    release,
    singleton,
    sticky_singleton_acm,
)
from conftest import Run

generated = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


# Keys: whose arguments are not the same gets nothing of the other, whatever his objects say of themselves.


class Made:
    """What a factory made, and for what."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class Resource(Made):
    async def __aenter__(self) -> Resource:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def on_a_loop(what: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return what()

    return asyncio.run(main())


def assert_apart(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    """Two arguments are two, in whatever order and form they come, and letting go of one leaves the other."""

    async def main() -> None:
        for first, second in ((one, other), (other, one)):
            for make in (singleton(Made), sticky_singleton_acm(Resource)):
                for ours, theirs in ((make(first()), make(second())), (make(k=first()), make(k=second()))):
                    assert ours is not theirs
                kept = second()
                mine = make(kept)
                await release(make, first())
                assert make(kept) is mine

    asyncio.run(main())


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


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Settings:
    value: Any


@attrs.define
class Attrs:
    value: Any


class Slots:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class SameSlots(Slots):
    """Has two slots of one name, and an attribute of that name besides."""

    __slots__ = ("__dict__", "value")

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        vars(Slots)["value"].__set__(self, "same")  # the slot that the class has hidden
        vars(self)["value"] = "same"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameSlots) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # counts by value


NOTHING: dict[str, Any] = {}


class HidingDict(dict[str, Any]):
    def items(self) -> Any:
        return NOTHING.items()

    def __iter__(self) -> Any:
        return iter(())

    def keys(self) -> Any:
        return NOTHING.keys()

    def __len__(self) -> int:
        return 0


class HidingOrderedDict(OrderedDict[str, Any]):
    def items(self) -> Any:
        return NOTHING.items()

    def __iter__(self) -> Any:
        return iter(())


class HidingList(list[Any]):
    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


class HidingTuple(tuple[Any, ...]):
    __slots__ = ()

    def __iter__(self) -> Any:
        return iter(())


class HidingSet(set[Any]):
    def __iter__(self) -> Any:
        return iter(())


class HidingFrozenset(frozenset[Any]):
    def __iter__(self) -> Any:
        return iter(())


class HidingDeque(deque[Any]):
    def __iter__(self) -> Any:
        return iter(())


class HidingBytes(bytearray):
    def __bytes__(self) -> bytes:
        return b""

    def __iter__(self) -> Any:
        return iter(())


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

# What is hashable and can be mistaken for another: a container of one is as different from that of the other.
HASHABLE: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: 1, lambda: True),
    (lambda: 1, lambda: 1.0),
    (lambda: True, lambda: 1.0),
    (lambda: 1, lambda: Decimal(1)),
    (lambda: 1, lambda: Fraction(1)),
    (lambda: 1, lambda: Level.ONE),
    (lambda: 0, lambda: False),
    (lambda: -1, lambda: -2),  # whose hashes are equal
    (lambda: 0, lambda: 2**61 - 1),  # so are these
    (lambda: "a", lambda: Color.A),
    (lambda: "a", lambda: b"a"),
    (lambda: "None", lambda: None),
    (lambda: float("nan"), lambda: float("nan")),
    (lambda: (1,), lambda: (True,)),
    (lambda: Pair(1, 2), lambda: (1, 2)),
    (lambda: (1, (2, (3,))), lambda: (1, (2, (3.0,)))),
    (lambda: frozenset({1}), lambda: frozenset({1.0})),
    (lambda: int, lambda: bool),
    (lambda: (str, "a"), lambda: "a"),
    (lambda: "a", lambda: OurStr("a")),
    (lambda: OurStr("a"), lambda: TheirStr("a")),
    (lambda: OurStr("a"), lambda: TheirStr("b")),
    (lambda: OurInt(1), lambda: TheirInt(1)),
    (lambda: OurFloat(1), lambda: TheirFloat(1)),
    (lambda: OurBytes(b"a"), lambda: TheirBytes(b"a")),
    (lambda: OurTuple(("a",)), lambda: TheirTuple(("b",))),
    (lambda: OurFrozenset({"a"}), lambda: TheirFrozenset({"b"})),
    (OurObject, TheirObject),
    (OurObject, lambda: OurStr("a")),
    (lambda: OurObject, lambda: TheirObject),
    (lambda: HidingTuple(("a",)), lambda: HidingTuple(("b",))),
    (lambda: HidingFrozenset({"a"}), lambda: HidingFrozenset({"b"})),
]
UNHASHABLE: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: b"a", lambda: bytearray(b"a")),
    (lambda: (1,), lambda: [1]),
    (lambda: [1], lambda: deque([1])),
    (lambda: {1}, lambda: frozenset({1})),
    (lambda: {"a": 1}, lambda: OrderedDict([("a", 1)])),
    (lambda: {"a": 1}, lambda: (("a", 1),)),
    (lambda: {"a": 1}, lambda: frozenset({("a", 1)})),
    (lambda: {"a": 1}, lambda: Counter(a=1)),
    (lambda: defaultdict[str, Any](list, a=1), lambda: defaultdict[str, Any](dict, a=1)),
    (lambda: {1: "a"}, lambda: {True: "a"}),
    (dict, list),
    (lambda: UserDict({"a": 1}), lambda: UserDict({"a": True})),
    (lambda: UserList([1]), lambda: UserList([1.0])),
    (lambda: Settings({"a": [1]}), lambda: Settings({"a": [True]})),
    (lambda: Settings("a"), lambda: Attrs("a")),
    (lambda: SameSlots("a"), lambda: SameSlots("b")),
    (lambda: SaysItIsADict("a"), lambda: SaysItIsADict("b")),
    (lambda: HidingDict(a=1), lambda: HidingDict(a=2)),
    (lambda: HidingOrderedDict(a=1), lambda: HidingOrderedDict(a=2)),
    (lambda: HidingList([1]), lambda: HidingList([2])),
    (lambda: HidingSet([1]), lambda: HidingSet([2])),
    (lambda: HidingDeque([1]), lambda: HidingDeque([2])),
    (lambda: HidingBytes(b"1"), lambda: HidingBytes(b"2")),
    (lambda: MultiDict([("role", "user")]), lambda: MultiDict([("role", "user"), ("role", "admin")])),
    (lambda: MultiValueDict({"role": ["user"]}), lambda: MultiValueDict({"role": ["admin", "user"]})),
]
AROUND: list[Callable[[Any], Any]] = [
    lambda value: [value],
    lambda value: (value, value),
    lambda value: deque([0, value]),
    lambda value: {"tenant": value},
    lambda value: OrderedDict([("tenant", value)]),
    lambda value: MultiDict([("tenant", value)]),
    lambda value: UserDict(tenant=value),
    lambda value: Pair(value, 0),
    Settings,
    Attrs,
]
AROUND_HASHABLE: list[Callable[[Any], Any]] = [
    lambda value: frozenset({value}),
    lambda value: {value},
    lambda value: {value: 0},
    lambda value: ((value, 0), value),
]


@generated
@given(st.sampled_from(HASHABLE + UNHASHABLE), st.lists(st.sampled_from(AROUND), max_size=3))
def test_arguments_that_can_be_mistaken_are_apart(
    pair: tuple[Callable[[], Any], Callable[[], Any]], arounds: list[Callable[[Any], Any]]
) -> None:
    """Arguments of two tenants are two, at any depth, though they are equal, hash alike, lie, or hide what they hold."""

    def within(made: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: functools.reduce(lambda value, around: around(value), arounds, made())

    assert_apart(*map(within, pair))


@pytest.mark.parametrize("pair", HASHABLE + UNHASHABLE)
def test_each_of_the_arguments_that_can_be_mistaken_is_apart(pair: tuple[Callable[[], Any], Callable[[], Any]]) -> None:
    """Each pair of arguments that are easily taken for each other is two arguments."""
    assert_apart(*pair)


@pytest.mark.parametrize("pair", HASHABLE)
def test_what_holds_what_can_be_mistaken_is_apart(pair: tuple[Callable[[], Any], Callable[[], Any]]) -> None:
    """As items of sets and keys of dicts, they are as different."""
    for around in AROUND_HASHABLE:
        assert_apart(lambda around=around: around(pair[0]()), lambda around=around: around(pair[1]()))  # type: ignore[misc]  # mypy takes the default for a parameter


class Database(sqlite3.Connection):
    """Has its state in C, where no attribute tells it."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # counts by value, if it can


def test_what_is_in_no_attribute_is_not_overlooked() -> None:
    """An object with state of a class written in C is refused, alone and within others; it is not taken for its like."""
    make = singleton(Made)

    def check() -> None:
        with closing(Database(":memory:")) as database:
            for argument in (database, [database], Settings({"of": database})):
                with pytest.raises(TypeError, match="unhashable and cannot be compared by value"):
                    make(argument)

    on_a_loop(check)


plain = st.sampled_from([0, 1, True, 1.0, "", "a", "k", b"a", None, int, str, object, (), ("k", "a")])


@generated
@given(st.lists(plain, max_size=3), st.dictionaries(st.sampled_from(["k", "a", "args"]), plain, min_size=1, max_size=2))
def test_positions_are_not_mistaken_for_names(args: list[Any], kwargs: dict[str, Any]) -> None:
    """No call by position is taken for a call by name, though its arguments are laid out as a cache lays out its key."""
    pairs = [part for pair in kwargs.items() for part in pair]
    types: list[Any] = [type(value) for value in (*args, *kwargs.values())]
    mark: Any = vars(functools)["_make_key"].__defaults__[0]  # what stands between both
    marks: list[Any] = [*mark, OurObject()]
    forms: list[list[Any]] = [
        [*args, *pairs],
        [*args, *pairs, *types],
        [*args, kwargs],
        [tuple(args), kwargs],
        [*args, *kwargs.items()],
    ]
    forms += [[*args, mark, *pairs, *more] for mark in marks for more in (types, types[:0])]

    def check() -> None:
        make = singleton(Made)
        assert make(*args, **kwargs) is make(*args, **kwargs)
        for form in forms:
            assert make(*form) is not make(*args, **kwargs)

    on_a_loop(check)


@pytest.mark.parametrize("moment", ["hash", "eq"])
def test_a_call_made_while_a_key_is_looked_up_gets_its_own(moment: str) -> None:
    """What an argument's __hash__ or __eq__ calls meanwhile gets what is its own, and so does the call in which it runs."""
    make = singleton(Made)
    got: dict[str, Made] = {}

    class Calling:
        def __init__(self) -> None:
            self.is_busy = False

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

    def check() -> None:
        for _ in range(2):
            callings = [Calling(), Calling(), Calling()]
            for calling in callings:
                assert make(calling).args == (calling,)
            for calling in callings:
                assert make(calling).args == (calling,)
                assert make(calling) is make(calling)
        assert len(got) > 5
        for name, made in got.items():
            assert made.args == (name,)
            assert make(name) is made

    on_a_loop(check)


class Unstable:
    """Hashes otherwise every time, and is equal to everything."""

    def __init__(self) -> None:
        self.hashes = 0

    def __hash__(self) -> int:
        self.hashes += 1
        return self.hashes

    def __eq__(self, other: object) -> bool:
        return True


@generated
@given(st.lists(st.sampled_from([0, 1, "a", True, 1.0, None]) | st.builds(Unstable), min_size=2, max_size=8))
def test_what_hashes_otherwise_every_time_gets_nothing_of_others(arguments: list[Any]) -> None:
    """An object whose hash is never the same gets what was made for its like, or something new, and leaves all others theirs."""

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
    """Hashes by what it holds, which can be changed, or be broken."""

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


def run_to_end(run: Run, main: Coroutine[Any, Any, None]) -> None:
    """Runs it in a thread that may be left behind: the end of a loop that hangs would hang every timeout too."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(main)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the loop has not ended"
    assert not errors


@pytest.mark.parametrize("how", ["changed", "broken"])
@pytest.mark.parametrize("end", ["aclose", "run"])
def test_an_argument_that_hashes_no_more_does_not_hinder_the_end(run: Run, how: str, end: str) -> None:
    """All resources are exited at the end of the loop, though an argument's __hash__ has changed or broken since it was given."""
    log: list[Any] = []

    @asynccontextmanager
    async def pool(name: Any) -> AsyncGenerator[None]:
        yield
        log.append(name)

    make = sticky_singleton_acm(pool)
    middle = Changing(1)

    async def main() -> None:
        for name in ("first", middle, "last"):
            async with make(name):
                pass
        middle.held = 2
        middle.is_broken = how == "broken"
        if end == "aclose":
            await aclose()
            assert len(log) == 3

    run_to_end(run, main())
    middle.is_broken = False
    assert log == ["last", middle, "first"]


@pytest.mark.parametrize("how", ["changed", "broken"])
def test_what_has_died_is_never_found_again(run: Run, how: str) -> None:
    """A resource that died while its argument hashed otherwise is made anew, once the argument is what it was before."""
    tasks: list[asyncio.Task[Any]] = []
    died = asyncio.Event()

    @asynccontextmanager
    async def pool(argument: Changing) -> AsyncGenerator[object]:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        yield object()

    make = sticky_singleton_acm(pool)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: died.set())
        argument = Changing(1)
        async with make(argument) as first:
            pass
        argument.held, argument.is_broken = 2, how == "broken"
        tasks[0].cancel()
        await died.wait()
        await asyncio.wait(tasks)
        argument.held, argument.is_broken = 1, False
        async with make(argument) as second:
            assert second is not first
        async with make(argument) as third:
            assert third is second
        assert await release(make, argument)
        assert not await release(make, argument)

    run_to_end(run, main())


# A mutable argument that is changed after the call.


@dataclass
class Node:
    value: Any
    more: list[Any] = field(default_factory=lambda: list[Any]())


def itself(value: Any) -> Any:
    return value


def mutable() -> st.SearchStrategy[Any]:
    leaves: st.SearchStrategy[Any] = st.sampled_from([0, 1, True, 1.0, "a", None, (), b"a"])
    leaves |= st.builds(bytearray, st.binary(max_size=2)) | st.sets(st.integers(0, 3), max_size=2)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=2).map(tuple)
            | st.lists(inner, max_size=2).map(deque)
            | st.dictionaries(st.sampled_from(["a", "b", 1]), inner, max_size=2)
            | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2).map(MultiDict)
            | st.builds(Node, inner, st.lists(inner, max_size=2))
            | st.builds(Attrs, inner)
        ),
        max_leaves=6,
    )


def changes(value: Any) -> list[Callable[[], object]]:
    """All the ways to change one thing in it, at any depth."""
    found: list[Callable[[], object]] = []
    new = object()
    if isinstance(value, (list, deque)):
        found = [lambda: value.append(new), *([value.pop] if value else [])]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    elif isinstance(value, dict):
        found = [lambda: dict.__setitem__(value, "new", new), *([value.clear] if value else [])]  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(value, set):
        found = [lambda: value.add(9)]  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(value, bytearray):
        found = [lambda: value.append(9)]
    elif isinstance(value, (Node, Attrs)):
        found = [lambda: setattr(value, "value", new)]
        inner = [value.value, *(value.more if isinstance(value, Node) else ())]
        return found + [change for item in inner for change in changes(item)]
    if isinstance(value, (list, deque, tuple)):
        found += [change for item in value for change in changes(item)]  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(value, dict):
        found += [change for item in dict.values(value) for change in changes(item)]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return found


@generated
@given(mutable().filter(lambda value: bool(changes(value))), st.data(), st.booleans())
def test_changing_an_argument_afterwards_changes_no_key(argument: Any, data: st.DataObject, has_own_key: bool) -> None:
    """Whatever is changed in an argument, at any depth, its call is found by what it was, and not by what it has become."""
    as_it_was = copy.deepcopy(argument)
    change: Callable[[], object] = data.draw(st.sampled_from(changes(argument)))

    async def main() -> None:
        make = singleton(Made, key=itself) if has_own_key else singleton(Made)
        made = make(argument)
        change()
        assert make(copy.deepcopy(as_it_was)) is made
        changed = make(argument)
        assert changed is not made
        assert await release(make, as_it_was)
        assert make(argument) is changed
        assert make(as_it_was) is not made

    asyncio.run(main())
