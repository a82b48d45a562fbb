"""Asynchronous context managers that are entered once per loop, however often the block is run."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from ._enter import enter_once
from ._resource import EndedMeanwhile, checked_acm, checked_acm_factory, resource_made_by
from ._wait_graph import running_node
from ._wrapped_factory import wrapped

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from types import TracebackType

    from ._loop_cache import CacheEntry
    from ._resource import Resource
    from ._typing import ACM, Key

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A", bound="ACM[object]")
A_co = TypeVar("A_co", bound="ACM[object]", covariant=True)

_NOT_GIVEN: Any = object()


class StickyACM(Generic[T_co]):
    """An asynchronous context manager that is entered once per loop, and exited when that loop ends.

    Every block gets the value that the first one got; leaving a block does nothing, and lets every exception pass. Two
    blocks that begin at once wait for the same entering, as with `enter_once`.
    """

    __slots__ = ("_acm",)

    def __init__(self, acm: ACM[T_co]) -> None:
        """Take the asynchronous context manager to enter.

        :raises TypeError: if it is none.
        """
        self._acm = checked_acm(acm, where="StickyACM()")

    async def __aenter__(self) -> T_co:
        """Return what the asynchronous context manager gave when this loop entered it, which it does now if it has not."""
        return await enter_once(self._acm)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Do nothing: it stays entered until its loop ends."""

    def __repr__(self) -> str:
        """Return what it would enter."""
        return f"<{type(self).__name__} of {type(self._acm).__qualname__}>"


class _StickyCall(StickyACM[T_co]):
    """The result of a call of a sticky factory. On another loop, or after its resource has ended, it acts as a fresh call."""

    __slots__ = ("_call_again", "_entry", "_open_on", "_resource", "_value")

    def __init__(self, entry: CacheEntry, call_again: Callable[..., StickyACM[T_co]]) -> None:
        self._entry = entry
        self._call_again = call_again
        self._resource: Resource[T_co] | None = None
        self._open_on: AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        return self._entry.name

    def made(self, resource: Resource[T_co]) -> None:
        self._resource = self._entry.resource = resource

    def publish(self, value: Any, loop: AbstractEventLoop, /) -> None:
        self._value: T_co = value
        self._open_on = loop

    def invalidate(self) -> None:
        if self._open_on is not None:
            self._open_on = None
            del self._value
        self._resource = None
        self._entry.invalidate()

    async def __aenter__(self) -> T_co:
        if self._open_on is get_running_loop():
            value = self._value
            node = running_node()
            if node is not None and self._resource is not None:
                self._resource.note_user(node)
            return value
        if self._resource is not None and self._resource.exits.loop is get_running_loop():
            try:
                return await self._resource.acquire()
            except EndedMeanwhile:
                pass
        return await self._call_again(*self._entry.args, **self._entry.kwargs).__aenter__()

    def __repr__(self) -> str:
        return f"<StickyACM of {self.name}, {'ended' if self._resource is None else self._resource.state.value}>"


def sticky_acm(acm: ACM[T]) -> StickyACM[T]:
    """Return an asynchronous context manager that enters ``acm`` once per loop, as `enter_once` does.

    It lives as long as it is referred to, and may be made at module level; what it enters lives as long as the loop.

    :raises TypeError: if ``acm`` is no asynchronous context manager.
    """
    return StickyACM(checked_acm(acm, where="sticky_acm()"))


# pyright finds no T for an overloaded factory of ACM[T], but does find what is bound by one. Two overloads that match are
# ambiguous for mypy where the factory takes Any, so mypy, which alone knows this constant, is spared what pyright needs.
MYPY = False

if TYPE_CHECKING and not MYPY:

    class _StickyACMOf(StickyACM[Any], Generic[A_co]):
        """A `StickyACM` of what an overloaded factory makes."""

        async def __aenter__(self: _StickyACMOf[ACM[T]]) -> T: ...

    class _Decorator(Protocol):
        """`sticky_singleton_acm` that waits for its factory."""

        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, factory: Callable[P, ACM[T]], /
        ) -> Callable[P, StickyACM[T]]: ...
        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, factory: Callable[P, A], /
        ) -> Callable[P, _StickyACMOf[A]]: ...

    @overload
    def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
        factory: Callable[P, ACM[T]], /, *, key: Key | None = None
    ) -> Callable[P, StickyACM[T]]: ...
    @overload
    def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
        factory: Callable[P, A], /, *, key: Key | None = None
    ) -> Callable[P, _StickyACMOf[A]]: ...
    @overload
    def sticky_singleton_acm(*, key: Key | None = None) -> _Decorator: ...


@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, ACM[T]], /
) -> Callable[P, StickyACM[T]]: ...
@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, ACM[T]], /, *, key: Key | None
) -> Callable[P, StickyACM[T]]: ...
@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    *, key: Key | None = None
) -> Callable[[Callable[P, ACM[T]]], Callable[P, StickyACM[T]]]: ...
def sticky_singleton_acm(factory: Any = _NOT_GIVEN, /, *, key: Any = None) -> Any:
    """Return a function whose calls give, per event loop and key, one `StickyACM` of what ``factory`` makes.

    ``async with make(...) as value`` enters it at the first block and returns the same value at every other, until the
    loop ends and exits it. Keys are as for `singleton`, ``key`` too. The factory runs at the first call, in the context in
    which its asynchronous context manager will be entered, held and exited.

    Two tasks that enter at once wait for the same entering; the last one that is cancelled cancels it. If it fails, all who
    wait get the error, and the next call makes and enters a new one; so it is, too, after it has died while it was held.
    Another loop has its own.

    :raises TypeError: if ``factory`` or ``key`` cannot be called, or ``factory`` is an async generator function without
        ``@contextlib.asynccontextmanager``. By the function: if an argument can be no part of a key, or if the factory
        returned no asynchronous context manager.
    :raises RuntimeError: by the function: if no event loop is running. By the block: if it is needed, while it is being
        entered, by something that it needs itself.
    """

    def decorate(factory: Callable[..., ACM[Any]]) -> Any:
        def make(entry: CacheEntry) -> StickyACM[Any]:
            sticky: _StickyCall[Any] = _StickyCall(entry, wrapper)
            exits, where = entry.exits, "sticky_singleton_acm()"
            sticky.made(resource_made_by(factory, entry.args, entry.kwargs, exits=exits, origin=sticky, where=where))
            return sticky

        checked_acm_factory(factory, where="sticky_singleton_acm()")
        wrapper = wrapped(factory, make, key, where="sticky_singleton_acm")
        return wrapper

    return decorate if factory is _NOT_GIVEN else decorate(factory)
