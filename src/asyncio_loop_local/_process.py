"""What one process knows of its loops: those that are attached, for the interpreter's exit and for a fork."""

from __future__ import annotations

import atexit
import os
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import ParamSpec, Protocol, TypeVar
from weakref import ref

P = ParamSpec("P")
T = TypeVar("T")


class Attached(Protocol):
    """What the library holds for one loop, as far as the process is concerned."""

    def interpreter_exits(self) -> None:
        """Ends what its loop still holds."""
        ...

    def process_forked(self) -> None:
        """Leaves what its loop holds to the parent process."""
        ...


_attached: dict[int, ref[Attached]] = {}
when_dropped: list[Callable[[AbstractEventLoop, str], object]] = []  # told which loop was dropped unclosed, and what it held
_left_to_parent: list[Attached] = []  # kept, so that nothing of the parent's is finalized in the child


def attached(state: Attached) -> None:
    """From now on it is told of the interpreter's exit and of a fork."""
    _attached[id(state)] = ref(state)


def detached(state: Attached) -> None:
    """It need not be told any more, or is no more."""
    _attached.pop(id(state), None)


class LateExecutor(ThreadPoolExecutor):
    """Runs each call in a thread of its own: the pools of `concurrent.futures` are shut before the interpreter's exit."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs the call now."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        if future.set_running_or_notify_cancel():
            try:
                threading.Thread(target=run, name="asyncio_loop_local at exit", daemon=True).start()
            except RuntimeError:  # Python 3.12 starts none by then
                run()
        return future


def _all_attached() -> list[Attached]:
    return [state for reference in list(_attached.values()) if (state := reference()) is not None]


def _at_interpreter_exit() -> None:
    with ExitStack() as states:  # where one raises, as its warning may, the others are ended all the same
        for state in _all_attached():
            states.callback(state.interpreter_exits)


def _after_fork_in_child() -> None:
    for state in _all_attached():
        state.process_forked()
        _left_to_parent.append(state)
    _attached.clear()


atexit.register(_at_interpreter_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
