"""anyio's task groups and cancel scopes inside resources: each is left in the task in which it was entered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.abc
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncio_loop_local import StickyACM, enter, sticky_acm, sticky_singleton_acm
from conftest import Run, run_on_asyncio
from lingering import Reports, begin_to_linger

T = TypeVar("T")


def by_anyio(main: Coroutine[Any, Any, T], **options: bool) -> T:
    async def await_main() -> T:
        return await main

    return anyio.run(await_main, backend_options=options)


RUNS: dict[str, Run] = {
    "asyncio.run": run_on_asyncio,
    "anyio.run": by_anyio,
    "anyio.run, uvloop": partial(by_anyio, use_uvloop=True),
    "anyio.run, debug": partial(by_anyio, debug=True),
}


@pytest.fixture(params=list(RUNS))
def run(request: pytest.FixtureRequest, reports: Reports) -> Run:
    """Each way to run a loop; what the loop reports is recorded."""
    return reports.watched(RUNS[request.param])


class Log:
    """Makes resources with a task group or a cancel scope in each, and notes what happens to them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.tasks: dict[str, list[anyio.TaskInfo]] = {}

    @asynccontextmanager
    async def group(self, name: str) -> AsyncGenerator[anyio.abc.TaskGroup]:
        with self._noted(name):
            async with anyio.create_task_group() as group:
                yield group
                group.cancel_scope.cancel()

    @asynccontextmanager
    async def scope(self, name: str) -> AsyncGenerator[anyio.CancelScope]:
        with self._noted(name), anyio.CancelScope() as scope:
            yield scope

    @contextmanager
    def _noted(self, name: str) -> Generator[None]:
        self.events.append(f"enter {name}")
        self.tasks[name] = [anyio.get_current_task()]
        try:
            yield
        finally:
            self.tasks[name].append(anyio.get_current_task())
            self.events.append(f"exit {name}")


def test_a_worker_in_a_task_group_serves_all_tasks_to_the_end(run: Run) -> None:
    """A worker that a resource starts in its task group serves every task, and those that clean up when the loop ends too."""
    log = Log()

    @sticky_singleton_acm
    @asynccontextmanager
    async def worker() -> AsyncGenerator[MemoryObjectSendStream[str]]:
        async def work(orders: MemoryObjectReceiveStream[str]) -> None:
            async with orders:
                async for order in orders:
                    log.events.append(order)

        async with log.group("group") as group:
            send, receive = anyio.create_memory_object_stream[str](0)
            group.start_soon(work, receive)
            async with send:
                yield send

    async def order(what: str) -> None:
        async with worker() as orders:
            await orders.send(what)

    async def main() -> list[asyncio.Task[None]]:
        tasks = await begin_to_linger(1, lambda: order("at the end"))
        async with anyio.create_task_group() as mine:
            for number in range(3):
                mine.start_soon(order, f"by task {number}")
        return tasks

    assert run(main())[0].cancelled()
    assert log.events[0] == "enter group"
    assert sorted(log.events[1:4]) == ["by task 0", "by task 1", "by task 2"]
    assert log.events[4:] == ["at the end", "exit group"]
    assert log.tasks["group"][0] == log.tasks["group"][1]


def test_tasks_that_users_start_in_a_task_group_end_with_the_users(run: Run, reports: Reports) -> None:
    """What a user's task starts in a resource's task group is the user's, and ends before the resource does."""
    log = Log()
    group_of = sticky_singleton_acm(log.group)

    async def work(begun: anyio.Event) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            log.events.append("worker ends")

    async def start(begun: anyio.Event) -> None:
        async with group_of("group") as group:
            group.start_soon(work, begun, name="worker")

    async def main() -> None:
        begun = anyio.Event()
        async with anyio.create_task_group() as mine:
            mine.start_soon(start, begun)
        await begun.wait()
        assert [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}] == ["worker"]
        log.events.append("main ends")

    run(main())
    assert log.events == ["enter group", "main ends", "worker ends", "exit group"]
    assert log.tasks["group"][0] == log.tasks["group"][1]
    # anyio cancels a task group when a task of it is cancelled from outside, and that is reported, but never this:
    assert not [report for report in reports.take() if "different task" in str(report["exception"])]


def test_scopes_entered_by_different_tasks_are_left_in_their_own(run: Run) -> None:
    """Scopes that were first asked for by several tasks at once are left newest first, each in the task that entered it."""
    log = Log()
    group_of = sticky_singleton_acm(log.group)
    scope_of = sticky_singleton_acm(log.scope)

    async def ask(make: Callable[[str], StickyACM[Any]], name: str) -> None:
        with anyio.CancelScope():
            async with make(name):
                pass

    async def main() -> None:
        for _ in range(2):
            async with anyio.create_task_group() as mine:
                for number in range(3):
                    mine.start_soon(ask, group_of, f"group {number}")
                    mine.start_soon(ask, scope_of, f"scope {number}")

    run(main())
    entered, left = log.events[:6], log.events[6:]
    assert sorted(entered) == [f"enter {kind} {number}" for kind in ("group", "scope") for number in range(3)]
    assert left == [event.replace("enter", "exit") for event in reversed(entered)]
    assert all(len(tasks) == 2 and tasks[0] == tasks[1] for tasks in log.tasks.values())
    assert len({tasks[0].id for tasks in log.tasks.values()}) == 6


def test_enter_and_sticky_acm_hold_task_groups_too(run: Run) -> None:
    """A bare task group, which insists on its task, can be entered by one task and used by others until the end."""
    done: list[str] = []

    async def work(name: str) -> None:
        done.append(name)

    async def work_when_asked(name: str, *, task_status: anyio.abc.TaskStatus[str]) -> None:
        task_status.started(f"{name} is ready")
        done.append(name)

    async def use(sticky: StickyACM[anyio.abc.TaskGroup], name: str) -> None:
        async with sticky as group:
            assert await group.start(work_when_asked, name) == f"{name} is ready"

    async def main() -> None:
        entered = await enter(anyio.create_task_group())
        sticky = sticky_acm(anyio.create_task_group())
        async with anyio.create_task_group() as mine:
            mine.start_soon(use, sticky, "one")
            mine.start_soon(use, sticky, "other")
        async with sticky as group:
            group.start_soon(work, "in the sticky one")
        entered.start_soon(work, "in the entered one")
        await anyio.wait_all_tasks_blocked()

    run(main())
    assert sorted(done) == ["in the entered one", "in the sticky one", "one", "other"]


def test_a_callers_cancelled_scope_takes_nothing_from_the_others(run: Run) -> None:
    """A resource that was entered inside somebody's cancel scope does not notice that the scope is cancelled."""
    log = Log()
    group_of = sticky_singleton_acm(log.group)

    async def set_it(done: anyio.Event) -> None:
        done.set()

    async def main() -> None:
        group: anyio.abc.TaskGroup | None = None
        with anyio.CancelScope() as scope:
            async with group_of("group") as group:
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with group_of("group") as again:
            assert again is group
            assert not again.cancel_scope.cancel_called
            done = anyio.Event()
            again.start_soon(set_it, done)
            await done.wait()

    run(main())
    assert log.events == ["enter group", "exit group"]


def test_a_caller_whose_scope_is_cancelled_while_entering_leaves_it_to_the_others(run: Run) -> None:
    """If the scope of the first of two callers is cancelled while they wait, entering goes on for the second."""
    entering, may_go_on = asyncio.Event(), asyncio.Event()
    entered = 0

    @sticky_singleton_acm
    @asynccontextmanager
    async def slow() -> AsyncGenerator[anyio.CancelScope]:
        nonlocal entered
        entered += 1
        with anyio.CancelScope() as scope:
            entering.set()
            await may_go_on.wait()
            yield scope

    async def first(scope: anyio.CancelScope) -> None:
        with scope:
            async with slow():
                raise AssertionError

    async def second(scope: anyio.CancelScope) -> None:
        async with slow() as mine:
            assert scope.cancelled_caught
            assert not mine.cancel_called

    async def main() -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(first, scope)
            await entering.wait()
            group.start_soon(second, scope)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            may_go_on.set()

    run(main())
    assert entered == 1


def test_a_resource_whose_task_group_dies_is_reported_and_made_anew(run: Run, reports: Reports) -> None:
    """When a task of a resource's task group fails, the resource ends, is reported by name, and the next call makes another."""
    log = Log()
    group_of = sticky_singleton_acm(log.group)

    async def fail() -> None:
        raise OSError("the connection broke")

    async def main() -> None:
        async with group_of("group") as first:
            first.start_soon(fail)
            await reports.came.wait()
        assert log.events == ["enter group", "exit group"]
        async with group_of("group") as second:
            assert second is not first
            assert not second.cancel_scope.cancel_called
        async with group_of("group") as again:
            assert again is second

    run(main())
    assert log.events == ["enter group", "exit group"] * 2
    (context,) = reports.take()
    assert "group('group')" in context["message"]
    assert "died while it was held" in context["message"]
    assert repr(context["exception"]).startswith("ExceptionGroup(")
    assert "OSError('the connection broke')" in repr(context["exception"])


def test_a_cancelled_task_uses_a_task_group_in_its_finally(run: Run) -> None:
    """At the end of the loop, what the user's last task starts in a resource's task group still runs."""
    log = Log()
    group_of = sticky_singleton_acm(log.group)

    async def answer(answered: asyncio.Event) -> None:
        log.events.append("answered")
        answered.set()

    async def ask() -> None:
        answered = asyncio.Event()
        async with group_of("group") as group:
            group.start_soon(answer, answered)
            await answered.wait()

    async def main() -> list[asyncio.Task[None]]:
        tasks = await begin_to_linger(1, ask)
        async with group_of("group"):
            await anyio.wait_all_tasks_blocked()
        return tasks

    assert run(main())[0].cancelled()
    assert log.events == ["enter group", "answered", "exit group"]


def test_a_resource_may_time_out_while_it_is_entered(run: Run) -> None:
    """A resource whose own ``fail_after`` ends its entering raises the ``TimeoutError`` to its callers, and is tried again."""
    tries = 0

    @sticky_singleton_acm
    @asynccontextmanager
    async def hasty() -> AsyncGenerator[int]:
        nonlocal tries
        tries += 1
        with anyio.fail_after(0 if tries == 1 else None):
            await anyio.sleep(0)
            yield tries

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await hasty()
        assert await hasty() == 2

    run(main())
    assert tries == 2
