"""How event loops end: what runners do, what `close` and `stop` do, and what happens to a loop that is dropped."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import textwrap
import unittest
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

import collector
from conftest import Run, run_on_uvloop
from facts import STEPS_OF_THE_END, NewLoop, forever, open_loop, python, record_the_end, set_to_call_first, this_task
from programs import run_python

# What can be set on a loop.


def test_attributes_can_be_set_on_a_loop(new_loop: NewLoop) -> None:
    """What is set on a loop is in its `vars`, is found before its class's methods, and is gone when deleted."""
    with open_loop(new_loop) as loop:
        for name in ("close", "shutdown_asyncgens", "create_task", "get_task_factory", "_of_our_own"):
            value = object()
            setattr(loop, name, value)
            assert getattr(loop, name) is vars(loop)[name] is value
            del vars(loop)[name]
            assert getattr(loop, name, None) is not value
            assert name not in vars(loop)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="how attributes are kept differs, and cannot be asked for")
def test_how_many_attributes_of_a_loop_are_found_fastest() -> None:
    """A loop stores up to 29 attributes inline; 26 are asyncio's own, 27 from Python 3.14 on: see docs/benchmarks.md."""
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
    own = 27 if sys.version_info >= (3, 14) else 26
    assert printed.split() == [str(own), *(str(own + more <= 29) for more in range(1, 6))]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="how attributes are kept differs")
def test_from_3_14_on_only_what_was_set_while_all_is_stored_inline_is_found_in_a_quick_way() -> None:
    """It is enough that such a name was set first and deleted again, as the library does with its own."""
    printed = python(
        """
        import asyncio, dis

        def instruction(loop, name):
            names = {"loop": loop}
            exec(f"def get(): return loop.{name}", names)
            for _ in range(10_000):
                names["get"]()
            return [each.opname for each in dis.get_instructions(names["get"], adaptive=True) if "ATTR" in each.opname]

        loop = asyncio.new_event_loop()
        loop.of_our_own = None
        del loop.of_our_own
        for number in range(10):
            setattr(loop, f"more_{number}", number)
        loop.of_our_own = None
        print(*instruction(loop, "of_our_own"), *instruction(loop, "more_9"))
        loop.close()
        """
    )
    further = "LOAD_ATTR" if sys.version_info >= (3, 14) else "LOAD_ATTR_WITH_HINT"
    assert printed.split() == ["LOAD_ATTR_WITH_HINT", further]


# What a runner does.


def run_in_test_case(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        async def test_it(self) -> None:
            await main()

    result = unittest.TestResult()
    Case("test_it").run(result)
    assert result.wasSuccessful()


RUNNERS: dict[str, Callable[[Callable[[], Coroutine[Any, Any, None]]], object]] = {
    "asyncio.run": lambda main: asyncio.run(main()),
    "asyncio.Runner with uvloop": lambda main: run_on_uvloop(main()),
    "uvloop.run": lambda main: uvloop.run(main()),
    "anyio.run": anyio.run,
    "anyio.run with uvloop": lambda main: anyio.run(main, backend_options={"use_uvloop": True}),
    "IsolatedAsyncioTestCase": run_in_test_case,
}


@pytest.mark.parametrize("name", list(RUNNERS))
def test_how_a_runner_ends(name: str) -> None:
    """A runner cancels all tasks and waits for them, then shuts down async generators and executor, then closes the loop."""
    order: list[str] = []
    RUNNERS[name](lambda: record_the_end(order))
    assert order == STEPS_OF_THE_END


def test_how_pytest_asyncio_ends_a_loop(tmp_path: Path) -> None:
    """pytest-asyncio, too, cancels all tasks, then shuts down async generators and executor, then closes the loop."""
    tests = Path(__file__).parents[1]
    test = f"""
        import asyncio, json, pathlib, sys
        sys.path[:0] = [{str(tests / "support")!r}, {str(tests)!r}]
        import pytest
        from facts import record_the_end

        order = []

        @pytest.mark.asyncio
        async def test_it():
            await record_the_end(order)

        def test_after():
            pathlib.Path({str(tmp_path / "order")!r}).write_text(json.dumps(order))
    """
    (tmp_path / "test_one.py").write_text(textwrap.dedent(test))
    done = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "order").read_text()) == STEPS_OF_THE_END


def test_a_runner_sees_only_registered_tasks(run: Run) -> None:
    """An unregistered task is still alive when a runner has cancelled all tasks."""
    is_done: list[bool] = []

    async def main() -> None:
        task = asyncio.create_task(forever())
        asyncio._unregister_task(task)

        def end() -> None:
            is_done.append(task.done())
            task.cancel()

        set_to_call_first(asyncio.get_running_loop(), "shutdown_asyncgens", end)

    run(main())
    assert is_done == [False]


def test_at_close_the_executor_and_the_async_generators_are_gone(run: Run) -> None:
    """When a runner calls `close`, the executor takes no more work, and async generators have been closed at their `yield`."""
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

        def before_close() -> None:
            log.append("close")
            with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
                loop.run_in_executor(None, int)

        set_to_call_first(loop, "close", before_close)

    run(main())
    assert log == ["generator closed", "close"]


def test_shutdown_asyncgens_closes_the_generator_of_an_acm() -> None:
    """After `shutdown_asyncgens`, nothing behind the plain `yield` of an `@asynccontextmanager` function runs."""
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


def test_close_sees_the_error_that_the_runner_is_handling(new_loop: NewLoop) -> None:
    """In the `close` that a runner calls, `sys.exception()` is the error that `shutdown_asyncgens` raised."""
    seen: list[object] = []

    async def shut_down() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        loop = asyncio.get_running_loop()
        vars(loop)["shutdown_asyncgens"] = shut_down
        set_to_call_first(loop, "close", lambda: seen.append(type(sys.exception())))

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert seen == [KeyboardInterrupt]


# A loop that somebody drives by hand.


def test_a_running_loop_cannot_be_closed(run: Run) -> None:
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
    """`loop.stop` makes `run_until_complete` raise RuntimeError; the loop can then be run again, with the same future."""
    with open_loop(new_loop) as loop:
        task = loop.create_task(asyncio.sleep(0, "result"))
        loop.stop()
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            loop.run_until_complete(task)
        assert not (task.done() or loop.is_running() or loop.is_closed())
        assert loop.run_until_complete(task) == "result"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_breaks_out_of_a_task_is_its_exception_too(new_loop: NewLoop, error: type[BaseException]) -> None:
    """`run_until_complete` raises the KeyboardInterrupt or SystemExit of a task, and the task has it as its exception too."""

    async def fail() -> None:
        raise error

    with open_loop(new_loop) as loop:
        task = loop.create_task(fail())
        with pytest.raises(error):
            loop.run_until_complete(task)
        assert isinstance(task.exception(), error)


@pytest.mark.parametrize("inner", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the refused coroutine was never awaited
def test_a_loop_can_run_within_another_one(run: Run, inner: NewLoop) -> None:
    """A second loop may run in a thread between `_leave_task`, `_set_running_loop(None)` and their opposites, and only then."""

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), this_task()
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

    run(main())


# A loop that is dropped.


class Closing:
    """A `close` to be set on a loop, which it holds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: list[bool]) -> None:
        self.loop = loop
        self.log = log

    def close(self) -> None:
        self.log.append(gc.is_finalized(self.loop))
        with suppress(OSError, ValueError):  # the collector may have finalized the loop's sockets before it
            type(self.loop).close(self.loop)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dropped_loop_closes_itself_by_what_is_set_on_it() -> None:
    """asyncio's loop that is dropped unclosed calls the `close` that is set on it, and `gc.is_finalized` is then true of it."""
    log: list[bool] = []
    loop = asyncio.new_event_loop()
    vars(loop)["close"] = Closing(loop, log).close
    del loop
    gc.collect()
    assert log == [True]


def test_a_loop_closed_by_hand_is_not_finalized(new_loop: NewLoop) -> None:
    """`gc.is_finalized` is false of a loop whose `close` somebody calls."""
    log: list[bool] = []
    loop = new_loop()
    vars(loop)["close"] = Closing(loop, log).close
    loop.close()
    assert log == [False]


def test_a_uvloop_loop_that_was_never_closed_is_never_freed() -> None:
    """A uvloop loop that has run and was dropped unclosed stays in memory, and nothing of it is called."""
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
    """A loop of asyncio's or uvloop's that has run and was closed holds no reference cycle."""
    with collector.disabled():
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        freed = weakref.ref(loop)
        del loop
        assert freed() is None


@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_is_set_on_a_loop_and_holds_it_keeps_it(new_loop: NewLoop, is_deleted: bool) -> None:
    """A closed loop with a method of an object that holds it is freed by the cycle collector, or once that is deleted."""
    with collector.disabled():
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
