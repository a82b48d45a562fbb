"""`sticky_acm` and `sticky_singleton_acm`: their blocks, and the objects that a call gives. See also test_enter.py."""

from __future__ import annotations

import pytest

from asyncio_loop_local import StickyACM, release, sticky_acm
from conftest import Run
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


@pytest.mark.parametrize("is_used", [True, False])
@on_each_loop
async def test_a_call_makes_and_its_block_enters(log: list[str], is_used: bool) -> list[str]:
    """The factory runs at the call; what it has made is entered by the first block, or never."""
    factory = Factory(log)
    handle = factory.make()
    assert handle is factory.make(port=80)
    assert len(factory.made) == 1
    if is_used:
        await use(handle)
    return [*enters("0"), *exits("0")] if is_used else []


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
