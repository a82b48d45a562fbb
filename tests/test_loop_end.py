"""When a loop ends: by which doors, in which order, and what still works by then."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import subprocess
import sys
import textwrap
import unittest
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, Self

import anyio
import anyio.abc
import pytest
import uvloop

from asyncio_loop_local import aclose, atexit, enter, enter_once, sticky_acm, sticky_singleton_acm, storage
from conftest import LOOPS, Run

NewLoop = Callable[[], asyncio.AbstractEventLoop]


class Noted:
    """Notes when it is entered and exited, and knows whether it is open."""

    def __init__(self, log: list[str], name: str = "resource") -> None:
        self.log = log
        self.name = name
        self.is_open = False

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        self.log.append(f"enter {self.name}")
        self.is_open = True
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await asyncio.sleep(0)
        self.log.append(f"exit {self.name}")
        self.is_open = False


def keep(task: asyncio.Task[Any]) -> None:
    """Keeps a task alive until its loop is closed."""
    storage().setdefault("tasks", []).append(task)


async def leave_a_task_behind(log: list[str]) -> None:
    """Enters a resource and leaves a task running, which notes at its end whether the resource is open."""
    resource = await enter(Noted(log))
    started = asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append(f"task ends, resource is {'open' if resource.is_open else 'closed'}")

    keep(asyncio.create_task(work()))
    await started.wait()


WHOLE_LIFE = ["enter resource", "task ends, resource is open", "exit resource"]


# The doors


def test_it_ends_with_each_way_to_run_a_loop(run: Run) -> None:
    """At the end of `asyncio.run` and its like, tasks end first, with their resources open, and then the resources do."""
    log: list[str] = []
    run(leave_a_task_behind(log))
    assert log == WHOLE_LIFE


def test_each_run_has_its_own(run: Run) -> None:
    """A second loop gets a resource of its own from the same factory, and closes it at its own end."""
    log: list[str] = []
    make = sticky_singleton_acm(functools.partial(Noted, log))

    async def main() -> None:
        async with make():
            log.append("used")

    run(main())
    run(main())
    assert log == ["enter resource", "used", "exit resource"] * 2


def test_uvloop_run() -> None:
    """`uvloop.run` ends it."""
    log: list[str] = []
    uvloop.run(leave_a_task_behind(log))
    assert log == WHOLE_LIFE


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_anyio_run(use_uvloop: bool) -> None:
    """`anyio.run` ends it, on asyncio's loop and on uvloop's."""
    log: list[str] = []
    anyio.run(leave_a_task_behind, log, backend="asyncio", backend_options={"use_uvloop": use_uvloop})
    assert log == WHOLE_LIFE


def test_it_ends_when_main_raises(run: Run) -> None:
    """An error of the main coroutine changes nothing about the end, and comes out as it is."""
    log: list[str] = []

    async def main() -> None:
        await leave_a_task_behind(log)
        raise LookupError("of main")

    with pytest.raises(LookupError, match=r"^of main$"):
        run(main())
    assert log == WHOLE_LIFE


def test_runner_with_several_runs(new_loop: NewLoop) -> None:
    """With an `asyncio.Runner` a resource stays open from one run to the next, and is closed with the runner."""
    log: list[str] = []
    make = sticky_singleton_acm(functools.partial(Noted, log))

    async def use() -> Noted:
        async with make() as resource:
            assert resource.is_open
            return resource

    with asyncio.Runner(loop_factory=new_loop) as runner:
        first = runner.run(use())
        log.append("between")
        assert runner.run(use()) is first
        assert first.is_open
    assert log == ["enter resource", "between", "exit resource"]


def test_isolated_asyncio_test_case() -> None:
    """In an `IsolatedAsyncioTestCase` each test has its own, which outlives the tear-down and the cleanups."""
    log: list[str] = []
    make = sticky_singleton_acm(functools.partial(Noted, log))

    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            async with make():
                self.addAsyncCleanup(self.note, "cleanup")

        async def asyncTearDown(self) -> None:
            await self.note("tear down")

        async def note(self, what: str) -> None:
            async with make() as resource:
                assert resource.is_open
                log.append(what)

        async def test_one(self) -> None:
            await self.note("one")

        async def test_two(self) -> None:
            await self.note("two")

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.wasSuccessful(), result
    assert log == [
        *("enter resource", "one", "tear down", "cleanup", "exit resource"),
        *("enter resource", "two", "tear down", "cleanup", "exit resource"),
    ]


@pytest.mark.parametrize(("scope", "loops"), [("function", 4), ("class", 2), ("module", 2), ("package", 1), ("session", 1)])
def test_pytest_asyncio(scope: str, loops: int, tmp_path: Path) -> None:
    """Under pytest-asyncio each loop, of whatever scope, has its own, used by its tests and fixtures and then closed."""
    package = tmp_path / "inner"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shared.py").write_text(
        textwrap.dedent("""
            from contextlib import asynccontextmanager
            from pathlib import Path
            from asyncio_loop_local import sticky_singleton_acm

            def note(what):
                with Path("log").open("a") as file:
                    file.write(what + "\\n")

            @sticky_singleton_acm
            @asynccontextmanager
            async def make():
                note("enter")
                yield note
                note("exit")
        """)
    )
    for module in ("test_a", "test_b"):
        (package / f"{module}.py").write_text(
            textwrap.dedent(f"""
                import pytest, pytest_asyncio
                from .shared import make

                @pytest_asyncio.fixture(loop_scope="{scope}")
                async def made():
                    async with make() as note:
                        yield note
                        note("tear down")

                @pytest.mark.asyncio(loop_scope="{scope}")
                class TestIt:
                    async def test_one(self, made):
                        made("test")

                    async def test_two(self, made):
                        made("test")
            """)
        )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-o",
        "asyncio_mode=strict",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        "inner",
    ]
    inner = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTEST_ADDOPTS": ""}
    )
    assert inner.returncode == 0, inner.stdout + inner.stderr
    each_loop = ["enter", *["test", "tear down"] * (4 // loops), "exit"]
    assert (tmp_path / "log").read_text().split("\n")[:-1] == each_loop * loops


def test_close_by_hand(new_loop: NewLoop) -> None:
    """`loop.close()` alone ends it: pending tasks are cancelled with their resources open, and then those are closed."""
    log: list[str] = []
    loop = new_loop()
    loop.run_until_complete(leave_a_task_behind(log))
    assert log == WHOLE_LIFE[:1]
    loop.close()
    assert log == WHOLE_LIFE
    assert loop.is_closed()


def test_close_after_several_run_until_complete(new_loop: NewLoop) -> None:
    """A loop that is driven by hand keeps its resource open from one `run_until_complete` to the next."""
    log: list[str] = []
    make = sticky_singleton_acm(functools.partial(Noted, log))

    async def use(what: str) -> None:
        async with make() as resource:
            log.append(f"{what}: {resource.is_open}")

    loop = new_loop()
    for what in ("one", "two", "three"):
        loop.run_until_complete(use(what))
    loop.close()
    assert log == ["enter resource", "one: True", "two: True", "three: True", "exit resource"]


def test_close_twice(new_loop: NewLoop) -> None:
    """A loop can be closed again, as ever, and nothing is exited again."""
    log: list[str] = []
    loop = new_loop()
    loop.run_until_complete(leave_a_task_behind(log))
    loop.close()
    loop.close()
    assert log == WHOLE_LIFE
    assert loop.is_closed()


def test_every_door_one_after_the_other(new_loop: NewLoop) -> None:
    """However many of its doors a loop goes through, each exit runs exactly once."""
    log: list[str] = []
    loop = new_loop()
    loop.run_until_complete(leave_a_task_behind(log))
    task = loop.run_until_complete(cancel_kept())
    assert task.cancelled()
    loop.run_until_complete(aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    loop.close()
    assert log == WHOLE_LIFE


async def cancel_kept() -> asyncio.Task[Any]:
    (task,) = storage()["tasks"]
    task.cancel()
    await asyncio.wait([task])
    return task  # type: ignore[no-any-return]  # what is in storage has no type


def test_close_while_running_is_refused_as_ever(new_loop: NewLoop) -> None:
    """Closing a loop that runs raises as it does without the library, and ends nothing before its time."""
    log: list[str] = []

    async def main() -> None:
        resource = await enter(Noted(log))
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            asyncio.get_running_loop().close()
        await asyncio.sleep(0)
        assert resource.is_open

    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    assert log == ["enter resource", "exit resource"]


@pytest.mark.parametrize("inner_kind", list(LOOPS))
def test_close_while_another_loop_is_running(run: Run, inner_kind: str) -> None:
    """A loop can be closed where another one is running: its exits run on it, and the other goes on as if nothing had been."""
    log: list[str] = []
    inner = LOOPS[inner_kind]()
    running: list[asyncio.AbstractEventLoop] = []
    inner.run_until_complete(leave_a_task_behind(log))

    async def note_loop() -> None:
        atexit.register(lambda: running.append(asyncio.get_running_loop()))

    inner.run_until_complete(note_loop())

    async def outer() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        of_outer = await enter(Noted(log, "of outer"))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            inner.close()
            assert log == ["enter resource", "enter of outer", *WHOLE_LIFE[1:]]
            assert running == [inner]
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            assert asyncio.all_tasks() == {task}
            child = group.create_task(asyncio.sleep(0, "child"))
        assert child.result() == "child"
        assert await asyncio.to_thread(lambda: "thread") == "thread"
        assert of_outer.is_open

    run(outer())
    assert log[-1] == "exit of outer"


@pytest.mark.parametrize("inner_kind", list(LOOPS))
def test_close_in_a_callback_of_another_loop(new_loop: NewLoop, inner_kind: str) -> None:
    """A loop can be closed in a callback of another one, where no task is running."""
    log: list[str] = []
    inner = LOOPS[inner_kind]()
    inner.run_until_complete(leave_a_task_behind(log))
    outer = new_loop()
    closed = outer.create_future()

    def close() -> None:
        try:
            inner.close()
            assert asyncio.current_task() is None
            assert asyncio.get_running_loop() is outer
        except BaseException as error:
            closed.set_exception(error)
        else:
            closed.set_result(None)

    outer.call_soon(close)
    outer.run_until_complete(closed)
    outer.close()
    assert log == WHOLE_LIFE


def test_close_of_a_loop_that_ran_in_another_thread(new_loop: NewLoop) -> None:
    """A loop that ran in another thread can be closed in this one."""
    log: list[str] = []
    loop = new_loop()

    async def main() -> None:
        await asyncio.to_thread(loop.run_until_complete, leave_a_task_behind(log))
        loop.close()

    asyncio.run(main())
    assert log == WHOLE_LIFE


def test_close_though_something_calls_stop(new_loop: NewLoop) -> None:
    """An exit that calls `loop.stop()` does not keep the others from running."""
    log: list[str] = []

    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        log.append("stopped")

    async def main() -> None:
        await enter(Noted(log))
        atexit.register(stop)

    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    assert log == ["enter resource", "stopped", "exit resource"]


def test_what_others_set_on_the_loop_stays(new_loop: NewLoop) -> None:
    """A `close` that somebody else has set on the loop, before or after, is called as ever."""
    log: list[str] = []
    loop = new_loop()
    original = loop.close

    def before() -> None:
        log.append("set before")
        original()

    loop.close = before  # type: ignore[method-assign]  # as other libraries do
    loop.run_until_complete(leave_a_task_behind(log))
    ours = loop.close

    def after() -> None:
        log.append("set after")
        ours()

    loop.close = after  # type: ignore[method-assign]  # as other libraries do
    loop.close()
    assert log == ["enter resource", "set after", *WHOLE_LIFE[1:], "set before"]
    assert loop.is_closed()


def test_a_closed_loop_has_what_it_had_before(new_loop: NewLoop) -> None:
    """Nothing of the library's is left on it, and what others had set is there again."""

    def mine() -> None:
        """There is no task factory."""

    loop = new_loop()
    loop.get_task_factory = mine  # type: ignore[method-assign]  # as other libraries do
    loop.run_until_complete(enter_once(Noted([])))
    assert {"close", "create_task", "_asyncio_loop_local"} <= vars(loop).keys()
    loop.close()
    assert {name: value for name, value in vars(loop).items() if name in dir(asyncio.AbstractEventLoop)} == {
        "get_task_factory": mine
    }
    assert not [name for name in vars(loop) if "loop_local" in name]


def test_a_loop_whose_class_has_callable_objects_for_methods() -> None:
    """They are called as ever, and found again on the closed loop."""
    log: list[str] = []

    class Shut:
        def __call__(self) -> Coroutine[Any, Any, None]:
            log.append("shutdown_asyncgens")
            return asyncio.sleep(0)

    class Loop(asyncio.SelectorEventLoop):
        shutdown_asyncgens: Any = Shut()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(leave_a_task_behind(log))
        loop = runner.get_loop()
    assert log == [*WHOLE_LIFE, "shutdown_asyncgens"]
    assert not [name for name in vars(loop) if name in dir(asyncio.AbstractEventLoop)]


# 1. Every task of the user's ends first


def test_finally_of_a_task_can_use_what_has_tasks_of_its_own(run: Run) -> None:
    """What a task gives to a resource in its `finally`, at the end of the loop, is still worked on by the resource's own task."""
    written: list[str] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def writer() -> AsyncGenerator[asyncio.Queue[str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def write() -> None:
            while True:
                line = await queue.get()
                await asyncio.sleep(0)
                written.append(line)
                queue.task_done()

        task = asyncio.create_task(write())
        yield queue
        await queue.join()
        task.cancel()

    async def work() -> None:
        async with writer() as queue:
            try:
                await asyncio.Event().wait()
            finally:
                await queue.put("last")
                await queue.join()
                written.append("written")

    async def main() -> None:
        async with writer() as queue:
            await queue.put("first")
        keep(asyncio.create_task(work()))
        await asyncio.sleep(0)

    run(main())
    assert written == ["first", "last", "written"]


Spawn = Callable[[Coroutine[Any, Any, None]], Awaitable[object]]


def spawn_by_create_task(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    return asyncio.create_task(coroutine)


def spawn_by_loop(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    return asyncio.get_running_loop().create_task(coroutine, name="named")


def spawn_by_ensure_future(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    return asyncio.ensure_future(coroutine)


def spawn_by_gather(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    return asyncio.gather(coroutine)


def spawn_by_wait_for(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    return asyncio.create_task(asyncio.wait_for(coroutine, 1000))


def spawn_in_a_callback(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    ended = asyncio.get_running_loop().create_future()

    def start() -> None:
        storage()["started"] = task = asyncio.create_task(coroutine)
        task.add_done_callback(lambda _task: None if ended.done() else ended.set_result(None))

    asyncio.get_running_loop().call_soon(start)
    return ended


@pytest.mark.parametrize(
    "spawn",
    [spawn_by_create_task, spawn_by_loop, spawn_by_ensure_future, spawn_by_gather, spawn_by_wait_for, spawn_in_a_callback],
)
def test_tasks_of_a_resource_outlive_those_of_the_user(run: Run, spawn: Spawn) -> None:
    """However a resource starts a task, no runner finds it in `asyncio.all_tasks` and cancels it before its time."""
    log: list[str] = []

    @asynccontextmanager
    async def resource() -> AsyncGenerator[asyncio.Event]:
        stop, stopped = asyncio.Event(), asyncio.Event()

        async def own() -> None:
            await asyncio.sleep(0)
            assert asyncio.current_task() is not None
            assert asyncio.current_task() not in asyncio.all_tasks()
            try:
                await stop.wait()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise
            log.append("told to stop")
            stopped.set()

        waiter = spawn(own())
        yield stopped
        stop.set()
        await waiter

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("user's task ends")

    async def main() -> None:
        await enter(resource())
        task = asyncio.create_task(work())
        keep(task)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {task, asyncio.current_task()}

    run(main())
    assert log == ["user's task ends", "told to stop"]


def test_tasks_of_task_groups_outlive_those_of_the_user(run: Run) -> None:
    """The tasks of asyncio's and anyio's task groups inside a resource work until that resource ends, and so do theirs."""
    log: list[str] = []

    async def serve(name: str, calls: asyncio.Queue[asyncio.Future[str]]) -> None:
        async def answer(call: asyncio.Future[str]) -> None:
            await asyncio.sleep(0)
            call.set_result(name)

        while True:
            call = await calls.get()
            await asyncio.create_task(answer(call))

    @asynccontextmanager
    async def of_asyncio() -> AsyncGenerator[asyncio.Queue[asyncio.Future[str]]]:
        calls: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(serve("asyncio", calls))
            yield calls
            log.append("exit asyncio")
            task.cancel()

    @asynccontextmanager
    async def of_anyio() -> AsyncGenerator[asyncio.Queue[asyncio.Future[str]]]:
        calls: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()
        async with anyio.create_task_group() as group:
            group.start_soon(serve, "anyio", calls)
            yield calls
            log.append("exit anyio")
            group.cancel_scope.cancel()

    async def ask(calls: asyncio.Queue[asyncio.Future[str]]) -> str:
        call = asyncio.get_running_loop().create_future()
        await calls.put(call)
        return await call  # type: ignore[no-any-return]  # create_future() has no type

    async def work() -> None:
        servers = [await enter(of_asyncio()), await enter(of_anyio())]
        try:
            await asyncio.Event().wait()
        finally:
            async with asyncio.timeout(10):  # where a server is no longer there, nobody answers
                log.extend([await ask(server) for server in servers])

    async def main() -> None:
        keep(asyncio.create_task(work()))
        for _ in range(20):
            await asyncio.sleep(0)

    run(main())
    assert log == ["asyncio", "anyio", "exit anyio", "exit asyncio"]


class OwnTask(asyncio.Task[Any]):
    """What a user's task factory makes."""


def own_factory(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **kwargs: Any
) -> OwnTask:
    assert isinstance(coroutine, Coroutine)
    return OwnTask(coroutine, loop=loop, **kwargs)


def set_own_factory(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_task_factory(own_factory)


def set_eager_factory(loop: asyncio.AbstractEventLoop) -> None:
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    else:
        pytest.skip("there are eager tasks since Python 3.12")


@pytest.mark.parametrize("set_factory", [set_own_factory, set_eager_factory])
@pytest.mark.parametrize("early", [True, False])
def test_task_factory_of_the_user(
    new_loop: NewLoop, set_factory: Callable[[asyncio.AbstractEventLoop], None], early: bool
) -> None:
    """With a task factory of theirs, the user's tasks are visible and cancelled as ever, and those of resources are not."""
    log: list[str] = []
    kinds: list[type[object]] = []
    if set_factory is set_eager_factory and new_loop is uvloop.new_event_loop and sys.version_info[:2] == (3, 13):
        pytest.skip("uvloop passes eager_start to a factory that takes none before Python 3.13.3")

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        stop = asyncio.Event()

        async def own() -> None:
            kinds.append(type(asyncio.current_task()))
            await asyncio.sleep(0)
            assert asyncio.current_task() not in asyncio.all_tasks()
            await stop.wait()
            log.append("resource's task ends")

        task = asyncio.create_task(own())
        yield
        stop.set()
        await task

    async def work(number: int) -> None:
        kinds.append(type(asyncio.current_task()))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append(f"user's task {number} cancelled")
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if not early:
            await enter(resource())
            set_factory(loop)
        one = asyncio.create_task(work(1))
        if early:
            await enter(resource())
        two = asyncio.create_task(work(2))
        keep(one)
        keep(two)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {one, two, asyncio.current_task()}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        if early:
            set_factory(runner.get_loop())
        runner.run(main())
    assert sorted(log[:2]) == ["user's task 1 cancelled", "user's task 2 cancelled"]
    assert log[2:] == ["resource's task ends"]
    if set_factory is set_own_factory:
        assert kinds.count(OwnTask) == (3 if early else 2)


def test_a_task_of_the_users_stays_the_users_inside_the_block(run: Run) -> None:
    """A task started inside `async with make()` is the user's own: visible, and cancelled when the loop ends."""
    log: list[str] = []
    make = sticky_singleton_acm(functools.partial(Noted, log))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task ends")

    async def main() -> None:
        async with make():
            task = asyncio.create_task(work())
            keep(task)
            await asyncio.sleep(0)
            assert task in asyncio.all_tasks()

    run(main())
    assert log == ["enter resource", "task ends", "exit resource"]


def test_close_waits_for_tasks_started_by_tasks_that_end(new_loop: NewLoop) -> None:
    """What tasks start while they are being cancelled by `close` ends before the resources do, too."""
    log: list[str] = []

    async def farewell(resource: Noted) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        log.append(f"farewell, resource is {'open' if resource.is_open else 'closed'}")

    async def main() -> None:
        resource = await enter(Noted(log))

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                keep(asyncio.create_task(farewell(resource)))

        keep(asyncio.create_task(work()))
        await asyncio.sleep(0)

    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    assert [line for line in log if "closed" in line] == []
    assert log[0] == "enter resource"
    assert log[-1] == "exit resource"


# 2. Newest first, and a resource outlives what acquired it


def test_newest_first(run: Run) -> None:
    """Resources and callbacks end in one order, newest first."""
    log: list[str] = []

    async def main() -> None:
        await enter(Noted(log, "1"))
        atexit.register(log.append, "callback 2")
        await enter_once(Noted(log, "3"))
        async with sticky_acm(Noted(log, "4")):
            pass
        atexit.register(log.append, "callback 5")
        log.clear()

    run(main())
    assert log == ["callback 5", "exit 4", "exit 3", "callback 2", "exit 1"]


def test_newest_is_what_was_entered_last(run: Run) -> None:
    """Of resources entered side by side, the one that was open last is the newest."""
    log: list[str] = []

    async def main() -> None:
        opened = asyncio.Event()

        @asynccontextmanager
        async def slow() -> AsyncGenerator[None]:
            await opened.wait()
            yield
            log.append("exit slow")

        @asynccontextmanager
        async def quick() -> AsyncGenerator[None]:
            yield
            log.append("exit quick")

        async with asyncio.TaskGroup() as group:
            group.create_task(enter(slow()))
            await asyncio.sleep(0)
            await group.create_task(enter(quick()))
            opened.set()

    run(main())
    assert log == ["exit slow", "exit quick"]


class User(Noted):
    """Acquires another one in its enter, and uses it in its exit."""

    def __init__(self, log: list[str], name: str, acquire: Callable[[], Awaitable[Noted]]) -> None:
        super().__init__(log, name)
        self.acquire = acquire

    async def __aenter__(self) -> Self:
        self.used = await self.acquire()
        return await super().__aenter__()

    async def __aexit__(self, *_exc: object) -> None:
        assert self.used.is_open
        await super().__aexit__()
        assert self.used.is_open


def acquire_by_enter(log: list[str]) -> Callable[[], Awaitable[Noted]]:
    return lambda: enter(Noted(log, "used"))


def acquire_by_enter_once(log: list[str]) -> Callable[[], Awaitable[Noted]]:
    used = Noted(log, "used")
    return lambda: enter_once(used)


def acquire_by_sticky_acm(log: list[str]) -> Callable[[], Awaitable[Noted]]:
    return sticky_acm(Noted(log, "used")).__aenter__


def acquire_by_factory(log: list[str]) -> Callable[[], Awaitable[Noted]]:
    make = sticky_singleton_acm(functools.partial(Noted, log, "used"))
    return lambda: make().__aenter__()


ACQUIRE = [acquire_by_enter, acquire_by_enter_once, acquire_by_sticky_acm, acquire_by_factory]


@pytest.mark.parametrize("how", ACQUIRE)
def test_outlives_what_acquired_it_in_its_enter(run: Run, how: Callable[[list[str]], Callable[[], Awaitable[Noted]]]) -> None:
    """What a resource acquires in its `__aenter__`, by whatever door, is open until after its `__aexit__`."""
    log: list[str] = []

    async def main() -> None:
        await enter(User(log, "user", how(log)))

    run(main())
    assert log == ["enter used", "enter user", "exit user", "exit used"]


@pytest.mark.parametrize("how", ACQUIRE[1:])
@pytest.mark.parametrize("where", ["task", "callback", "thread"])
def test_outlives_what_acquired_it_later(
    run: Run, how: Callable[[list[str]], Callable[[], Awaitable[Noted]]], where: str
) -> None:
    """What a task of an older resource acquires, when it is long open, still ends after that resource."""
    log: list[str] = []
    acquire = how(log)
    ask, asked = asyncio.Event(), asyncio.Event()

    async def own() -> None:
        await acquire()
        asked.set()

    @asynccontextmanager
    async def older() -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        if where == "task":

            async def wait() -> None:
                await ask.wait()
                await own()

            task = asyncio.create_task(wait())
            yield
            await task
        elif where == "callback":

            async def poll() -> None:
                await ask.wait()
                loop.call_soon(lambda: keep(asyncio.create_task(own())))

            task = asyncio.create_task(poll())
            yield
            await task
        else:

            async def wait_for_thread() -> None:
                await ask.wait()
                future = await asyncio.to_thread(asyncio.run_coroutine_threadsafe, own(), loop)
                await asyncio.wrap_future(future)

            task = asyncio.create_task(wait_for_thread())
            yield
            await task
        log.append("exit older")

    async def main() -> None:
        await enter(older())
        used = await acquire()
        assert used.is_open
        ask.set()
        await asked.wait()

    run(main())
    assert log == ["enter used", "exit older", "exit used"]


def test_outlives_those_that_acquired_it_through_others(run: Run) -> None:
    """Of a chain of resources acquired late, and in the order that is worst, each outlives what acquired it."""
    log: list[str] = []
    count = 6
    asks = [asyncio.Event() for _ in range(count)]
    asked = asyncio.Event()
    made: list[Noted] = []

    class Link(Noted):
        def __init__(self, number: int) -> None:
            super().__init__(log, str(number))
            self.number = number

        async def __aenter__(self) -> Self:
            self.task = asyncio.create_task(self.wait())
            return await super().__aenter__()

        async def wait(self) -> None:
            await asks[self.number].wait()
            await enter_once(made[self.number + 1])
            asked.set()

        async def __aexit__(self, *_exc: object) -> None:
            self.task.cancel()
            await super().__aexit__()

    async def main() -> None:
        made.extend(Link(number) for number in range(count))
        for link in made:
            await enter_once(link)
        for number in (3, 0, 4, 1, 2):
            asks[number].set()
            await asked.wait()
            asked.clear()
        log.clear()

    run(main())
    assert log == [f"exit {number}" for number in range(count)]


class Friend(Noted):
    """Acquires, in a task of its own and when it is asked to, others that may have acquired it."""

    def __init__(self, log: list[str], name: str) -> None:
        super().__init__(log, name)
        self.asked: asyncio.Queue[tuple[Friend, asyncio.Future[None]]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.make_friends())
        return await super().__aenter__()

    async def make_friends(self) -> None:
        while True:
            friend, made = await self.asked.get()
            try:
                await enter_once(friend)
            except Exception as error:
                made.set_exception(error)
            else:
                made.set_result(None)

    async def befriend(self, friend: Friend) -> None:
        made = asyncio.get_running_loop().create_future()
        await self.asked.put((friend, made))
        await made

    async def __aexit__(self, *_exc: object) -> None:
        self.task.cancel()
        await super().__aexit__()


@pytest.mark.parametrize("first", [0, 1])
def test_two_that_use_each_other_end_newest_first(run: Run, first: int) -> None:
    """Two resources that came to use each other end newest first, whichever was the first to use the other."""
    log: list[str] = []

    async def main() -> None:
        friends = [await enter_once(Friend(log, name)) for name in ("older", "newer")]
        await friends[first].befriend(friends[1 - first])
        await friends[1 - first].befriend(friends[first])
        log.clear()

    run(main())
    assert log == ["exit newer", "exit older"]


@pytest.mark.parametrize("start", [0, 1, 2])
def test_three_in_a_circle(run: Run, start: int) -> None:
    """Of three in a circle the newest ends first; the other two keep to what one of them has acquired."""
    log: list[str] = []

    async def main() -> None:
        friends = [await enter_once(Friend(log, name)) for name in ("1", "2", "3")]
        for step in range(3):
            user = (start + step) % 3
            await friends[user].befriend(friends[(user + 1) % 3])
        log.clear()

    run(main())
    assert log == ["exit 3", "exit 1", "exit 2"]


def test_an_end_in_between_frees_what_it_used(run: Run) -> None:
    """A circle broken by an early `aclose` leaves nothing behind: what is opened afterwards ends newest first."""
    log: list[str] = []

    async def main() -> None:
        friends = [await enter_once(Friend(log, name)) for name in ("1", "2")]
        await friends[0].befriend(friends[1])
        await friends[1].befriend(friends[0])
        await aclose()
        await enter(Noted(log, "3"))
        await enter(Noted(log, "4"))
        log.clear()

    run(main())
    assert log == ["exit 4", "exit 3"]


# 3. One task and one context, its own


def test_one_task_and_one_context(run: Run) -> None:
    """A resource is entered, held and exited in one task and one context: what its enter sets, its exit can reset."""
    var: ContextVar[str] = ContextVar("var", default="default")
    seen: list[str] = []
    tasks: list[asyncio.Task[Any] | None] = []

    class Setting:
        async def __aenter__(self) -> None:
            tasks.append(asyncio.current_task())
            seen.append(var.get())
            self.token = var.set("of the resource")

        async def __aexit__(self, *_exc: object) -> None:
            tasks.append(asyncio.current_task())
            seen.append(var.get())
            var.reset(self.token)
            seen.append(var.get())

    async def main() -> None:
        var.set("of the caller")
        await enter(Setting())
        assert var.get() == "of the caller"
        var.set("changed afterwards")
        tasks.append(asyncio.current_task())

    run(main())
    assert seen == ["of the caller", "of the resource", "of the caller"]
    entered_in, callers, exited_in = tasks
    assert entered_in is exited_in
    assert entered_in is not callers


class OpaqueFuture(asyncio.Future[Any]):
    """Does not tell who waits for it."""

    _callbacks: Any = None


class LoopOfOpaqueFutures(asyncio.SelectorEventLoop):
    def create_future(self) -> asyncio.Future[Any]:
        return OpaqueFuture(loop=self)


def test_a_loop_whose_futures_do_not_tell_who_waits() -> None:
    """Exits that await nothing are run there too, each in a turn of the loop."""
    log: list[str] = []

    class Quick:
        async def __aenter__(self) -> None:
            self.task = asyncio.current_task()

        async def __aexit__(self, *_exc: object) -> None:
            log.append(f"exit {self.task is asyncio.current_task()}")

    async def main() -> None:
        for _ in range(3):
            await enter(Quick())

    with asyncio.Runner(loop_factory=LoopOfOpaqueFutures) as runner:
        runner.run(main())
    assert log == ["exit True"] * 3


def test_each_exit_has_its_own_task_whether_it_awaits_or_not(run: Run) -> None:
    """Exits that await nothing, and those that do, have their own task, context, and time limits, in their order."""
    var: ContextVar[str] = ContextVar("var")
    log: list[str] = []

    class Own:
        def __init__(self, name: str, turns: int) -> None:
            self.name, self.turns = name, turns

        async def __aenter__(self) -> None:
            self.task = asyncio.current_task()
            self.token = var.set(self.name)
            self.timeout = asyncio.timeout(60)
            await self.timeout.__aenter__()

        async def __aexit__(self, *_exc: object) -> None:
            await self.timeout.__aexit__(None, None, None)
            for _ in range(self.turns):
                await asyncio.sleep(0)
            async with asyncio.TaskGroup() as group:
                assert asyncio.current_task() is self.task
                if self.turns:
                    group.create_task(asyncio.sleep(0))
            assert var.get() == self.name
            var.reset(self.token)
            log.append(self.name)

    async def main() -> None:
        var.set("main")
        for number, turns in enumerate([0, 0, 2, 0, 1, 0, 0, 3, 0]):
            await enter(Own(str(number), turns))
        atexit.register(lambda: log.append(f"callback {asyncio.current_task() is not None} {var.get()}"))

    run(main())
    assert log == ["callback True main", *"876543210"]


def test_no_code_of_a_resource_sees_an_error_that_others_handle(run: Run) -> None:
    """Neither an enter that is asked for where an error is handled, nor an exit that follows one that has failed."""
    seen: list[BaseException | None] = []
    told: list[BaseException] = []

    class Failing:
        async def __aenter__(self) -> None:
            seen.append(sys.exception())

        async def __aexit__(self, *_exc: object) -> None:
            seen.append(sys.exception())
            raise LookupError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        for _ in range(3):
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                await enter(Failing())

    run(main())
    assert seen == [None] * 6
    assert [type(error) for error in told] == [LookupError] * 3
    assert [error.__context__ for error in told] == [None] * 3


def test_no_exit_sees_the_error_of_an_enter_that_it_had_to_wait_for(run: Run) -> None:
    """What an enter in progress has acquired is exited as soon as that has failed, and on its own."""
    seen: list[object] = []

    class Used:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *_exc: object) -> None:
            seen.append(sys.exception())

    class Slow:
        async def __aenter__(self) -> None:
            await enter(Used())
            entering.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(10):
                    await asyncio.sleep(0)
                seen.append("failed")

        async def __aexit__(self, *_exc: object) -> None:
            raise AssertionError

    entering = asyncio.Event()

    async def main() -> None:
        keep(asyncio.create_task(enter(Slow())))
        await entering.wait()

    run(main())
    assert seen == ["failed", None]


def test_context_is_that_of_the_first_caller(run: Run) -> None:
    """A shared resource has a copy of its first caller's context, in its making, enter, exit and tasks."""
    var: ContextVar[str] = ContextVar("var", default="default")
    seen: list[str] = []

    async def own() -> None:
        seen.append(f"task: {var.get()}")

    def make() -> Any:
        seen.append(f"make: {var.get()}")

        @asynccontextmanager
        async def resource() -> AsyncGenerator[None]:
            seen.append(f"enter: {var.get()}")
            await asyncio.create_task(own())
            yield
            seen.append(f"exit: {var.get()}")

        return resource()

    shared = sticky_singleton_acm(make)

    async def use(name: str) -> None:
        var.set(name)
        async with shared():
            pass

    async def main() -> None:
        for name in ("first", "second"):
            await asyncio.create_task(use(name))

    run(main())
    assert seen == ["make: first", "enter: first", "task: first", "exit: first"]


def test_callbacks_run_in_a_copy_of_their_callers_context(run: Run) -> None:
    """An `atexit` callback runs in a copy of the context that registered it."""
    var: ContextVar[str] = ContextVar("var", default="default")
    seen: list[str] = []

    async def register(name: str) -> None:
        var.set(name)
        atexit.register(lambda: seen.append(var.get()))

    async def main() -> None:
        for name in ("first", "second"):
            await asyncio.create_task(register(name))

    run(main())
    assert seen == ["second", "first"]


def test_what_insists_on_its_task_can_be_held(run: Run) -> None:
    """Timeouts, task groups and cancel scopes of asyncio and anyio can be held by resources, though tasks come and go."""
    log: list[str] = []

    @asynccontextmanager
    async def insisting() -> AsyncGenerator[anyio.abc.TaskGroup]:
        async with asyncio.timeout(1000), asyncio.TaskGroup(), anyio.create_task_group() as group:
            with anyio.CancelScope():
                yield group
            log.append("exit")

    make = sticky_singleton_acm(insisting)

    async def answer(to: asyncio.Event) -> None:
        to.set()

    async def use() -> None:
        async with make() as group:
            answered = asyncio.Event()
            group.start_soon(answer, answered)
            await answered.wait()

    async def main() -> None:
        await asyncio.create_task(use())
        await asyncio.create_task(use())

    run(main())
    assert log == ["exit"]


# 4. What tasks a resource leaves behind


def test_tasks_left_behind_are_cancelled_and_awaited(run: Run) -> None:
    """Tasks that a resource does not end itself are cancelled and awaited, before anything older ends."""
    log: list[str] = []

    class Careless(Noted):
        async def __aenter__(self) -> Self:
            self.task = asyncio.create_task(self.work())
            await asyncio.sleep(0)
            return await super().__aenter__()

        async def work(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                log.append(f"task of {self.name} ends")

    async def main() -> None:
        await enter(Careless(log, "1"))
        await enter(Careless(log, "2"))
        log.clear()

    run(main())
    assert log == ["exit 2", "task of 2 ends", "exit 1", "task of 1 ends"]


def test_tasks_left_behind_by_tasks_left_behind(run: Run) -> None:
    """Tasks that a resource's tasks start while they are being cancelled are cancelled and awaited, too."""
    log: list[str] = []

    async def last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("last task ends")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            task = asyncio.create_task(last())
            log.append("task ends")
            await asyncio.sleep(0)
            del task

    class Careless(Noted):
        async def __aenter__(self) -> Self:
            self.task = asyncio.create_task(work())
            await asyncio.sleep(0)
            return await super().__aenter__()

    async def main() -> None:
        await enter(Noted(log, "older"))
        await enter(Careless(log, "careless"))
        log.clear()

    run(main())
    assert log == ["exit careless", "task ends", "last task ends", "exit older"]


def test_tasks_left_behind_by_a_callback(run: Run) -> None:
    """A task that an `atexit` callback starts and leaves behind is cancelled and awaited like a resource's."""
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("task ends")

    async def callback() -> None:
        keep(asyncio.create_task(work()))
        await asyncio.sleep(0)
        log.append("callback ends")

    async def main() -> None:
        await enter(Noted(log))
        atexit.register(callback)
        log.clear()

    run(main())
    assert log == ["callback ends", "task ends", "exit resource"]


# 5. Async generators, executor and loop are still there


def test_code_after_a_plain_yield_runs(run: Run) -> None:
    """Code after the `yield` of an `@asynccontextmanager`, with no `try` around it, runs at the end of the loop."""
    log: list[str] = []

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        yield
        await asyncio.sleep(0)
        log.append("after the yield")

    async def main() -> None:
        await enter(resource())

    run(main())
    assert log == ["after the yield"]


async def count() -> AsyncGenerator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        await asyncio.sleep(0)


async def use_everything(numbers: AsyncGenerator[int], log: list[object]) -> None:
    """Uses all that a loop has."""
    loop = asyncio.get_running_loop()
    log.append(await asyncio.to_thread(lambda: "to_thread"))
    log.append(await loop.run_in_executor(None, lambda: "executor"))
    log.append(await anext(numbers))
    log.extend([number async for number in _three(count())])
    await asyncio.sleep(0.001)
    log.append(await asyncio.wait_for(asyncio.sleep(0, "wait_for"), 1000))
    async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, "task group"))
    log.append(task.result())
    connected = asyncio.Event()

    def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        connected.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await connected.wait()
        log.append(await reader.read())
        writer.close()
        await writer.wait_closed()


async def _three(numbers: AsyncGenerator[int]) -> AsyncGenerator[int]:
    async for number in numbers:
        if number == 3:
            await numbers.aclose()
            return
        yield number


EVERYTHING = ["to_thread", "executor", 1, 0, 1, 2, "wait_for", "task group", b""]


def test_everything_still_works_in_exits(run: Run) -> None:
    """Exits and callbacks can use threads, async generators, timers, tasks and the network."""
    log: list[object] = []
    logs: list[list[object]] = []

    async def main() -> None:
        async def exits() -> None:
            numbers = count()
            log.append(await anext(numbers))
            log.clear()
            kept.append(numbers)
            await use_everything(numbers, log)
            logs.append(log.copy())

        kept: list[AsyncGenerator[int]] = []

        @asynccontextmanager
        async def resource() -> AsyncGenerator[None]:
            numbers = count()
            await anext(numbers)
            yield
            log.clear()
            await use_everything(numbers, log)
            logs.append(log.copy())

        await enter(resource())
        atexit.register(exits)

    run(main())
    assert logs == [EVERYTHING, EVERYTHING]


def test_everything_still_works_in_exits_at_close(new_loop: NewLoop) -> None:
    """The same goes for a loop that is driven and closed by hand."""
    log: list[object] = []

    async def main() -> None:
        numbers = count()
        await anext(numbers)
        atexit.register(numbers.aclose)
        atexit.register(use_everything, numbers, log)

    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    assert log == EVERYTHING


# Something entered during the end


def test_what_is_entered_during_the_end_is_exited(run: Run) -> None:
    """What is entered by a task that is being cancelled, by an exit or by a callback, is exited before the loop is closed."""
    log: list[str] = []

    class Late(Noted):
        async def __aexit__(self, *_exc: object) -> None:
            self.used = await enter(Noted(log, "by exit"))
            await super().__aexit__()
            assert self.used.is_open

    async def callback() -> None:
        await enter(Noted(log, "by callback"))
        atexit.register(log.append, "callback by callback")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await enter(Noted(log, "by task"))

    async def main() -> None:
        await enter(Late(log, "late"))
        atexit.register(callback)
        keep(asyncio.create_task(work()))
        await asyncio.sleep(0)
        log.clear()

    run(main())
    assert log == [
        *("enter by task", "exit by task"),
        *("enter by callback", "callback by callback", "exit by callback"),
        *("enter by exit", "exit late", "exit by exit"),
    ]


def test_a_factory_called_by_an_exit_after_its_resource_has_ended(run: Run) -> None:
    """An exit that asks a factory whose resource has already ended gets a new one, which is exited too."""
    log: list[str] = []
    make = sticky_singleton_acm(functools.partial(Noted, log, "newer"))

    @asynccontextmanager
    async def older() -> AsyncGenerator[None]:
        yield
        async with make() as newer:
            assert newer.is_open
        log.append("exit older")

    async def main() -> None:
        await enter(older())
        async with make():
            pass

    run(main())
    assert log == ["enter newer", "exit newer", "enter newer", "exit older", "exit newer"]


def test_entering_in_progress_at_the_end_is_not_lost(run: Run) -> None:
    """A resource whose entering the end of the loop cancels either is exited or was never entered."""
    log: list[str] = []

    @asynccontextmanager
    async def stubborn() -> AsyncGenerator[None]:
        log.append("enter")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("went on")
        yield
        log.append("exit")

    async def main() -> None:
        keep(asyncio.create_task(enter(stubborn())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())
    assert log == ["enter", "went on", "exit"]


# What it costs


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the callbacks it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks = 0

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # passes on what it is given
        self.callbacks += 1
        return super().call_soon(*args, **kwargs)


class Plain:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_exc: object) -> None:
        pass


async def enter_many(number: int) -> None:
    """Resources that know nothing of each other."""
    for _ in range(number):
        await enter(Plain())


async def register_many(number: int) -> None:
    """Callbacks."""
    for _ in range(number):
        atexit.register(int)


class Buyer(Plain):
    """Acquires many, each when it is told so."""

    def __init__(self) -> None:
        self.wanted: asyncio.Queue[Plain] = asyncio.Queue()

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.buy())

    async def buy(self) -> None:
        while True:
            await enter_once(await self.wanted.get())
            self.wanted.task_done()


async def one_that_uses_many(number: int) -> None:
    """An older resource that has come to use all others."""
    buyer = Buyer()
    await enter(buyer)
    for _ in range(number):
        plain = Plain()
        await enter_once(plain)
        await buyer.wanted.put(plain)
    await buyer.wanted.join()


async def many_that_use_one(number: int) -> None:
    """Resources that all use one."""
    shared = Plain()

    class UsesShared(Plain):
        async def __aenter__(self) -> None:
            await enter_once(shared)

    for _ in range(number):
        await enter(UsesShared())


async def chain(number: int) -> None:
    """Resources of which each has come to use the next newer one."""
    links: list[Buyer] = []
    for _ in range(number):
        link = Buyer()
        await enter_once(link)
        links.append(link)
    for link, following in itertools.pairwise(links):
        await link.wanted.put(following)
        await link.wanted.join()


SHAPES = [enter_many, register_many, one_that_uses_many, many_that_use_one, chain]


@pytest.mark.parametrize("shape", SHAPES)
def test_exiting_n_takes_n_turns_of_the_loop(shape: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Ten times as many resources give the loop ten times as much to do at its end, however they use each other."""

    def callbacks(number: int) -> int:
        loop = CountingLoop()
        loop.run_until_complete(shape(number))
        before = loop.callbacks
        loop.close()
        return loop.callbacks - before

    assert callbacks(2000) <= 10 * callbacks(200)


def test_exits_that_await_nothing_take_no_turns_of_the_loop() -> None:
    """At the end of a loop nobody else waits for a turn: such exits follow each other within one."""

    def callbacks(number: int) -> int:
        loop = CountingLoop()
        loop.run_until_complete(enter_many(number))
        before = loop.callbacks
        loop.close()
        return loop.callbacks - before

    assert callbacks(2000) == callbacks(2)


@pytest.mark.parametrize("shape", SHAPES)
def test_exiting_n_takes_n_steps(shape: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Ten times as many resources take ten times as many steps of the interpreter at their end, and a little for sorting."""

    def steps(number: int) -> int:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(shape(number))
        taken = 0

        def trace(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal taken
            frame.f_trace_opcodes = True
            taken += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            loop.close()
        finally:
            sys.settrace(before)
        return taken

    assert steps(500) <= 12 * steps(50)
