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
from recording import begin, cancel, in_threads, keep, on_each_loop, reports_of_this_loop, turns, use

T = TypeVar("T")


class Work:
    """An asynchronous function that waits until it may end, and records its runs; and a singleton of it."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.begun = 0
        self.log: list[str] = [] if log is None else log
        self.started, self.may_end, self.may_unwind = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_unwind.set()
        self.error: BaseException | None = None
        self.token = singleton(self)

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


@pytest.fixture
def work() -> Work:
    """A function that waits until the test lets it end."""
    return Work()


def recorded(log: list[str], result: Callable[[], T]) -> Callable[[], Coroutine[Any, Any, T]]:
    """A shared coroutine function that records its runs, each of which takes a while."""

    @singleton
    async def token() -> T:
        log.append("run")
        await turns()
        return result()

    return token


async def awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def in_task(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


# One object a key, awaited any number of times.


@on_each_loop
async def test_one_object_a_key() -> None:
    """Equal calls, however they are written, give the same object; others give another one."""

    @singleton
    async def token(user: str, scope: str = "all") -> str:
        return f"{user}/{scope}"

    assert token("a") is token(user="a") is token("a", "all") is token(scope="all", user="a")
    assert token("a") is not token("b")
    assert [await token("a"), await token("b"), await token("a")] == ["a/all", "b/all", "a/all"]
    assert token("a") is token("a")


@pytest.mark.parametrize("value", [None, object()], ids=["None", "object"])
@on_each_loop
async def test_awaited_many_times_by_many_tasks(log: list[str], value: object) -> list[str]:
    """The function runs once, not at the call but at the first await, however many tasks await the object however often."""
    token = recorded(log, lambda: value)

    async def three_times() -> list[object]:
        return [await token(), await token(), await token()]

    shared = token()
    await turns()
    assert log == []
    assert await asyncio.gather(*(three_times() for _ in range(20))) == [[value] * 3] * 20
    assert await shared is value
    return ["run"]


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
each_taker = pytest.mark.parametrize("take", TAKERS.values(), ids=list(TAKERS))


@each_taker
@on_each_loop
async def test_all_that_takes_a_coroutine_takes_it(log: list[str], take: Taker) -> list[str]:
    """Before its first run, while it runs and afterwards, any taker of coroutines gets the one result."""
    token = recorded(log, object)
    first = asyncio.create_task(awaited(take(token())))
    during = [asyncio.create_task(awaited(take(token()))) for _ in range(3)]
    assert {await first, *await asyncio.gather(*during), await take(token())} == {await token()}
    return ["run"]


@each_taker
@on_each_loop
async def test_all_that_takes_a_coroutine_gets_its_error(take: Taker) -> None:
    """The function's own error comes out of any taker, as it is or in the group that the taker makes."""

    class Refused(Exception):
        pass

    @singleton
    async def token() -> str:
        await turns()
        raise Refused

    for _ in range(2):
        try:
            await take(token())
        except* Refused as group:
            assert len(group.exceptions) == 1
        else:
            raise AssertionError("nothing was raised")


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
    log: list[str] = []
    token = recorded(log, lambda: "t")

    async def make() -> Coroutine[Any, Any, str]:
        return token()

    loop = new_loop()
    try:
        shared = loop.run_until_complete(make())
        assert [loop.run_until_complete(shared), loop.run_until_complete(shared)] == ["t", "t"]
    finally:
        loop.close()
    assert log == ["run"]


@on_each_loop
async def test_what_it_is() -> None:
    """It is a `collections.abc.Coroutine` and an awaitable, to asyncio and inspect too, with the function's name."""

    @singleton
    async def token() -> str:
        return "t"

    shared: Any = token()
    assert all(isinstance(shared, kind) for kind in (collections.abc.Coroutine, collections.abc.Awaitable))
    assert inspect.isawaitable(token())
    assert asyncio.iscoroutine(token())
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


@on_each_loop
async def test_send_drives_it_as_a_coroutine() -> None:
    """`send` behaves as a coroutine's: None first, what the loop waits for out of it, the value as `StopIteration`."""

    @singleton
    async def token() -> str:
        return "t"

    shared = token()
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        shared.send(1)
    assert await shared == "t"
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            shared.send(None)
        assert caught.value.value == "t"


@on_each_loop
async def test_throw_before_and_while_it_waits(work: Work) -> None:
    """`throw` raises in the place where that task waits, or at once if it does not, and lets the run go on for others."""

    class Thrown(Exception):
        pass

    shared = work.token()
    for args in (Thrown(),), (Thrown,), (Thrown, Thrown("value")), (Thrown, None, None):
        throw: Any = shared.throw
        with pytest.raises(Thrown):
            throw(*args)
    other = await begin(awaited(shared))
    assert shared.send(None) is not None
    with pytest.raises(Thrown, match="here"):
        shared.throw(Thrown("here"))
    work.may_end.set()
    assert await other == 1
    with pytest.raises(Thrown):
        shared.throw(Thrown())
    assert await shared == 1


def test_close_ends_the_waiting_of_that_task_alone(run: Run) -> None:
    """`close` ends only that task's own waiting; the object can still be awaited. It needs no running loop."""

    async def main() -> Coroutine[Any, Any, int]:
        work = Work()
        shared = singleton(work)()
        shared.close()
        other = await begin(awaited(shared))
        shared.send(None)
        shared.close()
        shared.close()
        work.may_end.set()
        assert [await other, await shared] == [1, 1]
        assert work.begun == 1
        return shared

    run(main()).close()

    async def make() -> Coroutine[Any, Any, str]:
        return recorded([], lambda: "t")()

    not_started = run(make())
    not_started.close()
    assert run(not_started) == "t"


@on_each_loop
async def test_a_task_of_it_that_is_cancelled_before_it_has_begun(work: Work) -> None:
    """A task that is cancelled before its first step starts no run, and warns of nothing."""
    shared = work.token()
    await cancel(asyncio.Task(shared))
    await turns()
    assert work.log == []
    work.may_end.set()
    assert await shared == 1
    gc.collect()


# Where it runs.


@on_each_loop
async def test_it_runs_in_a_task_of_its_own_with_a_copy_of_the_first_awaiters_context() -> None:
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

    var.set("caller's")
    not_awaited_here = token()
    first = asyncio.create_task(awaiter("first"))
    second = asyncio.create_task(awaiter("second"))
    assert [await first, await second] == [("first", "first"), ("first", "second")]
    assert token() is not_awaited_here
    assert var.get() == "caller's"
    assert len(set(map(id, tasks))) == len(tasks) == 3


# Cancellation.


@pytest.mark.parametrize("which", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize("same_object", [False, True])
@on_each_loop
async def test_one_awaiters_cancellation_is_its_own(work: Work, which: int, same_object: bool) -> None:
    """Whichever of three tasks is cancelled, the first too, the other two get the result of the one run."""
    awaiters = [await begin(work.token() if same_object else in_task(work.token)) for _ in range(3)]
    awaiters[which].cancel("mine")
    await asyncio.wait([awaiters[which]])
    assert awaiters.pop(which).cancelled()
    await turns()
    work.may_end.set()
    assert await asyncio.gather(*awaiters) == [1, 1]
    assert work.log == ["begin 1", "end 1"]


@on_each_loop
async def test_the_last_awaiter_that_is_cancelled_cancels_the_run(work: Work) -> None:
    """The run goes on as long as any task waits for it, and is cancelled with the last."""
    awaiters = [await begin(in_task(work.token)) for _ in range(3)]
    await cancel(awaiters[0])
    await cancel(awaiters[1])
    await turns()
    assert work.log == ["begin 1"]
    await cancel(awaiters[2])
    await turns()
    assert work.log == ["begin 1", "cancelled 1", "unwound 1"]


@pytest.mark.parametrize("same_object", [False, True])
@on_each_loop
async def test_the_next_call_starts_anew_at_once_while_the_old_run_unwinds(work: Work, same_object: bool) -> None:
    """After the last cancellation neither a new call nor the same object waits for the old run to have cleaned up."""
    work.may_unwind.clear()
    shared = work.token()
    await cancel(await begin(awaited(shared)))
    work.may_end.set()
    assert await (shared if same_object else work.token()) == 2
    assert work.log == ["begin 1", "cancelled 1", "begin 2", "end 2"]
    work.may_unwind.set()
    await turns()
    assert work.log[-1] == "unwound 1"
    assert await work.token() == 2


@on_each_loop
async def test_a_new_awaiter_in_the_same_turn_as_the_last_cancellation(work: Work) -> None:
    """An awaiter that comes before the cancelled one has run keeps the run alive, or gets a new one: never an error."""
    old = asyncio.create_task(in_task(work.token))
    await work.started.wait()
    old.cancel()
    new = asyncio.create_task(in_task(work.token))
    work.may_end.set()
    assert await new in {1, 2}
    assert old.cancelled()


@on_each_loop
async def test_a_run_that_ignores_its_cancellation_disturbs_nobody(log: list[str]) -> list[str]:
    """The result of an abandoned run that ends all the same is not given to the next call."""
    may_end = asyncio.Event()

    @singleton
    async def stubborn() -> int:
        log.append("begin")
        number = len(log)
        while number == 1 and not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                log.append("ignored")
        return number

    await cancel(await begin(in_task(stubborn)))
    assert await stubborn() == 3
    may_end.set()
    await turns()
    assert await stubborn() == 3
    return ["begin", "ignored", "begin"]


@pytest.mark.parametrize("moment", ["before", "in the turn before", "in the turn after"])
@on_each_loop
async def test_an_error_of_an_abandoned_run_is_reported(moment: str) -> None:
    """A run's error goes to the loop's exception handler, once, if its last awaiter is cancelled before or in the same turn."""
    reports = reports_of_this_loop()

    @singleton
    async def token() -> str:
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
        await turns()
        awaiter.cancel()
    await asyncio.wait([awaiter])
    assert awaiter.cancelled()
    await turns()
    (report,) = reports
    assert str(report["exception"]) == "unheard"
    assert "token() failed when nobody waited for it any more" in report["message"]


@on_each_loop
async def test_a_result_and_a_cancellation_in_the_same_turn(work: Work) -> None:
    """An awaiter that is cancelled when the run has just returned is cancelled; the result is kept or made anew."""
    awaiter = asyncio.create_task(in_task(work.token))
    await work.started.wait()
    work.may_end.set()
    while "end 1" not in work.log:
        await asyncio.sleep(0)
    awaiter.cancel()
    await asyncio.wait([awaiter])
    assert await work.token() in {1, 2}


# A run that is cancelled from outside.


@on_each_loop
async def test_when_the_run_is_cancelled_from_outside_those_who_wait_begin_anew(work: Work) -> None:
    """If other code cancels the run's task, those that still wait start a new run, and get its result."""
    awaiters = [await begin(in_task(work.token)) for _ in range(3)]
    (run_task,) = asyncio.all_tasks() - {*awaiters, asyncio.current_task()}
    await cancel(run_task)
    await turns()
    work.may_end.set()
    assert await asyncio.gather(*awaiters) == [2, 2, 2]
    assert work.log == ["begin 1", "cancelled 1", "unwound 1", "begin 2", "end 2"]


@on_each_loop
async def test_a_new_run_has_the_context_of_one_who_waits() -> None:
    """The run that begins anew has the context of an awaiter that still waits, not of the one that first began it."""
    var: ContextVar[str] = ContextVar("var")
    may_end = asyncio.Event()

    @singleton
    async def token() -> str:
        await may_end.wait()
        return var.get()

    async def awaiter(name: str) -> str:
        var.set(name)
        return await token()

    first, second = await begin(awaiter("first")), await begin(awaiter("second"))
    (run_task,) = asyncio.all_tasks() - {first, second, asyncio.current_task()}
    first.cancel()
    run_task.cancel()
    await asyncio.wait([first, run_task])
    await turns()
    may_end.set()
    assert await second == "second"


@on_each_loop
async def test_when_the_resource_that_first_awaited_it_is_released_others_begin_anew(work: Work) -> None:
    """A run is a task of the resource that first awaited it and ends with it; a user's task that waits too starts its own."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def pool() -> AsyncGenerator[str]:
        task = asyncio.create_task(in_task(work.token))
        yield "pool"
        task.cancel()

    async with pool():
        await work.started.wait()
    waiting = await begin(in_task(work.token))
    assert await release(pool)
    assert work.log[:2] == ["begin 1", "cancelled 1"]
    work.may_end.set()
    assert await waiting == 2


@on_each_loop
async def test_the_run_of_a_user_ends_with_the_users_tasks_and_a_resource_begins_anew(log: list[str]) -> list[str]:
    """At the end of the loop the user's run is cancelled as any task; a resource that waits for it starts its own."""
    may_end = asyncio.Event()

    @singleton
    async def token() -> str:
        log.append("begin")
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

    keep(in_task(token))
    await turns()
    await enter(resource())
    return ["begin", "cancelled", "begin", "token"]


@on_each_loop
async def test_a_cancelled_error_of_the_functions_own_is_raised(log: list[str]) -> list[str]:
    """A function that raises `CancelledError` of itself, without being cancelled, raises it to all, and nothing hangs."""

    @singleton
    async def token() -> str:
        log.append("run")
        await asyncio.sleep(0)
        raise asyncio.CancelledError("its own")

    tasks = [asyncio.create_task(in_task(token)) for _ in range(3)]
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    return ["run"]


# Failure.


@on_each_loop
async def test_a_failure_is_raised_to_all_who_wait_and_not_remembered(work: Work) -> None:
    """All who wait get the same error of the one run; the next call, or await of the same object, runs the function again."""
    work.error = ValueError("refused")
    shared = work.token()
    awaiters = [await begin(in_task(work.token)) for _ in range(3)]
    work.may_end.set()
    assert await asyncio.gather(*awaiters, return_exceptions=True) == [work.error] * 3
    with pytest.raises(ValueError, match="refused"):
        await shared
    assert work.begun == 2
    work.error = None
    assert [await shared, await work.token(), await shared] == [3, 3, 3]


@on_each_loop
async def test_an_argument_error_is_raised_at_the_call() -> None:
    """Wrong arguments are the function's own `TypeError`, from the call and not from the await."""

    @singleton
    async def token(user: str) -> str:
        return user

    wrong: Any = token
    with pytest.raises(TypeError, match=r"token\(\) missing 1 required positional argument: 'user'"):
        wrong()
    with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
        wrong(name="x")
    assert await token("x") == "x"


@pytest.mark.parametrize("how", ["function", "partial", "synchronous", "object"])
def test_never_awaited_it_does_not_warn(run: Run, how: str) -> None:
    """A call whose result is never awaited is no mistake: nothing runs, and nothing warns, also when it is collected."""
    calls: list[str] = []

    async def function(user: str = "u") -> str:
        calls.append(user)
        return user

    class Callable_:
        async def __call__(self) -> str:
            return await function()

    makers: dict[str, Callable[[], Awaitable[str]]] = {
        "function": function,
        "partial": functools.partial(function, "u"),
        "synchronous": lambda: function(),
        "object": Callable_(),
    }

    async def main() -> weakref.ref[Any]:
        shared: Any = singleton(makers[how])()
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

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise ValueError("no task")

        shared = recorded([], lambda: "t")()
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
            keep(shared)
            await turns()
        return shared

    async def second(kept: Coroutine[Any, Any, asyncio.AbstractEventLoop]) -> None:
        assert token("u") is not kept
        one, other = await asyncio.gather(awaited(kept), asyncio.create_task(kept))
        assert one is other is await token("u") is asyncio.get_running_loop()

    run(second(run(first())))
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
    got: list[bool] = []

    def in_thread() -> None:
        got.append(run(awaited(shared)) == threading.get_ident())

    in_threads(in_thread, in_thread)
    assert got == [True, True]


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


@on_each_loop
async def test_synchronous_callables_that_return_coroutines(log: list[str]) -> list[str]:
    """A lambda, a partial, a bound method and an object with an async `__call__` count as what they return: coroutines."""

    async def function(user: str) -> str:
        log.append(user)
        await asyncio.sleep(0)
        return user

    class Service:
        async def method(self, user: str) -> str:
            return await function(user)

        __call__ = method

    makers: dict[str, Callable[[str], Coroutine[Any, Any, str]]] = {
        "lambda": lambda user: function(user),
        "partial": functools.partial(function),
        "method": Service().method,
        "object": Service(),
    }
    for name, maker in makers.items():
        make = singleton(maker)
        assert make(name) is make(name)
        assert [*await asyncio.gather(awaited(make(name)), asyncio.create_task(make(name)))] == [name, name]
    return [*makers]


@pytest.mark.parametrize("marked", [False, True])
@on_each_loop
async def test_a_synchronous_callable_is_called_once_a_run(log: list[str], marked: bool) -> list[str]:
    """A synchronous callable that returns coroutines, marked as a coroutine function or not, is called again after a failure."""

    async def function(number: int) -> int:
        if number == 1:
            raise ValueError("first")
        return number

    def synchronous() -> Coroutine[Any, Any, int]:
        log.append("called")
        return function(len(log))

    if marked and not hasattr(inspect, "markcoroutinefunction"):
        pytest.skip("functions can be marked since Python 3.12")
    factory: Any = vars(inspect)["markcoroutinefunction"](synchronous) if marked else synchronous
    token: Callable[[], Awaitable[int]] = singleton(factory)
    with pytest.raises(ValueError, match="first"):
        await token()
    assert [await token(), await token()] == [2, 2]
    return ["called", "called"]


@on_each_loop
async def test_a_singleton_of_a_singleton(log: list[str]) -> list[str]:
    """Wrapped twice, it is the same object as wrapped once."""
    token = singleton(recorded(log, lambda: "t"))
    assert [*await asyncio.gather(awaited(token()), awaited(token()))] == ["t", "t"]
    return ["run"]


# Those that wait for each other.


@pytest.mark.parametrize("through_a_task", [False, True])
@on_each_loop
async def test_one_that_awaits_itself_is_refused(through_a_task: bool) -> None:
    """A function that awaits its own result, itself or in tasks that it makes, gets a `RuntimeError` that names it, at once."""

    @singleton
    async def token() -> Any:
        return await (asyncio.gather(token(), token()) if through_a_task else token())

    message = r"would wait for ever, since each of these needs the next one first: .*token\(\) -> .*token\(\)"
    with pytest.raises(RuntimeError, match=message):
        await token()


@on_each_loop
async def test_a_cycle_of_three_is_refused_and_not_remembered() -> None:
    """A cycle is found, and all tasks that wait get the error; without the cycle, the same objects give results."""
    needs = {"a": "b", "b": "c", "c": "a"}

    @singleton
    async def node(name: str) -> str:
        await asyncio.sleep(0)
        return name + (await node(needs[name]) if name in needs else "")

    nodes = [node(name) for name in "abca"]
    results = await asyncio.gather(*map(awaited, nodes), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 4
    del needs["c"]
    assert [await each for each in nodes] == ["abc", "bc", "c", "abc"]


@on_each_loop
async def test_a_cycle_of_a_coroutine_and_a_resource_is_refused() -> None:
    """A resource whose enter awaits a shared coroutine that needs that resource gets the error, and so does the other way."""

    @singleton
    async def token() -> str:
        return await use(make())

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[str]:
        yield await token()

    for first in (use(make()), token()):
        with pytest.raises(RuntimeError, match="would wait for ever, since each of these needs the next one first"):
            await first
    results = await asyncio.gather(use(make()), awaited(token()), use(make()), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 3


@on_each_loop
async def test_two_that_need_the_same_third_are_no_cycle(log: list[str]) -> list[str]:
    """A diamond of shared coroutines and resources is computed, each once."""
    bottom = recorded(log, lambda: "bottom")

    @sticky_singleton_acm
    @asynccontextmanager
    async def left() -> AsyncGenerator[str]:
        yield f"left of {await bottom()}"

    @singleton
    async def right() -> str:
        return f"right of {await bottom()}"

    @singleton
    async def top() -> list[str]:
        return [*await asyncio.gather(use(left()), awaited(right()), awaited(bottom()))]

    assert await top() == ["left of bottom", "right of bottom", "bottom"]
    return ["run"]


# The end of a loop, and memory.


@on_each_loop
async def test_it_can_be_used_while_the_loop_ends(log: list[str]) -> list[str]:
    """Exits, callbacks and tasks that are being cancelled can await it, whether it has run before or not."""

    @singleton
    async def token(user: str) -> str:
        await asyncio.sleep(0)
        return user

    async def note(where: str) -> None:
        log.append(f"{where}: {await token('before')}, {await token(f'in the {where}')}")

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        yield
        await note("exit")

    async def user() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await note("finally")

    await token("before")
    await enter(resource())
    atexit.register(note, "callback")
    keep(user())
    await turns()
    return [f"{where}: before, in the {where}" for where in ("finally", "callback", "exit")]


@on_each_loop
async def test_a_run_that_is_under_way_ends_with_the_loop(log: list[str]) -> list[str]:
    """A run in progress is cancelled with the user's tasks, as any task of theirs, and nothing is reported."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: log.append(context["message"]))
    keep(in_task(singleton(Work(log))))
    await turns()
    return ["begin 1", "cancelled 1", "unwound 1"]


@on_each_loop
async def test_after_aclose_it_is_made_anew(log: list[str]) -> list[str]:
    """`aclose` forgets it: the next call gives a new object, and runs the function again; one that was kept keeps its result."""
    token = recorded(log, lambda: len(log))
    kept = token()
    assert await kept == 1
    await aclose()
    assert token() is not kept
    assert [await token(), await kept] == [2, 1]
    return ["run", "run"]


def test_errors_are_freed_at_once_and_results_with_the_loop(run: Run) -> None:
    """By reference counting alone, an error that was raised by awaiting is freed at once, object and result with the loop."""

    class Result(Exception):
        pass

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
            refs.append(weakref.ref(error))
        await turns()
        assert [ref() for ref in refs] == [None]
        result, _ = await asyncio.gather(awaited(token()), asyncio.create_task(token()))
        shared: Any = token()
        refs.extend([weakref.ref(result), weakref.ref(shared)])

    with collector.disabled():
        run(main())
        assert [ref() for ref in refs] == [None] * 3


@on_each_loop
async def test_a_call_in_the_turn_of_the_failure_starts_anew(log: list[str]) -> list[str]:
    """A call made just after the function has failed does not get the old error."""
    failing = asyncio.Event()

    @singleton
    async def token() -> int:
        log.append("run")
        await asyncio.sleep(0)
        if len(log) == 1:
            failing.set()
            raise ValueError("old")
        return len(log)

    async def after_the_failure() -> int:
        await failing.wait()
        return await token()

    new = asyncio.create_task(after_the_failure())
    old = asyncio.create_task(in_task(token))
    results = await asyncio.gather(old, new, return_exceptions=True)
    assert [repr(results[0]), results[1]] == ["ValueError('old')", 2]
    return ["run", "run"]


@on_each_loop
async def test_a_function_that_cancels_itself_is_not_run_for_ever(log: list[str]) -> list[str]:
    """A run that cancels itself each time is not begun again for ever: after ten times the awaiter gets an error that says so."""

    @singleton
    async def token() -> None:
        log.append("run")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match=r"token\(\) was cancelled 10 times"):
        await token()
    return ["run"] * 10


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
@on_each_loop
async def test_the_collector_runs_while_it_is_awaited(log: list[str], allocations: int) -> list[str]:
    """The function runs once, at whichever allocation the collector runs code that awaits the same coroutine."""

    @singleton
    async def token() -> None:
        log.append("run")
        await asyncio.sleep(0)

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
    return ["run"]
