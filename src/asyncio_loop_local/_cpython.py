"""Everything private to CPython that the library uses, and everything that differs from one version of it to the next.

Each entry gives the reason. All were checked on CPython 3.11 to 3.15, and ``tests/facts`` has a test of each fact, so that
a new version of Python says at once which one has changed.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from asyncio import tasks
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_FRAMES_NEEDED = 80

# The module under `signal`. The public functions turn every handler into an enum member, which takes longer than all the rest
# of what the end of a loop does about signals.
signal: Any = import_module("_signal")


def lru_cache(function: Callable[..., Any]) -> functools._lru_cache_wrapper[Any]:
    """Return what ``functools.lru_cache(maxsize=None, typed=True)`` makes of a function.

    The public decorator also copies the function's name and documentation, which costs as much again at each first call on a
    loop.
    """
    cache: functools._lru_cache_wrapper[Any] = _make_lru_cache(function, None, True, _cache_info)
    return cache


_make_lru_cache: Any = functools._lru_cache_wrapper
_cache_info: Any = vars(functools)["_CacheInfo"]


def hide_task(task: asyncio.Task[Any]) -> None:
    """Take a task out of `asyncio.all_tasks`, by which a runner finds the tasks to cancel before it closes the loop.

    ``_unregister_task`` is documented for task implementers. A loop that is dropped unclosed is reported by one warning of
    ours, so asyncio need not report each of its hidden tasks; `asyncio.gather` sets the same private attribute.
    """
    tasks._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # private, as the docstring says


def has_unseen_error(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task has failed and nobody has got its error. asyncio uses the same attribute to report such errors."""
    return not task.cancelled() and bool(task._log_traceback)


def wake_at_once(future: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """Set the result of a future, and let the task that waits for it take its next step before this returns.

    Public calls can only schedule that step for the loop's next turn, and a turn for each exit makes the end of a loop
    slower by half. If the waiting task cannot be found in the future, it is scheduled as usual.
    """
    waiting: list[tuple[Any, Any]] | None = getattr(future, "_callbacks", None)
    if not waiting or len(waiting) > 1:
        future.set_result(None)
        return
    [(wake, context)] = waiting
    future.remove_done_callback(wake)
    future.set_result(None)
    task = asyncio.current_task(loop)
    if task is not None:
        tasks._leave_task(loop, task)
    try:
        context.run(wake, future)
    finally:
        if task is not None:
            tasks._enter_task(loop, task)


@contextmanager
def no_running_loop() -> Generator[None]:
    """Let another loop run in a thread in which a loop is running already, which goes on afterwards."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            tasks._enter_task(outer, task)


def running_loop_or_none() -> asyncio.AbstractEventLoop | None:
    """Return the running loop, or None where `asyncio.get_running_loop` would raise. Documented for loop implementers."""
    return asyncio._get_running_loop()


def is_eager_task_factory(factory: object) -> bool:
    """Tell whether a task factory is one of those that asyncio makes: `asyncio.eager_task_factory` or one like it."""
    return sys.version_info >= (3, 12) and getattr(factory, "__code__", None) is asyncio.eager_task_factory.__code__


def task_class_of(eager_task_factory: Any) -> Any:
    """Return the class, or function, by which an eager task factory of asyncio's makes its tasks.

    anyio looks there, and then makes tasks by what it finds, past the loop.
    """
    (cell,) = eager_task_factory.__closure__
    return cell.cell_contents


def mark_coroutine_function(function: Any) -> None:
    """Let `inspect.iscoroutinefunction`, or before Python 3.12 that of asyncio, know that calls give coroutines."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # its mark before 3.12


def require_stack() -> None:
    """Raise where a recursion is so deep that entering or exiting might fail midway: some future would never wake its task.

    :raises RecursionError: before anything has begun.
    """
    try:
        sys._getframe(max(sys.getrecursionlimit() - _FRAMES_NEEDED, 0))
    except ValueError:
        return  # the stack is not as deep as that
    raise RecursionError("the stack is too deep for something to be entered or ended safely")
