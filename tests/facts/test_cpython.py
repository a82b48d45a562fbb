"""What CPython does that is surprising, and that the library needs: caches, hashes, slots, cycles, signals, exits, forks."""

from __future__ import annotations

import array
import asyncio
import functools
import gc
import inspect
import io
import os
import random
import signal
import sqlite3
import sys
import threading
import unittest
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct, calcsize
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType
from typing import Any, cast

import attrs
import httpx
import pydantic
import pytest

import collector
from facts import NewLoop, Node, open_loop, python, set_to_call_first
from key_counts import Written, call

# Caches.


@pytest.fixture
def calls() -> list[Any]:
    """The arguments of each call that a typed cache had to make."""
    return []


@pytest.fixture
def find(calls: list[Any]) -> Callable[..., object]:
    """A function with a typed cache, which gives a new object for what is not in the cache."""

    @lru_cache(maxsize=None, typed=True)
    def find(*args: Any, **kwargs: Any) -> object:
        calls.append((args, kwargs))
        return object()

    return find


class Ours(tuple[Any, ...]):
    __slots__ = ()


NAN = float("nan")
CALLS: dict[str, tuple[int, list[Written]]] = {
    "equal values of one type": (1, [call(1), call(1)]),
    "types within a tuple": (1, [call((1,)), call((True,)), call((1.0,))]),
    "types within a frozenset": (1, [call(frozenset({1})), call(frozenset({True}))]),
    "equal tuples of a subclass": (1, [call(Ours((1, 2))), call(Ours((1, 2)))]),
    "one object that is not equal to itself": (1, [call(NAN), call(NAN)]),
    "types, by position": (3, [call(1), call(True), call(1.0)]),
    "types, by name": (3, [call(k=1), call(k=True), call(k=1.0)]),
    "order of names, and by position": (4, [call(a=1, b=2), call(b=2, a=1), call(1, b=2), call(1, 2)]),
    "a tuple and an equal one of a subclass": (2, [call((1, 2)), call(Ours((1, 2)))]),
    "two objects that are not equal to themselves": (2, [call(NAN), call(float("nan"))]),
}


@pytest.mark.parametrize("what", list(CALLS))
def test_which_calls_a_typed_cache_takes_for_one(find: Callable[..., object], what: str) -> None:
    """`lru_cache(typed=True)` tells types of arguments apart, not of items, and the order of names; identity counts first."""
    count, calls = CALLS[what]
    assert len({find(*args, **kwargs) for args, kwargs in calls}) == count


def test_a_cache_forgets_a_call_that_raised() -> None:
    """`lru_cache` calls a function again that has raised, and keeps only its result."""
    results: list[int] = []

    @lru_cache(maxsize=None, typed=True)
    def find(key: str) -> int:
        return results[0]

    with pytest.raises(IndexError):
        find("a")
    results.append(3)
    assert find("a") == 3
    results.clear()
    assert find("a") == 3


def test_a_cache_hashes_the_arguments_first_and_passes_on_the_very_objects(find: Callable[..., object], calls: list[Any]) -> None:
    """`lru_cache` raises the TypeError of an unhashable argument without a call; else it calls with the objects given."""
    with pytest.raises(TypeError, match="unhashable"):
        find([])
    assert calls == []
    one, two = object(), object()
    find(one, k=two)
    ((args, kwargs),) = calls
    assert args[0] is one
    assert kwargs["k"] is two


def test_the_hash_of_an_argument_may_call_the_same_cache(find: Callable[..., object], calls: list[Any]) -> None:
    """During a look-up, `lru_cache` runs the argument's `__hash__`, which may call the same cache."""

    class Calling:
        def __hash__(self) -> int:
            find("inner")
            return 1

    find(Calling())
    assert [type(args[0]) for args, _ in calls] == [str, Calling]


def test_a_cleared_cache_frees_what_it_held(find: Callable[..., object], calls: list[Any]) -> None:
    """`cache_clear` drops keys and values at once."""
    node = Node()
    freed = weakref.ref(node)
    find(node)
    calls.clear()
    del node
    assert freed() is not None
    cast("Any", find).cache_clear()
    assert freed() is None


# What is hashable, and what objects hold.


class Plain:
    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass
class Data:
    value: int = 0


@attrs.define
class Defined:
    value: int = 0


class Model(pydantic.BaseModel):
    value: int = 0


@pytest.mark.parametrize("kind", [Plain, Data, Defined, Model, httpx.Timeout])
def test_a_class_with_an_eq_of_its_own_has_no_hash(kind: Any) -> None:
    """A Python class that defines or generates `__eq__` has `__hash__ = None`, and its `__eq__` is a function."""
    assert kind.__hash__ is None
    assert type(kind.__eq__) is FunctionType


@pytest.mark.parametrize("kind", [dict, list, set, deque, bytearray])
def test_the_eq_of_a_class_in_c_is_no_function(kind: Any) -> None:
    """An unhashable class written in C has `__hash__ = None` too, but its `__eq__` is a slot wrapper."""
    assert kind.__hash__ is None
    assert type(kind.__eq__) is WrapperDescriptorType


def test_a_writable_memoryview_raises_value_error() -> None:
    """`hash` of a writable memoryview raises ValueError, not TypeError."""
    with pytest.raises(ValueError, match="cannot hash writable memoryview"):
        hash(memoryview(bytearray(b"a")))


def test_pydantic_keeps_which_fields_were_given_out_of_its_eq() -> None:
    """pydantic's `__pydantic_fields_set__` is a slot that may differ between models that are equal."""
    one, other = Model(), Model(value=0)
    assert one == other
    slot = vars(pydantic.BaseModel)["__pydantic_fields_set__"]
    assert type(slot) is MemberDescriptorType
    assert slot.__get__(one) != slot.__get__(other)


def test_slots_are_member_descriptors() -> None:
    """Slots are member descriptors in `vars` of their class, mangled where private; `__dict__` and `__weakref__` are not."""

    class Slotted:
        __slots__ = ("__dict__", "__private", "__weakref__", "public")

    found = vars(Slotted)
    assert {type(found[name]) for name in ("__dict__", "__weakref__")} == {GetSetDescriptorType}
    members = [name for name, slot in found.items() if type(slot) is MemberDescriptorType]
    assert members == ["_Slotted__private", "public"]
    with pytest.raises(AttributeError):
        found["public"].__get__(Slotted(), Slotted)


def test_two_classes_may_have_slots_of_one_name() -> None:
    """A subclass may have a slot with the name of one of its base's: these are two slots, and the base's is hidden."""

    class Base:
        __slots__ = ("value",)

    class Derived(Base):
        __slots__ = ("value",)

    one = Derived()
    vars(Base)["value"].__set__(one, 1)
    vars(Derived)["value"].__set__(one, 2)
    assert (vars(Base)["value"].__get__(one), getattr(one, "value")) == (1, 2)


HEAP = 1 << 9
IN_C: list[Any] = [
    *(dict, list, tuple, BaseException, bytearray, memoryview, array.array, OrderedDict, deque, defaultdict),
    *(functools.partial, Struct, sqlite3.Connection, sqlite3.Cursor, io.TextIOWrapper, asyncio.Future, random.Random),
]
IN_PYTHON: list[Any] = [Plain, Data, Defined, Model, httpx.Timeout, Path]


def looks_like_c(kind: type) -> list[bool]:
    """Three signs of a class that was made in C: no heap flag, a `__new__` of its own, and room for more than its slots."""
    slots = [
        name for name, slot in vars(kind).items() if type(slot) is MemberDescriptorType or name in {"__dict__", "__weakref__"}
    ]
    base = kind.__base__
    return [
        not kind.__flags__ & HEAP,
        getattr(kind.__new__, "__self__", None) is kind,
        base is not None and kind.__basicsize__ > base.__basicsize__ + len(slots) * calcsize("P"),
    ]


@pytest.mark.parametrize(("kind", "is_in_c"), [*((kind, True) for kind in IN_C), *((kind, False) for kind in IN_PYTHON)])
def test_a_class_made_in_c_can_be_recognized(kind: type, is_in_c: bool) -> None:
    """A class written in C that holds something, or one of its bases, shows one of three signs; a class made in Python none."""
    assert any(any(looks_like_c(base)) for base in kind.__mro__ if base is not object) is is_in_c


def test_no_sign_of_a_class_made_in_c_suffices_alone() -> None:
    """Some classes written in C have the heap flag, and some of these have no `__new__` of their own."""
    assert functools.partial.__flags__ & HEAP
    assert sqlite3.Connection.__flags__ & HEAP
    assert cast("Any", sqlite3.Connection.__new__).__self__ is object


def test_a_subclass_of_a_container_may_show_less_than_it_holds() -> None:
    """The `items` of a subclass of dict need not be what dict's own method gives; `isinstance` believes `__class__`."""

    class Hiding(dict[str, int]):
        def items(self) -> Any:
            return {"a": 0}.items()

    class Proxy:
        @property
        def __class__(self) -> Any:
            return dict

        @__class__.setter
        def __class__(self, kind: Any) -> None:
            raise TypeError

    hiding = Hiding(a=1, b=2)
    assert (dict(hiding.items()), dict(dict[str, int].items(hiding))) == ({"a": 0}, {"a": 1, "b": 2})
    assert isinstance(Proxy(), dict)
    assert not issubclass(type(Proxy()), dict)


# Functions, coroutines and contexts.


def test_a_coroutine_has_the_code_of_its_function() -> None:
    """`cr_code` of a coroutine is the `__code__` of the function that made it, not that of a wrapper around that function."""

    async def function() -> None: ...

    @functools.wraps(function)
    def around() -> Coroutine[Any, Any, None]:
        return function()

    coroutine: Any = around()
    assert coroutine.cr_code is vars(around)["__wrapped__"].__code__
    assert coroutine.cr_code is not cast("Any", around).__code__
    coroutine.close()


def test_a_coroutine_sees_the_error_that_its_caller_handles() -> None:
    """A coroutine that is stepped in an `except` clause has the error handled there as `sys.exception()`, and as context."""

    async def fail() -> None:
        seen.append(sys.exception())
        raise LookupError

    seen: list[object] = []
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        with pytest.raises(LookupError) as caught:
            fail().send(None)
        assert seen == [error]
        assert caught.value.__context__ is error


def test_a_bound_get_reads_the_context_in_which_it_is_called() -> None:
    """`ContextVar.get`, bound once, gives the value of the current context, in each thread that thread's own."""
    var = ContextVar("var", default="default")
    get = var.get
    context = Context()
    context.run(var.set, "in context")
    assert (get(), context.run(get), get()) == ("default", "in context", "default")
    var.set("here")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(get()))
    thread.start()
    thread.join()
    assert (get(), found) == ("here", ["default"])


# References and cycles.


def test_a_context_and_an_object_in_it_may_be_a_cycle() -> None:
    """A context and an object in it that refers to the context are freed only by the cycle collector."""
    var = ContextVar[Node]("var")
    with collector.disabled():
        node, context = Node(), Context()
        context.run(var.set, node)
        node.other = context
        freed = weakref.ref(node)
        del node, context
        assert freed() is not None
        gc.collect()
        assert freed() is None


@pytest.mark.parametrize("deletes", [False, True])
def test_an_error_that_is_kept_in_a_local_name_is_a_cycle(deletes: bool) -> None:
    """An error raised through a frame that has it in a local name is freed only by the cycle collector, unless deleted."""

    def fail(node: Node) -> None:
        error: Exception | None = ZeroDivisionError()
        try:
            raise cast("Exception", error)
        finally:
            if deletes:
                del error

    with collector.disabled():
        node = Node()
        freed = weakref.ref(node)
        with suppress(ZeroDivisionError):
            fail(node)
        del node
        assert (freed() is None) is deletes
        gc.collect()
        assert freed() is None


# Signals.


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_handler_wakes_the_loop(new_loop: NewLoop) -> None:
    """`call_soon_threadsafe` in a handler of `signal.signal` runs its callback, even if the loop was asleep."""
    with open_loop(new_loop) as loop:
        done = loop.create_future()
        before = signal.signal(signal.SIGUSR1, lambda _number, _frame: loop.call_soon_threadsafe(done.set_result, "woken"))
        try:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert loop.run_until_complete(done) == "woken"
        finally:
            signal.signal(signal.SIGUSR1, before)


def test_a_runner_restores_the_default_handler_when_it_closes(new_loop: NewLoop) -> None:
    """While `Runner.run` runs, SIGINT has a handler of the runner's; when the runner closes, Python's default one is back."""
    handlers: list[object] = []

    def note() -> None:
        handlers.append(signal.getsignal(signal.SIGINT))

    async def main() -> None:
        note()
        set_to_call_first(asyncio.get_running_loop(), "shutdown_asyncgens", note)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    finally:
        signal.signal(signal.SIGINT, before)
    assert [each is signal.default_int_handler for each in handlers] == [False, True]


# The interpreter's exit, and a fork.


def test_at_exit_thread_pools_are_shut_already() -> None:
    """When `atexit` callbacks run, a pool of `concurrent.futures` takes no more work, though it was used before."""
    output = python(
        """
        import atexit
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor()
        def at_exit():
            try:
                pool.submit(print)
            except RuntimeError as error:
                print(error)
        atexit.register(at_exit)
        print(pool.submit(int).result())
        """
    )
    assert output == "0\ncannot schedule new futures after shutdown\n"


def test_at_exit_threads_may_still_start() -> None:
    """An `atexit` callback may start a thread; only Python 3.12 raises RuntimeError."""
    output = python(
        """
        import atexit, threading
        def at_exit():
            try:
                thread = threading.Thread(target=print, args=["started"], daemon=True)
                thread.start()
                thread.join()
            except RuntimeError as error:
                print(error)
        atexit.register(at_exit)
        """
    )
    is_refused = sys.version_info[:2] == (3, 12)
    assert output == ("can't create new thread at interpreter shutdown\n" if is_refused else "started\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_hooks_run_first_in_the_child_of_a_fork() -> None:
    """`after_in_child` runs before the child goes on, and not in the parent; the child has the loop, but it does not run."""
    output = python(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore")
        log = []
        os.register_at_fork(after_in_child=lambda: log.append(asyncio._get_running_loop()))
        async def main():
            loop = asyncio.get_running_loop()
            loop.ours = "ours"
            child = os.fork()
            if child == 0:
                print(log, asyncio._get_running_loop(), loop.ours, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(log, asyncio._get_running_loop() is loop)
        asyncio.run(main())
        """
    )
    assert output == "[None] None ours\n[] True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # a thread of an earlier test may still end
def test_a_task_that_is_forked_goes_on_in_the_child_before_3_14() -> None:
    """From Python 3.14 on, asyncio finds that the loop is not the running one there, and the task takes no further step."""

    def leave(_loop: asyncio.AbstractEventLoop, _context: object) -> None:
        os._exit(1)

    async def main() -> int:
        asyncio.get_running_loop().set_exception_handler(leave)
        child = os.fork()
        if not child:
            await asyncio.sleep(0)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert asyncio.run(main()) == (sys.version_info >= (3, 14))


def test_cleanups_of_unittest_are_awaited_if_they_are_marked_which_is_possible_from_3_12_on() -> None:
    """`addAsyncCleanup` awaits what `inspect.iscoroutinefunction` takes for a coroutine function, and nothing else."""
    log: list[str] = []

    async def clean() -> None:
        log.append("cleaned")

    def marked() -> Coroutine[Any, Any, None]:
        coroutine = clean()
        made.append(coroutine)
        return coroutine

    class Case(unittest.IsolatedAsyncioTestCase):
        async def runTest(self) -> None:
            self.addAsyncCleanup(marked)

    made: list[Coroutine[Any, Any, None]] = []
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(marked)
    else:
        vars(marked)["_is_coroutine"] = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # asyncio's own mark
    Case().run()
    made[0].close()
    assert log == (["cleaned"] if sys.version_info >= (3, 12) else [])
