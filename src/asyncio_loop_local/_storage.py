"""The running loop's own dict, and a dict that can be locked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from ._loop_state import loop_state, running_loop
from ._secrets import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._loop_state import LoopLocalStorage

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")


def storage() -> LoopLocalStorage:
    """Return the running loop's own dict: the same object at every call on that loop, another on every other loop.

    It lives until its loop is closed, and so does what is in it; nothing in it is closed or awaited by then. `aclose`
    empties it. Any number of tasks may use it, as they would use a dict.

    :raises RuntimeError: if no event loop is running.
    """
    try:
        return running_loop()._asyncio_loop_local.storage
    except AttributeError:
        return loop_state().storage


class LockingDict(dict[K, V], asyncio.Lock):
    """A dict that is also an `asyncio.Lock`: ``async with`` locks it and gives the dict itself.

    Reading and writing do not ask for the lock; only ``async with`` and ``acquire`` do. It belongs to the first loop on
    which two tasks meet at it, as an `asyncio.Lock` does, so its place is in `storage`: a second loop gets a
    `RuntimeError` then. A task that is cancelled while it waits leaves the lock to the others.

    >>> async def main() -> None:
    ...     storage()["careful"] = LockingDict(count=0)
    ...     async with storage()["careful"] as careful:
    ...         careful["count"] += 1
    """

    @overload
    def __init__(self, /) -> None: ...
    @overload
    def __init__(self: LockingDict[str, W], /, **kwargs: W) -> None: ...
    @overload
    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]], /) -> None: ...
    @overload
    def __init__(self: LockingDict[str, W], items: Mapping[str, W] | Iterable[tuple[str, W]], /, **kwargs: W) -> None: ...
    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        """Take what a dict takes."""
        super().__init__(*args, **kwargs)
        asyncio.Lock.__init__(self)

    async def __aenter__(self) -> Self:  # type: ignore[override]  # a Lock gives None here, which nobody can need
        """Lock it, as soon as nobody else has."""
        await self.acquire()
        return self

    def __repr__(self) -> str:
        """Return the dict's repr, short and without the secrets in it, since errors show it, and what a lock says of itself."""
        return f"<{type(self).__name__} {shown(dict(self))} [{'locked' if self.locked() else 'unlocked'}]>"
