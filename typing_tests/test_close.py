"""`close=` takes what the factory makes, and changes no signature."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, assert_type, overload

import httpx
import pytest
from typing_tests.shapes import Connection, SubConnection, by_type, refused

from asyncio_loop_local import LoopVar, release, singleton

pytestmark = pytest.mark.asyncio

T = TypeVar("T")

closed: list[object] = []


def close_any(value: object) -> None:
    closed.append(value)


def close_list(value: list[T]) -> None:
    closed.append(value)


def close_number(value: int) -> None: ...


async def connect(host: str, port: int = 80) -> Connection:
    return Connection(host, port)


def pair(value: T) -> list[T]:
    return [value, value]


@overload
async def resolve(value: int) -> Connection: ...
@overload
async def resolve(value: str, *, port: int = ...) -> SubConnection: ...
async def resolve(value: Any, *, port: int = 80) -> Any:
    return Connection("h") if isinstance(value, int) else SubConnection(value, port)


@singleton(close=Connection.close)
def decorated(host: str, *, port: int = 80) -> SubConnection:
    return SubConnection(host, port)


@singleton(close=Connection.aclose)
async def decorated_coroutine(host: str) -> SubConnection:
    return SubConnection(host)


class Service:
    @singleton(close=Connection.aclose)
    def client(self, host: str) -> SubConnection:
        return SubConnection(host)

    @property
    @singleton(close=Connection.close)
    def only(self) -> Connection:
        return Connection("only")


async def test_the_signature_is_the_factory_s() -> None:
    """A class, with a function, sync or async, that closes its instances; the calls are checked as they were."""
    make, other = singleton(Connection, close=Connection.close), singleton(Connection, close=Connection.aclose)
    value = make("h", port=1)
    assert assert_type(value, Connection).address == ("h", 1)
    assert assert_type(other("h"), Connection) is not value
    assert await release(make, "h", 1)
    assert value.closed
    refused(lambda: make())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    make(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_of_a_coroutine_function_it_takes_what_that_gives() -> None:
    """Not the coroutine; a lambda knows the type."""
    make, by_lambda = singleton(connect, close=Connection.aclose), singleton(connect, close=lambda each: each.aclose())
    value, other = await make("h"), await by_lambda("h", 1)
    assert assert_type(value, Connection).address == ("h", 80)
    assert assert_type(other, Connection).address == ("h", 1)
    assert assert_type(await asyncio.create_task(make("h")), Connection) is value
    assert await release(make, "h")
    assert value.closed
    refused(lambda: make("h", 80, 1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_function_of_a_base_class_leaves_the_type_as_it_is() -> None:
    """Given beside the factory or before it."""
    beside, before = singleton(SubConnection, close=Connection.close), singleton(close=Connection.close)(SubConnection)
    assert assert_type(beside("h"), SubConnection).kind == "sub"
    assert assert_type(before("h"), SubConnection).kind == "sub"
    assert assert_type(decorated("h", port=1), SubConnection).kind == "sub"
    assert assert_type(await decorated_coroutine("h"), SubConnection).kind == "sub"
    assert assert_type(Service().client("h"), SubConnection).kind == "sub"
    assert assert_type(Service().only, Connection).address == ("only", 80)
    refused(lambda: decorated("h", 1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    decorated_coroutine(1)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]


async def test_generic_and_overloaded_factories_stay_what_they_are() -> None:
    """A function of any object may be given before them; overloads of mypy's need that form, as with key=."""
    beside, before = singleton(pair, close=close_any), singleton(close=close_any)(pair)
    assert assert_type(beside(1), list[int]) == [1, 1]
    assert assert_type(before("s"), list[str]) == ["s", "s"]
    assert assert_type(singleton(list[int], close=close_list)(), list[int]) == []
    overloaded, coroutines = singleton(close=close_any)(by_type), singleton(close=close_any)(resolve)
    assert assert_type(overloaded(1), str) == "1"
    assert assert_type(overloaded("1", size=2), bytes) == b"1"
    assert assert_type(await coroutines(1), Connection).address == ("h", 80)
    assert assert_type(await coroutines("1", port=1), SubConnection).kind == "sub"
    assert await release(before, "s")
    assert closed[-1] == ["s", "s"]


async def test_what_closes_something_else_is_refused() -> None:
    """In either form, of a plain function and of a coroutine function."""
    singleton(Connection, close=close_number)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(connect, close=close_number)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(Connection, close=SubConnection.close_sub)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(close=close_number)(Connection)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(close=close_number)(connect)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(close=SubConnection.close_sub)(connect)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(TypeError, match="'close'"):
        singleton(Connection, close="close")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(TypeError, match="'close'"):
        singleton(close=1)(Connection)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def test_a_variable_closes_values_of_its_type() -> None:
    """Its type is found from the factory, from the default, or from what closes."""
    made = LoopVar("made", factory=lambda: SubConnection("h"), close=Connection.aclose)
    given, bare = LoopVar("given", default=SubConnection("d"), close=Connection.close), LoopVar("bare", close=Connection.close)
    value = made.get()
    assert assert_type(value, SubConnection).address == ("h", 80)
    assert assert_type(given.get(), SubConnection).address == ("d", 80)
    assert_type(bare, LoopVar[Connection])
    await made.aclose()
    assert value.closed
    LoopVar("v", factory=list[str], close=close_number)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    LoopVar("v", default="s", close=close_number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    LoopVar[str]("v", close=close_number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_real_client_is_closed_by_its_own_method() -> None:
    """`httpx.AsyncClient` and its `aclose`."""
    make = singleton(httpx.AsyncClient, close=httpx.AsyncClient.aclose)
    client = make(base_url="http://127.0.0.1", timeout=3)
    assert not assert_type(client, httpx.AsyncClient).is_closed
    assert await release(make, base_url="http://127.0.0.1", timeout=3)
    assert client.is_closed
    refused(lambda: make(base_ulr=""))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
