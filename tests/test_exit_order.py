"""The order of exits: newest first, none before its users, in a number of steps that does not grow with the users."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType
from typing import Any

import pytest

from asyncio_loop_local import aclose, sticky_singleton_acm
from asyncio_loop_local._exit_order import Exitable, ExitOrder
from asyncio_loop_local._loop_state import loop_state


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


def test_what_is_opened_meanwhile_ends_too_and_a_new_user_delays() -> None:
    """What an exit opens ends with the rest, and what it acquires ends after it."""

    async def main() -> None:
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

    asyncio.run(main())


def steps(work: Callable[[], object]) -> int:
    """How many lines of the library run."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if "asyncio_loop_local" not in frame.f_code.co_filename:
            return None
        count += event == "line"
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


def test_a_factory_that_uses_what_is_open_and_is_never_entered_keeps_nothing_open() -> None:
    """An eager task of the factory uses an open resource. Its own resource is never entered, and the loop ends all the same."""
    events: list[str] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def used() -> AsyncGenerator[None]:
        yield
        events.append("used exits")

    async def use() -> None:
        async with used():
            events.append("used")

    @asynccontextmanager
    async def nothing() -> AsyncGenerator[None]:
        yield

    @sticky_singleton_acm
    def never_entered() -> AbstractAsyncContextManager[None]:
        coroutine = use()
        with pytest.raises(StopIteration):  # as a task does that starts eagerly
            coroutine.send(None)
        return nothing()

    async def main() -> None:
        async with used():
            never_entered()
        assert [each.name for each in loop_state().exits] == ["used()", "never_entered()"]

    asyncio.run(main())
    assert events == ["used", "used exits"]
