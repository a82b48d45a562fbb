"""What tests do around the end of a loop: tasks that have work to do when cancelled, and a record of what is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from conftest import Run

T = TypeVar("T")


class Reports:
    """Records what is reported to the exception handler of each loop that is run by `watched`."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.came = asyncio.Event()
        self.is_noise: Callable[[dict[str, Any]], bool] = lambda _: False

    def take(self) -> list[dict[str, Any]]:
        """The reports up to now, which are then forgotten."""
        taken, self.all = self.all, []
        self.came.clear()
        return taken

    def watched(self, run: Run) -> Run:
        """The same way to run a loop, with all that it reports recorded."""

        async def watch(main: Coroutine[Any, Any, T]) -> T:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: self._record(context))
            return await main

        def run_watched(main: Coroutine[Any, Any, T], /) -> T:
            return run(watch(main))

        return run_watched

    def _record(self, context: dict[str, Any]) -> None:
        if not self.is_noise(context):
            self.all.append(context)
            self.came.set()


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
