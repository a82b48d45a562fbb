"""The result of a function, once per loop and key."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ._cpython import mark_coroutine_function
from ._shared_coroutine import SharedCoroutine, is_coroutine
from ._wrapped_factory import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._loop_cache import CacheEntry
    from ._typing import Key

P = ParamSpec("P")
T = TypeVar("T")

_NOT_GIVEN: Any = object()


@overload
def singleton(factory: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def singleton(factory: Callable[P, T], /, *, key: Key | None) -> Callable[P, T]: ...
@overload
def singleton(*, key: Key | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def singleton(factory: Any = _NOT_GIVEN, /, *, key: Any = None) -> Any:
    """Return a function that calls ``factory`` once per event loop and key, and returns its result from then on.

    The result lives until its loop ends, and is then let go; nothing closes it. Equal arguments are one key, however they
    are written; dicts, lists, sets and objects that compare by value count by what they hold at the time of the call.
    ``key`` says otherwise: it is called with the call's arguments, and what it returns is the key.

    The factory runs in the first caller's task; an error of it is raised and not remembered. On another loop it runs
    anew. The function has the factory's name, documentation and signature, and binds as a method where a function would.

    Of a coroutine function, the result is one coroutine that may be awaited any number of times, by any number of tasks, and
    given to whatever takes a coroutine. The function runs once, when that is first awaited, in a task of its own with a
    copy of the first awaiter's context. An awaiter that is cancelled is cancelled alone; the last one cancels the run, and the
    next starts it anew. A failure is raised to all who wait, and not remembered. Never awaited, it does not warn. Where no
    loop runs, a call gives a plain coroutine, which is of no loop yet: awaited, it gives what a call on that loop gives.

    :raises TypeError: if ``factory`` or ``key`` cannot be called. By the function: if an argument can be no part of a key.
    :raises RuntimeError: by the function: if no event loop is running, unless it is a coroutine function. By awaiting: if the
        run would wait for itself.
    """

    def decorate(factory: Callable[..., Any]) -> Any:
        def make(entry: CacheEntry) -> Any:
            value = factory(*entry.args, **entry.kwargs)
            if not is_coroutine(value):
                return value
            function = partial(factory, *entry.args, **entry.kwargs)
            return SharedCoroutine(value, function, partial(wrapper, *entry.args, **entry.kwargs), entry.invalidate)

        async def call_later(*args: Any, **kwargs: Any) -> Any:
            return await wrapper(*args, **kwargs)

        if not iscoroutinefunction(factory):
            wrapper = wrapped(factory, make, key, where="singleton")
        else:
            wrapper = wrapped(factory, make, key, where="singleton", call_without_loop=call_later)
            call_later.__name__, call_later.__qualname__ = wrapper.__name__, wrapper.__qualname__
            mark_coroutine_function(wrapper)
        return wrapper

    return decorate if factory is _NOT_GIVEN else decorate(factory)
