"""Any number of tasks that wait for one event; each can be cancelled without any effect on the others."""

from __future__ import annotations

from asyncio import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

T = TypeVar("T")


class Failure:
    """An error on its way to the tasks that wait. If each of them is cancelled before it has taken it, it is reported."""

    __slots__ = ("_pending", "_taken", "error", "name", "report")

    def __init__(self, error: BaseException, name: str, report: Callable[[], None]) -> None:
        self.error = error
        self.name = name  # of what has failed
        self.report = report
        self._pending = 0
        self._taken = False

    def notify(self, *all_waiters: Waiters[Any]) -> bool:
        """Wakes all who wait, or reports the error if nobody does.

        :returns: whether anybody waited.
        """
        self._pending = sum([waiters.notify(self) for waiters in all_waiters])
        if not self._pending:
            self.report()
        return self._pending > 0

    def take(self) -> BaseException:
        """Returns the error to a caller that raises or keeps it."""
        self._taken = True
        return self.error

    def missed(self) -> None:
        """Notes that a waiter was cancelled in the same turn in which it was notified."""
        self._pending -= 1
        if not self._pending and not self._taken:
            self.report()


class Waiters(dict[Future[T], None]):
    """The futures of the tasks that wait now; true if there are any."""

    __slots__ = ()

    async def wait(self, loop: AbstractEventLoop, begin: Callable[[], object] | None = None) -> T:
        """Wait for the next `notify`, and return its result.

        ``begin`` is called when this task is already among the waiters, and may itself notify them. It has to look at the state
        again: making the future may have run the garbage collector, and with it any code.
        """
        future: Future[T] = loop.create_future()
        self[future] = None
        try:
            if begin is not None:
                begin()
            return await future
        except CancelledError:
            if future.done() and not future.cancelled() and isinstance(result := future.result(), Failure):
                result.missed()
            raise
        finally:
            self.pop(future, None)
            del future  # the traceback of an error that it holds may lead to this frame

    def has_live_waiter(self) -> bool:
        """Whether a task waits that has not been cancelled; one that was cancelled may not have run since."""
        for future in list(self):  # noqa: SIM110  # with any() it takes three times as long, at each exit
            if not future.done():
                return True
        return False

    def notify(self, result: T) -> int:
        """Wakes all who wait.

        :returns: how many of them had not been cancelled.
        """
        notified = 0
        for future in list(self):
            self.pop(future, None)
            if not future.done():
                notified += 1
                try:
                    future.set_result(result)
                except (MemoryError, RecursionError) as error:  # the others are woken all the same
                    future.get_loop().call_exception_handler(
                        {"message": "a task that waits could not be woken", "exception": error}
                    )
        return notified


def noted(error: BaseException, name: str) -> BaseException:
    """Return the error of an exit, with a note of whose exit it is; one, however many wait for that exit."""
    note = f"raised by the exit of {name}"
    with suppress(Exception):  # an exception's class may let nothing be set, as a frozen dataclass does
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    return error
