"""A coroutine function as a singleton: one coroutine a key, which any number of tasks may await."""

from __future__ import annotations

import asyncio
import collections.abc
import functools
import gc
import inspect
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

import pytest

import collector
from asyncio_loop_local import aclose, atexit, enter, release, singleton, sticky_singleton_acm
from conftest import Run

T = TypeVar("T")


class Work:
    """An asynchronous function that waits until it is let go, and knows how often it has begun and how it ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.log: list[str] = []
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_unwind = asyncio.Event()
        self.may_unwind.set()
        self.error: BaseException | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        self.log.append(f"begin {number}")
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.log.append(f"cancelled {number}")
            await self.may_unwind.wait()
            self.log.append(f"unwound {number}")
            raise
        if self.error is not None:
            raise self.error
        self.log.append(f"end {number}")
        return number


async def awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def in_task(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


async def turns() -> None:
    """Lets everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


class Recorder:
    """Keeps what is given to a loop's exception handler."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []

    def listen(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.contexts.append(context))


# One object a key, awaited any number of times.


def test_one_object_a_key(run: Run) -> None:
    """Equal calls, however they are written, give the same object; others give another one."""

    @singleton
    async def token(user: str, scope: str = "all") -> str:
        return f"{user}/{scope}"

    async def main() -> None:
        assert token("a") is token(user="a") is token("a", "all") is token(scope="all", user="a")
        assert token("a") is not token("b")
        assert [await token("a"), await token("b"), await token("a")] == ["a/all", "b/all", "a/all"]
        assert token("a") is token("a")

    run(main())


@pytest.mark.parametrize("value", [None, object()], ids=["None", "object"])
def test_awaited_many_times_by_many_tasks(run: Run, value: object) -> None:
    """The function runs once, not at the call but at the first await, however many tasks await the object however often."""
    calls: list[str] = []

    @singleton
    async def token() -> object:
        calls.append("called")
        await asyncio.sleep(0)
        return value

    async def main() -> None:
        async def three_times() -> list[object]:
            return [await token(), await token(), await token()]

        shared = token()
        await turns()
        assert calls == []
        results = await asyncio.gather(*(three_times() for _ in range(20)))
        assert await shared is value
        assert all(each == [value] * 3 for each in results)

    run(main())
    assert calls == ["called"]


# Whatever takes a coroutine takes it.


Taker = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]


async def by_task_group(shared: Coroutine[Any, Any, T]) -> T:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shared)
    return task.result()


async def by_timeout(shared: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(30):
        return await shared


async def by_gather(shared: Coroutine[Any, Any, T]) -> T:
    one, other = await asyncio.gather(shared, shared)
    assert one is other
    return one


async def by_another_thread(shared: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(shared, loop).result(30))


async def by_yield_from(shared: Coroutine[Any, Any, T]) -> T:
    class Wrapper:
        def __await__(self) -> Any:
            return (yield from shared.__await__())

    result: T = await Wrapper()
    return result


TAKERS: dict[str, Taker] = {
    "await": awaited,
    "create_task": lambda shared: asyncio.create_task(shared, name="a name"),
    "loop.create_task": lambda shared: asyncio.get_running_loop().create_task(shared),
    "create_task in a context": lambda shared: asyncio.create_task(shared, context=copy_context()),
    "Task": asyncio.Task,
    "TaskGroup": by_task_group,
    "wait_for": lambda shared: asyncio.wait_for(shared, 30),
    "wait_for without a timeout": lambda shared: asyncio.wait_for(shared, None),
    "timeout": by_timeout,
    "gather": by_gather,
    "ensure_future": asyncio.ensure_future,
    "shield": asyncio.shield,
    "as_completed": lambda shared: next(iter(asyncio.as_completed([shared]))),
    "run_coroutine_threadsafe": by_another_thread,
    "yield from": by_yield_from,
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=list(TAKERS))
def test_all_that_takes_a_coroutine_takes_it(run: Run, take: Taker) -> None:
    """Before its first run, while it runs and afterwards, any taker of coroutines gets the one result."""
    calls: list[str] = []

    @singleton
    async def token() -> object:
        calls.append("called")
        await turns()
        return object()

    async def main() -> None:
        first = asyncio.create_task(awaited(take(token())))
        during = [asyncio.create_task(awaited(take(token()))) for _ in range(3)]
        results = [await first, *await asyncio.gather(*during), await take(token()), await token()]
        assert {id(result) for result in results} == {id(results[0])}

    run(main())
    assert calls == ["called"]


@pytest.mark.parametrize("take", TAKERS.values(), ids=list(TAKERS))
def test_all_that_takes_a_coroutine_gets_its_error(run: Run, take: Taker) -> None:
    """The function's own error comes out of any taker, as it is or in the group that the taker makes."""

    class Refused(Exception):
        pass

    @singleton
    async def token() -> str:
        await turns()
        raise Refused

    async def main() -> None:
        for _ in range(2):
            try:
                await take(token())
            except* Refused as group:
                assert len(group.exceptions) == 1
            else:
                raise AssertionError("nothing was raised")

    run(main())


def test_asyncio_run_and_runner(run: Run) -> None:
    """`asyncio.run` takes the object: it was made on another loop, and runs anew on its own."""
    calls: list[asyncio.AbstractEventLoop] = []

    @singleton
    async def token() -> str:
        calls.append(asyncio.get_running_loop())
        return "t"

    async def main() -> Coroutine[Any, Any, str]:
        shared = token()
        assert await shared == "t"
        return shared

    shared = run(main())
    assert asyncio.run(shared) == "t"
    assert run(shared) == "t"
    assert len(set(map(id, calls))) == len(calls) == 3


def test_run_until_complete(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """`run_until_complete` takes it, on the loop on which it was made, as often as one likes."""
    calls: list[str] = []

    @singleton
    async def token() -> str:
        calls.append("called")
        return "t"

    async def make() -> Coroutine[Any, Any, str]:
        return token()

    loop = new_loop()
    try:
        shared = loop.run_until_complete(make())
        assert [loop.run_until_complete(shared), loop.run_until_complete(shared)] == ["t", "t"]
    finally:
        loop.close()
    assert calls == ["called"]


def test_what_it_is(run: Run) -> None:
    """It is a `collections.abc.Coroutine` and an awaitable, to asyncio and inspect too, with the function's name."""

    @singleton
    async def token() -> str:
        return "t"

    async def main() -> None:
        shared: Any = token()
        kinds = collections.abc.Coroutine, collections.abc.Awaitable
        assert [isinstance(shared, kind) for kind in kinds] == [True, True]
        tests: list[Callable[[object], bool]] = [inspect.isawaitable, asyncio.iscoroutine]
        assert [test(shared) for test in tests] == [True, True]
        assert shared.__name__ == "token"
        assert shared.__qualname__ == "test_what_it_is.<locals>.token"
        assert shared.cr_code.co_name == "token"
        assert (shared.cr_await, shared.cr_frame, shared.cr_origin, shared.cr_running) == (None, None, None, False)
        assert "token" in repr(shared)
        assert "not started" in repr(shared)
        task = asyncio.create_task(shared)
        assert "token" in repr(task)
        assert isinstance(task.get_stack(), list)
        await task
        assert "done" in repr(shared)
        assert "token" in repr(task)

    run(main())


def test_the_wrapper_is_a_coroutine_function() -> None:
    """`inspect.iscoroutinefunction`, or before Python 3.12 asyncio's, knows that the wrapper's calls give coroutines."""

    @singleton
    async def asynchronous() -> None:
        """Do something."""

    @singleton
    def synchronous() -> None: ...

    is_coroutine_function: Callable[[object], bool] = inspect.iscoroutinefunction
    if not hasattr(inspect, "markcoroutinefunction"):
        is_coroutine_function = asyncio.iscoroutinefunction
    assert is_coroutine_function(asynchronous)
    assert not is_coroutine_function(synchronous)
    assert asynchronous.__doc__ == "Do something."


# The protocol itself: send, throw and close, for each task on its own.


def test_send_drives_it_as_a_coroutine(run: Run) -> None:
    """`send` behaves as a coroutine's: None first, what the loop waits for out of it, the value as `StopIteration`."""

    @singleton
    async def token() -> str:
        return "t"

    async def main() -> None:
        shared = token()
        with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
            shared.send(1)
        assert await shared == "t"
        with pytest.raises(StopIteration) as caught:
            shared.send(None)
        assert caught.value.value == "t"
        with pytest.raises(StopIteration):
            shared.send(None)

    run(main())


def test_throw_before_and_while_it_waits(run: Run) -> None:
    """`throw` raises in the place where that task waits, or at once if it does not, and lets the run go on for others."""

    class Thrown(Exception):
        pass

    async def main() -> None:
        work = Work()
        shared = singleton(work)()
        for args in (Thrown(),), (Thrown,), (Thrown, Thrown("value")), (Thrown, None, None):
            throw: Any = shared.throw
            with pytest.raises(Thrown):
                throw(*args)
        other = asyncio.create_task(awaited(shared))
        await work.started.wait()
        assert shared.send(None) is not None
        with pytest.raises(Thrown, match="here"):
            shared.throw(Thrown("here"))
        work.may_end.set()
        assert await other == 1
        with pytest.raises(Thrown):
            shared.throw(Thrown())
        assert await shared == 1

    run(main())


def test_close_ends_the_waiting_of_that_task_alone(run: Run) -> None:
    """`close` ends only that task's own waiting; the object can still be awaited. It needs no running loop."""

    async def main() -> Coroutine[Any, Any, int]:
        work = Work()
        shared = singleton(work)()
        shared.close()
        other = asyncio.create_task(awaited(shared))
        await work.started.wait()
        shared.send(None)
        shared.close()
        shared.close()
        work.may_end.set()
        assert [await other, await shared] == [1, 1]
        assert work.begun == 1
        return shared

    shared = run(main())
    shared.close()

    @singleton
    async def token() -> str:
        return "t"

    async def make() -> Coroutine[Any, Any, str]:
        return token()

    not_started = run(make())
    not_started.close()
    assert run(not_started) == "t"


def test_several_tasks_drive_the_same_object_and_one_is_cancelled(run: Run) -> None:
    """Each task that asyncio makes of the same object is a waiter of its own: one can be cancelled, the others go on."""

    async def main() -> None:
        work = Work()
        shared = singleton(work)()
        tasks = [asyncio.create_task(shared) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(shared), group.create_task(shared)]
            await work.started.wait()
            await turns()
            for index in (0, 2, 5):
                tasks[index].cancel("mine")
            await asyncio.wait([tasks[index] for index in (0, 2, 5)])
            assert not tasks[1].done()
            work.may_end.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [
            asyncio.CancelledError if index in {0, 2, 5} else int for index in range(6)
        ]
        assert work.log == ["begin 1", "end 1"]

    run(main())


def test_a_task_of_it_that_is_cancelled_before_it_has_begun(run: Run) -> None:
    """A task that is cancelled before its first step starts no run, and warns of nothing."""

    async def main() -> None:
        work = Work()
        shared = singleton(work)()
        task = asyncio.Task(shared)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await turns()
        assert work.log == []
        work.may_end.set()
        assert await shared == 1

    run(main())
    gc.collect()


def test_a_timeout_is_that_awaiters_own(run: Run) -> None:
    """`wait_for` and `asyncio.timeout` that run out end one wait; another goes on and gets the result."""

    async def main() -> None:
        work = Work()
        shared = singleton(work)()
        patient = asyncio.create_task(shared)
        await work.started.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(shared, 0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await shared
        work.may_end.set()
        assert await patient == 1

    run(main())


# Where it runs.


def test_it_runs_in_a_task_of_its_own_with_a_copy_of_the_first_awaiters_context(run: Run) -> None:
    """The function sees the first awaiter's context variables, changes none of them, and runs in none of the awaiters' tasks."""
    var: ContextVar[str] = ContextVar("var", default="unset")
    tasks: list[asyncio.Task[Any] | None] = []

    @singleton
    async def token() -> str:
        tasks.append(asyncio.current_task())
        seen = var.get()
        var.set("changed")
        await turns()
        return seen

    async def awaiter(name: str) -> tuple[str, str]:
        var.set(name)
        tasks.append(asyncio.current_task())
        return await token(), var.get()

    async def main() -> None:
        var.set("caller's")
        not_awaited_here = token()
        first = asyncio.create_task(awaiter("first"))
        second = asyncio.create_task(awaiter("second"))
        assert [await first, await second] == [("first", "first"), ("first", "second")]
        assert token() is not_awaited_here
        assert var.get() == "caller's"

    run(main())
    assert len(set(map(id, tasks))) == len(tasks) == 3


# Cancellation.


@pytest.mark.parametrize("which", [0, 1, 2], ids=["first", "middle", "last"])
def test_one_awaiters_cancellation_is_its_own(run: Run, which: int) -> None:
    """Whichever of three awaiters is cancelled, the first too, the other two get the result of the one run."""

    async def main() -> None:
        work = Work()
        token = singleton(work)
        awaiters = [asyncio.create_task(in_task(token)) for _ in range(3)]
        await work.started.wait()
        await turns()
        awaiters[which].cancel()
        await asyncio.wait([awaiters[which]])
        assert awaiters[which].cancelled()
        await turns()
        work.may_end.set()
        others = [task for task in awaiters if task is not awaiters[which]]
        assert await asyncio.gather(*others) == [1, 1]
        assert work.log == ["begin 1", "end 1"]

    run(main())


def test_the_last_awaiter_that_is_cancelled_cancels_the_run(run: Run) -> None:
    """The run goes on as long as anybody waits, and is cancelled with the last."""

    async def main() -> None:
        work = Work()
        token = singleton(work)
        awaiters = [asyncio.create_task(in_task(token)) for _ in range(3)]
        await work.started.wait()
        for awaiter in awaiters[:2]:
            awaiter.cancel()
        await asyncio.wait(awaiters[:2])
        await turns()
        assert work.log == ["begin 1"]
        awaiters[2].cancel()
        await asyncio.wait(awaiters)
        await turns()
        assert work.log == ["begin 1", "cancelled 1", "unwound 1"]

    run(main())


@pytest.mark.parametrize("same_object", [False, True])
def test_the_next_call_starts_anew_at_once_while_the_old_run_unwinds(run: Run, same_object: bool) -> None:
    """After the last cancellation neither a new call nor the same object waits for the old run to have cleaned up."""

    async def main() -> None:
        work = Work()
        work.may_unwind.clear()
        token = singleton(work)
        shared = token()
        awaiter = asyncio.create_task(awaited(shared))
        await work.started.wait()
        awaiter.cancel()
        await asyncio.wait([awaiter])
        work.may_end.set()
        assert await (shared if same_object else token()) == 2
        assert work.log == ["begin 1", "cancelled 1", "begin 2", "end 2"]
        work.may_unwind.set()
        await turns()
        assert work.log[-1] == "unwound 1"
        assert await token() == 2

    run(main())


def test_a_new_awaiter_in_the_same_turn_as_the_last_cancellation(run: Run) -> None:
    """An awaiter that comes before the cancelled one has noticed keeps the run alive, or gets a new one: never an error."""

    async def main() -> None:
        work = Work()
        token = singleton(work)
        old = asyncio.create_task(in_task(token))
        await work.started.wait()
        old.cancel()
        new = asyncio.create_task(in_task(token))
        work.may_end.set()
        assert await new in {1, 2}
        assert old.cancelled()

    run(main())


def test_a_run_that_ignores_its_cancellation_disturbs_nobody(run: Run) -> None:
    """The result of an abandoned run that ends all the same is not given to the next call."""
    log: list[str] = []

    async def main() -> None:
        may_end, started = asyncio.Event(), asyncio.Event()

        @singleton
        async def stubborn() -> int:
            log.append("begin")
            number = len(log)
            started.set()
            while number == 1 and not may_end.is_set():
                try:
                    await may_end.wait()
                except asyncio.CancelledError:
                    log.append("ignored")
            return number

        awaiter = asyncio.create_task(in_task(stubborn))
        await started.wait()
        await turns()
        awaiter.cancel()
        await asyncio.wait([awaiter])
        assert await stubborn() == 3
        may_end.set()
        await turns()
        assert await stubborn() == 3

    run(main())
    assert log == ["begin", "ignored", "begin"]


@pytest.mark.parametrize("moment", ["before", "in the turn before", "in the turn after"])
def test_an_error_of_an_abandoned_run_is_reported(run: Run, moment: str) -> None:
    """A run's error goes to the loop's exception handler, once, if its last awaiter is cancelled before or in the same turn."""
    recorder = Recorder()

    async def main() -> None:
        recorder.listen()
        started = asyncio.Event()

        @singleton
        async def token() -> str:
            started.set()
            await asyncio.sleep(0)
            try:
                if moment == "before":
                    await asyncio.Event().wait()
            finally:
                if moment == "in the turn before":
                    awaiter.cancel()
                elif moment == "in the turn after":
                    asyncio.get_running_loop().call_soon(awaiter.cancel)
                raise ValueError("unheard")

        awaiter = asyncio.create_task(in_task(token))
        if moment == "before":
            await started.wait()
            await turns()
            awaiter.cancel()
        await asyncio.wait([awaiter])
        assert awaiter.cancelled()
        await turns()

    run(main())
    assert [str(context["exception"]) for context in recorder.contexts] == ["unheard"]
    assert "token() failed when nobody waited for it any more" in recorder.contexts[0]["message"]


def test_a_result_and_a_cancellation_in_the_same_turn(run: Run) -> None:
    """An awaiter that is cancelled when the result is already there is cancelled; the result is kept or made anew."""

    async def main() -> None:
        work = Work()
        token = singleton(work)
        awaiter = asyncio.create_task(in_task(token))
        await work.started.wait()
        work.may_end.set()
        while "end 1" not in work.log:
            await asyncio.sleep(0)
        awaiter.cancel()
        await asyncio.wait([awaiter])
        assert await token() in {1, 2}

    run(main())


# A run that is cancelled from outside.


def test_when_the_run_is_cancelled_from_outside_those_who_wait_begin_anew(run: Run) -> None:
    """Whoever cancels all tasks of the loop but some: those who still wait start a new run, and get its result."""

    async def main() -> None:
        work = Work()
        token = singleton(work)
        awaiters = [asyncio.create_task(in_task(token)) for _ in range(3)]
        await work.started.wait()
        await turns()
        (run_task,) = asyncio.all_tasks() - {*awaiters, asyncio.current_task()}
        run_task.cancel()
        await asyncio.wait([run_task])
        await turns()
        work.may_end.set()
        assert await asyncio.gather(*awaiters) == [2, 2, 2]
        assert work.log == ["begin 1", "cancelled 1", "unwound 1", "begin 2", "end 2"]

    run(main())


def test_a_new_run_has_the_context_of_one_who_waits(run: Run) -> None:
    """The run that begins anew has the context of an awaiter that is still there, not of the one that first began it."""
    var: ContextVar[str] = ContextVar("var")

    async def main() -> None:
        started, may_end = asyncio.Event(), asyncio.Event()

        @singleton
        async def token() -> str:
            started.set()
            await may_end.wait()
            return var.get()

        async def awaiter(name: str) -> str:
            var.set(name)
            return await token()

        first = asyncio.create_task(awaiter("first"))
        await started.wait()
        second = asyncio.create_task(awaiter("second"))
        await turns()
        (run_task,) = asyncio.all_tasks() - {first, second, asyncio.current_task()}
        first.cancel()
        run_task.cancel()
        await asyncio.wait([first, run_task])
        await turns()
        may_end.set()
        assert await second == "second"

    run(main())


def test_when_the_resource_that_first_awaited_it_is_released_others_begin_anew(run: Run) -> None:
    """A run is a task of the resource that first awaited it and ends with it; a user's task that waits too starts its own."""

    async def main() -> None:
        work = Work()
        token = singleton(work)

        @sticky_singleton_acm
        @asynccontextmanager
        async def pool() -> AsyncGenerator[str]:
            task = asyncio.create_task(in_task(token))
            yield "pool"
            task.cancel()

        async with pool():
            await work.started.wait()
        waiting = asyncio.create_task(in_task(token))
        await turns()
        assert await release(pool)
        assert work.log[:2] == ["begin 1", "cancelled 1"]
        work.may_end.set()
        assert await waiting == 2

    run(main())


def test_the_run_of_a_user_ends_with_the_users_tasks_and_a_resource_begins_anew(run: Run) -> None:
    """At the end of the loop the user's run is cancelled as any task; a resource that waits for it starts its own."""
    log: list[str] = []

    async def main() -> None:
        started, may_end = asyncio.Event(), asyncio.Event()

        @singleton
        async def token() -> str:
            log.append("begin")
            started.set()
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                log.append("cancelled")
                may_end.set()
                raise
            return "token"

        @asynccontextmanager
        async def resource() -> AsyncGenerator[None]:
            task = asyncio.create_task(in_task(token))
            yield
            log.append(await task)

        users = asyncio.create_task(in_task(token))
        await started.wait()
        await enter(resource())
        assert not users.done()

    run(main())
    assert log == ["begin", "cancelled", "begin", "token"]


def test_a_cancelled_error_of_the_functions_own_is_raised(run: Run) -> None:
    """A function that raises `CancelledError` of itself, without being cancelled, raises it to all, and nothing hangs."""
    calls: list[int] = []

    @singleton
    async def token() -> str:
        calls.append(1)
        await asyncio.sleep(0)
        raise asyncio.CancelledError("its own")

    async def main() -> None:
        tasks = [asyncio.create_task(in_task(token)) for _ in range(3)]
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert len(calls) == 1

    run(main())


# Failure.


def test_a_failure_is_raised_to_all_who_wait_and_not_remembered(run: Run) -> None:
    """All who wait get the same error of the one run; the next call, or await of the same object, runs the function again."""

    async def main() -> None:
        work = Work()
        work.error = ValueError("refused")
        token = singleton(work)
        shared = token()
        awaiters = [asyncio.create_task(in_task(token)) for _ in range(3)]
        await work.started.wait()
        await turns()
        work.may_end.set()
        results = await asyncio.gather(*awaiters, return_exceptions=True)
        assert all(result is work.error for result in results)
        with pytest.raises(ValueError, match="refused"):
            await shared
        assert work.begun == 2
        work.error = None
        assert [await shared, await token(), await shared] == [3, 3, 3]

    run(main())


def test_an_argument_error_is_raised_at_the_call(run: Run) -> None:
    """Wrong arguments are the function's own `TypeError`, from the call and not from the await."""

    @singleton
    async def token(user: str) -> str:
        return user

    async def main() -> None:
        wrong: Any = token
        with pytest.raises(TypeError, match=r"token\(\) missing 1 required positional argument: 'user'"):
            wrong()
        with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
            wrong(name="x")
        assert await token("x") == "x"

    run(main())


@pytest.mark.parametrize("how", ["function", "partial", "synchronous", "object"])
def test_never_awaited_it_does_not_warn(run: Run, how: str) -> None:
    """A call whose result nobody awaits is no mistake: nothing runs, and nothing warns, also when it is collected."""
    calls: list[str] = []

    async def function(user: str = "u") -> str:
        calls.append(user)
        return user

    class Callable_:
        async def __call__(self) -> str:
            return await function()

    makers: dict[str, Callable[[], Callable[[], Awaitable[str]]]] = {
        "function": lambda: function,
        "partial": lambda: functools.partial(function, "u"),
        "synchronous": lambda: lambda: function(),
        "object": lambda: Callable_(),
    }

    async def main() -> weakref.ref[Any]:
        shared: Any = singleton(makers[how]())()
        return weakref.ref(shared)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ref = run(main())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    assert calls == []
    assert ref() is None


def test_a_failed_start_leaves_the_next_one_a_chance() -> None:
    """Where the run's task cannot be started, the error comes out of the await, and the next await tries again."""

    @singleton
    async def token() -> str:
        return "t"

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise ValueError("no task")

        shared = token()
        loop.set_task_factory(refuse)
        with pytest.raises(ValueError, match="no task"):
            await shared
        loop.set_task_factory(None)
        assert await shared == "t"

    asyncio.run(main())
    gc.collect()


# A second loop.


@pytest.mark.parametrize("was", ["not started", "done", "abandoned"])
def test_an_object_that_was_kept_is_awaited_on_a_second_loop(run: Run, was: str) -> None:
    """An object from one loop, awaited on another, gives what a call there gives, whatever became of it on its own."""
    calls: list[str] = []

    @singleton
    async def token(user: str) -> asyncio.AbstractEventLoop:
        calls.append(user)
        if was == "abandoned" and len(calls) == 1:
            await asyncio.Event().wait()
        return asyncio.get_running_loop()

    async def first() -> Coroutine[Any, Any, asyncio.AbstractEventLoop]:
        shared = token("u")
        if was == "done":
            await shared
        elif was == "abandoned":
            asyncio.create_task(shared)
            while not calls:
                await asyncio.sleep(0)
        return shared

    async def second(kept: Coroutine[Any, Any, asyncio.AbstractEventLoop]) -> None:
        assert token("u") is not kept
        one, other = await asyncio.gather(awaited(kept), asyncio.create_task(kept))
        assert one is other is await token("u") is asyncio.get_running_loop()

    kept = run(first())
    run(second(kept))
    assert calls == ["u"] * (1 if was == "not started" else 2)


def test_two_loops_in_two_threads_await_the_same_object(run: Run) -> None:
    """One object awaited by loops in two threads at the same time runs once on each."""
    both = threading.Barrier(2)

    @singleton
    async def token() -> int:
        both.wait(30)
        await turns()
        return threading.get_ident()

    async def make() -> Coroutine[Any, Any, int]:
        return token()

    shared = run(make())
    got: list[tuple[int, int]] = []

    def in_thread() -> None:
        got.append((run(awaited(shared)), threading.get_ident()))

    threads = [threading.Thread(target=in_thread) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    assert all(one == other for one, other in got)


# Methods, and other callables.


class Client:
    """Has methods of all kinds that are shared coroutines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[str] = []

    @singleton
    async def token(self, scope: str = "all") -> str:
        self.calls.append(scope)
        return f"{self.name}/{scope}"

    @classmethod
    @singleton
    async def of_class(cls, scope: str = "all") -> str:
        return f"{cls.__name__}/{scope}"

    @staticmethod
    @singleton
    async def static(scope: str = "all") -> list[str]:
        return [scope]


class SubClient(Client):
    """Inherits them."""


def test_methods(run: Run) -> None:
    """It binds like a function: each instance has its own, also on a second loop; class methods and static methods work."""

    async def main() -> Coroutine[Any, Any, str]:
        one, other = Client("1"), Client("2")
        assert one.token() is one.token("all") is Client.token(one) is not other.token()
        tokens = [await one.token(), await one.token(), await other.token(), await one.token("x")]
        assert tokens == ["1/all", "1/all", "2/all", "1/x"]
        assert (one.calls, other.calls) == (["all", "x"], ["all"])
        assert [await Client.of_class(), await SubClient.of_class()] == ["Client/all", "SubClient/all"]
        assert await Client.static() is await one.static("all")
        return one.token("y")

    assert run(run(main())) == "1/y"


def test_synchronous_callables_that_return_coroutines(run: Run) -> None:
    """A lambda, a partial, a bound method and an object with an async `__call__` count as what they return: coroutines."""
    calls: list[str] = []

    async def function(user: str) -> str:
        calls.append(user)
        await asyncio.sleep(0)
        return user

    class Service:
        async def method(self, user: str) -> str:
            return await function(user)

        async def __call__(self, user: str) -> str:
            return await function(user)

    service = Service()
    makers: list[Callable[[str], Coroutine[Any, Any, str]]] = [
        singleton(lambda user: function(user)),
        singleton(functools.partial(function)),
        singleton(service.method),
        singleton(service),
    ]

    async def main() -> None:
        for number, make in enumerate(makers):
            name = str(number)
            assert make(name) is make(name)
            assert list(await asyncio.gather(awaited(make(name)), asyncio.create_task(make(name)))) == [name, name]

    run(main())
    assert calls == ["0", "1", "2", "3"]


@pytest.mark.parametrize("marked", [False, True])
def test_a_synchronous_callable_is_called_once_a_run(run: Run, marked: bool) -> None:
    """A synchronous callable that returns coroutines, marked as a coroutine function or not, is called again after a failure."""
    calls: list[str] = []

    async def function(number: int) -> int:
        if number == 1:
            raise ValueError("first")
        return number

    def synchronous() -> Coroutine[Any, Any, int]:
        calls.append("called")
        return function(len(calls))

    if marked and not hasattr(inspect, "markcoroutinefunction"):
        pytest.skip("functions can be marked since Python 3.12")
    factory: Any = vars(inspect)["markcoroutinefunction"](synchronous) if marked else synchronous
    token: Callable[[], Awaitable[int]] = singleton(factory)

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            await token()
        assert [await token(), await token()] == [2, 2]

    run(main())
    assert calls == ["called", "called"]


def test_a_singleton_of_a_singleton(run: Run) -> None:
    """Wrapped twice, it is the same object as wrapped once."""
    calls: list[str] = []

    @singleton
    @singleton
    async def token() -> str:
        calls.append("called")
        return "t"

    async def main() -> None:
        assert list(await asyncio.gather(awaited(token()), awaited(token()))) == ["t", "t"]

    run(main())
    assert calls == ["called"]


# Those that wait for each other.


async def refused(awaitable: Awaitable[object]) -> None:
    with pytest.raises(RuntimeError, match="would wait for ever, since each of these needs the next one first"):
        await awaitable


@pytest.mark.parametrize("through_a_task", [False, True])
def test_one_that_awaits_itself_is_refused(run: Run, through_a_task: bool) -> None:
    """A function that awaits its own result, itself or in tasks that it makes, gets a `RuntimeError` that names it, at once."""

    @singleton
    async def token() -> Any:
        return await (asyncio.gather(token(), token()) if through_a_task else token())

    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=r"would wait for ever, since each of these needs the next one first: .*token\(\) -> .*token\(\)"
        ):
            await token()

    run(main())


def test_a_cycle_of_three_is_refused_and_not_remembered(run: Run) -> None:
    """A cycle is found whoever closes it, and all who wait get the error; without the cycle, the same objects give results."""
    needs = {"a": "b", "b": "c", "c": "a"}

    @singleton
    async def node(name: str) -> str:
        await asyncio.sleep(0)
        return name + (await node(needs[name]) if name in needs else "")

    async def main() -> None:
        nodes = [node(name) for name in "abca"]
        results = await asyncio.gather(*map(awaited, nodes), return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError] * 4
        del needs["c"]
        assert [await each for each in nodes] == ["abc", "bc", "c", "abc"]

    run(main())


def test_a_cycle_of_a_coroutine_and_a_resource_is_refused(run: Run) -> None:
    """A resource whose enter awaits a shared coroutine that needs that resource gets the error, and so does the other way."""
    resource: Callable[[], Any]

    @singleton
    async def token() -> str:
        async with resource() as value:
            return str(value)

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[str]:
        yield await token()

    resource = make

    async def use() -> None:
        async with make():
            pass

    async def main() -> None:
        await refused(use())
        await refused(token())
        results = await asyncio.gather(use(), awaited(token()), use(), return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError] * 3

    run(main())


def test_two_that_need_the_same_third_are_refused(run: Run) -> None:
    """A diamond of shared coroutines and resources is computed, each once."""
    log: list[str] = []

    @singleton
    async def bottom() -> str:
        log.append("bottom")
        await asyncio.sleep(0)
        return "bottom"

    @sticky_singleton_acm
    @asynccontextmanager
    async def left() -> AsyncGenerator[str]:
        yield f"left of {await bottom()}"

    @singleton
    async def right() -> str:
        return f"right of {await bottom()}"

    @singleton
    async def top() -> list[str]:
        async def use_left() -> str:
            async with left() as value:
                return value

        return list(await asyncio.gather(use_left(), awaited(right()), awaited(bottom())))

    async def main() -> None:
        assert await top() == ["left of bottom", "right of bottom", "bottom"]

    run(main())
    assert log == ["bottom"]


# The end of a loop, and memory.


def test_it_can_be_used_while_the_loop_ends(run: Run) -> None:
    """Exits, callbacks and tasks that are being cancelled can await it, whether it has run before or not."""
    log: list[str] = []

    @singleton
    async def token(user: str) -> str:
        await asyncio.sleep(0)
        return user

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        yield
        log.append(f"exit: {await token('before')}, {await token('in the exit')}")

    async def callback() -> None:
        log.append(f"callback: {await token('before')}, {await token('in the callback')}")

    async def main() -> None:
        await token("before")
        await enter(resource())
        atexit.register(callback)
        entered = asyncio.Event()

        async def user() -> None:
            try:
                entered.set()
                await asyncio.Event().wait()
            finally:
                log.append(f"finally: {await token('before')}, {await token('in the finally')}")

        asyncio.create_task(user())
        await entered.wait()

    run(main())
    assert log == [
        "finally: before, in the finally",
        "callback: before, in the callback",
        "exit: before, in the exit",
    ]


def test_a_run_that_is_under_way_ends_with_the_loop(run: Run) -> None:
    """A run in progress is cancelled with the user's tasks, as any task of theirs, and nothing is reported."""
    recorder = Recorder()

    async def main() -> Work:
        recorder.listen()
        work = Work()
        asyncio.create_task(in_task(singleton(work)))
        await work.started.wait()
        return work

    assert run(main()).log == ["begin 1", "cancelled 1", "unwound 1"]
    assert recorder.contexts == []


def test_after_aclose_it_is_made_anew(run: Run) -> None:
    """`aclose` forgets it: the next call gives a new object, and runs the function again; one that was kept keeps its result."""
    calls: list[str] = []

    @singleton
    async def token() -> int:
        calls.append("called")
        return len(calls)

    async def main() -> None:
        kept = token()
        assert await kept == 1
        await aclose()
        assert token() is not kept
        assert [await token(), await kept] == [2, 1]

    run(main())


def test_errors_are_freed_at_once_and_results_with_the_loop(run: Run) -> None:
    """By reference counting alone, an error that was raised by awaiting is freed at once, object and result with the loop."""

    class Result(Exception):
        pass

    failures: list[weakref.ref[Any]] = []
    refs: list[weakref.ref[Any]] = []

    @singleton
    async def token(fails: bool = False) -> Result:
        await asyncio.sleep(0)
        if fails:
            raise Result
        return Result()

    async def main() -> None:
        try:
            await token(fails=True)
        except Result as error:
            failures.append(weakref.ref(error))
        await turns()
        assert [ref() for ref in failures] == [None]
        result, _ = await asyncio.gather(awaited(token()), asyncio.create_task(token()))
        shared: Any = token()
        refs.extend([weakref.ref(result), weakref.ref(shared)])

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_a_call_in_the_turn_of_the_failure_starts_anew(run: Run) -> None:
    """A call made when the function has already failed, by whoever knows it first, does not get the old error."""
    calls: list[int] = []

    async def main() -> None:
        failing = asyncio.Event()

        @singleton
        async def token() -> int:
            calls.append(1)
            await asyncio.sleep(0)
            if len(calls) == 1:
                failing.set()
                raise ValueError("old")
            return len(calls)

        async def after_the_failure() -> int:
            await failing.wait()
            return await token()

        new = asyncio.create_task(after_the_failure())
        old = asyncio.create_task(in_task(token))
        results = await asyncio.gather(old, new, return_exceptions=True)
        assert [repr(results[0]), results[1]] == ["ValueError('old')", 2]

    run(main())


def test_a_function_that_cancels_itself_is_not_run_for_ever(run: Run) -> None:
    """A run that ends as cancelled each time, though nobody who waits was, is given up with an error that says so."""
    runs: list[int] = []

    async def main() -> None:
        @singleton
        async def token() -> None:
            runs.append(1)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match=r"token\(\) was cancelled 10 times"):
            await token()

    run(main())
    assert len(runs) == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_error_that_the_loop_raises_is_not_reported_besides(error: type[BaseException], run: Run) -> None:
    """`KeyboardInterrupt` and `SystemExit` of the function come out of the loop's run; they are in no report of an error."""
    reports: list[dict[str, Any]] = []

    @singleton
    async def token() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        await token()

    with pytest.raises(error):
        run(main())
    assert reports == []


class AwaitsWhenCollected:
    """Garbage that the collector alone finds, and that begins to await a coroutine then."""

    def __init__(self, shared: Awaitable[object]) -> None:
        self._itself = self
        self._shared = shared

    def __del__(self) -> None:
        with suppress(RuntimeError, StopIteration):  # it waits for itself, where the function runs; or it is done
            next(self._shared.__await__())


@pytest.mark.parametrize("allocations", range(1, 40))
def test_the_collector_runs_while_it_is_awaited(allocations: int, run: Run) -> None:
    """The function runs once, at whichever allocation the collector runs code that awaits the same coroutine."""
    runs: list[int] = []

    @singleton
    async def token() -> None:
        runs.append(1)
        await asyncio.sleep(0)

    async def main() -> None:
        shared = token()
        thresholds = gc.get_threshold()
        with collector.frozen():
            AwaitsWhenCollected(shared)
            gc.set_threshold(allocations)
            try:
                await shared
            finally:
                gc.set_threshold(*thresholds)
                gc.collect()

    run(main())
    assert runs == [1]
