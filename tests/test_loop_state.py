"""Attaching to a loop, and how a loop ends: by a runner, closed by hand, or dropped; and what still works by then."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
import textwrap
import unittest
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

import asyncio_loop_local
from asyncio_loop_local import aclose, atexit, enter, enter_once, singleton, sticky_singleton_acm, storage
from conftest import LOOPS, RUNS, Run
from lingering import begin_to_linger
from loop_programs import run_script, without_asyncios_own
from recording import Factory, Recorded, enters, exits, keep, on_each_loop, on_one_loop, turns

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def run_and_close(new_loop: NewLoop, main: Coroutine[Any, Any, object]) -> asyncio.AbstractEventLoop:
    """Runs it on a loop that is then closed by hand."""
    loop = new_loop()
    loop.run_until_complete(main)
    loop.close()
    assert loop.is_closed()
    return loop


async def leave_a_task_behind(log: list[str], error: Exception | None = None) -> None:
    """Enters a resource and leaves a task running, which notes at its end whether the resource is open."""
    resource = await enter(Recorded(log))

    async def note() -> None:
        await asyncio.sleep(0)
        log.append(f"task ends, resource is {'open' if resource.is_open else 'closed'}")

    storage()["tasks"] = await begin_to_linger(1, note)
    if error is not None:
        raise error


WHOLE_LIFE = [*enters("r"), "task ends, resource is open", *exits("r")]


# By a runner.


def by_anyio(**options: bool) -> Run:
    def run(main: Coroutine[Any, Any, Any], /) -> Any:
        async def call() -> Any:
            return await main

        return anyio.run(call, backend="asyncio", backend_options=options)

    return run


WAYS: dict[str, Run] = {**RUNS, "uvloop.run": uvloop.run, "anyio": by_anyio(), "anyio on uvloop": by_anyio(use_uvloop=True)}


@pytest.mark.parametrize("run", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("error", [None, LookupError("of main")])
def test_it_ends_with_each_way_to_run_a_loop(run: Run, error: Exception | None) -> None:
    """At the end of `asyncio.run` and its like, tasks end first, with their resources open, and then the resources do.

    An error of the main coroutine changes nothing about the end, and comes out as it is.
    """
    log: list[str] = []
    if error is None:
        run(leave_a_task_behind(log))
    else:
        with pytest.raises(LookupError) as caught:
            run(leave_a_task_behind(log, error))
        assert caught.value is error
    assert log == WHOLE_LIFE


def test_each_run_has_its_own(run: Run) -> None:
    """A second loop gets a resource of its own from the same factory, and closes it at its own end."""
    factory = Factory()
    assert [run(factory.use()), run(factory.use())] == factory.made
    assert factory.log == [*enters("0"), *exits("0"), *enters("1"), *exits("1")]


@pytest.mark.parametrize("by", ["runner", "hand"])
def test_a_resource_stays_open_from_one_run_of_its_loop_to_the_next(new_loop: NewLoop, by: str) -> None:
    """With an `asyncio.Runner`, and on a loop that is driven by hand, it is closed when the loop is."""
    factory = Factory()
    if by == "runner":
        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(factory.use()) is runner.run(factory.use())
            assert factory.made[0].is_open
    else:
        loop = new_loop()
        assert loop.run_until_complete(factory.use()) is loop.run_until_complete(factory.use())
        assert factory.made[0].is_open
        loop.close()
    assert factory.log == [*enters("0"), *exits("0")]


def test_isolated_asyncio_test_case() -> None:
    """In an `IsolatedAsyncioTestCase` each test has its own, which outlives the tear-down and the cleanups."""
    factory = Factory()

    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            await factory.use()
            self.addAsyncCleanup(self.note, "cleanup")

        async def asyncTearDown(self) -> None:
            await self.note("tear down")

        async def note(self, what: str) -> None:
            assert (await factory.use()).is_open
            factory.log.append(what)

        async def test_one(self) -> None:
            await self.note("one")

        async def test_two(self) -> None:
            await self.note("two")

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.wasSuccessful(), result
    assert factory.log == [
        *(*enters("0"), "one", "tear down", "cleanup", *exits("0")),
        *(*enters("1"), "two", "tear down", "cleanup", *exits("1")),
    ]


# By close().


def test_close_by_hand(new_loop: NewLoop) -> None:
    """`loop.close()` alone ends it: pending tasks are cancelled with their resources open; closing again does nothing more."""
    log: list[str] = []
    loop = new_loop()
    loop.run_until_complete(leave_a_task_behind(log))
    assert log == enters("r")
    for _ in range(2):
        loop.close()
        assert log == WHOLE_LIFE
        assert loop.is_closed()


def test_every_step_of_an_end_one_after_the_other(new_loop: NewLoop) -> None:
    """However many of the ways to end it a loop goes through, each exit runs exactly once."""
    log: list[str] = []
    loop = new_loop()
    loop.run_until_complete(leave_a_task_behind(log))

    async def cancel_the_task() -> None:
        (task,) = storage()["tasks"]
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    steps = [loop.shutdown_asyncgens, loop.shutdown_asyncgens, loop.shutdown_default_executor]
    for step in (cancel_the_task, aclose, *steps):
        loop.run_until_complete(step())
    loop.close()
    loop.close()
    assert log == WHOLE_LIFE


def test_close_while_running_is_refused_as_ever(new_loop: NewLoop) -> None:
    """Closing a loop that runs raises as it does without the library, and ends nothing before its time."""
    log: list[str] = []

    async def main() -> None:
        resource = await enter(Recorded(log))
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            asyncio.get_running_loop().close()
        await asyncio.sleep(0)
        assert resource.is_open

    run_and_close(new_loop, main())
    assert log == [*enters("r"), *exits("r")]


@pytest.mark.parametrize("inner_kind", list(LOOPS))
def test_close_while_another_loop_is_running(run: Run, inner_kind: str) -> None:
    """A loop can be closed where another one is running: its exits run on it, and the other one is not disturbed."""
    log: list[str] = []
    inner = LOOPS[inner_kind]()
    running: list[asyncio.AbstractEventLoop] = []

    async def leave_something_behind() -> None:
        await leave_a_task_behind(log)
        atexit.register(lambda: running.append(asyncio.get_running_loop()))

    inner.run_until_complete(leave_something_behind())

    async def outer() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        of_outer = await enter(Recorded(log, "of outer"))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            inner.close()
            assert log == [*enters("r", "of outer"), *WHOLE_LIFE[2:]]
            assert running == [inner]
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            assert asyncio.all_tasks() == {task}
            child = group.create_task(asyncio.sleep(0, "child"))
        assert child.result() == "child"
        assert await asyncio.to_thread(lambda: "thread") == "thread"
        assert of_outer.is_open

    run(outer())
    assert log[-2:] == exits("of outer")


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


@on_one_loop
async def test_close_of_a_loop_that_ran_in_another_thread(log: list[str], new_loop: NewLoop) -> list[str]:
    """A loop that ran in another thread can be closed in this one."""
    loop = new_loop()

    await asyncio.to_thread(loop.run_until_complete, leave_a_task_behind(log))
    loop.close()
    return WHOLE_LIFE


def test_close_though_something_calls_stop(new_loop: NewLoop) -> None:
    """An exit that calls `loop.stop()` does not keep the others from running."""
    log: list[str] = []

    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        log.append("stopped")

    async def main() -> None:
        await enter(Recorded(log))
        atexit.register(stop)

    run_and_close(new_loop, main())
    assert log == [*enters("r"), "stopped", *exits("r")]


def test_close_waits_for_tasks_started_by_tasks_that_end(new_loop: NewLoop) -> None:
    """What tasks start while they are being cancelled by `close` ends before the resources do, too."""
    log: list[str] = []

    async def farewell() -> None:
        try:
            await turns()
        finally:
            log.append("farewell")

    async def start_farewell() -> None:
        keep(farewell())

    async def main() -> None:
        await enter(Recorded(log))
        storage()["tasks"] = await begin_to_linger(1, start_farewell)

    run_and_close(new_loop, main())
    assert log == [*enters("r"), "farewell", *exits("r")]


# The methods that are set on the loop.


def test_what_others_set_on_the_loop_stays(new_loop: NewLoop) -> None:
    """A `close` that other code has set on the loop, before or after, is still called."""
    log: list[str] = []
    loop = new_loop()

    def noting(what: str) -> Callable[[], None]:
        close = loop.close

        def closes() -> None:
            log.append(what)
            close()

        return closes

    loop.close = noting("set before")  # type: ignore[method-assign]  # as other libraries do
    loop.run_until_complete(leave_a_task_behind(log))
    loop.close = noting("set after")  # type: ignore[method-assign]  # as other libraries do
    loop.close()
    assert log == [*enters("r"), "set after", *WHOLE_LIFE[2:], "set before"]
    assert loop.is_closed()


def test_a_closed_loop_has_what_it_had_before(new_loop: NewLoop) -> None:
    """A closed loop has no attribute of the library's, and again the methods that other code had set."""

    def mine() -> None:
        """There is no task factory."""

    loop = new_loop()
    loop.get_task_factory = mine  # type: ignore[method-assign]  # as other libraries do
    loop.run_until_complete(enter_once(Recorded()))
    assert {"close", "create_task", "_asyncio_loop_local"} <= vars(loop).keys()
    loop.close()
    assert {name: value for name, value in vars(loop).items() if name in dir(asyncio.AbstractEventLoop)} == {
        "get_task_factory": mine
    }
    assert not [name for name in vars(loop) if "loop_local" in name]


@pytest.fixture
def second_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package once more, under another name, as an SDK has it that vendors it."""
    name = "vendored_loop_local"
    shutil.copytree(Path(asyncio_loop_local.__file__).parent, tmp_path / name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield importlib.import_module(name)
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize("is_first", [True, False])
def test_two_copies_of_the_library_on_one_loop(second_copy: Any, new_loop: NewLoop, is_first: bool) -> None:
    """Each has its own resources there, and ends them before their tasks, whichever copy was the first to use the loop."""
    log: list[str] = []
    copies = [asyncio_loop_local, second_copy]

    def factory_of(copy: Any) -> Callable[[], Any]:
        @asynccontextmanager
        async def resource() -> AsyncGenerator[str]:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(asyncio.Event().wait())
                yield copy.__name__
                log.append(f"{copy.__name__}: the task is {'done' if task.done() else 'alive'}")
                task.cancel()

        factory: Callable[[], Any] = copy.sticky_singleton_acm(resource)
        return factory

    factories = [factory_of(copy) for copy in (copies if is_first else reversed(copies))]

    async def main() -> None:
        for factory in factories:
            async with factory() as first, factory() as second:
                assert first is second
        for copy in copies:
            assert len(copy.resources()) == 1
        storage()["tasks"] = await begin_to_linger(1, lambda: None)

    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    assert sorted(log) == ["asyncio_loop_local: the task is alive", "vendored_loop_local: the task is alive"]
    assert not [name for name in vars(loop) if "loop_local" in name]


def test_a_loop_whose_class_has_callable_objects_for_methods() -> None:
    """They are still called, and the closed loop has them again."""
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


class SlottedLoop:
    """Has no place for attributes; it would run what another loop runs."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


USES: dict[str, Callable[[], object]] = {
    "storage": storage,
    "singleton": singleton(str),
    "sticky_singleton_acm": sticky_singleton_acm(Recorded),
    "atexit": lambda: atexit.register(print),
    "enter": lambda: enter(Recorded()).send(None),
    "enter_once": lambda: enter_once(Recorded()).send(None),
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_loop_class_whose_instances_take_no_attributes(use: Callable[[], object]) -> None:
    """The first use on a loop that can hold nothing is a `TypeError` that names the loop's class and says what to do."""
    inner = asyncio.new_event_loop()

    def first_use() -> None:
        asyncio._set_running_loop(SlottedLoop(inner))  # type: ignore[arg-type]  # a loop of a class of its own
        try:
            use()
        finally:
            asyncio._set_running_loop(inner)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(TypeError, match=r"SlottedLoop.*nothing can be set on its instances: use a loop class"):
                first_use()

    inner.run_until_complete(main())
    inner.close()


@pytest.mark.parametrize("sealed", [["_asyncio_loop_local"], ["close", "shutdown_asyncgens", "create_task"]])
def test_loop_class_whose_instances_take_no_attributes_stays_as_it_was(sealed: list[str]) -> None:
    """A loop on which nothing could be set, or not all, works as before: its own methods are still its class's."""

    class SealedLoop(asyncio.SelectorEventLoop):
        def __setattr__(self, name: str, value: object) -> None:
            if name in sealed:
                raise AttributeError(name)
            super().__setattr__(name, value)

    async def main() -> None:
        for use in USES.values():
            with pytest.raises(TypeError, match=r"SealedLoop"):
                use()
        await asyncio.create_task(asyncio.sleep(0))

    loop = SealedLoop()
    loop.run_until_complete(main())
    assert not {"close", "create_task", "shutdown_asyncgens"} & vars(loop).keys()
    loop.close()
    assert loop.is_closed()


# Async generators, executor and loop are still there.


@on_each_loop
async def test_code_after_a_plain_yield_runs(log: list[str]) -> list[str]:
    """Code after the `yield` of an `@asynccontextmanager`, with no `try` around it, runs at the end of the loop."""

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        yield
        await asyncio.sleep(0)
        log.append("after the yield")

    await enter(resource())
    return ["after the yield"]


async def count() -> AsyncGenerator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        await asyncio.sleep(0)


async def three(numbers: AsyncGenerator[int]) -> AsyncGenerator[int]:
    async for number in numbers:
        if number == 3:
            await numbers.aclose()
            return
        yield number


async def use_everything(numbers: AsyncGenerator[int], log: list[object]) -> None:
    """Uses all that a loop has."""
    loop = asyncio.get_running_loop()
    log.append(await asyncio.to_thread(lambda: "to_thread"))
    log.append(await loop.run_in_executor(None, lambda: "executor"))
    log.append(await anext(numbers))
    log.extend([number async for number in three(count())])
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


EVERYTHING: list[object] = ["to_thread", "executor", 1, 0, 1, 2, "wait_for", "task group", b""]


async def use_everything_at_the_end(log: list[object]) -> None:
    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        numbers = count()
        await anext(numbers)
        yield
        await use_everything(numbers, log)

    await enter(resource())
    numbers = count()
    await anext(numbers)
    atexit.register(numbers.aclose)
    atexit.register(use_everything, numbers, log)


@on_each_loop
async def test_everything_still_works_in_exits(log: list[object]) -> list[object]:
    """Exits and callbacks can use threads, async generators, timers, tasks and the network."""
    await use_everything_at_the_end(log)
    return EVERYTHING * 2


def test_everything_still_works_in_exits_at_close(new_loop: NewLoop) -> None:
    """The same goes for a loop that is driven and closed by hand."""
    log: list[object] = []
    run_and_close(new_loop, use_everything_at_the_end(log))
    assert log == EVERYTHING * 2


# A loop is dropped unclosed.

DROP = """
del loop
gc.collect()
note("dropped")
"""


def dropped(loop_kind: str, script: str) -> tuple[list[str], list[str], str]:
    """What the program prints that drops its loop; its stderr, without what asyncio says; and its whole stderr."""
    printed, stderr = run_script(loop_kind, "loop = new_loop()\n" + textwrap.dedent(script) + DROP)
    return printed, without_asyncios_own(stderr), stderr


@pytest.mark.parametrize("name", ["Plain", "generator", "threaded", "task_group"])
def test_dropped_loop_warns_and_does_nothing_else(name: str) -> None:
    """A loop that is dropped unclosed gives one warning that names what it held, and nothing else is said or run."""
    printed, (warning,), _ = dropped("asyncio", f"loop.run_until_complete(enter({name}()))")
    assert printed == [f"enter {name.lower()}", "dropped"]
    assert "ResourceWarning" in warning
    assert "was dropped without being closed, so what it held was never exited" in warning
    assert name in warning.partition("never exited")[2]


def test_dropped_loop_with_a_task_of_the_users_says_what_asyncio_says() -> None:
    """A user's pending task on a dropped loop is destroyed with asyncio's own message, once, as it is without the library."""
    printed, _, stderr = dropped(
        "asyncio",
        """
        async def main():
            await enter(task_group())
            storage()["task"] = asyncio.create_task(work())
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        """,
    )
    assert printed == ["enter task_group", "dropped"]
    assert stderr.count("Task was destroyed but it is pending!") == 1
    assert stderr.count("was dropped without being closed") == 1
    assert "Exception ignored" not in stderr
    assert "Traceback" not in stderr


KEPT = [*(("uvloop", name) for name in ("Plain", "generator", "task_group", "anyio_group")), ("asyncio", "anyio_group")]


@pytest.mark.parametrize(("loop_kind", "name"), KEPT)
def test_dropped_loop_that_something_keeps_alive(loop_kind: str, name: str) -> None:
    """A loop that is dropped but kept alive, as uvloop and anyio's task groups keep one, ends when the interpreter exits."""
    printed, (warning,), _ = dropped(loop_kind, f"loop.run_until_complete(enter({name}()))")
    assert printed == [f"enter {name.lower()}", "dropped", f"exit {name.lower()}"]
    assert "was still open when the interpreter exited" in warning
    assert name in warning.partition("It held ")[2]


@pytest.mark.parametrize("loop_kind", list(LOOPS))
def test_dropped_loop_that_held_nothing_says_nothing(loop_kind: str) -> None:
    """A loop that is dropped when all has been ended on it gives no warning of the library's."""
    printed, said, _ = dropped(
        loop_kind,
        """
        async def main():
            async with make():
                pass
            await aclose()

        loop.run_until_complete(main())
        """,
    )
    assert printed == ["enter plain", "exit plain", "dropped"]
    assert said == []


SOCKETS = """
import socket

make_pair = socket.socketpair

def make_pair_after_collection():
    gc.collect(0)
    return make_pair()

socket.socketpair = make_pair_after_collection
loop.close()
loop = new_loop()
loop.run_until_complete(enter(Plain()))
"""
GENERATORS = """
@asynccontextmanager
async def plain():
    note("enter plain")
    yield

acm = plain()
loop.close()
loop = new_loop()
loop.run_until_complete(enter(acm))
del acm
"""


@pytest.mark.parametrize("script", [SOCKETS, GENERATORS], ids=["its sockets", "its async generators"])
def test_dropped_loop_of_which_the_collector_finalizes_a_part_first_says_nothing_else(script: str) -> None:
    """Sockets that are younger than their loop, and generators that are older, may be finalized before it: no error is shown."""
    printed, said, _ = dropped("asyncio", script)
    assert printed == ["enter plain", "dropped"]
    (warning,) = [line for line in said if "unclosed <socket" not in line]
    assert "was dropped without being closed" in warning


def test_dropped_loop_with_warnings_as_errors_leaves_the_process_well() -> None:
    """Where warnings are errors, that of a dropped loop is shown as one that cannot be raised, and the next loop works."""
    printed, stderr = run_script(
        "asyncio",
        """
        loop = new_loop()
        loop.run_until_complete(enter(Plain("dropped")))
        del loop
        gc.collect()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(enter(Plain("closed")))
        """,
        "-W",
        "error::ResourceWarning",
    )
    assert printed == ["enter dropped", "enter closed", "exit closed"]
    assert "was dropped without being closed" in stderr


def test_code_that_runs_while_the_library_is_attached_finds_the_same_state() -> None:
    """The collector may run any code between two steps of it, and that code may ask for what the loop holds."""
    seen: list[object] = []
    collects: list[bool] = []

    class Loop(asyncio.SelectorEventLoop):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if collects:
                seen.append(storage())

        def __delattr__(self, name: str) -> None:
            super().__delattr__(name)
            if collects:
                seen.append(storage())

    async def main() -> None:
        collects.append(True)
        mine = storage()
        collects.clear()
        assert len(seen) >= 7
        assert all(each is mine for each in seen)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
