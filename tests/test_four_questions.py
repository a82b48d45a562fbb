"""Every public async callable, and what it does when two ask at once, when one is cancelled, when it fails, and on a second loop.

Those of `release` are in test_release.py, those of awaiting a shared coroutine in test_shared_coroutine.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asyncio_loop_local import LockingDict, aclose, enter, enter_once, resources, sticky_acm, sticky_singleton_acm, storage
from conftest import Run


class Gate:
    """An ACM that waits to be let through its enter, fails if told so, and can be entered any number of times."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.entered = 0
        self.waits = False
        self.error: BaseException | None = None
        self.entering = asyncio.Event()
        self.may_enter = asyncio.Event()

    async def __aenter__(self) -> int:
        self.log.append("enter")
        self.entering.set()
        if self.waits:
            try:
                await self.may_enter.wait()
            except asyncio.CancelledError:
                self.log.append("cancelled")
                raise
        if self.error is not None:
            raise self.error
        self.entered += 1
        self.log.append(f"entered {self.entered}")
        return self.entered

    async def __aexit__(self, *exc_info: object) -> None:
        self.log.append("exit")


# The three doors by which a resource is entered once per loop: each makes, of a gate, an async function that enters it.


def by_enter_once(gate: Gate) -> Callable[[], Awaitable[int]]:
    return lambda: enter_once(gate)


def by_sticky_acm(gate: Gate) -> Callable[[], Awaitable[int]]:
    sticky = sticky_acm(gate)

    async def enter_it() -> int:
        async with sticky as value:
            return value

    return enter_it


def by_sticky_singleton_acm(gate: Gate) -> Callable[[], Awaitable[int]]:
    @sticky_singleton_acm
    def make() -> Gate:
        return gate

    async def enter_it() -> int:
        async with make() as value:
            return value

    return enter_it


def by_one_object_of_sticky_singleton_acm(gate: Gate) -> Callable[[], Awaitable[int]]:
    @sticky_singleton_acm
    def make() -> Gate:
        return gate

    kept: list[Any] = []

    async def enter_it() -> int:
        if not kept:
            kept.append(make())
        async with kept[0] as value:
            result: int = value
            return result

    return enter_it


Door = Callable[[Gate], Callable[[], Awaitable[int]]]

once = pytest.mark.parametrize(
    "door", [by_enter_once, by_sticky_acm, by_sticky_singleton_acm, by_one_object_of_sticky_singleton_acm]
)


async def task_of(enter_it: Callable[[], Awaitable[int]]) -> int:
    return await enter_it()


@once
def test_once_two_at_once(run: Run, door: Door) -> None:
    """Two tasks that ask at once wait for the same entering, and get the same value; so does a third, later."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.waits = True
        enter_it = door(gate)
        tasks = [asyncio.create_task(task_of(enter_it)) for _ in range(2)]
        await gate.entering.wait()
        await asyncio.sleep(0)
        gate.may_enter.set()
        assert await asyncio.gather(*tasks) == [1, 1]
        assert await enter_it() == 1

    run(main())
    assert log == ["enter", "entered 1", "exit"]


@once
@pytest.mark.parametrize("which", [0, 1])
def test_once_one_of_two_is_cancelled(run: Run, door: Door, which: int) -> None:
    """Whichever of two is cancelled half-way, the entering goes on for the other."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.waits = True
        enter_it = door(gate)
        tasks = [asyncio.create_task(task_of(enter_it)) for _ in range(2)]
        await gate.entering.wait()
        await asyncio.sleep(0)
        tasks[which].cancel()
        await asyncio.wait([tasks[which]])
        assert tasks[which].cancelled()
        gate.may_enter.set()
        assert await tasks[1 - which] == 1

    run(main())
    assert log == ["enter", "entered 1", "exit"]


@once
def test_once_the_last_is_cancelled(run: Run, door: Door) -> None:
    """The last one that is cancelled cancels the entering; the next call enters, and that alone is exited."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.waits = True
        enter_it = door(gate)
        tasks = [asyncio.create_task(task_of(enter_it)) for _ in range(2)]
        await gate.entering.wait()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        gate.waits = False
        assert await enter_it() == 1

    run(main())
    assert sorted(log) == ["cancelled", "enter", "enter", "entered 1", "exit"]


@once
def test_once_failing(run: Run, door: Door) -> None:
    """All who wait get the error of the one entering, as it is; the next call tries afresh."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.waits, gate.error = True, ValueError("refused")
        enter_it = door(gate)
        tasks = [asyncio.create_task(task_of(enter_it)) for _ in range(2)]
        await gate.entering.wait()
        await asyncio.sleep(0)
        gate.may_enter.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result is gate.error for result in results] == [True, True]
        gate.error = None
        assert await enter_it() == 1

    run(main())
    assert log == ["enter", "enter", "entered 1", "exit"]


@once
def test_once_on_a_second_loop(run: Run, door: Door) -> None:
    """What one loop has entered, and exited at its end, a second loop enters again, for itself."""
    log: list[str] = []
    doors: list[Callable[[], Awaitable[int]]] = []

    async def main() -> list[int]:
        if not doors:
            doors.append(door(Gate(log)))
        return [await doors[0](), await doors[0]()]

    assert [run(main()), run(main())] == [[1, 1], [2, 2]]
    assert log == ["enter", "entered 1", "exit", "enter", "entered 2", "exit"]


@once
def test_once_on_two_loops_at_once(run: Run, door: Door) -> None:
    """While one loop holds it open, another one enters it too, and each exits its own."""
    log: list[str] = []

    async def main() -> None:
        enter_it = door(Gate(log))
        assert await enter_it() == 1
        assert await asyncio.to_thread(run, task_of(enter_it)) == 2
        assert log == ["enter", "entered 1", "enter", "entered 2", "exit"]
        assert await enter_it() == 1

    run(main())
    assert log[-1] == "exit"
    assert len(log) == 6


# enter: each call enters again.


def test_enter_two_at_once(run: Run) -> None:
    """Two calls with one object enter it twice, side by side, and both are exited."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.waits = True
        tasks = [asyncio.create_task(enter(gate)) for _ in range(2)]
        while log != ["enter", "enter"]:
            await asyncio.sleep(0)
        gate.may_enter.set()
        assert sorted(await asyncio.gather(*tasks)) == [1, 2]

    run(main())
    assert log == ["enter", "enter", "entered 1", "entered 2", "exit", "exit"]


def test_enter_cancelled(run: Run) -> None:
    """If the caller is cancelled so is the entering, and nothing is exited; other calls with the object go on."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.waits = True
        tasks = [asyncio.create_task(enter(gate)) for _ in range(2)]
        while log != ["enter", "enter"]:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        assert tasks[0].cancelled()
        gate.may_enter.set()
        assert await tasks[1] == 1

    run(main())
    assert log == ["enter", "enter", "cancelled", "entered 1", "exit"]


def test_enter_failing(run: Run) -> None:
    """The error of the entering is raised as it is, nothing is exited, and the object can be entered by the next call."""
    log: list[str] = []

    async def main() -> None:
        gate = Gate(log)
        gate.error = ValueError("refused")
        with pytest.raises(ValueError) as caught:
            await enter(gate)
        assert caught.value is gate.error
        assert resources() == ()
        gate.error = None
        assert await enter(gate) == 1

    run(main())
    assert log == ["enter", "enter", "entered 1", "exit"]


def test_enter_on_a_second_loop(run: Run) -> None:
    """Each loop exits what it has entered itself, also where both run at once."""
    log: list[str] = []
    gates: list[Gate] = []

    async def inner() -> int:
        return await enter(gates[0])

    async def main() -> None:
        gates.append(Gate(log))
        assert await enter(gates[0]) == 1
        assert await asyncio.to_thread(run, inner()) == 2
        assert log == ["enter", "entered 1", "enter", "entered 2", "exit"]

    run(main())
    assert run(inner()) == 3
    assert log[5:] == ["exit", "enter", "entered 3", "exit"]


# aclose: two at once, cancelled and failing are in test_failures.py.


def test_aclose_on_a_second_loop(run: Run) -> None:
    """It ends what its own loop holds, and leaves alone what another one does."""
    log: list[str] = []

    async def inner() -> None:
        await enter(Gate(log))
        await aclose()
        assert log == ["enter", "entered 1", "enter", "entered 1", "exit"]

    async def main() -> None:
        storage()["kept"] = True
        await enter(Gate(log))
        await asyncio.to_thread(run, inner())
        assert [info.state for info in resources()] == ["open"]
        assert storage() == {"kept": True}

    run(main())
    assert log[5:] == ["exit"]


# LockingDict: the block.


def test_locking_dict_two_at_once(run: Run) -> None:
    """Of two blocks at once, one waits until the other is left; both have the dict itself."""
    log: list[str] = []

    async def main() -> None:
        shared: LockingDict[str, int] = LockingDict(count=0)
        storage()["careful"] = shared

        async def add() -> None:
            async with storage()["careful"] as careful:
                assert careful is shared
                assert careful.locked()
                log.append("in")
                count = careful["count"]
                await asyncio.sleep(0)
                careful["count"] = count + 1
                log.append("out")

        await asyncio.gather(*(add() for _ in range(5)))
        assert shared == {"count": 5}
        assert not shared.locked()

    run(main())
    assert log == ["in", "out"] * 5


@pytest.mark.parametrize("who", ["waiting", "inside"])
def test_locking_dict_cancelled(run: Run, who: str) -> None:
    """A task that is cancelled while it waits, or inside the block, leaves the lock to the others."""

    async def main() -> None:
        careful: LockingDict[str, int] = LockingDict()
        inside, may_leave = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with careful:
                inside.set()
                await may_leave.wait()

        async def later(name: str) -> None:
            async with careful as locked:
                locked[name] = 1

        holder = asyncio.create_task(first())
        await inside.wait()
        waiting, last = asyncio.create_task(later("waiting")), asyncio.create_task(later("last"))
        await asyncio.sleep(0)
        cancelled = waiting if who == "waiting" else holder
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        may_leave.set()
        await asyncio.wait([holder, waiting, last])
        assert careful == ({"last": 1} if who == "waiting" else {"waiting": 1, "last": 1})
        assert not careful.locked()

    run(main())


def test_locking_dict_failing(run: Run) -> None:
    """An error inside the block comes out as it is, what was written stays, and the lock is free."""

    async def main() -> None:
        careful: LockingDict[str, int] = LockingDict()
        error = ValueError("inside")
        with pytest.raises(ValueError) as caught:
            async with careful as locked:
                locked["written"] = 1
                raise error
        assert caught.value is error
        assert careful == {"written": 1}
        assert not careful.locked()
        async with careful:
            assert careful.locked()

    run(main())


def test_locking_dict_on_a_second_loop(run: Run) -> None:
    """In `storage` each loop has its own; one that two loops share is an error where two tasks of the second meet at it."""
    shared: list[LockingDict[str, int]] = []

    async def meet(careful: LockingDict[str, int]) -> list[BaseException | None]:
        async def block() -> None:
            async with careful:
                await asyncio.sleep(0)

        return list(await asyncio.gather(block(), block(), return_exceptions=True))

    async def first() -> None:
        shared.append(storage().setdefault("careful", LockingDict()))
        assert await meet(shared[0]) == [None, None]

    async def second() -> None:
        own = storage().setdefault("careful", LockingDict())
        assert own is not shared[0]
        assert await meet(own) == [None, None]
        results = await meet(shared[0])
        assert results[0] is None
        assert isinstance(results[1], RuntimeError)
        assert "is bound to a different event loop" in str(results[1])

    run(first())
    run(second())
