"""A replacement takes what the factory takes, and makes what it makes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any, TypeVar, assert_type
from unittest.mock import Mock

import httpx
import pytest
from typing_tests.shapes import Client, Connection, Gives, SubConnection, by_type

from asyncio_loop_local import override, singleton, sticky_singleton_acm

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


class FakeClient(Client): ...


class Unlike:
    def __init__(self, host: str, port: int = 80) -> None: ...


class TakesOther(Connection):
    def __init__(self, port: int) -> None:
        super().__init__("other", port)


def with_more(host: str, port: int = 80, *, more: int = 1) -> SubConnection:
    return SubConnection(host, port + more)


def anything(*args: Any, **kwargs: Any) -> Any:
    return Connection("anything")


async def connect(host: str) -> Connection:
    return Connection(host)


async def connect_sub(host: str) -> SubConnection:
    return SubConnection(host)


async def connect_unlike(host: str) -> Unlike:
    return Unlike(host)


def pair(value: T) -> list[T]:
    return [value, value]


def one(value: T) -> list[T]:
    return [value]


def one_set(value: T) -> set[T]:
    return {value}


@asynccontextmanager
async def opened(host: str) -> AsyncGenerator[Connection]:
    yield Connection(host)


@asynccontextmanager
async def opened_sub(host: str) -> AsyncGenerator[SubConnection]:
    yield SubConnection(host)


def gives_client(host: str, port: int = 80, *, retries: int = 3) -> Gives[FakeClient]:
    return Gives(FakeClient(host, port, retries=retries))


def gives_number(host: str, port: int = 80, *, retries: int = 3) -> Gives[int]:
    return Gives(1)


def gives_other(host: int) -> Gives[Client]:
    return Gives(Client(""))


def no_block(host: str, port: int = 80, *, retries: int = 3) -> Connection:
    return Connection(host, port)


class Service:
    @singleton
    def client(self, host: str) -> Connection:
        return Connection(host)


def client_of(self: Service, host: str) -> SubConnection:
    return SubConnection(host)


def unlike_of(self: Service, host: str) -> Unlike:
    return Unlike(host)


make = singleton(Connection)
make_later = singleton(connect)
make_pair = singleton(pair)
make_opened = sticky_singleton_acm(opened)
make_client = sticky_singleton_acm(Client)
overloaded = singleton(by_type)


async def test_a_replacement_of_the_same_type_or_a_narrower_one_is_taken() -> None:
    """It may take more, give a subclass, be a lambda, a partial call's like, a mock, or of no type at all."""
    with override(make, SubConnection):
        assert assert_type(make("h"), Connection).address == ("h", 80)
    with override(make, with_more):
        assert make("h").address == ("h", 81)
    with override(make, lambda host, port=80: SubConnection(host, port + 2)):
        assert make("h").address == ("h", 82)
    with (
        override(make, anything),
        override(make_later, anything),
        override(make_client, anything),
        override(overloaded, anything),
    ):
        assert make("h").address == ("anything", 80)
    with override(make, Mock(return_value=Connection("mock"))):
        assert make("h").address == ("mock", 80)


async def test_coroutine_functions_generic_and_overloaded_functions_are_replaced_by_such() -> None:
    """What the calls give is typed as before."""
    with override(make_later, connect_sub):
        assert assert_type(await make_later("h"), Connection).address == ("h", 80)
    with override(make_later, lambda host: connect_sub(host)):
        assert (await make_later("h")).address == ("h", 80)
    with override(make_pair, one):
        assert assert_type(make_pair(1), list[int]) == [1]
    with override(overloaded, by_type):
        assert assert_type(overloaded("1"), bytes) == b"1"


async def test_a_block_s_replacement_is_any_asynchronous_context_manager_of_that_type() -> None:
    """A class, a context manager function, or another wrapped factory."""
    with override(make_client, FakeClient):
        assert isinstance(assert_type(await make_client("h"), Client), FakeClient)
    with override(make_client, gives_client):
        assert isinstance(await make_client("h"), FakeClient)
    with override(make_opened, opened_sub):
        async with make_opened("h") as value:
            assert assert_type(value, Connection).address == ("h", 80)
    with override(make_opened, sticky_singleton_acm(opened_sub)):
        assert isinstance(await make_opened("h"), SubConnection)


async def test_another_result_is_refused() -> None:
    """Where the block begins, or where the context manager is passed on."""
    with override(make, Unlike):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make_later, connect_unlike):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make_later, Connection):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make_client, gives_number):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make_client, no_block):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make, lambda host, port=80: Unlike(host)):  # type: ignore[arg-type, return-value]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with ExitStack() as stack:
        stack.enter_context(override(make, SubConnection))
        stack.enter_context(override(make, Unlike))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    right: AbstractContextManager[None] = override(make, SubConnection)
    wrong: AbstractContextManager[None] = override(make, Unlike)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    assert right is not wrong


async def test_other_parameters_are_refused() -> None:
    """Of a plain factory, a coroutine function and a sticky factory."""
    with override(make, TakesOther):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make_later, lambda: connect("h")):  # type: ignore[arg-type, misc]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(make_client, gives_other):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def test_what_a_generic_or_overloaded_factory_makes_is_compared_by_pyright_alone() -> None:
    """mypy joins what both decide, and takes either."""
    with override(make_pair, one_set):  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with override(overloaded, with_more):  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def test_a_method_is_replaced_by_a_function_of_the_object() -> None:
    """The object comes first, as `self`."""
    with override(Service.client, client_of):
        assert assert_type(Service().client("h"), Connection).address == ("h", 80)
    with override(Service.client, unlike_of):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def test_a_variable_of_a_callable_type_is_a_factory() -> None:
    """A function that takes both has them checked too."""

    def use(factory: Callable[[str], Connection], good: Callable[[str], SubConnection], bad: Callable[[str], Unlike]) -> None:
        with override(factory, good):
            pass
        with override(factory, bad):  # type: ignore[arg-type]  # pyright: ignore[reportGeneralTypeIssues]
            pass

    use(make, SubConnection, Unlike)


async def test_neither_may_be_something_that_cannot_be_called() -> None:
    """Refused by checkers, and at run time."""
    with pytest.raises(TypeError, match="'replacement'"):
        override(make, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(TypeError, match="'factory'"):
        override(1, make)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_a_real_client_is_replaced() -> None:
    """`httpx.AsyncClient` by one with a transport that asks nobody."""

    def fake(**options: Any) -> httpx.AsyncClient:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, text=str(request.url)))
        return httpx.AsyncClient(**options, transport=transport)

    client_for = sticky_singleton_acm(httpx.AsyncClient)
    with override(client_for, fake):
        async with client_for(base_url="http://nowhere") as client:
            assert (await client.get("/path")).text == "http://nowhere/path"
