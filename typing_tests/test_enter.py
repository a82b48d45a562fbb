"""What `enter`, `enter_once` and `sticky_acm` give is what the bare block gives, of any asynchronous context manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TypeVar, assert_type

import pytest
from typing_tests.shapes import AwaitableEnter, Entered, Swallows, refused

from asyncio_loop_local import StickyACM, aclose, enter, enter_once, sticky_acm

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


class SubEntered(Entered): ...


class NoExit:
    async def __aenter__(self) -> int:
        return 1


class NotAsync:
    def __enter__(self) -> int:
        return 1

    def __exit__(self, *args: object) -> None: ...


@asynccontextmanager
async def yields(value: T) -> AsyncGenerator[list[T]]:
    yield [value]


sticky: StickyACM[list[int]] = sticky_acm(yields(1))  # where no loop runs


async def of_any(acm: AbstractAsyncContextManager[T]) -> T:
    return await enter_once(acm)


async def test_entering_gives_what_the_block_gives() -> None:
    """Whether it gives itself, something else, or what a generator yields."""
    entered, sub_entered = await enter(Entered()), await enter(SubEntered())
    assert isinstance(assert_type(entered, Entered), Entered)
    assert isinstance(assert_type(sub_entered, SubEntered), SubEntered)
    assert assert_type(await enter(yields("s")), list[str]) == ["s"]
    assert assert_type(await enter_once(yields(1)), list[int]) == [1]
    assert assert_type(await enter_once(nullcontext("n")), str) == "n"
    assert assert_type(await of_any(yields(b"")), list[bytes]) == [b""]
    await aclose()


async def test_any_awaitable_will_do_and_any_exit() -> None:
    """Entering may return any awaitable; an exit may take anything, and return a bool."""
    assert assert_type(await enter(AwaitableEnter()), bytes) == b"entered"
    assert assert_type(await enter_once(AwaitableEnter()), bytes) == b"entered"
    assert assert_type(await enter(Swallows()), int) == 1
    async with sticky_acm(AwaitableEnter()) as value:
        assert assert_type(value, bytes) == b"entered"


async def test_a_sticky_acm_knows_what_it_gives() -> None:
    """It can be annotated, made at module level, and given to whatever takes a context manager."""
    assert_type(sticky_acm(Swallows()), StickyACM[int])

    async def enter_wider(wider: StickyACM[object]) -> None:
        async with wider as anything:
            assert assert_type(anything, object) == [1]

    async with sticky as value, sticky as again:
        assert assert_type(value, list[int]) == [1]
        assert again is value
    assert assert_type(await of_any(sticky_acm(Swallows())), int) == 1
    await enter_wider(sticky)


async def test_what_is_no_asynchronous_context_manager_is_refused() -> None:
    """By checkers, and at run time with a `TypeError`."""
    with pytest.raises(TypeError):
        await enter(NotAsync())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        await enter_once(NoExit())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    refused(lambda: sticky_acm(Entered))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        await enter(yields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
