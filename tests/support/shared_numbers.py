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
    """Its exit needs a task that it has started, and a thread."""
    log.append("opened")
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def write() -> None:
        while True:
            log.append(await lines.get())
            lines.task_done()

    writer = asyncio.create_task(write())
    yield count()
    await lines.put(await asyncio.to_thread(lambda: "closed"))
    await lines.join()
    writer.cancel()


async def next_number() -> int:
    async with make_numbers() as numbers:
        return next(numbers)
