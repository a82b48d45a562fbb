"""Any number of tasks that wait for one thing; each can be cancelled without a word to the others."""

from __future__ import annotations

from asyncio import CancelledError, Future, current_task
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # documented for task implementers
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

T = TypeVar("T")


class Failure:
    """An error that is told to those who wait; where each of them is cancelled before it has taken it, it is reported."""

    __slots__ = ("_pending", "_taken", "error", "name", "report")

    def __init__(self, error: BaseException, name: str, report: Callable[[], None]) -> None:
        self.error = error
        self.name = name  # of what has failed
        self.report = report
        self._pending = 0
        self._taken = False

    def tell(self, *all_waiters: Waiters[Any]) -> bool:
        """Tells all who wait, or reports it if nobody does.

        :returns: whether there was anybody.
        """
        self._pending = sum([waiters.tell(self) for waiters in all_waiters])
        if not self._pending:
            self.report()
        return self._pending > 0

    def take(self) -> BaseException:
        """The error, by one who will raise it or has a place for it."""
        self._taken = True
        return self.error

    def missed(self) -> None:
        """One who was told was cancelled at the same time."""
        self._pending -= 1
        if not self._pending and not self._taken:
            self.report()


class Waiters(dict[Future[T], None]):
    """Those who wait now; true if there are any."""

    __slots__ = ()

    async def wait(self, loop: AbstractEventLoop, begin: Callable[[], object] | None = None) -> T:
        """Waits until `tell` is called next, which ``begin`` may lead to, and returns what it tells."""
        future: Future[T] = loop.create_future()
        self[future] = None
        try:
            if begin is not None:
                begin()
            return await future
        except CancelledError:
            if future.done() and not future.cancelled() and isinstance(told := future.result(), Failure):
                told.missed()
            raise
        finally:
            self.pop(future, None)
            del future  # the traceback of an error that it tells may lead to this frame

    def is_anyone_left(self) -> bool:
        """Whether there is one who has not been cancelled; one who has may not yet have woken to leave."""
        for future in self:  # noqa: SIM110  # with any() it takes three times as long, at each exit
            if not future.done():
                return True
        return False

    def tell(self, what: T) -> int:
        """Wakes all who wait.

        :returns: how many there were who had not been cancelled.
        """
        told = 0
        for future in self:
            if not future.done():
                told += 1
                try:
                    future.set_result(what)
                except (MemoryError, RecursionError) as error:  # the others are told all the same
                    future.get_loop().call_exception_handler(
                        {"message": "a task that waits could not be woken", "exception": error}
                    )
        self.clear()
        return told


def wake_at_once(future: Future[None], loop: AbstractEventLoop) -> None:
    """Sets the result, and has the task that waits for it take its next step before this returns, if it can be found."""
    waiting: list[tuple[Any, Any]] | None = getattr(future, "_callbacks", None)
    if not waiting or len(waiting) > 1:
        future.set_result(None)
        return
    [(wake, context)] = waiting
    future.remove_done_callback(wake)
    future.set_result(None)
    task = current_task(loop)
    if task is not None:
        _leave_task(loop, task)
    try:
        context.run(wake, future)
    finally:
        if task is not None:
            _enter_task(loop, task)
