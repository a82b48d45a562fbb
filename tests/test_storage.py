"""`storage`, the dict of each event loop, and `LockingDict`, a dict that is also a lock."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import asyncio_loop_local
import collector
from asyncio_loop_local import LockingDict, LoopLocalStorage, aclose, storage
from conftest import Run
from recording import in_threads, on_each_loop


@on_each_loop
async def test_a_loop_has_one_dict() -> None:
    """Every call, in every task and callback of a loop, gives the same dict; it does all that a dict does."""
    own = storage()
    assert type(own) is LoopLocalStorage
    assert isinstance(own, dict)
    own["a"] = 1

    async def in_a_task() -> LoopLocalStorage:
        return storage()

    assert await asyncio.create_task(in_a_task()) is own
    called: asyncio.Future[LoopLocalStorage] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: called.set_result(storage()))
    assert await called is own
    assert storage() == {"a": 1}
    own |= {"b": 2}
    own.setdefault("c", []).append(3)
    assert own == {"a": 1, "b": 2, "c": [3]}
    assert list(own) == ["a", "b", "c"]
    assert own.pop("a") == 1
    assert own.get("a", "default") == "default"
    with pytest.raises(KeyError):
        own["a"]


def test_it_is_found_at_its_older_place() -> None:
    """`asyncio_loop_local._storage.storage`, which older code imports, is the same function."""
    assert asyncio_loop_local._storage.storage is storage


def test_every_loop_has_its_own(run: Run) -> None:
    """The values of one loop are not in the dict of another, one after the other or in parallel."""

    async def fill() -> LoopLocalStorage:
        assert storage() == {}
        storage()["a"] = 1
        return storage()

    first, second = run(fill()), run(fill())
    assert first is not second

    found: list[LoopLocalStorage] = []
    barrier = threading.Barrier(2)

    async def meet() -> None:
        own = storage()
        own["thread"] = threading.get_ident()
        barrier.wait(10)
        assert own == {"thread": threading.get_ident()}
        found.append(own)
        barrier.wait(10)

    in_threads(*[lambda: run(meet())] * 2)
    assert len(set(map(id, found))) == 2


def test_several_runs_of_one_loop_share_it() -> None:
    """A loop that runs several times keeps its dict from one run to the next."""

    async def get() -> LoopLocalStorage:
        return storage()

    with asyncio.Runner() as runner:
        own = runner.run(get())
        own["a"] = 1
        assert runner.run(get()) is own
        assert own == {"a": 1}


def test_without_a_running_loop_it_is_refused() -> None:
    """Where no loop runs, `storage` raises `RuntimeError`."""
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        storage()


def test_its_values_are_freed_when_the_loop_ends(run: Run) -> None:
    """The dict and its values, the loop itself too, are freed by reference counting when the loop has been closed."""

    class Thing:
        pass

    async def main() -> list[weakref.ref[Any]]:
        thing = Thing()
        storage().update(loop=asyncio.get_running_loop(), thing=thing)
        return [weakref.ref(thing), weakref.ref(storage())]

    with collector.disabled():
        assert [ref() for ref in run(main())] == [None, None]


@on_each_loop
async def test_aclose_empties_it() -> None:
    """After `aclose` the dict is empty, and still the same object."""
    own = storage()
    own["a"] = 1
    await aclose()
    assert own == {}
    assert storage() is own


# LockingDict


def test_a_locking_dict_is_made_like_a_dict() -> None:
    """It is a dict and an `asyncio.Lock`; it is made from nothing, a mapping, pairs, keywords, or several of these."""
    assert issubclass(LockingDict, dict)
    assert issubclass(LockingDict, asyncio.Lock)
    assert LockingDict() == {}
    assert LockingDict({"a": 1}) == LockingDict([("a", 1)]) == LockingDict(a=1) == {"a": 1}
    assert LockingDict({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert LockingDict([("a", 1)], a=2) == {"a": 2}
    typed = LockingDict[str, int](a=1)
    assert typed == {"a": 1}
    assert type(typed) is LockingDict
    from_keys: Any = LockingDict.fromkeys("ab", 1)
    assert from_keys == {"a": 1, "b": 1}
    assert isinstance(from_keys, LockingDict)
    assert not from_keys.locked()
    with pytest.raises(TypeError):
        LockingDict(3)  # type: ignore[call-overload]  # wrong on purpose  # pyright: ignore[reportArgumentType, reportCallIssue]


class Careful(LockingDict[str, int]):
    def __init__(self, name: str = "n") -> None:
        super().__init__(count=0)
        self.name = name


@pytest.mark.parametrize(
    "make", [LockingDict[str, int], lambda: LockingDict(count=0), Careful], ids=["empty", "full", "subclass"]
)
@on_each_loop
async def test_a_block_locks_the_dict_and_gets_it(make: Callable[[], LockingDict[str, int]]) -> None:
    """`async with storage()["careful"] as d:` locks the dict, empty or not, for the block, and gives the dict itself."""

    storage()["careful"] = made = make()
    assert repr(made) == f"<{type(made).__name__} {dict(made)} [unlocked]>"
    async with storage()["careful"] as careful:
        assert careful is made
        assert made.locked()
        made["count"] = made.get("count", 0) + 1  # the lock is only for those who ask for it
        assert list(made.items()) == [("count", 1)]
        assert repr(made) == f"<{type(made).__name__} {{'count': 1}} [locked]>"
    assert not made.locked()
    assert made == {"count": 1}
    assert not isinstance(made, Careful) or made.name == "n"


@on_each_loop
async def test_two_tasks_exclude_each_other(log: list[str]) -> list[str]:
    """While one task is in its block, others wait; they enter in the order in which they came."""

    async def use(name: str, careful: LockingDict[str, int]) -> None:
        async with careful:
            log.append(f"{name} in")
            count = careful["count"]
            await asyncio.sleep(0)
            careful["count"] = count + 1
            log.append(f"{name} out")

    careful = LockingDict[str, int](count=0)
    await asyncio.gather(*(use(name, careful) for name in "abc"))
    assert careful == {"count": 3}
    assert not careful.locked()
    return ["a in", "a out", "b in", "b out", "c in", "c out"]


@on_each_loop
async def test_a_cancelled_waiter_leaves_the_lock_to_the_others() -> None:
    """A task that is cancelled while it waits does not keep the next one waiting."""
    careful = LockingDict[str, int](entered=0)
    asked = [asyncio.Event(), asyncio.Event()]

    async def use(event: asyncio.Event) -> None:
        event.set()
        async with careful:
            careful["entered"] += 1

    async with careful:
        first = asyncio.create_task(use(asked[0]))
        await asked[0].wait()
        second = asyncio.create_task(use(asked[1]))
        await asked[1].wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert careful.locked()
    await second
    assert careful == {"entered": 1}
    assert not careful.locked()


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
@on_each_loop
async def test_an_error_in_the_block_unlocks(error: type[BaseException]) -> None:
    """The block's error is raised, its changes stay, and the lock is free."""
    careful = LockingDict[str, int]()
    with pytest.raises(error):
        async with careful:
            careful["a"] = 1
            raise error
    assert not careful.locked()
    assert careful == {"a": 1}
    async with careful:
        assert careful.locked()


@on_each_loop
async def test_it_locks_by_hand_as_an_asyncio_lock_does() -> None:
    """acquire() and release() are the lock's own."""
    careful = LockingDict[str, int]()
    assert await careful.acquire()
    assert careful.locked()
    careful.release()
    with pytest.raises(RuntimeError, match="not acquired"):
        careful.release()


def test_a_second_loop_that_has_to_wait_for_it_is_refused() -> None:
    """It belongs to the first loop on which a task had to wait for it; to wait on another loop is a `RuntimeError`."""
    careful = LockingDict[str, int]()

    async def wait() -> None:
        async with careful:
            waiting = asyncio.create_task(careful.acquire())
            await asyncio.sleep(0)
        await waiting
        careful.release()

    async def wait_on_another() -> None:
        async with careful:
            await careful.acquire()

    asyncio.run(wait())
    with pytest.raises(RuntimeError, match="bound to a different event loop"):
        asyncio.run(wait_on_another())
