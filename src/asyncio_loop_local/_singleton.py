"""The result of a function, once per loop and key."""

from __future__ import annotations

from asyncio import get_running_loop
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, TypeVar, overload

from ._closing import check_close, made_to_be_closed
from ._cpython import mark_coroutine_function
from ._shared_coroutine import is_coroutine, shared_coroutine
from ._wrapped_factory import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ._loop_cache import CacheEntry
    from ._typing import Key, ReturnsBoth

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_NOT_GIVEN: Any = object()

if TYPE_CHECKING:

    class _Decorator(Generic[T]):
        """`singleton` that waits for a factory of values which ``close`` and ``valid`` take."""

        @overload  # where ``close`` and ``valid`` take any object, the factory keeps its type, with its overloads
        def __call__(self: _Decorator[object], factory: Callable[P, R], /) -> Callable[P, R]: ...
        @overload
        def __call__(self, factory: ReturnsBoth[P, R, Coroutine[object, Never, T]], /) -> Callable[P, R]: ...
        @overload
        def __call__(self, factory: ReturnsBoth[P, R, T], /) -> Callable[P, R]: ...
        def __call__(self, factory: Any, /) -> Any: ...


# Where `close` or `valid` is taken, one of them is required: overloads that match besides are ambiguous for mypy if the factory
# takes Any.
@overload
def singleton(factory: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def singleton(factory: Callable[P, T], /, *, key: Key | None) -> Callable[P, T]: ...
@overload
def singleton(
    factory: ReturnsBoth[P, R, Coroutine[object, Never, T]],
    /,
    *,
    key: Key | None = None,
    close: Callable[[T], object] | None,
    valid: Callable[[T], object] | None = None,
) -> Callable[P, R]: ...
@overload
def singleton(
    factory: ReturnsBoth[P, R, Coroutine[object, Never, T]],
    /,
    *,
    key: Key | None = None,
    valid: Callable[[T], object] | None,
) -> Callable[P, R]: ...
@overload
def singleton(
    factory: Callable[P, T],
    /,
    *,
    key: Key | None = None,
    close: Callable[[T], object] | None,
    valid: Callable[[T], object] | None = None,
) -> Callable[P, T]: ...
@overload
def singleton(factory: Callable[P, T], /, *, key: Key | None = None, valid: Callable[[T], object] | None) -> Callable[P, T]: ...
@overload
def singleton(*, key: Key | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
@overload
def singleton(
    *, key: Key | None = None, close: Callable[[T], object] | None, valid: Callable[[T], object] | None = None
) -> _Decorator[T]: ...
@overload
def singleton(*, key: Key | None = None, valid: Callable[[T], object] | None) -> _Decorator[T]: ...
def singleton(factory: Any = _NOT_GIVEN, /, *, key: Any = None, close: Any = None, valid: Any = None) -> Any:
    """Return a function that calls ``factory`` once per event loop and key, and returns its result from then on.

    The result lives until its loop ends, and is then let go; only ``close`` closes it. Equal arguments are one key, however they
    are written; dicts, lists, sets and objects that compare by value count by what they hold at the time of the call.
    ``key`` says otherwise: it is called with the call's arguments, and what it returns is the key.

    The factory runs in the first caller's task; an error of it is raised and not remembered. On another loop it runs
    anew. The function has the factory's name, documentation and signature, and binds as a method where a function would.

    Of a coroutine function, the result is one coroutine that may be awaited any number of times, by any number of tasks, and
    given to whatever takes a coroutine. The function runs once, when that is first awaited, in a task of its own with a
    copy of the first awaiter's context. An awaiter that is cancelled is cancelled alone; the last one cancels the run, and the
    next starts it anew. A failure is raised to all who wait, and not remembered. Never awaited, it does not warn. Where no
    loop runs, a call gives a plain coroutine, which is of no loop yet: awaited, it gives what a call on that loop gives.

    ``close``, sync or async, is called with the value (of a coroutine function: with what it gives) when the loop ends, or at
    `release`, in a task of its own. The value is then a resource like any other: it is listed by `resources`, it is closed
    in the order of exits, after each resource whose code has got it. The factory runs in the context in which
    the value will be closed, and the tasks that it starts live as long as the value. What failed has nothing to close.

    ``valid`` is called with the value at each later call (of a coroutine function: at each later await). If it returns
    something false, the value is forgotten as by `release`, and made anew, once, however many ask; ``close`` then closes the
    old one, as soon as nothing open uses it; what has asked again uses the new value alone. An error of ``valid`` is raised to
    the caller, and changes nothing. Where ``valid`` itself makes the same call, it gets the value in question.

    :raises TypeError: if ``factory``, ``key``, ``close`` or ``valid`` cannot be called, if ``key`` or ``valid`` is a coroutine
        function, or ``close`` an async generator function. By the function: if an argument can be no part of a key, or if
        ``valid`` returned an awaitable, or if what is to be closed is rather to be awaited or entered, once.
    :raises RuntimeError: by the function: if no event loop is running, unless it is a coroutine function. By awaiting: if the
        run would wait for itself.
    """

    def decorate(factory: Callable[..., Any]) -> Any:
        def make(entry: CacheEntry) -> Any:
            if close is not None:
                return made_to_be_closed(entry, close, wrapper)
            value = entry.call_factory()
            if is_coroutine(value, or_shared=valid is not None):
                return shared_coroutine(value, entry, wrapper)
            entry.valid = valid
            return value

        async def call_later(*args: Any, **kwargs: Any) -> Any:
            get_running_loop()  # or, driven where none runs, this would call itself for ever
            return await wrapper(*args, **kwargs)

        if close is not None:
            check_close(close, where="singleton")
        is_coroutine_function = iscoroutinefunction(factory)
        wrapper = wrapped(
            factory,
            make,
            where="singleton",
            key=key,
            valid=valid,
            checks_values=not is_coroutine_function and not (close is None and valid is None),
            call_without_loop=call_later if is_coroutine_function else None,
        )
        if is_coroutine_function:
            call_later.__name__, call_later.__qualname__ = wrapper.__name__, wrapper.__qualname__
            mark_coroutine_function(wrapper)
        return wrapper

    return decorate if factory is _NOT_GIVEN else decorate(factory)
