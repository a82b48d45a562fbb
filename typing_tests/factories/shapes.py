"""Factories of every shape that Python has, made by hand: each is in the table beside the real ones."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    overload,
)

from typing_extensions import Unpack

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", int, str)
S = TypeVar("S", bound="Sized")


def any_key(*args: object, **kwargs: object) -> Hashable:
    """A key of one's own, for any factory."""
    return (args, tuple(sorted(kwargs)))


def any_value(value: object) -> None:
    """What closes any value, or finds none good."""


class Entered:
    """What gives itself when it is entered."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None: ...


class Gives(Generic[T]):
    """What gives another value when it is entered."""

    def __init__(self, value: T, /) -> None:
        self.value = value

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(self, *args: object) -> None: ...


class NoParameters(Entered): ...


class Sized(Entered):
    def __init__(self, host: str, port: int = 80, *sizes: int, timeout: float | None = None, **extra: bytes) -> None: ...


class KeywordOnly(Entered):
    def __init__(self, *, name: str, size: int = 1) -> None: ...


class PositionalOnly(Entered):
    def __init__(self, name: str, size: int = 1, /) -> None: ...


class Narrower(Sized):
    def __init__(self, port: Literal[80, 443]) -> None: ...


class ByNew(Entered):
    def __new__(cls, name: str) -> ByNew:
        return super().__new__(cls)


class _Future(Generic[T]):
    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, T]:
        yield
        return self._value


class AwaitableEnter:
    """An `__aenter__` that is no coroutine function, as aiohttp's and asyncpg's are none."""

    def __init__(self, name: str) -> None: ...

    def __aenter__(self) -> Awaitable[bytes]:
        return _Future(b"")

    def __aexit__(self, *args: object) -> Awaitable[None]:
        return _Future(None)


class OwnAwaitableEnter:
    def __aenter__(self) -> _Future[bytes]:
        return _Future(b"")

    def __aexit__(self, kind: Any, error: Any, traceback: Any) -> _Future[bool | None]:
        return _Future(None)


class Swallows:
    """An `__aexit__` that returns a bool, and so may swallow an exception."""

    def __init__(self, *errors: type[BaseException]) -> None: ...

    async def __aenter__(self) -> int:
        return 1

    async def __aexit__(self, *args: object) -> bool:
        return True


class NoAexitParameters:
    async def __aenter__(self) -> int:
        return 1

    async def __aexit__(self, kind: object = None, error: object = None, traceback: object = None) -> None: ...


class Pool(Gives[T]):
    @overload
    def __init__(self: Pool[bytes], url: str) -> None: ...
    @overload
    def __init__(self, url: str, *, row: Callable[[], T]) -> None: ...
    def __init__(self, url: str, *, row: Any = bytes) -> None:
        super().__init__(row())


class Closing(Generic[S]):
    def __init__(self, thing: S) -> None:
        self._thing = thing

    async def __aenter__(self) -> S:
        return self._thing

    async def __aexit__(self, *args: object) -> None: ...


@dataclass
class Settings(Entered):
    host: str
    port: int = 80
    tags: list[str] = field(default_factory=list[str], kw_only=True)
    retries: int = field(default=3, kw_only=True)
    default_host: ClassVar[str] = "localhost"


@dataclass(frozen=True, kw_only=True)
class FrozenPair(Gives[T]):
    first: T
    second: T


class Row(NamedTuple):
    name: str
    size: int = 0


class Options(TypedDict):
    url: str
    timeout: NotRequired[float]


class MoreOptions(Options, total=False):
    retries: int


@asynccontextmanager
async def simple(name: str, size: int = 1, *, flag: bool = False) -> AsyncGenerator[bytes]:
    yield b""


@asynccontextmanager
async def generic(value: T, *more: T) -> AsyncGenerator[list[T]]:
    yield [value, *more]


@asynccontextmanager
async def constrained(value: N) -> AsyncGenerator[N]:
    yield value


@asynccontextmanager
async def bounded(value: S) -> AsyncGenerator[S]:
    yield value


@asynccontextmanager
async def with_options(**options: Unpack[Options]) -> AsyncGenerator[str]:
    yield options["url"]


@asynccontextmanager
async def with_more_options(name: str, /, **options: Unpack[MoreOptions]) -> AsyncGenerator[str]:
    yield name


@asynccontextmanager
async def calls(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
    yield function(*args, **kwargs)


@asynccontextmanager
async def calls_with(function: Callable[Concatenate[int, P], T], *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
    yield function(1, *args, **kwargs)


@asynccontextmanager
async def nothing() -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def maybe(name: str | None = None) -> AsyncGenerator[str | None]:
    yield name


def returns_union(which: bool) -> Gives[int] | Gives[str]:
    return Gives(1) if which else Gives("")


def returns_abstract(name: str) -> AbstractAsyncContextManager[bytes]:
    return simple(name)


@overload
def by_kind(kind: Literal["text"]) -> Gives[str]: ...
@overload
def by_kind(kind: Literal["binary"], *, size: int = ...) -> Gives[bytes]: ...
@overload
def by_kind(kind: int) -> Entered: ...
def by_kind(kind: Any, *, size: int = 0) -> Any:
    return Gives(kind)


@overload
def generic_overloads(value: list[T]) -> Gives[T]: ...
@overload
def generic_overloads(value: dict[str, T], default: T) -> Gives[T]: ...
def generic_overloads(value: Any, default: Any = None) -> Any:
    return Gives(value)


class Callable_(Generic[T]):
    """An instance that can be called."""

    def __init__(self, value: T) -> None:
        self.value = value

    def __call__(self, name: str, *, size: int = 1) -> Gives[T]:
        return Gives(self.value)


class CallableWithOverloads:
    @overload
    def __call__(self, name: str) -> Gives[str]: ...
    @overload
    def __call__(self, name: bytes, size: int) -> Gives[bytes]: ...
    def __call__(self, name: Any, size: int = 0) -> Any:
        return Gives(name)


class Service:
    def connect(self, host: str, port: int = 80) -> Gives[bytes]:
        return Gives(b"")

    @classmethod
    def create(cls, host: str) -> Gives[Self]:
        return Gives(cls())

    @staticmethod
    def static(size: int) -> Gives[int]:
        return Gives(size)

    @overload
    def either(self, name: str) -> Gives[str]: ...
    @overload
    def either(self, name: int) -> Gives[int]: ...
    def either(self, name: Any) -> Any:
        return Gives(name)

    @asynccontextmanager
    async def session(self, value: T, *, user: str = "") -> AsyncGenerator[T]:
        yield value


class SubService(Service): ...


async def agen() -> AsyncGenerator[int]:
    yield 1


def takes_int(number: int, name: str) -> bytes:
    return b""


anything: Any = None
service = Service()
callable_object = Callable_(b"")
callable_with_overloads = CallableWithOverloads()
partial_call = functools.partial(Sized, "host", timeout=1.0)
partial_keyword = functools.partial(simple, size=2)
sized = Sized("host")


def plain(name: str, size: int = 1, *rest: bytes, flag: bool = False, **extra: float) -> list[str]:
    return [name]


def plain_generic(value: T, more: list[T] | None = None) -> dict[str, T]:
    return {"": value}


@overload
def plain_overloads(value: int) -> str: ...
@overload
def plain_overloads(value: str, size: int = ...) -> bytes: ...
def plain_overloads(value: Any, size: int = 0) -> Any:
    return value


def plain_constrained(value: N) -> N:
    return value


def plain_options(**options: Unpack[MoreOptions]) -> Options:
    return options


def plain_calls(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


def plain_narrows(value: object) -> Literal[1, 2] | None:
    return 1 if value else None


async def coroutine(name: str, size: int = 1) -> list[bytes]:
    return []


async def coroutine_generic(value: T) -> tuple[T, T]:
    return value, value


@overload
async def coroutine_overloads(value: int) -> str: ...
@overload
async def coroutine_overloads(value: str) -> bytes: ...
async def coroutine_overloads(value: Any) -> Any:
    return value


def returns_awaitable(name: str) -> Awaitable[int]:
    return _Future(1)


partial_plain = functools.partial(plain, "name", flag=True)
