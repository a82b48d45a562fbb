"""The structural types of what can be wrapped and entered."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable

T_co = TypeVar("T_co", covariant=True)


class ACM(Protocol[T_co]):
    """An asynchronous context manager, whatever awaitables its two methods return."""

    def __aenter__(self) -> Awaitable[T_co]: ...

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[object]: ...


class Key(Protocol):
    """A function of a call's arguments, whatever it takes; not a ``Callable[...]``, in which mypy sees an Any."""

    def __call__(self, *args: Any, **kwargs: Any) -> Hashable: ...
