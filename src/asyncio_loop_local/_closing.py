"""Values of factories with a ``close=`` function: each is a resource whose exit calls that."""

from __future__ import annotations

import inspect
from asyncio import get_running_loop
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ._names import name_of, qualified_name
from ._resource import Resource, close_by
from ._shared_coroutine import FirstCoroutine, ReusableCoroutine, first_coroutine, is_coroutine
from ._sticky_acm import StickyCall, sticky_call
from ._wait_graph import running_node

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ._loop_cache import CacheEntry

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Closing(Generic[T]):
    """An asynchronous context manager of a value that is made by a coroutine, or is there already, and closed by a function."""

    __slots__ = ("_close", "_coroutine", "_value")

    def __init__(self, close: Callable[[T], object], coroutine: FirstCoroutine[T] | None = None) -> None:
        self._close = close
        self._coroutine = coroutine

    def holds(self, value: T) -> _Closing[T]:
        self._value = value
        return self

    async def __aenter__(self) -> T:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            self._value = await coroutine.take()
        return self._value

    async def __aexit__(self, *_error: object) -> None:
        await close_by(self._close, self._value)


class ClosingCoroutine(ReusableCoroutine[T_co]):
    """The result of a call of a coroutine function with ``close=``: each await gives the value that will be closed."""

    __slots__ = ("sticky",)

    def __init__(self, first: Coroutine[Any, Any, T_co], sticky: StickyCall[T_co]) -> None:
        super().__init__(first)
        self.sticky = sticky

    def __await__(self) -> Generator[Any, Any, T_co]:
        sticky = self.sticky
        if sticky.open_on is get_running_loop() and type(sticky) is StickyCall and running_node() is None:
            return sticky.value  # at once, since this is where most awaits end
        return (yield from sticky.__await__())

    def __repr__(self) -> str:
        return f"<shared coroutine of {self.sticky.name}>"


def check_close(close: object, *, where: str) -> None:
    """Refuse what cannot close a value.

    :raises TypeError: if it cannot be called, or nothing runs when it is.
    """
    is_generator = inspect.isasyncgenfunction(close)
    if is_generator or not callable(close):
        wrong = (
            "not be an async generator function, of which a call runs nothing"
            if is_generator
            else f"be callable, not {type(close).__qualname__}"
        )
        raise TypeError(
            f"argument 'close' of {where}() must {wrong}: "
            f"pass a function of the value, sync or async, as in close=httpx.AsyncClient.aclose"
        )


def made_to_be_closed(entry: CacheEntry, close: Callable[[Any], object], wrapper: Callable[..., Any]) -> Any:
    """Call the factory of an entry, and return its value, or the coroutine of it, as a resource that ``close`` ends."""
    resource: Resource[Any] = Resource(entry.exits, None, entry)
    since = entry.exits.loop.time()
    with entry.exits.undisturbed():
        value = resource.run_factory(partial(_value_to_be_closed, entry))
        if is_coroutine(value, or_shared=True):
            return _coroutine_to_be_closed(value, resource, entry, close, wrapper)
        entry.resource, entry.valid = resource, entry.factory.valid
        resource.open_with(_Closing(close).holds(value), value, since=since)
        node = running_node()
        if node is not None:
            resource.note_user(node)
    return value


def _value_to_be_closed(entry: CacheEntry) -> Any:
    value: Any = entry.call_factory()
    kind = cast("type[object]", type(value))
    if hasattr(kind, "__aenter__") and isinstance(value, Coroutine):
        value.close()  # or it would warn that it was never awaited
        name = name_of(entry.factory.call)
        raise TypeError(
            f"{name}() returned an object of class {qualified_name(kind)}, which is to be awaited or entered, once, and is no "
            f"value for close=…: wrap {name} with sticky_singleton_acm(), or a coroutine function that awaits {name}(…)"
        )
    return value


def _coroutine_to_be_closed(
    first: Coroutine[Any, Any, Any],
    resource: Resource[Any],
    entry: CacheEntry,
    close: Callable[[Any], object],
    wrapper: Callable[..., Any],
) -> ClosingCoroutine[Any]:
    def sticky_of_another_call(*args: Any, **kwargs: Any) -> StickyCall[Any]:
        sticky: StickyCall[Any] = wrapper(*args, **kwargs).sticky
        return sticky

    sticky = sticky_call(entry, sticky_of_another_call)
    resource.acm = _Closing(close, first_coroutine(first, entry))
    resource.origin = sticky
    sticky.made(resource)
    return ClosingCoroutine(first, sticky)
