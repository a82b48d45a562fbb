"""Wrapped factories and variables keep their identity when they are pickled or copied."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from asyncio_loop_local import LoopVar, _pickling, singleton, sticky_singleton_acm
from asyncio_loop_local._pickling import PicklesByIdentity
from recording import on_one_loop

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


class Thing(PicklesByIdentity):
    __slots__ = ("name", "others")

    def __init__(self, name: str, *others: object) -> None:
        self.name = name
        self.others = list(others)


@singleton
def connect_once(host: str) -> nullcontext[str]:
    return nullcontext(host)


@sticky_singleton_acm
def connect_sticky(host: str) -> nullcontext[str]:
    return nullcontext(host)


MAKE: dict[str, Callable[[], Any]] = {
    "object": lambda: Thing("a"),
    "LoopVar": lambda: LoopVar("v", default=[1]),
    "LoopVar with a factory": lambda: LoopVar("v", factory=list[int]),
}


@pytest.fixture(params=MAKE.values(), ids=list(MAKE))
def thing(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unpickling_in_the_same_process_gives_the_same_object(thing: Any, protocol: int) -> None:
    """A pickle that comes back to its own process is the object itself, at every protocol and however often."""
    data = pickle.dumps(thing, protocol)
    assert pickle.loads(data) is pickle.loads(data) is thing
    assert pickle.loads(pickle.dumps([thing, {"k": thing}], protocol)) == [thing, {"k": thing}]


def test_a_copy_is_the_same_object(thing: Any) -> None:
    """`copy.copy` and `copy.deepcopy` give the object itself, inside containers too."""
    assert copy.copy(thing) is copy.deepcopy(thing) is thing
    assert copy.deepcopy([thing])[0] is thing


@on_one_loop
async def test_what_a_call_gives_is_copied_as_itself() -> None:
    """`copy.copy` and `copy.deepcopy` of what a call gives are that object: its function runs once, its value is of now."""

    async def new_object() -> object:
        return object()

    for make in (
        singleton(new_object),
        singleton(new_object, close=id),
        sticky_singleton_acm(lambda: nullcontext(object())),
        sticky_singleton_acm(lambda: nullcontext(object()), valid=bool),
    ):
        given: Any = make()
        assert copy.copy(given) is copy.deepcopy([given])[0] is given
        assert await given is await make()


def test_coming_back_changes_nothing() -> None:
    """A pickle holds the attributes of its time; unpickled where the object still is, it does not put them back."""
    thing = Thing("before")
    data = pickle.dumps(thing)
    thing.name = "after"
    assert pickle.loads(data).name == "after"


def test_each_object_has_an_identity_of_its_own() -> None:
    """Two objects with equal attributes are still two after pickling."""
    one, other = Thing("a"), Thing("a")
    unpickled = pickle.loads(pickle.dumps((one, other)))
    assert unpickled[0] is one
    assert unpickled[1] is other


def test_an_object_that_refers_to_itself() -> None:
    """A reference from an object's attributes back to itself is no obstacle."""
    thing = Thing("a")
    thing.others.append(thing)
    assert pickle.loads(pickle.dumps(thing)) is thing
    arrived = arrive(pickle.dumps(thing))
    assert arrived.others == [arrived]


def arrive(data: bytes) -> Any:
    """Unpickle as another process does, which has never seen the object."""
    known = dict(_pickling._by_id)
    _pickling._by_id.clear()
    try:
        return pickle.loads(data)
    finally:
        _pickling._by_id.update(known)


def test_a_pickled_object_is_not_kept_alive() -> None:
    """Pickling keeps no object in memory; a pickle that arrives after its object is gone makes a new one."""
    thing = Thing("a")
    data = pickle.dumps(thing)
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
    again = pickle.loads(data)
    assert again.name == "a"
    assert pickle.loads(data) is again


def in_another_process(code: str, data: bytes) -> str:
    """Run code in a new interpreter; ``data`` is its standard input."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = [sys.executable, "-c", f"import pickle, sys\ndata = sys.stdin.buffer.read()\n{code}"]
    result = subprocess.run(run, input=data, capture_output=True, env=environment, check=False, timeout=60)
    assert result.stderr.decode() == ""
    return result.stdout.decode()


def test_in_another_process_all_arrivals_are_one_object() -> None:
    """However many pickles of one object arrive in another process, there is one object there, with its attributes."""
    thing = Thing("a", 1)
    sent = pickle.dumps([pickle.dumps(thing), pickle.dumps([thing]), pickle.dumps(thing), pickle.dumps(Thing("a", 1))])
    code = """
one, (two,), three, other = map(pickle.loads, pickle.loads(data))
print(one is two is three, one is other, one.name, one.others)
"""
    assert in_another_process(code, sent) == "True False a [1]\n"


def test_an_object_that_went_to_another_process_comes_back_as_itself() -> None:
    """The pickle that another process makes of its arrival is the original again where it came from."""
    code = "sys.stdout.write(pickle.dumps(pickle.loads(data)).hex())"
    thing = Thing("a")
    assert pickle.loads(bytes.fromhex(in_another_process(code, pickle.dumps(thing)))) is thing


def test_a_variable_in_another_process_is_one_variable() -> None:
    """Each task that arrives at a worker brings the variable along, and all of them share its value on the worker's loop."""
    var = LoopVar("v", default=1)
    code = """
import asyncio
async def main():
    one, two = pickle.loads(data), pickle.loads(data)
    before = two.get()
    one.set(2)
    print(one is two, before, two.get(), one.name)
asyncio.run(main())
"""
    assert in_another_process(code, pickle.dumps(var)) == "True 1 2 v\n"


@pytest.mark.parametrize("wrapper", ["singleton", "sticky_singleton_acm"])
def test_a_factory_pickled_by_value_makes_one_resource_in_another_process(wrapper: str) -> None:
    """What ``__main__`` defines is pickled by value; all tasks that bring a factory along share its one resource per loop."""
    cloudpickle = pytest.importorskip("cloudpickle")
    source = f"""
from asyncio_loop_local import {wrapper}
class Pool:
    made = 0
    async def __aenter__(self): return self
    async def __aexit__(self, *exc): pass
@{wrapper}
def connect(host): return Pool()
def task(): return connect
"""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(source, space)
    sent = pickle.dumps([cloudpickle.dumps(space["task"]), cloudpickle.dumps(space["task"])])
    code = """
import asyncio
first, second = map(pickle.loads, pickle.loads(data))
async def main():
    print(first()("h") is second()("h"), first()("h") is second()("g"))
asyncio.run(main())
"""
    assert in_another_process(code, sent) == "True False\n"


def test_a_module_level_factory_is_pickled_by_name() -> None:
    """A wrapped factory that a module defines is found there again, as a plain function would be."""
    for factory in (connect_once, connect_sticky):
        assert pickle.loads(pickle.dumps(factory)) is factory
        assert copy.deepcopy(factory) is factory


def test_threads_that_pickle_and_unpickle_at_once_get_one_object() -> None:
    """Threads that pickle one object for the first time at the same moment, or receive it, agree on its identity."""
    for _ in range(50):
        thing = Thing("a")
        start = threading.Barrier(4)

        def pickled(thing: Thing = thing, start: threading.Barrier = start) -> bytes:
            start.wait(10)
            return pickle.dumps(thing)

        def received(data: bytes, start: threading.Barrier = start) -> Thing:
            start.wait(10)
            received: Thing = pickle.loads(data)
            assert received.name == "a"
            return received

        with ThreadPoolExecutor(4) as pool:
            (data,) = {each.result() for each in [pool.submit(pickled) for _ in range(4)]}
            del thing
            pickled.__defaults__ = None
            gc.collect()
            arrivals = {id(each): each for each in pool.map(received, [data] * 4)}
        assert len(arrivals) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_can_pickle_while_a_thread_of_the_parent_does() -> None:
    """A child that was forked while another thread was pickling neither hangs nor forgets what it inherits."""
    thing = Thing("a")
    data = pickle.dumps(thing)
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with _pickling._lock:
            held.set()
            forked.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)  # if it hangs, it is killed
        os._exit(0 if pickle.loads(data) is thing and pickle.loads(pickle.dumps(thing)) is thing else 1)
    forked.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class WithAttributes(Thing):
    """A class without slots of its own."""


def test_what_a_subclass_adds_is_pickled() -> None:
    """The attributes that a subclass has set arrive in another process, too."""
    thing = WithAttributes("a")
    thing.unit = "s"  # type: ignore[attr-defined]  # a new attribute
    arrived = arrive(pickle.dumps(thing))
    assert arrived is not thing
    assert (arrived.name, arrived.unit) == ("a", "s")
