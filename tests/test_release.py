"""`release` and `release_all`: letting go of what a wrapped factory has made, before the loop ends."""

from __future__ import annotations

import asyncio
import functools
import pickle
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from asyncio_loop_local import (
    aclose,
    atexit,
    enter,
    enter_once,
    release,
    release_all,
    resources,
    singleton,
    sticky_singleton_acm,
)
from asyncio_loop_local._loop_state import loop_state
from asyncio_loop_local._wait_graph import running_node
from conftest import Run
from recording import Factory, Recorded, cancel, enters, exits, on_each_loop, reports_of_this_loop, turns, use

ONE_LIFE = [*enters("0"), *exits("0")]


async def begin_release(factory: Factory, host: str = "h") -> tuple[Recorded, asyncio.Task[bool]]:
    """A resource on its way out, which waits in its exit, and the task that releases it."""
    resource = await factory.use(host)
    resource.may_exit.clear()
    releasing = asyncio.create_task(release(factory.make, host))
    await resource.exiting.wait()
    return resource, releasing


async def begin_enter(factory: Factory) -> tuple[Recorded, asyncio.Task[Recorded]]:
    """A resource that waits in its enter, and the task that uses it."""
    factory.enter_waits = True
    using = asyncio.create_task(factory.use())
    resource = await factory.until_entering()
    factory.enter_waits = False
    return resource, using


async def begin(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """A task that has come to where it waits."""
    task = asyncio.ensure_future(awaitable)
    await turns()
    assert not task.done()
    return task


# What it returns, and what it finds.


@on_each_loop
async def test_it_exits_and_forgets_a_resource(log: list[str]) -> list[str]:
    """A resource is exited before `release` returns True, and the next call makes a new one, exited at the loop's end."""
    factory = Factory(log)
    resource = await factory.use()
    assert await release(factory.make) is True
    assert log == ONE_LIFE
    assert await factory.use() is not resource
    return [*ONE_LIFE, *enters("1"), *exits("1")]


@on_each_loop
async def test_it_returns_false_if_there_was_nothing() -> None:
    """On a fresh loop, for other arguments, a second time, and after `aclose`, there is nothing to release."""

    @singleton
    def token(user: str) -> object:
        return object()

    factory = Factory()
    before = dict(vars(asyncio.get_running_loop()))
    assert [await release(factory.make), await release(token, "u")] == [False, False]
    assert vars(asyncio.get_running_loop()).keys() <= before.keys()  # asking leaves a loop as it was
    await factory.use()
    token("u")
    assert [await release(factory.make, "other"), await release(token, "other")] == [False, False]
    assert [await release(factory.make), await release(factory.make)] == [True, False]
    assert [await release(token, "u"), await release(token, "u")] == [True, False]
    assert factory.log == ONE_LIFE
    await factory.use()
    await aclose()
    assert await release(factory.make) is False


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("h",), {}), (("h", 80), {}), ((), {"port": 80}), ((), {"port": 80, "host": "h"})]
)
@on_each_loop
async def test_every_form_of_a_call_finds_it(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The arguments are a call's: by position, by name, in any order, defaults given or not."""
    factory = Factory()
    await factory.use()
    assert [await release(factory.make, *args, **kwargs) for _ in range(2)] == [True, False]


@on_each_loop
async def test_what_counts_by_value_finds_it() -> None:
    """A dict that is equal to the one of the call releases what that call made; types are told apart, as by a call."""

    @singleton
    def client(headers: dict[str, Any]) -> object:
        return object()

    kept = client({"a": 1})
    assert await release(client, {"a": True}) is False
    assert client({"a": 1}) is kept
    assert await release(client, headers={"a": 1}) is True
    assert client({"a": 1}) is not kept


@on_each_loop
async def test_a_singleton_is_forgotten() -> None:
    """What `singleton` has made is let go, and nothing of it is called."""
    client = singleton(Recorded)

    before = client()
    assert await release(client) is True
    assert client() is not before
    assert before.log == []


@on_each_loop
async def test_a_shared_coroutine_is_forgotten() -> None:
    """A shared coroutine is forgotten, done or under way; those who hold the object still get its result."""
    calls: list[str] = []

    may_end = asyncio.Event()

    @singleton
    async def token() -> int:
        calls.append("called")
        number = len(calls)
        await may_end.wait()
        return number

    old = await begin(token())
    assert await release(token) is True
    new = token()
    may_end.set()
    assert [await old, await new] == [1, 2]
    assert await release(token) is True
    assert [await new, await token()] == [2, 3]


@pytest.mark.parametrize("is_entered", [True, False])
@on_each_loop
async def test_a_kept_object_of_the_factory_begins_anew(is_entered: bool) -> None:
    """The object of an earlier call, entered or not, enters a new resource after the release, as a new call does."""
    factory = Factory()
    handle = factory.make()
    if is_entered:
        await use(handle)
    assert [await release(factory.make), await release(factory.make)] == [True, False]
    assert factory.log == (ONE_LIFE if is_entered else [])
    assert await use(handle) is await factory.use() is factory.made[1]


@on_each_loop
async def test_methods() -> None:
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
        def session(self) -> Recorded:
            return Recorded()

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
    session, others = await use(one.session()), await use(other.session())
    assert await release(one.session) is True
    assert await use(one.session()) is not session
    assert await use(other.session()) is others


@on_each_loop
async def test_with_a_key_of_ones_own() -> None:
    """With `key=…` that key finds it, whatever the other arguments are."""

    def key(user: str, trace: int) -> str:
        return user

    @singleton(key=key)
    def token(user: str, trace: int) -> object:
        return object()

    @sticky_singleton_acm(key=key)
    def session(user: str, trace: int) -> Recorded:
        return Recorded()

    before = token("u", 1)
    assert token("u", 2) is before
    assert await release(token, "v", 1) is False
    assert await release(token, "u", trace=3) is True
    assert token("u", 1) is not before
    resource = await use(session("u", 1))
    assert await release(session, "u", 9) is True
    assert resource.log == [*enters("r"), *exits("r")]


@on_each_loop
async def test_after_many_releases_the_others_are_still_found() -> None:
    """Releasing every second of many keys leaves the others where they are, for every form of their calls."""

    @singleton
    def value(number: int, name: str = "n") -> object:
        return object()

    @sticky_singleton_acm
    def resource(number: int) -> Recorded:
        return Recorded()

    values = {number: value(number) for number in range(200)}
    entered = {number: await use(resource(number)) for number in range(200)}
    for number in range(0, 200, 2):
        assert await release(value, number) is True
        assert await release(resource, number=number) is True
    for number in range(200):
        assert value(number) is value(number=number, name="n")
        assert (value(number) is values[number]) == (number % 2)
        assert (await use(resource(number)) is entered[number]) == (number % 2)


# What else uses it, and the order.


@on_each_loop
async def test_what_is_in_use_is_refused_with_its_users_named() -> None:
    """A resource that open ones have acquired stays open and found; the error names them, and after them it can go."""
    factory = Factory()

    @sticky_singleton_acm
    @asynccontextmanager
    async def users(number: int) -> AsyncGenerator[object]:
        yield await factory.use()

    resource = await use(users(1))
    assert await use(users(2)) is resource
    call = r"make\('h', 80\)"
    assert (await use(factory.make())) is resource
    message = rf"{call} cannot be released while it is in use by .*users\(1\), .*users\(2\): release what uses it first$"
    with pytest.raises(RuntimeError, match=message):
        await release(factory.make)
    assert await factory.use() is resource
    assert await release(users, 1) is True
    with pytest.raises(RuntimeError, match=r"in use by (\S*\.)?users\(2\):"):
        await release(factory.make)
    assert [await release(users, 2), await release(factory.make)] == [True, True]
    assert resources() == ()


@on_each_loop
async def test_others_stay_open_in_their_order(log: list[str]) -> list[str]:
    """A resource is exited alone: older and newer ones, and what `enter` and `enter_once` entered, end later, in their order."""
    factory = Factory(log)
    own = Recorded(factory.log, "own")
    assert await enter(own) is await enter_once(own) is own
    for host in "abc":
        await factory.use(host)
    factory.log.clear()
    assert await release(factory.make, "b") is True
    assert factory.log == exits("1")
    return exits("1", "2", "0", "own", "own")


@on_each_loop
async def test_one_resource_may_release_another() -> None:
    """A resource's own code releases what nobody uses, and what it uses itself is refused."""
    factory = Factory()

    @sticky_singleton_acm
    @asynccontextmanager
    async def manager() -> AsyncGenerator[bool]:
        await factory.use("mine")
        with pytest.raises(RuntimeError, match=r"manager\(\)"):
            await release(factory.make, "mine")
        yield await release(factory.make, "other")

    await factory.use("other")
    assert await use(manager()) is True
    assert factory.log == [*enters("0", "1"), *exits("0")]


@on_each_loop
async def test_a_callback_may_release(log: list[str]) -> list[str]:
    """An `atexit` callback may release what is still open, which is then not exited once more."""
    factory = Factory(log)
    await factory.use()

    async def callback() -> None:
        factory.log.append(f"released: {await release(factory.make)}")

    atexit.register(callback)
    return [*ONE_LIFE, "released: True"]


# Two at a time.


@on_each_loop
async def test_two_releases_at_once_wait_for_the_same_exit() -> None:
    """Both return True when the one exit is done, not before; so does `aclose`."""
    factory = Factory()
    resource, releasing = await begin_release(factory)
    late, closing = await begin(release(factory.make)), await begin(aclose())
    assert not releasing.done()
    resource.may_exit.set()
    assert [await releasing, await late, await closing] == [True, True, None]
    assert factory.log == ONE_LIFE
    assert await release(factory.make) is False


@pytest.mark.parametrize("by", ["call", "handle"])
@on_each_loop
async def test_a_call_during_a_release_gets_a_new_resource(by: str) -> None:
    """While the old one exits, a call, or an object of an old call, gets a new one at once, which can be released itself."""
    factory = Factory()
    handle = factory.make()
    old, releasing = await begin_release(factory)
    new = await use(handle if by == "handle" else factory.make())
    assert new is factory.made[1]
    assert await factory.use() is new
    assert not releasing.done()
    if by == "call":
        assert await release(factory.make) is True
        assert not releasing.done()
    old.may_exit.set()
    assert await releasing is True
    if by == "handle":
        assert await factory.use() is new
        assert factory.log == [*enters("0"), "exiting 0", *enters("1"), "exited 0"]
    else:
        assert await release(factory.make) is False
        assert factory.log == [*enters("0"), "exiting 0", *enters("1"), *exits("1"), "exited 0"]


@on_each_loop
async def test_releases_of_different_keys_do_not_wait_for_each_other() -> None:
    """A slow exit holds up the release of nothing else."""
    factory = Factory()
    slow, releasing = await begin_release(factory, "slow")
    await factory.use("quick")
    assert await release(factory.make, "quick") is True
    assert not releasing.done()
    slow.may_exit.set()
    assert await releasing is True


# While it is being entered.


@pytest.mark.parametrize("cancelled", [[], [0], [1], [0, 1]])
@on_each_loop
async def test_what_is_being_entered_is_waited_for_and_exited(cancelled: list[int]) -> None:
    """Releases during the enter wait for the same exit after it, which comes though one is cancelled, or both.

    Nothing is reported: what is released has not died.
    """
    reports = reports_of_this_loop()
    factory = Factory()
    resource, using = await begin_enter(factory)
    releases = [await begin(release(factory.make)) for _ in range(2)]
    for each in cancelled:
        await cancel(releases[each])
    resource.may_enter.set()
    assert await using is resource
    await turns()
    assert factory.log == ONE_LIFE
    assert [each.result() for each in releases if not each.cancelled()] == [True] * (2 - len(cancelled))
    assert reports == []


@pytest.mark.parametrize("by", ["call", "handle"])
@on_each_loop
async def test_a_call_during_the_release_of_what_is_being_entered_gets_a_new_resource(by: str) -> None:
    """What is still being entered is on its way out as soon as it is to be released: nobody new gets it."""
    factory = Factory()
    handle = factory.make()
    old, using = factory.made[0], asyncio.create_task(use(handle))
    old.may_enter.clear()
    await old.entering.wait()
    releasing = await begin(release(factory.make))
    new = asyncio.create_task(use(handle if by == "handle" else factory.make()))
    await turns()
    old.may_enter.set()
    assert await using is old
    assert await releasing is True
    assert await new is factory.made[1]


@on_each_loop
async def test_a_failing_enter_leaves_nothing_to_exit() -> None:
    """If what is to be released fails to enter, those who asked for it get the error, and the release is done."""
    factory = Factory()
    resource, using = await begin_enter(factory)
    resource.enter_error = ValueError("refused")
    releasing = await begin(release(factory.make))
    resource.may_enter.set()
    with pytest.raises(ValueError, match="refused"):
        await using
    assert await releasing in {True, False}
    assert await release(factory.make) is False
    assert factory.log == ["entering 0"]


# Cancelled, and failing.


@on_each_loop
async def test_a_cancelled_release_leaves_the_exit_to_go_on() -> None:
    """Cancelled half-way, the exit goes on by itself, once; the next call gets a new resource."""
    factory = Factory()
    resource, releasing = await begin_release(factory)
    await cancel(releasing)
    assert await factory.use() is not resource
    resource.may_exit.set()
    await turns()
    assert factory.log == [*enters("0"), "exiting 0", *enters("1"), "exited 0"]


@on_each_loop
async def test_a_release_after_a_cancelled_one_waits_for_the_same_exit() -> None:
    """While the exit that a cancelled release had begun goes on, another release waits for it; after it there is nothing."""
    factory = Factory()
    for is_over in (False, True):
        resource, releasing = await begin_release(factory)
        await cancel(releasing)
        second = None if is_over else await begin(release(factory.make))
        resource.may_exit.set()
        if second is None:
            await turns()
            assert await release(factory.make) is False
        else:
            assert await second is True
    assert factory.log == [*ONE_LIFE, *enters("1"), *exits("1")]


@on_each_loop
async def test_a_cancelled_release_loses_nothing_at_the_end_of_the_loop(log: list[str]) -> list[str]:
    """The end of the loop waits for an exit that a cancelled release had begun."""
    factory = Factory(log)
    resource, releasing = await begin_release(factory)
    await cancel(releasing)
    resource.may_exit.set()
    return ONE_LIFE


@pytest.mark.parametrize("error", [ValueError("exit"), KeyError("exit"), SystemExit(3)])
def test_an_error_of_the_exit_is_raised_as_it_is(run: Run, error: BaseException) -> None:
    """All who release it get the very error of the exit, nothing is reported, and what failed is not found any more."""

    async def main() -> list[dict[str, Any]]:
        reports = reports_of_this_loop()
        factory = Factory()
        resource = await factory.use()
        resource.exit_error = error

        async def released() -> bool | BaseException:
            try:
                return await release(factory.make)
            except BaseException as raised:
                return raised

        results = await asyncio.gather(released(), released())
        assert [result is error for result in results] == [True, True]
        assert await release(factory.make) is False
        assert await factory.use() is not resource
        return reports

    assert run(main()) == []


@on_each_loop
async def test_an_error_of_an_exit_whose_release_was_cancelled_is_reported() -> None:
    """If nobody waits for the exit any more, its error goes to the loop's exception handler, with the call named."""
    reports = reports_of_this_loop()
    resource, releasing = await begin_release(Factory())
    resource.exit_error = ValueError("late")
    await cancel(releasing)
    resource.may_exit.set()
    await turns()
    (report,) = reports
    assert report["exception"] is resource.exit_error
    assert "make('h', 80)" in report["message"]


@on_each_loop
async def test_a_resource_that_has_died_is_not_there_to_be_released() -> None:
    """What died while it was held has been forgotten, and `release` finds nothing."""
    reports = reports_of_this_loop()
    factory = Factory()
    (await factory.use()).die()
    while not reports:
        await asyncio.sleep(0)
    assert await release(factory.make) is False


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
        assert await use(make()) == "value"
        if moment == "exit of a release":
            assert await release(make) is True

    run(main())
    if moment == "exit":
        assert errors == []  # the end of the loop has forgotten it, so there is nothing to release
    else:
        (error,) = errors
        assert "release() was called from inside" in error
        assert "make()" in error


@on_each_loop
async def test_a_release_by_what_the_enter_waits_for_is_refused() -> None:
    """A release by B's enter of the A whose enter waits for B could never end: it is refused, and A stays as it is."""
    factories: list[Callable[[], Any]] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def outer() -> AsyncGenerator[str]:
        yield await use(inner())

    @sticky_singleton_acm
    @asynccontextmanager
    async def inner() -> AsyncGenerator[str]:
        with pytest.raises(RuntimeError):
            await release(factories[0])
        yield "value"

    factories.append(outer)

    assert await use(outer()) == "value"
    assert [resource.name.rpartition(".")[2] for resource in resources()] == ["inner()", "outer()"]
    assert await release(outer) is True


def test_a_release_by_a_coroutine_that_the_enter_waits_for_is_refused(run: Run) -> None:
    """So is the release of A by a shared coroutine that A's enter waits for."""
    errors: list[str] = []
    factories: list[Callable[[], Any]] = []
    entering = asyncio.Event()

    @singleton
    async def token() -> str:
        await entering.wait()
        await turns()
        try:
            await release(factories[0])
        except RuntimeError as error:
            errors.append(str(error))
        return "t"

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[str]:
        entering.set()
        yield await token()

    factories.append(make)

    async def main() -> None:
        first = await begin(token())
        assert await use(make()) == "t"
        assert await first == "t"
        assert await release(token) is True
        assert await release(make) is True
        assert await use(make()) == "t"

    run(main())
    by_run, from_inside = errors  # the second run is begun by the enter itself
    assert "this would wait for ever" in by_run
    assert "release() was called from inside" in from_inside


# Other loops, and wrong arguments.


def test_a_second_loop_keeps_its_own(run: Run) -> None:
    """`release` on one loop finds nothing of another, at the same time or later, and leaves it alone."""
    factory = Factory()

    async def other() -> bool:
        return await release(factory.make)

    async def main() -> None:
        await factory.use()
        assert await asyncio.to_thread(run, other()) is False
        assert factory.log == enters("0")
        assert await release(factory.make) is True

    run(main())
    assert run(other()) is False
    assert factory.log == ONE_LIFE


@pytest.mark.parametrize(
    "what", [int, print, len, lambda: 1, asynccontextmanager, functools.partial(int), Recorded, "t", None, 3]
)
@on_each_loop
async def test_what_was_not_wrapped_is_refused(what: Any) -> None:
    """Anything but what the two decorators return is a `TypeError` that says what is needed."""
    message = r"argument 'factory' of release\(\) must be what singleton\(\) or sticky_singleton_acm\(\) has returned, not "
    with pytest.raises(TypeError, match=message):
        await release(what)


@on_each_loop
async def test_an_argument_that_can_be_no_part_of_a_key_is_refused() -> None:
    """As by a call: a `TypeError` that names the parameter."""
    unhashable: Any = memoryview(bytearray(b"x"))

    @singleton
    def token(user: object) -> object:
        return object()

    token("u")
    with pytest.raises((TypeError, ValueError), match=r"'user' of .*token"):
        await release(token, unhashable)


# All of a factory.


class Pool:
    """A sticky factory whose resources may use each other, and a record of their lives."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.log: list[str] = [] if log is None else log
        self.errors: dict[str, BaseException] = {}
        self.may_exit = asyncio.Event()
        self.may_exit.set()
        self.exiting = asyncio.Event()
        self.make = sticky_singleton_acm(self._make)

    @asynccontextmanager
    async def _make(self, name: str, uses: str = "") -> AsyncGenerator[str]:
        for each in uses:
            await use(self.make(each))
        yield name
        self.exiting.set()
        self.log.append(f"exiting {name}")
        await self.may_exit.wait()
        self.log.append(f"exited {name}")
        if name in self.errors:
            raise self.errors[name]

    async def use(self, *names: str) -> None:
        for each in names:
            await use(self.make(each))


@sticky_singleton_acm
@asynccontextmanager
async def user_of(factory: Factory, *hosts: str) -> AsyncGenerator[list[Recorded]]:
    yield [await factory.use(host) for host in hosts]


@on_each_loop
async def test_release_all_exits_and_forgets_all_that_the_factory_has_made(log: list[str]) -> list[str]:
    """All of it exits, newest first, one after the other, and is counted; calls make anew; another factory's stays open."""
    factory, other = Factory(log), Factory()
    assert await release_all(factory.make) == 0
    kept = [await factory.use(host) for host in "abc"]
    await other.use()
    assert await release_all(factory.make) == 3
    assert log == [*enters("0", "1", "2"), *exits("2", "1", "0")]
    assert await release_all(factory.make) == 0
    assert await factory.use("a") not in kept
    assert [each.name.rpartition(".")[2] for each in resources()] == ["_make('h', 80)", "_make('a', 80)"]
    return [*enters("0", "1", "2"), *exits("2", "1", "0"), *enters("3"), *exits("3")]


@on_each_loop
async def test_release_all_of_every_kind_of_value() -> None:
    """Plain values, coroutines, values with `close=` and what was never entered count alike; what has `close=` is closed."""
    closed: list[str] = []

    @singleton
    def plain(name: str) -> object:
        return object()

    @singleton
    async def coroutine(name: str) -> object:
        return object()

    @singleton(close=closed.append)
    def with_close(name: str) -> str:
        return name

    @singleton(close=closed.append)
    async def coroutine_with_close(name: str) -> str:
        return name

    factory = Factory()
    before = plain("a"), await coroutine("a")
    never_awaited = coroutine("b"), coroutine_with_close("b")
    with_close("a")
    with_close("b")
    await coroutine_with_close("c")
    factory.make("never entered")
    all_of_them: list[Any] = [plain, coroutine, with_close, coroutine_with_close, factory.make]
    assert [await release_all(each) for each in all_of_them] == [1, 2, 2, 2, 1]
    assert closed == ["b", "a", "c"]
    assert factory.log == []
    assert plain("a") is not before[0]
    assert await coroutine("a") is not before[1]
    del never_awaited


@on_each_loop
async def test_release_all_of_methods() -> None:
    """By the function in the class for all instances; by a class method or a static one; an instance's is refused."""

    class Service:
        @singleton
        def client(self) -> object:
            return object()

        @classmethod
        @singleton
        def of_class(cls) -> object:
            return object()

        @staticmethod
        @singleton
        def static(port: int) -> object:
            return object()

    class Subservice(Service):
        pass

    services = [Service(), Subservice()]
    for each in services:
        each.client()
        each.of_class()
        each.static(1)
    with pytest.raises(TypeError, match=r"release_all\(\) must not be bound to an instance, .*use release\(\) for"):
        await release_all(services[0].client)
    assert [await release_all(each) for each in (Service.client, Subservice.of_class, Service.static)] == [2, 2, 1]


@on_each_loop
async def test_what_uses_another_of_the_factory_exits_first() -> None:
    """Older ones that use newer ones exit before these; nothing is in the way but what is of another factory."""
    pool = Pool()
    old = pool.make("old", "xy")
    await pool.use("z")
    await use(old)
    assert await release_all(pool.make) == 4
    assert pool.log == [f"{step} {name}" for name in ("old", "y", "x", "z") for step in ("exiting", "exited")]


@on_each_loop
async def test_release_all_of_what_others_use_is_refused_and_nothing_is_forgotten() -> None:
    """If one of another factory uses any, both are named, and all stay as they were, also those that nobody uses."""
    factory = Factory()
    before = [await factory.use(host) for host in "abc"]
    await use(user_of(factory, "b"))
    message = r"make\('b', 80\) cannot be released while it is in use by user_of\(.*\): release what uses it first$"
    with pytest.raises(RuntimeError, match=message):
        await release_all(factory.make)
    assert [await factory.use(host) for host in "abc"] == before
    assert [each.is_open for each in before] == [True] * 3
    assert await release_all(user_of) == 1
    assert await release_all(factory.make) == 3


@on_each_loop
async def test_all_exits_run_and_all_errors_are_raised() -> None:
    """After the last exit there is one group, with a note on each error of whose it is; what failed is not found any more."""
    reports = reports_of_this_loop()
    pool = Pool()
    await pool.use("a", "b", "c")
    pool.errors = {"a": ValueError("of a"), "c": KeyError("of c")}
    with pytest.raises(ExceptionGroup, match=r"errors at the exits of what .*make\(\) had made") as caught:
        await release_all(pool.make)
    assert caught.value.exceptions == (pool.errors["c"], pool.errors["a"])
    assert [each.__notes__ for each in caught.value.exceptions] == [
        [f"raised by the exit of {pool.make.__qualname__}('{name}')"] for name in "ca"
    ]
    assert pool.log == [f"{step} {name}" for name in "cba" for step in ("exiting", "exited")]
    assert await release_all(pool.make) == 0
    assert reports == []


@on_each_loop
async def test_the_errors_can_be_shown_and_pickled() -> None:
    """The group with the errors of the exits shows them in its `repr`, and a pickle of it has them."""
    pool = Pool()
    await pool.use("a")
    pool.errors = {"a": ValueError("of a")}
    with pytest.raises(ExceptionGroup) as caught:
        await release_all(pool.make)
    assert "[ValueError('of a')]" in repr(caught.value)
    assert [*map(str, pickle.loads(pickle.dumps(caught.value)).exceptions)] == ["of a"]


@on_each_loop
async def test_an_error_that_is_no_exception() -> None:
    """A `SystemExit` of an exit is in the group too, and keeps none of the others from running."""
    pool = Pool()
    await pool.use("a", "b")
    pool.errors = {"b": SystemExit(3)}
    with pytest.raises(BaseExceptionGroup) as caught:
        await release_all(pool.make)
    assert caught.value.exceptions == (pool.errors["b"],)
    assert pool.log[-1] == "exited a"


@pytest.mark.parametrize("uses", ["", "ab"])
@on_each_loop
async def test_two_at_a_time_wait_for_the_same_exits(uses: str) -> None:
    """Both count the same, and get the same errors, when the last exit is done; each exit runs once, in the same order."""
    pool = Pool()
    await pool.use("a", "b")
    await use(pool.make("c", uses))
    pool.may_exit.clear()
    pool.errors = {"a": ValueError("of a")}
    first, second = await begin(release_all(pool.make)), await begin(release_all(pool.make))
    pool.may_exit.set()
    results: list[Any] = [*await asyncio.gather(first, second, return_exceptions=True)]
    assert [each.exceptions for each in results] == [(pool.errors["a"],)] * 2
    assert len(pool.errors["a"].__notes__) == 1
    assert pool.log == [f"{step} {name}" for name in "cba" for step in ("exiting", "exited")]
    pool.errors = {}
    await pool.use("a", "b")
    assert [*await asyncio.gather(release_all(pool.make), release_all(pool.make))] == [2, 2]
    assert pool.log[6:] == [f"{step} {name}" for name in "ba" for step in ("exiting", "exited")]


@on_each_loop
async def test_release_all_during_a_release_and_the_other_way_round() -> None:
    """Each waits for what the other has begun to exit, and gets its error."""
    pool = Pool()
    await pool.use("a", "b")
    pool.may_exit.clear()
    pool.errors = {"a": ValueError("of a")}
    one = await begin(release(pool.make, "a"))
    everything = await begin(release_all(pool.make))
    assert pool.log == ["exiting a"]
    pool.may_exit.set()
    with pytest.raises(ValueError) as of_one:
        await one
    with pytest.raises(ExceptionGroup) as of_all:
        await everything
    assert [of_one.value, *of_all.value.exceptions] == [pool.errors["a"]] * 2
    assert pool.log == ["exiting a", "exited a", "exiting b", "exited b"]
    pool.errors = {}
    await pool.use("a", "b")
    pool.may_exit.clear()
    everything, one = await begin(release_all(pool.make)), await begin(release(pool.make, "b"))
    pool.may_exit.set()
    assert [await everything, await one] == [2, True]
    assert pool.log[4:] == ["exiting b", "exited b", "exiting a", "exited a"]


@on_each_loop
async def test_a_call_during_release_all_gets_a_new_value() -> None:
    """While the old ones exit, a call makes anew at once; that stays open, and is there for another `release_all`."""
    pool = Pool()
    await pool.use("a", "b")
    pool.may_exit.clear()
    releasing = await begin(release_all(pool.make))
    await pool.use("a")
    pool.may_exit.set()
    assert await releasing == 2
    assert len(resources()) == 1
    assert await release_all(pool.make) == 1


@on_each_loop
async def test_aclose_during_release_all() -> None:
    """Both wait for the same exits, each of which runs once."""
    pool = Pool()
    await pool.use("a", "b")
    pool.may_exit.clear()
    releasing = await begin(release_all(pool.make))
    closing = await begin(aclose())
    pool.may_exit.set()
    assert [await releasing, await closing] == [2, None]
    assert sorted(pool.log) == ["exited a", "exited b", "exiting a", "exiting b"]


@on_each_loop
async def test_a_cancelled_release_all_leaves_all_exits_to_go_on() -> None:
    """The exit in progress goes on, and so do all others, those that are used last; their errors are reported, none is lost."""
    reports = reports_of_this_loop()
    pool = Pool()
    await pool.use("a", "b")
    await use(pool.make("c", "b"))
    pool.may_exit.clear()
    pool.errors = {"b": ValueError("of b")}
    releasing = await begin(release_all(pool.make))
    await cancel(releasing)
    await turns()
    assert pool.log == ["exiting c", "exiting a"]
    pool.may_exit.set()
    await turns()
    assert pool.log == ["exiting c", "exiting a", "exited c", "exited a", "exiting b", "exited b"]
    assert [each["exception"] for each in reports] == [pool.errors["b"]]
    assert await release_all(pool.make) == 0


def test_a_cancelled_release_all_loses_nothing_at_the_end_of_the_loop(run: Run) -> None:
    """The end of the loop waits for the exits."""
    log: list[str] = []

    async def main() -> None:
        pool = Pool(log)
        await pool.use("a", "b")
        pool.may_exit.clear()
        await cancel(await begin(release_all(pool.make)))
        pool.may_exit.set()

    run(main())
    assert sorted(log) == ["exited a", "exited b", "exiting a", "exiting b"]


@on_each_loop
async def test_what_is_being_entered_is_waited_for_by_release_all() -> None:
    """Who waits for the enter gets the value; it exits after that, and then `release_all` returns."""
    factory = Factory()
    await factory.use("open")
    factory.enter_waits = True
    using = asyncio.create_task(factory.use("entering"))
    resource = await factory.until_entering(2)
    releasing = await begin(release_all(factory.make))
    assert factory.log == [*enters("0"), "entering 1", *exits("0")]
    resource.may_enter.set()
    assert await using is resource
    assert await releasing == 2
    assert factory.log == [*enters("0"), "entering 1", *exits("0"), "entered 1", *exits("1")]


@pytest.mark.parametrize("moment", ["enter", "exit", "task"])
def test_release_all_from_inside_is_refused(run: Run, moment: str) -> None:
    """From the code of one of its resources it raises, names that one, and nothing is forgotten; nothing hangs."""
    errors: list[str] = []
    found: list[int] = []
    itself: list[Callable[..., Any]] = []

    async def attempt() -> None:
        with pytest.raises(RuntimeError) as caught:
            await release_all(itself[0])
        errors.append(str(caught.value))

    @sticky_singleton_acm
    @asynccontextmanager
    async def make(name: str) -> AsyncGenerator[str]:
        if name == "inside" and moment == "enter":
            await attempt()
        if name == "inside" and moment == "task":
            await asyncio.create_task(attempt())
        yield name
        if name == "inside" and moment == "exit":
            await attempt()

    itself.append(make)

    async def main() -> None:
        await use(make("other"))
        await use(make("inside"))
        if moment == "exit":
            assert await release(make, "inside") is True
        found.append(await release_all(make))

    run(main())
    (error,) = errors
    assert "release_all() was called from inside" in error
    assert "make('inside')" in error
    assert found == [1 if moment == "exit" else 2]


@on_each_loop
async def test_release_all_by_what_an_enter_waits_for_is_refused_and_nothing_is_forgotten() -> None:
    """A shared coroutine that waits for it, and for which an enter waits, would wait for ever: it is refused before it begins."""
    entering = asyncio.Event()
    errors: list[str] = []
    factory = Factory()

    @singleton
    async def token() -> str:
        await entering.wait()
        await turns()
        with pytest.raises(RuntimeError, match="would wait for ever") as caught:
            await release_all(make)
        errors.append(str(caught.value))
        return "t"

    @sticky_singleton_acm
    @asynccontextmanager
    async def make(name: str) -> AsyncGenerator[object]:
        if name == "waits":
            entering.set()
            await token()
        yield factory

    waiting = await begin(token())
    await use(make("open"))
    await use(make("waits"))
    assert await waiting == "t"
    assert len(errors) == 1
    assert [each.name.rpartition(".")[2] for each in resources()] == ["make('open')", "make('waits')"]
    assert await release_all(make) == 2


@on_each_loop
async def test_release_all_with_an_argument_whose_hash_fails_by_then_loses_no_exit(log: list[str]) -> list[str]:
    """The error of the hash is raised, and what was to be exited is exited all the same, at the latest with the loop."""

    class Fickle:
        fails = False

        def __hash__(self) -> int:
            if Fickle.fails:
                raise ValueError("no hash any more")
            return 1

        def __eq__(self, other: object) -> bool:
            return self is other

    @sticky_singleton_acm
    def make(argument: object) -> Recorded:
        return Recorded(log, str(type(argument).__name__))

    await make(1)
    await make(Fickle())
    await make("text")
    del log[:]
    Fickle.fails = True
    keeps_hashes = sys.version_info >= (3, 14)  # a tuple does, and asks nobody again
    with nullcontext() if keeps_hashes else pytest.raises(ValueError, match="no hash any more"):
        await release_all(make)
    await turns()
    Fickle.fails = False
    assert sorted(log) == sorted(exits("int", "Fickle", "str"))
    return log


@on_each_loop
async def test_another_resource_may_release_all() -> None:
    """A resource's own code lets go of what it does not use, and what it uses itself is refused."""
    factory = Factory()

    @sticky_singleton_acm
    @asynccontextmanager
    async def manager(*, uses: bool) -> AsyncGenerator[int]:
        if uses:
            await factory.use()
        yield await release_all(factory.make)

    await factory.use("a")
    assert await use(manager(uses=False)) == 1
    with pytest.raises(RuntimeError, match=r"make\('h', 80\) cannot be released while it is in use by .*manager\(uses=True\)"):
        await use(manager(uses=True))


def test_release_all_leaves_other_loops_alone(run: Run) -> None:
    """A second loop keeps its own."""
    factory = Factory()

    async def other() -> int:
        return await release_all(factory.make)

    async def main() -> None:
        await factory.use()
        assert await asyncio.to_thread(run, other()) == 0
        assert factory.log == enters("0")

    run(main())
    assert factory.log == ONE_LIFE


@on_each_loop
async def test_release_all_exits_what_blocks_hold() -> None:
    """As `release`, it does not wait for blocks that hold a value: they go on with one that has been exited."""
    factory = Factory()
    async with factory.make() as resource:
        assert await release_all(factory.make) == 1
        assert factory.log == ONE_LIFE
        assert await factory.use() is not resource


@on_each_loop
async def test_release_all_of_thousands_is_quick_and_keeps_nothing() -> None:
    """Thousands of values are let go in one pass; afterwards there is nothing of them on the loop."""
    factory = Factory()
    for number in range(1500):
        await factory.use(f"h{number}")
    assert await release_all(factory.make) == 1500
    assert resources() == ()
    assert factory.log[-2:] == exits("0")


@pytest.mark.parametrize("what", [int, print, lambda: 1, functools.partial(int), "t", None])
@on_each_loop
async def test_release_all_of_what_was_not_wrapped_is_refused(what: Any) -> None:
    """Anything but what the two decorators return is a `TypeError`."""
    with pytest.raises(TypeError, match=r"argument 'factory' of release_all\(\) must be what singleton\(\) or sticky_singleton"):
        await release_all(what)


@on_each_loop
async def test_a_kept_object_gets_a_new_value_during_release_all() -> None:
    """What a call gave before, and somebody has kept, does not give what is still to exit: its block gets a new value."""
    factory = Factory()
    kept = factory.make("kept")
    before = await use(kept)
    newest = await factory.use("newest")
    newest.may_exit.clear()
    releasing = await begin(release_all(factory.make))
    after = await use(kept)
    newest.may_exit.set()
    assert await releasing == 2
    assert [before.is_open, after.is_open] == [False, True]


@on_each_loop
async def test_nothing_is_kept_of_what_was_released() -> None:
    """However many different calls are released one after the other, the loop remembers none of them."""
    factory = Factory()
    for host in ("a", "b"):
        await factory.use(host)
        await release(factory.make, host)
    await factory.use("c")
    await release_all(factory.make)
    assert [(cache.entries, cache.releasing) for cache in loop_state().caches.values()] == [({}, {})]


@on_each_loop
async def test_code_of_a_resource_waits_for_nothing_after_a_release() -> None:
    """After it has released something, a resource is in nobody's way, and keeps nothing of that alive."""
    factory = Factory()
    await factory.use()

    @asynccontextmanager
    async def releasing() -> AsyncGenerator[None]:
        node = running_node()
        assert node is not None
        assert await release(factory.make) is True
        assert node.awaiting == []
        yield

    await enter(releasing())
