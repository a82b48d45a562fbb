"""`override`: another factory in the place of a wrapped one, for a block."""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Self
from unittest.mock import AsyncMock, MagicMock

import pytest

import collector
from asyncio_loop_local import aclose, override, release, release_all, resources, singleton, sticky_singleton_acm
from conftest import Run
from recording import Factory, Recorded, begin, cancel, enters, exits, in_threads, on_each_loop, reports_of_this_loop, turns, use

any_override: Callable[..., Any] = override


class Fakes:
    """Makes recorded resources in a factory's place, which are named f0, f1 and so on."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.log: list[str] = [] if log is None else log
        self.made: list[Recorded] = []

    def __call__(self, host: str = "h", port: int = 80) -> Recorded:
        self.made.append(Recorded(self.log, f"f{len(self.made)}"))
        return self.made[-1]


def open_ones(factory: Factory | Fakes) -> list[str]:
    return [each.name for each in factory.made if each.is_open]


class Value:
    """A value with a method that closes it."""

    def __init__(self, name: str = "own") -> None:
        self.name = name
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def fake() -> Value:
    return Value("fake")


async def fake_later() -> Value:
    return Value("fake")


async def connect_own() -> Value:
    return Value()


def is_open(resource: Recorded) -> bool:
    return resource.is_open


# Each kind of factory.


@on_each_loop
async def test_a_sticky_factory(log: list[str]) -> list[str]:
    """In the block it enters what the replacement makes, though it was warm before; after it that exits, and its own is back."""
    factory, fakes = Factory(log), Fakes(log)
    own = await factory.use()
    with override(factory.make, fakes):
        assert await factory.use() is await use(factory.make(host="h")) is fakes.made[0]
        assert await factory.use("other") is fakes.made[1]
        assert await factory.make() is fakes.made[0]
        assert len(resources()) == 3
    assert await factory.use() is own
    await turns()
    assert (open_ones(fakes), open_ones(factory), len(resources())) == ([], ["0"], 1)
    return [*enters("0", "f0", "f1"), "exiting f0", "exiting f1", "exited f0", "exited f1", *exits("0")]


@on_each_loop
async def test_a_plain_factory() -> None:
    """Calls of `singleton` get the replacement's value, once per arguments, and their own again after the block."""
    make = singleton(Value)
    own = make()
    with override(make, Value):
        in_place = make()
        assert make() is in_place is not own
        assert make("b") is make(name="b")
    assert make() is own


@on_each_loop
async def test_a_coroutine_function() -> None:
    """A coroutine function is replaced by another, whose one run all share; what was awaited before is found after the block."""
    connect = singleton(connect_own)
    own = await connect()
    with override(connect, fake_later):
        first, second = await asyncio.gather(connect(), asyncio.create_task(connect()))
        assert first is second is await connect()
        assert first.name == "fake"
    assert await connect() is own


def test_a_coroutine_function_where_no_loop_runs(run: Run) -> None:
    """The coroutine that a call gives without a loop runs the replacement if it is awaited in the block, else the factory."""
    connect = singleton(connect_own)
    with override(connect, fake_later):
        assert run(connect()).name == "fake"
        kept = connect()
    assert run(kept).name == "own"
    kept = connect()
    with override(connect, fake_later):
        assert run(kept).name == "fake"


@pytest.mark.parametrize("is_async", [False, True])
@on_each_loop
async def test_close(is_async: bool) -> None:
    """`close=` closes what the replacement has made, after the block, and not the factory's own."""
    make: Any = singleton(connect_own if is_async else Value, close=Value.close)

    async def made() -> Any:
        return await make() if is_async else make()

    own = await made()
    with override(make, fake_later if is_async else fake):
        in_place = await made()
        assert await made() is in_place
        assert [each.state for each in resources()] == ["open", "open"]
    await turns()
    assert (in_place.name, in_place.is_closed, own.is_closed) == ("fake", True, False)
    assert await made() is own


@on_each_loop
async def test_valid() -> None:
    """`valid=` is asked of what the replacement has made, too."""
    make = singleton(Value, valid=lambda value: not value.is_closed)
    own = make()
    with override(make, Value):
        first = make()
        first.close()
        second = make()
        assert first is not second is make()
    assert make() is own
    own.close()
    assert make() is not own


@on_each_loop
async def test_valid_of_a_sticky_factory_in_whose_block_the_override_ends() -> None:
    """A value that a block still holds when the override ends is exited at the end of that block."""
    make, fakes = sticky_singleton_acm(Recorded, valid=is_open), Fakes()
    overriding = any_override(make, lambda: fakes())
    overriding.__enter__()
    async with make() as resource:
        assert resource is fakes.made[0]
        overriding.__exit__(None, None, None)
        await turns()
        assert resource.is_open
        assert (await use(make())).name == "r"
    await turns()
    assert not resource.is_open


@on_each_loop
async def test_valid_of_a_sticky_factory_whose_enter_the_end_of_the_override_meets() -> None:
    """A block that waits for the replacement's enter when the override ends keeps the value open until the block ends."""
    make, waiting = sticky_singleton_acm(Recorded, valid=is_open), Recorded()
    waiting.may_enter.clear()
    may_leave = asyncio.Event()

    async def hold() -> bool:
        async with make() as resource:
            await may_leave.wait()
            return resource.is_open

    with any_override(make, lambda: waiting):
        holding = await begin(hold())
    waiting.may_enter.set()
    await turns()
    assert waiting.log == enters("r")
    may_leave.set()
    assert await holding is True
    await turns()
    assert waiting.log == [*enters("r"), *exits("r")]


@on_each_loop
async def test_key() -> None:
    """`key=` says for the replacement, too, which calls are the same."""

    def key(user: str, trace: int) -> str:
        return user

    @singleton(key=key)
    def client(user: str, trace: int) -> list[Any]:
        return [user, trace]

    own = client("u", 1)
    with override(client, lambda user, trace: ["fake", user, trace]):
        assert client("u", 2) is client("u", trace=3)
        assert client("u", 9) == ["fake", "u", 2]
        assert client("v", 9) == ["fake", "v", 9]
    assert client("u", 9) is own


class Service:
    def __init__(self, name: str) -> None:
        self.name = name

    @singleton
    def client(self, port: int = 80) -> str:
        return f"{self.name} {port}"

    @classmethod
    @singleton
    def of_class(cls, port: int) -> str:
        return f"{cls.__name__} {port}"

    @staticmethod
    @singleton
    def static(port: int) -> str:
        return f"static {port}"

    @property
    @singleton
    def token(self) -> str:
        return f"{self.name}'s token"

    @sticky_singleton_acm
    def session(self) -> Recorded:
        return Recorded(name=self.name)


class Subservice(Service):
    pass


@on_each_loop
async def test_methods() -> None:
    """A method is replaced in its class, for all instances and subclasses, by a function that takes self; a property by fget."""
    one, other = Service("one"), Subservice("other")
    assert one.client() == "one 80"
    with override(Service.client, lambda self, port=8: f"fake {self.name} {port}"):
        assert [one.client(), other.client(1), Service.client(one)] == ["fake one 8", "fake other 1", "fake one 8"]
        assert one.token == "one's token"
    assert [one.client(), other.client(1)] == ["one 80", "other 1"]
    with override(Service.session, lambda self: Recorded(name=f"fake {self.name}")):
        assert [(await use(each.session())).name for each in (one, other)] == ["fake one", "fake other"]
    assert (await use(one.session())).name == "one"
    token: Any = Service.__dict__["token"]
    with any_override(token.fget, lambda _: "no token"):  # pyright: ignore[reportUnknownLambdaType]
        assert [one.token, other.token] == ["no token", "no token"]
    assert one.token == "one's token"


@on_each_loop
async def test_class_methods_and_static_ones() -> None:
    """A class method's replacement takes no class, and holds for subclasses; a static method's is a plain function's."""
    assert [Service.of_class(1), Subservice.of_class(port=1)] == ["Service 1", "Subservice 1"]
    with override(Service.of_class, lambda port: f"fake {port}"):
        assert [Service.of_class(1), Subservice.of_class(port=1), Service("s").of_class(2)] == ["fake 1", "fake 1", "fake 2"]
    with override(Subservice.of_class, lambda port: f"fake {port}"):
        assert Service.of_class(1) == "fake 1"
    assert [Service.of_class(1), Subservice.of_class(port=1)] == ["Service 1", "Subservice 1"]
    with override(Service.static, lambda port: f"fake {port}"):
        assert [Service.static(1), Subservice("s").static(port=1)] == ["fake 1", "fake 1"]
    assert Service.static(1) == "static 1"


@on_each_loop
async def test_calls_of_a_class_method_are_the_same_as_those_of_the_replacement() -> None:
    """By position or by name, with a default or without; also where the replacement is a coroutine function, or written in C."""

    class Client:
        @classmethod
        @singleton
        def plain(cls, port: int = 80) -> object:
            return port

        @classmethod
        @singleton
        async def coroutine(cls, port: int = 80) -> object:
            return port

    def replacement(port: int = 80) -> object:
        return [port]

    async def coroutine_replacement(port: int = 80) -> object:
        return [port]

    with override(Client.plain, replacement):
        assert Client.plain() is Client.plain(80) is Client.plain(port=80)
        assert Client.plain() == [80]
    with override(Client.coroutine, coroutine_replacement):
        assert await Client.coroutine() is await Client.coroutine(80) is await Client.coroutine(port=80)
        assert await Client.coroutine() == [80]
    with any_override(Client.plain, type):
        assert Client.plain(80) is int


@on_each_loop
async def test_mocks() -> None:
    """`unittest.mock` makes replacements of each kind, which count their calls: one per loop and arguments."""

    @singleton
    async def connect(host: str) -> Value:
        return Value(host)

    make, plain = sticky_singleton_acm(Recorded), singleton(Value)
    for_plain = MagicMock(return_value=Value("mock"))
    with override(plain, for_plain):
        assert plain("a") is plain("a")
    for_plain.assert_called_once_with("a")
    awaited = AsyncMock(return_value=Value("mock"))
    with override(connect, awaited):
        assert await connect("a") is await connect("a")
    awaited.assert_awaited_once_with("a")
    entered = MagicMock()
    with override(make, entered):
        assert await make() is await make() is entered.return_value.__aenter__.return_value
        entered.return_value.__aexit__.assert_not_called()
    await turns()
    entered.return_value.__aexit__.assert_awaited_once()


@on_each_loop
async def test_a_decorated_wrapped_function() -> None:
    """A function around the wrapped one that `functools.wraps` has marked stands for it."""
    make = singleton(Value)

    @functools.wraps(make)
    def logged(*args: Any, **kwargs: Any) -> Value:
        return make(*args, **kwargs)

    with override(logged, fake):
        assert logged().name == make().name == "fake"
    assert logged().name == make().name == "own"


# Blocks of blocks.


@on_each_loop
async def test_nested_blocks() -> None:
    """The innermost block decides; after it, what the one around it had made is found again."""
    factory, outer, inner = Factory(), Fakes(), Fakes()
    with override(factory.make, outer):
        of_outer = await factory.use()
        with override(factory.make, inner):
            assert await factory.use() is inner.made[0]
            with override(factory.make, outer):
                assert await factory.use() is outer.made[1]
            assert await factory.use() is inner.made[0]
        assert await factory.use() is of_outer
        await turns()
        assert (open_ones(outer), open_ones(inner)) == (["f0"], [])
    assert await factory.use() is factory.made[0]


@pytest.mark.parametrize("first_to_end", [0, 1, 2])
@on_each_loop
async def test_overlapping_blocks(first_to_end: int) -> None:
    """Of blocks that overlap, the one that began last, and has not ended, decides, whichever ends first."""
    make = singleton(Value)
    blocks = [override(make, functools.partial(Value, name)) for name in "abc"]
    for block in blocks:
        block.__enter__()
    remaining = [*"abc"]
    for number in (first_to_end, *{0, 1, 2} - {first_to_end}):
        blocks[number].__exit__(None, None, None)
        remaining.remove("abc"[number])
        assert make().name == (remaining[-1] if remaining else "own")
    assert make().name == "own"


@on_each_loop
async def test_blocks_of_different_factories_are_independent() -> None:
    """What one block replaces is of no concern to another factory."""
    one, other = singleton(Value), singleton(Value)
    with override(one, lambda name="fake": Value(name)):
        with override(other, lambda name="second": Value(name)):
            assert [one().name, other().name] == ["fake", "second"]
        assert [one().name, other().name] == ["fake", "own"]


@on_each_loop
async def test_an_error_in_the_block_passes_and_ends_it() -> None:
    """The block lets every error through, that of a cancelled task too, and is over then."""
    factory, fakes = Factory(), Fakes()
    error = ValueError("from the block")
    with pytest.raises(ValueError) as caught, override(factory.make, fakes):
        await factory.use()
        raise error
    assert caught.value is error

    async def wait_in_block() -> None:
        with override(factory.make, fakes):
            await factory.use()
            await asyncio.Event().wait()

    await cancel(await begin(wait_in_block()))
    await turns()
    assert open_ones(fakes) == []
    assert await factory.use() is factory.made[0]


# Who uses what.


@sticky_singleton_acm
@asynccontextmanager
async def user_of(factory: Factory) -> AsyncGenerator[Recorded]:
    resource = await factory.use()
    yield resource
    assert resource.is_open


@on_each_loop
async def test_what_something_open_uses_exits_after_that() -> None:
    """A resource of another factory keeps what it has taken open after the block, and finds it open in its own exit."""
    factory, fakes = Factory(), Fakes()
    with override(factory.make, fakes):
        await use(user_of(factory))
    await turns()
    assert open_ones(fakes) == ["f0"]
    assert await factory.use() is factory.made[0]
    assert await release(user_of, factory) is True
    await turns()
    assert open_ones(fakes) == []
    assert factory.made[0].is_open


@on_each_loop
async def test_what_something_takes_while_it_is_entered_stays_open_for_it() -> None:
    """If the block ends while the replacement's resource is entered for another resource, that one gets it, and keeps it."""
    reports = reports_of_this_loop()
    factory, fakes = Factory(), Fakes()
    waiting = fakes()
    waiting.may_enter.clear()
    with override(factory.make, lambda host="h", port=80: waiting):
        task = await begin(use(user_of(factory)))
    await turns()
    waiting.may_enter.set()
    assert await task is waiting
    await turns()
    assert open_ones(fakes) == ["f0"]
    assert await release(user_of, factory) is True
    await turns()
    assert open_ones(fakes) == []
    assert reports == []


@on_each_loop
async def test_what_is_entered_for_a_task_when_the_block_ends() -> None:
    """A task that waits for the enter gets the value, which then exits; the next call gets the factory's own."""
    factory, fakes = Factory(), Fakes()
    with override(factory.make, fakes):
        task = asyncio.create_task(factory.use())
        while not fakes.made:
            await asyncio.sleep(0)
        fakes.made[0].may_enter.clear()
        await fakes.made[0].entering.wait()
    fakes.made[0].may_enter.set()
    assert await factory.use() is factory.made[0]
    assert await task is fakes.made[0]
    await turns()
    assert fakes.log == [*enters("f0"), *exits("f0")]


@on_each_loop
async def test_an_exit_that_fails_is_reported() -> None:
    """No task waits for the exits after the block: their errors go to the loop's exception handler, with the call named."""
    reports = reports_of_this_loop()
    factory, fakes = Factory(), Fakes()
    with override(factory.make, fakes):
        (await factory.use()).exit_error = OSError("no answer")
    await turns()
    (report,) = reports
    assert report["exception"] is fakes.made[0].exit_error
    assert report["message"].startswith("the exit of ")


# Objects that are kept.


@pytest.mark.parametrize("is_entered", [True, False])
@on_each_loop
async def test_a_kept_sticky_object(is_entered: bool) -> None:
    """An object from before the block always gives the factory's own; so does one from inside it, after the block."""
    factory, fakes = Factory(), Fakes()
    before = factory.make()
    if is_entered:
        await use(before)
    with override(factory.make, fakes):
        assert await use(before) is factory.made[0]
        within = factory.make()
        if is_entered:
            assert await use(within) is fakes.made[0]
    assert await use(before) is await use(within) is factory.made[0]
    await turns()
    assert fakes.log == ([*enters("f0"), *exits("f0")] if is_entered else [])


@on_each_loop
async def test_a_kept_shared_coroutine() -> None:
    """A coroutine that a call has given gives its own result before, in and after the block, as one that was released does."""

    connect = singleton(connect_own)
    before = connect()
    with override(connect, fake_later):
        assert (await before).name == "own"
        awaited, later = connect(), connect()
        assert await awaited is await later
    assert (await awaited).name == "fake"
    assert await connect() is await before


@on_each_loop
async def test_a_run_that_the_end_of_the_block_meets_goes_on() -> None:
    """Those who wait for the replacement's coroutine when the block ends get its result; later calls the factory's own."""
    connect, may_end = singleton(connect_own), asyncio.Event()

    async def slow() -> Value:
        await may_end.wait()
        return Value("fake")

    with override(connect, slow):
        waiting = await begin(connect())
    assert (await connect()).name == "own"
    may_end.set()
    assert (await waiting).name == "fake"
    assert (await connect()).name == "own"


# Other names of the library, in the block.


@on_each_loop
async def test_release_in_the_block_and_after_it() -> None:
    """`release` and `release_all` find what the replacement has made, and leave the factory's own alone; after it, that."""
    factory, fakes = Factory(), Fakes()
    own = await factory.use()
    with override(factory.make, fakes):
        assert await release(factory.make) is False
        await factory.use()
        assert await release(factory.make) is True
        for host in "ab":
            await factory.use(host)
        assert await release_all(factory.make) == 2
        assert open_ones(fakes) == []
        assert await factory.use() is fakes.made[3]
    assert await factory.use() is own
    assert await release_all(factory.make) == 1
    await turns()
    assert resources() == ()


@on_each_loop
async def test_aclose_in_the_block() -> None:
    """`aclose` ends all, the factory's own and the replacement's; the next call in the block makes from the replacement."""
    factory, fakes = Factory(), Fakes()
    await factory.use()
    with override(factory.make, fakes):
        await factory.use()
        await aclose()
        assert factory.log == [*enters("0"), *exits("0")]
        assert await factory.use() is fakes.made[1]
    assert await factory.use() is factory.made[1]


@on_each_loop
async def test_resources_are_named_by_the_replacement() -> None:
    """A replacement's resource is listed by the replacement's name, the factory's own by the factory's."""
    factory = Factory()

    def replacement(host: str = "h", port: int = 80) -> Recorded:
        return Recorded()

    await factory.use()
    with override(factory.make, replacement):
        await factory.use()
        own, in_place = (each.name.rpartition(".")[2] for each in resources())
    assert (own, in_place) == ("_make('h', 80)", "replacement('h', 80)")


# Replacements that go wrong.


@on_each_loop
async def test_a_replacement_that_raises() -> None:
    """Its error is the caller's, and is not remembered: neither by the replacement, nor after the block."""
    make, refused = singleton(Value), MagicMock(side_effect=OSError("refused"))
    with override(make, refused):
        for _ in range(2):
            with pytest.raises(OSError, match="refused"):
                make("n")
    assert refused.call_count == 2
    assert make("n").name == "n"


@pytest.mark.parametrize("close", [None, Value.close])
@pytest.mark.parametrize("what", [Value, lambda: None, MagicMock()])
def test_a_coroutine_function_is_not_replaced_by_one_that_returns_no_coroutine(run: Run, what: Any, close: Any) -> None:
    """That is a `TypeError` which says what to write, with a loop and without one; nothing is kept, and nothing closed."""
    connect_once: Any = singleton(connect_own, close=close) if close else singleton(connect_own)

    async def main() -> None:
        with pytest.raises(TypeError, match=message):
            await connect_once()
        assert resources() == ()

    message = r"which replaces .*connect_own\(\) by override\(\), returned .*, which cannot be awaited: .*async def$"
    with any_override(connect_once, what):
        run(main())
        with pytest.raises(TypeError, match=message):
            run(connect_once())
    assert run(connect_once()).name == "own"


@pytest.mark.parametrize("close", [None, Value.close])
@on_each_loop
async def test_a_plain_function_that_returns_a_coroutine_or_a_future_replaces_a_coroutine_function(close: Any) -> None:
    """What can be awaited will do: a lambda that calls a coroutine function, a future, another wrapped coroutine function."""
    make: Any = singleton(connect_own, close=close) if close else singleton(connect_own)
    future = asyncio.get_running_loop().create_future()
    future.set_result(Value("fake"))
    replacements: list[Any] = [lambda: fake_later(), lambda: future, singleton(fake_later), functools.partial(fake_later)]
    for replacement in replacements:
        with any_override(make, replacement):
            first = await make()
            assert first is await asyncio.create_task(make()) is await make()
            assert (first.name, first.is_closed) == ("fake", False)
        await turns()
        assert first.is_closed is (close is not None)
    assert (await make()).name == "own"


@pytest.mark.parametrize("kind", ["number", "coroutine", "generator", "class"])
@on_each_loop
async def test_a_sticky_factory_is_not_replaced_by_one_that_makes_no_manager(kind: str) -> None:
    """The call is a `TypeError` that says what it got."""

    async def generator() -> AsyncGenerator[int]:
        yield 1

    replacement: Any = {"number": lambda: 3, "coroutine": fake_later, "generator": generator, "class": lambda: Recorded}[kind]
    make = sticky_singleton_acm(Recorded)
    with any_override(make, replacement), pytest.raises(TypeError, match=r"no asynchronous context manager"):
        make()
    assert (await make()).name == "r"


@on_each_loop
async def test_a_replacement_that_calls_what_it_replaces() -> None:
    """It calls itself, as any function that stands in another's place: that is an error, not a hang, and over with the block."""
    make, plain, connect = sticky_singleton_acm(Recorded), singleton(Value), singleton(connect_own)

    async def connect_again() -> Value:
        return await connect()

    @asynccontextmanager
    async def make_again() -> AsyncGenerator[Any]:
        async with make() as value:
            yield value

    with any_override(plain, lambda: plain()), pytest.raises(RecursionError):
        plain()
    with any_override(make, lambda: make()), pytest.raises(RecursionError):
        make()
    with any_override(make, make_again), pytest.raises(RuntimeError, match="would wait for ever"):
        await make()
    with override(connect, connect_again), pytest.raises(RuntimeError, match="would wait for ever"):
        await connect()
    assert [(await make()).name, plain().name, (await connect()).name] == ["r", "own", "own"]
    await turns()
    assert len(resources()) == 1


@on_each_loop
async def test_a_replacement_that_is_another_wrapped_factory() -> None:
    """A wrapped factory replaces one of its kind: its values are found by both, and after the block are still its own."""
    make, other = Factory(), Factory()
    with override(make.make, other.make):
        assert await make.use() is await other.use() is other.made[0]
    await turns()
    assert await other.use() is other.made[0]
    assert other.made[0].is_open
    plain, other_plain = singleton(Value), singleton(Value)
    with override(plain, other_plain):
        assert plain() is other_plain()


@pytest.mark.parametrize("what", [print, len, 3, None, Value, functools.partial(fake), asyncio.run, lambda: 1])
def test_what_was_not_wrapped_is_refused(what: Any) -> None:
    """Anything but what the two decorators return is a `TypeError`; no loop is needed for that."""
    with pytest.raises(TypeError, match=r"argument 'factory' of override\(\) must be what singleton\(\) or sticky_singleton"):
        any_override(what, fake)


def test_a_property_is_refused() -> None:
    """The message says what to pass in its place."""
    with pytest.raises(TypeError, match=r"not a property: pass its getter, as in Service\.client\.fget"):
        any_override(Service.__dict__["token"], len)


def test_a_method_of_an_instance_is_refused() -> None:
    """It would hold for all instances: the error says to replace it in the class."""
    with pytest.raises(TypeError, match=r"must not be bound to an instance, .*override\(Service\.client, …\)"):
        any_override(Service("s").client, fake)


@pytest.mark.parametrize("what", [3, None, "fake", Value()])
def test_a_replacement_that_cannot_be_called_is_refused(what: Any) -> None:
    """The error says to pass a function, and nothing has been replaced."""
    with pytest.raises(TypeError, match=r"argument 'replacement' of override\(\) must be callable, not \w+: pass a function"):
        any_override(singleton(Value), what)


# Threads and loops.


class LoopThread:
    """A loop that runs in a thread of its own, until the block is left."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(main, self.loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


NewLoop = Callable[[], asyncio.AbstractEventLoop]


def test_a_loop_that_runs_in_another_thread(new_loop: NewLoop) -> None:
    """The block holds there too, where the factory was warm; after it the replacement's exits there, and its own is found."""
    factory, fakes = Factory(), Fakes()
    with LoopThread(new_loop) as thread:
        own = thread.run(factory.use())
        with override(factory.make, fakes):
            assert thread.run(factory.use()) is fakes.made[0]
        assert thread.run(factory.use()) is own
        thread.run(turns())
        assert (open_ones(factory), open_ones(fakes)) == (["0"], [])
    assert factory.log == [*enters("0"), *exits("0")]


def test_a_loop_that_does_not_run(new_loop: NewLoop) -> None:
    """A loop between two runs: at its next one the replacement's exits, before anything else."""
    factory, fakes = Factory(), Fakes()
    loop = new_loop()
    own = loop.run_until_complete(factory.use())
    with override(factory.make, fakes):
        loop.run_until_complete(factory.use())
    assert open_ones(fakes) == ["f0"]
    assert loop.run_until_complete(factory.use()) is own
    loop.run_until_complete(turns())
    assert open_ones(fakes) == []
    loop.close()
    assert [*factory.log, *fakes.log] == [*enters("0"), *exits("0"), *enters("f0"), *exits("f0")]


def test_a_loop_that_runs_no_more(new_loop: NewLoop) -> None:
    """A loop that is closed after the block exits what the replacement has made then; of one closed in it, all is over."""
    factory, fakes = Factory(), Fakes()
    for is_closed_within in (True, False):
        loop = new_loop()
        with override(factory.make, fakes):
            loop.run_until_complete(factory.use())
            if is_closed_within:
                loop.close()
        loop.close()
    assert fakes.log == [*enters("f0"), *exits("f0"), *enters("f1"), *exits("f1")]


def test_a_run_in_the_block(run: Run) -> None:
    """A whole run within the block, as in a test without a plugin, ends what the replacement has made."""
    factory, fakes = Factory(), Fakes()
    with override(factory.make, fakes):
        run(factory.use())
        run(factory.use())
    assert fakes.log == [*enters("f0"), *exits("f0"), *enters("f1"), *exits("f1")]
    run(factory.use())
    assert factory.log == [*enters("0"), *exits("0")]


def test_two_threads_whose_blocks_overlap(new_loop: NewLoop) -> None:
    """Both see what the one that began last has made, whichever ends first; when both are over, each has its own again."""
    factory, first, second = Factory(), Fakes(), Fakes()
    steps: dict[str, Future[None]] = {name: Future() for name in ("begun", "second is over")}

    def other() -> None:
        steps["begun"].result(10)
        with override(factory.make, second):
            names.append(thread.run(factory.use()).name)
        steps["second is over"].set_result(None)

    names: list[str] = []
    other_thread = threading.Thread(target=other)
    other_thread.start()
    with LoopThread(new_loop) as thread:
        with override(factory.make, first):
            names.append(thread.run(factory.use()).name)
            steps["begun"].set_result(None)
            steps["second is over"].result(10)
            assert thread.run(factory.use()) is first.made[0]
        thread.run(turns())
        assert open_ones(first) == open_ones(second) == []
        names.append(thread.run(factory.use()).name)
    other_thread.join()
    assert names == ["f0", "f0", "0"]


def test_many_threads_at_a_time(new_loop: NewLoop) -> None:
    """Threads that replace one factory again and again, while a loop uses it, leave it as it was, and nothing open."""
    made: list[Recorded] = []

    def replacement(host: str = "h", port: int = 80) -> Recorded:
        made.append(Recorded(turns=0))
        return made[-1]

    factory = Factory()

    def replace() -> None:
        for _ in range(30):
            with override(factory.make, replacement):
                assert thread.run(factory.use()).name in {"r", "0"}

    with LoopThread(new_loop) as thread:
        in_threads(*[replace] * 4)
        own = thread.run(factory.use())
        thread.run(turns())
        assert own.name == "0"
        assert [each for each in made if each.is_open] == []
    assert not own.is_open


# Memory.


class Watched:
    """A factory of context managers that can be watched, as it can itself."""

    def __init__(self) -> None:
        self.refs: list[weakref.ref[Any]] = [weakref.ref(self)]

    def __call__(self) -> Held:
        held = Held()
        self.refs.append(weakref.ref(held))
        return held


class Held(nullcontext[None]):
    """A context manager to which weak references are possible."""


make_held = sticky_singleton_acm(Held)


@on_each_loop
async def test_nothing_of_it_is_kept() -> None:
    """The replacement, and what it has made, go by reference counting once that has exited, nested blocks' too."""
    outer, inner = Watched(), Watched()
    refs = outer.refs, inner.refs
    with collector.disabled():
        with override(make_held, outer):
            await make_held()
            with override(make_held, inner):
                await make_held()
        del outer, inner
        await turns()
        assert [[ref() for ref in each] for each in refs] == [[None, None], [None, None]]


def test_a_block_that_goes_on_keeps_nothing_of_an_older_one(run: Run) -> None:
    """Of blocks that overlap, the newer one does not keep the replacement of the older one, once that has ended."""
    first = Watched()
    refs = first.refs
    with collector.disabled():
        older, newer = override(make_held, first), override(make_held, Watched())
        older.__enter__()
        run(make_held_once())
        newer.__enter__()
        older.__exit__(None, None, None)
        del first, older
        assert [ref() for ref in refs] == [None, None]
        newer.__exit__(None, None, None)


async def make_held_once() -> None:
    await make_held()


def test_it_keeps_no_loop_alive(new_loop: NewLoop) -> None:
    """A loop on which the replacement was used goes as soon as it has been closed, in the block and after it."""
    with collector.disabled():
        for is_closed_within in (True, False):
            loop = new_loop()
            with override(make_held, Watched()):
                loop.run_until_complete(make_held_once())
                if is_closed_within:
                    loop.close()
            loop.close()
            ref = weakref.ref(loop)
            del loop
            assert ref() is None


@on_each_loop
async def test_one_block_may_be_entered_again() -> None:
    """The object that `override` returns may be entered in its own block, and after it; each leaving ends one."""
    make = singleton(object)
    own = make()
    replaced = override(make, list[object])
    for _ in range(2):
        with replaced:
            with replaced:
                assert make() == []
            assert make() == []
        assert make() is own
