"""`release`: letting go of one thing that a wrapped factory has made, before the loop ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import aclose, atexit, enter, enter_once, release, resources, singleton, sticky_singleton_acm
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
