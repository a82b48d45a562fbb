"""The structural types of what can be wrapped and entered."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


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


class NoFunction:
    """No object is an instance. From a parameter ``X | NoFunction`` mypy infers no type variable: it only checks the argument."""


class Key(Protocol):
    """A function of a call's arguments, whatever it takes; not a ``Callable[...]``, in which mypy sees an Any."""

    def __call__(self, *args: Any, **kwargs: Any) -> Hashable: ...


class ReturnsBoth(Protocol[P, R_co, T_co]):
    """A function whose result is an ``R_co`` and a ``T_co``: so the one is inferred, and the other is checked."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]  # pyright: ignore[reportOverlappingOverload]  # that is how it is both
        self, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...
