"""`release` and `release_all`: what a wrapped factory has made is ended and forgotten, before the loop ends."""

from __future__ import annotations

import asyncio
import functools
import pickle
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from asyncio_loop_local import aclose, atexit, enter, enter_once, release, release_all, resources, singleton, sticky_singleton_acm
from asyncio_loop_local._loop_state import loop_state
from asyncio_loop_local._wait_graph import running_node
from conftest import Run
from recording import Factory, Recorded, begin, cancel, enters, exits, on_each_loop, reports_of_this_loop, turns, use

ONE_LIFE = [*enters("0"), *exits("0")]
each_of_both = pytest.mark.parametrize("what", ["release", "release_all"])


async def release_by(what: str, factory: Callable[..., Any], *args: Any) -> int:
    """Calls `release` or `release_all`; both return how many there were."""
    return await (release(factory, *args) if what == "release" else release_all(factory))


@pytest.fixture
def factory() -> Factory:
    """A factory of recorded resources."""
    return Factory()


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


@sticky_singleton_acm
@asynccontextmanager
async def user_of(name: str, factory: Factory, host: str = "h") -> AsyncGenerator[Recorded]:
    """A resource that uses one of a factory's."""
    yield await factory.use(host)


class Service:
    """Has methods of all kinds that are wrapped factories."""

    @singleton
    def client(self, scope: str = "all") -> object:
        return object()

    @classmethod
    @singleton
    def of_class(cls) -> object:
        return object()

    @staticmethod
    @singleton
    def static(port: int = 80) -> object:
        return object()

    @sticky_singleton_acm
    def session(self) -> Recorded:
        return Recorded()


class Subservice(Service):
    """Inherits them."""


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
async def test_it_returns_false_if_there_was_nothing(factory: Factory) -> None:
    """On a fresh loop, for other arguments, a second time, and after `aclose`, it returns False."""

    @singleton
    def token(user: str) -> object:
        return object()

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
async def test_every_form_of_a_call_finds_it(factory: Factory, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The arguments are a call's: by position, by name, in any order, defaults given or not."""
    await factory.use()
    assert [await release(factory.make, *args, **kwargs) for _ in range(2)] == [True, False]


@on_each_loop
async def test_what_counts_by_value_finds_it() -> None:
    """A dict that is equal to the one of the call releases what that call made; types count, as in a call."""

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
    """What `singleton` has made is forgotten, and none of its methods is called."""
    client = singleton(Recorded)
    before = client()
    assert await release(client) is True
    assert client() is not before
    assert before.log == []


@on_each_loop
async def test_a_shared_coroutine_is_forgotten(log: list[str]) -> list[str]:
    """A shared coroutine is forgotten, done or under way; those who hold the object still get its result."""
    may_end = asyncio.Event()

    @singleton
    async def token() -> int:
        log.append("run")
        number = len(log)
        await may_end.wait()
        return number

    old = await begin(token())
    assert await release(token) is True
    new = token()
    may_end.set()
    assert [await old, await new] == [1, 2]
    assert await release(token) is True
    assert [await new, await token()] == [2, 3]
    return ["run"] * 3


@pytest.mark.parametrize("is_entered", [True, False])
@on_each_loop
async def test_a_kept_object_of_the_factory_begins_anew(factory: Factory, is_entered: bool) -> None:
    """The object of an earlier call, entered or not, enters a new resource after the release, as a new call does."""
    handle = factory.make()
    if is_entered:
        await use(handle)
    assert [await release(factory.make), await release(factory.make)] == [True, False]
    assert factory.log == (ONE_LIFE if is_entered else [])
    assert await use(handle) is await factory.use() is factory.made[1]


@on_each_loop
async def test_methods() -> None:
    """A bound method is released for its own instance alone; class methods, static ones and the plain function work, too."""
    one, other = Service(), Service()
    of_one, of_other = one.client(), other.client()
    assert await release(one.client, scope="all") is True
    assert one.client() is not of_one
    assert other.client() is of_other
    assert await release(Service.client, other, "all") is True
    assert other.client() is not of_other
    of_class, static = Service.of_class(), Service.static()
    assert [await release(Service.of_class), await release(one.static)] == [True, True]
    assert Service.of_class() is not of_class
    assert Service.static() is not static
    session, others = await use(one.session()), await use(other.session())
    assert await release(one.session) is True
    assert await use(one.session()) is not session
    assert await use(other.session()) is others


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
async def test_what_is_in_use_is_refused_with_its_users_named(factory: Factory) -> None:
    """A resource that open ones have acquired stays open and found; the error names them, and after them it can be released."""
    resource = await use(user_of("one", factory))
    assert await use(user_of("two", factory)) is resource
    message = r"make\('h', 80\) cannot be released while it is in use by .*user_of\('one', .*\), .*user_of\('two', .*\): "
    with pytest.raises(RuntimeError, match=rf"{message}release what uses it first$"):
        await release(factory.make)
    assert await factory.use() is resource
    assert await release(user_of, "one", factory) is True
    with pytest.raises(RuntimeError, match=r"in use by (\S*\.)?user_of\('two', [^()]*\):"):
        await release(factory.make)
    assert [await release(user_of, "two", factory), await release(factory.make)] == [True, True]
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


@each_of_both
@on_each_loop
async def test_another_resource_may_release_it(log: list[str], what: str) -> list[str]:
    """A resource's own code releases what it does not use, and what it uses itself is refused."""
    factory = Factory(log)

    @sticky_singleton_acm
    @asynccontextmanager
    async def manager(*, uses: bool) -> AsyncGenerator[None]:
        if uses:
            await factory.use()
            with pytest.raises(RuntimeError, match=r"make\('h', 80\) cannot .* in use by .*manager\(uses=True\): "):
                await release_by(what, factory.make)
        else:
            assert await release_by(what, factory.make) == 1
        yield

    await factory.use()
    await use(manager(uses=False))
    await use(manager(uses=True))
    return [*ONE_LIFE, *enters("1"), *exits("1")]


@each_of_both
@on_each_loop
async def test_a_callback_may_release(log: list[Any], what: str) -> list[Any]:
    """An `atexit` callback may release what is still open, which is then not exited once more."""
    factory = Factory(log)
    await factory.use()

    async def callback() -> None:
        factory.log.append(f"released {int(await release_by(what, factory.make))}")

    atexit.register(callback)
    return [*ONE_LIFE, "released 1"]


# Two at a time.


@on_each_loop
async def test_two_releases_at_once_wait_for_the_same_exit(factory: Factory) -> None:
    """Both return True when the one exit is done, not before; so does `aclose`."""
    resource, releasing = await begin_release(factory)
    late, closing = await begin(release(factory.make)), await begin(aclose())
    assert not releasing.done()
    resource.may_exit.set()
    assert [await releasing, await late, await closing] == [True, True, None]
    assert factory.log == ONE_LIFE
    assert await release(factory.make) is False


@pytest.mark.parametrize("by", ["call", "handle"])
@on_each_loop
async def test_a_call_during_a_release_gets_a_new_resource(factory: Factory, by: str) -> None:
    """While the old one exits, a call, or an object of an old call, gets a new one at once, which can be released itself."""
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
async def test_releases_of_different_keys_do_not_wait_for_each_other(factory: Factory) -> None:
    """A slow exit holds up the release of nothing else."""
    slow, releasing = await begin_release(factory, "slow")
    await factory.use("quick")
    assert await release(factory.make, "quick") is True
    assert not releasing.done()
    slow.may_exit.set()
    assert await releasing is True


# While it is being entered.


@pytest.mark.parametrize("cancelled", [[], [0], [1], [0, 1]])
@on_each_loop
async def test_what_is_being_entered_is_waited_for_and_exited(factory: Factory, cancelled: list[int]) -> None:
    """Releases during the enter wait for the same exit after it, which comes though one is cancelled, or both.

    Nothing is reported: what is released has not died.
    """
    reports = reports_of_this_loop()
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
async def test_a_call_during_the_release_of_what_is_being_entered_gets_a_new_resource(factory: Factory, by: str) -> None:
    """From the start of its release, a resource that is still being entered is given to no new call."""
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
async def test_a_failing_enter_leaves_nothing_to_exit(factory: Factory) -> None:
    """If what is to be released fails to enter, those who asked for it get the error, and the release is done."""
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
async def test_a_cancelled_release_leaves_the_exit_to_go_on(factory: Factory) -> None:
    """After a cancelled release the exit still finishes, once; another release waits for it, and a call gets a new resource."""
    resource, releasing = await begin_release(factory)
    await cancel(releasing)
    second = await begin(release(factory.make))
    assert await factory.use() is not resource
    resource.may_exit.set()
    assert await second is True
    assert factory.log == [*enters("0"), "exiting 0", *enters("1"), "exited 0"]
    resource, releasing = await begin_release(factory)
    await cancel(releasing)
    resource.may_exit.set()
    await turns()
    assert await release(factory.make) is False
    assert factory.log[-2:] == exits("1")


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
    """If no task waits for the exit any more, its error goes to the loop's exception handler, with the call named."""
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
async def test_a_resource_that_has_died_is_not_there_to_be_released(factory: Factory) -> None:
    """A resource that died while it was held has been forgotten, and `release` finds nothing."""
    reports = reports_of_this_loop()
    (await factory.use()).die()
    while not reports:
        await asyncio.sleep(0)
    assert await release(factory.make) is False


# From inside.


@pytest.mark.parametrize("moment", ["enter", "exit", "task"])
@each_of_both
@on_each_loop
async def test_a_release_from_inside_is_refused(what: str, moment: str) -> None:
    """From a resource's own enter, exit or task, for which it would have to wait, it raises; nothing hangs or is forgotten."""
    errors: list[str] = []

    async def attempt(name: str, now: str) -> None:
        if (name, now) == ("inside", moment):
            with pytest.raises(RuntimeError) as caught:
                await release_by(what, make, "inside")
            errors.append(str(caught.value))

    @sticky_singleton_acm
    @asynccontextmanager
    async def make(name: str) -> AsyncGenerator[str]:
        await attempt(name, "enter")
        await asyncio.create_task(attempt(name, "task"))
        yield name
        await attempt(name, "exit")

    for name in ("other", "inside"):
        assert await use(make(name)) == name
    if moment == "exit":
        assert await release(make, "inside") is True
    (error,) = errors
    assert f"{what}() was called from inside" in error
    assert "make('inside')" in error
    assert await release_all(make) == (1 if moment == "exit" else 2)


@each_of_both
@on_each_loop
async def test_what_the_end_of_the_loop_exits_cannot_be_released(log: list[int], what: str) -> list[int]:
    """In an exit that the end of the loop has begun there is nothing to release any more."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[None]:
        yield
        log.append(await release_by(what, make))

    await use(make())
    return [0]


@on_each_loop
async def test_a_release_by_what_the_enter_waits_for_is_refused() -> None:
    """A release by B's enter of the A whose enter waits for B could never end: it is refused, and A stays as it is."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def outer() -> AsyncGenerator[str]:
        yield await use(inner())

    @sticky_singleton_acm
    @asynccontextmanager
    async def inner() -> AsyncGenerator[str]:
        with pytest.raises(RuntimeError):
            await release(outer)
        yield "value"

    assert await use(outer()) == "value"
    assert [resource.name.rpartition(".")[2] for resource in resources()] == ["inner()", "outer()"]
    assert await release(outer) is True


@each_of_both
@on_each_loop
async def test_a_release_by_a_coroutine_that_the_enter_waits_for_is_refused(what: str) -> None:
    """So is the release of A by a shared coroutine that A's enter waits for; nothing is forgotten."""
    errors: list[str] = []
    entering = asyncio.Event()

    @singleton
    async def token() -> str:
        await entering.wait()
        await turns()
        with pytest.raises(RuntimeError) as caught:
            await release_by(what, make, "waits")
        errors.append(str(caught.value))
        return "t"

    @sticky_singleton_acm
    @asynccontextmanager
    async def make(name: str) -> AsyncGenerator[str]:
        entering.set()
        yield await token() if name == "waits" else name

    await use(make("open"))
    entering.clear()
    first = await begin(token())
    assert await use(make("waits")) == await first == "t"
    assert [each.name.rpartition(".")[2] for each in resources()] == ["make('open')", "make('waits')"]
    assert await release(token) is True
    assert await release_by(what, make, "waits") == (1 if what == "release" else 2)
    assert await use(make("waits")) == "t"
    by_run, from_inside = errors  # the second run is begun by the enter itself
    assert "this would wait for ever" in by_run
    assert f"{what}() was called from inside" in from_inside


# Other loops, and wrong arguments.


@each_of_both
def test_a_second_loop_keeps_its_own(run: Run, what: str) -> None:
    """On one loop it finds nothing of another, at the same time or later, and leaves it alone."""
    factory = Factory()

    async def main() -> None:
        await factory.use()
        assert await asyncio.to_thread(run, release_by(what, factory.make)) == 0
        assert factory.log == enters("0")
        assert await release_by(what, factory.make) == 1

    run(main())
    assert run(release_by(what, factory.make)) == 0
    assert factory.log == ONE_LIFE


@pytest.mark.parametrize("wrong", [int, print, lambda: 1, asynccontextmanager, functools.partial(int), Recorded, "t", None, 3])
@each_of_both
@on_each_loop
async def test_what_was_not_wrapped_is_refused(what: str, wrong: Any) -> None:
    """Anything but what the two decorators return is a `TypeError` that says what is needed."""
    message = rf"argument 'factory' of {what}\(\) must be what singleton\(\) or sticky_singleton_acm\(\) has returned, not "
    with pytest.raises(TypeError, match=message):
        await release_by(what, wrong)


@on_each_loop
async def test_an_argument_that_can_be_no_part_of_a_key_is_refused() -> None:
    """As by a call: a `TypeError` that names the parameter."""

    @singleton
    def token(user: object) -> object:
        return object()

    token("u")
    with pytest.raises((TypeError, ValueError), match=r"'user' of .*token"):
        await release(token, memoryview(bytearray(b"x")))


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


@pytest.fixture
def pool() -> Pool:
    """A factory of resources that may use each other."""
    return Pool()


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
async def test_release_all_of_every_kind_of_value(factory: Factory) -> None:
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
    for service in (Service(), Subservice()):
        service.client()
        service.of_class()
        service.static()
    with pytest.raises(TypeError, match=r"release_all\(\) must not be bound to an instance, .*use release\(\) for"):
        await release_all(Service().client)
    assert [await release_all(each) for each in (Service.client, Subservice.of_class, Service.static)] == [2, 2, 1]


@on_each_loop
async def test_what_uses_another_of_the_factory_exits_first(pool: Pool) -> None:
    """Older ones that use newer ones exit before these; nothing is in the way but what is of another factory."""
    old = pool.make("old", "xy")
    await pool.use("z")
    await use(old)
    assert await release_all(pool.make) == 4
    assert pool.log == exits("old", "y", "x", "z")


@on_each_loop
async def test_release_all_of_what_others_use_is_refused_and_nothing_is_forgotten(factory: Factory) -> None:
    """If another factory's resource uses any of them, the error names both, and all stay as they were, the unused ones too."""
    before = [await factory.use(host) for host in "abc"]
    await use(user_of("one", factory, "b"))
    message = r"make\('b', 80\) cannot be released while it is in use by user_of\(.*\): release what uses it first$"
    with pytest.raises(RuntimeError, match=message):
        await release_all(factory.make)
    assert [await factory.use(host) for host in "abc"] == before
    assert [each.is_open for each in before] == [True] * 3
    assert [await release_all(user_of), await release_all(factory.make)] == [1, 3]


@on_each_loop
async def test_all_exits_run_and_all_errors_are_raised(pool: Pool) -> None:
    """After the last exit there is one group, which can be shown and pickled; a note on each error says of which call it is."""
    reports = reports_of_this_loop()
    await pool.use(*"abc")
    pool.errors = {"a": ValueError("of a"), "c": KeyError("of c")}
    with pytest.raises(ExceptionGroup, match=r"errors at the exits of what .*make\(\) had made") as caught:
        await release_all(pool.make)
    errors = caught.value.exceptions
    assert errors == (pool.errors["c"], pool.errors["a"])
    name = pool.make.__qualname__
    assert [each.__notes__ for each in errors] == [[f"raised by the exit of {name}('{each}')"] for each in "ca"]
    assert "[KeyError('of c'), ValueError('of a')]" in repr(caught.value)
    assert [*map(repr, pickle.loads(pickle.dumps(caught.value)).exceptions)] == [*map(repr, errors)]
    assert pool.log == exits(*"cba")
    assert await release_all(pool.make) == 0
    assert reports == []


@on_each_loop
async def test_an_error_that_is_no_exception(pool: Pool) -> None:
    """A `SystemExit` of an exit is in the group too, and keeps none of the others from running."""
    await pool.use("a", "b")
    pool.errors = {"b": SystemExit(3)}
    with pytest.raises(BaseExceptionGroup) as caught:
        await release_all(pool.make)
    assert caught.value.exceptions == (pool.errors["b"],)
    assert pool.log == exits("b", "a")


@pytest.mark.parametrize("uses", ["", "ab"])
@on_each_loop
async def test_two_at_a_time_wait_for_the_same_exits(pool: Pool, uses: str) -> None:
    """Both count the same, and get the same errors, when the last exit is done; each exit runs once, in the same order."""
    await pool.use("a", "b")
    await use(pool.make("c", uses))
    pool.may_exit.clear()
    pool.errors = {"a": ValueError("of a")}
    first, second = await begin(release_all(pool.make)), await begin(release_all(pool.make))
    pool.may_exit.set()
    results: list[Any] = [*await asyncio.gather(first, second, return_exceptions=True)]
    assert [each.exceptions for each in results] == [(pool.errors["a"],)] * 2
    assert len(pool.errors["a"].__notes__) == 1
    assert pool.log == exits(*"cba")
    pool.errors = {}
    await pool.use("a", "b")
    assert [*await asyncio.gather(release_all(pool.make), release_all(pool.make))] == [2, 2]
    assert pool.log[6:] == exits(*"ba")


@on_each_loop
async def test_release_all_during_a_release_and_the_other_way_round(pool: Pool) -> None:
    """Each waits for what the other has begun to exit, and gets its error."""
    await pool.use("a", "b")
    pool.may_exit.clear()
    pool.errors = {"a": ValueError("of a")}
    one, everything = await begin(release(pool.make, "a")), await begin(release_all(pool.make))
    assert pool.log == ["exiting a"]
    pool.may_exit.set()
    with pytest.raises(ValueError) as of_one:
        await one
    with pytest.raises(ExceptionGroup) as of_all:
        await everything
    assert [of_one.value, *of_all.value.exceptions] == [pool.errors["a"]] * 2
    assert pool.log == exits("a", "b")
    pool.errors = {}
    await pool.use("a", "b")
    pool.may_exit.clear()
    everything, one = await begin(release_all(pool.make)), await begin(release(pool.make, "b"))
    pool.may_exit.set()
    assert [await everything, await one] == [2, True]
    assert pool.log[4:] == exits("b", "a")


@on_each_loop
async def test_a_call_during_release_all_gets_a_new_value(pool: Pool) -> None:
    """While the old ones exit, a call makes a new resource at once, which stays open until another `release_all`."""
    await pool.use("a", "b")
    pool.may_exit.clear()
    releasing = await begin(release_all(pool.make))
    await pool.use("a")
    pool.may_exit.set()
    assert await releasing == 2
    assert len(resources()) == 1
    assert await release_all(pool.make) == 1


@on_each_loop
async def test_aclose_during_release_all(pool: Pool) -> None:
    """Both wait for the same exits, each of which runs once."""
    await pool.use("a", "b")
    pool.may_exit.clear()
    releasing = await begin(release_all(pool.make))
    closing = await begin(aclose())
    pool.may_exit.set()
    assert [await releasing, await closing] == [2, None]
    assert sorted(pool.log) == ["exited a", "exited b", "exiting a", "exiting b"]


@on_each_loop
async def test_a_cancelled_release_all_leaves_all_exits_to_go_on(pool: Pool) -> None:
    """All exits still run, those of used resources last; their errors are reported, and none is lost."""
    reports = reports_of_this_loop()
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


@on_each_loop
async def test_a_cancelled_release_all_loses_nothing_at_the_end_of_the_loop(log: list[str]) -> list[str]:
    """The end of the loop waits for the exits."""
    pool = Pool(log)
    await pool.use("a", "b")
    pool.may_exit.clear()
    await cancel(await begin(release_all(pool.make)))
    pool.may_exit.set()
    return ["exiting b", "exiting a", "exited b", "exited a"]


@on_each_loop
async def test_what_is_being_entered_is_waited_for_by_release_all(factory: Factory) -> None:
    """The task that waits for the enter gets the value; it exits after that, and then `release_all` returns."""
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
async def test_release_all_exits_what_blocks_hold(factory: Factory) -> None:
    """As `release`, it does not wait for blocks that hold a value: they go on with one that has been exited."""
    async with factory.make() as resource:
        assert await release_all(factory.make) == 1
        assert factory.log == ONE_LIFE
        assert await factory.use() is not resource


@on_each_loop
async def test_release_all_of_thousands_is_quick_and_keeps_nothing(factory: Factory) -> None:
    """Thousands of values are released in one pass; afterwards the loop holds none of them."""
    for number in range(1500):
        await factory.use(f"h{number}")
    assert await release_all(factory.make) == 1500
    assert resources() == ()
    assert factory.log[-2:] == exits("0")


@on_each_loop
async def test_a_kept_object_gets_a_new_value_during_release_all(factory: Factory) -> None:
    """An object that a call gave before does not give a value that is still to exit: its block gets a new one."""
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
async def test_nothing_is_kept_of_what_was_released(factory: Factory) -> None:
    """However many different calls are released one after the other, the loop remembers none of them."""
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
