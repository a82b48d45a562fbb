"""Methods, class methods and static methods are wrapped where they are defined, and bind as they did."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar, assert_type, overload

import pytest
from typing_tests.shapes import refused

from asyncio_loop_local import singleton, sticky_singleton_acm

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


class Service:
    @singleton
    def client(self, name: str, *, size: int = 1) -> list[object]:
        return [self, name, size]

    @classmethod
    @singleton
    def shared(cls, name: str) -> tuple[type[Self], str]:
        return cls, name

    @staticmethod
    @singleton
    def limit(size: int = 1) -> set[int]:
        return {size}

    @sticky_singleton_acm
    @asynccontextmanager
    async def session(self, value: T, *, user: str = "") -> AsyncGenerator[list[T]]:
        yield [value]

    @overload
    def _either(self, value: int) -> str: ...
    @overload
    def _either(self, value: str) -> bytes: ...
    def _either(self, value: Any) -> object:
        return str(value) if isinstance(value, int) else value.encode()

    either = singleton(_either)


class SubService(Service): ...


async def test_a_method_takes_no_self_where_it_is_called() -> None:
    """A wrapped method is called on its object, and each object has its own result."""
    service, other = Service(), SubService()
    assert assert_type(service.client("n"), list[object]) == [service, "n", 1]
    assert service.client("n", size=1) is service.client("n")
    assert other.client("n") is not service.client("n")
    assert assert_type(Service.client(service, "n"), list[object]) is service.client("n")
    refused(lambda: service.client("n", 2))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    refused(lambda: Service.client("n"))  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


async def test_class_methods_and_static_methods_bind_as_they_did() -> None:
    """A class method knows the class on which it was called; a static method knows none."""
    assert assert_type(Service.shared("n"), tuple[type[Service], str]) == (Service, "n")
    assert assert_type(SubService.shared("n"), tuple[type[SubService], str]) == (SubService, "n")
    assert assert_type(Service().limit(), set[int]) == {1}
    refused(lambda: Service.shared())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Service.limit("n")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_context_manager_method_is_generic_still() -> None:
    """The block of a wrapped method gives what the method's own block gives, on each object its own."""
    service = Service()
    async with service.session(1) as numbers, service.session("s", user="u") as strings:
        assert assert_type(numbers, list[int]) == [1]
        assert assert_type(strings, list[str]) == ["s"]
    async with service.session(1) as again, Service().session(1) as others:
        assert again is numbers
        assert others is not numbers
    refused(lambda: service.session(1, "u"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_an_overloaded_method_keeps_its_overloads() -> None:
    """Each overload of a wrapped method gives what it gave."""
    assert assert_type(Service().either(1), str) == "1"
    assert assert_type(Service().either("1"), bytes) == b"1"


async def test_a_bound_method_is_wrapped_with_its_object() -> None:
    """What is wrapped on an object takes the arguments without it."""
    bound = singleton(Service().client)
    assert assert_type(bound("n"), list[object])[1:] == ["n", 1]
    refused(lambda: bound("n", 2))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
