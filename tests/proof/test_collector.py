"""The collector runs a lost task's `finally` at every point where it may come in: nothing is found half done.

A trace function stands for the collector. It counts the points in the library's own code at which CPython may collect, and at
one of them drops a coroutine whose `finally` uses what the loop shares. Each point gets a run of its own.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import gc
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import asyncio_loop_local
import collector
from asyncio_loop_local import aclose, atexit, enter_once, release, singleton, sticky_singleton_acm, storage
from deterministic_loop import DeterministicLoop

LIBRARY = str(Path(asyncio_loop_local.__file__).parent)
# What a coroutine may raise that is dropped: it waits, or nothing runs that it could wait in; or it waits for itself.
OF_DROPPED_CODE = (
    "coroutine ignored GeneratorExit",
    "no running event loop",
    "this would wait for ever",
    "cannot be released",
    "was called from inside",
)


class Thing:
    """Entered and exited in a turn each; says so if that happens when it must not."""

    def __init__(self, broken: list[str]) -> None:
        self.broken = broken
        self.is_open = False

    async def __aenter__(self) -> Thing:
        await asyncio.sleep(0)
        if self.is_open:
            self.broken.append("entered while it is open")
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        if not self.is_open:
            self.broken.append("exited while it is not open")
        self.is_open = False


class World:
    """What one run uses, and what went wrong in it."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.things: list[Thing] = []
        self.object = self.thing()
        self.callbacks = 0  # that are registered and have not been called

    def called(self) -> None:
        self.callbacks -= 1

    def thing(self) -> Thing:
        made = Thing(self.broken)
        self.things.append(made)
        return made


world = World()


@sticky_singleton_acm
def make() -> Thing:
    return world.thing()


@sticky_singleton_acm
@asynccontextmanager
async def outer() -> AsyncGenerator[Thing]:
    async with make() as thing:
        yield thing


@singleton
async def shared() -> int:
    await asyncio.sleep(0)
    return 5


async def use_sticky() -> None:
    for _ in range(2):
        async with make() as thing:
            assert thing.is_open


async def use_object() -> None:
    for _ in range(2):
        assert (await enter_once(world.object)).is_open


async def use_outer() -> None:
    async with outer() as thing:
        assert thing.is_open


async def use_shared() -> None:
    assert await shared() == 5
    assert list(await asyncio.gather(shared(), shared())) == [5, 5]


async def use_storage() -> None:
    values = storage()
    atexit.register(world.called)
    world.callbacks += 1
    assert storage() is values


async def let_go() -> None:
    await use_sticky()
    await release(make)
    await use_sticky()


async def end_all() -> None:
    await use_sticky()
    await aclose()
    await use_sticky()


async def start_a_task() -> None:
    world.things[0].task = asyncio.create_task(use_sticky(), context=Context())  # type: ignore[attr-defined]  # kept until the end of the run


async def only_release() -> None:
    await release(make)


USES: list[Callable[[], Coroutine[Any, Any, None]]] = [
    use_sticky,
    use_object,
    use_outer,
    use_shared,
    use_storage,
    let_go,
    end_all,
]
DROPPED: list[Callable[[], Coroutine[Any, Any, None]]] = [
    use_sticky,
    use_object,
    use_outer,
    use_shared,
    use_storage,
    start_a_task,
    only_release,
    aclose,
]


@functools.cache
def operations(code: CodeType) -> dict[int, str]:
    return {each.offset: each.opname for each in dis.get_instructions(code)}


def may_collect(before: str, operation: str) -> bool:
    """Whether CPython may collect just before this operation, or while it allocates for it."""
    if sys.version_info >= (3, 12):  # only where it looks for signals, too
        return before.startswith(("CALL", "JUMP_BACKWARD", "RESUME")) or operation == "RESUME"
    allocates = ("PRECALL", "CALL", "BUILD", "MAKE_FUNCTION", "GET_ITER", "RETURN_GEN", "RAISE")
    return operation.startswith(allocates) or before.startswith("CALL")


class Collector:
    """Drops a coroutine at the one point of this number; counts the points."""

    def __init__(self, at: int, drop: Callable[[], None]) -> None:
        self.at = at
        self.drop = drop
        self.points = 0
        self.before: dict[int, str] = {}

    def trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            operation = operations(frame.f_code).get(frame.f_lasti, "")
            before, self.before[id(frame)] = self.before.get(id(frame), ""), operation
            if may_collect(before, operation):
                self.points += 1
                if self.points == self.at:
                    self.drop()
        return self.trace

    async def during(self, use: Awaitable[None]) -> None:
        sys.settrace(self.trace)
        try:
            await use
        finally:
            sys.settrace(None)


async def lost(cleanup: Callable[[], Awaitable[None]]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await cleanup()


def points_of(use: Callable[[], Coroutine[Any, Any, None]], dropped: Callable[[], Awaitable[None]], at: int) -> int:
    """Run once. Returns how many points there were."""
    global world  # the factories are at module level, as users have them
    world = World()
    waiting = [lost(dropped)]

    def drop() -> None:
        try:
            waiting.pop().close()
        except RuntimeError as error:
            if not any(text in str(error) for text in OF_DROPPED_CODE):
                world.broken.append(f"the dropped code got {error!r}")

    loop = DeterministicLoop()
    loop.set_exception_handler(lambda _, context: world.broken.append(f"reported: {context}"))
    tracing = Collector(at, drop)

    async def main() -> None:
        with suppress(StopIteration):
            waiting[0].send(None)
        await tracing.during(use())

    try:
        loop.run_until_complete(main())
    finally:
        sys.settrace(tracing.trace)
        try:
            loop.close()
        finally:
            sys.settrace(None)
            with suppress(RuntimeError):
                for each in waiting:
                    each.close()
    assert world.broken == []
    assert [each for each in world.things if each.is_open] == []
    assert world.callbacks == 0
    return tracing.points


@pytest.fixture(autouse=True)
def _only_our_collector() -> Any:
    before = sys.gettrace()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    with collector.disabled():
        yield
        gc.collect()
    sys.unraisablehook = hook
    sys.settrace(before)


# Not those in which an object that is being exited is asked for: whoever does that enters it anew.
PAIRS = [(use, dropped) for use in USES for dropped in DROPPED if use is not use_object or dropped not in (use_object, aclose)]
IN_THE_SUITE = 19  # every so many points; all of them by hand, with 1


@pytest.mark.parametrize(("use", "dropped"), PAIRS, ids=[f"{use.__name__}-{dropped.__name__}" for use, dropped in PAIRS])
def test_code_that_the_collector_runs_finds_nothing_half_done(
    use: Callable[[], Coroutine[Any, Any, None]], dropped: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """A lost task's `finally` may use the very resource at any allocation: no error to anybody, nothing entered twice or lost."""
    points = points_of(use, dropped, 0)
    assert points > 50
    step = 1 if use is dropped is use_storage else IN_THE_SUITE  # the least, and all of it is the attaching of the loop
    for at in range(1 + points % step, points + 1, step):
        points_of(use, dropped, at)
