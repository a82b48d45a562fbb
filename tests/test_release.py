"""`release`: letting go of one thing that a wrapped factory has made, before the loop ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import aclose, atexit, enter, enter_once, release, resources, singleton, sticky_singleton_acm
from conftest import Run


class Connection:
    """Can be made to wait, or to fail, in entering and in leaving."""

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

    async def __aenter__(self) -> Connection:
        self.entering.set()
        try:
            await self.may_enter.wait()
        except asyncio.CancelledError:
            self.log.append(f"enter {self.name} cancelled")
            raise
        if self.enter_error is not None:
            raise self.enter_error
        self.log.append(f"entered {self.name}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.log.append(f"exit {self.name}")
        self.exiting.set()
        await asyncio.wait_for(self.may_exit.wait(), 10)  # or a test that fails before it lets it exit would hang
        if self.exit_error is not None:
            raise self.exit_error
        self.log.append(f"exited {self.name}")


class Factory:
    """A sticky factory of connections, and all that it has made."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.made: list[Connection] = []
        self.connect = sticky_singleton_acm(self._connect)
        self.prepare: Callable[[Connection], None] = lambda _connection: None

    def _connect(self, host: str = "h", port: int = 80) -> AbstractAsyncContextManager[Connection]:
        connection = Connection(str(len(self.made)), self.log)
        self.prepare(connection)
        self.made.append(connection)
        return connection

    async def use(self, host: str = "h", port: int = 80) -> Connection:
        async with self.connect(host, port) as connection:
            return connection

    async def until_made(self, count: int = 1) -> Connection:
        while len(self.made) < count:
            await asyncio.sleep(0)
        await self.made[count - 1].entering.wait()
        return self.made[count - 1]


async def turns() -> None:
    """Lets everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


# What it returns, and what it finds.


def test_it_exits_and_forgets_a_resource(run: Run) -> None:
    """A resource is exited before `release` returns True, and the next call makes a new one, exited at the loop's end."""

    async def main() -> Factory:
        factory = Factory()
        connection = await factory.use()
        assert await release(factory.connect) is True
        assert factory.log == ["entered 0", "exit 0", "exited 0"]
        assert await factory.use() is not connection
        return factory

    assert run(main()).log[3:] == ["entered 1", "exit 1", "exited 1"]


def test_it_returns_false_if_there_was_nothing(run: Run) -> None:
    """On a fresh loop, for other arguments, and a second time, there is nothing to release."""

    @singleton
    def token(user: str) -> object:
        return object()

    async def main() -> None:
        factory = Factory()
        assert await release(factory.connect) is False
        assert await release(token, "u") is False
        await factory.use()
        token("u")
        assert await release(factory.connect, "other") is False
        assert await release(token, "other") is False
        assert [await release(factory.connect), await release(factory.connect)] == [True, False]
        assert [await release(token, "u"), await release(token, "u")] == [True, False]
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


def test_every_form_of_a_call_finds_it(run: Run) -> None:
    """The arguments are a call's: by position, by name, in any order, defaults given or not."""
    forms: list[Callable[[Factory], Awaitable[bool]]] = [
        lambda f: release(f.connect),
        lambda f: release(f.connect, "h"),
        lambda f: release(f.connect, "h", 80),
        lambda f: release(f.connect, port=80),
        lambda f: release(f.connect, port=80, host="h"),
    ]

    async def main() -> None:
        for form in forms:
            factory = Factory()
            await factory.use()
            assert await form(factory) is True
            assert await form(factory) is False

    run(main())


def test_what_counts_by_value_finds_it(run: Run) -> None:
    """A dict that is equal to the one of the call releases what that call made; types are told apart, as by a call."""

    @singleton
    def client(headers: dict[str, Any]) -> object:
        return object()

    async def main() -> None:
        kept = client({"a": 1})
        assert await release(client, {"a": True}) is False
        assert client({"a": 1}) is kept
        assert await release(client, headers={"a": 1}) is True
        assert client({"a": 1}) is not kept

    run(main())


def test_a_singleton_is_forgotten(run: Run) -> None:
    """What `singleton` has made is let go, and nothing of it is called."""

    class Client:
        closed = False

        async def __aexit__(self, *exc_info: object) -> None:
            self.closed = True

        async def __aenter__(self) -> None: ...

    @singleton
    def client() -> Client:
        return Client()

    async def main() -> None:
        before = client()
        assert await release(client) is True
        assert client() is not before
        assert not before.closed

    run(main())


def test_a_shared_coroutine_is_forgotten(run: Run) -> None:
    """A shared coroutine is forgotten, done or under way; those who hold the object still get its result."""
    calls: list[str] = []

    async def main() -> None:
        may_end = asyncio.Event()

        @singleton
        async def token() -> int:
            calls.append("called")
            number = len(calls)
            await may_end.wait()
            return number

        old = asyncio.create_task(token())
        while not calls:
            await asyncio.sleep(0)
        assert await release(token) is True
        new = token()
        may_end.set()
        assert [await old, await new] == [1, 2]
        assert await release(token) is True
        assert [await new, await token()] == [2, 3]

    run(main())


def test_a_made_but_never_entered_resource_is_forgotten(run: Run) -> None:
    """A call whose block was never run leaves something to forget, and nothing to exit; its object begins anew."""

    async def main() -> None:
        factory = Factory()
        handle = factory.connect()
        assert await release(factory.connect) is True
        assert await release(factory.connect) is False
        assert factory.log == []
        async with handle as connection:
            assert connection is factory.made[1]

    run(main())


def test_a_kept_object_of_the_factory_begins_anew(run: Run) -> None:
    """The object that a call had given enters a new resource after the release, the same as that of a new call."""

    async def main() -> None:
        factory = Factory()
        handle = factory.connect()
        async with handle as before:
            pass
        await release(factory.connect)
        async with handle as after, factory.connect() as again:
            assert after is again
            assert after is not before

    run(main())


def test_methods(run: Run) -> None:
    """A bound method is released for its own instance alone; class methods, static ones and the plain function work, too."""

    class Client:
        @singleton
        def token(self, scope: str = "all") -> object:
            return object()

        @classmethod
        @singleton
        def of_class(cls) -> object:
            return object()

        @staticmethod
        @singleton
        def static() -> object:
            return object()

        @sticky_singleton_acm
        @asynccontextmanager
        async def session(self) -> AsyncGenerator[object]:
            yield object()

    async def main() -> None:
        one, other = Client(), Client()
        of_one, of_other = one.token(), other.token()
        assert await release(one.token, scope="all") is True
        assert one.token() is not of_one
        assert other.token() is of_other
        assert await release(Client.token, other, "all") is True
        assert other.token() is not of_other
        of_class, static = Client.of_class(), Client.static()
        assert [await release(Client.of_class), await release(one.static)] == [True, True]
        assert Client.of_class() is not of_class
        assert Client.static() is not static
        async with one.session() as session, other.session() as others:
            pass
        assert await release(one.session) is True
        async with one.session() as again, other.session() as still:
            assert again is not session
            assert still is others

    run(main())


def test_with_a_key_of_ones_own(run: Run) -> None:
    """With `key=…` that key finds it, whatever the other arguments are."""
    calls: list[str] = []

    def key(user: str, trace: int) -> str:
        return user

    @singleton(key=key)
    def token(user: str, trace: int) -> int:
        calls.append(user)
        return len(calls)

    @sticky_singleton_acm(key=key)
    @asynccontextmanager
    async def session(user: str, trace: int) -> AsyncGenerator[int]:
        calls.append("enter")
        yield len(calls)
        calls.append("exit")

    async def main() -> None:
        assert [token("u", 1), token("u", 2)] == [1, 1]
        assert await release(token, "v", 1) is False
        assert await release(token, "u", trace=3) is True
        assert token("u", 1) == 2
        async with session("u", 1):
            pass
        assert await release(session, "u", 9) is True
        assert calls == ["u", "u", "enter", "exit"]

    run(main())


def test_after_many_releases_the_others_are_still_found(run: Run) -> None:
    """Releasing every second of many keys leaves the others where they are, for every form of their calls."""

    @singleton
    def value(number: int, name: str = "n") -> object:
        return object()

    @sticky_singleton_acm
    @asynccontextmanager
    async def resource(number: int) -> AsyncGenerator[object]:
        yield object()

    async def enter(number: int) -> object:
        async with resource(number) as entered:
            return entered

    async def main() -> None:
        values = {number: value(number) for number in range(200)}
        entered = {number: await enter(number) for number in range(200)}
        for number in range(0, 200, 2):
            assert await release(value, number) is True
            assert await release(resource, number=number) is True
        for number in range(1, 200, 2):
            assert value(number) is value(number=number, name="n") is values[number]
            assert await enter(number) is entered[number]
        for number in range(0, 200, 2):
            assert value(number) is not values[number]
            assert await enter(number) is not entered[number]

    run(main())


# What else uses it, and the order.


def test_what_is_in_use_is_refused_with_its_users_named(run: Run) -> None:
    """A resource that open ones have acquired stays open and found; the error names them, and after them it can go."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def pool(host: str) -> AsyncGenerator[object]:
        yield object()

    @sticky_singleton_acm
    @asynccontextmanager
    async def users() -> AsyncGenerator[object]:
        async with pool("h") as entered:
            yield entered

    @sticky_singleton_acm
    @asynccontextmanager
    async def orders(number: int) -> AsyncGenerator[object]:
        async with pool("h") as entered:
            yield entered

    async def main() -> None:
        async with users() as entered, orders(7):
            pass
        message = r"pool\('h'\) cannot be released while it is in use by .*users\(\), .*orders\(7\): release what uses it first$"
        with pytest.raises(RuntimeError, match=message):
            await release(pool, "h")
        async with pool("h") as still:
            assert still is entered
        assert await release(users) is True
        with pytest.raises(RuntimeError, match=r"in use by (\S*\.)?orders\(7\):"):
            await release(pool, "h")
        assert [await release(orders, 7), await release(pool, "h")] == [True, True]
        assert resources() == ()

    run(main())


def test_what_it_had_acquired_stays_open(run: Run) -> None:
    """Released out of the middle, a resource is exited alone: older and newer ones stay, and end in their order."""

    async def main() -> list[str]:
        factory = Factory()
        for host in "abc":
            await factory.use(host)
        factory.log.clear()
        assert await release(factory.connect, "b") is True
        assert factory.log == ["exit 1", "exited 1"]
        return factory.log

    assert run(main())[2:] == ["exit 2", "exited 2", "exit 0", "exited 0"]


def test_one_resource_may_release_another(run: Run) -> None:
    """A resource's own code releases what nobody uses, and what it uses itself is refused."""
    errors: list[str] = []

    async def main() -> None:
        factory = Factory()

        @sticky_singleton_acm
        @asynccontextmanager
        async def manager() -> AsyncGenerator[bool]:
            async with factory.connect("mine"):
                try:
                    await release(factory.connect, "mine")
                except RuntimeError as error:
                    errors.append(str(error))
            yield await release(factory.connect, "other")

        await factory.use("other")
        async with manager() as released:
            assert released is True
        assert factory.log == ["entered 0", "entered 1", "exit 0", "exited 0"]

    run(main())
    assert len(errors) == 1
    assert "manager()" in errors[0]


# Two at a time.


def test_two_releases_at_once_wait_for_the_same_exit(run: Run) -> None:
    """Both return True when the one exit is done, not before."""

    async def main() -> None:
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        releases = [asyncio.create_task(release(factory.connect)) for _ in range(3)]
        await connection.exiting.wait()
        await turns()
        late = asyncio.create_task(release(factory.connect))
        await turns()
        assert not any(task.done() for task in (*releases, late))
        connection.may_exit.set()
        assert await asyncio.gather(*releases, late) == [True] * 4
        assert factory.log == ["entered 0", "exit 0", "exited 0"]
        assert await release(factory.connect) is False

    run(main())


@pytest.mark.parametrize("by", ["call", "handle"])
def test_a_call_during_a_release_gets_a_new_resource(run: Run, by: str) -> None:
    """While the old one is on its way out, a call gets a new one at once, and so does an object that an old call gave."""

    async def main() -> None:
        factory = Factory()
        handle = factory.connect()
        async with handle as old:
            pass
        old.may_exit.clear()
        releasing = asyncio.create_task(release(factory.connect))
        await old.exiting.wait()
        async with handle if by == "handle" else factory.connect() as new:
            assert new is not old
        assert not releasing.done()
        assert await factory.use() is new
        old.may_exit.set()
        assert await releasing is True
        assert await factory.use() is new
        assert factory.log == ["entered 0", "exit 0", "entered 1", "exited 0"]

    run(main())


def test_what_was_made_during_a_release_can_be_released_itself(run: Run) -> None:
    """A second release, after a call during the first, exits what that call made, and does not wait for the first."""

    async def main() -> None:
        factory = Factory()
        old = await factory.use()
        old.may_exit.clear()
        first = asyncio.create_task(release(factory.connect))
        await old.exiting.wait()
        await factory.use()
        assert await release(factory.connect) is True
        assert factory.log == ["entered 0", "exit 0", "entered 1", "exit 1", "exited 1"]
        assert not first.done()
        old.may_exit.set()
        assert await first is True
        assert await release(factory.connect) is False

    run(main())


def test_releases_of_different_keys_do_not_wait_for_each_other(run: Run) -> None:
    """A slow exit holds up the release of nothing else."""

    async def main() -> None:
        factory = Factory()
        slow, _ = await factory.use("slow"), await factory.use("quick")
        slow.may_exit.clear()
        releasing = asyncio.create_task(release(factory.connect, "slow"))
        await slow.exiting.wait()
        assert await release(factory.connect, "quick") is True
        assert not releasing.done()
        slow.may_exit.set()
        assert await releasing is True

    run(main())


# While it is being entered.


def test_what_is_being_entered_is_waited_for_and_exited(run: Run) -> None:
    """A release during the enter waits for it, and then exits it; who had waited for it gets its value first."""

    async def main() -> None:
        factory = Factory()
        factory.prepare = lambda connection: connection.may_enter.clear()
        using = asyncio.create_task(factory.use())
        connection = await factory.until_made()
        releasing = asyncio.create_task(release(factory.connect))
        await turns()
        assert not releasing.done()
        connection.may_enter.set()
        assert await releasing is True
        assert await using is connection
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


@pytest.mark.parametrize("by", ["call", "handle"])
def test_a_call_during_the_release_of_what_is_being_entered_gets_a_new_resource(run: Run, by: str) -> None:
    """What is still being entered is on its way out as soon as it is to be released: nobody new gets it."""

    async def main() -> None:
        factory = Factory()
        factory.prepare = lambda connection: connection.may_enter.clear()
        handle = factory.connect()

        async def use_handle() -> Connection:
            async with handle as connection:
                return connection

        using = asyncio.create_task(use_handle())
        old = await factory.until_made()
        releasing = asyncio.create_task(release(factory.connect))
        await turns()
        factory.prepare = lambda _connection: None
        new = asyncio.create_task(use_handle() if by == "handle" else factory.use())
        await turns()
        old.may_enter.set()
        assert await using is old
        assert await releasing is True
        assert await new is not old

    run(main())


def test_a_failing_enter_leaves_nothing_to_exit(run: Run) -> None:
    """If what is to be released fails to enter, those who asked for it get the error, and the release is done."""

    async def main() -> None:
        factory = Factory()

        def prepare(connection: Connection) -> None:
            connection.may_enter.clear()
            connection.enter_error = ValueError("refused")

        factory.prepare = prepare
        using = asyncio.create_task(factory.use())
        connection = await factory.until_made()
        releasing = asyncio.create_task(release(factory.connect))
        await turns()
        connection.may_enter.set()
        with pytest.raises(ValueError, match="refused"):
            await using
        assert await releasing in {True, False}
        assert await release(factory.connect) is False
        assert factory.log == []

    run(main())


def test_two_releases_of_what_is_being_entered(run: Run) -> None:
    """Two releases during the enter wait for the same exit; cancelling the first does not leave the second waiting."""

    async def main() -> None:
        factory = Factory()
        factory.prepare = lambda connection: connection.may_enter.clear()
        using = asyncio.create_task(factory.use())
        connection = await factory.until_made()
        first = asyncio.create_task(release(factory.connect))
        await turns()
        second = asyncio.create_task(release(factory.connect))
        await turns()
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        connection.may_enter.set()
        assert await using is connection
        assert await asyncio.wait_for(second, 10) is True  # or it would hang, if the first were needed for it
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


def test_a_release_of_what_is_being_entered_that_is_cancelled_still_happens(run: Run) -> None:
    """What was to be released is not found any more and not left open either: as soon as it is entered, it is exited."""

    async def main() -> None:
        factory = Factory()
        factory.prepare = lambda connection: connection.may_enter.clear()
        using = asyncio.create_task(factory.use())
        connection = await factory.until_made()
        releasing = asyncio.create_task(release(factory.connect))
        await turns()
        releasing.cancel()
        await asyncio.wait([releasing])
        assert releasing.cancelled()
        connection.may_enter.set()
        assert await using is connection
        await turns()
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


# Cancelled, and failing.


def test_a_cancelled_release_leaves_the_exit_to_go_on(run: Run) -> None:
    """Cancelled half-way, the exit goes on by itself, once; the next call gets a new resource."""

    async def main() -> None:
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        releasing = asyncio.create_task(release(factory.connect))
        await connection.exiting.wait()
        releasing.cancel()
        await asyncio.wait([releasing])
        assert releasing.cancelled()
        assert await factory.use() is not connection
        connection.may_exit.set()
        await turns()
        assert factory.log == ["entered 0", "exit 0", "entered 1", "exited 0"]

    run(main())


def test_after_a_cancelled_release_there_is_nothing_more_to_release(run: Run) -> None:
    """A release after the exit that a cancelled one had begun finds nothing."""

    async def main() -> None:
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        releasing = asyncio.create_task(release(factory.connect))
        await connection.exiting.wait()
        releasing.cancel()
        await asyncio.wait([releasing])
        connection.may_exit.set()
        await turns()
        assert factory.log[-1] == "exited 0"
        assert await release(factory.connect) is False

    run(main())


def test_a_release_after_a_cancelled_one_waits_for_the_same_exit(run: Run) -> None:
    """While the exit that a cancelled release had begun goes on, another release waits for it, as one at the same time would."""

    async def main() -> None:
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        first = asyncio.create_task(release(factory.connect))
        await connection.exiting.wait()
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(release(factory.connect))
        await turns()
        assert not second.done()
        connection.may_exit.set()
        assert await second is True
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


def test_a_cancelled_release_loses_nothing_at_the_end_of_the_loop(run: Run) -> None:
    """The end of the loop waits for an exit that a cancelled release had begun."""

    async def main() -> list[str]:
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        releasing = asyncio.create_task(release(factory.connect))
        await connection.exiting.wait()
        releasing.cancel()
        await asyncio.wait([releasing])
        connection.may_exit.set()
        return factory.log

    assert run(main()) == ["entered 0", "exit 0", "exited 0"]


@pytest.mark.parametrize("error", [ValueError("exit"), KeyError("exit"), SystemExit(3)])
def test_an_error_of_the_exit_is_raised_as_it_is(run: Run, error: BaseException) -> None:
    """All who release it get the very error of the exit, nothing is reported, and what failed is not found any more."""
    reported: list[dict[str, Any]] = []

    async def released(factory: Factory) -> bool | BaseException:
        try:
            return await release(factory.connect)
        except BaseException as raised:
            return raised

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        factory = Factory()
        connection = await factory.use()
        connection.exit_error = error
        results = await asyncio.gather(released(factory), released(factory))
        assert all(result is error for result in results)
        assert len(results) == 2
        assert await release(factory.connect) is False
        assert await factory.use() is not connection

    run(main())
    assert reported == []


def test_an_error_of_an_exit_whose_release_was_cancelled_is_reported(run: Run) -> None:
    """If nobody waits for the exit any more, its error goes to the loop's exception handler, with the call named."""
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        connection.exit_error = ValueError("late")
        releasing = asyncio.create_task(release(factory.connect))
        await connection.exiting.wait()
        releasing.cancel()
        await asyncio.wait([releasing])
        connection.may_exit.set()
        await turns()
        assert [str(context["exception"]) for context in reported] == ["late"]
        assert "connect" in reported[0]["message"]

    run(main())


def test_a_resource_that_has_died_is_not_there_to_be_released(run: Run) -> None:
    """What died while it was held has been forgotten, and `release` finds nothing."""
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        die = asyncio.Event()

        @sticky_singleton_acm
        @asynccontextmanager
        async def mortal() -> AsyncGenerator[None]:
            async def fail() -> None:
                await die.wait()
                raise ValueError

            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                yield

        async with mortal():
            pass
        die.set()
        while not reported:
            await asyncio.sleep(0)
        assert await release(mortal) is False

    run(main())


# From inside.


@pytest.mark.parametrize("moment", ["enter", "exit", "task", "exit of a release"])
def test_a_release_from_inside_is_refused(run: Run, moment: str) -> None:
    """Called from a resource's own enter, exit or task, which it would have to wait for, it raises and nothing hangs."""
    errors: list[str] = []
    itself: list[Callable[[], Any]] = []

    async def attempt() -> None:
        try:
            await release(itself[0])
        except RuntimeError as error:
            errors.append(str(error))

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[str]:
        if moment == "enter":
            await attempt()
        if moment == "task":
            await asyncio.create_task(attempt())
        yield "value"
        if moment.startswith("exit"):
            await attempt()

    itself.append(make)

    async def main() -> None:
        async with make() as value:
            assert value == "value"
        if moment == "exit of a release":
            assert await release(make) is True

    run(main())
    if moment == "exit":
        assert errors == []  # the end of the loop has forgotten it, so there is nothing to release
    else:
        assert len(errors) == 1
        assert "release() was called from inside" in errors[0]
        assert "make()" in errors[0]


def test_a_release_by_what_the_enter_waits_for_is_refused(run: Run) -> None:
    """A release by B's enter of the A whose enter waits for B could never end: it is refused, and A stays as it is."""
    errors: list[str] = []
    factories: dict[str, Callable[[], Any]] = {}

    @sticky_singleton_acm
    @asynccontextmanager
    async def outer() -> AsyncGenerator[str]:
        async with inner() as value:
            yield value

    @sticky_singleton_acm
    @asynccontextmanager
    async def inner() -> AsyncGenerator[str]:
        try:
            await release(factories["outer"])
        except RuntimeError as error:
            errors.append(str(error))
        yield "value"

    factories["outer"] = outer

    async def main() -> None:
        async with outer() as value:
            assert value == "value"
        assert len(errors) == 1
        assert [resource.name.rpartition(".")[2] for resource in resources()] == ["inner()", "outer()"]
        assert await release(outer) is True

    run(main())


def test_a_release_by_a_coroutine_that_the_enter_waits_for_is_refused(run: Run) -> None:
    """So is the release of A by a shared coroutine that A's enter waits for."""
    errors: list[str] = []
    factories: dict[str, Callable[[], Any]] = {}
    entering = asyncio.Event()

    @singleton
    async def token() -> str:
        await entering.wait()
        await turns()
        try:
            await release(factories["make"])
        except RuntimeError as error:
            errors.append(str(error))
        return "t"

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[str]:
        entering.set()
        yield await token()

    factories["make"] = make

    async def main() -> None:
        first = asyncio.create_task(awaited(token()))
        await turns()
        async with make() as value:
            assert value == "t"
        await first
        first.result()
        assert await release(token) is True
        assert await release(make) is True
        async with make() as value:
            assert value == "t"

    run(main())
    assert len(errors) == 2  # the second run is begun by the enter itself
    assert "this would wait for ever" in errors[0]
    assert "release() was called from inside" in errors[1]


async def awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def test_a_callback_may_release(run: Run) -> None:
    """An `atexit` callback may release what is still open, which is then not exited once more."""

    async def main() -> list[str]:
        factory = Factory()
        await factory.use()

        async def callback() -> None:
            factory.log.append(f"released: {await release(factory.connect)}")

        atexit.register(callback)
        return factory.log

    assert run(main()) == ["entered 0", "exit 0", "exited 0", "released: True"]


# Other loops, and wrong arguments.


def test_a_second_loop_keeps_its_own(run: Run) -> None:
    """`release` on one loop finds nothing of another, and leaves it alone."""
    log: list[str] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[None]:
        log.append("enter")
        yield
        log.append("exit")

    async def other() -> bool:
        return await release(make)

    async def main() -> None:
        async with make():
            pass
        assert await asyncio.to_thread(run, other()) is False
        assert log == ["enter"]
        assert await release(make) is True

    run(main())
    assert run(other()) is False
    assert log == ["enter", "exit"]


def test_without_a_loop() -> None:
    """Driven where no loop runs, it raises."""

    @singleton
    def token() -> object:
        return object()

    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        release(token).send(None)


def test_it_attaches_nothing_to_a_loop_that_was_not_used(run: Run) -> None:
    """Asking leaves a loop as it was."""

    @singleton
    def token() -> object:
        return object()

    async def main() -> None:
        before = dict(vars(asyncio.get_running_loop()))
        assert await release(token) is False
        assert vars(asyncio.get_running_loop()).keys() <= before.keys()

    run(main())


@pytest.mark.parametrize("what", [int, print, len, lambda: 1, asynccontextmanager, functools.partial(int), "text", None, 3])
def test_what_was_not_wrapped_is_refused(run: Run, what: Any) -> None:
    """Anything but what the two decorators return is a `TypeError` that says what is needed."""

    async def main() -> None:
        with pytest.raises(TypeError, match=r"must be what singleton\(\) or sticky_singleton_acm\(\) has returned, not "):
            await release(what)

    run(main())


def test_an_argument_that_can_be_no_part_of_a_key_is_refused(run: Run) -> None:
    """As by a call: a `TypeError` that names the parameter."""
    unhashable: Any = memoryview(bytearray(b"x"))

    @singleton
    def token(user: object) -> object:
        return object()

    async def main() -> None:
        token("u")
        with pytest.raises((TypeError, ValueError), match=r"'user' of .*token"):
            await release(token, unhashable)

    run(main())


def test_after_aclose_there_is_nothing_to_release(run: Run) -> None:
    """`aclose` has ended and forgotten all."""

    async def main() -> None:
        factory = Factory()
        await factory.use()
        await aclose()
        assert await release(factory.connect) is False
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


def test_a_release_and_aclose_at_once(run: Run) -> None:
    """Of a release and `aclose` at the same time, both return after the one exit."""

    async def main() -> None:
        factory = Factory()
        connection = await factory.use()
        connection.may_exit.clear()
        releasing = asyncio.create_task(release(factory.connect))
        await connection.exiting.wait()
        closing = asyncio.create_task(aclose())
        await turns()
        assert not closing.done()
        connection.may_exit.set()
        assert await releasing is True
        await closing
        assert factory.log == ["entered 0", "exit 0", "exited 0"]

    run(main())


def test_what_was_entered_by_itself_is_not_touched(run: Run) -> None:
    """`enter` and `enter_once` are no factories: what they have entered stays open."""

    async def main() -> None:
        factory = Factory()
        own = Connection("own", factory.log)
        assert await enter(own) is await enter_once(own) is own
        await factory.use()
        assert await release(factory.connect) is True
        assert "exit own" not in factory.log

    run(main())
