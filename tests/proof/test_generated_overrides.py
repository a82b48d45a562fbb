"""Tasks that call, override, release and are cancelled, in any order: each value is closed once, after what uses it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import aclose, override, release, release_all, singleton, sticky_singleton_acm

TASKS = 60
LEVELS = 4
Expected = (OSError, KeyError, RuntimeError, BaseExceptionGroup)  # an enter that fails, an exit, a refusal; of several exits


class World:
    """Four wrapped factories, of which values of the later ones use those of the earlier ones, and what becomes of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.faults: list[str] = []
        self.open: set[str] = set()
        self.closed: Counter[str] = Counter()
        self._made = 0
        self.factories: list[Callable[[str], Any]] = [
            singleton(self.plain("own 0"), close=self.close),
            sticky_singleton_acm(self.manager("own 1", 1)),
            singleton(self.coroutine("own 2", 2), close=self.close),
            sticky_singleton_acm(self.manager("own 3", 3), valid=self.is_good),
        ]

    def replacement(self, level: int) -> Callable[[str], Any]:
        return {0: self.plain("fake 0"), 2: self.coroutine("fake 2", 2)}.get(level) or self.manager(f"fake {level}", level)

    def _new(self, name: str) -> str:
        self._made += 1
        name = f"{name}, number {self._made}"
        self.open.add(name)
        return name

    def plain(self, name: str) -> Callable[[str], str]:
        return lambda key: self._new(name)

    def coroutine(self, name: str, level: int) -> Callable[[str], Coroutine[Any, Any, str]]:
        async def make(key: str) -> str:
            used = await self.use_lower(level)
            await self.pause()
            return self._new(f"{name} that uses {used}")

        return make

    def manager(self, name: str, level: int) -> Callable[[str], Any]:
        @asynccontextmanager
        async def make(key: str) -> AsyncGenerator[str]:
            used = await self.use_lower(level)
            await self.pause()
            if self.random.random() < 0.1:
                raise OSError("the enter fails")
            value = self._new(f"{name} that uses {used}")
            yield value
            if used and used not in self.open:
                self.faults.append(f"{value} outlives what it uses")
            await self.pause()
            self.close(value)
            if self.random.random() < 0.1:
                raise KeyError("the exit fails")

        return make

    def close(self, value: str) -> None:
        self.closed[value] += 1
        self.open.discard(value)

    def is_good(self, value: str) -> bool:
        return self.random.random() < 0.8

    async def pause(self) -> None:
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)

    async def use_lower(self, level: int) -> str:
        return await self.use(self.random.randrange(level)) if self.random.random() < 0.6 else ""

    async def use(self, level: int) -> str:
        value: Any = self.factories[level](self.random.choice("ab"))
        return value if isinstance(value, str) else str(await value)

    async def use_any(self) -> None:
        await self.use(self.random.randrange(LEVELS))

    async def hold(self) -> None:
        async with self.factories[3]("a") as value:
            await self.pause()
            if value not in self.open and not self.closed[value]:
                self.faults.append(f"{value} was never open")

    async def override(self) -> None:
        level = self.random.randrange(LEVELS)
        with override(self.factories[level], self.replacement(level)):
            for _ in range(self.random.randrange(6)):
                await self.pause()
                await self.use_any()

    async def let_go(self) -> None:
        factory, which = self.factories[self.random.randrange(LEVELS)], self.random.random()
        await (release(factory, "a") if which < 0.4 else release_all(factory) if which < 0.9 else aclose())

    async def main(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._reported)
        tasks: list[asyncio.Task[None]] = []
        for _ in range(TASKS):
            kinds = (self.use_any, self.use_any, self.hold, self.override, self.override, self.let_go)
            tasks.append(asyncio.create_task(self.random.choice(kinds)()))
            await self.pause()
            if self.random.random() < 0.15:
                self.random.choice(tasks).cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not (result is None or isinstance(result, (asyncio.CancelledError, *Expected))):
                self.faults.append(f"a task failed with {result!r}")
        for _ in range(50):
            await asyncio.sleep(0)
        fakes = [each for each in self.open if each.startswith("fake")]
        self.faults += [f"{each} is left" for each in fakes if not any(each in other for other in self.open - {each})]
        for level in range(LEVELS):
            try:
                value = await self.use(level)
            except OSError:
                continue
            if not value.startswith("own"):
                self.faults.append(f"{value} is found after the blocks")

    def _reported(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), (OSError, KeyError)):
            self.faults.append(f"it is reported that {context['message']}")


@pytest.mark.parametrize("seeds", [range(150), range(150, 300)], ids=str)
def test_whatever_comes_between_each_value_is_closed_once_after_its_users(seeds: range) -> None:
    """After the blocks the factories' own values are found again; nothing is lost, closed twice, or closed before its users."""
    for seed in seeds:
        world = World(seed)
        asyncio.run(world.main())
        assert (seed, world.faults, world.open) == (seed, [], set())
        assert set(world.closed.values()) <= {1}, seed
