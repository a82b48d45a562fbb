"""A sticky block swallows no exception, and checkers know: what follows it is reachable only as it truly is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Never, assert_never, assert_type

import pytest
from typing_tests.shapes import Swallows

from asyncio_loop_local import sticky_acm, sticky_singleton_acm

pytestmark = pytest.mark.asyncio


@sticky_singleton_acm
@asynccontextmanager
async def connect(host: str = "h") -> AsyncGenerator[str]:
    yield host


swallows = sticky_singleton_acm(Swallows)


def fail() -> Never:
    raise ValueError("failed")


async def returns_from_the_block() -> str:
    async with connect() as host:
        return host
    # a checker that took the block for one that swallows would miss a return here


async def returns_from_a_block_that_swallows_when_bare() -> int:
    async with swallows() as number:
        return number


async def returns_from_a_sticky_acm() -> int:
    async with sticky_acm(Swallows()) as number:
        return number


async def is_assigned_after_the_block() -> str:
    value: str | None = None
    async with swallows() as number:
        value = str(number)
    return assert_type(value, str)


async def may_be_left_early_when_bare() -> str | None:
    value: str | None = None
    async with Swallows() as number:
        if number:
            fail()
        value = str(number)
    return assert_type(value, str | None)


async def test_a_function_that_returns_from_the_block_returns() -> None:
    """No return is needed after a sticky block, not even of what swallows when bare."""
    assert assert_type(await returns_from_the_block(), str) == "h"
    assert assert_type(await returns_from_a_block_that_swallows_when_bare(), int) == 1
    assert assert_type(await returns_from_a_sticky_acm(), int) == 1


async def test_what_the_block_assigns_is_assigned_after_it() -> None:
    """A name that the block narrows stays narrowed; a bare block that swallows is left early, and checkers allow for it."""
    assert assert_type(await is_assigned_after_the_block(), str) == "1"
    assert await may_be_left_early_when_bare() is None


async def test_an_error_in_the_block_passes() -> None:
    """Even where the bare context manager would swallow it; what follows is unreachable, and is not reached."""

    async def main() -> None:
        async with swallows() as number:
            fail()
        assert_never(number)

    with pytest.raises(ValueError, match="failed"):
        await main()


async def test_the_exit_returns_nothing() -> None:
    """Called by hand, it returns None, and is typed so."""
    block = connect()
    await block.__aenter__()
    leaving = block.__aexit__(None, None, None)
    assert [assert_type(each, None) for each in await asyncio.gather(leaving)] == [None]
