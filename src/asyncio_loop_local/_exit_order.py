"""The order in which what is open on one loop ends: newest first, and never what something still open has acquired."""

from __future__ import annotations

import heapq
import sys
from math import inf
from typing import TYPE_CHECKING

from ._waiters import Failure, Waiters

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator

    from ._scope import Scope

    OnFailure = Callable[[Failure], None]


class ExitOrder:
    """What is open on one loop, and what is on its way in or out; lives as long as the loop's state."""

    __slots__ = (
        "_at_once",
        "_blocked",
        "_freed",
        "_freed_newest_first",
        "_goes_on",
        "_newest",
        "_stack",
        "_sweepers",
        "busy",
        "loop",
        "turn",
    )

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.busy: dict[Scope, None] = {}  # being entered or ended: in no place of the order
        self.turn: Scope | None = None  # what ends now, where everything ends
        self._stack: dict[Scope, None] = {}
        self._newest = 0
        # Taken from the stack and put back, since something open had acquired them; and those that are free again, by serial.
        self._blocked: dict[Scope, None] = {}
        self._freed: dict[int, Scope] = {}
        self._freed_newest_first: list[int] = []
        self._sweepers: Waiters[Failure | None] = Waiters()  # those who wait for everything to end
        self._at_once = False  # no other code waits for a turn of the loop
        self._goes_on = False  # in a frame further up

    def __bool__(self) -> bool:
        return bool(self._stack or self.busy or self._blocked or self.turn or self._freed)

    def __iter__(self) -> Iterator[Scope]:
        """All that is here, in the order in which it was opened; what is being entered comes last."""
        there = dict.fromkeys([*self._stack, *self._blocked, *self._freed.values(), *self.busy])
        return iter(sorted(there, key=_age))

    def push(self, scope: Scope) -> None:
        """It is open now, and the newest."""
        self._newest += 1
        scope.serial = self._newest
        self._stack[scope] = None
        self._go_on()

    def remove(self, scope: Scope) -> None:
        """It leaves the order, ended or on its way to be."""
        if scope in self._stack:
            del self._stack[scope]
        elif scope in self._blocked:
            del self._blocked[scope]
        else:
            self._freed.pop(scope.serial, None)

    def unblock(self, scope: Scope) -> None:
        """One that had acquired it does so no more: it may have its turn, if nothing else has."""
        if not scope.users and scope in self._blocked:
            del self._blocked[scope]
            self._freed[scope.serial] = scope
            heapq.heappush(self._freed_newest_first, -scope.serial)

    def ended(self, scope: Scope) -> None:
        """It has ended: what it had acquired may end too."""
        self.busy.pop(scope, None)
        for used in scope.uses:
            used.users.pop(scope, None)
            used.waived.pop(scope, None)
            self.unblock(used)
        for user in (*scope.users, *scope.waived):
            user.uses.pop(scope, None)
        scope.uses.clear()
        scope.users.clear()
        scope.waived.clear()
        if self.turn is scope:
            self.turn = None
        self._go_on()

    def who_ends(self, scope: Scope) -> Waiters[Failure | None]:
        """Those for whom it ends, since they wait for everything to end."""
        return self._sweepers if self.turn is scope else _NOBODY

    async def end_all(self, on_failure: OnFailure, *, at_once: bool) -> BaseException | None:
        """Ends one after the other, also what is opened meanwhile; of two at a time, both wait for the same exits.

        Cancelled, it stops between two exits: the one in progress goes on by itself, the others wait for the next end.

        ``at_once``: in this turn of the loop, as far as the exits await nothing; there should be nobody else to have a turn.

        :returns: the `KeyboardInterrupt` or `SystemExit` that an exit raised, if one did, after all others have run.
        """
        fatal: BaseException | None = None
        self._at_once = at_once
        try:
            while self:
                failure = await self._sweepers.wait(self.loop, self._go_on)
                if failure is None:
                    continue  # everything has ended; something may have been opened before this woke
                if isinstance(failure.error, (KeyboardInterrupt, SystemExit)) and fatal is None:
                    fatal = failure.take()
                else:
                    on_failure(failure)
                del failure  # the traceback of its error may lead to this frame
        finally:
            self._at_once = False
        return fatal

    def _go_on(self) -> None:
        """Lets the next one end, where everything is to end; each that has ended calls this, and so does who begins."""
        if self._goes_on:
            return
        self._goes_on = True
        at_once = self._at_once and sys.exception() is None  # which an exit's code would see
        try:
            while self.turn is None and self._sweepers.is_anyone_left():
                scope = self.turn = self._take()
                if scope is None:
                    if not self.busy:
                        self._sweepers.tell(None)
                    return
                try:
                    scope.begin_exit(at_once=at_once)
                except MemoryError as error:  # all others are ended all the same
                    scope.end(error, None)
        finally:
            self._goes_on = False

    def interrupt(self) -> None:
        """Cancels what ends now, or else all that is waited for before the next may; asked twice, waits for it no longer."""
        for scope in list(self.busy) if self.turn is None else [self.turn]:
            scope.interrupt()

    def _take(self) -> Scope | None:
        """The newest of those that nothing open has acquired, no longer in its place."""
        while self._stack or self._freed_newest_first:
            newest = next(reversed(self._stack)) if self._stack else None
            scope: Scope | None
            if newest is None or (self._freed_newest_first and -self._freed_newest_first[0] > newest.serial):
                scope = self._freed.pop(-heapq.heappop(self._freed_newest_first), None)  # None if it has ended by itself
            else:
                scope, _ = self._stack.popitem()
            if scope is not None:
                if not scope.users:
                    return scope
                self._blocked[scope] = None
        return None


_NOBODY: Waiters[Failure | None] = Waiters()


def _age(scope: Scope) -> float:
    return scope.serial or inf
