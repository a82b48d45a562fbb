"""`enter` and `enter_once`, and the other ways to enter once: two at once, one cancelled, a failure, another loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any

import pytest

from asyncio_loop_local import StickyACM, enter, enter_once, resources, sticky_acm, sticky_singleton_acm
from conftest import Run
from recording import Recorded, begin, cancel, enters, exits, on_each_loop, turns, use

Enter = Callable[[], Coroutine[Any, Any, Recorded]]


def by_enter_once(resource: Recorded) -> Enter:
    return lambda: enter_once(resource)


def by_sticky_acm(resource: Recorded) -> Enter:
    sticky = sticky_acm(resource)
    return lambda: use(sticky)


def by_factory(resource: Recorded) -> Enter:
    make = sticky_singleton_acm(lambda: resource)
    return lambda: use(make())


def by_one_object_of_a_factory(resource: Recorded) -> Enter:
    make = sticky_singleton_acm(lambda: resource)
    kept: list[StickyACM[Recorded]] = []

    async def enter_it() -> Recorded:
        if not kept:
            kept.append(make())
        return await use(kept[0])

    return enter_it


def by_await(resource: Recorded) -> Enter:
    make = sticky_singleton_acm(lambda: resource)

    async def enter_it() -> Recorded:
        return await make()

    return enter_it


def by_await_of_one_object(resource: Recorded) -> Enter:
    sticky = sticky_acm(resource)

    async def enter_it() -> Recorded:
        return await sticky

    return enter_it


WAYS = [by_enter_once, by_sticky_acm, by_factory, by_one_object_of_a_factory, by_await, by_await_of_one_object]
once = pytest.mark.parametrize("way", WAYS)
Way = Callable[[Recorded], Enter]


async def two_that_wait(resource: Recorded, way: Way) -> tuple[Enter, list[asyncio.Future[Recorded]]]:
    """Two tasks that wait for the same entering, and what a third may call."""
    resource.may_enter.clear()
    enter_it = way(resource)
    return enter_it, [await begin(enter_it()) for _ in range(2)]


@once
@on_each_loop
async def test_once_two_at_once(log: list[str], way: Way) -> list[str]:
    """Two tasks that ask at once wait for the same entering, and get the same value; so does a third, later."""
    resource = Recorded(log)
    enter_it, tasks = await two_that_wait(resource, way)
    resource.may_enter.set()
    assert [await tasks[0], await tasks[1], await enter_it()] == [resource] * 3
    return [*enters("r"), *exits("r")]


@once
@pytest.mark.parametrize("which", [0, 1])
@on_each_loop
async def test_once_one_of_two_is_cancelled(log: list[str], way: Way, which: int) -> list[str]:
    """Whichever of two is cancelled half-way, the entering goes on for the other."""
    resource = Recorded(log)
    _, tasks = await two_that_wait(resource, way)
    await cancel(tasks[which])
    resource.may_enter.set()
    assert await tasks[1 - which] is resource
    return [*enters("r"), *exits("r")]


@once
@pytest.mark.parametrize("again", [True, False])
@on_each_loop
async def test_once_the_last_is_cancelled(log: list[str], way: Way, again: bool) -> list[str]:
    """The last one that is cancelled cancels the entering; the next call enters, and that alone is exited."""
    resource = Recorded(log)
    enter_it, tasks = await two_that_wait(resource, way)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    await turns()
    assert log == ["entering r", "entering r cancelled"]
    if again:
        resource.may_enter.set()
        assert await enter_it() is resource
    return ["entering r", "entering r cancelled", *([*enters("r"), *exits("r")] if again else [])]


@once
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(2), KeyboardInterrupt(), GeneratorExit(), MemoryError()])
@on_each_loop
async def test_all_who_wait_get_the_error_and_the_next_call_tries_afresh(
    log: list[str], way: Way, error: BaseException
) -> list[str]:
    """A failed enter is shared by those who wait for it, raised as it is, and not remembered."""
    resource = Recorded(log)
    resource.enter_error = error

    async def outcome(enter_it: Enter) -> object:
        try:
            return await enter_it()
        except BaseException as raised:
            return raised

    def way_of_outcomes(resource: Recorded) -> Any:
        return functools.partial(outcome, way(resource))

    enter_it, tasks = await two_that_wait(resource, way_of_outcomes)
    resource.may_enter.set()
    outcomes: list[object] = [await task for task in tasks]
    assert [each is error for each in outcomes] == [True, True]
    resource.enter_error = None
    assert await enter_it() is resource
    return ["entering r", *enters("r"), *exits("r")]


@once
def test_once_on_a_second_loop(run: Run, way: Way) -> None:
    """What one loop has entered, and exited at its end, a second loop enters again, for itself."""
    resource = Recorded()
    enter_it = way(resource)

    async def main() -> None:
        assert await enter_it() is await enter_it() is resource

    run(main())
    run(main())
    assert resource.log == [*enters("r"), *exits("r")] * 2


@once
@on_each_loop
async def test_once_on_two_loops_at_once(way: Way) -> None:
    """While one loop holds it open, another one enters it too, and each exits its own."""
    resource = Recorded()
    enter_it = way(resource)
    await enter_it()
    await asyncio.to_thread(asyncio.run, enter_it())
    assert resource.log == [*enters("r"), *enters("r"), *exits("r")]
    await enter_it()
    assert [info.state for info in resources()] == ["open"]
    assert len(resource.log) == 6


@on_each_loop
async def test_the_value_is_that_of_the_enter() -> None:
    """Each way to enter gives what `__aenter__` has given, to every call."""
    for value in (3, None):
        acm = nullcontext(value)
        sticky, make = sticky_acm(nullcontext(value)), sticky_singleton_acm(nullcontext[int | None])
        assert [await enter(acm) for _ in range(2)] == [value, value]
        assert [await enter_once(acm) for _ in range(2)] == [value, value]
        assert [await use(sticky) for _ in range(2)] == [value, value]
        assert [await use(make(value)) for _ in range(2)] == [value, value]


@on_each_loop
async def test_once_is_by_identity() -> None:
    """Objects that are equal, or cannot be hashed, are entered each for itself."""

    class Equal(Recorded):
        __hash__: Any = None

        def __eq__(self, other: object) -> bool:
            return True

    first, second = Equal(), Equal()
    for _ in range(2):
        assert [await enter_once(first) is first, await use(sticky_acm(second)) is second] == [True, True]
    assert first.log == second.log == enters("r")


@on_each_loop
async def test_ten_slow_resources_are_entered_side_by_side() -> None:
    """All ten begin before the first is entered: nothing waits for what it does not need."""
    log: list[str] = []
    slow = [Recorded(log, str(number)) for number in range(10)]
    for resource in slow:
        resource.may_enter.clear()
    entering = await begin(asyncio.gather(*map(enter_once, slow)))
    assert log == [f"entering {number}" for number in range(10)]
    for resource in reversed(slow):
        resource.may_enter.set()
    assert await entering == slow


# enter: each call enters again.


@pytest.mark.parametrize("cancelled", [False, True])
@on_each_loop
async def test_enter_two_at_once(log: list[str], cancelled: bool) -> list[str]:
    """Two calls with one object enter it twice, side by side; cancelling one cancels its entering, and not the other."""
    resource = Recorded(log)
    resource.may_enter.clear()
    tasks = [await begin(enter(resource)) for _ in range(2)]
    assert log == ["entering r"] * 2
    if cancelled:
        await cancel(tasks[0])
    resource.may_enter.set()
    assert [await task for task in tasks[cancelled:]] == [resource] * (2 - cancelled)
    if cancelled:
        return ["entering r"] * 2 + ["entering r cancelled", "entered r", *exits("r")]
    return ["entering r"] * 2 + ["entered r"] * 2 + exits("r", "r")


@on_each_loop
async def test_enter_failing(log: list[str]) -> list[str]:
    """The error of the entering is raised as it is, nothing is exited, and the object can be entered by the next call."""
    resource = Recorded(log)
    resource.enter_error = ValueError("refused")
    with pytest.raises(ValueError) as caught:
        await enter(resource)
    assert caught.value is resource.enter_error
    assert resources() == ()
    resource.enter_error = None
    assert await enter(resource) is resource
    return ["entering r", *enters("r"), *exits("r")]


def test_enter_on_a_second_loop(run: Run) -> None:
    """Each loop exits what it has entered itself, also where both run at once."""
    resource = Recorded()

    async def main() -> None:
        await enter(resource)
        await asyncio.to_thread(run, enter(resource))
        assert resource.log == [*enters("r"), *enters("r"), *exits("r")]

    run(main())
    run(enter(resource))
    assert resource.log[6:] == [*exits("r"), *enters("r"), *exits("r")]
