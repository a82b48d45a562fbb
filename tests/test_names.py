"""Names of factories and calls: short and recognisable."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from unittest.mock import MagicMock, Mock

import pytest

from asyncio_loop_local import singleton
from asyncio_loop_local._names import call_name, describe_factory, name_of, name_of_acm
from recording import on_one_loop

SECRET = "hunter2correcthorse"


def connect(host: str = "h", *more: object, **options: object) -> nullcontext[None]:
    return nullcontext()


class Client:
    def __init__(self, func: object = None) -> None:
        self.func = func

    def session(self) -> None: ...

    @classmethod
    def made(cls) -> None: ...

    def __call__(self) -> None: ...


def a_local_one() -> Callable[[], None]:
    def local() -> None: ...

    return local


NAMES: list[tuple[object, str]] = [
    (connect, "connect"),
    (Client, "Client"),
    (Client.session, "Client.session"),
    (Client().session, "Client.session"),
    (Client.made, "Client.made"),
    (Client(), "Client"),
    (Client(func=1), "Client"),
    (functools.partial(connect, "h"), "connect"),
    (functools.partial(functools.partial(Client().session)), "Client.session"),
    (functools.partial(Client()), "Client"),
    (functools.lru_cache(connect), "connect"),
    (a_local_one(), "local"),
    (dict, "dict"),
    (len, "len"),
    (Mock(), "Mock"),
    (MagicMock(), "MagicMock"),
    (Mock(__qualname__=3), "Mock"),
    (3, "int"),
]
REFERRING_TO_ITSELF = Client()
REFERRING_TO_ITSELF.func = REFERRING_TO_ITSELF
NAMES.append((REFERRING_TO_ITSELF, "Client"))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("factory", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_factory_has_the_name_of_its_function_or_class(factory: object, name: str) -> None:
    """Functions, classes and methods have their qualified name, partials that of their function, objects that of their class."""
    assert name_of(factory) == name


@pytest.mark.timeout(10)
@on_one_loop
async def test_a_mock_may_be_a_factory() -> None:
    """A `unittest.mock.Mock`, which has every attribute, can be wrapped and called."""
    factory = Mock(return_value=3)
    make = singleton(factory)
    assert make() == make() == 3
    factory.assert_called_once_with()


def test_a_context_manager_has_the_name_of_its_generator_function_or_its_class() -> None:
    """The result of an async generator function has that function's name, any other ACM that of its class."""

    @asynccontextmanager
    async def pool() -> AsyncGenerator[None]:
        yield

    assert [name_of_acm(acm) for acm in (pool(), nullcontext(), MagicMock())] == ["pool", "nullcontext", "MagicMock"]


def test_a_call_is_named_as_it_is_written() -> None:
    """The arguments of a call are in its name, in the caller's order and form."""
    assert call_name(connect, (), (), {}) == "connect()"
    empty: list[object] = [(), [], {}, set(), frozenset({1}), (1, 2)]
    assert call_name(connect, (), empty, {}) == "connect((), [], {}, set(), frozenset({1}), (1, 2))"
    assert call_name(connect, ("host",), ("h", 80), {"tls": True, "path": None}) == "connect('h', 80, tls=True, path=None)"
    assert call_name(connect, (), ({"a": [1, (2,)], "b": {3}}, b"x"), {}) == "connect({'a': [1, (2,)], 'b': {3}}, b'x')"


def test_arguments_are_masked_by_the_names_of_their_parameters() -> None:
    """An argument is masked if its parameter, its keyword, or the ``*args`` or ``**kwargs`` parameter has a secret's name."""
    assert call_name(connect, ("user", "token"), ("me", SECRET, 3), {}) == "connect('me', ***, 3)"
    assert call_name(connect, ("user",), ("me", SECRET), {}, var_positional="tokens") == "connect('me', ***)"
    assert call_name(connect, (), (), {"user": SECRET}, var_keyword={"user": "credentials"}) == "connect(user=***)"
    assert describe_factory(functools.partial(connect, SECRET)) == "functools.partial of connect"
    assert describe_factory({"token": SECRET}) == "{'token': ***}"
