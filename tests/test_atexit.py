"""Callbacks that run when the event loop ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import _atexit, aclose, atexit, enter, singleton, storage
from conftest import Run

Context = dict[str, Any]


def keep_reports(reports: list[Context]) -> None:
    """Lets the running loop's exception handler keep what it is given."""

    def keep(loop: asyncio.AbstractEventLoop, context: Context) -> None:
        reports.append(context)

    asyncio.get_running_loop().set_exception_handler(keep)


def test_callbacks_get_their_arguments(run: Run) -> None:
    """Sync and async functions are called once, with the arguments they were registered with, when the loop ends."""
    log: list[tuple[object, ...]] = []

    def called(*args: object, **kwargs: object) -> None:
        log.append(("called", args, kwargs))

    async def awaited(*args: object, **kwargs: object) -> None:
        log.append(("awaited", args, kwargs))
        await asyncio.sleep(0)
        log.append(("done", args, kwargs))

    async def main() -> None:
        atexit.register(called, 1, a=2)
        atexit.register(awaited, 3, function=4)
        await asyncio.sleep(0)
        assert log == []

    run(main())
    assert log == [
        ("awaited", (3,), {"function": 4}),
        ("done", (3,), {"function": 4}),
        ("called", (1,), {"a": 2}),
    ]


def test_what_a_callback_returns_is_awaited_if_it_can_be(run: Run) -> None:
    """A future, or any other awaitable, that a plain function returns is waited for."""
    log: list[str] = []

    class Awaitable:
        def __await__(self) -> Any:
            yield
            log.append("awaitable")

    async def main() -> None:
        def future() -> asyncio.Future[None]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda _: log.append("future"))
            asyncio.get_running_loop().call_soon(future.set_result, None)
            return future

        atexit.register(lambda: log.append("first registered"))
        atexit.register(Awaitable)
        atexit.register(future)

    run(main())
    assert log == ["future", "awaitable", "first registered"]


def test_register_returns_the_function_and_decorates(run: Run) -> None:
    """register() gives back what it was given, so that it can stand over a function."""
    log: list[str] = []

    async def main() -> None:
        @atexit.register
        def first() -> None:
            log.append("first")

        @atexit.register
        async def second() -> None:
            log.append("second")

        assert first.__name__ == "first"
        assert atexit.register(first) is first
        assert await second() is None  # type: ignore[func-returns-value]  # that it is the function itself is asked here

    run(main())
    assert log == ["second", "first", "second", "first"]


def test_one_function_may_be_registered_often(run: Run) -> None:
    """Each registration is one call, with its own arguments."""
    log: list[int] = []

    async def main() -> None:
        for number in range(3):
            atexit.register(log.append, number)

    run(main())
    assert log == [2, 1, 0]


@asynccontextmanager
async def logged(name: str, log: list[str]) -> AsyncGenerator[str]:
    log.append(f"enter {name}")
    yield name
    await asyncio.sleep(0)
    log.append(f"exit {name}")


def test_callbacks_and_exits_are_one_stack(run: Run) -> None:
    """Callbacks run newest first, between the exits of resources in whose place they stand."""
    log: list[str] = []

    async def main() -> None:
        atexit.register(log.append, "1")
        await enter(logged("2", log))
        atexit.register(log.append, "3")
        await enter(logged("4", log))
        atexit.register(log.append, "5")
        log.append("main")

    run(main())
    assert log == ["enter 2", "enter 4", "main", "5", "exit 4", "3", "exit 2", "1"]


def test_callbacks_run_when_the_users_tasks_have_ended(run: Run) -> None:
    """A task that cleans up when it is cancelled has done so before the first callback; the loop is whole in it."""
    log: list[str] = []

    async def work(started: asyncio.Event) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("task")

    async def at_end() -> None:
        log.append(await asyncio.to_thread(lambda: "executor"))
        await asyncio.create_task(asyncio.sleep(0))
        log.append("own task")

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(work(started))
        storage()["task"] = task
        atexit.register(at_end)
        await started.wait()

    run(main())
    assert log == ["task", "executor", "own task"]


def test_callbacks_run_when_a_loop_is_closed_by_hand(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Without a runner, closing the loop calls them, once."""
    log: list[str] = []

    async def at_end() -> None:
        await asyncio.sleep(0)
        log.append("called")

    async def main() -> None:
        atexit.register(at_end)

    loop = new_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))
    assert log == []
    loop.close()
    loop.close()
    assert log == ["called"]


class Service:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def stop(self) -> None:
        self.log.append("stopped")


class Named:
    """Is equal to every other of its name."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __call__(self) -> None:
        self.log.append(self.name)


def test_unregister_takes_back_all_registrations_of_a_function(run: Run) -> None:
    """All registrations of what is equal are taken back, whatever their arguments; the others stay."""
    log: list[str] = []

    async def main() -> None:
        service = Service(log)
        for _ in range(2):
            atexit.register(service.stop)
            atexit.register(Named("a", log))
            atexit.register(Named("b", log))
            atexit.register(log.append, "kept")
        atexit.unregister(service.stop)
        atexit.unregister(Named("a", log))

    run(main())
    assert log == ["kept", "b", "kept", "b"]


def test_what_was_taken_back_can_be_registered_again(run: Run) -> None:
    """After unregister() a function is as if it had never been registered; what it held is let go."""
    log: list[int] = []

    class Argument:
        pass

    async def main() -> None:
        argument = Argument()
        kept = weakref.ref(argument)

        def function(argument: object) -> None:
            log.append(1)

        atexit.register(function, argument)
        atexit.unregister(function)
        del argument
        gc.collect()
        assert kept() is None
        atexit.register(function, None)

    run(main())
    assert log == [1]


def test_unregistering_what_was_never_registered_does_nothing(run: Run) -> None:
    """Of an unknown function, on a loop that has been used or not, and after aclose()."""
    log: list[int] = []

    async def main() -> None:
        atexit.unregister(print)
        atexit.register(log.append, 1)
        atexit.unregister(print)
        await aclose()
        atexit.unregister(log.append)
        atexit.register(log.append, 2)

    run(main())
    assert log == [1, 2]


def test_every_loop_has_its_own_callbacks(run: Run) -> None:
    """unregister() on one loop takes nothing back on another; nothing is called on a second loop."""
    log: list[str] = []

    def function() -> None:
        log.append("called")

    async def first() -> None:
        atexit.register(function)

    async def second() -> None:
        atexit.unregister(function)

    run(second())
    run(first())
    run(second())
    assert log == ["called"]


def test_a_callback_may_be_taken_back_during_the_end(run: Run) -> None:
    """A callback can take back those that have not run yet."""
    log: list[str] = []

    def never() -> None:
        log.append("never")

    async def main() -> None:
        atexit.register(log.append, "last")
        atexit.register(never)
        atexit.register(atexit.unregister, never)

    run(main())
    assert log == ["last"]


def test_without_a_running_loop_it_is_refused() -> None:
    """register() and unregister() need a running loop."""
    for call in (lambda: atexit.register(print), lambda: atexit.unregister(print)):
        with pytest.raises(RuntimeError) as caught:
            call()
        assert str(caught.value) == "no running event loop"


def fail(message: str) -> None:
    raise ZeroDivisionError(message)


async def fail_later(message: str) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError(message)


def test_errors_at_the_end_are_reported_and_the_others_still_run(run: Run) -> None:
    """Each error goes to the loop's exception handler, with the callback named; all callbacks run, and the loop closes."""
    log: list[str] = []
    reports: list[Context] = []

    async def main() -> None:
        keep_reports(reports)
        atexit.register(log.append, "1")
        atexit.register(fail, "sync")
        atexit.register(log.append, "2")
        atexit.register(fail_later, message="async")
        atexit.register(log.append, "3")

    run(main())
    assert log == ["3", "2", "1"]
    assert [(type(report["exception"]), str(report["exception"])) for report in reports] == [
        (ZeroDivisionError, "async"),
        (ZeroDivisionError, "sync"),
    ]
    assert "fail_later(message='async')" in reports[0]["message"]
    assert "fail('sync')" in reports[1]["message"]


def test_aclose_raises_their_errors_together(run: Run) -> None:
    """At aclose() the errors are raised in one ExceptionGroup, after the last callback, each with a note of where."""
    log: list[str] = []
    reports: list[Context] = []

    async def main() -> None:
        keep_reports(reports)
        atexit.register(log.append, "last")
        atexit.register(fail, "sync")
        atexit.register(fail_later, "async")
        with pytest.raises(ExceptionGroup) as caught:
            await aclose()
        assert log == ["last"]
        assert [str(error) for error in caught.value.exceptions] == ["async", "sync"]
        assert "fail_later('async')" in caught.value.exceptions[0].__notes__[0]
        assert "fail('sync')" in caught.value.exceptions[1].__notes__[0]
        await aclose()

    run(main())
    assert log == ["last"]
    assert reports == []


def test_aclose_calls_them_and_the_end_of_the_loop_does_not_again(run: Run) -> None:
    """A callback is called once; one that is registered after aclose() waits for the next end."""
    log: list[str] = []

    async def main() -> None:
        atexit.register(log.append, "before")
        await aclose()
        assert log == ["before"]
        atexit.register(log.append, "after")
        assert log == ["before"]

    run(main())
    assert log == ["before", "after"]


def test_what_is_registered_during_the_end_is_called_too(run: Run) -> None:
    """A callback may register callbacks, and so may an exit; they come next, and what they register after them."""
    log: list[str] = []

    async def again(depth: int) -> None:
        log.append(f"again {depth}")
        if depth:
            atexit.register(again, depth - 1)

    @asynccontextmanager
    async def registering() -> AsyncGenerator[None]:
        yield
        log.append("exit")
        atexit.register(log.append, "from exit")

    async def main() -> None:
        atexit.register(log.append, "first")
        await enter(registering())
        atexit.register(again, 2)

    run(main())
    assert log == ["again 2", "again 1", "again 0", "exit", "from exit", "first"]


def test_a_resource_may_be_entered_by_a_callback(run: Run) -> None:
    """What a callback enters at the end is exited before the loop closes."""
    log: list[str] = []

    async def late() -> None:
        assert await enter(logged("late", log)) == "late"
        log.append("callback")

    async def main() -> None:
        atexit.register(log.append, "first")
        atexit.register(late)

    run(main())
    assert log[:2] == ["enter late", "callback"]
    assert sorted(log[2:]) == ["exit late", "first"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_a_callback_runs_in_the_context_that_registered_it(run: Run) -> None:
    """Each callback sees the context variables as they were when it was registered, in a task of its own."""
    seen: list[tuple[str, str]] = []
    tasks: list[object] = []

    async def look(name: str) -> None:
        seen.append((name, variable.get()))
        variable.set(f"by {name}")
        await asyncio.sleep(0)
        assert variable.get() == f"by {name}"
        tasks.append(asyncio.current_task())

    async def in_a_task() -> None:
        variable.set("task")
        atexit.register(look, "registered in a task")

    async def main() -> None:
        variable.set("main")
        atexit.register(look, "registered by main")
        await asyncio.create_task(in_a_task())
        variable.set("changed later")

    run(main())
    assert seen == [("registered in a task", "task"), ("registered by main", "main")]
    assert None not in tasks
    assert tasks[0] is not tasks[1]
    assert variable.get() == "unset"


def test_tasks_that_a_callback_leaves_behind_are_cancelled_and_awaited(run: Run) -> None:
    """A task that a callback has started and not waited for ends before the next callback."""
    log: list[str] = []

    async def wait(started: asyncio.Event) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("task ended")

    async def leave() -> None:
        started = asyncio.Event()
        storage()["task"] = asyncio.create_task(wait(started))
        await started.wait()
        log.append("left")

    async def main() -> None:
        atexit.register(log.append, "next")
        atexit.register(leave)

    run(main())
    assert log == ["left", "task ended", "next"]


def test_a_callback_that_calls_aclose_is_told_so(run: Run) -> None:
    """aclose() in a callback would wait for itself: RuntimeError, reported with the callback named, and no deadlock."""
    log: list[str] = []
    reports: list[Context] = []

    async def main() -> None:
        keep_reports(reports)
        atexit.register(log.append, "first")
        atexit.register(aclose)

    run(main())
    assert log == ["first"]
    (report,) = reports
    assert isinstance(report["exception"], RuntimeError)
    assert "aclose" in str(report["exception"])
    assert "aclose" in report["message"]


def test_a_singleton_asked_for_in_a_callback_is_the_loops(run: Run) -> None:
    """What the loop has made is still known while it ends."""
    made: list[object] = []
    make = singleton(object)

    async def main() -> None:
        made.append(make())
        atexit.register(lambda: made.append(make()))

    run(main())
    assert made[0] is made[1]


def test_a_cancelled_callback_does_not_stop_the_others(run: Run) -> None:
    """A callback that raises CancelledError, though nobody has cancelled it, is reported as an error."""
    log: list[str] = []
    reports: list[Context] = []

    def cancel() -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        keep_reports(reports)
        atexit.register(log.append, "first")
        atexit.register(cancel)

    run(main())
    assert log == ["first"]
    (report,) = reports
    assert "cancel()" in report["message"]
    assert isinstance(report["exception"], Exception)


# The private forms that older code uses.


def test_the_older_register_takes_an_awaitable(run: Run) -> None:
    """_atexit._register(awaitable) awaits it when the loop ends, in the same stack."""
    log: list[str] = []

    async def say(text: str) -> None:
        await asyncio.sleep(0)
        log.append(text)

    async def main() -> None:
        atexit.register(log.append, "1")
        assert _atexit._register(say("2")) is None  # type: ignore[func-returns-value]  # that it is None is asked here
        atexit.register(log.append, "3")
        await asyncio.sleep(0)
        assert log == []

    run(main())
    assert log == ["3", "2", "1"]


def test_the_older_fire_calls_all_now(run: Run) -> None:
    """await _atexit._fire() ends everything of the loop now, once; errors are raised together."""
    log: list[str] = []

    async def main() -> None:
        await _atexit._fire()
        atexit.register(log.append, "1")
        _atexit._register(fail_later("2"))
        await enter(logged("3", log))
        with pytest.raises(ExceptionGroup) as caught:
            await _atexit._fire()
        assert [str(error) for error in caught.value.exceptions] == ["2"]
        assert log == ["enter 3", "exit 3", "1"]
        await _atexit._fire()

    run(main())
    assert log == ["enter 3", "exit 3", "1"]


def test_what_the_older_register_was_given_is_named(run: Run) -> None:
    """An awaitable that fails at the end is reported by its own name."""
    reports: list[Context] = []

    async def main() -> None:
        keep_reports(reports)
        _atexit._register(fail_later("x"))

    run(main())
    (report,) = reports
    assert str(report["exception"]) == "x"
    assert "fail_later" in report["message"]


def test_the_older_forms_refuse_what_they_cannot_use(run: Run) -> None:
    """_register() of a function is a TypeError that points at atexit.register(); without a loop both raise RuntimeError."""
    wrong: Any = print

    async def main() -> None:
        with pytest.raises(TypeError, match=r"'awaitable'.*builtin_function_or_method.*atexit\.register\(\)"):
            _atexit._register(wrong)

    run(main())
    done: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    try:
        with pytest.raises(RuntimeError, match=r"^no running event loop$"):
            _atexit._register(done)
    finally:
        done.get_loop().close()
    fired = _atexit._fire()
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        fired.send(None)
