"""`release` takes a wrapped factory with its own arguments."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import assert_type, overload

import pytest

from asyncio_loop_local import release, release_all, singleton, sticky_singleton_acm

pytestmark = pytest.mark.asyncio


@sticky_singleton_acm
@asynccontextmanager
async def connect(host: str, port: int = 80) -> AsyncGenerator[tuple[str, int]]:
    yield host, port


@singleton
def plain(name: str, *, size: int = 1) -> list[object]:
    return [name, size]


@overload
def bare(name: str) -> list[object]: ...
@overload
def bare(name: str, size: int) -> list[object]: ...
def bare(name: str, size: int = 1) -> list[object]:
    return [name, size]


overloaded = singleton(bare)


class Service:
    @singleton
    def client(self, name: str) -> list[str]:
        return [name]


async def test_it_takes_the_arguments_of_the_call() -> None:
    """Positional, by name, or left out where there is a default; it tells whether there was anything."""
    async with connect("h"):
        pass
    plain("n")
    assert assert_type(await release(connect, host="h", port=80), bool) is True
    assert await release(connect, "h") is False
    assert await release(plain, "n", size=1) is True


async def test_it_refuses_what_the_factory_refuses() -> None:
    """Arguments that are no call of the factory are found by checkers; at run time there is nothing for them."""
    await connect("h").__aenter__()
    plain("n")
    assert not await release(connect)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert not await release(connect, "h", 80, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert not await release(plain, "n", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert not await release(plain, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_an_overloaded_factory_is_refused_by_pyright() -> None:
    """pyright passes on no overloads that a decorator has kept, but those of a bare function: see docs/checkers.md."""
    overloaded("n", 2)
    assert await release(overloaded, "n", 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        await release(bare, "n", 2)


async def test_a_method_is_released_on_its_object() -> None:
    """The object comes with the bound method."""
    service = Service()
    service.client("n")
    assert not await release(service.client)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert assert_type(await release(service.client, "n"), bool) is True


async def test_all_of_a_factory_s_are_counted() -> None:
    """A factory without arguments; what is no factory is refused."""
    plain("n")
    plain("m")
    assert assert_type(await release_all(plain), int) == 2
    with pytest.raises(TypeError):
        await release_all(plain, "n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        await release_all(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
