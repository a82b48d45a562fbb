"""Threads that do the same at the same moment, each with a loop of its own: what they share is right, with the GIL and without.

    PYTHON_GIL=0 python tests/proof/test_threads.py --rounds 1000

on a free-threaded build; on any other, threads take turns as often as CPython lets them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from asyncio_loop_local import (
    LoopVar,
    aclose,
    override,
    release,
    release_all,
    resources,
    singleton,
    sticky_singleton_acm,
    storage,
)

THREADS = 8
LONGEST_WAIT = 60.0


class Client:
    """Counts what is open; each is opened and closed once, on its own loop."""

    opened: list[Client] = []
    closed: list[Client] = []

    def __init__(self, _name: object = None, *_args: object) -> None:
        self.loop = asyncio.get_running_loop()
        self.opened.append(self)

    async def close(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.closed.append(self)

    async def __aenter__(self) -> Client:
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


class Factories:
    """New ones for each round, so that the first call of each is made by all threads at once."""

    def __init__(self) -> None:
        def with_default(name: str, options: dict[str, list[int]] = {"a": [1]}) -> Client:  # it counts by value
            return Client(name, options)

        async def made_later(name: str) -> Client:
            await asyncio.sleep(0)
            return Client(name)

        self.closed = singleton(with_default, close=Client.close)
        self.coroutine = singleton(made_later, close=Client.close)
        self.sticky = sticky_singleton_acm(Client, valid=lambda client: client not in Client.closed)
        self.by_key = singleton(Client, key=str, close=Client.close)
        self.plain = singleton(with_default)
        self.overridden = singleton(Client, close=Client.close)
        self.variable = LoopVar("client", factory=Client, close=Client.close)

    async def use(self, chance: random.Random) -> None:
        """Ask for everything, in an order of its own, from two tasks."""
        ways: list[Callable[[], object]] = [
            lambda: self._closed_twice(),
            lambda: self._plain_twice(),
            lambda: self._replaced(),
            lambda: self.by_key("k") is self.by_key("k") or pytest.fail("two values of one key"),
            lambda: self.variable.get() is self.variable.get() or pytest.fail("two values of one variable"),
        ]

        async def some() -> None:
            for way in chance.sample(ways, len(ways)):
                way()
                async with self.sticky("s") as one, self.sticky("s") as two:
                    assert one is two
                assert await self.coroutine("c") is await self.coroutine("c")

        storage()["mine"] = loop = asyncio.get_running_loop()
        await asyncio.gather(some(), some())
        assert storage()["mine"] is loop
        assert len(resources()) >= 4, "all but perhaps what other threads replace, or close for all loops"
        if chance.random() < 0.3:
            assert await release(self.sticky, "s")
        if chance.random() < 0.3:
            assert await release_all(self.closed) == 1
        if chance.random() < 0.3:
            await self.variable.aclose()
        if chance.random() < 0.3:
            await aclose()

    def _closed_twice(self) -> None:
        assert self.closed("h") is self.closed(name="h") is self.closed("h", {"a": [1]})

    def _plain_twice(self) -> None:
        assert self.plain("h") is self.plain("h", {"a": [1]})

    def _replaced(self) -> None:
        """By this thread, and perhaps by others meanwhile."""
        assert isinstance(self.overridden("o"), Client)
        with override(self.overridden, Client):
            assert isinstance(self.overridden("o"), Client)
        assert isinstance(self.overridden("o"), Client)


@contextmanager
def taking_turns_often() -> Generator[None]:
    """Have CPython change to another thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def one_round(seed: int) -> None:
    """All threads begin at once with the same new factories. Afterwards all that was opened is closed, once."""
    Client.opened, Client.closed = [], []
    factories = Factories()
    together = threading.Barrier(THREADS, timeout=LONGEST_WAIT)

    async def main(chance: random.Random) -> None:
        together.wait()
        await factories.use(chance)

    def work(number: int) -> None:
        asyncio.run(main(random.Random(f"{seed} {number}")))

    with ThreadPoolExecutor(THREADS) as threads:
        runs = [threads.submit(work, number) for number in range(THREADS)]
    if errors := [error for each in runs if (error := each.exception()) is not None]:
        raise BaseExceptionGroup(f"seed {seed}", errors)
    closed = [id(each) for each in Client.closed]
    assert len(closed) == len({*closed}), "each is closed once"
    plain = [each for each in Client.opened if id(each) not in closed]
    assert len(plain) == THREADS, "what is left open is what has no close="


@pytest.mark.parametrize("seed", range(10))
def test_threads_that_begin_at_once_share_nothing_but_the_factories(seed: int) -> None:
    """Eight threads make the first calls of the same factories at once: each loop has its own, and all of it is closed, once."""
    with taking_turns_often():
        one_round(seed)


def main() -> None:
    """Run any number of rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with taking_turns_often():
        for number in range(given.rounds):
            one_round(given.seed + number)
    is_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    gil = "with the GIL" if is_enabled() else "free-threaded"
    print(f"{given.rounds} rounds of {THREADS} threads, {gil}, on {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
