"""Ctrl-C while a loop ends: the exit in progress is cancelled, and no other one is torn apart."""

from __future__ import annotations

from contextlib import suppress
from signal import SIGINT, default_int_handler
from typing import TYPE_CHECKING

from ._cpython import signal

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from types import FrameType


class CallOnInterrupt:
    """Lets Ctrl-C call ``interrupt`` from the loop, instead of raising KeyboardInterrupt in the code that runs.

    KeyboardInterrupt is raised when the block is left. A second Ctrl-C, before the loop has handled the first, raises it at once:
    the loop is then stuck in code that does not await. It changes nothing outside the main thread,
    or where the user has a handler for the signal.
    """

    __slots__ = ("_came", "_interrupt", "_loop", "_waits")

    def __init__(self, loop: AbstractEventLoop, interrupt: Callable[[], None]) -> None:
        self._loop = loop
        self._interrupt = interrupt
        self._came = self._waits = False

    def __enter__(self) -> None:
        if signal.getsignal(SIGINT) is default_int_handler:
            with suppress(ValueError):  # not in the main thread
                signal.signal(SIGINT, self._handle)

    def __exit__(self, _exc_type: object, error: BaseException | None, _traceback: object) -> None:
        if signal.getsignal(SIGINT) == self._handle:
            signal.signal(SIGINT, default_int_handler)
        if self._came and error is None:
            raise KeyboardInterrupt

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self._waits:
            default_int_handler(signal_number, frame)
        self._came = self._waits = True
        self._loop.call_soon_threadsafe(self._serve)

    def _serve(self) -> None:
        self._waits = False
        self._interrupt()
