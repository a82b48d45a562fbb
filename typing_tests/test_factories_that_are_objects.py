"""Objects that can be called are factories too, with what checkers know of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar, assert_type

import pytest

from asyncio_loop_local import singleton, sticky_singleton_acm

T = TypeVar("T")


class Gives(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(self, *args: object) -> None: ...


class Maker(Generic[T]):
    """Can be called."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __call__(self, name: str, *, size: int = 1) -> Gives[tuple[str, int, T]]:
        return Gives((name, size, self._value))


def plain(name: str, size: int = 1, *, flag: bool = False) -> tuple[str, int, bool]:
    return name, size, flag


def typed(function: Callable[[int], T]) -> Callable[[int], T]:
    return singleton(function)


def test_an_object_that_can_be_called_has_the_signature_of_its_call() -> None:
    """Its type parameter is known, its arguments are checked."""
    make = sticky_singleton_acm(Maker(b"m"))

    async def main() -> None:
        async with make("n", size=2) as value:
            assert assert_type(value, tuple[str, int, bytes]) == ("n", 2, b"m")
        with pytest.raises(TypeError):
            make("n", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    asyncio.run(main())


def test_a_lambda_has_the_type_of_what_it_returns() -> None:
    """A lambda without parameters needs no annotation."""
    make = singleton(lambda: [1])

    async def main() -> None:
        assert assert_type(make(), list[int]) == [1]
        with pytest.raises(TypeError):
            make(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    asyncio.run(main())


def test_a_partial_call_gives_what_its_function_gives() -> None:
    """What a partial call takes is known to pyright, and to mypy with the plugin; what it gives, to every checker."""
    make = singleton(partial(plain, "n", flag=True))

    async def main() -> None:
        assert assert_type(make(), tuple[str, int, bool]) == ("n", 1, True)
        assert assert_type(make(2), tuple[str, int, bool]) == ("n", 2, True)
        with pytest.raises(TypeError):
            make(nope=1)  # pyright: ignore[reportCallIssue]

    asyncio.run(main())


def test_a_variable_of_a_callable_type_is_a_factory() -> None:
    """A function that takes a function can give back the singleton of it, with the type that it has."""

    def double(number: int) -> list[int]:
        return [number, number]

    make = typed(double)

    async def main() -> None:
        assert assert_type(make(1), list[int]) == [1, 1]
        assert make(1) is make(1)
        make("s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    asyncio.run(main())
