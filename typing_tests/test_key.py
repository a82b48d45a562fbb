"""A key of one's own changes no signature."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, assert_type, overload

import pytest
from typing_tests.shapes import Gives, plain, refused

from asyncio_loop_local import StickyACM, singleton, sticky_singleton_acm

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


def by_name(name: str, *_: object, **__: object) -> str:
    return name


def by_nothing(*_: object, **__: object) -> None:
    return None


def by_list(name: str, *_: object, **__: object) -> list[str]:
    return [name]


def generic(value: T, more: T | None = None) -> list[T]:
    return [value]


@asynccontextmanager
async def connect(name: str, *, size: int = 1) -> AsyncGenerator[tuple[str, int]]:
    yield name, size


@overload
def by_kind(kind: Literal["text"]) -> Gives[str]: ...
@overload
def by_kind(kind: Literal["binary"], size: int = ...) -> Gives[bytes]: ...
def by_kind(kind: str, size: int = 0) -> Any:
    return Gives("text") if kind == "text" else Gives[str | bytes](b"binary")


async def test_the_signature_is_the_factory_s_and_never_the_key_s() -> None:
    """A key that takes more than the factory does lets nobody pass more, in either form of the decorator."""
    second, first = singleton(plain, key=by_name), singleton(key=by_name)(plain)
    for make in (second, first):
        assert assert_type(make("n", 2), list[object]) == ["n", 2, False]
        assert make("n", flag=True) == ["n", 2, False]
        refused(lambda: make("o", True, False))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        make(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_generic_factory_is_generic_still() -> None:
    """A key that takes objects makes no objects of the factory's types."""
    second, first = singleton(generic, key=by_name), singleton(key=by_name)(generic)
    assert assert_type(second(1), list[int]) == [1]
    assert assert_type(second("s"), list[str]) == ["s"]
    assert assert_type(first(1, 2), list[int]) == [1]
    assert assert_type(first(b"b"), list[bytes]) == [b"b"]


async def test_the_block_gives_what_it_gave() -> None:
    """Also where the key is given first, and also without a key."""
    second, first = sticky_singleton_acm(connect, key=by_name), sticky_singleton_acm(key=by_name)(connect)
    without, none = sticky_singleton_acm()(connect), sticky_singleton_acm(connect, key=None)
    assert_type(second("n", size=2), StickyACM[tuple[str, int]])
    async with second("n", size=2) as one, second("n", size=3) as same, first("n") as other:
        assert assert_type(one, tuple[str, int]) == ("n", 2)
        assert same is one
        assert assert_type(other, tuple[str, int]) == ("n", 1)
    async with without("n") as value, none("n") as another:
        assert assert_type(value, tuple[str, int]) == ("n", 1)
        assert assert_type(another, tuple[str, int]) == ("n", 1)
    refused(lambda: first("m", 2))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    refused(lambda: without(size=2))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_overloads_stay_overloads_where_the_key_is_given_first() -> None:
    """mypy keeps the overloads of an only argument: so the decorator takes the key, and what it returns the factory."""
    make, bare = sticky_singleton_acm(key=by_name)(by_kind), singleton(key=by_name)(by_kind)
    async with make("text") as text, make("binary", 1) as binary:
        assert assert_type(text, str) == "text"
        assert assert_type(binary, bytes) == b"binary"
    assert assert_type(bare("text"), Gives[str]).value == "text"
    assert assert_type(bare("binary"), Gives[bytes]).value == b"binary"


async def test_a_decorated_function_keeps_its_signature() -> None:
    """The decorator with a key, over a function and over a context manager function."""

    @singleton(key=by_nothing)
    def one(value: int) -> int:
        return value

    @sticky_singleton_acm(key=by_nothing)
    @asynccontextmanager
    async def opened(value: T) -> AsyncGenerator[list[T]]:
        yield [value]

    assert assert_type(one(1), int) == one(2) == 1
    async with opened("s") as value:
        assert assert_type(value, list[str]) == ["s"]
    one(1, size=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_key_must_be_hashable_and_its_function_callable() -> None:
    """A key that returns a list is refused by checkers; a key that is no function, at run time too."""
    singleton(plain, key=by_list)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="'key'"):
        singleton(plain, key="name")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="'key'"):
        sticky_singleton_acm(connect, key=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
