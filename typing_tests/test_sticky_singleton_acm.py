"""What `sticky_singleton_acm` wraps keeps its signature, and its block gives what the bare block gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar, assert_type, overload

import aiohttp
import httpx
import pytest
from typing_extensions import Unpack
from typing_tests.shapes import AwaitableEnter, Client, Entered, Gives, Options, OwnAwaitables, Swallows, refused, repeat

from asyncio_loop_local import StickyACM, sticky_singleton_acm

pytestmark = pytest.mark.asyncio
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Settings(Entered):
    host: str
    tags: list[str]
    port: int = 80


class Pool(Gives[T]):
    """Generic, with a parameter that an argument decides, as `psycopg_pool.AsyncConnectionPool` has."""

    @overload
    def __init__(self: Pool[bytes], url: str) -> None: ...
    @overload
    def __init__(self, url: str, *, row: Callable[[], T]) -> None: ...
    def __init__(self, url: str, *, row: Callable[[], Any] = bytes) -> None:
        super().__init__(row())


@sticky_singleton_acm
@asynccontextmanager
async def connect(host: str, port: int = 80, *, retries: int = 3) -> AsyncGenerator[tuple[str, int, int]]:
    yield host, port, retries


@sticky_singleton_acm
@asynccontextmanager
async def collect(value: T, /, *more: T) -> AsyncGenerator[list[T]]:
    yield [value, *more]


@sticky_singleton_acm
@asynccontextmanager
async def with_options(**options: Unpack[Options]) -> AsyncGenerator[str]:
    yield options["url"]


@sticky_singleton_acm
@asynccontextmanager
async def calling(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
    yield function(*args, **kwargs)


@overload
def by_kind(kind: Literal["text"]) -> Gives[str]: ...
@overload
def by_kind(kind: Literal["binary"], *, size: int = ...) -> Gives[bytes]: ...
@overload
def by_kind(kind: int) -> Entered: ...
def by_kind(kind: Any, *, size: int = 0) -> object:
    if isinstance(kind, int):
        return Entered()
    return Gives("") if kind == "text" else Gives[str | bytes](b"")


overloaded = sticky_singleton_acm(by_kind)


async def enter(acm: AbstractAsyncContextManager[T, bool | None]) -> T:
    async with acm as value:
        return value


async def test_a_context_manager_function_is_called_as_it_was() -> None:
    """Defaults and names are what they were, and the block gives what was yielded."""
    assert_type(connect("h"), StickyACM[tuple[str, int, int]])
    async with connect("h") as address:
        assert assert_type(address, tuple[str, int, int]) == ("h", 80, 3)
    async with connect(host="h", port=80) as again:
        assert again is address
    refused(lambda: connect())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    refused(lambda: connect("h", 80, 3))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    connect("h", "p")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    refused(lambda: connect("h", retires=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_generic_context_manager_function_is_generic_still() -> None:
    """Each block gives the type that the arguments of its call say."""
    async with collect(1, 2) as numbers, collect("s") as strings:
        assert assert_type(numbers, list[int]) == [1, 2]
        assert assert_type(strings, list[str]) == ["s"]
    refused(lambda: collect(value=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_class_becomes_the_function_that_its_constructor_is() -> None:
    """Classes and dataclasses that give themselves, bare and wrapped."""
    client, settings = sticky_singleton_acm(Client), sticky_singleton_acm(Settings)
    assert_type(client("h"), StickyACM[Client])
    async with client("h", retries=3) as one, settings("h", ["t"]) as other:
        assert assert_type(one, Client).address == ("h", 80, 3)
        assert assert_type(other, Settings).tags == ["t"]
    refused(lambda: client("h", 80, 3))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    settings("h", "t")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_generic_class_gives_what_its_arguments_say() -> None:
    """A parameter is found from an argument, from an overload of the constructor, or from the subscript."""
    gives, pool, of_ints = sticky_singleton_acm(Gives), sticky_singleton_acm(Pool), sticky_singleton_acm(Gives[int])
    async with gives(1) as number, gives("s") as string, of_ints(2) as other:
        assert assert_type(number, int) == 1
        assert assert_type(string, str) == "s"
        assert assert_type(other, int) == 2
    async with pool("u") as raw, pool("u", row=int) as row:
        assert assert_type(raw, bytes) == b""
        assert assert_type(row, int) == 0
    of_ints("s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    refused(lambda: pool("u", int))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def test_overloads_stay_overloads() -> None:
    """The block gives what the overload that takes the call gives, and what none takes is refused."""
    async with overloaded("text") as text, overloaded("binary", size=1) as binary, overloaded(1) as entered:
        assert assert_type(text, str) == ""
        assert assert_type(binary, bytes) == b""
        assert isinstance(assert_type(entered, Entered), Entered)
    overloaded("text", size=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    overloaded("other")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_keywords_typed_by_a_typed_dict_stay_typed() -> None:
    """Keys that a `TypedDict` has are taken, and others refused."""
    async with with_options(url="u", timeout=1.5) as url:
        assert assert_type(url, str) == "u"
    with_options(url="u", timeuot=1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_options()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_parameter_specification_of_its_own_goes_on_working() -> None:
    """A factory that takes a function and its arguments has these arguments checked still."""
    async with calling(repeat, "n", times=2) as value:
        assert assert_type(value, str) == "nn"
    calling(repeat, "n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    calling(repeat, "n", "t")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_context_managers_are_known_by_their_structure() -> None:
    """Any awaitable will do for entering and exiting, and an exit may take anything and return anything."""
    async with sticky_singleton_acm(AwaitableEnter)() as binary:
        assert assert_type(binary, bytes) == b"entered"
    async with sticky_singleton_acm(OwnAwaitables)() as text:
        assert assert_type(text, str) == "entered"
    async with sticky_singleton_acm(Swallows)() as number:
        assert assert_type(number, int) == 1


async def test_it_can_be_awaited_for_the_value_that_a_block_would_get() -> None:
    """`await make(...)` has the type of the block's value, and so has what gathers or waits for it."""
    value = await connect("h")
    assert assert_type(value, tuple[str, int, int]) == ("h", 80, 3)
    assert assert_type(await collect(1), list[int]) == [1]
    assert assert_type(await overloaded("text"), str) == ""
    assert isinstance(assert_type(await overloaded(1), Entered), Entered)
    text, number = await asyncio.gather(overloaded("text"), sticky_singleton_acm(Gives[int])(1))
    assert (assert_type(text, str), assert_type(number, int)) == ("", 1)
    waits: Awaitable[tuple[str, int, int]] = connect("h")
    assert await waits is value
    refused(lambda: connect("h", 80, 3))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError):
        connect("h").count(80)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with pytest.raises(TypeError):
        await Client("h")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


async def test_its_context_managers_go_wherever_context_managers_go() -> None:
    """An exit stack takes them, and so does a function that asks for an abstract context manager."""
    async with AsyncExitStack() as stack:
        assert assert_type(await stack.enter_async_context(collect(1)), list[int]) == [1]
        assert assert_type(await stack.enter_async_context(overloaded("text")), str) == ""
    assert assert_type(await enter(collect("s")), list[str]) == ["s"]
    assert assert_type(await enter(overloaded("binary")), bytes) == b""


async def test_real_clients_are_typed_as_they_are() -> None:
    """The clients of aiohttp and httpx give themselves, and refuse what they refuse."""
    session, client = sticky_singleton_acm(aiohttp.ClientSession), sticky_singleton_acm(httpx.AsyncClient)
    async with session("http://127.0.0.1", headers={"a": "b"}) as aiohttp_value:
        assert not assert_type(aiohttp_value, aiohttp.ClientSession).closed
    async with client(base_url="http://127.0.0.1", timeout=httpx.Timeout(3)) as httpx_value:
        assert not assert_type(httpx_value, httpx.AsyncClient).is_closed
    refused(lambda: session(nope=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    refused(lambda: client("http://127.0.0.1"))  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


async def test_what_makes_no_context_manager_is_no_factory() -> None:
    """A function that returns something else is refused by checkers, and by its first call."""
    make = sticky_singleton_acm(repeat)  # type: ignore[var-annotated, arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownVariableType]
    with pytest.raises(TypeError, match="no asynchronous context manager"):
        make("n", 1)
