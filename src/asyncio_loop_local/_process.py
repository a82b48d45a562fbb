"""The attached loops of this process, which the interpreter's exit ends, and which a forked child leaves to its parent."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from typing import Any, ParamSpec, Protocol, TypeVar
from weakref import ref

P = ParamSpec("P")
T = TypeVar("T")


class Attached(Protocol):
    """What the library holds for one loop, as far as the process is concerned."""

    def interpreter_exits(self) -> None:
        """End what its loop still holds."""
        ...

    def process_forked(self) -> None:
        """Leave what its loop holds to the parent process."""
        ...


_attached: dict[int, ref[Attached]] = {}
when_dropped: list[Callable[[AbstractEventLoop, str], object]] = []  # called with a loop dropped unclosed, and what it held
_no_loop_yet: list[bool] = [True]  # a flag: empty from this process's first loop on
_of_parent: list[Attached] = []  # kept, so that nothing of the parent's is finalized in the child


def attached(state: Attached) -> None:
    """Notify this state of the interpreter's exit and of a fork."""
    _attached[id(state)] = ref(state)
    if _no_loop_yet:
        _no_loop_yet.clear()
        _register_in_child()


def detached(state: Attached) -> None:
    """Stop notifying this state: it was detached or collected."""
    _attached.pop(id(state), None)


class LateExecutor(ThreadPoolExecutor):
    """Runs each call in a thread of its own, since the interpreter's exit shuts the pools of `concurrent.futures` first."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call now."""
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


def all_attached() -> list[Attached]:
    """The states of all attached loops of this process."""
    return [state for reference in list(_attached.values()) if (state := reference()) is not None]


def _at_interpreter_exit() -> None:
    while states := all_attached():  # and those that other threads attach meanwhile
        with ExitStack() as exits:  # if one raises, as its warning may, the others are ended all the same
            for state in states:
                exits.callback(state.interpreter_exits)


def _register_in_child() -> None:
    """Register the exit anew, if this is a child process of `multiprocessing`.

    Such a child forgets what its parent has registered with `atexit`. Before Python 3.13 it leaves by `os._exit`, and calls only
    the finalizers of `multiprocessing`.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        atexit.register(_at_interpreter_exit)
        util: Any = import_module("multiprocessing.util")
        util.Finalize(None, _at_interpreter_exit, exitpriority=-100)


def _after_fork_in_child() -> None:
    for state in all_attached():
        state.process_forked()
        _of_parent.append(state)
    _attached.clear()
    _no_loop_yet.append(True)


atexit.register(_at_interpreter_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
