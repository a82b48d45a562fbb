"""What asyncio does that is private or surprising, and that the library needs: tasks, futures, contexts, locks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
from asyncio.tasks import _enter_task, _leave_task, _unregister_task  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, cast

import anyio
import pytest

from facts import NewLoop, forever, open_loop, this_task
from recording import on_each_loop

# Tasks that no runner sees.


@on_each_loop
async def test_an_unregistered_task_is_not_in_all_tasks() -> None:
    """`_unregister_task` removes a task from `asyncio.all_tasks`, may be called twice, and leaves the other tasks there."""
    task, other = asyncio.create_task(forever()), asyncio.create_task(forever())
    assert {task, other} <= asyncio.all_tasks()
    _unregister_task(task)
    _unregister_task(task)
    assert task not in asyncio.all_tasks()
    assert other in asyncio.all_tasks()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@on_each_loop
async def test_an_unregistered_task_works_as_the_current_task() -> None:
    """`asyncio.current_task`, `asyncio.timeout` and `asyncio.TaskGroup` work in a task that is unregistered."""

    async def work() -> asyncio.Task[Any]:
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(0), asyncio.TaskGroup() as group:
                group.create_task(forever())
        return this_task()

    task = asyncio.create_task(work())
    _unregister_task(task)
    assert await task is task


@on_each_loop
async def test_a_running_task_may_be_unregistered() -> None:
    """A task may unregister itself while it runs, as an eager one has to."""
    task = this_task()
    _unregister_task(task)
    await asyncio.sleep(0)
    assert asyncio.current_task() is task
    assert task not in asyncio.all_tasks()


def test_tasks_of_the_python_class_are_unknown_to_c_from_314_on() -> None:
    """`current_task` and `all_tasks` see a task of asyncio's Python class up to 3.13; the dict of running tasks, always."""
    in_tasks: Any = asyncio.tasks
    seen: list[tuple[bool, bool, bool]] = []

    async def work() -> None:
        seen.append(
            (
                asyncio.current_task() is task,
                task in asyncio.all_tasks(),
                in_tasks._current_tasks.get(asyncio.get_running_loop()) is task,
            )
        )

    with open_loop(asyncio.new_event_loop) as loop:
        task = in_tasks._PyTask(work(), loop=loop)
        loop.run_until_complete(task)
        if sys.version_info >= (3, 14):
            pending = in_tasks._PyTask(asyncio.sleep(0), loop=loop)
            assert in_tasks._py_all_tasks(loop) == {pending}
            in_tasks._py_unregister_task(pending)
            assert not in_tasks._py_all_tasks(loop)
            loop.run_until_complete(pending)
    is_known = sys.version_info < (3, 14)
    assert seen == [(is_known, is_known, True)]


@pytest.mark.parametrize("is_quiet", [False, True])
def test_log_destroy_pending_silences_a_dropped_task(is_quiet: bool) -> None:
    """A pending task that is dropped is logged, unless its `_log_destroy_pending` is False."""
    messages: list[str] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: messages.append(context["message"]))
    task: Any = loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = not is_quiet
    _unregister_task(task)
    del task
    loop.close()
    gc.collect()
    assert messages == ([] if is_quiet else ["Task was destroyed but it is pending!"])


# How tasks are made, and in which context.


def test_a_task_made_directly_bypasses_the_loop(new_loop: NewLoop) -> None:
    """`asyncio.Task(…, loop=…)` calls neither the loop's task factory nor its `create_task`, and takes a context and a name."""
    var = ContextVar[int]("var")

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        raise AssertionError

    async def get() -> int:
        return var.get()

    with open_loop(new_loop) as loop:
        loop.set_task_factory(factory)
        vars(loop)["create_task"] = factory
        context = Context()
        context.run(var.set, 3)
        task = asyncio.Task(get(), loop=loop, context=context, name="name")
        assert loop.run_until_complete(task) == 3
        assert task.get_name() == "name"


@on_each_loop
async def test_create_task_in_a_context_copies_that_context() -> None:
    """`context.run(loop.create_task, …)` gives the task a copy of that context, without `context=`."""
    var = ContextVar("var", default=0)

    async def change() -> int:
        var.set(var.get() + 1)
        return var.get()

    context = copy_context()
    context.run(var.set, 5)
    assert await context.run(asyncio.get_running_loop().create_task, change()) == 6
    assert (context[var], var.get()) == (5, 0)


def test_every_way_to_make_a_task_calls_create_task_as_set_on_the_loop(new_loop: NewLoop) -> None:
    """`asyncio.create_task`, `ensure_future`, `gather`, `TaskGroup` and anyio call a `create_task` that is set on the loop."""
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

    @on_each_loop
    async def test_a_task_may_start_at_once() -> None:
        """`asyncio.Task(…, eager_start=True)` runs to its first wait while it is made: as the current task, in its context."""
        var = ContextVar("var", default="caller's")
        seen: list[object] = []

        async def start(*waits: None) -> None:
            seen.extend([asyncio.current_task(), var.get()])
            for _ in waits:
                await asyncio.sleep(0)
                seen.append(asyncio.current_task())

        loop, caller, context = asyncio.get_running_loop(), asyncio.current_task(), copy_context()
        context.run(var.set, "task's")
        task: asyncio.Task[None] = asyncio.Task(start(None), loop=loop, context=context, eager_start=True, name="name")
        assert not task.done()
        assert seen == [task, "task's"]
        assert (asyncio.current_task(), var.get()) == (caller, "caller's")
        assert task in asyncio.all_tasks()
        _unregister_task(task)
        await task
        assert seen == [task, "task's", task]
        done: asyncio.Task[None] = asyncio.Task(start(), loop=loop, context=context, eager_start=True)
        assert done.done()
        assert done not in asyncio.all_tasks()

    @on_each_loop
    async def test_a_task_that_starts_at_once_keeps_its_error() -> None:
        """What a task raises that starts at once is its exception; making it raises KeyboardInterrupt too."""

        async def fail(kind: type[BaseException]) -> None:
            raise kind

        loop = asyncio.get_running_loop()
        task: asyncio.Task[None] = asyncio.Task(fail(ZeroDivisionError), loop=loop, eager_start=True)
        assert isinstance(task.exception(), ZeroDivisionError)
        with pytest.raises(KeyboardInterrupt):
            asyncio.Task(fail(KeyboardInterrupt), loop=loop, eager_start=True)

    def make_task(coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, **options)

    def test_an_eager_task_factory_has_its_class_in_its_closure() -> None:
        """All eager factories have the same code; the one cell of their closure holds what makes their tasks."""
        ours: Any = make_task
        factories: dict[Any, Any] = {
            asyncio.Task: asyncio.eager_task_factory,
            ours: asyncio.create_eager_task_factory(ours),
        }
        for made_by, factory in factories.items():
            assert factory.__code__ is asyncio.eager_task_factory.__code__
            assert [cell.cell_contents for cell in factory.__closure__] == [made_by]

    # Not with uvloop, which fails with eager factories on Python 3.13.0.

    def test_anyio_takes_from_an_eager_factory_what_makes_its_tasks() -> None:
        """Where `get_task_factory`, set on the loop, gives an eager factory, anyio calls what that has in its closure."""
        made: list[object] = []

        def make(coro: Any, **options: Any) -> Any:
            made.append(coro)
            return make_task(coro, **options)

        async def main() -> None:
            vars(asyncio.get_running_loop())["get_task_factory"] = lambda: asyncio.create_eager_task_factory(make)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(asyncio.sleep, 0)

        with open_loop(asyncio.new_event_loop) as loop:
            loop.set_task_factory(asyncio.eager_task_factory)
            loop.run_until_complete(main())
        assert len(made) == 1


# How tasks end, and what is then called.


@on_each_loop
async def test_cancelling_counts_requests_from_outside() -> None:
    """`cancelling()` counts calls of `cancel()`; it is zero in a task that raised CancelledError itself."""

    async def raise_it() -> None:
        raise asyncio.CancelledError

    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await forever()
        assert this_task().cancelling() == 1
        assert this_task().uncancel() == 0
        await asyncio.sleep(0)

    own, cancelled, swallowing = (asyncio.create_task(each) for each in (raise_it(), forever(), swallow()))
    await asyncio.sleep(0)
    cancelled.cancel()
    swallowing.cancel()
    await asyncio.wait([own, cancelled, swallowing])
    assert (own.cancelled(), own.cancelling()) == (True, 0)
    assert (cancelled.cancelled(), cancelled.cancelling()) == (True, 1)
    assert not swallowing.cancelled()
    await swallowing


@on_each_loop
async def test_done_callbacks_run_in_the_next_turn_of_the_loop() -> None:
    """A task or future that is done calls its callbacks in the loop's next turn, not at once."""
    log: list[str] = []
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: log.append("of a task"))
    while not task.done():
        await asyncio.sleep(0)
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    done.add_done_callback(lambda _: log.append("of a future"))
    assert "of a future" not in log
    await asyncio.sleep(0)
    assert log == ["of a task", "of a future"]


@on_each_loop
async def test_an_exception_that_was_retrieved_is_not_reported() -> None:
    """A dropped task reports that its exception was never retrieved, unless its `exception()` was called."""
    messages: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: messages.append(context["message"]))
    for is_retrieved in (True, False):
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        if is_retrieved:
            task.exception()
        del task
        gc.collect()
        assert messages == ([] if is_retrieved else ["Task exception was never retrieved"])


@on_each_loop
async def test_the_callback_of_a_future_makes_the_next_step_of_the_task_that_waits_for_it() -> None:
    """It is the future's one callback, with the task's context; taken from the future and called, it steps the task."""
    var: ContextVar[str] = ContextVar("var")
    seen: list[object] = []

    async def wait(future: asyncio.Future[str]) -> None:
        var.set("of the task")
        seen.extend([await future, asyncio.current_task(), var.get()])

    loop, own = asyncio.get_running_loop(), this_task()
    var.set("of main")
    future: asyncio.Future[str] = loop.create_future()
    task = asyncio.create_task(wait(future))
    await asyncio.sleep(0)
    callbacks: list[tuple[Callable[[object], None], Context]] = vars(type(future))["_callbacks"].__get__(future)
    [(wake, context)] = callbacks
    assert future.remove_done_callback(wake) == 1
    future.set_result("result")
    with pytest.raises(RuntimeError, match="while another task"):
        context.run(wake, future)
    assert seen == []  # the refused step has not begun
    _leave_task(loop, own)
    context.run(wake, future)
    _enter_task(loop, own)
    assert seen == ["result", task, "of the task"]
    assert task.done()
    assert (asyncio.current_task(), var.get()) == (own, "of main")
    await task


# What must be left in the task, or the context, in which it was entered.


@on_each_loop
async def test_a_cancel_scope_must_be_left_in_its_task() -> None:
    """anyio's cancel scopes raise RuntimeError when they are left in another task than the one that entered them."""

    async def enter() -> None:
        scope.__enter__()

    scope = anyio.CancelScope()
    await asyncio.create_task(enter())
    with pytest.raises(RuntimeError, match="different task than it was entered in"):
        scope.__exit__(None, None, None)


@on_each_loop
async def test_a_timeout_cancels_the_task_that_entered_it() -> None:
    """`asyncio.timeout` cancels the task that entered it."""

    async def enter() -> None:
        await timeout.__aenter__()
        is_entered.set()
        await forever()

    timeout, is_entered = asyncio.timeout(0), asyncio.Event()
    task = asyncio.create_task(enter())
    await is_entered.wait()
    await asyncio.wait([task])
    assert task.cancelled()
    assert timeout.expired()


@on_each_loop
async def test_a_task_group_cancels_the_task_that_entered_it() -> None:
    """When a task of an `asyncio.TaskGroup` fails, the group cancels the task that entered it."""

    async def fail() -> None:
        raise ZeroDivisionError

    async def enter(group: asyncio.TaskGroup) -> None:
        await group.__aenter__()
        group.create_task(fail())
        await forever()

    task = asyncio.create_task(enter(asyncio.TaskGroup()))
    await asyncio.wait([task])
    assert task.cancelled()


def test_a_context_variable_must_be_reset_in_its_context() -> None:
    """`ContextVar.reset` raises ValueError in another context than the one in which its token was made."""
    var = ContextVar[int]("var")
    token = copy_context().run(var.set, 3)
    with pytest.raises(ValueError, match="was created in a different Context"):
        var.reset(token)


# Coroutines.


def test_current_task_needs_a_loop() -> None:
    """`asyncio.current_task` raises RuntimeError where no loop runs, as where the garbage collector closes a coroutine."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.current_task()


def test_how_a_function_is_marked_as_a_coroutine_function() -> None:
    """`inspect.markcoroutinefunction` marks a function whose calls give coroutines; before Python 3.12, asyncio's mark does."""

    def function() -> Any: ...

    marked: Any = function
    if sys.version_info >= (3, 12):
        assert not inspect.iscoroutinefunction(marked)
        inspect.markcoroutinefunction(marked)
        assert inspect.iscoroutinefunction(marked)
    else:
        is_marked: Any = vars(asyncio)["iscoroutinefunction"]
        assert not is_marked(marked)
        marked._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # that is the fact
        assert is_marked(marked)
        assert not inspect.iscoroutinefunction(marked)


class OwnCoroutine(Coroutine[Any, Any, str]):
    """Has all the methods of a native coroutine, without being one."""

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


@on_each_loop
async def test_asyncio_takes_any_coroutine() -> None:
    """asyncio runs an instance of any class of `collections.abc.Coroutine`, by its `send` and `throw`, in the task made of it."""
    coroutine = OwnCoroutine()
    is_coroutine: list[Callable[[object], bool]] = [asyncio.iscoroutine, inspect.iscoroutine]
    assert [ask(coroutine) for ask in is_coroutine] == [True, False]
    task = asyncio.create_task(coroutine)
    assert await task == "result"
    assert coroutine.log[:2] == ["send", task]
    thrown = OwnCoroutine()
    task = asyncio.create_task(thrown)
    if "send" not in thrown.log:  # an eager factory has started it already
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert thrown.log.count("throw") == 1
    assert await asyncio.wait_for(OwnCoroutine(), 5) == "result"
    assert list(await asyncio.gather(OwnCoroutine())) == ["result"]


def test_a_class_may_be_a_dict_and_a_lock() -> None:
    """One class can have the bases `dict` and `asyncio.Lock`; its first wait binds it to a loop, and the error shows its repr."""

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

    async def acquire_twice(lock: asyncio.Lock) -> None:
        await lock.acquire()
        await lock.acquire()

    both = Both()
    both["a"] = 1
    asyncio.run(meet(both))
    assert both == {"a": 1}
    with pytest.raises(RuntimeError, match="<the repr> is bound to a different event loop"):
        asyncio.run(acquire_twice(both))


def test_a_default_executor_must_be_a_thread_pool(new_loop: NewLoop) -> None:
    """asyncio's `set_default_executor` refuses what is no `ThreadPoolExecutor`, and takes a subclass that overrides `submit`."""

    class Own(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            callers.append(threading.current_thread())
            return super().submit(fn, *args, **kwargs)

    callers: list[threading.Thread] = []
    with open_loop(new_loop) as loop:
        if new_loop is asyncio.new_event_loop:
            with pytest.raises(TypeError):
                loop.set_default_executor(cast("ThreadPoolExecutor", object()))
        loop.set_default_executor(Own())
        assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0
        loop.run_until_complete(loop.shutdown_default_executor())
    assert callers == [threading.current_thread()]
