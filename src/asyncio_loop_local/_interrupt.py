"""Ctrl-C while a loop ends: the exit in progress is cancelled, and no other one is torn apart."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from importlib import import_module
from signal import SIGINT, default_int_handler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator
    from types import FrameType


# What `signal` is made of: its own functions turn each handler into an enum, which takes longer than all the rest.
_signal: Any = import_module("_signal")


@contextmanager
def interrupts_call(loop: AbstractEventLoop, interrupt: Callable[[], None]) -> Generator[None]:
    """Lets Ctrl-C call ``interrupt`` on the running loop, where it would raise KeyboardInterrupt in whatever code runs.

    KeyboardInterrupt is raised when the block is left; before that only by a second Ctrl-C that comes before the first has
    been served, which is when the loop is stuck in code that does not await. It changes nothing outside the main thread,
    or where the user has a handler for the signal.
    """
    if threading.current_thread() is not threading.main_thread() or _signal.getsignal(SIGINT) is not default_int_handler:
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
            default_int_handler(signal_number, frame)
        came = waits = True
        loop.call_soon_threadsafe(serve)

    _signal.signal(SIGINT, handle)
    try:
        yield
    finally:
        if _signal.getsignal(SIGINT) is handle:
            _signal.signal(SIGINT, default_int_handler)
    if came:
        raise KeyboardInterrupt
