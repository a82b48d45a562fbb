"""Any number of tasks that wait for one thing; each can be cancelled without a word to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

T = TypeVar("T")


class Waiters(Generic[T]):
    """Those who wait now; true if there are any."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: dict[Future[T], None] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    async def wait(self, loop: AbstractEventLoop) -> T:
        """Waits until `tell` is called next, and returns what it tells."""
        future: Future[T] = loop.create_future()
        self._futures[future] = None
        try:
            return await future
        finally:
            self._futures.pop(future, None)

    def tell(self, what: T) -> bool:
        """Wakes all who wait.

        :returns: whether there was anybody who had not been cancelled.
        """
        told = False
        for future in self._futures:
            if not future.done():
                future.set_result(what)
                told = True
        self._futures.clear()
        return told
