"""Context managers and factories of the shapes that people write, for the typing tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, NotRequired, Self, TypedDict, TypeVar, overload

import pytest

T = TypeVar("T")


class Entered:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None: ...


class Client(Entered):
    def __init__(self, host: str, port: int = 80, *, retries: int = 3) -> None:
        self.address = host, port, retries


class Connection:
    """Is made without `await`, and has methods to close it."""

    def __init__(self, host: str, port: int = 80) -> None:
        self.address = host, port
        self.closed = False

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class SubConnection(Connection):
    kind = "sub"

    def close_sub(self) -> None:
        self.closed = True


class Gives(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(self, *args: object) -> None: ...


class Swallows:
    async def __aenter__(self) -> int:
        return 1

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        return True


class Soon(Generic[T]):
    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, T]:
        yield
        return self._value


class AwaitableEnter:
    def __aenter__(self) -> Awaitable[bytes]:
        return Soon(b"entered")

    def __aexit__(self, *args: object) -> Awaitable[None]:
        return Soon(None)


class OwnAwaitables:
    def __aenter__(self) -> Soon[str]:
        return Soon("entered")

    def __aexit__(self, kind: Any, error: Any, traceback: Any) -> Soon[bool]:
        return Soon(False)


class Options(TypedDict):
    url: str
    timeout: NotRequired[float]


@overload
def by_type(value: int) -> str: ...
@overload
def by_type(value: str, size: int = ...) -> bytes: ...
def by_type(value: Any, size: int = 0) -> object:
    return str(value) if isinstance(value, int) else value.encode()


def plain(name: str, size: int = 1, *, flag: bool = False) -> list[object]:
    return [name, size, flag]


def repeat(name: str, times: int) -> str:
    return name * times


def refused(call: Callable[[], object]) -> None:
    """A wrong call, which checkers refuse where it is written, is a `TypeError` at run time."""
    with pytest.raises(TypeError):
        call()
