"""The structural types of what can be wrapped and entered."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

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
