"""A dict for each event loop, and a dict that is also a lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from ._loop_state import loop_state, running_loop
from ._secrets import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._loop_state import LoopLocalStorage

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")


def storage() -> LoopLocalStorage:
    """Return the dict of the running event loop. Every call on one loop returns the same dict; every loop has its own.

    The dict keeps its values until the loop is closed. It does not close or await them. `aclose` empties it.
    All tasks of the loop may use it, like any dict.

    :raises RuntimeError: if no event loop is running.
    """
    try:
        return running_loop()._asyncio_loop_local.storage
    except AttributeError:
        return loop_state().storage


class LockingDict(dict[K, V], asyncio.Lock):
    """A dict that is also an `asyncio.Lock`: ``async with`` locks it and gives the dict itself.

    Only ``async with`` and ``acquire`` lock it; reading and writing do not. Like an `asyncio.Lock`, it belongs to the first
    loop on which a task has to wait for it, and raises `RuntimeError` on any other loop after that, so keep it in `storage`.
    If a waiting task is cancelled, the lock goes to the next one.

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
        """Take the same arguments as `dict`."""
        super().__init__(*args, **kwargs)
        asyncio.Lock.__init__(self)

    async def __aenter__(self) -> Self:  # type: ignore[override]  # asyncio.Lock returns None here
        """Wait until the dict is unlocked, then lock and return it."""
        await self.acquire()
        return self

    def __repr__(self) -> str:
        """Return the repr of the dict, shortened and with secrets masked, and whether it is locked."""
        return f"<{type(self).__name__} {safe_repr(dict(self))} [{'locked' if self.locked() else 'unlocked'}]>"
