"""The private forms of `asyncio_loop_local.atexit` that older code uses."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from ._aclose import aclose
from .atexit import register

if TYPE_CHECKING:
    from collections.abc import Awaitable


def _register(awaitable: Awaitable[object]) -> None:  # pyright: ignore[reportUnusedFunction]  # older code's
    """Await ``awaitable`` when the running loop ends.

    :raises RuntimeError: if no event loop is running.
    :raises TypeError: if it cannot be awaited.
    """
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"argument 'awaitable' of _register() must be awaitable, not {type(awaitable).__qualname__}: "
            f"for a function there is atexit.register()"
        )

    def awaited() -> Awaitable[object]:
        return awaitable

    awaited.__qualname__ = getattr(awaitable, "__qualname__", type(awaitable).__qualname__)
    register(awaited)


async def _fire() -> None:  # pyright: ignore[reportUnusedFunction]  # older code's
    """End everything of the running loop now, as `aclose` does."""
    await aclose()
