"""What the tests of facts share: loops to be closed, a second Python, and the steps by which a loop ends."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from programs import run_python

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextmanager
def open_loop(new_loop: NewLoop) -> Generator[asyncio.AbstractEventLoop]:
    loop = new_loop()
    try:
        yield loop
    finally:
        loop.close()


def python(code: str, *, ok: bool = True) -> str:
    """What a Python process of its own prints, stderr after stdout."""
    done = run_python("-c", textwrap.dedent(code))
    assert not ok or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class Node:
    """Refers to another object, and can be referred to weakly."""

    other: object = None


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


STEPS_OF_THE_END = ["tasks are cancelled", "shutdown_asyncgens", "shutdown_default_executor", "close"]
_kept: list[asyncio.Task[None]] = []


def set_to_call_first(loop: asyncio.AbstractEventLoop, name: str, first: Callable[[], object]) -> None:
    """Sets a method on a loop that calls ``first``, and then the loop's own method."""
    method = getattr(loop, name)

    def call(*args: Any) -> Any:
        first()
        return method(*args)

    vars(loop)[name] = call


async def record_the_end(order: list[str]) -> None:
    """Records the steps by which the running loop will end, by methods set on it and a task that waits to be cancelled."""
    loop = asyncio.get_running_loop()
    for name in STEPS_OF_THE_END[1:]:
        set_to_call_first(loop, name, partial(order.append, name))

    async def be_cancelled() -> None:
        try:
            await forever()
        finally:
            order.append(STEPS_OF_THE_END[0])

    _kept[:] = [loop.create_task(be_cancelled())]
    await asyncio.sleep(0)
