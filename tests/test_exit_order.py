"""The order of exits: newest first, none before its users, in a number of steps that does not grow with the users."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from types import FrameType
from typing import Any, Literal, Self

import pytest

from asyncio_loop_local import (
    LoopVar,
    aclose,
    atexit,
    enter,
    enter_once,
    release,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
)
from asyncio_loop_local._exit_order import Exitable, ExitOrder
from asyncio_loop_local._loop_state import loop_state
from lingering import linger
from recording import Factory, Recorded, begin, enters, exits, keep, on_each_loop, on_one_loop, use


class Open(Exitable):
    """Something open that ends at once, and notes it."""

    def __init__(self, exits: ExitOrder, ended: list[int]) -> None:
        super().__init__()
        self._exits, self._ended = exits, ended
        exits.push(self)

    def start(self) -> None: ...

    def begin_exit(self, *, at_once: bool = False) -> None:
        self._ended.append(self.serial)
        self._exits.ended(self)


def order_of_end(count: int, *uses: tuple[int, int]) -> list[int]:
    """The serials of things in the order in which they end; each of ``uses`` is a user and what it uses."""

    async def main() -> list[int]:
        ended: list[int] = []
        exits = ExitOrder(asyncio.get_running_loop())
        things = [Open(exits, ended) for _ in range(count)]
        for user, used in uses:
            things[used - 1].acquired_by(things[user - 1])
        assert await exits.end_all(lambda _: None, at_once=True) is None
        assert not exits
        return ended

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("count", "uses", "order"),
    [
        (3, [], [3, 2, 1]),
        (3, [(1, 3)], [2, 1, 3]),
        (4, [(1, 2), (2, 3), (3, 4)], [1, 2, 3, 4]),
        (3, [(1, 2), (2, 1)], [3, 2, 1]),
        (3, [(2, 3), (3, 2)], [3, 2, 1]),
        (3, [(3, 2), (2, 3)], [3, 2, 1]),
        (3, [(1, 2), (2, 3), (3, 1)], [3, 1, 2]),
        (3, [(2, 3), (3, 1), (1, 2)], [3, 1, 2]),
        (3, [(3, 1), (1, 2), (2, 3)], [3, 1, 2]),
        (4, [(2, 3), (3, 2), (3, 4)], [3, 4, 2, 1]),
        (4, [(1, 2), (2, 1), (3, 4), (4, 3)], [4, 3, 2, 1]),
        (4, [(1, 2), (2, 3), (3, 1)], [4, 3, 1, 2]),
        (4, [(1, 2), (2, 1), (2, 3), (3, 4), (4, 3)], [2, 1, 4, 3]),
        (2, [(1, 1)], [2, 1]),
    ],
    ids=str,
)
def test_order(count: int, uses: list[tuple[int, int]], order: list[int]) -> None:
    """Newest first; never before a user, but that of each cycle of users the newest ends first."""
    assert order_of_end(count, *uses) == order


@on_one_loop
async def test_what_is_opened_meanwhile_ends_too_and_a_new_user_delays() -> None:
    """What an exit opens ends with the rest, and what it acquires ends after it."""
    ended: list[int] = []
    exits = ExitOrder(asyncio.get_running_loop())
    oldest, opener = Open(exits, ended), Open(exits, ended)

    def opens_another(*, at_once: bool = False) -> None:
        ended.append(opener.serial)
        oldest.acquired_by(Open(exits, ended))
        exits.ended(opener)

    opener.begin_exit = opens_another  # type: ignore[method-assign]  # as an exit that enters something
    await exits.end_all(lambda _: None, at_once=True)
    assert ended == [2, 3, 1]


# The same of real resources.


@on_each_loop
async def test_newest_first(log: list[str]) -> list[str]:
    """Resources and callbacks end in one order, newest first, whatever they were entered by."""
    await enter(Recorded(log, "1"))
    atexit.register(log.append, "callback 2")
    await enter_once(Recorded(log, "3"))
    await use(sticky_acm(Recorded(log, "4")))
    atexit.register(log.append, "callback 5")
    log.clear()
    return ["callback 5", *exits("4", "3"), "callback 2", *exits("1")]


@on_each_loop
async def test_newest_is_what_was_entered_last(log: list[str]) -> list[str]:
    """Of resources entered side by side, the one that was open last is the newest."""
    slow = Recorded(log, "slow")
    slow.may_enter.clear()
    entering = await begin(enter(slow))
    await enter(Recorded(log, "quick"))
    slow.may_enter.set()
    await entering
    log.clear()
    return exits("slow", "quick")


Acquire = Callable[[], Awaitable[object]]


def acquire_by_factory(used: Recorded) -> Acquire:
    make = sticky_singleton_acm(lambda: used)
    return lambda: use(make())


def acquire_by_await(used: Recorded) -> Acquire:
    return sticky_singleton_acm(lambda: used)


ACQUIRE: dict[str, Callable[[Recorded], Acquire]] = {
    "enter_once": lambda used: lambda: enter_once(used),
    "sticky_acm": lambda used: sticky_acm(used).__aenter__,
    "factory": acquire_by_factory,
    "await": acquire_by_await,
    "enter": lambda used: lambda: enter(used),
}


@pytest.mark.parametrize("how", ACQUIRE)
@on_each_loop
async def test_outlives_what_acquired_it_in_its_enter(log: list[str], how: str) -> list[str]:
    """What a resource acquires in its `__aenter__`, in whatever way, is open until after its `__aexit__`."""

    class User(Recorded):
        async def __aenter__(self) -> Self:
            await ACQUIRE[how](Recorded(log, "used"))()
            return await super().__aenter__()

    await enter(User(log, "user"))
    return [*enters("used", "user"), *exits("user", "used")]


@pytest.mark.parametrize("how", list(ACQUIRE)[:4])
@pytest.mark.parametrize("where", ["task", "callback", "thread"])
@on_each_loop
async def test_outlives_what_acquired_it_later(log: list[str], how: str, where: str) -> list[str]:
    """What a task of an older resource acquires, when it is long open, still ends after that resource."""
    ask, asked = asyncio.Event(), asyncio.Event()
    acquire = ACQUIRE[how](Recorded(log, "used"))

    async def own() -> None:
        await acquire()
        asked.set()

    async def when_asked() -> None:
        loop = asyncio.get_running_loop()
        await ask.wait()
        if where == "task":
            await own()
        elif where == "callback":
            loop.call_soon(lambda: keep(own()))
        else:
            await asyncio.wrap_future(await asyncio.to_thread(asyncio.run_coroutine_threadsafe, own(), loop))

    class Older(Recorded):
        async def __aenter__(self) -> Self:
            self.own = asyncio.create_task(when_asked())
            return await super().__aenter__()

        async def __aexit__(self, *exc_info: object) -> None:
            await self.own
            await super().__aexit__()

    await enter(Older(log, "older"))
    await acquire()
    ask.set()
    await asked.wait()
    return [*enters("older", "used"), *exits("older", "used")]


class Buyer(Recorded):
    """Acquires others, each when a test wants it to, by a task of its own."""

    def __init__(self, log: list[str] | None = None, name: str = "buyer", *, turns: int = 1) -> None:
        super().__init__(log, name, turns=turns)
        self.wanted: asyncio.Queue[Recorded] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self.buying = asyncio.create_task(self._buy())
        return await super().__aenter__()

    async def _buy(self) -> None:
        while True:
            await enter_once(await self.wanted.get())
            self.wanted.task_done()

    async def buy(self, other: Recorded) -> None:
        await self.wanted.put(other)
        await self.wanted.join()


async def buyers(log: list[str], count: int) -> list[Buyer]:
    return [await enter_once(Buyer(log, str(number))) for number in range(count)]


@on_each_loop
async def test_outlives_those_that_acquired_it_through_others(log: list[str]) -> list[str]:
    """Of a chain of resources acquired late, and in the order that is worst, each outlives what acquired it."""
    chain = await buyers(log, 6)
    for number in (3, 0, 4, 1, 2):
        await chain[number].buy(chain[number + 1])
    log.clear()
    return exits(*"012345")


@pytest.mark.parametrize("first", [0, 1])
@on_each_loop
async def test_two_that_use_each_other_end_newest_first(log: list[str], first: int) -> list[str]:
    """Two resources that came to use each other end newest first, whichever was the first to use the other."""
    pair = await buyers(log, 2)
    await pair[first].buy(pair[1 - first])
    await pair[1 - first].buy(pair[first])
    log.clear()
    return exits("1", "0")


@on_each_loop
async def test_an_end_in_between_frees_what_it_used(log: list[str]) -> list[str]:
    """A cycle ended by an early `aclose` leaves nothing behind: what is opened afterwards ends newest first."""
    pair = await buyers(log, 2)
    await pair[0].buy(pair[1])
    await pair[1].buy(pair[0])
    await aclose()
    for resource in pair:
        await enter_once(resource)
    log.clear()
    return exits("1", "0")


# Something is entered during the end.


@on_each_loop
async def test_what_is_entered_during_the_end_is_exited(log: list[str]) -> list[str]:
    """What is entered by a task that is being cancelled, by an exit or by a callback, is exited before the loop is closed."""

    async def enter_one(name: str) -> None:
        await enter(Recorded(log, f"by {name}"))
        atexit.register(log.append, f"callback by {name}")

    class Late(Recorded):
        async def __aexit__(self, *exc_info: object) -> None:
            await enter_one("exit")
            await super().__aexit__()

    await enter(Late(log, "late"))
    atexit.register(enter_one, "callback")
    keep(linger(begun := asyncio.Event(), lambda: enter_one("task")))
    await begun.wait()
    log.clear()
    return [
        *(*enters("by task"), "callback by task", *exits("by task")),
        *(*enters("by callback"), "callback by callback", *exits("by callback")),
        *(*enters("by exit"), *exits("late"), "callback by exit", *exits("by exit")),
    ]


@on_each_loop
async def test_a_factory_called_by_an_exit_after_its_resource_has_ended(log: list[str]) -> list[str]:
    """An exit that asks a factory whose resource has already ended gets a new one, which is exited too."""
    factory = Factory(log)

    class Older(Recorded):
        async def __aexit__(self, *exc_info: object) -> None:
            assert (await factory.use()).is_open
            await super().__aexit__()

    await enter(Older(log, "older"))
    await factory.use()
    log.clear()
    return [*exits("0"), *enters("1"), *exits("older", "1")]


def entered_by_its_exit() -> Callable[[], Awaitable[object]]:
    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        yield
        await make()

    make = sticky_singleton_acm(resource)
    return make


def made_by_its_closing() -> Callable[[], object]:
    def make_anew(_: object) -> None:
        make()

    make = singleton(list[int], close=make_anew)
    return make


def got_by_its_closing() -> Callable[[], object]:
    def get_anew(_: object) -> None:
        variable.get()

    variable = LoopVar("variable", factory=list[int], close=get_anew)
    return variable.get


def registered_by_itself() -> Callable[[], object]:
    def register() -> None:
        atexit.register(register)

    return register


@pytest.mark.parametrize("kind", [entered_by_its_exit, made_by_its_closing, got_by_its_closing, registered_by_itself])
@on_each_loop
async def test_exits_that_each_open_the_next_one_come_to_an_end(kind: Callable[[], Callable[[], Any]]) -> None:
    """A close function that asks for its value anew, in the place of taking what it is given, gets an error: the end comes."""
    opened = kind()()
    if inspect.isawaitable(opened):
        await opened
    with pytest.raises(ExceptionGroup) as caught:
        await aclose()
    [error] = caught.value.exceptions
    assert "would open something, as the 1,000 exits before it have done" in str(error)
    assert not resources()


@on_each_loop
async def test_an_exit_may_open_the_next_one_at_each_release() -> None:
    """Where not everything is to end, what a close function asks for anew stays open, however often that is done."""
    make = made_by_its_closing()
    make()
    for _ in range(200):
        assert await release(make)
        assert len(resources()) == 1
    with pytest.raises(ExceptionGroup):
        await aclose()


@pytest.mark.parametrize("way", ["end", "aclose", "release"])
@on_each_loop
async def test_no_code_of_an_exit_gets_what_is_being_exited(log: list[str], way: str) -> list[str]:
    """An exit that asks for its own value gets a new one, which is exited too."""
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    def close(number: int) -> None:
        if number < 2:
            assert value() == number + 1
        log.append(f"closed {number}")

    value = singleton(make, close=close)
    assert value() == 0
    if way == "aclose":
        await aclose()
    elif way == "release":
        await release(value)
    return [f"closed {number}" for number in range(3)]


# What it costs.


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the callbacks it is given."""

    callbacks = 0

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # passes on what it is given
        self.callbacks += 1
        return super().call_soon(*args, **kwargs)


def plain() -> Recorded:
    return Recorded(turns=0)


async def enter_many(number: int) -> None:
    """Resources that know nothing of each other."""
    for _ in range(number):
        await enter(plain())


async def register_many(number: int) -> None:
    for _ in range(number):
        atexit.register(int)


async def one_that_uses_many(number: int) -> None:
    """An older resource that has come to use all others."""
    buyer = await enter(Buyer(turns=0))
    for _ in range(number):
        used = await enter_once(plain())
        await buyer.buy(used)


async def many_that_use_one(number: int) -> None:
    shared = plain()

    class UsesShared(Recorded):
        async def __aenter__(self) -> Self:
            await enter_once(shared)
            return self

    for _ in range(number):
        await enter(UsesShared(turns=0))


async def chain(number: int) -> None:
    """Resources of which each has come to use the next newer one."""
    links = [await enter_once(Buyer(turns=0)) for _ in range(number)]
    for link, following in itertools.pairwise(links):
        await link.buy(following)


def turns_of_the_end(shape: Callable[[int], Coroutine[Any, Any, None]], number: int) -> int:
    loop = CountingLoop()
    loop.run_until_complete(shape(number))
    before = loop.callbacks
    loop.close()
    return loop.callbacks - before


shapes = pytest.mark.parametrize("shape", [enter_many, register_many, one_that_uses_many, many_that_use_one, chain])


@shapes
def test_exiting_n_takes_n_turns_of_the_loop(shape: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Ten times as many resources give the loop ten times as much to do at its end, however they use each other."""
    assert turns_of_the_end(shape, 2000) <= 10 * turns_of_the_end(shape, 200)


def test_exits_that_await_nothing_take_no_turns_of_the_loop() -> None:
    """At the end of a loop no other code waits for a turn: such exits follow each other within one."""
    assert turns_of_the_end(enter_many, 2000) == turns_of_the_end(enter_many, 2)


@shapes
def test_exiting_n_takes_n_steps(shape: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Ten times as many resources take ten times as many steps of the interpreter at their end, and a little for sorting."""

    def steps_of_the_end(number: int) -> int:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(shape(number))
        return steps(loop.close, every="opcode")

    assert steps_of_the_end(500) <= 12 * steps_of_the_end(50)


def steps(work: Callable[[], object], *, every: Literal["line", "opcode"] = "line") -> int:
    """How many lines of the library run, or how many steps of the interpreter in any code."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if every == "opcode":
            frame.f_trace_opcodes = True
        elif "asyncio_loop_local" not in frame.f_code.co_filename:
            return None
        count += every == "opcode" or event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def steps_of_hub(users: int) -> tuple[int, int, int]:
    """The steps to enter one more user of a hub, to let the hub ask for something itself, and to end."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def plain(_number: int) -> AsyncGenerator[None]:
        yield

    wishes: asyncio.Queue[int] = asyncio.Queue()

    @sticky_singleton_acm
    @asynccontextmanager
    async def hub() -> AsyncGenerator[None]:
        async def work() -> None:
            while True:
                async with plain(await wishes.get()):
                    wishes.task_done()

        worker = asyncio.get_running_loop().create_task(work())
        yield
        worker.cancel()

    @sticky_singleton_acm
    @asynccontextmanager
    async def user(_number: int) -> AsyncGenerator[None]:
        async with hub():
            yield

    async def use(number: int) -> None:
        async with user(number):
            pass

    async def ask(number: int) -> None:
        wishes.put_nowait(number)
        await wishes.join()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for number in range(users):
            loop.run_until_complete(use(number))
        loop.run_until_complete(ask(0))
        entering = steps(lambda: loop.run_until_complete(use(users)))
        asking = steps(lambda: loop.run_until_complete(ask(1)))
        ending = steps(lambda: loop.run_until_complete(aclose()))
    return entering, asking, ending


def test_a_hub_costs_the_same_however_many_use_it() -> None:
    """With ten times the users, entering one more takes as many steps, and so does a wish of the hub itself."""
    few, many = steps_of_hub(30), steps_of_hub(300)
    assert many[0] <= few[0] + 20
    assert many[1] <= few[1] + 20
    assert many[2] <= 12 * few[2]


@on_one_loop
async def test_a_factory_that_uses_what_is_open_and_is_never_entered_keeps_nothing_open(log: list[str]) -> list[str]:
    """An eager task of the factory uses an open resource. Its own resource is never entered, and the loop ends all the same."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def used() -> AsyncGenerator[None]:
        yield
        log.append("used exits")

    async def use() -> None:
        async with used():
            log.append("used")

    @sticky_singleton_acm
    def never_entered() -> AbstractAsyncContextManager[None]:
        coroutine = use()
        with pytest.raises(StopIteration):  # as a task does that starts eagerly
            coroutine.send(None)
        return nullcontext()

    async with used():
        never_entered()
    assert [each.name for each in loop_state().exits] == ["used()", "never_entered()"]
    return ["used", "used exits"]


# Deep in a recursion.


def deeper(calls: int, function: Callable[[], object]) -> None:
    if calls:
        deeper(calls - 1, function)
    else:
        function()


@on_each_loop
async def test_an_exit_is_begun_later_where_the_stack_is_too_deep() -> None:
    """Callbacks that are registered deep in a recursion, while `aclose` waits for something else, run; nothing hangs."""
    resource, called = Recorded(), itertools.count()
    resource.may_enter.clear()
    entering, closing = await begin(enter(resource)), await begin(aclose())
    registered = 0
    for left in range(150):
        with suppress(RecursionError):
            deeper(sys.getrecursionlimit() - left, partial(atexit.register, next, called))
            registered += 1
    assert registered > 10
    resource.may_enter.set()
    await entering
    await closing
    assert next(called) >= registered
