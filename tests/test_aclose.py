"""`aclose`: ending everything of a loop before the loop ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import aclose, atexit, enter, enter_once, resources, singleton, storage
from conftest import Run
from recording import Factory, Recorded, begin, cancel, enters, exits, on_each_loop, reports_of_this_loop


async def entered(log: list[str], **errors: BaseException | None) -> list[Recorded]:
    """Resources of these names, one after the other, whose exits raise these errors; the log is empty then."""
    made: list[Recorded] = []
    for name, error in errors.items():
        made.append(await enter(Recorded(log, name)))
        made[-1].exit_error = error
    log.clear()
    return made


@on_each_loop
async def test_where_nothing_was_used_it_does_nothing() -> None:
    """On a loop without anything it returns, and leaves the loop as it was."""
    before = dict(vars(asyncio.get_running_loop()))
    await aclose()
    assert vars(asyncio.get_running_loop()).keys() <= before.keys()


@on_each_loop
async def test_a_loop_can_be_used_after_aclose(log: list[str]) -> list[str]:
    """All is forgotten: storage is the same dict, empty; factories make anew; what is opened afterwards ends with the loop."""
    token = singleton(object)
    factory = Factory(log)
    kept = storage()
    kept["a"] = 1
    before = token()
    await factory.use()
    atexit.register(log.append, "callback")
    await aclose()
    assert log == [*enters("0"), "callback", *exits("0")]
    assert storage() is kept
    assert kept == {}
    assert token() is not before
    await factory.use()
    atexit.register(log.append, "later")
    assert log[5:] == enters("1")
    log.clear()
    return ["later", *exits("1")]


@on_each_loop
async def test_errors_of_exits_in_aclose_are_raised_together_after_the_last_exit(log: list[str]) -> list[str]:
    """It raises one ExceptionGroup, after the last exit, with notes of whose each is; nothing is reported or raised again."""
    reports = reports_of_this_loop()
    await entered(log, a=ValueError("a"), b=None, c=ValueError("c"))
    atexit.register(int, "x")

    async def fail_later(message: str) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError(message)

    atexit.register(fail_later, message="later")
    with pytest.raises(ExceptionGroup) as caught:
        await aclose()
    assert len(log) == 4
    errors = caught.value.exceptions
    assert [type(error) for error in errors] == [ZeroDivisionError, ValueError, ValueError, ValueError]
    assert [str(error) for error in errors[2:]] == ["c", "a"]
    names = ["atexit callback fail_later(message='later')", "atexit callback int('x')", "Recorded", "Recorded"]
    assert [error.__notes__[0] for error in errors] == [f"raised by the exit of {name}" for name in names]
    await aclose()
    assert reports == []
    return ["exiting c", *exits("b"), "exiting a"]


@on_each_loop
async def test_system_exit_of_an_exit_in_aclose_is_raised_after_the_others(log: list[str]) -> list[str]:
    """A SystemExit that an exit raises comes out of aclose() when all other exits have run; other errors are reported."""
    reports = reports_of_this_loop()
    await entered(log, a=ValueError("a"), b=SystemExit(3), c=None)
    with pytest.raises(SystemExit, match="3"):
        await aclose()
    assert [str(report["exception"]) for report in reports] == ["a"]
    return [*exits("c"), "exiting b", "exiting a"]


@pytest.mark.parametrize("has_errors", [False, True])
def test_a_cancelled_aclose_loses_no_exit(run: Run, has_errors: bool) -> None:
    """The exit in progress goes on by itself, what had not run runs at the end of the loop, and each error is reported."""
    log: list[str] = []
    errors = {name: ValueError(name) if has_errors else None for name in "abc"}

    async def main() -> list[dict[str, Any]]:
        reports = reports_of_this_loop()
        _, second, _ = await entered(log, **errors)
        second.may_exit.clear()
        await cancel(await begin(aclose()))
        assert log == ([*exits("c"), "exiting b"] if not has_errors else ["exiting c", "exiting b"])
        second.may_exit.set()
        return reports

    reports = run(main())
    assert log == (["exiting c", "exiting b", "exiting a"] if has_errors else exits("c", "b", "a"))
    assert [report["exception"] for report in reports] == ([errors[name] for name in "cba"] if has_errors else [])


@on_each_loop
async def test_two_acloses_at_once_wait_for_the_same_exits() -> None:
    """Each exit runs once, and both callers come back after the last, with its error."""
    log: list[str] = []
    await entered(log, a=ValueError("a"), b=None)
    results: list[object] = list(await asyncio.gather(aclose(), aclose(), return_exceptions=True))
    assert log == [*exits("b"), "exiting a"]
    assert ["[ValueError('a')]" in repr(result) for result in results] == [True, True]


@on_each_loop
async def test_it_waits_for_what_is_being_entered_and_ends_it() -> None:
    """A resource that another task is still entering is entered, and then ended, before aclose() returns."""
    resource = Recorded()
    resource.may_enter.clear()
    entering, closing = await begin(enter_once(resource)), await begin(aclose())
    resource.may_enter.set()
    await closing
    assert await entering is resource
    assert resource.log == [*enters("r"), *exits("r")]


def test_on_a_second_loop(run: Run) -> None:
    """It ends what its own loop holds, and leaves alone what another one does."""
    log: list[str] = []

    async def inner() -> None:
        await enter(Recorded(log, "inner"))
        await aclose()
        assert log == [*enters("outer"), *enters("inner"), *exits("inner")]

    async def main() -> None:
        storage()["kept"] = True
        await enter(Recorded(log, "outer"))
        await asyncio.to_thread(run, inner())
        assert [info.state for info in resources()] == ["open"]
        assert storage() == {"kept": True}

    run(main())
    assert log[6:] == exits("outer")


# Called by what it would have to end.


@pytest.mark.parametrize("moment", ["enter", "exit", "task", "callback"])
def test_aclose_from_inside_of_what_it_would_end_is_refused(run: Run, moment: str) -> None:
    """aclose() inside an enter, an exit, a task of a resource or a callback raises RuntimeError, and nothing hangs."""
    errors: list[str] = []

    async def attempt() -> None:
        with pytest.raises(RuntimeError) as caught:
            await aclose()
        errors.append(str(caught.value))

    @asynccontextmanager
    async def inside() -> AsyncGenerator[None]:
        if moment == "enter":
            await attempt()
        task = asyncio.create_task(attempt()) if moment == "task" else None
        yield
        if moment == "exit":
            await attempt()
        if task is not None:
            await task

    async def main() -> None:
        await enter(inside())
        if moment == "callback":
            atexit.register(attempt)

    run(main())
    (error,) = errors
    assert "aclose() was called from inside" in error


@on_each_loop
async def test_aclose_by_a_run_for_which_an_enter_waits_is_refused(log: list[str]) -> list[str]:
    """A shared coroutine's run that would wait for the end of what waits for itself gets an error, and nothing hangs."""

    @singleton
    async def closing() -> str:
        await waits.entering.wait()
        with pytest.raises(RuntimeError) as caught:
            await aclose()
        return str(caught.value)

    class Waits(Recorded):
        message = ""

        async def __aenter__(self) -> Waits:
            self.entering.set()
            self.message = await closing()
            return self

    waits = Waits(log)
    task = asyncio.create_task(closing())
    await asyncio.sleep(0)
    await enter(waits)
    assert "this would wait for ever" in waits.message
    assert re.search(r"closing\(\) -> aclose\(\) -> .*Waits -> .*closing\(\)\.", waits.message), waits.message
    assert await task == waits.message
    assert log == []
    await aclose()  # by code for which nothing waits
    return exits("r")


@on_each_loop
async def test_an_exit_that_waits_for_the_run_that_ends_it_is_refused() -> None:
    """The exit gets the error at its await; the run's aclose() still finishes, and raises what the exit raises."""

    @singleton
    async def closing() -> None:
        await asyncio.sleep(0)
        await aclose()

    class Waits(Recorded):
        async def __aexit__(self, *exc_info: object) -> None:
            self.log.append("exiting")
            await closing()

    waits = await enter(Waits())
    with pytest.raises(ExceptionGroup) as caught:
        await closing()
    [error] = caught.value.exceptions
    assert re.search(r"Waits -> .*closing\(\) -> aclose\(\) -> .*Waits\.", str(error)), error
    await aclose()
    assert waits.log == [*enters("r"), "exiting"]
