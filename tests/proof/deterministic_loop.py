"""An event loop without files, threads or waiting: what it does next depends on nothing but what has been done on it.

Its clock stands still while anything is ready, and jumps to the next timer when nothing is. Where there is no timer either, no
task of it can ever go on: it raises `Deadlock` instead of waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

_TURNS = 5_000


class Deadlock(AssertionError):
    """Nothing is ready and no timer is pending: what has not ended by now never will."""


class Livelock(AssertionError):
    """The loop has turned so often that it will never come to an end."""


class Clock:
    """The time of one loop, and its turns; stands where a loop has its selector, and holds no reference to the loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.when_idle: Callable[[], bool] | None = (
            None  # called when nothing is ready and no timer is pending: True if something is now
        )
        self.idlers: deque[asyncio.Future[None]] = deque()  # those who wait until nobody else can go on

    def select(self, timeout: float | None) -> list[Any]:
        """Lets the time pass until the next timer."""
        self.turns += 1
        if self.turns > _TURNS:
            raise Livelock(f"the loop has turned {_TURNS:,} times")
        if timeout is not None:
            self.now += timeout
        elif not (self.when_idle is not None and self.when_idle()):
            self._wake_idler()
        return []

    def _wake_idler(self) -> None:
        while self.idlers:
            idler = self.idlers.popleft()
            if not idler.done():
                idler.set_result(None)
                return
        raise Deadlock("nothing is ready and no timer is pending")


class Steps(deque[Any]):
    """The callbacks that are ready, each of them a step; ``before_step`` is called before each is run, with its number."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0
        self.before_step: Callable[[int], None] | None = None

    def popleft(self) -> Any:
        """The next callback to run."""
        if self.before_step is not None:
            self.before_step(self.taken)
        self.taken += 1
        return super().popleft()


class DeterministicLoop(asyncio.BaseEventLoop):
    """Runs what asyncio's own loops run, in the same order, as far as it needs no files."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = self._selector = Clock()
        self.steps = self._ready = Steps()

    async def idle(self) -> None:
        """Waits until nothing else is ready and no timer is pending."""
        idler: asyncio.Future[None] = self.create_future()
        self.clock.idlers.append(idler)
        await idler

    def time(self) -> float:
        """Seconds on its own clock."""
        return self.clock.now

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """It never waits, so it need not be woken."""
