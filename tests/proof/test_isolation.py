"""Loops have nothing of each other: in a row with the same id, in threads at once, and one within another's resource."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from asyncio_loop_local import (
    LoopVar,
    aclose,
    enter_once,
    release,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)
from conftest import Run


class Made:
    def __init__(self, *args: Any) -> None:
        self.args = args


class Resource(Made):
    async def __aenter__(self) -> Resource:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


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
    """Everything that this loop has, made now if it does not exist yet."""
    found: list[object] = [storage(), storage().setdefault("tenant", object())]
    found += [VAR.get(None) or (VAR.set(object()) and VAR.get()), get_client("tenant"), await get_config()]
    async with get_pool("tenant") as pool, STICKY:
        found += [pool, *(task for each in resources() for task in each.tasks)]
    assert await enter_once(RESOURCE) is RESOURCE
    return found


async def be_alone(seen_by_others: list[object]) -> None:
    """Check that this loop starts with nothing, and that whatever it makes is its own."""
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
    seen_by_others += mine  # and keep it alive, so that its id is not used again


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
            gc.collect()  # a frame or a cycle may have kept all of them
    assert len(set(ids)) < len(ids), "ids are used again, or this tests nothing"


def test_loops_in_threads_have_nothing_of_each_other(run: Run) -> None:
    """Loops that run at the same time, each in its own thread, see their own values alone."""
    seen: list[list[object]] = [[] for _ in range(4)]
    together = threading.Barrier(len(seen))

    def work(mine: list[object]) -> None:
        try:
            for _ in range(10):
                together.wait(20)
                run(be_alone(mine))
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(len(seen)) as threads:
        list(threads.map(work, seen))
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
