"""What is given wrongly is refused with its name and how to put it right, as early as it can be known."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from asyncio_loop_local import (
    LoopVar,
    StickyACM,
    _atexit,
    aclose,
    atexit,
    enter,
    enter_once,
    format_resources,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)
from asyncio_loop_local import release as release_typed
from recording import on_one_loop

# Everything here is wrong on purpose, so the checkers are not asked.
enter_any: Callable[[Any], Awaitable[Any]] = enter
enter_once_any: Callable[[Any], Awaitable[Any]] = enter_once
singleton_any: Callable[..., Any] = singleton
sticky_singleton_any: Callable[..., Any] = sticky_singleton_acm
release: Callable[..., Awaitable[bool]] = release_typed
register: Callable[..., Any] = atexit.register
variable_any: Callable[..., Any] = LoopVar


@pytest.fixture(autouse=True)
def nothing_is_left_unawaited() -> Generator[None]:
    """A "never awaited" warning, or any other, of what a test has dropped is that test's failure."""
    yield
    gc.collect()


class Plain:
    pass


class Closing:
    async def aclose(self) -> None: ...


class SyncManager:
    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


class Acm:
    async def __aenter__(self) -> Acm:
        return self

    async def __aexit__(self, *exc: object) -> None: ...


class HalfAcm:
    async def __aenter__(self) -> None: ...


class OnInstance:
    """Has the two methods on the instance, where async with does not look."""

    def __init__(self) -> None:
        self.__aenter__ = Acm().__aenter__
        self.__aexit__ = Acm().__aexit__


async def coroutine_function() -> Acm:
    return Acm()


async def async_generator_function() -> AsyncGenerator[int]:
    yield 1


def generator_function() -> Generator[int]:
    yield 1


@contextmanager
def sync_manager() -> Generator[int]:
    yield 1


@asynccontextmanager
async def acm_function() -> AsyncGenerator[int]:
    yield 1


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


# What is no ACM: how it is made, how the error calls it, and how to put it right.
NO_ACM: dict[str, tuple[Callable[[], object], str, str]] = {
    "coroutine function": (lambda: coroutine_function, r"callable, coroutine_function", "call it"),
    "coroutine": (coroutine_function, r"coroutine, of coroutine_function\(\)", "@contextlib.asynccontextmanager"),
    "async generator function": (lambda: async_generator_function, "async_generator_function", "call it"),
    "async generator": (
        async_generator_function,
        r"async generator, of async_generator_function\(\)",
        "@contextlib.asynccontextmanager",
    ),
    "generator": (generator_function, r"generator, of generator_function\(\)", "@contextlib.asynccontextmanager"),
    "future": (future, "awaitable, of class Future", "await it"),
    "ACM function": (lambda: acm_function, "callable, acm_function", "call it"),
    "class": (lambda: Acm, "class Acm", "call the class"),
    "sync manager": (SyncManager, "synchronous context manager, of class SyncManager", "asynccontextmanager"),
    "sync manager function": (sync_manager, "synchronous context manager", "asynccontextmanager"),
    "with aclose": (Closing, "object of class Closing", "close=Closing.aclose"),
    "half an ACM": (HalfAcm, "object of class HalfAcm", "__aexit__"),
    "methods on the instance": (OnInstance, "object of class OnInstance", "__aexit__"),
    "object": (Plain, "object of class Plain", "__aenter__ and __aexit__"),
    "None": (lambda: None, "NoneType", "__aenter__ and __aexit__"),
    "number": (lambda: 3, "object of class int", "__aenter__ and __aexit__"),
    "wrapped factory": (lambda: sticky_singleton_acm(acm_function), "callable, acm_function", "call it"),
}
no_acm = pytest.mark.parametrize(("made", "named", "fix"), NO_ACM.values(), ids=list(NO_ACM))


async def call_sticky_acm(acm: Any) -> None:
    sticky_acm(acm)


async def call_class(acm: Any) -> None:
    StickyACM(acm)


TAKERS: dict[Callable[[Any], Awaitable[Any]], str] = {
    enter_any: "enter()",
    enter_once_any: "enter_once()",
    call_sticky_acm: "sticky_acm()",
    call_class: "StickyACM()",
}


@no_acm
@on_one_loop
async def test_only_an_acm_can_be_entered(made: Callable[[], object], named: str, fix: str) -> None:
    """What is no ACM is refused; the error says what it is and how to make one of it, and nothing stays open.

    By enter() and enter_once(); by sticky_acm() and StickyACM when they are called, not first when the block begins.
    """

    for refuse, where in TAKERS.items():
        with pytest.raises(TypeError, match=named) as caught:
            await refuse(made())
        assert where in str(caught.value)
        assert fix in str(caught.value)
    assert list(resources()) == []
    await enter(Acm())


@no_acm
@on_one_loop
async def test_a_factory_must_make_acms(made: Callable[[], object], named: str, fix: str) -> None:
    """A sticky factory that returns what is no ACM is refused by the call, which remembers nothing."""
    results: list[Callable[[], object]] = [made, Acm]

    make = sticky_singleton_any(lambda: results.pop(0)())
    with pytest.raises(TypeError, match=named) as caught:
        make()
    assert fix in str(caught.value)
    assert "sticky_singleton_acm()" in str(caught.value)
    async with make() as acm:
        assert isinstance(acm, Acm)


def test_functions_that_can_make_no_acm_are_refused_when_they_are_wrapped() -> None:
    """An async generator function or a coroutine function is refused by sticky_singleton_acm() itself, with the decorator."""
    for factory, kind in ((async_generator_function, "async generator function"), (coroutine_function, "coroutine function")):
        for wrap in (sticky_singleton_any, sticky_singleton_any()):
            with pytest.raises(TypeError, match=kind) as caught:
                wrap(factory)
            assert factory.__name__ in str(caught.value)
            assert "@contextlib.asynccontextmanager" in str(caught.value)


NOT_CALLABLE: dict[str, Callable[[], object]] = {
    "number": lambda: 3,
    "None": lambda: None,
    "text": lambda: "connect",
    "instance": Plain,
    "ACM": Acm,
    "classmethod": lambda: vars(WithMethods)["of_class"],
    "property": lambda: vars(WithMethods)["attribute"],
}


class WithMethods:
    @classmethod
    def of_class(cls) -> None: ...

    @property
    def attribute(self) -> int:
        return 1


@pytest.mark.parametrize("made", NOT_CALLABLE.values(), ids=list(NOT_CALLABLE))
def test_a_factory_must_be_callable(made: Callable[[], object]) -> None:
    """Wrapping what cannot be called is a TypeError, at once and without a loop, with and without parentheses."""
    factory = made()
    for wrap in (singleton_any, sticky_singleton_any):
        for decorate in (wrap, wrap(), wrap(key=lambda: 1)):
            with pytest.raises(TypeError, match="'factory'") as caught:
                decorate(factory)
            assert wrap.__name__ in str(caught.value)
            assert type(factory).__name__ in str(caught.value)
            assert "callable" in str(caught.value)
            if made is NOT_CALLABLE["classmethod"]:
                assert "decorate under @classmethod" in str(caught.value)


def test_a_key_must_be_no_coroutine_function() -> None:
    """A coroutine function as key= would make a new key at each call: it is a TypeError, when the factory is wrapped."""
    for wrap in (singleton_any, sticky_singleton_any):
        with pytest.raises(TypeError, match=r"'key' of .* plain function, not a coroutine function"):
            wrap(acm_function, key=coroutine_function)


@on_one_loop
async def test_what_runs_nothing_when_it_is_called_is_refused() -> None:
    """An async generator function as close=, or as a callback, is a TypeError at once: calling it would close nothing."""
    for use in (
        partial(singleton_any, acm_function, close=async_generator_function),
        partial(variable_any, "variable", close=async_generator_function),
        partial(register, async_generator_function),
        partial(register, partial(async_generator_function)),
    ):
        with pytest.raises(TypeError, match="must not be an async generator function, of which a call runs nothing: pass"):
            use()


def test_unknown_arguments_of_decorators_are_refused() -> None:
    """A decorator that is given what it does not know says so."""
    for wrap in (singleton_any, sticky_singleton_any):
        with pytest.raises(TypeError):
            wrap(acm_function, acm_function)
        with pytest.raises(TypeError):
            wrap(maxsize=3)


@on_one_loop
async def test_callbacks_must_be_callable() -> None:
    """atexit.register() refuses what cannot be called, says what it is, and for an awaitable what to pass instead."""

    for wrong in (3, None, "f", Plain()):
        with pytest.raises(TypeError, match=r"'function' of atexit\.register\(\).*callable") as caught:
            register(wrong)
        assert type(wrong).__name__ in str(caught.value)
    for awaitable in (future, coroutine_function):  # the coroutine does not warn that it was never awaited
        with pytest.raises(TypeError, match="pass the function, and its arguments after it"):
            register(awaitable())
    assert list(resources()) == []


NEED_A_LOOP: dict[str, Callable[[], object]] = {
    "storage": storage,
    "singleton": lambda: singleton(Plain)(),
    "singleton with a key": lambda: singleton_any(Plain, key=lambda: 1)(),
    "sticky_singleton_acm": lambda: sticky_singleton_acm(acm_function)(),
    "sticky_singleton_acm with a key": lambda: sticky_singleton_any(acm_function, key=lambda: 1)(),
    "atexit.register": lambda: atexit.register(print),
    "atexit.unregister": lambda: atexit.unregister(print),
    "resources": resources,
    "format_resources": format_resources,
    "enter": lambda: run_without_loop(enter(Acm())),
    "enter_once": lambda: run_without_loop(enter_once(Acm())),
    "sticky_acm": lambda: run_without_loop(sticky_acm(Acm()).__aenter__()),
    "aclose": lambda: run_without_loop(aclose()),
    "release": lambda: run_without_loop(release(singleton(Plain))),
    "_atexit._fire": lambda: run_without_loop(_atexit._fire()),
}


def run_without_loop(awaitable: Awaitable[object]) -> None:
    for _ in awaitable.__await__():
        raise AssertionError("it waits, and no loop runs")


@pytest.mark.parametrize("call", NEED_A_LOOP.values(), ids=list(NEED_A_LOOP))
def test_what_needs_a_loop_says_so(call: Callable[[], object]) -> None:
    """Where no loop runs, everything that needs one raises RuntimeError("no running event loop")."""
    with pytest.raises(RuntimeError) as caught:
        call()
    assert str(caught.value) == "no running event loop"


def test_wrapping_needs_no_loop() -> None:
    """At module level, where no loop runs, everything can be wrapped, and works on the loops that come."""
    make, make_acm, acm = singleton(Plain), sticky_singleton_acm(acm_function), sticky_acm(Acm())

    async def main() -> None:
        assert make() is make()
        async with make_acm() as one, acm as two:
            assert one == 1
            assert isinstance(two, Acm)

    asyncio.run(main())
    asyncio.run(main())


@on_one_loop
async def test_an_enter_that_is_not_awaitable_is_an_error_of_its_own() -> None:
    """An ACM whose __aenter__ or __aexit__ returns what cannot be awaited gets Python's TypeError, and nothing hangs."""

    def gives_a_number(*_args: object) -> int:
        return 3

    enters_oddly: Any = type("EntersOddly", (Acm,), {"__aenter__": gives_a_number})
    exits_oddly: Any = type("ExitsOddly", (Acm,), {"__aexit__": gives_a_number})

    with pytest.raises(TypeError, match="int"):
        await enter(enters_oddly())
    with pytest.raises(TypeError, match="int"):
        async with sticky_acm(enters_oddly()):
            raise AssertionError
    await enter(exits_oddly())
    with pytest.raises(ExceptionGroup) as caught:
        await aclose()
    assert [type(error) for error in caught.value.exceptions] == [TypeError]
