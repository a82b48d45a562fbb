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


class Gate:
    """An ACM that waits at its enter and at its exit until it is let through."""

    def __init__(self) -> None:
        self.entering = asyncio.Event()
        self.may_enter = asyncio.Event()
        self.exiting = asyncio.Event()
        self.may_exit = asyncio.Event()

    async def __aenter__(self) -> None:
        self.entering.set()
        await self.may_enter.wait()

    async def __aexit__(self, *exc_info: object) -> None:
        self.exiting.set()
        await asyncio.wait_for(self.may_exit.wait(), 10)  # or a test that fails before it lets it exit would hang

    def open(self) -> Gate:
        self.may_enter.set()
        self.may_exit.set()
        return self


@sticky_singleton_acm
@asynccontextmanager
async def pool(host: str, port: int = 5432, **options: object) -> AsyncGenerator[str]:
    yield host


@sticky_singleton_acm
@asynccontextmanager
async def users(host: str) -> AsyncGenerator[str]:
    async with pool(host) as entered:
        yield entered


def names() -> list[str]:
    return [each.name for each in resources()]


async def turns() -> None:
    """Lets everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def use(acm: Any) -> None:
    async with acm:
        pass


# What it returns.


def test_nothing_is_open_on_a_fresh_loop(run: Run) -> None:
    """On a loop without resources there is nothing, and asking leaves the loop as it was."""

    async def main() -> None:
        before = dict(vars(asyncio.get_running_loop()))
        assert resources() == ()
        assert format_resources() == ""
        assert vars(asyncio.get_running_loop()).keys() <= before.keys()

    run(main())


def test_without_a_loop() -> None:
    """Both ask for the running loop."""
    for call in (resources, format_resources):
        with pytest.raises(RuntimeError, match=r"^no running event loop$"):
            call()


def test_each_way_to_enter_is_shown_by_name(run: Run) -> None:
    """What a factory made is shown as its call, what was handed over as an object by its function or class."""

    @asynccontextmanager
    async def by_function() -> AsyncGenerator[None]:
        yield

    class ByClass(Gate):
        pass

    async def main() -> None:
        await enter(by_function())
        await enter_once(ByClass().open())
        await use(sticky_acm(Gate().open()))
        await use(pool("h", port=1))
        shown = [name.rpartition("<locals>.")[2] for name in names()]
        assert shown == ["by_function", "ByClass", "Gate", "pool('h', port=1)"]

    run(main())


def test_the_order_is_that_of_entering(run: Run) -> None:
    """In order of the end of their entering, not of their calls; what is released goes, what comes again comes last."""

    async def main() -> None:
        slow = Gate()
        entering = asyncio.create_task(enter(slow))
        await slow.entering.wait()
        for host in "abc":
            await use(pool(host))
        slow.open()
        await entering
        await release(pool, "a")
        await use(pool("a"))
        assert names() == ["pool('b')", "pool('c')", "Gate", "pool('a')"]

    run(main())


def test_what_is_being_entered_comes_last_in_order(run: Run) -> None:
    """Those that are still being entered come after all that are open, in the order in which they began."""

    @sticky_singleton_acm
    def gated(number: int, gate: Gate) -> Gate:
        return gate

    async def main() -> None:
        gates = [Gate() for _ in range(20)]
        tasks: list[asyncio.Task[None]] = []
        for number, gate in enumerate(gates):
            tasks.append(asyncio.create_task(use(gated(number, gate))))
            await gate.entering.wait()
        await use(pool("h"))
        shown = [name.partition(",")[0] for name in names()]
        assert shown == ["pool('h')", *(f"gated({number}" for number in range(20))]
        for gate in gates:
            gate.open()
        await asyncio.wait(tasks)

    run(main())


def test_states(run: Run) -> None:
    """A resource is entering, then open, then exiting, then gone."""
    states: list[list[str]] = []

    @sticky_singleton_acm
    def gated() -> Gate:
        return gate

    gate: Gate

    def note() -> None:
        states.append([each.state for each in resources()])

    async def main() -> None:
        nonlocal gate
        gate = Gate()
        handle = gated()
        note()
        entering = asyncio.create_task(use(handle))
        await gate.entering.wait()
        note()
        gate.may_enter.set()
        await entering
        note()
        releasing = asyncio.create_task(release(gated))
        await gate.exiting.wait()
        note()
        gate.may_exit.set()
        await releasing
        note()

    run(main())
    assert states == [[], ["entering"], ["open"], ["exiting"], []]


def test_an_abandoned_entering_is_shown_until_it_has_unwound(run: Run) -> None:
    """A cancelled entering that still cleans up is exiting, and then gone."""

    async def main() -> None:
        entering, may_unwind = asyncio.Event(), asyncio.Event()

        @asynccontextmanager
        async def slow() -> AsyncGenerator[None]:
            try:
                entering.set()
                await asyncio.Event().wait()
            finally:
                await may_unwind.wait()
            yield

        task = asyncio.create_task(enter(slow()))
        await entering.wait()
        task.cancel()
        await asyncio.wait([task])
        (info,) = resources()
        assert (info.state, info.since) == ("exiting", None)
        may_unwind.set()
        await turns()
        assert resources() == ()

    run(main())


def test_since_is_on_the_loops_clock(run: Run) -> None:
    """`since` is the loop's own time at the end of entering, in seconds; None before, and the same ever after."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate()
        entering = asyncio.create_task(enter(gate))
        await gate.entering.wait()
        assert resources()[0].since is None
        before = loop.time()
        gate.open()
        await entering
        after = loop.time()
        since = resources()[0].since
        assert since is not None
        assert before <= since <= after
        assert resources()[0].since == since

    run(main())


def test_what_it_uses(run: Run) -> None:
    """`uses` has the names of all that it has acquired, in that order, at its entering or later."""

    async def main() -> None:
        go = asyncio.Event()

        @sticky_singleton_acm
        @asynccontextmanager
        async def service() -> AsyncGenerator[asyncio.Task[None]]:
            async with users("h"), pool("other"):
                pass

            async def later() -> None:
                await go.wait()
                await use(pool("late"))

            yield asyncio.create_task(later())

        async with service() as task:
            pass
        uses = {each.name.rpartition("<locals>.")[2]: each.uses for each in resources()}
        assert uses == {
            "pool('h')": (),
            "users('h')": ("pool('h')",),
            "pool('other')": (),
            "service()": ("users('h')", "pool('other')"),
        }
        go.set()
        await task
        assert resources()[3].uses == ("users('h')", "pool('other')", "pool('late')")

    run(main())


def test_its_tasks(run: Run) -> None:
    """`tasks` has the tasks that the resource has started and that still run, and not those of its users."""
    started: list[asyncio.Task[bool]] = []

    async def main() -> None:
        end = asyncio.Event()

        @sticky_singleton_acm
        @asynccontextmanager
        async def service() -> AsyncGenerator[None]:
            started.append(asyncio.create_task(end.wait(), name="listener"))
            started.append(asyncio.create_task(asyncio.Event().wait()))
            yield
            started[1].cancel()

        async with service():
            own = asyncio.create_task(asyncio.Event().wait())
        (info,) = resources()
        assert info.tasks == tuple(started)
        assert_type(info.tasks, tuple[asyncio.Task[Any], ...])
        end.set()
        await started[0]
        await turns()
        assert resources()[0].tasks == (started[1],)
        assert info.tasks == tuple(started)
        own.cancel()

    run(main())
    started.clear()


def test_the_fields_are_typed(run: Run) -> None:
    """The static type of each field is that of its value."""

    async def main() -> None:
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

    run(main())


def test_a_snapshot_does_not_change(run: Run) -> None:
    """Nothing can be set on it, and it stays as it is when the loop goes on, and after its end."""

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


def test_what_is_no_resource_is_not_shown(run: Run) -> None:
    """Callbacks, singletons and shared coroutines are not entered, and so not shown; nor is a call whose block was not run."""

    @singleton
    def token() -> object:
        return object()

    @singleton
    async def shared() -> str:
        return "s"

    async def main() -> None:
        atexit.register(int)
        token()
        await shared()
        pool("never")
        assert resources() == ()
        assert format_resources() == ""

    run(main())


def test_what_was_made_but_not_entered_is_not_shown(run: Run) -> None:
    """A factory that starts a task when it makes its resource has something to end, but nothing is open before the block."""

    @sticky_singleton_acm
    def eager() -> Gate:
        tasks.append(asyncio.create_task(asyncio.Event().wait()))
        return Gate().open()

    tasks: list[asyncio.Task[Any]] = []

    async def main() -> None:
        handle = eager()
        assert resources() == ()
        assert format_resources() == ""
        await use(handle)
        assert [info.tasks for info in resources()] == [(tasks[0],)]

    run(main())
    assert tasks[0].cancelled()


def test_a_second_loop_shows_its_own(run: Run) -> None:
    """Each loop shows what is open on it alone, also while another one runs in another thread."""
    both = threading.Barrier(2)
    shown: list[list[str]] = []

    async def main(host: str) -> None:
        assert resources() == ()
        await use(pool(host))
        both.wait(30)
        shown.append(names())

    def in_thread(host: str) -> None:
        run(main(host))

    threads = [threading.Thread(target=in_thread, args=(host,)) for host in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shown) == [["pool('a')"], ["pool('b')"]]


def test_they_can_be_asked_from_within_and_while_the_loop_ends(run: Run) -> None:
    """An exit sees itself exiting, and what is still open; a callback at the end does, too."""
    seen: list[list[tuple[str, str]]] = []

    def note() -> None:
        seen.append([(each.name.rpartition("<locals>.")[2], each.state) for each in resources()])

    @asynccontextmanager
    async def last() -> AsyncGenerator[None]:
        yield
        note()

    async def main() -> None:
        await use(pool("h"))
        await enter(last())
        atexit.register(note)

    run(main())
    assert seen == [[("pool('h')", "open"), ("last", "open")], [("pool('h')", "open"), ("last", "exiting")]]


# How it reads.


def test_repr_is_one_line(run: Run) -> None:
    """The repr of each is one readable line with all of it."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def service(text: str) -> AsyncGenerator[None]:
        await use(users("h"))
        tasks = [asyncio.create_task(asyncio.Event().wait()) for _ in range(2)]
        yield
        for task in tasks:
            task.cancel()

    async def main() -> None:
        gate = Gate()
        entering = asyncio.create_task(enter(gate))
        await use(service("two\nlines"))
        infos = resources()
        lines = [repr(info) for info in infos]
        assert lines[0] == f"<pool('h'): open since {infos[0].since:.3f} s>"
        assert lines[1] == f"<users('h'): open since {infos[1].since:.3f} s; uses pool('h')>"
        assert lines[2].endswith(f": open since {infos[2].since:.3f} s; uses users('h'); 2 tasks>")
        assert lines[3] == "<Gate: entering>"
        assert not any("\n" in line for line in lines)
        gate.open()
        await entering

    run(main())


def test_the_tree(run: Run) -> None:
    """`format_resources` is a line for each, with what it uses below it, in full the first time alone."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        async with users("h"), pool("h"), pool("other"):
            yield

    async def main() -> None:
        gate = Gate()
        await use(service())
        await use(pool("alone"))
        entering = asyncio.create_task(enter(gate))
        await gate.entering.wait()
        since = {each.name.rpartition("<locals>.")[2]: each.since for each in resources()}

        def in_full(name: str) -> str:
            return f"{name} (open since {since[name]:.3f} s)"

        assert format_resources().replace("test_the_tree.<locals>.", "").splitlines() == [
            in_full("service()"),
            "    " + in_full("users('h')"),
            "        " + in_full("pool('h')"),
            "    pool('h') (open, see above)",
            "    " + in_full("pool('other')"),
            in_full("pool('alone')"),
            "Gate (entering)",
        ]
        gate.open()
        await entering

    run(main())


def test_a_circle_of_uses_has_an_end_in_the_tree(run: Run) -> None:
    """Two resources that came to use each other are both shown, each in full once."""

    async def main() -> None:
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

        async with first() as task:
            pass
        await use(second())
        go.set()
        await task
        lines = format_resources().splitlines()
        assert [line.lstrip().partition(" ")[0].rpartition("<locals>.")[2] for line in lines] == [
            "first()",
            "second()",
            "first()",
        ]
        assert [len(line) - len(line.lstrip()) for line in lines] == [0, 4, 8]
        assert lines[2].endswith("(open, see above)")

    run(main())


SECRET = "hunter2"

SECRETS: list[tuple[tuple[object, ...], dict[str, object]]] = [
    ((f"postgres://user:{SECRET}@db.example/main",), {}),
    (("h",), {"password": SECRET}),
    (("h",), {"token": SECRET}),
    (("h",), {"api_key": SECRET}),
    (("h",), {"db_password": SECRET, "client_secret": SECRET.encode()}),
    ((f"https://api.example/v1?token={SECRET}&user=u",), {}),
    (("h",), {"headers": {"Authorization": f"Bearer {SECRET}"}}),
    (("h",), {"settings": {"db": {"password": SECRET}}}),
    ((f"host=db.example password={SECRET} user=u",), {}),
]


@pytest.mark.parametrize(("args", "kwargs"), SECRETS)
def test_secrets_are_masked_in_all_that_is_shown(
    run: Run, caplog: pytest.LogCaptureFixture, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Passwords and tokens appear in no name, tree, repr or log line; that there was one does."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        async with pool(*args, **kwargs):
            yield

    async def main() -> str:
        handle = pool(*args, **kwargs)
        async with handle, service():
            shown = [*names(), *map(repr, resources()), format_resources(), repr(handle)]
            shown += [use for info in resources() for use in info.uses]
        with pytest.raises(RuntimeError) as caught:
            await release(pool, *args, **kwargs)
        return "\n".join([*shown, str(caught.value)])

    with caplog.at_level(logging.DEBUG, "asyncio_loop_local"):
        text = run(main()) + caplog.text
    assert "entered pool(" in caplog.text
    assert SECRET not in text
    assert "***" in text


# The log.


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "asyncio_loop_local"]
    assert {record.levelno for record in records} <= {logging.DEBUG}
    return [record.getMessage().replace(f"{__name__}.", "") for record in records]


def test_entering_and_exiting_are_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, the logger `asyncio_loop_local` tells when each resource was entered, begins to exit, and has exited."""

    async def main() -> None:
        await use(users("h"))
        await use(users("h"))
        await enter(Gate().open())
        assert await release(users, "h")

    with caplog.at_level(logging.DEBUG, "asyncio_loop_local"):
        run(main())
    assert logged(caplog) == [
        "entered pool('h')",
        "entered users('h')",
        "entered Gate",
        "exiting users('h')",
        "exited users('h')",
        "exiting Gate",
        "exited Gate",
        "exiting pool('h')",
        "exited pool('h')",
    ]


def test_what_was_never_entered_is_not_logged_as_exited(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A failed or cancelled enter, and a call whose block was not run, say nothing of an exit."""

    async def main() -> None:
        async def fail() -> None:
            raise ValueError

        @asynccontextmanager
        async def fails() -> AsyncGenerator[None]:
            await fail()
            yield

        pool("never")
        with pytest.raises(ValueError):
            await enter(fails())
        gate = Gate()
        entering = asyncio.create_task(enter(gate))
        await gate.entering.wait()
        entering.cancel()
        await asyncio.wait([entering])

    with caplog.at_level(logging.DEBUG, "asyncio_loop_local"):
        run(main())
    assert not [line for line in logged(caplog) if line.startswith(("entered", "exited"))]


def test_above_debug_nothing_is_logged_and_no_name_is_made(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens at DEBUG, no argument is asked for its repr."""

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
