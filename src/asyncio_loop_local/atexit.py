"""The standard library's `atexit`, for an event loop: callbacks that run when the running loop ends."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ._keys import CallKeys
from ._loop_bound import OPEN, OPENED, LoopBound
from ._loop_state import attached_state, loop_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._exit_order import ExitOrder

__all__ = ["register", "unregister"]

P = ParamSpec("P")
T = TypeVar("T")


class _Callback(LoopBound):
    """A function to be called when its loop ends, in a task of its own and in a copy of the context that registered it."""

    __slots__ = ("_args", "_kwargs", "function")

    def __init__(self, exits: ExitOrder, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(exits)
        self.function = function
        self._args = args
        self._kwargs = kwargs
        self.happens(OPENED)
        exits.push(self)

    @property
    def name(self) -> str:
        return f"atexit callback {CallKeys(self.function).describe(self._args, self._kwargs)}"

    def on_exit(self, cause: BaseException | None) -> Awaitable[object] | None:
        result = self.function(*self._args, **self._kwargs)
        return result if inspect.isawaitable(result) else None


def register(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
    """Register a function, sync or async, to be called with these arguments when the running loop ends.

    Callbacks and the exits of resources run one after the other, newest first, when all the user's tasks have ended; async
    generators, executor and loop still work then. It is called once, on this loop. What it returns is awaited if it can be.
    An error of it goes to the loop's exception handler, or is raised by `aclose`, and keeps nothing else from running.

    :returns: ``function``, so that this can be used as a decorator.
    :raises RuntimeError: if no event loop is running.
    :raises TypeError: if ``function`` cannot be called, or is an async generator function.
    """
    given: object = function
    if not callable(given):
        advice = "pass the function, and its arguments after it" if inspect.isawaitable(given) else "pass a function"
        if inspect.iscoroutine(given):
            given.close()  # or it would warn that it was never awaited
        raise TypeError(f"argument 'function' of atexit.register() must be callable, not {type(given).__qualname__}: {advice}")
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            "argument 'function' of atexit.register() must not be an async generator function, of which a call runs nothing: "
            "pass a function without yield, sync or async"
        )
    _Callback(loop_state().exits, function, args, kwargs)
    return function


def unregister(function: Callable[..., object], /) -> None:
    """Take back every registration of ``function`` on the running loop, by ``==``; nothing happens if there is none.

    A callback that is already running goes on.

    :raises RuntimeError: if no event loop is running.
    """
    state = attached_state()
    if state is not None:
        for bound in list(state.exits):
            if isinstance(bound, _Callback) and bound.state is OPEN and bound.function == function:
                bound.end(None, None)
