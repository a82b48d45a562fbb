"""A resource that records each step of its life, and that waits, fails or dies where a test wants it to."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from asyncio_loop_local import sticky_singleton_acm, storage
from asyncio_loop_local._typing import ACM
from conftest import Run, run_on_asyncio

T = TypeVar("T")


def on_each_loop(test: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., None]:
    """Makes a coroutine function a test, which runs on each kind of loop to the end of that loop.

    A parameter ``log`` is an empty list. A test that takes it returns what it has to hold when the loop has ended.
    """
    return _test_on_a_loop(test, inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Run))


def on_one_loop(test: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., None]:
    """As `on_each_loop`, but on asyncio's loop alone: for what is the same on all of them, or takes long."""
    return _test_on_a_loop(test)


def _test_on_a_loop(test: Callable[..., Coroutine[Any, Any, object]], *fixtures: inspect.Parameter) -> Callable[..., None]:
    signature = inspect.signature(test)
    parameters = dict(signature.parameters)
    takes_log = parameters.pop("log", None) is not None

    @functools.wraps(test)
    def on_loop(run: Run = run_on_asyncio, **kwargs: Any) -> None:
        log: list[object] = []
        expected = run(test(log, **kwargs) if takes_log else test(**kwargs))
        assert not takes_log or log == expected

    on_loop.__signature__ = signature.replace(parameters=[*fixtures, *parameters.values()])  # type: ignore[attr-defined]
    return on_loop


class Recorded:
    """A context manager that gives itself. Its gates are open, unless a test closes them; it may be entered again."""

    def __init__(self, log: list[str] | None = None, name: str = "r", *, turns: int = 1) -> None:
        self.log: list[str] = [] if log is None else log
        self.name = name
        self.turns = turns  # of the loop, which each of enter and exit takes
        self.is_open = False
        self.enter_error: BaseException | None = None
        self.exit_error: BaseException | None = None
        self.entering, self.may_enter = asyncio.Event(), asyncio.Event()
        self.exiting, self.may_exit = asyncio.Event(), asyncio.Event()
        self.may_enter.set()
        self.may_exit.set()
        self.task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self.task = asyncio.current_task()
        self.entering.set()
        await self._pass("entering", self.may_enter)
        if self.enter_error is not None:
            raise self.enter_error
        self.log.append(f"entered {self.name}")
        self.is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.exiting.set()
        await self._pass("exiting", self.may_exit)
        if self.exit_error is not None:
            raise self.exit_error
        self.log.append(f"exited {self.name}")
        self.is_open = False

    async def _pass(self, step: str, gate: asyncio.Event) -> None:
        self.log.append(f"{step} {self.name}")
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            await wait_for_gate(gate)
        except asyncio.CancelledError:
            self.log.append(f"{step} {self.name} cancelled")
            raise

    def die(self) -> None:
        """Has the task that holds it cancelled, as a task group does that fails."""
        assert self.task is not None
        self.task.cancel()


def enters(*names: str) -> list[str]:
    """The record of these, entered one after the other."""
    return [f"{step} {name}" for name in names for step in ("entering", "entered")]


def exits(*names: str) -> list[str]:
    """The record of these, exited one after the other."""
    return [f"{step} {name}" for name in names for step in ("exiting", "exited")]


class Factory:
    """A sticky factory of recorded resources, which are named by their number, and all that it has made."""

    def __init__(self, log: list[str] | None = None, *, enter_waits: bool = False) -> None:
        self.log: list[str] = [] if log is None else log
        self.made: list[Recorded] = []
        self.enter_waits = enter_waits
        self.enter_error: BaseException | None = None
        self.make = sticky_singleton_acm(self._make)

    def _make(self, host: str = "h", port: int = 80) -> Recorded:
        resource = Recorded(self.log, str(len(self.made)))
        resource.enter_error = self.enter_error
        if self.enter_waits:
            resource.may_enter.clear()
        self.made.append(resource)
        return resource

    async def use(self, host: str = "h", port: int = 80) -> Recorded:
        return await use(self.make(host, port))

    async def until_entering(self, count: int = 1) -> Recorded:
        """The resource of this number, from 1, as soon as its enter has begun."""
        while len(self.made) < count:
            await asyncio.sleep(0)
        await self.made[count - 1].entering.wait()
        return self.made[count - 1]


async def wait_for_gate(gate: asyncio.Event) -> None:
    """Waits until a test opens it, but not for ever: a test that fails before it does would hang."""
    if not gate.is_set():
        async with asyncio.timeout(10):
            await gate.wait()


async def use(acm: ACM[T]) -> T:
    """Runs a block of it, and returns its value."""
    async with acm as value:
        return value


async def turns() -> None:
    """Lets everything run that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def begin(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """A task of it, which runs until it waits for something."""
    task = asyncio.ensure_future(awaitable)
    await turns()
    assert not task.done()
    return task


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancels a task, and waits until it has been cancelled."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def in_threads(*works: Callable[[], object]) -> None:
    """Does these in a thread each, side by side, to their ends; an error of one is raised."""
    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(work) for work in works]:
            done.result()


def keep(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Starts a task that nobody awaits, and keeps it alive until its loop is closed."""
    task = asyncio.create_task(coroutine)
    storage().setdefault("tasks", []).append(task)
    return task


def reports_of_this_loop() -> list[dict[str, Any]]:
    """What is given to the running loop's exception handler from now on."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    return reports
