"""`sticky_acm` and `sticky_singleton_acm`: their blocks, and the objects that a call gives. See also test_enter.py."""

from __future__ import annotations

import asyncio

import pytest

from asyncio_loop_local import sticky_acm
from recording import Factory, Recorded, enters, exits, on_each_loop, use


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
