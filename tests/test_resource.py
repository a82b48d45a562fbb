"""One resource: its enter, its life in a task and a context of its own, its tasks, its death, and its exit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Self

import anyio
import anyio.abc
import pytest
import uvloop

from asyncio_loop_local import atexit, enter, enter_once, sticky_acm, sticky_singleton_acm
from asyncio_loop_local._loop_state import loop_state
from conftest import Run
from recording import (
    Factory,
    Recorded,
    begin,
    cancel,
    enters,
    exits,
    keep,
    on_each_loop,
    reports_of_this_loop,
    turns,
    use,
    wait_for_gate,
)

# Enter.


class UnwindsSlowly(Recorded):
    """Has something to do when its enter is cancelled, and may have an error then."""

    def __init__(self, log: list[str], error: BaseException | None = None) -> None:
        super().__init__(log)
        self.may_unwind = asyncio.Event()
        self.error = error

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except asyncio.CancelledError:
            await wait_for_gate(self.may_unwind)
            self.log.append("unwound")
            if self.error is not None:
                raise self.error from None
            raise


async def begin_to_unwind(resource: UnwindsSlowly, entering: Coroutine[Any, Any, object]) -> None:
    """Begins the enter, and cancels the only task that waits for it."""
    resource.may_enter.clear()
    await cancel(await begin(entering))


@on_each_loop
async def test_a_new_caller_starts_anew_at_once_while_the_cancelled_enter_unwinds(log: list[str]) -> list[str]:
    """A call made after the last cancellation does not wait for the old entering to have cleaned up."""
    slow = UnwindsSlowly(log)
    made = [slow, Recorded(log, "new")]
    make = sticky_singleton_acm(lambda: made.pop(0))
    await begin_to_unwind(slow, use(make()))
    assert (await use(make())).name == "new"
    assert log == ["entering r", "entering r cancelled", *enters("new")]
    slow.may_unwind.set()
    await turns()
    return ["entering r", "entering r cancelled", *enters("new"), "unwound", *exits("new")]


@on_each_loop
async def test_an_error_in_unwinding_a_cancelled_enter_is_reported() -> None:
    """An error for which no task waits any more goes to the exception handler, with the resource named."""
    reports = reports_of_this_loop()
    slow = UnwindsSlowly([], ValueError("in unwinding"))
    await begin_to_unwind(slow, enter_once(slow))
    slow.may_unwind.set()
    await turns()
    (report,) = reports
    assert report["exception"] is slow.error
    assert "UnwindsSlowly" in report["message"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_fatal_error_of_an_enter_for_which_nobody_waits_is_raised(run: Run, error: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit are not lost with the last caller: they leave the loop, as from any task."""
    log: list[str] = []

    async def main() -> None:
        slow = UnwindsSlowly(log, error())
        await begin_to_unwind(slow, enter_once(slow))
        reports = reports_of_this_loop()
        slow.may_unwind.set()
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 10)
        finally:
            log.append("main ends")
            assert [type(report["exception"]) for report in reports] == [error]

    with pytest.raises(error):
        run(main())
    assert log == ["entering r", "entering r cancelled", "unwound", "main ends"]


def test_an_enter_that_ignores_its_cancellation_is_exited(run: Run) -> None:
    """A resource that is entered though no task waits for it any more is exited, once."""
    log: list[str] = []

    class Stubborn(Recorded):
        async def __aenter__(self) -> Self:
            try:
                return await super().__aenter__()
            except asyncio.CancelledError:
                return self

    async def main(ends_first: bool) -> None:
        resource = Stubborn(log)
        resource.may_enter.clear()
        caller = keep(enter_once(resource))
        await turns()
        if not ends_first:
            await cancel(caller)

    for ends_first in (False, True):  # the end of the loop cancels the caller, too
        log.clear()
        run(main(ends_first))
        assert log == ["entering r", "entering r cancelled", *exits("r")]


@on_each_loop
async def test_tasks_that_a_failed_enter_had_started_are_cancelled_and_awaited(log: list[str]) -> list[str]:
    """An enter that starts a task and then fails leaves none behind."""
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("background")

    class Fails(Recorded):
        async def __aenter__(self) -> Self:
            tasks.append(asyncio.create_task(background()))
            await asyncio.sleep(0)
            raise ValueError

    with pytest.raises(ValueError):
        await enter(Fails())
    return ["background"]


# One task and one context, its own.


@on_each_loop
async def test_context_is_that_of_the_first_caller(log: list[str]) -> list[str]:
    """A shared resource has a copy of its first caller's context, in its making, enter, exit and tasks."""
    var: ContextVar[str] = ContextVar("var", default="default")

    async def see(what: str) -> None:
        log.append(f"{what}: {var.get()}")

    class Seeing:
        def __init__(self) -> None:
            log.append(f"make: {var.get()}")

        async def __aenter__(self) -> None:
            await see("enter")
            await asyncio.create_task(see("task"))

        async def __aexit__(self, *_exc: object) -> None:
            await see("exit")

    shared = sticky_singleton_acm(Seeing)

    async def use_as(name: str) -> None:
        var.set(name)
        await use(shared())

    for name in ("first", "second"):
        await asyncio.create_task(use_as(name))
    return ["make: first", "enter: first", "task: first", "exit: first"]


@on_each_loop
async def test_one_task_and_one_context(log: list[str]) -> list[str]:
    """A resource is entered and exited in one task and context, its own, if its exit awaits or not; exits keep their order."""
    var: ContextVar[str] = ContextVar("var")
    callers_task = asyncio.current_task()

    class Own:
        def __init__(self, name: str, turns: int) -> None:
            self.name, self.turns = name, turns

        async def __aenter__(self) -> None:
            assert var.get() == "of the caller"
            self.task = asyncio.current_task()
            self.token = var.set(self.name)
            self.timeout = asyncio.timeout(60)
            await self.timeout.__aenter__()

        async def __aexit__(self, *_exc: object) -> None:
            await self.timeout.__aexit__(None, None, None)
            for _ in range(self.turns):
                await asyncio.sleep(0)
            async with asyncio.TaskGroup() as group:
                assert asyncio.current_task() is self.task is not callers_task
                if self.turns:
                    group.create_task(asyncio.sleep(0))
            assert var.get() == self.name
            var.reset(self.token)
            log.append(f"{self.name} {var.get()}")

    var.set("of the caller")
    for number, count in enumerate([0, 0, 2, 0, 1, 0, 0, 3, 0]):
        await enter(Own(str(number), count))
    assert var.get() == "of the caller"
    atexit.register(lambda: log.append(f"callback {asyncio.current_task() is not None} {var.get()}"))
    var.set("changed afterwards")
    return ["callback True of the caller", *(f"{number} of the caller" for number in "876543210")]


class OpaqueFuture(asyncio.Future[Any]):
    """Does not show which tasks wait for it."""

    _callbacks: Any = None


class LoopOfOpaqueFutures(asyncio.SelectorEventLoop):
    def create_future(self) -> asyncio.Future[Any]:
        return OpaqueFuture(loop=self)


def test_a_loop_whose_futures_do_not_tell_who_waits() -> None:
    """Exits that await nothing are run in their own tasks there too, each in a turn of the loop."""
    log: list[str] = []

    class Quick(Recorded):
        async def __aexit__(self, *exc_info: object) -> None:
            log.append(f"exit {self.task is asyncio.current_task()}")

    async def main() -> None:
        for _ in range(3):
            await enter(Quick())

    with asyncio.Runner(loop_factory=LoopOfOpaqueFutures) as runner:
        runner.run(main())
    assert log == ["exit True"] * 3


@on_each_loop
async def test_what_insists_on_its_task_can_be_held(log: list[str]) -> list[str]:
    """Timeouts, task groups and cancel scopes of asyncio and anyio can be held by resources, though tasks come and go."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def insisting() -> AsyncGenerator[anyio.abc.TaskGroup]:
        async with asyncio.timeout(1000), asyncio.TaskGroup(), anyio.create_task_group() as group:
            with anyio.CancelScope():
                yield group
            log.append("exit")

    async def answer(to: asyncio.Event) -> None:
        to.set()

    async def ask() -> None:
        group, answered = await use(insisting()), asyncio.Event()
        group.start_soon(answer, answered)
        await answered.wait()

    await asyncio.create_task(ask())
    await asyncio.create_task(ask())
    return ["exit"]


def test_no_code_of_a_resource_sees_an_error_that_others_handle(run: Run) -> None:
    """Neither an enter that is asked for where an error is handled, nor an exit that follows one that has failed."""
    seen: list[BaseException | None] = []

    class Failing:
        async def __aenter__(self) -> None:
            seen.append(sys.exception())

        async def __aexit__(self, *_exc: object) -> None:
            seen.append(sys.exception())
            raise LookupError

    async def main() -> list[dict[str, Any]]:
        for _ in range(3):
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                await enter(Failing())
        return reports_of_this_loop()

    errors = [report["exception"] for report in run(main())]
    assert seen == [None] * 6
    assert [(type(error), error.__context__) for error in errors] == [(LookupError, None)] * 3


@on_each_loop
async def test_no_exit_sees_the_error_of_an_enter_that_it_had_to_wait_for(log: list[str]) -> list[str]:
    """What an enter in progress has acquired is exited as soon as that has failed, and on its own."""

    class Used(Recorded):
        async def __aexit__(self, *exc_info: object) -> None:
            log.append(f"exit sees {sys.exception()}")

    class Slow(Recorded):
        async def __aenter__(self) -> Self:
            await enter(Used())
            try:
                await asyncio.Event().wait()
            finally:
                await turns()
                log.append("failed")
            raise AssertionError

    keep(enter(Slow()))
    await turns()
    return ["failed", "exit sees None"]


# Its tasks: they live as long as it does.


@pytest.mark.parametrize("kind", ["task", "task group", "anyio's task group"])
@on_each_loop
async def test_finally_of_a_task_can_use_what_has_tasks_of_its_own(log: list[str], kind: str) -> list[str]:
    """What a task gives to a resource in its `finally`, at the end of the loop, is still worked on by the resource's own tasks.

    They may be in a task group of asyncio's or of anyio's, and may start others.
    """

    async def write(queue: asyncio.Queue[str]) -> None:
        async def note(line: str) -> None:
            await asyncio.sleep(0)
            log.append(line)

        while True:
            await asyncio.create_task(note(await queue.get()))
            queue.task_done()

    @sticky_singleton_acm
    @asynccontextmanager
    async def writer() -> AsyncGenerator[asyncio.Queue[str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        async with AsyncExitStack() as stack:
            if kind == "task":
                stack.callback(asyncio.create_task(write(queue)).cancel)
            elif kind == "task group":
                group = await stack.enter_async_context(asyncio.TaskGroup())
                stack.callback(group.create_task(write(queue)).cancel)
            else:
                of_anyio = await stack.enter_async_context(anyio.create_task_group())
                of_anyio.start_soon(write, queue)
                stack.callback(of_anyio.cancel_scope.cancel)
            yield queue
            await queue.join()
            log.append("exit")

    async def work() -> None:
        async with writer() as queue:
            try:
                await asyncio.Event().wait()
            finally:
                async with asyncio.timeout(10):  # if the writer is no longer there, nobody ever takes the line
                    await queue.put("last")
                    await queue.join()
                log.append("written")

    await (await use(writer())).put("first")
    keep(work())
    await asyncio.sleep(0)
    return ["first", "last", "written", "exit"]


def spawn_in_a_callback(coroutine: Coroutine[Any, Any, None]) -> Awaitable[object]:
    ended = asyncio.get_running_loop().create_future()

    def start() -> None:
        keep(coroutine).add_done_callback(lambda _task: None if ended.done() else ended.set_result(None))

    asyncio.get_running_loop().call_soon(start)
    return ended


Spawn = Callable[[Coroutine[Any, Any, None]], Awaitable[object]]
SPAWNS: dict[str, Spawn] = {
    "create_task": asyncio.create_task,
    "loop": lambda coroutine: asyncio.get_running_loop().create_task(coroutine, name="named"),
    "ensure_future": asyncio.ensure_future,
    "gather": asyncio.gather,
    "wait_for": lambda coroutine: asyncio.create_task(asyncio.wait_for(coroutine, 1000)),
    "callback": spawn_in_a_callback,
}


@pytest.mark.parametrize("spawn", SPAWNS.values(), ids=list(SPAWNS))
@on_each_loop
async def test_tasks_of_a_resource_outlive_those_of_the_user(log: list[str], spawn: Spawn) -> list[str]:
    """However a resource starts a task, no runner finds it in `asyncio.all_tasks` and cancels it before its time."""

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        stop = asyncio.Event()

        async def own() -> None:
            await asyncio.sleep(0)
            assert asyncio.current_task() is not None
            assert asyncio.current_task() not in asyncio.all_tasks()
            try:
                await stop.wait()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise
            log.append("stopped")

        waiter = spawn(own())
        yield
        stop.set()
        await waiter

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("user's task ends")

    await enter(resource())
    task = keep(work())
    await turns()
    assert asyncio.all_tasks() == {task, asyncio.current_task()}
    return ["user's task ends", "stopped"]


class OwnTask(asyncio.Task[Any]):
    """What a user's task factory makes."""


def set_own_factory(loop: asyncio.AbstractEventLoop) -> None:
    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **kwargs: Any
    ) -> OwnTask:
        assert isinstance(coroutine, Coroutine)
        return OwnTask(coroutine, loop=loop, **kwargs)

    loop.set_task_factory(factory)


def set_eager_factory(loop: asyncio.AbstractEventLoop) -> None:
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    else:
        pytest.skip("there are eager tasks since Python 3.12")


@pytest.mark.parametrize("set_factory", [set_own_factory, set_eager_factory])
@pytest.mark.parametrize("early", [True, False])
def test_task_factory_of_the_user(
    new_loop: Callable[[], asyncio.AbstractEventLoop], set_factory: Callable[[asyncio.AbstractEventLoop], None], early: bool
) -> None:
    """With a task factory of theirs, the user's tasks are visible and cancelled as ever, and those of resources are not."""
    log: list[str] = []
    kinds: list[type[object]] = []
    if set_factory is set_eager_factory and new_loop is uvloop.new_event_loop and sys.version_info[:2] == (3, 13):
        pytest.skip("uvloop passes eager_start to a factory that takes none before Python 3.13.3")

    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        stop = asyncio.Event()

        async def own() -> None:
            kinds.append(type(asyncio.current_task()))
            await asyncio.sleep(0)
            assert asyncio.current_task() not in asyncio.all_tasks()
            await stop.wait()
            log.append("resource's task ends")

        task = asyncio.create_task(own())
        yield
        stop.set()
        await task

    async def work(number: int) -> None:
        kinds.append(type(asyncio.current_task()))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append(f"user's task {number} cancelled")
            raise

    async def main() -> None:
        if not early:
            await enter(resource())
            set_factory(asyncio.get_running_loop())
        one = keep(work(1))
        if early:
            await enter(resource())
        two = keep(work(2))
        await turns()
        assert asyncio.all_tasks() == {one, two, asyncio.current_task()}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        if early:
            set_factory(runner.get_loop())
        runner.run(main())
    assert sorted(log[:2]) == ["user's task 1 cancelled", "user's task 2 cancelled"]
    assert log[2:] == ["resource's task ends"]
    if set_factory is set_own_factory:
        assert kinds.count(OwnTask) == (3 if early else 2)


@on_each_loop
async def test_a_task_of_the_users_stays_the_users_inside_the_block(log: list[str]) -> list[str]:
    """A task started inside `async with make()` is the user's own: visible, and cancelled when the loop ends."""
    factory = Factory(log)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task ends")

    async with factory.make():
        task = keep(work())
        await asyncio.sleep(0)
        assert task in asyncio.all_tasks()
    return [*enters("0"), "task ends", *exits("0")]


class Careless(Recorded):
    """Leaves a task behind, which takes its time to end and then starts another one."""

    async def __aenter__(self) -> Self:
        self.left = asyncio.create_task(self.work("task", then="last task"))
        return await super().__aenter__()

    async def work(self, name: str, then: str = "") -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if then:
                self.left = asyncio.create_task(self.work(then))
            for _ in range(5):
                await asyncio.sleep(0)
            self.log.append(f"{name} of {self.name} ends")


@on_each_loop
async def test_tasks_left_behind_are_cancelled_and_awaited(log: list[str]) -> list[str]:
    """Tasks that a resource does not end itself are cancelled and awaited, and what those start, before anything older ends."""
    await enter(Careless(log, "1"))
    await enter(Careless(log, "2"))
    log.clear()
    return [line for name in "21" for line in (*exits(name), f"task of {name} ends", f"last task of {name} ends")]


# It dies while it is held.


@on_each_loop
async def test_a_resource_whose_task_group_dies_is_reported_and_made_anew(log: list[str]) -> list[str]:
    """It is reported with its name, exited with what it died of, forgotten by its factory, and made anew at the next call."""
    reports = reports_of_this_loop()
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

    assert await use(make()) == 0
    handle = make()
    die[0].set()
    await turns()
    assert [await use(make()), await use(handle)] == [1, 1]
    (report,) = reports
    assert isinstance(report["exception"], ExceptionGroup)
    assert "make()" in report["message"]
    assert "died" in report["message"]
    return ["exit 0", "exit 1"]


@pytest.mark.parametrize("way", ["enter_once", "sticky_acm"])
@on_each_loop
async def test_what_died_is_entered_again_by_identity(log: list[str], way: str) -> list[str]:
    """enter_once and sticky_acm forget an object that died while it was held, and enter it again."""
    resource = Recorded(log)
    sticky = sticky_acm(resource)

    async def get() -> None:
        await (use(sticky) if way == "sticky_acm" else enter_once(resource))

    reports = reports_of_this_loop()
    await get()
    await get()
    assert log == enters("r")
    resource.die()
    await turns()
    await get()
    await get()
    assert len(reports) == 1
    return [*enters("r"), *exits("r")] * 2


# Exit.


@pytest.mark.parametrize("turns", [0, 1])
def test_errors_of_exits_at_the_end_are_reported_and_the_others_run(run: Run, turns: int) -> None:
    """Each error of an exit goes to the exception handler, with the resource named; the others run and the loop closes."""
    log: list[str] = []

    class First(Recorded):
        pass

    class Third(Recorded):
        pass

    async def main() -> tuple[list[dict[str, Any]], asyncio.AbstractEventLoop]:
        errors = ValueError("one"), None, KeyError("three")
        for kind, name, error in zip((First, Recorded, Third), "123", errors, strict=True):
            (await enter(kind(log, name, turns=turns))).exit_error = error
        log.clear()
        return reports_of_this_loop(), asyncio.get_running_loop()

    (third, first), loop = run(main())
    assert log == ["exiting 3", *exits("2"), "exiting 1"]
    assert [repr(report["exception"]) for report in (third, first)] == ["KeyError('three')", "ValueError('one')"]
    assert "Third" in third["message"]
    assert "First" in first["message"]
    assert loop.is_closed()


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(7), asyncio.CancelledError()])
def test_a_fatal_error_at_the_end_is_raised_after_the_other_exits(run: Run, error: BaseException, turns: int) -> None:
    """KeyboardInterrupt and SystemExit of an exit come out of the runner when all other exits have run.

    A CancelledError, though nobody cancelled it, is reported and stops nothing.
    """
    log: list[str] = []

    async def main() -> list[dict[str, Any]]:
        await enter(Recorded(log, "1"))
        (await enter(Recorded(log, "2", turns=turns))).exit_error = error
        log.clear()
        return reports_of_this_loop()

    if isinstance(error, asyncio.CancelledError):
        (report,) = run(main())
        assert isinstance(report["exception"], RuntimeError)
        assert report["exception"].__cause__ is error
    else:
        with pytest.raises(type(error)) as caught:
            run(main())
        assert caught.value is error
    assert log == ["exiting 2", *exits("1")]


@on_each_loop
async def test_a_second_interrupt_of_an_enter_that_cleans_up_slowly() -> None:
    """The end of the loop goes on without it; that its enter is cancelled at last is no error, and nothing is reported."""
    reports = reports_of_this_loop()
    may_unwind = asyncio.Event()

    class Stubborn(Recorded):
        async def __aenter__(self) -> Self:
            try:
                return await super().__aenter__()
            finally:
                while not may_unwind.is_set():
                    with suppress(asyncio.CancelledError):
                        await may_unwind.wait()

    resource = Stubborn()
    resource.may_enter.clear()
    await cancel(await begin(enter(resource)))
    exits = loop_state().exits
    for _ in range(2):
        exits.interrupt()
        await turns()
    assert not exits
    assert resource.task is not None
    may_unwind.set()
    await asyncio.wait([resource.task])
    assert reports == []
