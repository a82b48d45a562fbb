"""A loop on which the library is used behaves as a bare one, whatever its owner does with it."""

from __future__ import annotations

import asyncio
import gc
import sys
import textwrap
import warnings
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import singleton, sticky_singleton_acm
from programs import run_python
from recording import on_one_loop

events: list[str] = []


@sticky_singleton_acm
@asynccontextmanager
async def resource() -> AsyncGenerator[str]:
    events.append("enter")
    yield "value"
    events.append("exit")


async def use() -> str:
    async with resource() as value:
        return value


@pytest.fixture(autouse=True)
def _no_events() -> None:
    events.clear()


@on_one_loop
async def test_a_task_factory_gets_just_what_the_caller_gave() -> None:
    """A factory of the form (loop, coro, context=None) works on an attached loop: no name is added."""
    given: list[dict[str, Any]] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, context=context)

    def recording(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        given.append(kwargs)
        return factory(loop, coro, **{name: value for name, value in kwargs.items() if name == "context"})

    loop = asyncio.get_running_loop()
    loop.set_task_factory(recording)
    bare: list[dict[str, Any]] = []
    for _ in range(2):
        given.clear()
        await loop.create_task(asyncio.sleep(0))
        await asyncio.create_task(asyncio.sleep(0))
        await asyncio.create_task(asyncio.sleep(0), name="n")
        bare = bare or list(given)
        await use()  # attaches the loop
    assert given[:3] == bare[:3]
    loop.set_task_factory(factory)
    await loop.create_task(asyncio.sleep(0))


def test_in_debug_mode_a_task_was_created_at_the_users_line() -> None:
    """The last line of a task's creation traceback is that on a bare loop, also where a task factory makes it."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        created_at: list[list[tuple[str, str | None]]] = []
        for is_attached in (False, True):
            if is_attached:
                await use()
            for each in (None, factory):
                loop.set_task_factory(each)
                task: Any = loop.create_task(asyncio.sleep(0))
                created_at.append([(frame.filename, frame.line) for frame in task._source_traceback])
                await task
        assert created_at[2:] == created_at[:2]
        assert created_at[2][-1] == (__file__, "task: Any = loop.create_task(asyncio.sleep(0))")

    asyncio.run(main(), debug=True)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_a_task_factory_that_a_resource_wraps_and_sets_stays_the_users() -> None:
    """A tracer in a resource wraps the eager task factory. Later tasks of the user are not the resource's: a runner sees them."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def tracer() -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        inner: Any = loop.get_task_factory()

        def traced(*args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs)

        loop.set_task_factory(traced)
        yield

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        async with tracer():
            pass
        task = loop.create_task(asyncio.sleep(60))
        assert task in asyncio.all_tasks()
        events.append("made")

    asyncio.run(main())
    assert events == ["made"]


def test_a_close_method_that_was_looked_up_before_is_named_in_the_warning() -> None:
    """`addCleanup(loop.close)`, written before the loop's first use here, closes past us: the warning says so."""
    loop = asyncio.new_event_loop()
    close = loop.close
    loop.run_until_complete(use())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        close()
        del loop, close
        gc.collect()
    (message,) = [str(each.message) for each in caught if "resource()" in str(each.message)]
    assert "was closed by a close method that was looked up before" in message
    assert "addCleanup(lambda: loop.close())" in message


def ran(program: str) -> str:
    done = run_python("-W", "always", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(program))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


PRELUDE = """
    import asyncio, atexit, multiprocessing, sys, threading
    from contextlib import asynccontextmanager
    from asyncio_loop_local import sticky_singleton_acm

    @sticky_singleton_acm
    @asynccontextmanager
    async def resource():
        print("enter", flush=True)
        yield
        print(await asyncio.to_thread(lambda: "exit in a thread"), flush=True)
        await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        print("exit", flush=True)

    async def use():
        async with resource():
            pass

    loops = []

    def leave_open():
        loops.append(asyncio.new_event_loop())
        loops[0].run_until_complete(use())
"""


ATEXIT = "leave_open(); atexit.register(loops[0].close)"
THREAD = """
    def work():
        with asyncio.Runner() as runner:
            runner.run(use())
            threading.main_thread().join()
    threading.Thread(target=work).start()
"""


@pytest.mark.parametrize("program", [ATEXIT, THREAD], ids=["atexit handler", "thread that outlives the main one"])
def test_threads_work_in_an_exit_at_the_end_of_the_program(program: str) -> None:
    """`asyncio.to_thread` and `getaddrinfo` work in an exit, although the interpreter has shut its thread pools."""
    assert ran(program).splitlines() == ["enter", "exit in a thread", "exit"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_loop_that_a_child_process_leaves_open_is_ended_and_warned_of(method: str, tmp_path: Any) -> None:
    """A child of `multiprocessing` forgets its `atexit` list, and may leave by `os._exit`: its loop is ended all the same."""
    file = tmp_path / "program.py"
    main = f"""
    if __name__ == "__main__":
        child = multiprocessing.get_context({method!r}).Process(target=leave_open)
        child.start()
        child.join()
        sys.exit(child.exitcode)
    """
    file.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(main), encoding="utf-8")
    done = run_python(file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["enter", "exit in a thread", "exit"]
    if method != "fork":  # whose child has the parent's filters, as a program has them by default
        return
    assert "was still open when the interpreter exited" in run_python("-W", "always", file).stderr


def test_a_wrapped_coroutine_function_can_be_called_where_no_loop_runs() -> None:
    """Its result is a coroutine of no loop yet; awaited, it is what a call on that loop gives."""
    runs: list[int] = []

    @singleton
    async def compute(number: int = 1) -> int:
        runs.append(number)
        return number + 1

    assert asyncio.run(compute()) == 2
    with asyncio.Runner() as runner:
        assert runner.run(compute(2)) == 3
        assert runner.get_loop().run_until_complete(compute(2)) == 3

        async def again() -> int:
            return await compute(number=2)

        assert runner.run(again()) == 3
    assert runs == [1, 2]


def test_an_unawaited_call_where_no_loop_runs_warns_as_a_plain_coroutine() -> None:
    """Nothing has run, so Python says that it was never awaited, under the function's name."""

    @singleton
    async def compute() -> None: ...

    with pytest.warns(RuntimeWarning, match=r"coroutine '.*compute' was never awaited"):
        _ = compute()
        del _
        gc.collect()


class Foreign(Coroutine[Any, Any, int]):
    """A coroutine of another make, as of Cython, mypyc and uvloop: good once."""

    def __init__(self) -> None:
        self._steps = iter(asyncio.sleep(0).__await__())
        self._done = False

    def send(self, value: Any, /) -> Any:
        if self._done:
            return None  # as those of mypyc do: a second await gives None
        try:
            return next(self._steps)
        except StopIteration:
            self._done = True
            raise StopIteration(7) from None

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any:
        raise typ

    def close(self) -> None:
        self._done = True

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Foreign:
        return self

    def __next__(self) -> Any:
        return self.send(None)


@on_one_loop
async def test_a_coroutine_of_another_make_is_shared_like_pythons() -> None:
    """Whatever asyncio takes for a coroutine can be awaited any number of times."""

    @singleton
    def compute() -> Coroutine[Any, Any, int]:
        return Foreign()

    assert [await compute() for _ in range(3)] == [7, 7, 7]
    assert list(await asyncio.gather(compute(), compute())) == [7, 7]
