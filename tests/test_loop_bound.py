"""The states of what ends with its loop: the table in the module's docstring is the code's, and each transition is taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from asyncio_loop_local import _loop_bound, aclose, atexit, enter, release, singleton, sticky_singleton_acm
from asyncio_loop_local._loop_bound import Event, LoopBound, State
from asyncio_loop_local._loop_state import loop_state
from recording import turns

Transition = tuple[State, Event, State]

EVENTS: dict[str, Event] = {name: each for name, each in vars(_loop_bound).items() if isinstance(each, Event)}
FORK = EVENTS.pop("FORK")


def test_the_table_in_the_docstring_is_that_of_the_code() -> None:
    """Each row of the table is a transition of the code, and each transition, but for those of a fork, is a row."""
    row = re.compile(r"^([A-Z_]+) +([A-Z]+) +([A-Z_]+) ", re.MULTILINE)
    rows = row.findall(_loop_bound.__doc__ or "")
    code = [(before.name, name, after.name) for name, event in EVENTS.items() for before, after in event.items()]
    assert sorted(rows) == sorted(code)
    assert FORK == dict.fromkeys(State, State.FORKED)


class Gate:
    """A context manager that waits in its enter and exit, and heeds a cancellation or not, as a test wants."""

    def __init__(self, *, heeds_cancellation: bool = True, starts_task: bool = False, fails: bool = False) -> None:
        self.may_enter, self.may_exit = asyncio.Event(), asyncio.Event()
        self.heeds_cancellation, self.fails = heeds_cancellation, fails
        self.task = asyncio.get_running_loop().create_task(asyncio.Event().wait()) if starts_task else None

    async def _wait(self, event: asyncio.Event) -> None:
        while True:
            try:
                await event.wait()
            except asyncio.CancelledError:
                if self.heeds_cancellation:
                    raise
                event.set()
            else:
                return

    async def __aenter__(self) -> Gate:
        await self._wait(self.may_enter)
        if self.fails:
            raise OSError
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._wait(self.may_exit)


async def begin(awaitable: Awaitable[object]) -> asyncio.Future[Any]:
    """Begin to await, and let it come as far as it can."""
    future: asyncio.Future[Any] = asyncio.ensure_future(awaitable)
    await turns()
    return future


async def ended(future: asyncio.Future[Any]) -> None:
    await turns()
    assert future.done()
    with suppress(OSError, asyncio.CancelledError, RecursionError):
        future.result()


def interrupt(*_: object) -> None:
    loop_state().exits.interrupt()


async def entered_and_exited() -> None:
    gate = Gate()
    entering = await begin(enter(gate))
    gate.may_enter.set()
    gate.may_exit.set()
    await ended(entering)
    await aclose()


async def started_by_its_factory() -> None:
    make = sticky_singleton_acm(Gate)
    make(starts_task=True)
    await aclose()  # it was never entered
    block = make(starts_task=True)
    entering = await begin(block.__aenter__())
    entering.cancel()
    await ended(entering)


async def released_before_it_was_entered() -> None:
    make = sticky_singleton_acm(Gate)
    make()
    assert await release(make)


async def dropped_before_it_was_entered() -> None:
    make = sticky_singleton_acm(Gate)
    make()
    await aclose()


async def failed_after_its_factory_had_started_something() -> None:
    def factory() -> Gate:
        inner = sticky_singleton_acm(Gate)()
        with suppress(StopIteration):
            coroutine = inner.__aenter__()
            coroutine.send(None)
            coroutine.close()
        raise OSError

    with suppress(OSError):
        sticky_singleton_acm(factory)()
    await aclose()


async def released_while_it_is_entered(*, then: str) -> None:
    gate = Gate(fails=then == "fails", heeds_cancellation=True)
    gate.may_exit.set()
    make = sticky_singleton_acm(lambda: gate)
    entering = await begin(make().__aenter__())
    releasing = await begin(release(make))
    if then == "abandoned":
        entering.cancel()
    elif then == "interrupted":
        interrupt()
    else:
        gate.may_enter.set()
    await ended(entering)
    await ended(releasing)


async def entering(then: Callable[[asyncio.Future[Any]], object], **options: bool) -> None:
    """Something happens to the task that waits for an enter."""
    gate = Gate(**options)
    gate.may_exit.set()
    future = await begin(enter(gate))
    then(future)
    await ended(future)


async def abandoned_and_interrupted_twice() -> None:
    class Stubborn(Gate):
        async def _wait(self, event: asyncio.Event) -> None:
            while not event.is_set():
                with suppress(asyncio.CancelledError):
                    await event.wait()

    gate = Stubborn()
    entering = await begin(enter(gate))
    entering.cancel()
    await turns()
    interrupt()
    await turns()
    interrupt()  # nobody waits for its task any more
    await ended(entering)
    gate.may_enter.set()
    gate.may_exit.set()


async def failed() -> None:
    gate = Gate(fails=True)
    gate.may_enter.set()
    await ended(await begin(enter(gate)))


async def interrupted_while_it_is_exited(*, times: int) -> None:
    gate = Gate(heeds_cancellation=times == 1)
    gate.may_enter.set()
    await enter(gate)
    closing = await begin(aclose())
    for _ in range(times):
        interrupt()
    await ended(closing)


async def unregistered() -> None:
    atexit.register(print)
    atexit.unregister(print)


async def made_to_be_closed(*, starts_task: bool) -> None:
    def factory() -> asyncio.Task[Any] | None:
        return asyncio.get_running_loop().create_task(asyncio.Event().wait()) if starts_task else None

    singleton(factory, close=lambda _: None)()


async def retired(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    make = singleton(lambda: object(), close=lambda _: None, valid=lambda _: False)  # a new one each time
    make()
    if monkeypatch is None:
        make()
        return
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "Task", no_task)
        with suppress(MemoryError):
            make()
        with suppress(ExceptionGroup):
            await aclose()


def no_task(*_args: object, **_kwargs: object) -> asyncio.Task[None]:
    raise MemoryError


async def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    make = sticky_singleton_acm(Gate)
    make(starts_task=True)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "Task", no_task)  # by which the library makes its own tasks
        with suppress(ExceptionGroup):
            await aclose()


LIVES: dict[str, Callable[[], Awaitable[None]]] = {
    "entered and exited": entered_and_exited,
    "started by its factory": started_by_its_factory,
    "released before it was entered": released_before_it_was_entered,
    "dropped before it was entered": dropped_before_it_was_entered,
    "failed after its factory had started something": failed_after_its_factory_had_started_something,
    "released while it is entered": lambda: released_while_it_is_entered(then="opens"),
    "released while it is entered, which fails": lambda: released_while_it_is_entered(then="fails"),
    "released, then abandoned": lambda: released_while_it_is_entered(then="abandoned"),
    "released, then interrupted": lambda: released_while_it_is_entered(then="interrupted"),
    "abandoned": lambda: entering(lambda task: task.cancel()),
    "abandoned, which it ignores": lambda: entering(lambda task: task.cancel(), heeds_cancellation=False),
    "abandoned and interrupted twice": abandoned_and_interrupted_twice,
    "failed": failed,
    "interrupted while it is entered": lambda: entering(interrupt),
    "interrupted while it is entered, which it ignores": lambda: entering(interrupt, heeds_cancellation=False),
    "interrupted while it is exited": lambda: interrupted_while_it_is_exited(times=1),
    "interrupted twice while it is exited": lambda: interrupted_while_it_is_exited(times=2),
    "unregistered": unregistered,
    "made to be closed": lambda: made_to_be_closed(starts_task=False),
    "made to be closed by a factory that starts a task": lambda: made_to_be_closed(starts_task=True),
    "retired": retired,
}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[State, int, State]]]:
    """Collects the transitions that are taken, with the identity of the event."""
    found: set[tuple[State, int, State]] = set()
    happens = LoopBound.happens

    def recording(self: LoopBound, event: Event) -> State | None:
        before = happens(self, event)
        if before is not None:
            found.add((before, id(event), self.state))
        return before

    monkeypatch.setattr(LoopBound, "happens", recording)
    yield found


def test_every_transition_is_taken_by_a_life(taken: set[tuple[State, int, State]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Together, the lives below take each transition of the table; each ends with nothing open."""
    reported: list[dict[str, Any]] = []

    async def live(life: Callable[[], Awaitable[None]]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await life()
        await aclose()
        assert not loop_state().exits

    for life in (*LIVES.values(), lambda: out_of_memory(monkeypatch), lambda: retired(monkeypatch)):
        asyncio.run(live(life))
    wanted = {(before, id(event), after) for event in EVENTS.values() for before, after in event.items()}
    names = {id(event): name for name, event in EVENTS.items()}
    missing = [(before.name, names[event], after.name) for before, event, after in wanted - taken]
    assert missing == []
