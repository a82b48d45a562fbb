"""The loops on which the suite runs its cases: asyncio's and uvloop's, in debug mode, and with eager tasks."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import pytest
import uvloop

T = TypeVar("T")

# A shell's background job has SIGINT ignored, as have its child processes, and many tests are of Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Run(Protocol):
    """Runs a coroutine on a loop of its own, to that loop's end."""

    def __call__(self, main: Coroutine[Any, Any, T], /) -> T: ...


def run_on_asyncio(main: Coroutine[Any, Any, T], /) -> T:
    return asyncio.run(main)


def run_on_uvloop(main: Coroutine[Any, Any, T], /) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def run_in_debug_mode(main: Coroutine[Any, Any, T], /) -> T:
    return asyncio.run(main, debug=True)


def _new_eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def run_with_eager_tasks(main: Coroutine[Any, Any, T], /) -> T:
    with asyncio.Runner(loop_factory=_new_eager_loop) as runner:
        return runner.run(main)


RUNS: dict[str, Run] = {"asyncio": run_on_asyncio, "uvloop": run_on_uvloop, "debug": run_in_debug_mode}
if sys.version_info >= (3, 12):
    RUNS["eager"] = run_with_eager_tasks


@pytest.fixture(params=list(RUNS))
def run(request: pytest.FixtureRequest) -> Run:
    """Each way to run a loop, one after the other."""
    return RUNS[request.param]


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=list(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes a loop that the test drives, and closes, by hand."""
    return LOOPS[request.param]
