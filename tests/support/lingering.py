"""What tests of real servers do around the end of a loop: tasks that have work to do when cancelled, and what is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


def reports_of_this_loop() -> list[dict[str, Any]]:
    """What the running loop's exception handler is told from now on."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    return reports


async def linger(begun: asyncio.Event, finally_do: Callable[[], Any]) -> None:
    """A task that has work to do when the runner cancels it."""
    try:
        begun.set()
        await asyncio.Event().wait()
    finally:
        await finally_do()


async def begin_to_linger(number: int, finally_do: Callable[[], Any]) -> list[asyncio.Task[None]]:
    """So many tasks that have work to do when the runner cancels them."""
    begun = [asyncio.Event() for _ in range(number)]
    tasks = [asyncio.create_task(linger(each, finally_do)) for each in begun]
    for each in begun:
        await each.wait()
    return tasks
