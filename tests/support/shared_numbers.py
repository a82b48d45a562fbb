"""A resource for tests of frameworks in this process: numbers from 0 on, and a log of when they are opened and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import count

from asyncio_loop_local import sticky_singleton_acm

log: list[str] = []


@sticky_singleton_acm
@asynccontextmanager
async def make_numbers() -> AsyncGenerator[Iterator[int]]:
    log.append("opened")
    yield count()
    log.append(await asyncio.to_thread(lambda: "closed"))


async def next_number() -> int:
    async with make_numbers() as numbers:
        return next(numbers)
