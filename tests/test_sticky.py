"""`sticky_acm` and `sticky_singleton_acm`: their blocks, and the objects that a call gives. See also test_enter.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from asyncio_loop_local import StickyACM, release, sticky_acm, sticky_singleton_acm
from conftest import Run
from recording import Factory, Recorded, cancel, enters, exits, on_each_loop, turns, use


@pytest.mark.parametrize("way", ["sticky_acm", "sticky_singleton_acm"])
@on_each_loop
async def test_leaving_the_block_does_nothing(way: str) -> None:
    """A block's resource stays open after it, also after an error, which passes; the next block has the same."""
    factory = Factory()
    acm = factory.make() if way == "sticky_singleton_acm" else sticky_acm(Recorded(factory.log, "0"))
    with pytest.raises(ValueError, match="of the block"):
        async with acm:
            raise ValueError("of the block")
    async with acm as first, acm as nested:
        assert first is nested
    assert (await use(acm)).is_open
    assert factory.log == enters("0")


@on_each_loop
async def test_an_object_that_failed_tries_afresh_too() -> None:
    """The same object that failed to enter makes and enters a new resource at its next block."""
    factory = Factory()
    factory.enter_error = ValueError("first")
    handle = factory.make()
    with pytest.raises(ValueError, match="first"):
        await use(handle)
    factory.enter_error = None
    assert await use(handle) is await use(handle) is await factory.use() is factory.made[1]


@pytest.mark.parametrize("is_used", [True, False])
def test_a_call_makes_and_its_block_enters(is_used: bool) -> None:
    """The factory runs at the call; what it has made is entered by the first block, or never."""
    factory = Factory()

    async def main() -> None:
        handle = factory.make()
        assert handle is factory.make(port=80)
        assert len(factory.made) == 1
        if is_used:
            await use(handle)

    asyncio.run(main())
    assert factory.log == ([*enters("0"), *exits("0")] if is_used else [])


# `await make()`


@on_each_loop
async def test_awaiting_a_call_gives_what_its_block_gives(log: list[str]) -> list[str]:
    """`await make()` enters at the first time, gives the same value at every other, and leaves it open."""
    factory = Factory(log)
    resource: Recorded = await factory.make()
    assert resource is await factory.make("h") is await factory.use() is factory.made[0]
    assert resource.is_open
    assert log == enters("0")
    return [*enters("0"), *exits("0")]


@pytest.mark.parametrize("way", ["sticky_acm", "sticky_singleton_acm"])
@on_each_loop
async def test_one_object_may_be_awaited_again_and_by_many(way: str) -> None:
    """The object may be awaited any number of times, by any number of tasks, which wait for the same entering."""
    factory = Factory()
    acm = factory.make() if way == "sticky_singleton_acm" else sticky_acm(Recorded(factory.log, "0"))

    async def wait() -> Recorded:
        return await acm

    values = await asyncio.gather(*(wait() for _ in range(10)))
    assert {*values} == {await acm}
    assert factory.log == enters("0")


@on_each_loop
async def test_awaiting_fails_as_the_block_does() -> None:
    """If the enter fails, all who await get the error, and the next await tries afresh."""
    factory = Factory()
    factory.enter_error = ValueError("first")
    acm = factory.make()

    async def wait() -> Recorded:
        return await acm

    errors: list[object] = [*await asyncio.gather(wait(), wait(), use(acm), return_exceptions=True)]
    assert errors == [factory.enter_error] * 3
    factory.enter_error = None
    assert await acm is await factory.use() is factory.made[1]


@on_each_loop
async def test_an_awaiter_that_is_cancelled_is_cancelled_alone() -> None:
    """Others go on to wait for the enter; the last one that is cancelled cancels it, and the next await makes a new one."""
    factory = Factory(enter_waits=True)

    async def wait() -> Recorded:
        return await factory.make()

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    resource = await factory.until_entering()
    await turns()
    await cancel(first)
    assert not second.done()
    await cancel(second)
    await turns()
    assert not resource.is_open
    factory.enter_waits = False
    assert await wait() is factory.made[1]


@on_each_loop
async def test_awaiting_acquires(log: list[str]) -> list[str]:
    """What a resource has awaited is exited after it, as what it has got in a block."""
    client = Factory(log)

    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        assert await client.make() is await client.make()
        yield
        log.append("the service ends")

    async with sticky_acm(service()):
        pass
    with pytest.raises(RuntimeError, match="while it is in use by"):
        await release(client.make)
    return [*enters("0"), "the service ends", *exits("0")]


@pytest.mark.parametrize("way", ["await", "block"])
@on_each_loop
async def test_awaiting_what_needs_itself(way: str) -> None:
    """An enter that awaits its own resource is refused at once, in a block too."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        if way == "await":
            await service()
        else:
            await use(service())
        yield

    with pytest.raises(RuntimeError, match="would wait for ever"):
        await service()


def test_an_object_that_was_kept_is_awaited_on_another_loop(run: Run) -> None:
    """On a second loop, and after its resource has ended, an object acts as a call that is made there and then."""
    factory = Factory()

    async def main() -> Recorded:
        kept.append(factory.make())
        value = await kept[0]
        assert value is await factory.make()
        assert await release(factory.make)
        new: Recorded = await kept[0]
        assert new is await factory.make() is not value
        return new

    kept: list[StickyACM[Recorded]] = []
    assert run(main()) is not run(main())
    assert factory.log == [line for name in "0123" for line in (*enters(name), *exits(name))]


@on_each_loop
async def test_waiting_for_an_await_has_a_limit() -> None:
    """`asyncio.timeout` around `await make()` cancels the enter for which nobody else waits."""
    factory = Factory(enter_waits=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await factory.make()
    await turns()
    factory.enter_waits = False
    assert await factory.make() is factory.made[-1]
    assert factory.made[-1].is_open
