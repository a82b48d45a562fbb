"""`valid=` takes the value, and changes no signature."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, assert_type, overload

import aiohttp
import pytest
from typing_tests.shapes import Client, Connection, Gives, SubConnection, by_type, refused

from asyncio_loop_local import StickyACM, singleton, sticky_singleton_acm

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


def is_open(value: Connection) -> bool:
    return not value.closed


def is_anything(value: object) -> bool:
    return True


def is_number(value: int) -> bool:
    return True


def is_text(value: str | bytes) -> bool:
    return True


async def connect(host: str, port: int = 80) -> Connection:
    return Connection(host, port)


@asynccontextmanager
async def opened(host: str, *, port: int = 80) -> AsyncGenerator[SubConnection]:
    yield SubConnection(host, port)


@overload
def by_kind(kind: Literal["text"]) -> Gives[str]: ...
@overload
def by_kind(kind: Literal["binary"], *, size: int = ...) -> Gives[bytes]: ...
def by_kind(kind: str, *, size: int = 0) -> Any:
    return Gives("text") if kind == "text" else Gives[str | bytes](b"binary")


@singleton(valid=is_open)
async def decorated(host: str) -> SubConnection:
    return SubConnection(host)


@sticky_singleton_acm(valid=is_open)
@asynccontextmanager
async def decorated_block(host: str) -> AsyncGenerator[SubConnection]:
    yield SubConnection(host)


async def test_a_singleton_has_the_factory_s_signature() -> None:
    """Of a class and of a coroutine function, whose values a lambda knows too."""
    make, later = singleton(Connection, valid=is_open), singleton(connect, valid=lambda each: not each.closed)
    value, given = make("h"), await later("h", 1)
    assert assert_type(value, Connection).address == ("h", 80)
    assert assert_type(given, Connection).address == ("h", 1)
    given.close()
    assert await later("h", 1) is not given
    assert assert_type(await decorated("h"), SubConnection).kind == "sub"
    refused(lambda: make())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    decorated(1)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]


async def test_a_block_gives_what_it_gave() -> None:
    """Beside the factory or before it, and also where the function takes more than what is given."""
    beside, before = sticky_singleton_acm(opened, valid=is_open), sticky_singleton_acm(valid=is_anything)(opened)
    assert_type(beside("h", port=1), StickyACM[SubConnection])
    async with beside("h", port=1) as one, before("h") as other, decorated_block("h") as third:
        assert assert_type(one, SubConnection).address == ("h", 1)
        assert assert_type(other, SubConnection).address == ("h", 80)
        assert assert_type(third, SubConnection).kind == "sub"
    client = sticky_singleton_acm(Client, valid=lambda each: each.address)
    assert assert_type(await client("h"), Client).address == ("h", 80, 3)
    refused(lambda: beside("h", 1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    decorated_block(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_generic_and_overloaded_factories_stay_what_they_are() -> None:
    """A function of any object may be given before them; overloads of mypy's need that form, as with key=."""
    gives, of_ints = sticky_singleton_acm(valid=is_anything)(Gives), sticky_singleton_acm(Gives[int], valid=is_number)
    assert assert_type(await gives("s"), str) == "s"
    assert assert_type(await of_ints(1), int) == 1
    overloaded, plain = sticky_singleton_acm(valid=is_anything)(by_kind), singleton(valid=is_anything)(by_type)
    async with overloaded("text") as text, overloaded("binary", size=1) as binary:
        assert assert_type(text, str) == "text"
        assert assert_type(binary, bytes) == b"binary"
    assert assert_type(plain(1), str) == "1"
    assert assert_type(plain("1"), bytes) == b"1"
    assert assert_type(await sticky_singleton_acm(by_kind, valid=is_text)("text"), str) == "text"


async def test_both_arguments_take_the_same_value() -> None:
    """`close` may take more than `valid` does, and the other way round."""
    make = singleton(close=Connection.close, valid=is_anything)(SubConnection)
    later = singleton(connect, close=Connection.aclose, valid=is_anything)
    assert assert_type(make("h"), SubConnection).kind == "sub"
    assert assert_type(await later("h"), Connection).address == ("h", 80)


async def test_what_takes_another_value_is_refused() -> None:
    """In each form of the two decorators."""
    singleton(Connection, valid=is_number)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(connect, valid=is_number)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    singleton(valid=is_number)(connect)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    sticky_singleton_acm(Client, valid=is_open)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    sticky_singleton_acm(opened, valid=is_number)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    sticky_singleton_acm(valid=is_number)(opened)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="'valid'"):
        singleton(Connection, valid="open")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(TypeError, match="'valid'"):
        sticky_singleton_acm(Client, valid=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_a_lambda_before_its_factory_has_no_type() -> None:
    """The decorator has its type before it gets the factory."""

    @singleton(valid=lambda each: not each.closed)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    def before(host: str) -> Connection:
        return Connection(host)

    assert assert_type(before("h"), Connection).address == ("h", 80)


async def test_a_real_session_is_asked_whether_it_is_closed() -> None:
    """`aiohttp.ClientSession` and a lambda."""
    make = sticky_singleton_acm(aiohttp.ClientSession, valid=lambda session: not session.closed)
    session = await make("http://127.0.0.1")
    await assert_type(session, aiohttp.ClientSession).close()
    async with make("http://127.0.0.1") as another:
        assert another is not session
