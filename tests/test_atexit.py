"""Callbacks that run when the event loop ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from asyncio_loop_local import _atexit, aclose, atexit, enter, singleton
from conftest import Run
from lingering import begin_to_linger
from recording import Recorded, enters, exits, on_each_loop, on_one_loop, reports_of_this_loop

Reports = list[dict[str, Any]]


@on_each_loop
async def test_callbacks_get_their_arguments(log: list[str]) -> list[str]:
    """Sync and async functions are called once, with the arguments they were registered with, when the loop ends."""

    def called(*args: object, **kwargs: object) -> None:
        log.append(f"called {args} {kwargs}")

    async def awaited(*args: object, **kwargs: object) -> None:
        log.append(f"awaited {args} {kwargs}")
        await asyncio.sleep(0)
        log.append(f"done {args} {kwargs}")

    atexit.register(called, 1, a=2)
    atexit.register(awaited, 3, function=4)
    await asyncio.sleep(0)
    assert log == []
    return ["awaited (3,) {'function': 4}", "done (3,) {'function': 4}", "called (1,) {'a': 2}"]


@on_each_loop
async def test_what_a_callback_returns_is_awaited_if_it_can_be(log: list[str]) -> list[str]:
    """A future, or any other awaitable, that a plain function returns is waited for."""

    class Awaitable:
        def __await__(self) -> Any:
            yield
            log.append("awaitable")

    def future() -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: log.append("future"))
        asyncio.get_running_loop().call_soon(future.set_result, None)
        return future

    atexit.register(log.append, "first registered")
    atexit.register(Awaitable)
    atexit.register(future)
    return ["future", "awaitable", "first registered"]


@on_each_loop
async def test_register_returns_the_function_and_decorates(log: list[str]) -> list[str]:
    """register() gives back what it was given, so that it can stand over a function, which may be registered again."""

    @atexit.register
    def first() -> None:
        log.append("first")

    @atexit.register
    async def second() -> None:
        log.append("second")

    assert first.__name__ == "first"
    assert atexit.register(first) is first
    assert await second() is None  # type: ignore[func-returns-value]  # that it is the function itself is asked here
    for number in "12":
        atexit.register(log.append, number)
    return ["second", "2", "1", "first", "second", "first"]


# unregister


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

    def stop(self) -> None:
        self.log.append("stopped")


@on_each_loop
async def test_unregister_takes_back_all_registrations_of_a_function(log: list[str]) -> list[str]:
    """All registrations of what is equal are taken back, whatever their arguments; the others stay."""
    service = Named("service", log)
    for _ in range(2):
        for function in (service.stop, Named("a", log), Named("b", log)):
            atexit.register(function)
        atexit.register(log.append, "kept")
    atexit.unregister(service.stop)
    atexit.unregister(Named("a", log))
    return ["kept", "b", "kept", "b"]


@on_each_loop
async def test_what_was_taken_back_can_be_registered_again(log: list[str]) -> list[str]:
    """After unregister() a function is as if it had never been registered; its arguments are no longer kept alive."""
    argument = Named("argument", log)
    kept = weakref.ref(argument)

    def function(argument: object) -> None:
        log.append("called")

    atexit.register(function, argument)
    atexit.unregister(function)
    del argument
    gc.collect()
    assert kept() is None
    atexit.register(function, None)
    return ["called"]


@on_each_loop
async def test_unregistering_what_was_never_registered_does_nothing(log: list[str]) -> list[str]:
    """Of an unknown function, on a loop that has been used or not, and after aclose()."""
    atexit.unregister(print)
    atexit.register(log.append, "1")
    atexit.unregister(print)
    await aclose()
    atexit.unregister(log.append)
    atexit.register(log.append, "2")
    return ["1", "2"]


def test_every_loop_has_its_own_callbacks(run: Run) -> None:
    """unregister() on one loop takes nothing back on another; nothing is called on a second loop."""
    log: list[str] = []

    def function() -> None:
        log.append("called")

    async def call(what: Callable[..., object]) -> None:
        what(function)

    for what in (atexit.unregister, atexit.register, atexit.unregister):
        run(call(what))
    assert log == ["called"]


@on_each_loop
async def test_a_callback_may_be_taken_back_during_the_end(log: list[str]) -> list[str]:
    """A callback can take back those that have not run yet."""
    never = Named("never", log)
    atexit.register(log.append, "last")
    atexit.register(never)
    atexit.register(atexit.unregister, never)
    return ["last"]


# Errors.


def fail(message: str, error: type[BaseException] = ZeroDivisionError) -> None:
    raise error(message)


async def fail_later(message: str) -> None:
    await asyncio.sleep(0)
    fail(message)


def test_errors_at_the_end_are_reported_and_the_others_still_run(run: Run) -> None:
    """Each error goes to the loop's exception handler, with the callback named; all callbacks run, and the loop closes.

    A CancelledError, though nobody has cancelled the callback, is an error like another.
    """
    log: list[str] = []

    async def main() -> Reports:
        atexit.register(log.append, "1")
        atexit.register(fail, "sync")
        atexit.register(log.append, "2")
        atexit.register(fail_later, message="async")
        atexit.register(log.append, "3")
        atexit.register(fail, "cancelled", asyncio.CancelledError)
        return reports_of_this_loop()

    cancelled, later, sync = run(main())
    assert log == ["3", "2", "1"]
    assert isinstance(cancelled["exception"], Exception)
    assert [(type(each["exception"]), str(each["exception"])) for each in (later, sync)] == [
        (ZeroDivisionError, "async"),
        (ZeroDivisionError, "sync"),
    ]
    assert "fail('cancelled', " in cancelled["message"]
    assert "fail_later(message='async')" in later["message"]
    assert "fail('sync')" in sync["message"]


# What a callback may do.


@on_each_loop
async def test_what_is_registered_during_the_end_is_called_too(log: list[str]) -> list[str]:
    """A callback may register callbacks, and so may an exit; they come next, and what they register after them."""

    async def again(depth: int) -> None:
        log.append(f"again {depth}")
        if depth:
            atexit.register(again, depth - 1)

    class Registering(Recorded):
        async def __aexit__(self, *exc_info: object) -> None:
            await super().__aexit__(*exc_info)
            atexit.register(log.append, "from exit")

    atexit.register(log.append, "first")
    await enter(Registering(log))
    atexit.register(again, 2)
    log.clear()
    return ["again 2", "again 1", "again 0", *exits("r"), "from exit", "first"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@on_each_loop
async def test_a_callback_runs_in_the_context_that_registered_it(log: list[str]) -> list[str]:
    """Each callback sees the context variables as they were when it was registered, in a task of its own."""
    tasks: list[object] = [None]

    async def look(name: str) -> None:
        log.append(f"{name}: {variable.get()}")
        variable.set(f"by {name}")
        await asyncio.sleep(0)
        assert variable.get() == f"by {name}"
        assert asyncio.current_task() not in tasks
        tasks.append(asyncio.current_task())

    async def in_a_task() -> None:
        variable.set("of the task")
        atexit.register(look, "registered in a task")

    variable.set("of main")
    atexit.register(look, "registered by main")
    await asyncio.create_task(in_a_task())
    variable.set("changed later")
    return ["registered in a task: of the task", "registered by main: of main"]


@on_each_loop
async def test_tasks_that_a_callback_leaves_behind_are_cancelled_and_awaited(log: list[str]) -> list[str]:
    """A task that a callback has started and not waited for ends before the next callback."""

    async def note_end() -> None:
        await asyncio.sleep(0)
        log.append("task ended")

    async def leave() -> None:
        await begin_to_linger(1, note_end)
        log.append("left")

    atexit.register(log.append, "next")
    atexit.register(leave)
    return ["left", "task ended", "next"]


@on_each_loop
async def test_a_singleton_asked_for_in_a_callback_is_the_loops(log: list[str]) -> list[str]:
    """What the loop has made is still known while it ends."""
    make = singleton(object)
    made = make()
    atexit.register(lambda: log.append(f"the same: {make() is made}"))
    return ["the same: True"]


# The private forms that older code uses.


def test_the_older_register_takes_an_awaitable(run: Run) -> None:
    """_atexit._register(awaitable) awaits it when the loop ends, in the same stack; an error is reported by its name."""
    log: list[str] = []

    async def say(text: str) -> None:
        await asyncio.sleep(0)
        log.append(text)

    async def main() -> Reports:
        atexit.register(log.append, "1")
        assert _atexit._register(say("2")) is None  # type: ignore[func-returns-value]  # that it is None is asked here
        atexit.register(log.append, "3")
        _atexit._register(fail_later("x"))
        await asyncio.sleep(0)
        assert log == []
        return reports_of_this_loop()

    (report,) = run(main())
    assert log == ["3", "2", "1"]
    assert str(report["exception"]) == "x"
    assert "fail_later" in report["message"]


@on_each_loop
async def test_the_older_fire_calls_all_now(log: list[str]) -> list[str]:
    """await _atexit._fire() ends everything of the loop now, once; errors are raised together."""
    await _atexit._fire()
    atexit.register(log.append, "1")
    _atexit._register(fail_later("2"))
    await enter(Recorded(log, "3"))
    with pytest.raises(ExceptionGroup) as caught:
        await _atexit._fire()
    assert [str(error) for error in caught.value.exceptions] == ["2"]
    await _atexit._fire()
    return [*enters("3"), *exits("3"), "1"]


@on_one_loop
async def test_the_older_register_refuses_what_it_cannot_use() -> None:
    """_register() of a function is a TypeError that points at atexit.register()."""
    wrong: Any = print
    with pytest.raises(TypeError, match=r"'awaitable'.*builtin_function_or_method.*atexit\.register\(\)"):
        _atexit._register(wrong)


def test_the_older_register_needs_a_loop() -> None:
    """Where no loop runs, it raises RuntimeError."""
    done: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    try:
        with pytest.raises(RuntimeError, match=r"^no running event loop$"):
            _atexit._register(done)
    finally:
        done.get_loop().close()
