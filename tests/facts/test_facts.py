"""The facts that the library stands on: what CPython, uvloop, anyio and mypy do that is private, or surprising.

None of these tests uses the library. Where one fails under a new release, what is named above it has lost its ground.
"""

from __future__ import annotations

import array
import asyncio
import functools
import gc
import inspect
import io
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import unittest
import warnings
import weakref
from asyncio.tasks import _enter_task, _leave_task, _unregister_task  # pyright: ignore[reportPrivateUsage]
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncContextDecorator, ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from struct import Struct, calcsize
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType
from typing import Any, cast

import anyio
import attrs
import httpx
import pydantic
import pytest
import uvloop
from mypy.nodes import (
    AssignmentExpr,
    Block,
    CallExpr,
    ConditionalExpr,
    DictExpr,
    ForStmt,
    GeneratorExpr,
    NameExpr,
    OpExpr,
    ReturnStmt,
    WhileStmt,
    WithStmt,
)
from mypy.nodes import Node as SyntaxNode
from mypy.options import Options
from mypy.reachability import MYPY_TRUE, infer_condition_value

from conftest import Run

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextmanager
def open_loop(new_loop: NewLoop) -> Generator[asyncio.AbstractEventLoop]:
    loop = new_loop()
    try:
        yield loop
    finally:
        loop.close()


def python(code: str, *, ok: bool = True) -> str:
    """What a Python of its own prints, both ways."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=50, check=False)
    assert not ok or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class Node:
    """May refer to others, and be referred to weakly."""

    def __init__(self) -> None:
        self.other: object = None


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# _scope.hide: tasks that no runner sees.


def test_an_unregistered_task_is_in_all_tasks_no_more(run: Run) -> None:
    """`_unregister_task` takes a task out of `asyncio.all_tasks`, also a second time, and leaves the others in."""

    async def main() -> None:
        task, other = asyncio.create_task(forever()), asyncio.create_task(forever())
        assert {task, other} <= asyncio.all_tasks()
        _unregister_task(task)
        _unregister_task(task)
        assert task not in asyncio.all_tasks()
        assert other in asyncio.all_tasks()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_an_unregistered_task_is_the_current_task(run: Run) -> None:
    """`asyncio.current_task`, `asyncio.timeout` and `asyncio.TaskGroup` go on working in a task that is unregistered."""

    async def work() -> asyncio.Task[Any] | None:
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(0), asyncio.TaskGroup() as group:
                group.create_task(forever())
        return asyncio.current_task()

    async def main() -> None:
        task = asyncio.create_task(work())
        _unregister_task(task)
        assert await task is task

    run(main())


def test_a_running_task_may_be_unregistered(run: Run) -> None:
    """A task may be unregistered by what it runs itself, as an eager one is."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        _unregister_task(task)
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        assert task not in asyncio.all_tasks()

    run(main())


@pytest.mark.parametrize("is_quiet", [False, True])
def test_log_destroy_pending_silences_a_task_that_is_dropped(is_quiet: bool) -> None:
    """`Task._log_destroy_pending = False` keeps a pending task that is dropped from logging so."""
    told: list[dict[str, Any]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    task: Any = loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = not is_quiet
    _unregister_task(task)
    del task
    loop.close()
    gc.collect()
    assert [each["message"] for each in told] == ([] if is_quiet else ["Task was destroyed but it is pending!"])


# _scope.Scope.run_task, _shared_coroutine: contexts.


def test_a_task_made_directly_goes_by_neither_factory_nor_create_task(new_loop: NewLoop) -> None:
    """`asyncio.Task(…, loop=…)` asks neither the loop's task factory nor the loop's `create_task`, and takes a context."""
    asked: list[str] = []
    var = ContextVar[int]("var")

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        asked.append("factory")
        return asyncio.Task(coro, loop=loop, **options)

    async def get() -> int:
        return var.get()

    with open_loop(new_loop) as loop:
        loop.set_task_factory(factory)
        context = Context()
        context.run(var.set, 3)
        task = asyncio.Task(get(), loop=loop, context=context, name="name")
        assert loop.run_until_complete(task) == 3
        assert task.get_name() == "name"
        assert asked == []


if sys.version_info >= (3, 12):

    def test_a_task_may_start_at_once(run: Run) -> None:
        """`asyncio.Task(…, eager_start=True)` runs to its first wait before it is there, as the current task, in its context."""
        var = ContextVar("var", default="caller's")
        seen: list[object] = []

        async def start(*waits: None) -> None:
            seen.extend([asyncio.current_task(), var.get()])
            for _ in waits:
                await asyncio.sleep(0)
                seen.append(asyncio.current_task())

        async def main() -> None:
            loop, caller = asyncio.get_running_loop(), asyncio.current_task()
            context = copy_context()
            context.run(var.set, "task's")
            task: asyncio.Task[None] = asyncio.Task(start(None), loop=loop, context=context, eager_start=True, name="name")
            assert not task.done()
            assert seen == [task, "task's"]
            assert asyncio.current_task() is caller
            assert var.get() == "caller's"
            assert task in asyncio.all_tasks()
            _unregister_task(task)
            await task
            assert seen == [task, "task's", task]
            done: asyncio.Task[None] = asyncio.Task(start(), loop=loop, context=context, eager_start=True)
            assert done.done()
            assert done not in asyncio.all_tasks()

        run(main())

    def test_a_task_that_starts_at_once_keeps_its_error(run: Run) -> None:
        """What a task raises that starts at once is its exception, and KeyboardInterrupt is raised by its making, too."""

        async def fail(kind: type[BaseException]) -> None:
            raise kind

        async def main() -> None:
            loop = asyncio.get_running_loop()
            task: asyncio.Task[None] = asyncio.Task(fail(ZeroDivisionError), loop=loop, eager_start=True)
            assert isinstance(task.exception(), ZeroDivisionError)
            with pytest.raises(KeyboardInterrupt):
                asyncio.Task(fail(KeyboardInterrupt), loop=loop, eager_start=True)

        run(main())


def test_create_task_in_a_context_copies_that_context(run: Run) -> None:
    """What runs `loop.create_task` in a context gives the task a copy of that, without any `context=`."""
    var = ContextVar("var", default=0)

    async def change() -> int:
        var.set(var.get() + 1)
        return var.get()

    async def main() -> None:
        context = copy_context()
        context.run(var.set, 5)
        assert await context.run(asyncio.get_running_loop().create_task, change()) == 6
        assert context[var] == 5
        assert var.get() == 0

    run(main())


# _cycles.


def test_a_bound_get_reads_the_context_in_which_it_is_called() -> None:
    """`ContextVar.get`, bound once, gives the value of the context that runs, in each thread its own."""
    var = ContextVar("var", default="default")
    get = var.get
    context = Context()
    context.run(var.set, "in context")
    assert (get(), context.run(get), get()) == ("default", "in context", "default")
    var.set("here")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(get()))
    thread.start()
    thread.join()
    assert (get(), found) == ("here", ["default"])


def test_a_context_may_hold_what_holds_it() -> None:
    """A context and an object in it that refers to it are a cycle, which only the cycle collector frees."""
    var = ContextVar[Node]("var")
    node = Node()
    context = Context()
    context.run(var.set, node)
    node.other = context
    freed = weakref.ref(node)
    gc.disable()
    try:
        del node, context
        assert freed() is not None
        gc.collect()
        assert freed() is None
    finally:
        gc.enable()


# _loop_state: attaching to a loop.

DOORS = ("close", "shutdown_asyncgens", "create_task", "get_task_factory")


def test_attributes_can_be_set_on_a_loop(new_loop: NewLoop) -> None:
    """What is set on a loop, in place of a method too, is in its `vars`, found before its class's, and gone when deleted."""
    with open_loop(new_loop) as loop:
        for name in (*DOORS, "_of_our_own"):
            value = object()
            setattr(loop, name, value)
            assert getattr(loop, name) is vars(loop)[name] is value
            del vars(loop)[name]
            assert getattr(loop, name, None) is not value
            assert name not in vars(loop)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="how attributes are kept differs, and cannot be asked for")
def test_how_many_attributes_a_loop_has_where_they_are_found_soonest() -> None:
    """Not as many as asyncio's own and our five, which docs/benchmarks.md gives as a reason of what they cost."""
    pytest.importorskip("_testinternalcapi", reason="CPython was built without it")
    printed = python(
        """
        import asyncio
        from _testinternalcapi import has_inline_values

        async def main():
            loop = asyncio.get_running_loop()
            print(len(loop.__dict__))
            for name in ("close", "shutdown_asyncgens", "create_task", "get_task_factory", "_of_our_own"):
                setattr(loop, name, None)
                print(has_inline_values(loop))
            del loop.close, loop.shutdown_asyncgens, loop.create_task, loop.get_task_factory

        asyncio.run(main())
        """
    )
    assert printed.split() == ["26", "True", "True", "True", "False", "False"]


def test_a_class_in_c_may_let_nothing_be_set() -> None:
    """An instance that takes no attributes says so by AttributeError, and has no `vars`: TypeError."""
    with pytest.raises(AttributeError):
        object().attribute = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # that is the fact
    with pytest.raises(TypeError):
        vars(object())


def test_everything_that_makes_tasks_uses_create_task_as_it_is_set(new_loop: NewLoop) -> None:
    """`asyncio.create_task`, `ensure_future`, `gather`, `TaskGroup` and anyio's call `create_task` as it is set on the loop."""
    made: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.create_task(work("asyncio.create_task"))
        await asyncio.ensure_future(work("ensure_future"))
        await asyncio.gather(work("gather"))
        async with asyncio.TaskGroup() as group:
            group.create_task(work("TaskGroup"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, "anyio")

    with open_loop(new_loop) as loop:
        create_task = loop.create_task

        def ours(coro: Any, **options: Any) -> Any:
            made.append(coro.__qualname__)
            return create_task(coro, **options)

        vars(loop)["create_task"] = ours
        loop.run_until_complete(loop.create_task(main()))
    assert len(made) == 1 + 5


if sys.version_info >= (3, 12):

    def test_an_eager_task_factory_has_its_class_in_its_closure() -> None:
        """All eager factories have one code, and what makes their tasks in the one cell of their closure."""

        def make(*args: Any, **kwargs: Any) -> Any:
            return asyncio.Task(*args, **kwargs)

        factories: dict[Any, Any] = {
            asyncio.Task: asyncio.eager_task_factory,
            make: asyncio.create_eager_task_factory(make),
        }
        for made_by, factory in factories.items():
            assert factory.__code__ is asyncio.eager_task_factory.__code__
            (cell,) = factory.__closure__
            assert cell.cell_contents is made_by

    def test_an_eager_task_has_run_when_create_task_returns() -> None:
        """Under an eager factory a coroutine runs to its first wait within `create_task`, and may be done then."""
        log: list[str] = []

        async def step(*, waits: bool) -> None:
            log.append("step")
            if waits:
                await asyncio.sleep(0)

        async def main() -> None:
            assert asyncio.create_task(step(waits=False)).done()
            waiting = asyncio.create_task(step(waits=True))
            assert not waiting.done()
            assert log == ["step", "step"]
            await waiting

        with open_loop(asyncio.new_event_loop) as loop:  # uvloop's fails with eager factories on Python 3.13.0
            loop.set_task_factory(asyncio.eager_task_factory)
            loop.run_until_complete(main())

    def test_anyio_makes_tasks_by_what_an_eager_factory_holds() -> None:
        """Under an eager factory, as `get_task_factory` set on the loop gives it, anyio calls what is in its closure."""
        made: list[object] = []

        def make(coro: Any, **options: Any) -> Any:
            made.append(coro)
            return asyncio.Task(coro, **options)

        async def main() -> None:
            vars(asyncio.get_running_loop())["get_task_factory"] = lambda: asyncio.create_eager_task_factory(make)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(asyncio.sleep, 0)

        with open_loop(asyncio.new_event_loop) as loop:  # uvloop's fails with eager factories on Python 3.13.0
            loop.set_task_factory(asyncio.eager_task_factory)
            loop.run_until_complete(main())
        assert len(made) == 1


# _loop_state: the end of a loop. Section 3 of the contract.

ORDER = ["tasks are cancelled", "shutdown_asyncgens", "shutdown_default_executor", "close"]


def note_the_end(order: list[str]) -> asyncio.Task[None]:
    """Notes the end of the running loop, by what is set on it."""
    loop: Any = asyncio.get_running_loop()

    def noted(name: str) -> Callable[[], Any]:
        method = getattr(loop, name)

        def call(*args: Any) -> Any:
            order.append(name)
            return method(*args)

        return call

    for name in ORDER[1:]:
        vars(loop)[name] = noted(name)

    async def be_cancelled() -> None:
        try:
            await forever()
        finally:
            order.append(ORDER[0])

    return cast("asyncio.Task[None]", loop.create_task(be_cancelled()))


KEPT: list[asyncio.Task[None]] = []


async def note(order: list[str]) -> None:
    KEPT[:] = [note_the_end(order)]
    await asyncio.sleep(0)


def run_in_test_case(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        async def test_it(self) -> None:
            await main()

    result = unittest.TestResult()
    Case("test_it").run(result)
    assert result.wasSuccessful()


def run_in_runner(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


RUNNERS: dict[str, Callable[[Callable[[], Coroutine[Any, Any, None]]], object]] = {
    "asyncio.run": lambda main: asyncio.run(main()),
    "asyncio.Runner with uvloop": run_in_runner,
    "uvloop.run": lambda main: uvloop.run(main()),
    "anyio.run": anyio.run,
    "anyio.run with uvloop": lambda main: anyio.run(main, backend_options={"use_uvloop": True}),
    "IsolatedAsyncioTestCase": run_in_test_case,
}


@pytest.mark.parametrize("name", list(RUNNERS))
def test_how_a_runner_ends(name: str) -> None:
    """A runner cancels all tasks and waits for them, then shuts asynchronous generators and executor, then closes the loop."""
    order: list[str] = []
    RUNNERS[name](lambda: note(order))
    assert order == ORDER


def test_how_pytest_asyncio_ends_a_loop(tmp_path: Path) -> None:
    """pytest-asyncio, too, cancels all tasks, then shuts asynchronous generators and executor, then closes the loop."""
    test = f"""
        import asyncio, json, pathlib, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
        import pytest
        from test_facts import note

        order = []

        @pytest.mark.asyncio
        async def test_it():
            await note(order)

        def test_after():
            pathlib.Path({str(tmp_path / "order")!r}).write_text(json.dumps(order))
    """
    (tmp_path / "test_one.py").write_text(textwrap.dedent(test))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "order").read_text()) == ORDER


def test_a_runner_sees_only_registered_tasks(run: Run) -> None:
    """A task that is unregistered is still alive when a runner has cancelled all tasks."""
    is_done: list[bool] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(forever())
        _unregister_task(task)
        shut = loop.shutdown_asyncgens

        async def shut_down() -> None:
            is_done.append(task.done())
            task.cancel()
            await asyncio.wait([task])
            await shut()

        vars(loop)["shutdown_asyncgens"] = shut_down

    run(main())
    assert is_done == [False]


def test_at_close_the_executor_and_the_generators_are_gone(run: Run) -> None:
    """When a runner calls `close`, threads can no more be asked, and what stood at a plain `yield` has been thrown out of it."""
    log: list[str] = []

    async def generate() -> AsyncGenerator[None]:
        try:
            yield
            log.append("code after the yield")
        finally:
            log.append("generator closed")

    generator = generate()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(int)
        await anext(generator)
        close = loop.close

        def closing() -> None:
            log.append("close")
            with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
                loop.run_in_executor(None, int)
            close()

        vars(loop)["close"] = closing

    run(main())
    assert log == ["generator closed", "close"]


def test_close_of_a_running_loop_is_refused(run: Run) -> None:
    """`close` raises RuntimeError while its loop runs, and a second `close` does nothing."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        with pytest.raises(RuntimeError, match=r"[Cc]annot close a running event loop"):
            loops[0].close()

    run(main())
    loops[0].close()
    assert loops[0].is_closed()


def test_stop_ends_run_until_complete_with_a_runtime_error(new_loop: NewLoop) -> None:
    """`loop.stop` makes `run_until_complete` raise RuntimeError; the loop can then be run on, with the same future."""
    with open_loop(new_loop) as loop:
        task = loop.create_task(asyncio.sleep(0, "result"))
        loop.stop()
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            loop.run_until_complete(task)
        assert not (task.done() or loop.is_running() or loop.is_closed())
        assert loop.run_until_complete(task) == "result"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_breaks_out_of_a_task_is_kept_in_it(new_loop: NewLoop, error: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit of a task come out of `run_until_complete`, and are its exception too, to be seen."""

    async def fail() -> None:
        raise error

    with open_loop(new_loop) as loop:
        task = loop.create_task(fail())
        with pytest.raises(error):
            loop.run_until_complete(task)
        assert isinstance(task.exception(), error)


def test_close_can_tell_what_the_runner_is_handling(new_loop: NewLoop) -> None:
    """`sys.exception()` is, in the `close` that a runner calls, what has broken out of `shutdown_asyncgens`."""
    seen: list[BaseException | None] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        close = loop.close

        async def shut_down() -> None:
            raise KeyboardInterrupt

        def closing() -> None:
            seen.append(sys.exception())
            close()

        vars(loop).update(close=closing, shutdown_asyncgens=shut_down)

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert [type(each) for each in seen] == [KeyboardInterrupt]


@pytest.mark.parametrize("inner", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_can_run_within_another_one(run: Run, inner: NewLoop) -> None:
    """Two loops nest in a thread between `_leave_task`, `_set_running_loop(None)` and their opposites; else that is refused."""

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with open_loop(inner) as other:
            refused = asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="while another loop is running"):
                other.run_until_complete(refused)
            refused.close()
            asyncio._leave_task(loop, task)
            asyncio._set_running_loop(None)
            try:
                assert asyncio._get_running_loop() is None
                assert other.run_until_complete(asyncio.sleep(0, 1)) == 1
            finally:
                asyncio._set_running_loop(loop)
                asyncio._enter_task(loop, task)
        assert asyncio.current_task() is task
        await asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what was refused, and never awaited
        run(main())


# _loop_state.LoopState.close and __del__: a loop that is dropped.


class Closing:
    """Stands for `close` on a loop that it holds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: list[bool]) -> None:
        self.loop = loop
        self.log = log

    def close(self) -> None:
        self.log.append(gc.is_finalized(self.loop))
        with suppress(OSError, ValueError):  # the collector may have finalized the loop's sockets before it
            type(self.loop).close(self.loop)


def test_a_dropped_loop_closes_itself_by_what_is_set_on_it() -> None:
    """asyncio's loop that is dropped unclosed calls `close` as set on it, when `gc.is_finalized` is true of it."""
    log: list[bool] = []
    loop = asyncio.new_event_loop()
    vars(loop)["close"] = Closing(loop, log).close
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        gc.collect()
    assert log == [True]


def test_a_loop_closed_by_hand_is_not_finalized(new_loop: NewLoop) -> None:
    """`gc.is_finalized` is false of a loop in a `close` that somebody calls."""
    log: list[bool] = []
    loop = new_loop()
    vars(loop)["close"] = Closing(loop, log).close
    loop.close()
    assert log == [False]


def test_a_uvloop_loop_that_was_never_closed_is_never_freed() -> None:
    """A uvloop loop that has run and was dropped unclosed stays, and nothing of it is called."""
    output = python(
        """
        import asyncio, gc, uvloop, weakref
        class Set:
            def close(self): print("close")
            def __del__(self): print("del")
        loop = uvloop.new_event_loop()
        loop.close = Set().close
        loop.run_until_complete(asyncio.sleep(0))
        there = weakref.ref(loop)
        del loop
        gc.collect()
        print(there() is not None)
        """
    )
    assert output == "True\n"


def test_a_closed_loop_is_freed_by_reference_counting(new_loop: NewLoop) -> None:
    """Nothing in a loop of asyncio's or uvloop's that has run and was closed is a cycle."""
    gc.collect()
    gc.disable()
    try:
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        freed = weakref.ref(loop)
        del loop
        assert freed() is None
    finally:
        gc.enable()


def test_what_is_set_on_a_loop_and_holds_it_keeps_it(new_loop: NewLoop) -> None:
    """A closed loop with a method of something that holds it is freed only by the cycle collector, or once that is deleted."""
    gc.collect()
    gc.disable()
    try:
        for is_deleted in (False, True):
            loop = new_loop()
            vars(loop)["close"] = Closing(loop, []).close
            loop.close()
            if is_deleted:
                del vars(loop)["close"]
            freed = weakref.ref(loop)
            del loop
            assert (freed() is None) is is_deleted
            gc.collect()
            assert freed() is None
    finally:
        gc.enable()


def test_a_dropped_coroutine_gets_a_generator_exit_where_no_loop_runs() -> None:
    """A coroutine that is dropped in `async with` gets GeneratorExit, with no loop running, and may not await then."""
    seen: list[object] = []

    class Held:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
            seen.extend([kind, asyncio._get_running_loop()])

    class Awaiting(Held):
        async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
            await asyncio.sleep(0)

    async def hold(held: Held) -> None:
        async with held:
            await asyncio.sleep(0)

    coroutine = hold(Held())
    coroutine.send(None)
    del coroutine
    assert seen == [GeneratorExit, None]
    awaiting = hold(Awaiting())
    awaiting.send(None)
    with pytest.raises(RuntimeError, match="coroutine ignored GeneratorExit"):
        awaiting.close()


# Everywhere that `finally: del error` stands.


def test_an_error_that_is_kept_in_a_local_name_is_a_cycle() -> None:
    """An error raised through a frame that has it in a local name only the cycle collector frees, unless that is deleted."""

    def fail(node: Node, *, deletes: bool) -> None:
        error: Exception | None = ZeroDivisionError()
        try:
            raise cast("Exception", error)
        finally:
            if deletes:
                del error

    gc.collect()
    gc.disable()
    try:
        for deletes in (False, True):
            node = Node()
            freed = weakref.ref(node)
            with suppress(ZeroDivisionError):
                fail(node, deletes=deletes)
            del node
            assert (freed() is None) is deletes
            gc.collect()
            assert freed() is None
    finally:
        gc.enable()


def test_an_except_clause_unbinds_its_name() -> None:
    """The name in `except … as` is deleted at its end, but what it was assigned to is not."""

    def fail() -> list[str]:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            kept = error
        return list(locals()) if kept else []

    assert fail() == ["kept"]


# _interrupt: signals.


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_handler_wakes_the_loop(new_loop: NewLoop) -> None:
    """`call_soon_threadsafe` from a handler of `signal.signal` runs its callback, though the loop slept till then."""
    with open_loop(new_loop) as loop:
        done = loop.create_future()
        before = signal.signal(signal.SIGUSR1, lambda _number, _frame: loop.call_soon_threadsafe(done.set_result, "woken"))
        try:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert loop.run_until_complete(done) == "woken"
        finally:
            signal.signal(signal.SIGUSR1, before)


def test_a_runner_has_the_default_handler_again_when_it_closes(new_loop: NewLoop) -> None:
    """While `Runner.run` runs, SIGINT has a handler of its own; when the runner closes, it is Python's default one again."""
    handlers: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        shut = loop.shutdown_asyncgens
        handlers.append(signal.getsignal(signal.SIGINT))

        async def shut_down() -> None:
            handlers.append(signal.getsignal(signal.SIGINT))
            await shut()

        vars(loop)["shutdown_asyncgens"] = shut_down

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    finally:
        signal.signal(signal.SIGINT, before)
    assert [each is signal.default_int_handler for each in handlers] == [False, True]


def test_only_the_main_thread_may_set_a_handler() -> None:
    """`signal.signal` raises ValueError in another thread."""
    errors: list[BaseException] = []

    def set_one() -> None:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=set_one)
    thread.start()
    thread.join()
    assert len(errors) == 1


# _process: the interpreter's exit, and a fork.


def test_at_exit_thread_pools_are_shut_already() -> None:
    """When `atexit` callbacks run, a pool of `concurrent.futures` takes nothing more, though it was used before."""
    output = python(
        """
        import atexit
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor()
        def at_exit():
            try:
                pool.submit(print)
            except RuntimeError as error:
                print(error)
        atexit.register(at_exit)
        print(pool.submit(int).result())
        """
    )
    assert output == "0\ncannot schedule new futures after shutdown\n"


def test_at_exit_threads_may_still_start() -> None:
    """In an `atexit` callback a thread can be started; only Python 3.12 raises RuntimeError."""
    output = python(
        """
        import atexit, threading
        def at_exit():
            try:
                thread = threading.Thread(target=print, args=["started"], daemon=True)
                thread.start()
                thread.join()
            except RuntimeError as error:
                print(error)
        atexit.register(at_exit)
        """
    )
    is_refused = sys.version_info[:2] == (3, 12)
    assert output == ("can't create new thread at interpreter shutdown\n" if is_refused else "started\n")


def test_atexit_callbacks_run_newest_first_and_all_of_them() -> None:
    """The newest `atexit` callback runs first, and an error of one keeps no other from running; `is_finalizing` is false yet."""
    output = python(
        """
        import atexit, sys
        atexit.register(lambda: print("first", sys.is_finalizing()))
        atexit.register(lambda: 1 / 0)
        atexit.register(print, "last")
        """,
        ok=False,
    )
    assert output.startswith("last\nfirst False\n")
    assert "ZeroDivisionError" in output


def test_an_exit_stack_calls_all_and_raises() -> None:
    """`ExitStack` calls every callback, newest first, though one raises, and raises then."""
    log: list[int] = []
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        stack.callback(log.append, 1)
        stack.callback(lambda: 1 // 0)
        stack.callback(log.append, 2)
    assert log == [2, 1]


def test_a_default_executor_must_be_a_thread_pool(new_loop: NewLoop) -> None:
    """asyncio's `set_default_executor` takes a `ThreadPoolExecutor`, a subclass with a `submit` of its own too."""

    class Own(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            asked.append(threading.current_thread())
            return super().submit(fn, *args, **kwargs)

    asked: list[threading.Thread] = []
    with open_loop(new_loop) as loop:
        if new_loop is asyncio.new_event_loop:
            with pytest.raises(TypeError):
                loop.set_default_executor(cast("ThreadPoolExecutor", object()))
        loop.set_default_executor(Own())
        assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0
        loop.run_until_complete(loop.shutdown_default_executor())
    assert asked == [threading.current_thread()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_child_of_a_fork_has_its_hooks_run_first() -> None:
    """`after_in_child` runs before the child goes on, and not in the parent; the child has a loop, but none runs."""
    output = python(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore")
        log = []
        os.register_at_fork(after_in_child=lambda: log.append(asyncio._get_running_loop()))
        async def main():
            loop = asyncio.get_running_loop()
            loop.ours = "ours"
            child = os.fork()
            if child == 0:
                print(log, asyncio._get_running_loop(), loop.ours, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(log, asyncio._get_running_loop() is loop)
        asyncio.run(main())
        """
    )
    assert output == "[None] None ours\n[] True\n"


def test_a_weak_reference_to_what_has_slots() -> None:
    """An object with `__slots__` can be referred to weakly if one is `__weakref__`, and goes when nothing else refers to it."""

    class Slotted:
        __slots__ = ("__weakref__",)

    one = Slotted()
    there = weakref.ref(one)
    assert there() is one
    del one
    assert there() is None


# _calls: the C-level cache.


def typed_cache() -> tuple[Callable[..., object], list[Any]]:
    calls: list[Any] = []

    @lru_cache(maxsize=None, typed=True)
    def find(*args: Any, **kwargs: Any) -> object:
        calls.append((args, kwargs))
        return object()

    return find, calls


def test_a_typed_cache_tells_the_types_of_arguments_apart() -> None:
    """`lru_cache(typed=True)` keeps 1, True and 1.0 apart, by position and by name."""
    find, _ = typed_cache()
    assert len({find(1), find(True), find(1.0), find(k=1), find(k=True), find(k=1.0)}) == 6
    assert find(1) is find(1)


def test_a_typed_cache_does_not_look_into_containers() -> None:
    """`lru_cache(typed=True)` takes (1,) and (True,) for the same, and a frozenset likewise."""
    find, _ = typed_cache()
    assert find((1,)) is find((True,)) is find((1.0,))
    assert find(frozenset({1})) is find(frozenset({True}))


def test_a_typed_cache_keeps_a_tuple_and_an_equal_subclass_apart() -> None:
    """An instance of a subclass of tuple is equal to a tuple and hashes like it, but its type is another."""

    class Ours(tuple[Any, ...]):
        __slots__ = ()

    find, _ = typed_cache()
    assert Ours((1, 2)) == (1, 2)
    assert hash(Ours((1, 2))) == hash((1, 2))
    assert find(Ours((1, 2))) is not find((1, 2))
    assert find(Ours((1, 2))) is find(Ours((1, 2)))


def test_a_cache_counts_the_order_of_names_and_not_what_they_mean() -> None:
    """`lru_cache` takes the same arguments in another order, or by name and by position, for different ones."""
    find, _ = typed_cache()
    assert len({find(a=1, b=2), find(b=2, a=1), find(1, b=2), find(1, 2)}) == 4


def test_a_cache_forgets_what_raises() -> None:
    """`lru_cache` calls a function again that has raised, and remembers nothing of it."""
    results: list[int] = []

    @lru_cache(maxsize=None, typed=True)
    def find(key: str) -> int:
        return results[0]

    with pytest.raises(IndexError):
        find("a")
    results.append(3)
    assert find("a") == 3
    results.clear()
    assert find("a") == 3


def test_a_cache_hashes_before_it_calls() -> None:
    """`lru_cache` raises the TypeError of an unhashable argument before the function is called."""
    find, calls = typed_cache()
    with pytest.raises(TypeError, match="unhashable"):
        find([])
    assert calls == []


def test_a_cache_passes_on_the_very_arguments() -> None:
    """`lru_cache` calls the function with the very objects that it was called with."""
    find, calls = typed_cache()
    one, two = object(), object()
    find(one, k=two)
    ((args, kwargs),) = calls
    assert args[0] is one
    assert kwargs["k"] is two


def test_a_cache_runs_what_an_argument_says_of_its_hash() -> None:
    """While `lru_cache` looks up, an argument's `__hash__` and `__eq__` run, and may call the same cache."""
    find, calls = typed_cache()

    class Calling:
        def __hash__(self) -> int:
            find("inner")
            return 1

    find(Calling())
    assert [type(args[0]) for args, _ in calls] == [str, Calling]


def test_a_cache_is_cleared_of_what_it_holds() -> None:
    """`cache_clear` lets go of keys and values at once."""
    find, calls = typed_cache()
    node = Node()
    freed = weakref.ref(node)
    find(node)
    calls.clear()
    del node
    assert freed() is not None
    cast("Any", find).cache_clear()
    assert freed() is None


def test_lookups_ask_for_identity_before_equality() -> None:
    """A dict, and so `lru_cache`, finds the very object that is equal to nothing, as a NaN is, and no other one."""
    find, _ = typed_cache()
    nan = float("nan")
    assert nan != nan  # noqa: PLR0124
    assert find(nan) is find(nan)
    assert find(nan) is not find(float("nan"))


def test_a_changed_hash_is_not_found() -> None:
    """A dict does not find a key by itself when it hashes otherwise than when it was put in."""

    class Key:
        hashed = 1

        def __hash__(self) -> int:
            return self.hashed

    key = Key()
    there = {key: 1}
    key.hashed = 2
    assert key not in there
    assert list(there) == [key]


def test_a_function_has_vars_that_can_be_written() -> None:
    """What is put into `vars` of a function is its attribute, and `functools.update_wrapper` copies it to another's."""

    def one() -> None: ...

    def other() -> None: ...

    vars(one)["ours"] = 3
    functools.update_wrapper(other, one)
    assert cast("Any", other).ours == 3
    assert cast("Any", other).__wrapped__ is one


# _keys: what is hashable, and what objects hold.


class Plain:
    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass
class Data:
    value: int = 0


@attrs.define
class Defined:
    value: int = 0


class Model(pydantic.BaseModel):
    value: int = 0


@pytest.mark.parametrize("kind", [Plain, Data, Defined, Model, httpx.Timeout])
def test_an_eq_of_its_own_takes_the_hash_away(kind: Any) -> None:
    """A Python class that defines or generates `__eq__` has `__hash__ = None`, and its `__eq__` is a function."""
    assert kind.__hash__ is None
    assert type(kind.__eq__) is FunctionType


@pytest.mark.parametrize("kind", [dict, list, set, deque, bytearray])
def test_the_eq_of_a_class_in_c_is_no_function(kind: Any) -> None:
    """An unhashable class written in C has `__hash__ = None` too, but its `__eq__` is a slot wrapper."""
    assert kind.__hash__ is None
    assert type(kind.__eq__) is WrapperDescriptorType


def test_the_timeout_of_an_httpx_client_is_unhashable() -> None:
    """The default of `httpx.AsyncClient`'s `timeout` cannot be hashed."""
    default = inspect.signature(httpx.AsyncClient).parameters["timeout"].default
    assert isinstance(default, httpx.Timeout)
    with pytest.raises(TypeError):
        hash(default)


def test_slots_are_member_descriptors() -> None:
    """Slots are member descriptors in `vars` of their class, mangled where private; `__dict__` and `__weakref__` are not."""

    class Slotted:
        __slots__ = ("__dict__", "__private", "__weakref__", "public")

    found: dict[str, type[Any]] = {
        name: type(slot) for name, slot in vars(Slotted).items() if name in {"__dict__", "__weakref__"}
    }
    assert set(found.values()) == {GetSetDescriptorType}
    members = [name for name, slot in vars(Slotted).items() if type(slot) is MemberDescriptorType]
    assert members == ["_Slotted__private", "public"]
    with pytest.raises(AttributeError):
        vars(Slotted)["public"].__get__(Slotted(), Slotted)


def test_two_classes_may_have_slots_of_one_name() -> None:
    """A subclass may have a slot of the name of its base's: two slots, of which the base's is hidden."""

    class Base:
        __slots__ = ("value",)

    class Derived(Base):
        __slots__ = ("value",)

    one = Derived()
    vars(Base)["value"].__set__(one, 1)
    vars(Derived)["value"].__set__(one, 2)
    assert (vars(Base)["value"].__get__(one), getattr(one, "value")) == (1, 2)


HEAP = 1 << 9
IN_C: list[Any] = [
    *(dict, list, tuple, BaseException, bytearray, memoryview, array.array, OrderedDict, deque, defaultdict),
    *(functools.partial, Struct, sqlite3.Connection, sqlite3.Cursor, io.TextIOWrapper, asyncio.Future, random.Random),
]
IN_PYTHON: list[Any] = [Plain, Data, Defined, Model, httpx.Timeout, Path]


def has_more_room_than_slots(kind: type) -> bool:
    rooms = [
        name for name, slot in vars(kind).items() if type(slot) is MemberDescriptorType or name in {"__dict__", "__weakref__"}
    ]
    return kind.__base__ is not None and kind.__basicsize__ > kind.__base__.__basicsize__ + len(rooms) * calcsize("P")


def test_how_a_class_made_in_c_is_told() -> None:
    """Of a class written in C that holds something, it or a base has no heap flag, its own `__new__`, or room beyond slots."""
    for kind in IN_C:
        bases = [base for base in kind.__mro__ if base is not object]
        assert any(
            not base.__flags__ & HEAP or getattr(base.__new__, "__self__", None) is base or has_more_room_than_slots(base)
            for base in bases
        ), kind


def test_no_sign_of_classes_made_in_c_suffices_alone() -> None:
    """Some classes written in C have the heap flag, and some of these have no `__new__` of their own."""
    assert functools.partial.__flags__ & HEAP
    assert sqlite3.Connection.__flags__ & HEAP
    assert cast("Any", sqlite3.Connection.__new__).__self__ is object


def test_how_a_class_made_in_python_is_told() -> None:
    """A class made in Python has the heap flag, no `__new__` that is bound to it, and room for its slots alone."""
    for kind in IN_PYTHON:
        assert kind.__flags__ & HEAP
        assert getattr(kind.__new__, "__self__", None) is not kind
        assert not has_more_room_than_slots(kind)


def test_a_writable_memoryview_says_value_error() -> None:
    """`hash` of a writable memoryview raises ValueError, where everything else unhashable raises TypeError."""
    with pytest.raises(ValueError, match="cannot hash writable memoryview"):
        hash(memoryview(bytearray(b"a")))
    unhashable: list[Any] = [[], {}, set[int](), bytearray(), Plain()]
    for value in unhashable:
        with pytest.raises(TypeError):
            hash(value)


def test_a_cached_property_is_in_the_instances_dict() -> None:
    """`cached_property` leaves its value in the instance's `__dict__` under its name, and is found in the class statically."""

    class Cached:
        @cached_property
        def value(self) -> int:
            return 3

    one = Cached()
    assert vars(one) == {}
    assert one.value == 3
    assert vars(one) == {"value": 3}
    assert isinstance(inspect.getattr_static(Cached, "value"), cached_property)


def test_a_subclass_of_a_container_may_show_less_than_it_holds() -> None:
    """What a subclass says by `items` or `__iter__` need not be what the base's methods read; `isinstance` asks `__class__`."""

    class Hiding(dict[str, int]):
        def items(self) -> Any:
            return {"a": 0}.items()

    class Proxy:
        @property
        def __class__(self) -> Any:
            return dict

        @__class__.setter
        def __class__(self, kind: Any) -> None:
            raise TypeError

    hiding = Hiding(a=1, b=2)
    assert (dict(hiding.items()), dict(dict[str, int].items(hiding))) == ({"a": 0}, {"a": 1, "b": 2})
    assert isinstance(Proxy(), dict)
    assert not issubclass(type(Proxy()), dict)


def test_pydantic_keeps_which_fields_were_given_out_of_its_eq() -> None:
    """pydantic's `__pydantic_fields_set__` is a slot that differs between models that are equal."""
    one, other = Model(), Model(value=0)
    assert one == other
    slot = vars(pydantic.BaseModel)["__pydantic_fields_set__"]
    assert type(slot) is MemberDescriptorType
    assert slot.__get__(one) != slot.__get__(other)


def test_some_callables_tell_no_signature() -> None:
    """`inspect.signature` raises ValueError for what is built in and tells none, and leaves out what a partial has bound."""
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(dict)

    def connect(host: str, port: int, *, tls: bool) -> None: ...

    parameters = inspect.signature(partial(connect, "h", tls=True)).parameters
    assert list(parameters) == ["port", "tls"]
    assert parameters["tls"].default is True


def test_the_very_types_of_plain_values() -> None:
    """`type` of True is bool and no int, though True is one and equal to it; 1 == 1.0 == True hash alike."""
    assert [type(value) for value in (1, True, 1.0)] == [int, bool, float]
    assert len({1, True, 1.0}) == 1
    assert isinstance(True, int)
    assert Counter([1, True]) == {1: 2}


# _names.


def test_what_asynccontextmanager_makes_knows_its_function() -> None:
    """What an `@asynccontextmanager` function returns is an `AsyncContextDecorator` and has the function as `func`."""

    @asynccontextmanager
    async def pool() -> AsyncGenerator[None]:
        yield

    acm: Any = pool()
    assert acm.func is cast("Any", pool).__wrapped__
    assert isinstance(acm, AsyncContextDecorator)


# _resource: entering, holding, exiting.


def test_async_with_looks_at_the_class() -> None:
    """`async with` finds `__aenter__` and `__aexit__` by the type, and not on the instance."""

    class Held:
        async def __aenter__(self) -> str:
            return "the class's"

        async def __aexit__(self, *_: object) -> None:
            pass

    async def main() -> str:
        held = Held()
        vars(held)["__aenter__"] = None
        async with held as value:
            return value

    assert asyncio.run(main()) == "the class's"


def test_a_cancel_scope_insists_on_its_task(run: Run) -> None:
    """anyio's cancel scopes and task groups raise RuntimeError when they are left in a task in which they were not entered."""

    async def main() -> None:
        scope = anyio.CancelScope()
        entered = asyncio.create_task(enter(scope))
        await entered
        with pytest.raises(RuntimeError, match="different task than it was entered in"):
            scope.__exit__(None, None, None)

    async def enter(scope: anyio.CancelScope) -> None:
        scope.__enter__()

    run(main())


def test_a_timeout_cancels_the_task_that_entered_it(run: Run) -> None:
    """`asyncio.timeout` cancels the task in which it was entered, whichever one goes on in its block."""

    async def enter(timeout: asyncio.Timeout, is_entered: asyncio.Event) -> None:
        await timeout.__aenter__()
        is_entered.set()
        await forever()

    async def main() -> None:
        timeout, is_entered = asyncio.timeout(0), asyncio.Event()
        task = asyncio.create_task(enter(timeout, is_entered))
        await is_entered.wait()
        await asyncio.wait([task])
        assert task.cancelled()
        assert timeout.expired()

    run(main())


def test_a_task_group_cancels_the_task_that_entered_it(run: Run) -> None:
    """`asyncio.TaskGroup` cancels, when a task of its fails, the task in which it was entered."""

    async def fail() -> None:
        raise ZeroDivisionError

    async def enter(group: asyncio.TaskGroup) -> None:
        await group.__aenter__()
        group.create_task(fail())
        await forever()

    async def main() -> None:
        task = asyncio.create_task(enter(asyncio.TaskGroup()))
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_a_context_variable_insists_on_its_context() -> None:
    """`ContextVar.reset` raises ValueError in another context than that in which its token was made."""
    var = ContextVar[int]("var")
    token = copy_context().run(var.set, 3)
    with pytest.raises(ValueError, match="was created in a different Context"):
        var.reset(token)


def test_an_acm_has_its_generator_closed_under_it() -> None:
    """`shutdown_asyncgens` closes the generator of an `@asynccontextmanager` function: nothing after its plain `yield` runs."""
    log: list[str] = []

    @asynccontextmanager
    async def pool() -> AsyncGenerator[None]:
        yield
        log.append("after the yield")

    async def main() -> None:
        await held.__aenter__()
        await asyncio.get_running_loop().shutdown_asyncgens()
        with pytest.raises(BaseException) as caught:
            if not await held.__aexit__(None, None, None):
                raise KeyError
        assert isinstance(caught.value, (KeyError, RuntimeError, StopAsyncIteration))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = pool()
        asyncio.run(main())
    assert log == []


def test_cancelling_counts_requests_from_outside(run: Run) -> None:
    """`cancelling()` is above zero in a task that somebody cancelled, and zero in one that raised CancelledError itself."""

    async def raise_it() -> None:
        raise asyncio.CancelledError

    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await forever()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 1
        assert task.uncancel() == 0
        await asyncio.sleep(0)

    async def main() -> None:
        own, cancelled, swallowing = (asyncio.create_task(each) for each in (raise_it(), forever(), swallow()))
        await asyncio.sleep(0)
        cancelled.cancel()
        swallowing.cancel()
        await asyncio.wait([own, cancelled, swallowing])
        assert (own.cancelled(), own.cancelling()) == (True, 0)
        assert (cancelled.cancelled(), cancelled.cancelling()) == (True, 1)
        assert not swallowing.cancelled()

    run(main())


def test_done_callbacks_come_at_the_next_turn(run: Run) -> None:
    """A task that is done calls its callbacks at the loop's next turn, not at once."""
    log: list[str] = []

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        task.add_done_callback(lambda _: log.append("callback"))
        while not task.done():
            await asyncio.sleep(0)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        done.add_done_callback(lambda _: log.append("of a future"))
        assert "of a future" not in log
        await asyncio.sleep(0)
        assert log == ["callback", "of a future"]

    run(main())


def test_an_exception_that_was_asked_for_is_not_reported(run: Run) -> None:
    """A task whose `exception()` was called does not tell the loop, when it goes, that nobody retrieved it."""
    told: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["message"]))
        for is_asked in (True, False):
            task = asyncio.create_task(fail())
            await asyncio.wait([task])
            if is_asked:
                task.exception()
            del task
            gc.collect()
            assert told == ([] if is_asked else ["Task exception was never retrieved"])

    run(main())


# _waiters.wake_at_once: a task's step within another's.


def test_a_future_knows_by_what_it_wakes_the_task_that_waits_for_it(run: Run) -> None:
    """It has that one callback, with the task's context; taken from it and called, it is the task's next step."""
    var: ContextVar[str] = ContextVar("var")
    seen: list[object] = []

    async def wait(future: asyncio.Future[str]) -> None:
        var.set("of the task")
        seen.append(await future)
        seen.append(asyncio.current_task())
        seen.append(var.get())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        var.set("of main")
        future: asyncio.Future[str] = loop.create_future()
        task = asyncio.create_task(wait(future))
        await asyncio.sleep(0)
        callbacks: list[tuple[Callable[[object], None], Context]] = vars(type(future))["_callbacks"].__get__(future)
        [(wake, context)] = callbacks
        assert future.remove_done_callback(wake) == 1
        future.set_result("result")
        own = asyncio.current_task()
        assert own is not None
        with pytest.raises(RuntimeError, match="while another task"):
            context.run(wake, future)  # which has not begun the step
        assert seen == []
        _leave_task(loop, own)
        context.run(wake, future)
        _enter_task(loop, own)
        assert seen == ["result", task, "of the task"]
        assert task.done()
        assert asyncio.current_task() is own
        assert var.get() == "of main"
        await task

    run(main())


def test_a_step_sees_what_its_caller_handles() -> None:
    """A coroutine that is stepped in an ``except`` clause sees the error handled there, and has it as context of its own."""

    async def fail() -> None:
        seen.append(sys.exception())
        raise LookupError

    seen: list[object] = []
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        with pytest.raises(LookupError) as caught:
            fail().send(None)
        assert seen == [error]
        assert caught.value.__context__ is error


# _shared_coroutine.


def test_how_a_function_is_marked_as_a_coroutine_function() -> None:
    """`inspect.markcoroutinefunction`, or asyncio's own mark before Python 3.12, is what says that calls give coroutines."""

    def function() -> Any: ...

    marked: Any = function
    if sys.version_info >= (3, 12):
        assert not inspect.iscoroutinefunction(marked)
        inspect.markcoroutinefunction(marked)
        assert inspect.iscoroutinefunction(marked)
    else:
        ask: Any = vars(asyncio)["iscoroutinefunction"]
        assert not ask(marked)
        marked._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # that is the fact
        assert ask(marked)
        assert not inspect.iscoroutinefunction(marked)


def test_a_coroutine_has_the_code_of_its_function() -> None:
    """`cr_code` of a coroutine is the `__code__` of the very function that made it, not that of what is wrapped around."""

    async def function() -> None: ...

    @functools.wraps(function)
    def around() -> Coroutine[Any, Any, None]:
        return function()

    coroutine: Any = around()
    assert coroutine.cr_code is vars(around)["__wrapped__"].__code__
    assert coroutine.cr_code is not cast("Any", around).__code__
    coroutine.close()


class OwnCoroutine(Coroutine[Any, Any, str]):
    """Is no native coroutine, but has all that one has."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.steps = self.__await__()

    def __await__(self) -> Generator[Any, Any, str]:
        self.log.append(asyncio.current_task())
        yield from asyncio.sleep(0).__await__()
        return "result"

    def send(self, value: Any, /) -> Any:
        self.log.append("send")
        return self.steps.send(value)

    def throw(self, *error: Any) -> Any:
        self.log.append("throw")
        return self.steps.throw(*error)

    def close(self) -> None:
        self.log.append("close")


def test_asyncio_takes_any_coroutine(run: Run) -> None:
    """`asyncio` drives an instance of a class of `collections.abc.Coroutine` by its `send`, each in the task made of it."""

    async def main() -> None:
        coroutine = OwnCoroutine()
        is_coroutine: list[Callable[[object], bool]] = [asyncio.iscoroutine, inspect.iscoroutine]
        assert [ask(coroutine) for ask in is_coroutine] == [True, False]
        task = asyncio.create_task(coroutine)
        assert await task == "result"
        assert coroutine.log[:2] == ["send", task]
        thrown = OwnCoroutine()
        task = asyncio.create_task(thrown)
        if "send" not in thrown.log:  # as it is under an eager factory
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert thrown.log.count("throw") == 1
        assert await asyncio.wait_for(OwnCoroutine(), 5) == "result"
        assert list(await asyncio.gather(OwnCoroutine())) == ["result"]

    run(main())


def test_a_done_future_gives_its_result_at_once_and_often(run: Run) -> None:
    """`__await__` of a future that is done, bound once, gives the result without a turn of the loop, any number of times."""

    async def main() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.set_result("result")
        bound = future.__await__
        for _ in range(3):
            with pytest.raises(StopIteration) as stopped:
                next(iter(bound()))
            assert stopped.value.value == "result"

    run(main())


def test_current_task_needs_a_loop() -> None:
    """`asyncio.current_task` raises RuntimeError where no loop runs, as where a coroutine is closed by the garbage collector."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.current_task()


# _storage.


def test_a_class_may_be_a_dict_and_a_lock() -> None:
    """`dict` and `asyncio.Lock` can be bases of one class; its first wait binds it to a loop, and the error shows its repr."""

    class Both(dict[str, int], asyncio.Lock):
        def __init__(self) -> None:
            super().__init__()
            asyncio.Lock.__init__(self)

        def __repr__(self) -> str:
            return "<the repr>"

    async def meet(both: Both) -> None:
        async with both:
            waiting = asyncio.create_task(both.acquire())
            await asyncio.sleep(0)
        await waiting
        both.release()

    both = Both()
    both["a"] = 1
    asyncio.run(meet(both))
    assert both == {"a": 1}
    with pytest.raises(RuntimeError, match="<the repr> is bound to a different event loop"):
        asyncio.run(meet_twice(both))


async def meet_twice(lock: asyncio.Lock) -> None:
    await lock.acquire()
    await lock.acquire()


# _exit_order, _waiters: dicts as ordered sets.


def test_a_dict_is_an_ordered_set_and_a_stack() -> None:
    """A dict keeps the order of insertion over deletions; `popitem` takes the newest, which is the first of `reversed`."""
    there: dict[str, None] = dict.fromkeys("abcd")
    del there["b"]
    there["a"] = None
    there["b"] = None
    assert list(there) == ["a", "c", "d", "b"]
    assert next(reversed(there)) == "b"
    assert there.popitem() == ("b", None)
    assert list(itertools.islice(reversed(there), 2)) == ["d", "c"]


# The type checkers: _sticky's overloads, and the mypy plugin.


def test_mypy_alone_knows_a_name() -> None:
    """mypy takes the name MYPY for true, whatever is assigned to it, as it does TYPE_CHECKING."""
    options = Options()
    assert infer_condition_value(NameExpr("MYPY"), options) == MYPY_TRUE
    assert infer_condition_value(NameExpr("TYPE_CHECKING"), options) == MYPY_TRUE
    assert infer_condition_value(NameExpr("OTHER"), options) != MYPY_TRUE


def test_pyright_reads_the_branch_that_mypy_is_spared(tmp_path: Path) -> None:
    """pyright counts overloads under `TYPE_CHECKING and not MYPY`, with `MYPY = False` above, among those that come after."""
    (tmp_path / "one.py").write_text(
        textwrap.dedent(
            """
            from typing import TYPE_CHECKING, overload
            MYPY = False
            if TYPE_CHECKING and not MYPY:
                @overload
                def f(a: int) -> int: ...
            @overload
            def f(a: str) -> str: ...
            @overload
            def f(a: bytes) -> bytes: ...
            def f(a): return a
            reveal_type((f(1), f("")))
            """
        )
    )
    command = [sys.executable, "-m", "pyright", "--outputjson", str(tmp_path / "one.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False)
    messages = [each["message"] for each in json.loads(done.stdout)["generalDiagnostics"]]
    assert messages == ['Type of "(f(1), f(""))" is "tuple[int, str]"']


def test_nodes_of_mypy_name_their_parts() -> None:
    """Nodes of mypy's syntax trees name the parts of which they are made by `__match_args__`."""
    name, block = NameExpr("name"), Block([])
    nodes: dict[SyntaxNode, set[str]] = {
        CallExpr(name, [], [], []): {"callee", "args"},
        OpExpr("or", name, name): {"left", "right"},
        DictExpr([]): {"items"},
        AssignmentExpr(name, name): {"target", "value"},
        ConditionalExpr(name, name, name): {"if_expr", "else_expr"},
        GeneratorExpr(name, [], [], [], []): {"left_expr", "sequences", "condlists", "indices"},
        ForStmt(name, name, block, None): {"expr", "body"},
        WithStmt([name], [None], block): {"expr", "body"},
        WhileStmt(name, block, None): {"expr", "body"},
        ReturnStmt(name): {"expr"},
    }
    for node, parts in nodes.items():
        given: Any = node
        assert parts <= set(given.__match_args__), type(node)


PLUGIN = """
import json, pathlib
from mypy.checker import TypeChecker
from mypy.plugin import Plugin
from mypy.types import CallableType, Instance, LiteralType, get_proper_type

HERE = pathlib.Path(__file__).parent
facts = {"asked": [], "config": 0}

def say(**more):
    facts.update(more)
    (HERE / (HERE / "run").read_text()).write_text(json.dumps(facts))

class Recording(Plugin):
    def report_config_data(self, ctx):
        facts["config"] += 1
        say()
        return (HERE / "config").read_text()

    def get_function_hook(self, fullname):
        if "local_function" in fullname or fullname in ("decorators.mark", "a name"):
            facts["asked"].append(fullname)
            say()
        if fullname == "decorators.mark":
            return self.mark
        if fullname == "decorators.looked_at":
            return self.look
        return None

    def mark(self, ctx):
        function = get_proper_type(ctx.default_return_type)
        assert isinstance(function, CallableType)
        literal = LiteralType("a mark", ctx.api.named_type("builtins.str"))
        new = function.copy_modified(fallback=function.fallback.copy_modified(last_known_value=literal), name="a name")
        new.definition = None
        return new

    def look(self, ctx):
        api = ctx.api
        function = get_proper_type(ctx.arg_types[0][0])
        partial = get_proper_type(ctx.arg_types[1][0])
        literal = function.fallback.last_known_value
        errors = api.msg.errors
        with api.msg.filter_errors():
            (watcher,) = errors._watchers
            discarding = [watcher._filter, watcher._filtered]
        with api.msg.filter_errors(save_filtered_errors=True):
            kept = errors._watchers[-1]._filtered
        say(
            literal=None if literal is None else literal.value,
            is_checker=isinstance(api, TypeChecker),
            plugins=[type(each).__name__ for each in api.plugin._plugins],
            watchers=len(errors._watchers),
            discarding=discarding,
            kept=kept,
            partial=type(get_proper_type(partial.extra_attrs.attrs["__mypy_partial"])).__name__,
            scope=[type(item).__name__ for item in api.scope.stack],
        )
        return ctx.default_return_type

class Second(Plugin):
    def get_function_hook(self, fullname):
        if fullname in ("decorators.mark", "decorators.second"):
            facts.setdefault("second", []).append(fullname)
            say()
        return None

def plugin(version):
    return Recording

def second(version):
    return Second
"""
DECORATORS = """
from collections.abc import Callable
from typing import Any

def mark(f: Callable[[], int]) -> Callable[[], int]: return f
def looked_at(f: Any, p: Any) -> None: ...
def second() -> None: ...
"""
MARKED = """
from decorators import mark
@mark
def marked() -> int: return 1
"""
USER = """
from functools import partial
from decorators import looked_at, mark, second
from marked import marked

def function(local_function: object) -> None:
    def taking(a: int, b: str) -> None: ...
    looked_at(marked, partial(taking, 1))
    second()
    mark(marked)
    local_function_of_ours = mark(marked)
    local_function_of_ours()
"""


@pytest.fixture(scope="module")
def what_mypy_does(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a recording plugin sees in a cold run of mypy, in one with a warm cache, and after its own data have changed."""
    directory = tmp_path_factory.mktemp("mypy")
    (directory / "recording.py").write_text(PLUGIN)
    (directory / "other.py").write_text("from recording import second as plugin\n")
    (directory / "mypy.ini").write_text("[mypy]\nplugins = recording.py, other.py\nshow_traceback = true\n")
    (directory / "decorators.py").write_text(DECORATORS)
    (directory / "marked.py").write_text(MARKED)
    (directory / "user.py").write_text(USER)
    facts: dict[str, dict[str, Any]] = {}
    for run, config in (("cold", "1"), ("warm", "1"), ("changed", "2")):
        (directory / "run").write_text(run)
        (directory / "config").write_text(config)
        if run == "warm":
            (directory / "user.py").write_text(USER + "\n")
        command = [sys.executable, "-m", "mypy", "user.py", "--cache-dir", "cache"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=55, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        facts[run] = json.loads((directory / run).read_text())
    return facts


def test_a_mark_in_a_fallback_type_survives_the_cache(what_mypy_does: dict[str, dict[str, Any]]) -> None:
    """The last known value of a function type's fallback is still there in a module that mypy has read from its cache."""
    assert [facts["literal"] for facts in what_mypy_does.values()] == ["a mark"] * 3


def test_what_a_plugin_reports_of_itself_is_part_of_the_cache(what_mypy_does: dict[str, dict[str, Any]]) -> None:
    """mypy checks everything anew when what `report_config_data` gives has changed, else only what has changed itself."""
    cold, warm, changed = (facts["asked"].count("decorators.mark") for facts in what_mypy_does.values())
    assert warm < cold == changed


def test_mypy_asks_only_the_first_plugin_that_has_a_hook(what_mypy_does: dict[str, dict[str, Any]]) -> None:
    """A plugin is not asked for a name for which one before it has a hook; the list of all is `plugin._plugins`."""
    assert set(what_mypy_does["cold"]["second"]) == {"decorators.second"}
    assert what_mypy_does["cold"]["plugins"][:2] == ["Recording", "Second"]
    assert what_mypy_does["cold"]["plugins"][-1] == "DefaultPlugin"


def test_mypy_asks_for_local_names_as_they_are_written(what_mypy_does: dict[str, dict[str, Any]]) -> None:
    """For a call of a local variable, mypy asks for a bare name: that of the function type, if it has one."""
    assert [each for each in what_mypy_does["cold"]["asked"] if "." not in each], what_mypy_does["cold"]["asked"]


def test_what_is_private_to_mypy_is_there(what_mypy_does: dict[str, dict[str, Any]]) -> None:
    """Hooks get the type checker; its scope, its stack of error watchers, and what it knows of a partial are where they were."""
    facts = what_mypy_does["cold"]
    assert facts["is_checker"]
    assert facts["scope"] == ["MypyFile", "FuncDef"]
    assert facts["watchers"] == 0
    assert facts["discarding"] == [True, None]
    assert facts["kept"] == []
    assert facts["partial"] == "CallableType"
