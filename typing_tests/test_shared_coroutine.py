"""The singleton of a coroutine function gives coroutines, as typed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, assert_type, overload

import pytest

from asyncio_loop_local import singleton

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


@singleton
async def fetch(name: str, size: int = 1) -> list[str]:
    return [name] * size


@singleton
async def pair(value: T) -> tuple[T, T]:
    return value, value


@overload
async def by_type(value: int) -> str: ...
@overload
async def by_type(value: str) -> bytes: ...
async def by_type(value: Any) -> object:
    return str(value) if isinstance(value, int) else value.encode()


overloaded = singleton(by_type)


async def test_it_is_a_coroutine_that_may_be_awaited_again() -> None:
    """The result is what the function returns, the same object each time."""
    coroutine: Coroutine[Any, Any, list[str]] = fetch("n", size=2)
    assert isinstance(coroutine, Coroutine)
    value = await coroutine
    assert assert_type(value, list[str]) == ["n", "n"]
    assert await fetch("n", 2) is value


async def test_it_goes_wherever_a_coroutine_goes() -> None:
    """Tasks, task groups, gather and wait_for know what it returns."""
    assert assert_type(await asyncio.create_task(fetch("a")), list[str]) == ["a"]
    assert assert_type(await asyncio.wait_for(fetch("a"), 10), list[str]) == ["a"]
    results = await asyncio.gather(fetch("a"), fetch("b", 2))
    assert assert_type(results[0], list[str]) == ["a"]
    assert assert_type(results[1], list[str]) == ["b", "b"]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pair("s"))
    assert assert_type(task.result(), tuple[str, str]) == ("s", "s")


async def test_generic_and_overloaded_coroutine_functions_stay_what_they_are() -> None:
    """Each call finds its own types."""
    assert assert_type(await pair(b"b"), tuple[bytes, bytes]) == (b"b", b"b")
    assert assert_type(await overloaded(1), str) == "1"
    assert assert_type(await overloaded("1"), bytes) == b"1"


async def test_its_arguments_are_checked_at_the_call() -> None:
    """A wrong call is refused where it is made, not where it is awaited."""
    with pytest.raises(TypeError):
        await fetch()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        await fetch("n", sizes=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
