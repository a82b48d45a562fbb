"""The order in which the open things of one loop end: newest first, and none before the open ones that use it."""

from __future__ import annotations

import sys
from contextlib import suppress
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from ._cpython import require_stack
from ._wait_graph import WaitNode
from ._waiters import Failure, Waiters

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Iterator

    OnFailure = Callable[[Failure], None]


class Exitable(WaitNode):
    """Anything that takes a place in the order of exits, and the dependencies that decide when it may end."""

    __slots__ = ("serial", "users", "uses")

    def __init__(self) -> None:
        super().__init__()
        self.serial = 0  # its place: the higher, the newer; 0 before it has one
        self.uses: dict[Exitable, None] = {}  # everything that it has acquired and that has not ended
        self.users: dict[Exitable, None] = {}  # everything that has acquired it and has not ended

    @property
    def label(self) -> str:
        """Its name, also where making the name fails."""
        raise NotImplementedError

    def start(self) -> None:
        """Take a place in the order, if it has none yet."""
        raise NotImplementedError

    def begin_exit(self, *, at_once: bool = False) -> None:
        """Start its exit."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Cancel its enter or exit; the second time, no longer wait for it."""
        raise NotImplementedError

    def user_ended(self) -> None:
        """Something that had acquired it has ended."""

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        """It has ended, with an error of its exit, or because of one while it was held."""
        raise NotImplementedError

    def forked(self) -> None:
        """This process is a fork of the one in which it ends."""
        raise NotImplementedError

    def acquired_by(self, user: Exitable) -> None:
        """Note that ``user`` has acquired it, and has to end before it."""
        if user is not self:
            user.uses[self] = None
            self.users[user] = None
            user.start()  # what has no place in the order never ends, and would keep this one open


class _Undisturbed:
    """The block of `ExitOrder.undisturbed`; one by contextlib would cost each new resource a microsecond."""

    __slots__ = ("_exits", "_is_outermost")

    def __init__(self, exits: ExitOrder) -> None:
        self._exits = exits

    def __enter__(self) -> None:
        self._is_outermost = not self._exits.is_choosing
        self._exits.is_choosing = True

    def __exit__(self, *_error: object) -> None:
        if self._is_outermost:
            self._exits.is_choosing = False
            self._exits.exit_next_later()


class ExitOrder:
    """What is open on one loop, and what is being entered or exited; lives as long as the loop's state.

    Ending everything builds a heap of the things without users; a user counts until its exit is over. It takes the newest, waits
    for its exit, and adds the things that have no other user. So the end of n things with m dependencies takes O(n log n + m)
    steps, and acquiring takes one.
    """

    __slots__ = (
        "_at_once_up_to",
        "_close_waiters",
        "_newest",
        "_newest_before_end",
        "_open",
        "_ready",
        "exiting_now",
        "in_transition",
        "is_choosing",
        "loop",
        "opens_no_more",
    )

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.in_transition: dict[Exitable, None] = {}  # being entered or exited, and so without a place in the order
        self.exiting_now: Exitable | None = None  # its exit is part of the end of everything
        self._open: dict[int, Exitable] = {}  # by serial, so oldest first
        self._newest = 0
        # While everything is to end: what may end now, newest first, each with the users to ignore, which are of the same cycle.
        self._ready: list[tuple[int, frozenset[Exitable]]] | None = None
        self._close_waiters: Waiters[Failure | None] = Waiters()  # the tasks that wait for everything to end
        self._newest_before_end = 0
        self.opens_no_more = False  # exits would go on opening others, and Ctrl-C came
        self._at_once_up_to = 0  # exits up to this serial may run synchronously, when no user task is left to starve; 0: none
        self.is_choosing = False  # while the next exit is chosen, and in an `undisturbed` block: then no exit begins

    def __bool__(self) -> bool:
        return bool(self._open or self.in_transition or self.exiting_now)

    @property
    def is_ending(self) -> bool:
        """Whether a task waits for everything to end."""
        return bool(self._close_waiters)

    def __iter__(self) -> Iterator[Exitable]:
        """Everything, oldest first; what is being entered comes last."""
        everything = dict.fromkeys((*self._open.values(), *self.in_transition))
        return iter(sorted(everything, key=lambda each: each.serial or inf))

    def push(self, bound: Exitable) -> None:
        """It is open now, and the newest."""
        self._newest = bound.serial = self._newest + 1
        self._open[bound.serial] = bound
        self.in_transition.pop(bound, None)
        self._add_if_ready(bound)
        self._exit_next_within_any_code()

    def remove(self, bound: Exitable) -> None:
        """It gives up its place, since it is about to end, or has ended."""
        self._open.pop(bound.serial, None)

    def ended(self, bound: Exitable) -> None:
        """It has ended, and keeps nothing else open."""
        self.in_transition.pop(bound, None)
        self.remove(bound)
        all_used = list(bound.uses)
        for used in all_used:
            used.users.pop(bound, None)
            self._add_if_ready(used)
        for user in list(bound.users):
            user.uses.pop(bound, None)
        bound.uses.clear()
        bound.users.clear()
        for used in all_used:
            used.user_ended()
        if self.exiting_now is bound:
            self.exiting_now = None
            self._exit_next()
        else:
            self._exit_next_within_any_code()

    def not_used(self, bound: Exitable, user: Exitable) -> None:
        """The user has let go of it, and no longer keeps it open."""
        if bound in user.uses:
            del user.uses[bound]
            bound.users.pop(user, None)
            self._add_if_ready(bound)

    def undisturbed(self) -> _Undisturbed:
        """Return a block in which no exit begins: what is made in it may take its place in the order before it has a value."""
        return _Undisturbed(self)

    def waiters_of(self, bound: Exitable) -> Waiters[Failure | None]:
        """The tasks that wait for everything to end, if this is the one that ends now for them; else nobody."""
        return self._close_waiters if self.exiting_now is bound else _NOBODY_WAITS

    async def end_all(self, on_failure: OnFailure, *, at_once: bool) -> BaseException | None:
        """End one after the other, also what is opened meanwhile; two callers at a time wait for the same exits.

        Cancelled, it stops between two exits: the one in progress goes on by itself, the others wait for the next end.

        ``at_once``: exits that await nothing follow each other within one turn of the loop. Only for when no user task is
        left that would need a turn. What is opened meanwhile exits in turns of its own, or exits that open something would
        keep the loop from turning.

        :returns: the `KeyboardInterrupt` or `SystemExit` that an exit raised, if one did, after all others have run.
        """
        fatal: BaseException | None = None
        self._newest_before_end = self._newest
        self._at_once_up_to = self._newest if at_once else 0
        try:
            while self:
                failure = await self._close_waiters.wait(self.loop, self._exit_next)
                if failure is None:
                    continue  # everything has ended; something may have been opened before this woke
                if isinstance(failure.error, (KeyboardInterrupt, SystemExit)) and fatal is None:
                    fatal = failure.take()
                else:
                    on_failure(failure)
                del failure  # the traceback of its error may lead to this frame
            self.opens_no_more = False
        finally:
            self._at_once_up_to = 0
            if not self._close_waiters:
                self._ready = None
        return fatal

    def interrupt(self) -> None:
        """Cancel the exit in progress, or else all that the next exit waits for; the second time, no longer wait for it.

        If that exit is of something that was opened only while everything ends, by another exit perhaps, and so on for ever,
        nothing more is opened.
        """
        if self.exiting_now is not None and self.exiting_now.serial > self._newest_before_end:
            self.opens_no_more = True
        for bound in list(self.in_transition) if self.exiting_now is None else [self.exiting_now]:
            bound.interrupt()

    def exit_next_later(self) -> None:
        """Go on with the end of everything, if it has begun, at the loop's next turn."""
        if self._close_waiters:
            self.loop.call_soon(self._exit_next)

    def _exit_next_within_any_code(self) -> None:
        """Begin the next exit now, or later where the stack is so deep that it might fail midway."""
        if self._close_waiters:
            try:
                require_stack()
            except RecursionError:
                with suppress(RecursionError):  # then it begins when another one has ended
                    self.exit_next_later()
            else:
                self._exit_next()

    def _exit_next(self) -> None:
        """Begin the next exit, where everything is to end and no exit is in progress."""
        if self.is_choosing or not self._close_waiters:
            return
        self.is_choosing = True
        at_once_up_to = 0 if sys.exception() else self._at_once_up_to  # the exit's code would find the exception in its context
        try:
            while self.exiting_now is None and self._close_waiters.has_live_waiter():
                bound = self.exiting_now = self._take()
                if bound is None:
                    if not self.in_transition:
                        self._close_waiters.notify(None)
                    return
                try:
                    bound.begin_exit(at_once=bound.serial <= at_once_up_to)
                except MemoryError as error:  # the others end all the same
                    bound.end(error, None)
        finally:
            self.is_choosing = False

    def _take(self) -> Exitable | None:
        """Remove and return the newest thing that may end now.

        :returns: None if nothing is open, or all that is waits for users that are being entered or exited.
        """
        while self._open:
            if not self._ready:
                if self._ready is not None and self.in_transition:
                    return None
                self._ready = self._all_ready()
                if not self._ready:
                    return None
            serial, waived = heappop(self._ready)
            bound = self._open.get(-serial)
            if bound is None:
                continue  # it has ended
            users = bound.users.keys()
            if users <= waived and -serial in self._open:  # else a new user has acquired it since
                del self._open[-serial]
                return bound
        return None

    def _add_if_ready(self, bound: Exitable) -> None:
        if self._ready is not None and not bound.users and bound.serial in self._open:
            heappush(self._ready, (-bound.serial, _NO_USERS))

    def _all_ready(self) -> list[tuple[int, frozenset[Exitable]]]:
        """Everything that may end now, as a heap: what has no user, and of each cycle that nothing else uses, the newest."""
        open_ = list(self._open.values())
        ready = [(-bound.serial, _NO_USERS) for bound in open_ if not bound.users]
        if len(ready) < len(open_) and (not ready or _may_have_cycles(open_)):
            for cycle in _cycles_without_users(open_, list(self.in_transition)):
                newest = max(cycle, key=lambda each: each.serial)
                ready.append((-newest.serial, frozenset(newest.users)))
        heapify(ready)
        return ready


_NOBODY_WAITS: Waiters[Failure | None] = Waiters()
_NO_USERS: frozenset[Exitable] = frozenset()


def _may_have_cycles(open_: Iterable[Exitable]) -> bool:
    """Whether something open is older than what it uses, as at least one member of each cycle is."""
    return any(0 < user.serial < bound.serial for bound in open_ for user in list(bound.users))


def _cycles_without_users(open_: Iterable[Exitable], in_transition: Iterable[Exitable]) -> Iterator[list[Exitable]]:
    """The strongly connected components of things that have users, but none outside the component (Kosaraju's algorithm).

    Users that are neither open nor in transition do not count. So there is at least one, if all that is open has users and
    nothing is in transition.
    """
    nodes = dict.fromkeys((*open_, *in_transition))
    component_of: dict[Exitable, int] = {}
    for number, root in enumerate(_users_first(nodes)):
        if root in component_of:
            continue
        component_of[root] = number
        members = [root]
        for member in members:  # grows meanwhile
            for user in list(member.users):
                if user in nodes and user not in component_of:
                    component_of[user] = number
                    members.append(user)
        if any(member.users for member in members) and not any(member in in_transition for member in members):
            users = [user for member in members for user in list(member.users) if user in nodes]
            if all(component_of[user] == number for user in users):
                yield members


def _users_first(nodes: dict[Exitable, None]) -> list[Exitable]:
    """Depth first along ``uses``, in the reverse order of finishing: a user stands before what it uses, cycles aside."""
    seen: set[Exitable] = set()
    finished: list[Exitable] = []
    for root in nodes:
        path = [] if root in seen else [(root, iter(list(root.uses)))]
        seen.add(root)
        while path:
            node, uses = path[-1]
            for used in uses:
                if used not in seen and used in nodes:
                    seen.add(used)
                    path.append((used, iter(list(used.uses))))
                    break
            else:
                path.pop()
                finished.append(node)
    return finished[::-1]
