"""The running loop's own dict, and the dict that can be locked."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

import asyncio_loop_local
from asyncio_loop_local import LockingDict, LoopLocalStorage, aclose, storage
from conftest import Run


def test_a_loop_has_one_dict(run: Run) -> None:
    """Every call, in every task and callback of a loop, gives the same object."""

    async def main() -> None:
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
        assert storage() is asyncio_loop_local._storage.storage()

    run(main())


def test_it_is_found_at_its_older_place() -> None:
    """asyncio_loop_local._storage.storage is the same function."""
    assert asyncio_loop_local._storage.storage is storage


def test_every_loop_has_its_own(run: Run) -> None:
    """What one loop keeps is not in the dict of another, one after the other or side by side."""

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

    threads = [threading.Thread(target=lambda: run(meet())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] is not found[1]


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
    """Where no loop runs there is no dict: RuntimeError."""
    with pytest.raises(RuntimeError) as caught:
        storage()
    assert str(caught.value) == "no running event loop"


def test_what_is_in_it_is_let_go_when_the_loop_ends(run: Run) -> None:
    """What a loop's dict holds, the loop itself too, is freed by reference counting when the loop has been closed."""

    class Thing:
        pass

    kept: list[weakref.ref[Any]] = []

    async def main() -> None:
        thing = Thing()
        storage().update(loop=asyncio.get_running_loop(), thing=thing)
        kept.append(weakref.ref(thing))

    gc.disable()
    try:
        run(main())
        assert kept[0]() is None
    finally:
        gc.enable()


def test_aclose_empties_it(run: Run) -> None:
    """After aclose() the dict is empty, and still the same."""

    async def main() -> None:
        own = storage()
        own["a"] = 1
        await aclose()
        assert own == {}
        assert storage() is own

    run(main())


def test_it_can_be_referred_to_weakly(run: Run) -> None:
    """A weak reference to a loop's dict tells whether the loop is still there."""

    async def main() -> weakref.ref[LoopLocalStorage]:
        return weakref.ref(storage())

    assert run(main())() is None


def test_it_counts_what_a_dict_counts(run: Run) -> None:
    """It is a dict in all that it does."""

    async def main() -> None:
        own = storage()
        own |= {"a": 1}
        own.setdefault("b", []).append(2)
        assert own == {"a": 1, "b": [2]}
        assert list(own) == ["a", "b"]
        assert own.pop("a") == 1
        assert "a" not in own
        assert own.get("a", "default") == "default"
        with pytest.raises(KeyError):
            own["a"]

    run(main())


# LockingDict


def test_a_locking_dict_is_a_dict_and_a_lock() -> None:
    """It can be used wherever a dict, or an asyncio.Lock, is asked for."""
    careful = LockingDict[str, int]()
    assert isinstance(careful, dict)
    assert isinstance(careful, asyncio.Lock)
    assert issubclass(LockingDict, (dict, asyncio.Lock))
    assert not careful.locked()


def test_it_is_made_as_a_dict_is() -> None:
    """From nothing, a mapping, pairs, keywords, or several of these."""
    assert LockingDict() == {}
    assert LockingDict({"a": 1}) == {"a": 1}
    assert LockingDict([("a", 1)]) == {"a": 1}
    assert LockingDict(a=1) == {"a": 1}
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


def test_locking_it_gives_it_itself(run: Run) -> None:
    """async with storage()["careful"] as d: gives the dict itself, locked, and unlocks it after the block."""

    async def main() -> None:
        storage()["careful"] = LockingDict[str, int](count=0)
        async with storage()["careful"] as careful:
            assert careful is storage()["careful"]
            assert careful.locked()
            careful["count"] += 1
        assert not careful.locked()
        assert careful == {"count": 1}

    run(main())


def test_an_empty_one_can_be_locked(run: Run) -> None:
    """That an empty dict is false makes no difference."""

    async def main() -> None:
        careful = LockingDict[str, int]()
        async with careful as locked:
            assert locked is careful
            assert careful.locked()

    run(main())


def test_two_tasks_exclude_each_other(run: Run) -> None:
    """While one task is in the block, others wait, and come in the order in which they asked."""
    log: list[str] = []

    async def use(name: str, careful: LockingDict[str, int]) -> None:
        async with careful:
            log.append(f"{name} in")
            count = careful["count"]
            await asyncio.sleep(0)
            careful["count"] = count + 1
            log.append(f"{name} out")

    async def main() -> None:
        careful = LockingDict[str, int](count=0)
        await asyncio.gather(*(use(name, careful) for name in "abc"))
        assert careful == {"count": 3}
        assert not careful.locked()

    run(main())
    assert log == ["a in", "a out", "b in", "b out", "c in", "c out"]


def test_reading_and_writing_need_no_lock(run: Run) -> None:
    """The lock is for those who ask for it: a dict that is locked can be read and written."""

    async def main() -> None:
        careful = LockingDict[str, int](a=1)
        async with careful:
            careful["a"] += 1
            assert careful == {"a": 2}
            assert list(careful.items()) == [("a", 2)]

    run(main())


def test_a_cancelled_waiter_leaves_the_lock_to_the_others(run: Run) -> None:
    """A task that is cancelled while it waits does not keep the next one waiting."""

    async def main() -> None:
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

    run(main())


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_an_error_in_the_block_unlocks(run: Run, error: type[BaseException]) -> None:
    """The block's error comes through, what was written stays, and the lock is free."""

    async def main() -> None:
        careful = LockingDict[str, int]()
        with pytest.raises(error):
            async with careful:
                careful["a"] = 1
                raise error
        assert not careful.locked()
        assert careful == {"a": 1}
        async with careful:
            assert careful.locked()

    run(main())


def test_it_locks_by_hand_as_an_asyncio_lock_does(run: Run) -> None:
    """acquire() and release() are the lock's own."""

    async def main() -> None:
        careful = LockingDict[str, int]()
        assert await careful.acquire()
        assert careful.locked()
        careful.release()
        with pytest.raises(RuntimeError, match="not acquired"):
            careful.release()

    run(main())


def test_a_second_loop_that_has_to_wait_for_it_is_refused() -> None:
    """It belongs to the first loop on which two tasks met at it: waiting for it on another is a RuntimeError."""
    careful = LockingDict[str, int]()

    async def wait() -> None:
        async with careful:
            waiting = asyncio.create_task(careful.acquire())
            await asyncio.sleep(0)
        await waiting
        careful.release()

    asyncio.run(wait())
    with pytest.raises(RuntimeError, match="bound to a different event loop"):
        asyncio.run(wait_on_another(careful))


async def wait_on_another(careful: LockingDict[str, int]) -> None:
    async with careful:
        await careful.acquire()


def test_its_repr_says_what_it_holds_and_whether_it_is_locked(run: Run) -> None:
    """Content and lock are both seen."""

    class Careful(LockingDict[str, int]):
        pass

    async def main() -> None:
        careful = LockingDict[str, int](a=1)
        assert repr(careful) == "<LockingDict {'a': 1} [unlocked]>"
        async with careful:
            assert repr(careful) == "<LockingDict {'a': 1} [locked]>"
        assert repr(Careful()) == "<Careful {} [unlocked]>"

    run(main())


def test_a_subclass_gives_itself(run: Run) -> None:
    """The block of a subclass gives the subclass, with what its own __init__ has set."""

    class Careful(LockingDict[str, int]):
        def __init__(self, name: str) -> None:
            super().__init__(size=1)
            self.name = name

    async def main() -> None:
        async with Careful("n") as careful:
            assert careful.name == "n"
            assert careful == {"size": 1}

    run(main())
