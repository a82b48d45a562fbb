"""What happens when something goes wrong: each row of the contract's table."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import asyncio_loop_local
from asyncio_loop_local import aclose, atexit, enter, enter_once, singleton, sticky_acm, sticky_singleton_acm
from conftest import Run


class Recorder:
    """Keeps what is given to a loop's exception handler."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []

    def listen(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.contexts.append(context))

    @property
    def errors(self) -> list[BaseException]:
        return [context["exception"] for context in self.contexts]

    @property
    def messages(self) -> list[str]:
        return [context["message"] for context in self.contexts]


class Resource:
    """An ACM that can be made to wait, or to fail, in entering and in leaving."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.entering = asyncio.Event()
        self.exiting = asyncio.Event()
        self.may_enter = asyncio.Event()
        self.may_enter.set()
        self.may_exit = asyncio.Event()
        self.may_exit.set()
        self.enter_error: BaseException | None = None
        self.exit_error: BaseException | None = None

    async def __aenter__(self) -> str:
        self.log.append(f"enter {self.name}")
        self.entering.set()
        try:
            await self.may_enter.wait()
        except asyncio.CancelledError:
            self.log.append(f"enter {self.name} cancelled")
            raise
        if self.enter_error is not None:
            raise self.enter_error
        self.log.append(f"entered {self.name}")
        return self.name

    async def __aexit__(self, *exc_info: object) -> None:
        self.log.append(f"exit {self.name}")
        self.exiting.set()
        try:
            await self.may_exit.wait()
        except asyncio.CancelledError:
            self.log.append(f"exit {self.name} cancelled")
            raise
        if self.exit_error is not None:
            raise self.exit_error
        self.log.append(f"exited {self.name}")


# An exit raises at the end of the loop.


def test_errors_of_exits_at_the_end_are_reported_and_the_others_run(run: Run) -> None:
    """Each error of an exit goes to the exception handler, with the resource named; the others run and the loop closes."""
    log: list[str] = []
    recorder = Recorder()
    loops: list[asyncio.AbstractEventLoop] = []

    class First(Resource):
        pass

    class Third(Resource):
        pass

    async def main() -> None:
        recorder.listen()
        loops.append(asyncio.get_running_loop())
        first, second, third = First("1", log), Resource("2", log), Third("3", log)
        first.exit_error, third.exit_error = ValueError("one"), KeyError("three")
        for resource in first, second, third:
            await enter(resource)
        log.clear()

    run(main())
    assert log == ["exit 3", "exit 2", "exited 2", "exit 1"]
    assert [repr(error) for error in recorder.errors] == ["KeyError('three')", "ValueError('one')"]
    assert "Third" in recorder.messages[0]
    assert "First" in recorder.messages[1]
    assert loops[0].is_closed()


def test_an_exit_that_raises_cancelled_error_of_itself_is_an_error(run: Run) -> None:
    """An exit that ends as cancelled, though nobody cancelled it, is reported and stops nothing else."""
    log: list[str] = []
    recorder = Recorder()

    async def main() -> None:
        recorder.listen()
        first, second = Resource("1", log), Resource("2", log)
        second.exit_error = asyncio.CancelledError()
        await enter(first)
        await enter(second)
        log.clear()

    run(main())
    assert log == ["exit 2", "exit 1", "exited 1"]
    assert isinstance(recorder.errors[0], RuntimeError)
    assert isinstance(recorder.errors[0].__cause__, asyncio.CancelledError)


# An exit raises in aclose().


def test_errors_of_exits_in_aclose_are_raised_together_after_the_last_exit(run: Run) -> None:
    """aclose() raises one ExceptionGroup, after the last exit, and nothing goes to the exception handler."""
    log: list[str] = []
    recorder = Recorder()

    async def main() -> None:
        recorder.listen()
        for name in "123":
            resource = Resource(name, log)
            resource.exit_error = None if name == "2" else ValueError(name)
            await enter(resource)
        atexit.register(int, "x")
        log.clear()
        with pytest.raises(ExceptionGroup) as caught:
            await aclose()
        assert log == ["exit 3", "exit 2", "exited 2", "exit 1"]
        assert [str(error) for error in caught.value.exceptions][1:] == ["3", "1"]
        assert "Resource" in caught.value.exceptions[1].__notes__[0]
        assert "int('x')" in caught.value.exceptions[0].__notes__[0]
        await aclose()

    run(main())
    assert recorder.contexts == []


def test_system_exit_of_an_exit_in_aclose_is_raised_after_the_others(run: Run) -> None:
    """A SystemExit that an exit raises comes out of aclose() when all other exits have run; other errors are reported."""
    log: list[str] = []
    recorder = Recorder()

    async def main() -> None:
        recorder.listen()
        for name, error in (("1", ValueError("1")), ("2", SystemExit(3)), ("3", None)):
            resource = Resource(name, log)
            resource.exit_error = error
            await enter(resource)
        log.clear()
        try:
            await aclose()
        except SystemExit as error:
            log.append(f"raised {error.code}")

    run(main())
    assert log == ["exit 3", "exited 3", "exit 2", "exit 1", "raised 3"]
    assert [str(error) for error in recorder.errors] == ["1"]


# KeyboardInterrupt or SystemExit at the end.


@pytest.mark.parametrize("fatal", [KeyboardInterrupt(), SystemExit(7)])
def test_a_fatal_error_at_the_end_is_raised_after_the_other_exits(run: Run, fatal: BaseException) -> None:
    """KeyboardInterrupt and SystemExit of an exit come out of the runner when all other exits have run."""
    log: list[str] = []

    async def main() -> None:
        first, second = Resource("1", log), Resource("2", log)
        second.exit_error = fatal
        await enter(first)
        await enter(second)
        log.clear()

    with pytest.raises(type(fatal)) as caught:
        run(main())
    assert caught.value is fatal
    assert log == ["exit 2", "exit 1", "exited 1"]


_HUNG = """
    import asyncio, sys
    from asyncio_loop_local import enter
    import uvloop

    class Resource:
        def __init__(self, name, hangs=False, stubborn=False):
            self.name, self.hangs, self.stubborn = name, hangs, stubborn
        async def __aenter__(self):
            return self
        async def __aexit__(self, *exc_info):
            print("exit", self.name, flush=True)
            while self.hangs:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    print("cancelled", self.name, flush=True)
                    if not self.stubborn:
                        raise
            print("exited", self.name, flush=True)

    async def main():
        for resource in Resource("1"), Resource("2", hangs=True, stubborn="stubborn" in sys.argv), Resource("3"):
            await enter(resource)

    def by_hand(loop):
        loop.run_until_complete(main())
        try:
            loop.close()
        finally:
            assert loop.is_closed()

    try:
        match sys.argv[1]:
            case "run": asyncio.run(main())
            case "uvloop": uvloop.run(main())
            case "close": by_hand(asyncio.new_event_loop())
            case "close-uvloop": by_hand(uvloop.new_event_loop())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def _with_interrupts(door: str, *more: str, interrupt_at: list[str]) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(_HUNG), door, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] in interrupt_at:
                process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert process.wait(10) == 0, stderr
        assert stderr == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    return lines


@pytest.mark.parametrize("door", ["run", "uvloop", "close", "close-uvloop"])
def test_ctrl_c_gets_the_user_out_of_a_hung_exit(door: str) -> None:
    """Ctrl-C cancels the exit in progress, the others run, and then KeyboardInterrupt is raised."""
    assert _with_interrupts(door, interrupt_at=["exit 2"]) == [
        "exit 3",
        "exited 3",
        "exit 2",
        "cancelled 2",
        "exit 1",
        "exited 1",
        "interrupted",
    ]


@pytest.mark.parametrize("door", ["run", "uvloop", "close", "close-uvloop"])
def test_a_second_ctrl_c_does_without_an_exit_that_ignores_the_first(door: str) -> None:
    """An exit that takes no notice of its cancellation is left behind at the next Ctrl-C."""
    assert _with_interrupts(door, "stubborn", interrupt_at=["exit 2", "cancelled 2"]) == [
        "exit 3",
        "exited 3",
        "exit 2",
        "cancelled 2",
        "exit 1",
        "exited 1",
        "interrupted",
    ]


# aclose() is cancelled.


def test_a_cancelled_aclose_loses_no_exit(run: Run) -> None:
    """The exit in progress goes on by itself, and what had not run runs at the end of the loop."""
    log: list[str] = []

    async def main() -> None:
        first, second, third = (Resource(name, log) for name in "123")
        second.may_exit.clear()
        for resource in first, second, third:
            await enter(resource)
        log.clear()
        closing = asyncio.create_task(aclose())
        await second.exiting.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert log == ["exit 3", "exited 3", "exit 2"]
        second.may_exit.set()

    run(main())
    assert log == ["exit 3", "exited 3", "exit 2", "exited 2", "exit 1", "exited 1"]


def test_an_error_that_a_cancelled_aclose_had_kept_is_reported(run: Run) -> None:
    """What exits had raised before aclose() was cancelled, and what the one in progress raises, is not lost."""
    log: list[str] = []
    recorder = Recorder()

    async def main() -> None:
        recorder.listen()
        first, second = Resource("1", log), Resource("2", log)
        second.exit_error, first.exit_error = ValueError("2"), ValueError("1")
        first.may_exit.clear()
        await enter(first)
        await enter(second)
        closing = asyncio.create_task(aclose())
        await first.exiting.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        first.may_exit.set()

    run(main())
    assert [str(error) for error in recorder.errors] == ["2", "1"]


def test_two_acloses_at_once_wait_for_the_same_exits(run: Run) -> None:
    """Each exit runs once, and both callers come back after the last, with its error."""
    log: list[str] = []

    async def main() -> None:
        first, second = Resource("1", log), Resource("2", log)
        first.exit_error = ValueError("1")
        await enter(first)
        await enter(second)
        log.clear()
        results: Sequence[object] = await asyncio.gather(aclose(), aclose(), return_exceptions=True)
        assert log == ["exit 2", "exited 2", "exit 1"]
        for result in results:
            assert "[ValueError('1')]" in repr(result)

    run(main())


# Entering raises.


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(2), KeyboardInterrupt(), GeneratorExit(), MemoryError()])
def test_all_who_wait_get_the_error_and_the_next_call_tries_afresh(run: Run, error: BaseException) -> None:
    """A failed enter is shared by those who wait for it, and not remembered."""
    made: list[Resource] = []
    log: list[str] = []

    @sticky_singleton_acm
    def make() -> Resource:
        made.append(Resource(str(len(made)), log))
        if len(made) == 1:
            made[0].may_enter.clear()
            made[0].enter_error = error
        return made[-1]

    async def use() -> str | BaseException:
        try:
            async with make() as value:
                return value
        except BaseException as raised:
            return raised

    async def main() -> None:
        uses = [asyncio.create_task(use()) for _ in range(3)]
        while not made:
            await asyncio.sleep(0)
        await made[0].entering.wait()
        made[0].may_enter.set()
        assert await asyncio.gather(*uses) == [error, error, error]
        assert await use() == "1"
        assert len(made) == 2

    run(main())
    assert log == ["enter 0", "enter 1", "entered 1", "exit 1", "exited 1"]


def test_a_handle_that_failed_tries_afresh_too(run: Run) -> None:
    """The same object that failed to enter makes and enters a new resource at its next block."""
    attempts: list[int] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[int]:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("first")
        yield len(attempts)

    async def main() -> None:
        handle = make()
        with pytest.raises(ValueError, match="first"):
            await handle.__aenter__()
        async with handle as value, handle as again, make() as third:
            assert (value, again, third) == (2, 2, 2)

    run(main())


def test_tasks_that_a_failed_enter_had_started_are_cancelled_and_awaited(run: Run) -> None:
    """An enter that starts a task and then fails leaves none behind."""
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("background")

    tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def fails() -> AsyncGenerator[None]:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        if tasks:
            raise ValueError
        yield

    async def main() -> None:
        with pytest.raises(ValueError):
            await enter(fails())

    run(main())
    assert ended == ["background"]


# A caller is cancelled.


def test_the_first_of_two_callers_is_cancelled_and_entering_goes_on(run: Run) -> None:
    """The one who began it may be cancelled: the other gets the value of the same entering."""
    log: list[str] = []

    async def main() -> None:
        resource = Resource("r", log)
        resource.may_enter.clear()
        first = asyncio.create_task(enter_once(resource))
        await resource.entering.wait()
        second = asyncio.create_task(enter_once(resource))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        resource.may_enter.set()
        assert await second == "r"
        assert await enter_once(resource) == "r"

    run(main())
    assert log == ["enter r", "entered r", "exit r", "exited r"]


def test_the_last_caller_that_is_cancelled_cancels_entering(run: Run) -> None:
    """When all who wait are cancelled, so is the entering, and nothing is exited that was never entered."""
    log: list[str] = []

    async def main() -> None:
        resource = Resource("r", log)
        resource.may_enter.clear()
        callers = [asyncio.create_task(enter_once(resource)) for _ in range(3)]
        await resource.entering.wait()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)

    run(main())
    assert log == ["enter r", "enter r cancelled"]


def test_a_new_caller_starts_anew_at_once_while_the_cancelled_enter_unwinds(run: Run) -> None:
    """A call made after the last cancellation does not wait for the old entering to have cleaned up."""
    log: list[str] = []
    unwind = asyncio.Event

    class Slow:
        def __init__(self, number: int, may_unwind: asyncio.Event) -> None:
            self.number, self.may_unwind = number, may_unwind

        async def __aenter__(self) -> int:
            log.append(f"enter {self.number}")
            if self.number == 0:
                try:
                    await asyncio.Event().wait()
                finally:
                    log.append("unwinding")
                    await self.may_unwind.wait()
                    log.append("unwound")
            return self.number

        async def __aexit__(self, *exc_info: object) -> None:
            log.append(f"exit {self.number}")

    async def main() -> None:
        may_unwind = unwind()
        numbers = iter(range(10))
        make = sticky_singleton_acm(lambda: Slow(next(numbers), may_unwind))

        async def use() -> int:
            async with make() as number:
                return number

        first = asyncio.create_task(use())
        while not log:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert await use() == 1
        assert log == ["enter 0", "unwinding", "enter 1"]
        may_unwind.set()

    run(main())
    assert sorted(log[3:]) == ["exit 1", "unwound"]


def test_an_enter_that_ignores_its_cancellation_is_exited(run: Run) -> None:
    """What is entered though nobody waits for it any more is exited, once."""
    log: list[str] = []

    class Stubborn(Resource):
        async def __aenter__(self) -> str:
            with suppress(asyncio.CancelledError):
                await super().__aenter__()
            return "entered all the same"

    async def main() -> None:
        resource = Stubborn("r", log)
        resource.may_enter.clear()
        caller = asyncio.create_task(enter_once(resource))
        await resource.entering.wait()
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()

    run(main())
    assert log == ["enter r", "enter r cancelled", "exit r", "exited r"]


def test_an_error_in_unwinding_a_cancelled_enter_is_reported(run: Run) -> None:
    """An error that nobody waits for any more goes to the exception handler, with the resource named."""
    recorder = Recorder()

    class Fails(Resource):
        async def __aenter__(self) -> str:
            try:
                return await super().__aenter__()
            except asyncio.CancelledError:
                raise ValueError("in unwinding") from None

    async def main() -> None:
        recorder.listen()
        resource = Fails("r", [])
        resource.may_enter.clear()
        caller = asyncio.create_task(enter_once(resource))
        await resource.entering.wait()
        caller.cancel()
        await asyncio.wait([caller])

    run(main())
    assert [str(error) for error in recorder.errors] == ["in unwinding"]
    assert "Fails" in recorder.messages[0]


# Entering takes long.


def test_ten_slow_resources_are_entered_side_by_side(run: Run) -> None:
    """All ten begin before the first is entered: nothing waits for what it does not need."""
    log: list[str] = []

    async def main() -> None:
        resources = [Resource(str(number), log) for number in range(10)]
        for resource in resources:
            resource.may_enter.clear()
        entering = asyncio.gather(*(enter_once(resource) for resource in resources))
        for resource in resources:
            await resource.entering.wait()
        assert log == [f"enter {number}" for number in range(10)]
        for resource in reversed(resources):
            resource.may_enter.set()
        assert await entering == [str(number) for number in range(10)]

    run(main())


# A's enter needs B and B's needs A.


def test_a_cycle_of_enters_is_refused_by_name(run: Run) -> None:
    """Two factories whose enters need each other get a RuntimeError that names the cycle, and no hang."""
    sticky: dict[str, Callable[[], Any]] = {}

    @sticky_singleton_acm
    @asynccontextmanager
    async def alpha() -> AsyncGenerator[str]:
        async with sticky["beta"]() as beta:
            yield "alpha" + beta

    @sticky_singleton_acm
    @asynccontextmanager
    async def beta() -> AsyncGenerator[str]:
        async with sticky["alpha"]() as alpha:
            yield "beta" + alpha

    sticky.update(alpha=alpha, beta=beta)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"beta\(\) -> alpha\(\) -> beta\(\)"):
            async with alpha():
                pass

    run(main())


def test_a_cycle_through_tasks_of_the_enters_is_refused(run: Run) -> None:
    """A cycle is found also where an enter asks for the other in a task of its own, as gather and TaskGroup do."""
    sticky: dict[str, Callable[[], Any]] = {}

    async def use(name: str) -> None:
        async with sticky[name]():
            pass

    def needs(name: str, other: str) -> None:
        @sticky_singleton_acm
        @asynccontextmanager
        async def make() -> AsyncGenerator[str]:
            await asyncio.gather(use(other))
            yield name

        sticky[name] = make

    needs("a", "b")
    needs("b", "c")
    needs("c", "a")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="each of these needs the next"):
            await use("a")

    run(main())


def test_an_enter_that_needs_itself_is_refused(run: Run) -> None:
    """A resource whose enter asks for the very same resource gets the error at once."""
    itself: list[Any] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def make(name: str) -> AsyncGenerator[str]:
        async with itself[0](name=name):
            yield name

    itself.append(make)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"make\('x'\) -> make\('x'\)"):
            async with make("x"):
                pass

    run(main())


def test_two_that_need_the_same_third_are_no_cycle(run: Run) -> None:
    """A diamond of needs is entered, and ends in order."""
    log: list[str] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def node(name: str, *needs: str) -> AsyncGenerator[str]:
        async with asyncio.TaskGroup() as group:
            for need in needs:
                group.create_task(use(need, "bottom"))
        log.append(f"enter {name}")
        yield name
        log.append(f"exit {name}")

    async def use(name: str, *needs: str) -> None:
        async with node(name, *(need for need in needs if need != name)):
            pass

    async def main() -> None:
        async with node("top", "left", "right"):
            pass

    run(main())
    assert log[0] == "enter bottom"
    assert log[3:5] == ["enter top", "exit top"]
    assert log[-1] == "exit bottom"


# A resource dies while it is held.


def test_a_resource_whose_task_group_dies_is_reported_and_made_anew(run: Run) -> None:
    """It is reported with its name, exited with what it died of, forgotten by its factory, and made anew at the next call."""
    recorder = Recorder()
    log: list[str] = []
    die: list[asyncio.Event] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[int]:
        number = len(die)
        die.append(asyncio.Event())

        async def fail() -> None:
            await die[number].wait()
            raise ValueError(f"background of {number}")

        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(fail())
                yield number
                task.cancel()
        finally:
            log.append(f"exit {number}")

    async def main() -> None:
        recorder.listen()
        async with make() as number:
            assert number == 0
        handle = make()
        die[0].set()
        while not log:
            await asyncio.sleep(0)
        async with make() as number, handle as of_handle:
            assert (number, of_handle) == (1, 1)

    run(main())
    assert log == ["exit 0", "exit 1"]
    assert len(recorder.errors) == 1
    assert isinstance(recorder.errors[0], ExceptionGroup)
    assert "make()" in recorder.messages[0]
    assert "died" in recorder.messages[0]


@pytest.mark.parametrize("door", ["enter_once", "sticky_acm"])
def test_what_died_is_entered_again_by_identity(run: Run, door: str) -> None:
    """enter_once and sticky_acm forget an object that died while it was held, and enter it again."""
    recorder = Recorder()

    class Mortal:
        entered = 0

        async def __aenter__(self) -> int:
            self.group = asyncio.TaskGroup()
            await self.group.__aenter__()
            self.entered += 1
            return self.entered

        def die(self) -> None:
            async def fail() -> None:
                raise ValueError("dead")

            self.group.create_task(fail())

        async def __aexit__(self, *exc_info: Any) -> None:
            await self.group.__aexit__(*exc_info)

    async def main() -> None:
        recorder.listen()
        mortal = Mortal()
        sticky = sticky_acm(mortal)

        async def get() -> int:
            if door == "enter_once":
                return await enter_once(mortal)
            async with sticky as value:
                return value

        assert [await get(), await get()] == [1, 1]
        mortal.die()
        while not recorder.contexts:
            await asyncio.sleep(0)
        assert [await get(), await get()] == [2, 2]

    run(main())
    assert len(recorder.contexts) == 1


# Something is entered during the end.


def test_what_is_entered_or_registered_during_the_end_is_ended_too(run: Run) -> None:
    """An exit and a callback that enter resources and register callbacks lose none of them."""
    log: list[str] = []

    class Enters(Resource):
        async def __aexit__(self, *exc_info: object) -> None:
            await super().__aexit__(*exc_info)
            await enter(Resource("late", log))
            atexit.register(log.append, "late callback")

    async def callback() -> None:
        log.append("callback")
        await enter(Resource("later", log))

    async def main() -> None:
        await enter(Enters("first", log))
        atexit.register(callback)
        log.clear()

    run(main())
    assert log == [
        "callback",
        *("enter later", "entered later", "exit later", "exited later"),
        *("exit first", "exited first", "enter late", "entered late"),
        *("late callback", "exit late", "exited late"),
    ]


# aclose is called from inside.


@pytest.mark.parametrize("moment", ["enter", "exit", "task", "callback"])
def test_aclose_from_inside_of_what_it_would_end_is_refused(run: Run, moment: str) -> None:
    """aclose() inside an enter, an exit, a task of a resource or a callback raises RuntimeError, and nothing hangs."""
    errors: list[RuntimeError] = []

    async def attempt() -> None:
        try:
            await aclose()
        except RuntimeError as error:
            errors.append(error)

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
    assert len(errors) == 1
    assert "aclose() was called from inside" in str(errors[0])


# The factory returns what is no ACM: see test_bad_input.py. A process forks, and a loop's class takes nothing: test_process.py.


def test_aclose_by_a_run_for_which_an_enter_waits_is_refused(run: Run) -> None:
    """A shared coroutine's run that would wait for the end of what waits for itself gets an error, and nothing hangs."""
    log: list[str] = []

    async def main() -> None:
        entering = asyncio.Event()

        @singleton
        async def closing() -> str:
            await entering.wait()
            try:
                await aclose()
            except RuntimeError as error:
                return str(error)
            raise AssertionError

        class Waits:
            async def __aenter__(self) -> str:
                entering.set()
                return await closing()

            async def __aexit__(self, *_exc: object) -> None:
                log.append("exit")

        task = asyncio.create_task(closing())
        await asyncio.sleep(0)
        told = await enter(Waits())
        assert "this would wait for ever" in told
        assert re.search(r"closing\(\) -> aclose\(\) -> .*Waits -> .*closing\(\)\.", told), told
        assert await task == told
        assert log == []
        await aclose()  # by code for which nothing waits

    run(main())
    assert log == ["exit"]


def test_an_exit_that_waits_for_the_run_that_ends_it_is_refused(run: Run) -> None:
    """The exit gets the error, where it asks; the run's aclose() goes on, and raises what the exit lets out."""
    log: list[str] = []

    async def main() -> None:
        @singleton
        async def closing() -> None:
            await asyncio.sleep(0)
            await aclose()

        class Waits:
            async def __aenter__(self) -> None:
                log.append("enter")

            async def __aexit__(self, *_exc: object) -> None:
                log.append("exit")
                await closing()

        await enter(Waits())
        with pytest.raises(ExceptionGroup) as caught:
            await closing()
        [error] = caught.value.exceptions
        assert re.search(r"Waits -> .*closing\(\) -> aclose\(\) -> .*Waits\.", str(error)), error
        await aclose()

    run(main())
    assert log == ["enter", "exit"]


def test_a_loop_can_be_used_after_aclose(run: Run) -> None:
    """After aclose() all is forgotten: storage is the same dict, empty; factories make anew; the end of the loop ends that."""
    log: list[str] = []
    numbers = iter(range(10))

    @sticky_singleton_acm
    def make() -> Resource:
        return Resource(str(next(numbers)), log)

    @asyncio_loop_local.singleton
    def token() -> object:
        return object()

    async def main() -> None:
        storage = asyncio_loop_local.storage()
        storage["a"] = 1
        before = token()
        async with make() as value:
            assert value == "0"
        await aclose()
        assert log[-1] == "exited 0"
        assert asyncio_loop_local.storage() is storage
        assert storage == {}
        assert token() is not before
        async with make() as value:
            assert value == "1"

    run(main())
    assert log[-1] == "exited 1"


def test_aclose_waits_for_what_is_being_entered_and_ends_it(run: Run) -> None:
    """A resource that another task is still entering is entered, and then ended, before aclose() returns."""
    log: list[str] = []

    async def main() -> None:
        resource = Resource("r", log)
        resource.may_enter.clear()
        entering = asyncio.create_task(enter_once(resource))
        await resource.entering.wait()
        closing = asyncio.create_task(aclose())
        await asyncio.sleep(0)
        resource.may_enter.set()
        await closing
        assert await entering == "r"
        assert log == ["enter r", "entered r", "exit r", "exited r"]

    run(main())


def test_aclose_where_nothing_was_used_does_nothing(run: Run) -> None:
    """aclose() on a loop without anything returns, and leaves the loop as it was."""

    async def main() -> dict[str, Any]:
        before = dict(vars(asyncio.get_running_loop()))
        await aclose()
        return {key: value for key, value in vars(asyncio.get_running_loop()).items() if key not in before}

    assert run(main()) == {}
