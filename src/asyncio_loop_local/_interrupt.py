"""Ctrl-C while a loop ends: the exit in progress is cancelled, and no other one is torn apart."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator
    from types import FrameType


@contextmanager
def interrupts_call(loop: AbstractEventLoop, interrupt: Callable[[], None]) -> Generator[None]:
    """Lets Ctrl-C call ``interrupt`` on the running loop, where it would raise KeyboardInterrupt in whatever code runs.

    KeyboardInterrupt is raised when the block is left; before that only by a second Ctrl-C that comes before the first has
    been served, which is when the loop is stuck in code that does not await. It changes nothing outside the main thread,
    or where the user has a handler for the signal.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not (
        signal.default_int_handler
    ):
        yield
        return
    came = waits = False

    def serve() -> None:
        nonlocal waits
        waits = False
        interrupt()

    def handle(signal_number: int, frame: FrameType | None) -> None:
        nonlocal came, waits
        if waits:
            signal.default_int_handler(signal_number, frame)
        came = waits = True
        loop.call_soon_threadsafe(serve)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
