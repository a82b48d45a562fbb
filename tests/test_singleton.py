"""A function whose result is made once per event loop and key."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import threading
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any, Generic, TypeVar
from unittest.mock import MagicMock

import pytest

import collector
from asyncio_loop_local import aclose, singleton, storage
from conftest import Run
from recording import in_threads, on_each_loop, on_one_loop

T = TypeVar("T")


class Made:
    """What the factories of these tests make."""

    def __init__(self, host: str = "h", port: int = 80) -> None:
        self.host = host
        self.port = port


@on_each_loop
async def test_the_factory_runs_once_per_loop_and_key(log: list[str]) -> list[str]:
    """Equal log on one loop get the same object; other arguments get another one."""

    @singleton
    def connect(host: str) -> Made:
        log.append(host)
        return Made(host)

    one = connect("a")
    assert one.host == "a"
    await asyncio.sleep(0)
    assert connect("a") is one
    assert connect(host="a") is one
    assert connect("b") is not one
    assert connect("b").host == "b"
    return ["a", "b"]


def test_each_loop_makes_its_own(run: Run) -> None:
    """The values of one loop are not known to the next, nor to loops in other threads that ask at the same moment."""
    together = threading.Barrier(4, timeout=20)
    made_in: dict[int, int] = {}
    got: list[tuple[int, list[Made]]] = []

    @singleton
    def make() -> Made:
        made = Made()
        made_in[id(made)] = threading.get_ident()
        return made

    async def main() -> None:
        together.wait()
        got.append((threading.get_ident(), [make() for _ in range(100)]))
        together.wait()

    in_threads(*[lambda: [run(main()) for _ in range(2)]] * 4)
    assert len({id(values[0]) for _, values in got}) == len(got) == 8
    for thread_id, values in got:
        assert {id(made) for made in values} == {id(values[0])}
        assert made_in[id(values[0])] == thread_id


@pytest.mark.parametrize("value", [None, 0, [], {}, ValueError("returned")], ids=repr)
@on_each_loop
async def test_any_value_is_remembered(log: list[str], value: object) -> list[str]:
    """A factory that returns None, an empty container or an exception object runs once too."""

    @singleton
    def make() -> object:
        log.append("run")
        return value

    assert make() is make() is value
    return ["run"]


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
@on_one_loop
async def test_an_error_is_not_remembered(error: type[BaseException]) -> None:
    """Whatever ends the factory, the next call runs it again."""
    factory = MagicMock(side_effect=[error("now"), "made"])
    make = singleton(factory)
    with pytest.raises(error, match="now"):
        make()
    assert [make(), make()] == ["made", "made"]
    assert factory.call_count == 2


@on_each_loop
async def test_all_tasks_and_callbacks_of_a_loop_share_the_value() -> None:
    """Tasks and plain callbacks of a loop get the same value."""
    make = singleton(Made)

    async def get() -> Made:
        await asyncio.sleep(0)
        return make()

    got: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: got.set_result(make()))
    assert len({id(made) for made in await asyncio.gather(get(), get(), got)}) == 1


def test_without_a_running_loop_it_is_refused() -> None:
    """Where no loop runs, the call raises `RuntimeError`, and the factory is not called."""
    calls: list[int] = []
    make = singleton(lambda: calls.append(1))
    with pytest.raises(RuntimeError) as caught:
        make()
    assert str(caught.value) == "no running event loop"
    assert caught.value.__context__ is None
    assert calls == []

    async def main() -> None:
        make()

    asyncio.run(main())
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        make()
    assert calls == [1]


class Hub:
    """Has singletons of every kind of method."""

    @singleton
    def session(self, name: str = "n") -> tuple[Hub, str, object]:
        return self, name, object()

    @classmethod
    @singleton
    def of_class(cls) -> tuple[type[Hub], object]:
        return cls, object()

    @staticmethod
    @singleton
    def of_all(name: str = "n") -> list[str]:
        return [name]

    @property
    @singleton
    def pool(self) -> object:
        return object()


class SubHub(Hub):
    pass


def test_methods_and_properties(run: Run) -> None:
    """Methods and properties have a value for each instance, class methods one for each class, static methods one for all."""
    hub = Hub()

    async def main() -> list[object]:
        other, sub = Hub(), SubHub()
        assert hub.session()[0] is hub
        assert sub.session()[0] is sub
        assert hub.session() is hub.session(name="n") is Hub.session(hub)
        assert len({id(each) for each in (hub.session(), hub.session("m"), other.session(), sub.session())}) == 4
        assert (Hub.of_class()[0], SubHub.of_class()[0]) == (Hub, SubHub)
        assert Hub.of_class() is hub.of_class() is not SubHub.of_class()
        assert Hub.of_all() is hub.of_all("n") is SubHub.of_all(name="n")
        assert hub.pool is hub.pool is not other.pool
        return [hub.pool, other.pool]

    assert len({id(pool) for pool in (*run(main()), *run(main()))}) == 4


def plain(host: str, port: int = 80, *more: int, tls: bool = False, **options: str) -> Made:
    """Connects."""
    return Made(host, port)


class Kind(Generic[T]):
    """A generic class."""

    def __init__(self, value: T, *, size: int = 1) -> None:
        self.value = value


class Maker:
    """Makes things."""

    def __call__(self, host: str, port: int = 80) -> Made:
        return Made(host, port)

    def method(self, host: str, port: int = 80) -> Made:
        """Makes one."""
        return Made(host, port)


LOOKS: list[tuple[Callable[..., object], str, str | None]] = [
    (plain, "plain", "Connects."),
    (Kind, "Kind", "A generic class."),
    (Maker().method, "method", "Makes one."),
    (functools.partial(plain, "h", tls=True), "plain", "Connects."),
    (functools.partial(Maker().method, "h"), "Maker.method", "Makes one."),
    (Maker(), "Maker", "Makes things."),
    (len, "len", len.__doc__),
    (dict, "dict", dict.__doc__),
    (functools.lru_cache(plain), "plain", "Connects."),
]


@pytest.mark.parametrize(("factory", "name", "doc"), LOOKS, ids=lambda it: getattr(it, "__name__", None))
def test_it_looks_like_what_it_wraps(factory: Callable[..., object], name: str, doc: str | None) -> None:
    """A wrapped factory is a function with the factory's name, documentation, module, signature and __wrapped__."""
    make: Any = singleton(factory)
    assert type(make) is FunctionType
    assert make.__name__ == name
    assert make.__qualname__ == getattr(factory, "__qualname__", name)
    assert make.__doc__ == doc
    assert vars(make)["__wrapped__"] is factory
    assert make.__module__ == (__name__ if name not in ("len", "dict") else "builtins")
    try:
        signature = inspect.signature(factory)
    except ValueError:
        with pytest.raises(ValueError, match="no signature"):
            inspect.signature(make)
    else:
        assert inspect.signature(make) == signature


def test_attributes_of_a_function_are_kept() -> None:
    """Attributes that other decorators set on a function, and its annotations, are on the wrapped function too."""

    def factory(host: str) -> int:
        return 1

    vars(factory)["mark"] = 3
    make: Any = singleton(factory)
    assert make.mark == 3
    assert make.__annotations__ == factory.__annotations__


@on_each_loop
async def test_it_decorates_with_and_without_parentheses() -> None:
    """@singleton and @singleton() do the same."""

    @singleton
    def bare() -> object:
        return object()

    @singleton()
    def called() -> object:
        return object()

    assert bare() is bare()
    assert called() is called()
    assert bare() is not called()
    assert (bare.__name__, called.__name__) == ("bare", "called")


@on_each_loop
async def test_each_wrapping_is_its_own() -> None:
    """Two wrappers of one factory share nothing; a wrapper of a wrapper gives the same value."""
    one, two = singleton(Made), singleton(Made)
    outer = singleton(one)

    assert one() is not two()
    assert outer() is one()
    assert outer() is outer(host="h")


def test_values_and_arguments_live_exactly_as_long_as_the_loop(run: Run) -> None:
    """The loop keeps a value and the call's arguments alive while it runs; then reference counting alone frees them."""
    kept: list[weakref.ref[Any]] = []

    class Holder:
        def __init__(self, argument: object) -> None:
            self.loop = asyncio.get_running_loop()

    make = singleton(Holder)

    async def main() -> None:
        argument = Made()
        kept.extend([weakref.ref(make(argument)), weakref.ref(argument)])
        del argument
        gc.collect()
        await asyncio.sleep(0)
        assert all(ref() is not None for ref in kept)

    with collector.disabled():
        run(main())
        assert [ref() for ref in kept] == [None, None]


@on_each_loop
async def test_aclose_forgets_values_and_storage_does_not() -> None:
    """After `aclose` the next call makes a new value; `storage` does not contain values, and clearing it changes nothing."""
    make = singleton(Made)

    one = make()
    assert storage() == {}
    storage().clear()
    assert make() is one
    await aclose()
    assert make() is make() is not one


@on_each_loop
async def test_singletons_may_use_each_other() -> None:
    """A factory may call other singletons, and itself with other arguments."""

    @singleton
    def settings() -> dict[str, int]:
        return {"size": 3}

    @singleton
    def pool(name: str) -> tuple[str, dict[str, int]]:
        return name, settings()

    @singleton
    def factorial(number: int) -> int:
        return number * factorial(number - 1) if number else 1

    assert pool("a")[1] is pool("b")[1] is settings()
    assert factorial(20) == 2432902008176640000


@on_each_loop
async def test_a_factory_that_makes_its_own_call_gets_one_value(log: list[str]) -> list[str]:
    """If a factory makes the same call that it is running for, both calls return the same value."""
    inner: list[Made] = []

    @singleton
    def make() -> Made:
        log.append("run")
        if len(log) == 1:
            inner.append(make())
        return Made()

    assert make() is make() is inner[0]
    return ["run", "run"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@on_each_loop
async def test_the_factory_runs_in_the_callers_task_and_context() -> None:
    """The first caller's task runs the factory, at once, in the caller's own context."""
    seen: list[tuple[object, str]] = []

    @singleton
    def make() -> Made:
        seen.append((asyncio.current_task(), variable.get()))
        variable.set("by the factory")
        return Made()

    async def first() -> None:
        variable.set("by the caller")
        make()
        assert seen == [(asyncio.current_task(), "by the caller")]
        assert variable.get() == "by the factory"

    await asyncio.create_task(first())
    make()
    assert len(seen) == 1
    assert variable.get() == "unset"
