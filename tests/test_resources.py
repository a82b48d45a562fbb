"""`resources`, `format_resources` and the log: what is open on a loop, for people to read."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal, assert_type

import pytest

from asyncio_loop_local import (
    ResourceInfo,
    aclose,
    atexit,
    enter,
    enter_once,
    format_resources,
    release,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
)
from conftest import Run
from recording import Factory, Recorded, begin, cancel, in_threads, keep, on_each_loop, turns, use


@sticky_singleton_acm
@asynccontextmanager
async def pool(host: str, port: int = 5432, **options: object) -> AsyncGenerator[str]:
    yield host


@sticky_singleton_acm
@asynccontextmanager
async def users(host: str) -> AsyncGenerator[str]:
    yield await use(pool(host))


@sticky_singleton_acm
@asynccontextmanager
async def service(text: str = "") -> AsyncGenerator[None]:
    """Uses several, and has two tasks."""
    for acm in (users("h"), pool("h"), pool("other")):
        await use(acm)
    tasks = [asyncio.create_task(asyncio.Event().wait()) for _ in range(2)]
    yield
    for task in tasks:
        task.cancel()


def short(name: str) -> str:
    """The name without the test in which it was defined."""
    return name.rpartition("<locals>.")[2]


def names() -> list[str]:
    return [short(each.name) for each in resources()]


def states() -> list[tuple[str, str]]:
    return [(short(each.name), each.state) for each in resources()]


async def begin_to_enter(resource: Recorded) -> asyncio.Future[Recorded]:
    """A task that waits in the enter."""
    resource.may_enter.clear()
    return await begin(enter(resource))


# What it returns.


@on_each_loop
async def test_what_is_no_open_resource_is_not_shown() -> None:
    """Nothing is shown, and nothing is set on the loop by asking, where there are only callbacks, singletons and unused calls."""

    @singleton
    async def shared() -> str:
        return "s"

    before = dict(vars(asyncio.get_running_loop()))
    assert (resources(), format_resources()) == ((), "")
    assert vars(asyncio.get_running_loop()).keys() <= before.keys()
    atexit.register(int)
    singleton(object)()
    await shared()
    pool("never")
    assert (resources(), format_resources()) == ((), "")


@on_each_loop
async def test_what_was_made_but_not_entered_is_not_shown() -> None:
    """A factory that starts a task when it makes its resource has something to end, but nothing is open before the block."""

    @sticky_singleton_acm
    def eager() -> Recorded:
        tasks.append(asyncio.create_task(asyncio.Event().wait()))
        return Recorded()

    tasks: list[asyncio.Task[Any]] = []

    handle = eager()
    assert (resources(), format_resources()) == ((), "")
    await use(handle)
    assert [info.tasks for info in resources()] == [(tasks[0],)]
    await aclose()
    assert tasks[0].cancelled()


@on_each_loop
async def test_each_way_to_enter_is_shown_by_name() -> None:
    """What a factory made is shown as its call, what was handed over as an object by its function or class."""

    @asynccontextmanager
    async def by_function() -> AsyncGenerator[None]:
        yield

    class ByClass(Recorded):
        pass

    await enter(by_function())
    await enter_once(ByClass())
    await use(sticky_acm(Recorded()))
    await use(pool("h", port=1))
    assert names() == ["by_function", "ByClass", "Recorded", "pool('h', port=1)"]


@on_each_loop
async def test_the_order_is_that_of_entering() -> None:
    """In order of the end of their entering, not of their calls; what is released goes, what comes again comes last."""
    slow = Recorded()
    entering = await begin_to_enter(slow)
    for host in "abc":
        await use(pool(host))
    slow.may_enter.set()
    await entering
    await release(pool, "a")
    await use(pool("a"))
    assert names() == ["pool('b')", "pool('c')", "Recorded", "pool('a')"]


@on_each_loop
async def test_what_is_being_entered_comes_last_in_order() -> None:
    """Those that are still being entered come after all that are open, in the order in which they began."""
    factory = Factory(enter_waits=True)
    tasks: list[asyncio.Task[Recorded]] = []
    for port in range(20):
        tasks.append(asyncio.create_task(factory.use("g", port)))
        await factory.until_entering(port + 1)
    await use(pool("h"))
    assert [name.rpartition(".")[2] for name in names()] == ["pool('h')", *(f"_make('g', {port})" for port in range(20))]
    for resource in factory.made:
        resource.may_enter.set()
    await asyncio.wait(tasks)


@on_each_loop
async def test_states() -> None:
    """A resource is entering, open, exiting, then gone; `since` is the loop's time at the end of entering, in seconds."""
    factory, loop = Factory(enter_waits=True), asyncio.get_running_loop()

    def shown() -> tuple[tuple[str, float | None], ...]:
        return tuple((each.state, each.since) for each in resources())

    assert shown() == ()
    using = asyncio.create_task(factory.use())
    resource = await factory.until_entering()
    assert shown() == (("entering", None),)
    before = loop.time()
    resource.may_enter.set()
    await using
    ((state, since),) = shown()
    assert state == "open"
    assert since is not None
    assert before <= since <= loop.time()
    resource.may_exit.clear()
    releasing = await begin(release(factory.make))
    assert shown() == (("exiting", since),)
    resource.may_exit.set()
    await releasing
    assert shown() == ()


@on_each_loop
async def test_an_abandoned_entering_is_shown_until_it_has_unwound() -> None:
    """A cancelled entering that still cleans up is exiting, and then gone."""
    may_unwind = asyncio.Event()

    @asynccontextmanager
    async def slow() -> AsyncGenerator[None]:
        try:
            await asyncio.Event().wait()
        finally:
            await may_unwind.wait()
        yield

    await cancel(await begin(enter(slow())))
    (info,) = resources()
    assert (info.state, info.since) == ("exiting", None)
    may_unwind.set()
    await turns()
    assert resources() == ()


@on_each_loop
async def test_what_it_uses() -> None:
    """`uses` has the names of all that it has acquired, in that order, at its entering or later."""
    go = asyncio.Event()

    @sticky_singleton_acm
    @asynccontextmanager
    async def service() -> AsyncGenerator[asyncio.Task[None]]:
        await use(users("h"))
        await use(pool("other"))

        async def later() -> None:
            await go.wait()
            await use(pool("late"))

        yield asyncio.create_task(later())

    task = await use(service())
    assert [(short(each.name), each.uses) for each in resources()] == [
        ("pool('h')", ()),
        ("users('h')", ("pool('h')",)),
        ("pool('other')", ()),
        ("service()", ("users('h')", "pool('other')")),
    ]
    go.set()
    await task
    assert resources()[3].uses == ("users('h')", "pool('other')", "pool('late')")


@on_each_loop
async def test_its_tasks() -> None:
    """`tasks` has the tasks that the resource has started and that still run, and not those of its users."""
    end = asyncio.Event()
    started: list[asyncio.Task[bool]] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        started.append(asyncio.create_task(end.wait(), name="listener"))
        started.append(asyncio.create_task(asyncio.Event().wait()))
        yield
        started[1].cancel()

    async with service():
        keep(asyncio.Event().wait())
    (info,) = resources()
    assert info.tasks == tuple(started)
    assert_type(info.tasks, tuple[asyncio.Task[Any], ...])
    end.set()
    await started[0]
    await turns()
    assert resources()[0].tasks == (started[1],)
    assert info.tasks == tuple(started)


@on_each_loop
async def test_the_fields_are_typed() -> None:
    """The static type of each field is that of its value."""
    await use(pool("h"))
    snapshot = resources()
    assert_type(snapshot, tuple[ResourceInfo, ...])
    (info,) = snapshot
    assert_type(info.name, str)
    assert_type(info.state, Literal["entering", "open", "exiting"])
    assert_type(info.since, float | None)
    assert_type(info.uses, tuple[str, ...])
    assert [type(getattr(info, field.name)) for field in dataclasses.fields(info)] == [str, str, float, tuple, tuple]
    assert type(snapshot) is tuple


def test_a_snapshot_does_not_change(run: Run) -> None:
    """Its attributes cannot be set, and it stays the same while the loop runs on, and after its end."""

    async def main() -> tuple[ResourceInfo, ...]:
        await use(users("h"))
        snapshot = resources()
        before = repr(snapshot)
        info: Any = snapshot[0]
        for field in dataclasses.fields(ResourceInfo):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(info, field.name, None)
        with pytest.raises((AttributeError, TypeError)):
            info.anything = 1
        assert resources() == snapshot
        assert hash(resources()) == hash(snapshot)
        await use(pool("other"))
        await aclose()
        assert resources() == ()
        assert repr(snapshot) == before
        return snapshot

    assert [info.state for info in run(main())] == ["open", "open"]


def test_a_second_loop_shows_its_own(run: Run) -> None:
    """Each loop shows what is open on it alone, also while another one runs in another thread."""
    both = threading.Barrier(2)
    shown: list[list[str]] = []

    async def main(host: str) -> None:
        assert resources() == ()
        await use(pool(host))
        both.wait(30)
        shown.append(names())

    in_threads(lambda: run(main("a")), lambda: run(main("b")))
    assert sorted(shown) == [["pool('a')"], ["pool('b')"]]


@on_each_loop
async def test_they_can_be_asked_from_within_and_while_the_loop_ends(
    log: list[list[tuple[str, str]]],
) -> list[list[tuple[str, str]]]:
    """An exit sees itself exiting, and what is still open; a callback at the end does, too."""

    @asynccontextmanager
    async def last() -> AsyncGenerator[None]:
        yield
        log.append(states())

    await use(pool("h"))
    await enter(last())
    atexit.register(lambda: log.append(states()))
    return [[("pool('h')", "open"), ("last", "open")], [("pool('h')", "open"), ("last", "exiting")]]


# How it reads.


@on_each_loop
async def test_repr_is_one_line() -> None:
    """The repr of each is one readable line with all of it."""
    resource = Recorded()
    entering = await begin_to_enter(resource)
    await use(service("two\nlines"))
    infos = resources()
    lines = [repr(info) for info in infos]
    assert lines[0] == f"<pool('h'): open since {infos[0].since:.3f} s>"
    assert lines[1] == f"<users('h'): open since {infos[1].since:.3f} s; uses pool('h')>"
    assert lines[3].endswith(f": open since {infos[3].since:.3f} s; uses users('h'), pool('h'), pool('other'); 2 tasks>")
    assert lines[4] == "<Recorded: entering>"
    assert not any("\n" in line for line in lines)
    resource.may_enter.set()
    await entering


@on_each_loop
async def test_the_tree() -> None:
    """`format_resources` is a line for each, with what it uses below it, in full the first time alone."""
    await use(service())
    await use(pool("alone"))
    resource = Recorded()
    entering = await begin_to_enter(resource)
    since = {each.name: each.since for each in resources()}

    def in_full(name: str) -> str:
        return f"{name} (open since {since[name]:.3f} s)"

    assert format_resources().splitlines() == [
        in_full("service()"),
        "    " + in_full("users('h')"),
        "        " + in_full("pool('h')"),
        "    pool('h') (open, see above)",
        "    " + in_full("pool('other')"),
        in_full("pool('alone')"),
        "Recorded (entering)",
    ]
    resource.may_enter.set()
    await entering


@on_each_loop
async def test_a_circle_of_uses_has_an_end_in_the_tree() -> None:
    """Two resources that came to use each other are both shown, each in full once."""
    go = asyncio.Event()

    @sticky_singleton_acm
    @asynccontextmanager
    async def first() -> AsyncGenerator[asyncio.Task[None]]:
        async def later() -> None:
            await go.wait()
            await use(second())

        yield asyncio.create_task(later())

    @sticky_singleton_acm
    @asynccontextmanager
    async def second() -> AsyncGenerator[None]:
        await use(first())
        yield

    task = await use(first())
    await use(second())
    go.set()
    await task
    lines = format_resources().splitlines()
    assert [short(line.lstrip().partition(" ")[0]) for line in lines] == ["first()", "second()", "first()"]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 4, 8]
    assert lines[2].endswith("(open, see above)")


# The log.


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "asyncio_loop_local"]
    assert {record.levelno for record in records} <= {logging.DEBUG}
    return [record.getMessage() for record in records]


def test_entering_and_exiting_are_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, the logger `asyncio_loop_local` records when each resource was entered, begins to exit, and has exited."""

    async def main() -> None:
        await use(users("h"))
        await use(users("h"))
        await enter(Recorded())
        assert await release(users, "h")

    with caplog.at_level(logging.DEBUG, "asyncio_loop_local"):
        run(main())
    assert logged(caplog) == [
        *("entered pool('h')", "entered users('h')", "entered Recorded"),
        *(f"{step} {name}" for name in ("users('h')", "Recorded", "pool('h')") for step in ("exiting", "exited")),
    ]


def test_what_was_never_entered_is_not_logged_as_exited(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Of a failed or cancelled enter, and of a call whose block was not run, no exit is logged."""

    async def main() -> None:
        pool("never")
        fails = Recorded()
        fails.enter_error = ValueError()
        with pytest.raises(ValueError):
            await enter(fails)
        await cancel(await begin_to_enter(Recorded()))

    with caplog.at_level(logging.DEBUG, "asyncio_loop_local"):
        run(main())
    assert not [line for line in logged(caplog) if line.startswith(("entered", "exited"))]


def test_above_debug_nothing_is_logged_and_no_name_is_made(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Unless the logger is enabled for DEBUG, no argument is asked for its repr."""

    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("was asked")

        def __hash__(self) -> int:
            return 1

    async def main() -> None:
        await use(pool("h", option=Loud()))

    with caplog.at_level(logging.INFO, "asyncio_loop_local"):
        run(main())
    assert logged(caplog) == []


@on_each_loop
async def test_a_chain_of_any_length_can_be_shown() -> None:
    """Each of 2,000 resources that enters the next one has its line, one deeper than the line before."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def link(number: int) -> AsyncGenerator[int]:
        if number:
            async with link(number - 1):
                pass
        yield number

    for number in range(2_000):
        async with link(number):
            pass
    lines = format_resources().splitlines()
    assert [line.count("    ") for line in lines] == list(range(2_000))
