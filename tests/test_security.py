"""Nothing of one loop or tenant reaches another one, and no secret is told: attacked on purpose."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import json
import logging
import sqlite3
import string
import threading
import traceback
import warnings
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

import attrs
import httpx
import pytest
import yarl
from django.utils.datastructures import MultiValueDict  # type: ignore[import-untyped]  # it has no types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import StdioServerParameters
from werkzeug.datastructures import MultiDict

from asyncio_loop_local import (
    LockingDict,
    LoopVar,
    aclose,
    atexit,
    enter_once,
    format_resources,
    release,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)
from asyncio_loop_local._secrets import safe_repr
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


# Loops: in threads at the same time, in a row, and with the ids of dead ones.

VAR: LoopVar[object] = LoopVar("tenant")
get_pool = sticky_singleton_acm(Resource)
get_client = singleton(Made)
RESOURCE = Resource()
STICKY = sticky_acm(Resource())


@singleton
async def get_config() -> object:
    await asyncio.sleep(0)
    return object()


async def find_all() -> list[object]:
    """What this loop has now, at each of the doors to it; made by this, if it is the first that asks."""
    found: list[object] = [storage(), storage().setdefault("tenant", object())]
    found += [VAR.get(None) or (VAR.set(object()) and VAR.get()), get_client("tenant"), await get_config()]
    async with get_pool("tenant") as pool, STICKY:
        found += [pool, *(task for each in resources() for task in each.tasks)]
    assert await enter_once(RESOURCE) is RESOURCE
    return found


async def be_alone(seen_by_others: list[object]) -> None:
    """Checks that nothing is here, and that what comes is this loop's own."""
    assert not storage()
    assert VAR.get(None) is None
    assert not resources()
    assert not await release(get_pool, "tenant")
    mine = await find_all()
    assert len(resources()) == 3
    for _ in range(3):
        await asyncio.sleep(0)
        again = await find_all()
        assert all(one is other for one, other in zip(mine, again, strict=True))
    assert {id(each) for each in mine}.isdisjoint(map(id, seen_by_others))
    seen_by_others += mine  # which keeps it alive, so that identity tells


def test_loops_in_a_row_have_nothing_of_each_other(run: Run) -> None:
    """A loop finds nothing of those before it, though it has the id that one of them had."""
    seen: list[object] = []
    ids: list[int] = []

    async def main() -> None:
        ids.append(id(asyncio.get_running_loop()))
        await be_alone(seen)

    while len(ids) < 30 or (len(set(ids)) == len(ids) and len(ids) < 300):
        run(main())
        if len(ids) >= 30:
            gc.collect()  # it may be that a frame or a cycle kept all of them
    assert len(set(ids)) < len(ids), "ids are used again, or this tests nothing"


def test_loops_in_threads_have_nothing_of_each_other(run: Run) -> None:
    """Loops that run at the same time, each in its own thread, see their own values alone."""
    seen: list[list[object]] = [[] for _ in range(4)]
    errors: list[BaseException] = []
    together = threading.Barrier(len(seen))

    def work(mine: list[object]) -> None:
        try:
            for _ in range(10):
                together.wait(20)
                run(be_alone(mine))
        except BaseException as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    everything = [id(each) for mine in seen for each in mine]
    assert len(everything) == len(set(everything)) >= 4 * 10 * 6


def test_a_loop_within_the_code_of_a_resource_has_nothing_of_it(run: Run) -> None:
    """A loop in a thread that a resource has started, with the resource's context, shares nothing with the resource's loop."""
    seen: list[object] = []

    @asynccontextmanager
    async def outer() -> AsyncGenerator[None]:
        seen.extend(await find_all())
        await asyncio.to_thread(run, be_alone(seen))
        yield
        await asyncio.to_thread(run, be_alone(seen))

    get_outer = sticky_singleton_acm(outer)

    async def main() -> None:
        async with get_outer():
            assert len(resources()) == 4
            (info,) = (each for each in resources() if "outer" in each.name)
            assert len(info.uses) == 3
            assert await find_all()

    run(main())
    assert len(seen) >= 3 * 6


@pytest.mark.parametrize("how", ["failed", "died", "closed"])
def test_the_id_of_what_was_entered_once_may_be_used_again(run: Run, how: str) -> None:
    """An object with the id of one that is gone is entered itself, and never taken for that one."""
    ids: list[int] = []
    held: list[asyncio.Task[Any]] = []

    class Held:
        def __init__(self, number: int) -> None:
            self.number = number

        async def __aenter__(self) -> int:
            if how == "failed" and self.number % 2:
                raise ZeroDivisionError
            task = asyncio.current_task()
            assert task is not None
            held.append(task)
            return self.number

        async def __aexit__(self, *_: object) -> None:
            pass

    async def end_one() -> None:
        task = held.pop()
        if how == "closed":
            await aclose()
        else:
            task.cancel()
            await asyncio.wait([task])

    async def enter_one(number: int) -> None:
        acm = Held(number)
        ids.append(id(acm))
        with suppress(ZeroDivisionError):
            assert await enter_once(acm) == number
            assert await enter_once(acm) == number
            await end_one()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        for number in range(60):
            await enter_one(number)
            gc.collect(0)
        assert not resources()

    run(main())
    assert len(set(ids)) < len(ids), "ids are used again, or this tests nothing"


# Secrets: in nothing that the library says.

LETTERS = "".join(sorted(set(string.ascii_letters) - set(string.hexdigits)))  # or an address might hold a part of a secret
secrets = st.text(LETTERS, min_size=16, max_size=24)
few = settings(generated, max_examples=2)


class Said:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@dataclass
class Credentials:
    user: str
    password: Any = None


Given = Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]
WAYS: dict[str, Given] = {
    "password, by position": lambda s: (("host", s), {}),
    "password, by name": lambda s: ((), {"password": s}),
    "password, in a list": lambda s: ((), {"password": [s, {"x": s}]}),
    "more tokens, by position": lambda s: (("host", None, s, s), {}),
    "credentials, by name": lambda s: (("host",), {"user": s}),
    "token": lambda s: ((), {"options": {"token": s}}),
    "api_key": lambda s: ((), {"options": {"client": {"api_key": s}}}),
    "authorization header": lambda s: ((), {"options": {"headers": {"Authorization": f"Bearer {s}"}}}),
    "authorization header with quotes": lambda s: ((), {"options": f'Authorization: Token token="{s}", user="{s}"'}),
    "header pairs": lambda s: ((), {"options": [("authorization", s), (b"x-api-key", s.encode())]}),
    "header pairs as lists": lambda s: ((), {"options": [["authorization", f"Token {s}"], [b"x-api-key", s.encode()]]}),
    "header without a space": lambda s: ((), {"options": f"X-Api-Key:{s}"}),
    "header bytes": lambda s: ((), {"options": f"Host: h\r\nCookie: session={s}\r\n".encode()}),
    "url": lambda s: ((f"postgresql://app:{s}@db/app",), {}),
    "long url": lambda s: ((f"postgresql://app:{s * 200}@db/app",), {}),
    "url with quotes and brackets": lambda s: ((f"postgresql://app:{s}'),{s}@db/app",), {}),
    "url with a token as user": lambda s: ((f"https://{s}@db/app",), {}),
    "url query": lambda s: ((f"https://db/app?api_key={s}&x=1",), {}),
    "long login": lambda s: ((f"app:{s * 20}@db",), {}),
    "yarl url": lambda s: ((yarl.URL(f"http://app:{s}@db"),), {}),
    "httpx url": lambda s: ((), {"options": [httpx.URL(f"http://app:{s}@db")]}),
    "dsn": lambda s: ((f"host=db password={s}",), {}),
    "aligned dsn": lambda s: ((f"host         = db\npassword     = {s}\n",), {}),
    "yaml without a space": lambda s: ((f"host:db\npassword:{s}\n",), {}),
    "json": lambda s: ((json.dumps({"host": "h", "password": s}),), {}),
    "json without spaces": lambda s: ((json.dumps({"host": "h", "password": s}, separators=(",", ":")),), {}),
    "dataclass": lambda s: ((), {"options": Credentials("me", s)}),
    "dataclass in containers": lambda s: ((), {"options": {"all": [{"it": (Credentials("me", [s]),)}]}}),
    "attrs of a dict": lambda s: ((), {"options": Attrs({"client_secret": s})}),
    "many values a key": lambda s: ((), {"options": MultiDict([("password", s), ("password", s)])}),
    "repr": lambda s: ((), {"options": Said(f"<Client token={s!r}>")}),
    "command line": lambda s: ((), {"options": ["serve", "--api-key", s, "--port", "80"]}),
    "command line as text": lambda s: ((), {"options": f"serve --password {s} --port 80"}),
    "mcp server": lambda s: (
        (),
        {"options": StdioServerParameters(command="serve", args=["--token", s], env={"API_KEY": s})},
    ),
}


@dataclass
class Heard:
    """Everything that was said: by names, logs, errors, warnings, reprs and the loop's exception handler."""

    said: list[str] = field(default_factory=lambda: list[str]())

    def note(self, *things: object) -> None:
        for thing in things:
            self.said += [str(thing), repr(thing)]
            if isinstance(thing, BaseException):
                self.said += traceback.format_exception(thing)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.note(context)
        for thing in context.values():
            self.note(thing)
        loop.default_exception_handler(context)

    def look(self) -> None:
        self.note(format_resources(), *resources())
        for each in resources():
            self.note(each.name, each.uses, each.tasks)


async def every_occasion_to_speak(heard: Heard, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(heard.handle)
    loop.set_debug(True)
    loop.slow_callback_duration = 0  # so that asyncio logs the repr of everything it runs

    def sticky(function: Any) -> Callable[..., Any]:
        @asynccontextmanager
        async def call(
            host: object = None, password: object = None, *tokens: object, options: object = None, **credentials: object
        ) -> AsyncGenerator[object]:
            async for value in function():
                yield value

        call.__qualname__ = function.__qualname__
        return sticky_singleton_acm(call)

    async def raises_in(what: Coroutine[Any, Any, Any] | asyncio.Task[Any], kind: type[BaseException]) -> None:
        with pytest.raises(kind) as caught:
            await what
        heard.note(caught.value)

    async def enter_it(make: Callable[..., Any]) -> Any:
        async with make(*args, **kwargs) as value:
            heard.look()
            return value

    async def base() -> AsyncGenerator[object]:
        yield object()

    async def user() -> AsyncGenerator[object]:
        await enter_it(get_base)
        await raises_in(release(get_user, *args, **kwargs), RuntimeError)  # it would wait for itself
        await raises_in(aclose(), RuntimeError)
        yield object()

    async def one() -> AsyncGenerator[object]:
        await enter_it(get_other)
        yield None

    async def other() -> AsyncGenerator[object]:
        await enter_it(get_one)
        yield None

    async def dying() -> AsyncGenerator[object]:
        yield asyncio.current_task()
        raise ZeroDivisionError

    async def failing() -> AsyncGenerator[object]:
        yield None
        asyncio.create_task(fail())
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def cancelling() -> AsyncGenerator[object]:
        yield None
        raise asyncio.CancelledError

    async def slow() -> AsyncGenerator[object]:
        entering.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.look()
            raise ZeroDivisionError from None
        yield None

    async def fail() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    entering = asyncio.Event()
    get_base, get_user, get_one, get_other = sticky(base), sticky(user), sticky(one), sticky(other)
    await enter_it(get_user)
    await raises_in(release(get_base, *args, **kwargs), RuntimeError)  # it is in use
    await raises_in(enter_it(get_one), RuntimeError)  # they need each other
    await raises_in(release(functools.partial(get_base, **{"password": "x", **kwargs})), TypeError)
    heard.note(get_base(*args, **kwargs), sticky_acm(get_base(*args, **kwargs)))

    task: asyncio.Task[Any] = await enter_it(sticky(dying))
    task.cancel()
    await asyncio.wait([task])
    waiting = asyncio.create_task(enter_it(sticky(slow)))
    await entering.wait()
    heard.look()
    waiting.cancel()
    await raises_in(waiting, asyncio.CancelledError)

    async def compute(
        host: object = None, password: object = None, *tokens: object, options: object = None, **credentials: object
    ) -> None:
        raise ZeroDivisionError

    shared = singleton(compute)(*args, **kwargs)
    heard.note(shared)
    await raises_in(shared, ZeroDivisionError)

    def call_back(
        host: object = None, password: object = None, *tokens: object, options: object = None, **credentials: object
    ) -> None:
        heard.look()
        raise ZeroDivisionError

    for end in (aclose, None):  # the second time, at the end of the loop
        atexit.register(call_back, *args, **kwargs)
        await enter_it(sticky(failing))
        await enter_it(sticky(cancelling))
        await enter_it(sticky(base))
        with pytest.raises(TypeError) as refused:
            _ = singleton(compute)(*args, **{**kwargs, "other": memoryview(bytearray(b"x"))})
        heard.note(refused.value)
        if end is not None:
            await raises_in(end(), ExceptionGroup)


class Listening(logging.Handler):
    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.said.append(self.format(record))


def all_that_is_said(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    heard = Heard()
    handler, root = Listening(heard), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        asyncio.run(every_occasion_to_speak(heard, args, kwargs))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return "\n".join(heard.said)


OCCASIONS = [
    *("needs the next one first", "in use by", "called from inside", "died while it was held", "the exit of", "nobody waited"),
    *("though nobody had cancelled it", "entering", "a task left behind", "must be what"),
    *("is unhashable and cannot be compared", "raised by the exit of", "atexit callback", "exited", "Executing"),
]


def test_all_occasions_to_speak_are_taken() -> None:
    """What is listened to below is everything: each kind of error, report and log line is among it."""
    said = all_that_is_said(("localhost",), {"options": {"port": 80}})
    assert not [each for each in OCCASIONS if each not in said]
    assert said.count("base('localhost', options={'port': 80})") > 5


@pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))
@few
@given(secret=secrets)
def test_no_secret_is_in_anything_that_is_said(way: Given, secret: str) -> None:
    """A password is in no name, log line, error, note, exception group, report or repr, however it was given."""
    said = all_that_is_said(*way(secret))
    assert "***" in said
    assert not [piece for piece in (secret[:8], secret[-8:]) if piece in said]


@few
@given(secret=secrets)
def test_no_secret_is_in_a_warning(secret: str) -> None:
    """What a loop that was dropped, or a factory that never finds its key, warns of, tells no password."""

    @asynccontextmanager
    async def pool(url: str, password: object, *tokens: object, number: int = 0) -> AsyncGenerator[None]:
        yield

    get_one = sticky_singleton_acm(pool)

    async def main() -> None:
        async with get_one(f"postgresql://app:{secret}@db", secret, secret):
            pass
        many = singleton(nullcontext[object])
        for number in range(2_002):
            many((f"https://{secret}@db", {"token": secret, "number": number}))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        del loop
        gc.collect()
    ours = [str(each.message) for each in caught if "pool(" in str(each.message) or "different keys" in str(each.message)]
    assert len(ours) == 2
    assert not [each for each in caught if secret[:8] in str(each.message)]


@few
@given(secret=secrets)
def test_no_secret_is_in_what_variables_and_dicts_say(secret: str) -> None:
    """A variable's default and factory, a locked dict, and the errors that show them, tell no password."""
    said: list[str] = []
    variables: list[LoopVar[Any]] = [
        LoopVar("api_token", default=secret),
        LoopVar("dsn", default=f"postgresql://app:{secret}@db"),
        LoopVar("options", default={"password": secret}),
        LoopVar("client", factory=functools.partial(Made, user=secret)),
    ]
    locking = LockingDict[str, Any](host="db", password=secret, url=f"postgresql://app:{secret}@db")

    async def main() -> None:
        for var in variables:
            token = var.set(1)
            var.reset(token)
            for wrong in (var, LoopVar[Any]("other")):
                with pytest.raises((RuntimeError, ValueError)) as caught:
                    wrong.reset(token)
                said.extend([str(caught.value), repr(var), repr(token)])

    async def wait_for_it() -> None:
        waiting = [asyncio.create_task(locking.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        try:
            await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
        finally:
            for task in waiting:
                task.cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            said.extend(map(repr, results))

    asyncio.run(main())
    said.append(repr(locking))
    asyncio.run(wait_for_it())
    asyncio.run(wait_for_it())
    text = "\n".join(said)
    assert "is bound to a different event loop" in text
    assert "'host': 'db'" in text
    assert "postgresql://app:***@db" in text
    assert not [piece for piece in (secret[:8], secret[-8:]) if piece in text]


@few
@given(secret=secrets)
def test_no_secret_is_in_the_refusal_of_what_was_not_wrapped(secret: str) -> None:
    """`release` of anything but a wrapped factory says what it got, without the password in it."""
    make = sticky_singleton_acm(Resource)
    wrong: list[Any] = [
        functools.partial(make, secret),
        f"postgresql://app:{secret}@db",
        Credentials("me", secret),
        {"token": secret},
    ]

    async def main() -> None:
        for each in wrong:
            with pytest.raises(TypeError, match=r"argument 'factory' of release\(\) must be") as caught:
                await release(each)
            assert secret not in str(caught.value)
            assert ("***" in str(caught.value)) != ("partial" in str(caught.value))

    asyncio.run(main())


def test_what_is_no_secret_is_still_told() -> None:
    """Masking hides no more than it must: ports, hosts, options of a command line and plain pairs are shown."""
    for value in (
        "token-service:8080",
        "auth:8080/x",
        ["serve", "--port", "80", "--token-file", "/run/t"],
        [["host", "db"], ["port", "80"]],
        "serve --port 80 --max-tokens 100",
        "postgresql://db1:5432,db2:5432/app",
        {"password": None},
    ):
        assert safe_repr(value) == repr(value)
