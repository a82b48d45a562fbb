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

import pytest

from asyncio_loop_local import aclose, singleton, storage
from conftest import Run

T = TypeVar("T")


class Made:
    """What the factories of these tests make."""

    def __init__(self, host: str = "h", port: int = 80) -> None:
        self.host = host
        self.port = port


def test_the_factory_runs_once_per_loop_and_key(run: Run) -> None:
    """Equal calls on one loop get the same object; other arguments get another one."""
    calls: list[str] = []

    @singleton
    def connect(host: str) -> Made:
        calls.append(host)
        return Made(host)

    async def main() -> None:
        one = connect("a")
        assert one.host == "a"
        await asyncio.sleep(0)
        assert connect("a") is one
        assert connect(host="a") is one
        assert connect("b") is not one
        assert connect("b").host == "b"

    run(main())
    assert calls == ["a", "b"]


def test_a_second_loop_makes_its_own(run: Run) -> None:
    """What one loop has made is not known to the next."""
    make = singleton(Made)

    async def main() -> Made:
        assert make() is make()
        return make()

    assert run(main()) is not run(main())


def test_none_and_other_false_values_are_remembered(run: Run) -> None:
    """A factory that returns None, or an empty container, runs once too."""
    values: list[object] = [None, 0, [], {}]
    for value in values:
        calls: list[object] = []

        def factory(value: object = value, calls: list[object] = calls) -> object:
            calls.append(value)
            return value

        make = singleton(factory)

        async def main(make: Callable[[], object] = make, value: object = value) -> None:
            assert make() is value
            assert make() is value

        run(main())
        assert len(calls) == 1


def test_two_tasks_get_the_same(run: Run) -> None:
    """All tasks of a loop share what it has made."""
    make = singleton(Made)

    async def get() -> Made:
        await asyncio.sleep(0)
        return make()

    async def main() -> None:
        one, two = await asyncio.gather(get(), get())
        assert one is two

    run(main())


def test_threads_with_loops_of_their_own_share_nothing(run: Run) -> None:
    """Each thread's loop has its own, made in that thread, also where all ask at once."""
    barrier = threading.Barrier(4)
    made_in: dict[int, int] = {}
    got: list[tuple[int, list[Made]]] = []

    @singleton
    def make() -> Made:
        made = Made()
        made_in[id(made)] = threading.get_ident()
        return made

    async def main() -> None:
        barrier.wait(10)
        got.append((threading.get_ident(), [make() for _ in range(100)]))
        barrier.wait(10)

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(all_of_one[0]) for _, all_of_one in got}) == 4
    for thread_id, all_of_one in got:
        assert all(made is all_of_one[0] for made in all_of_one)
        assert made_in[id(all_of_one[0])] == thread_id


def test_without_a_running_loop_it_is_refused() -> None:
    """Where no loop runs, the call raises RuntimeError, and the factory is not called."""
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


def test_methods_bind_as_functions_do(run: Run) -> None:
    """In a class, self is an argument as any other: each instance has its own, by identity if it has no __eq__."""

    class Hub:
        @singleton
        def session(self, name: str = "n") -> tuple[Hub, str, object]:
            return self, name, object()

    class SubHub(Hub):
        pass

    async def main() -> None:
        hub, other, sub = Hub(), Hub(), SubHub()
        assert hub.session()[0] is hub
        assert hub.session() is hub.session(name="n")
        assert hub.session() is Hub.session(hub)
        assert hub.session() is not hub.session("m")
        assert hub.session() is not other.session()
        assert sub.session()[0] is sub
        assert sub.session() is sub.session("n")

    run(main())


def test_classmethods_and_staticmethods_stack_over_it(run: Run) -> None:
    """@classmethod and @staticmethod over a singleton give one value a class, and one for all."""

    class Hub:
        @classmethod
        @singleton
        def of_class(cls) -> tuple[type[Hub], object]:
            return cls, object()

        @staticmethod
        @singleton
        def of_all(name: str = "n") -> list[str]:
            return [name]

    class SubHub(Hub):
        pass

    async def main() -> None:
        assert Hub.of_class()[0] is Hub
        assert Hub.of_class() is Hub().of_class()
        assert SubHub.of_class()[0] is SubHub
        assert SubHub.of_class() is not Hub.of_class()
        assert Hub.of_all() is Hub().of_all("n")
        assert SubHub.of_all() is Hub.of_all(name="n")

    run(main())


def test_a_property_stacks_over_it(run: Run) -> None:
    """@property over a singleton gives one value an instance and loop."""

    class Hub:
        @property
        @singleton
        def session(self) -> object:
            return object()

    async def main() -> tuple[object, object]:
        assert hub.session is hub.session
        return hub.session, Hub().session

    hub = Hub()
    first, second = run(main()), run(main())
    assert len({id(session) for session in (*first, *second)}) == 4


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
    made: Any = make
    assert make.__name__ == name
    assert make.__qualname__ == getattr(factory, "__qualname__", name)
    assert make.__doc__ == doc
    assert made.__wrapped__ is factory
    assert make.__module__ == (__name__ if name not in ("len", "dict") else "builtins")
    try:
        signature = inspect.signature(factory)
    except ValueError:
        with pytest.raises(ValueError, match="no signature"):
            inspect.signature(make)
    else:
        assert inspect.signature(make) == signature


def test_attributes_of_a_function_are_kept() -> None:
    """What other decorators have set on a function is found on the wrapped one, annotations too."""

    def factory(host: str) -> int:
        return 1

    vars(factory)["mark"] = 3
    make: Any = singleton(factory)
    assert make.mark == 3
    assert make.__annotations__ == factory.__annotations__


def test_it_decorates_with_and_without_parentheses(run: Run) -> None:
    """@singleton and @singleton() do the same."""

    @singleton
    def bare() -> object:
        return object()

    @singleton()
    def called() -> object:
        return object()

    async def main() -> None:
        assert bare() is bare()
        assert called() is called()
        assert bare() is not called()

    run(main())
    assert (bare.__name__, called.__name__) == ("bare", "called")


def test_each_wrapping_is_its_own(run: Run) -> None:
    """Two wrapped functions of one factory share nothing; one of the other runs the factory once."""
    one, two = singleton(Made), singleton(Made)
    outer = singleton(one)

    async def main() -> None:
        assert one() is not two()
        assert outer() is one()
        assert outer() is outer(host="h")

    run(main())


def test_what_was_made_lives_until_the_loop_ends(run: Run) -> None:
    """The loop keeps a value, and the arguments of the call, alive for as long as it runs, and then lets them go."""

    class Argument:
        pass

    kept: list[weakref.ref[Any]] = []

    @singleton
    def make(argument: object) -> Made:
        return Made()

    async def main() -> None:
        argument = Argument()
        kept.extend([weakref.ref(make(argument)), weakref.ref(argument)])
        del argument
        gc.collect()
        await asyncio.sleep(0)
        assert all(ref() is not None for ref in kept)

    run(main())
    assert [ref() for ref in kept] == [None, None]


def test_it_is_let_go_without_the_garbage_collector(run: Run) -> None:
    """A loop's values, also one that refers to its loop, are freed when the loop has ended, by reference counting alone."""
    kept: list[weakref.ref[Any]] = []

    class Holder:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()

    make = singleton(Holder)

    async def main() -> None:
        kept.append(weakref.ref(make()))

    gc.disable()
    try:
        run(main())
        assert kept[0]() is None
    finally:
        gc.enable()


def test_aclose_forgets_what_was_made(run: Run) -> None:
    """After aclose() the next call makes anew."""
    make = singleton(Made)

    async def main() -> None:
        one = make()
        await aclose()
        assert make() is not one
        assert make() is make()

    run(main())


def test_singletons_may_use_each_other(run: Run) -> None:
    """A factory may ask for what other factories make, and for itself with other arguments."""

    @singleton
    def settings() -> dict[str, int]:
        return {"size": 3}

    @singleton
    def pool(name: str) -> tuple[str, dict[str, int]]:
        return name, settings()

    @singleton
    def factorial(number: int) -> int:
        return number * factorial(number - 1) if number else 1

    async def main() -> None:
        assert pool("a")[1] is pool("b")[1] is settings()
        assert factorial(20) == 2432902008176640000

    run(main())


def test_a_factory_that_makes_its_own_call_gets_one_value(run: Run) -> None:
    """If a factory ends up making the very call that it answers, all who call get the one value that is remembered."""
    depth = 0

    @singleton
    def make() -> Made:
        nonlocal depth
        depth += 1
        if depth == 1:
            inner.append(make())
        return Made()

    inner: list[Made] = []

    async def main() -> None:
        outer = make()
        assert outer is inner[0]
        assert make() is outer

    run(main())
    assert depth == 2


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_the_factory_runs_in_the_callers_task_and_context(run: Run) -> None:
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

    async def main() -> None:
        await asyncio.create_task(first())
        make()
        assert len(seen) == 1
        assert variable.get() == "unset"

    run(main())


def test_it_works_in_callbacks_of_the_loop(run: Run) -> None:
    """A plain callback, which is no task, finds the same."""
    make = singleton(Made)

    async def main() -> None:
        got: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: got.set_result(make()))
        assert await got is make()

    run(main())


def test_it_has_nothing_to_do_with_storage(run: Run) -> None:
    """What singletons have made is not in the dict of the loop's users."""
    make = singleton(Made)

    async def main() -> None:
        one = make()
        assert storage() == {}
        storage().clear()
        assert make() is one

    run(main())


def test_exceptions_are_no_values(run: Run) -> None:
    """A factory that fails is asked again; an exception object that it returns is a value."""
    outcomes: list[Any] = [ConnectionError("down"), None]

    @singleton
    def fail() -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "up"

    returned = ValueError("returned")
    give = singleton(lambda: returned)

    async def main() -> None:
        with pytest.raises(ConnectionError, match="down"):
            fail()
        assert fail() == "up"
        assert fail() == "up"
        assert give() is returned

    run(main())
    assert outcomes == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_an_interrupted_factory_is_not_remembered(stop: type[BaseException]) -> None:
    """Whatever ends the factory, the next call runs it anew."""
    outcomes: list[Any] = [stop("now"), None]

    @singleton
    def make() -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "made"

    async def main() -> None:
        with pytest.raises(stop):
            make()
        assert make() == "made"

    asyncio.run(main())
    assert outcomes == []
