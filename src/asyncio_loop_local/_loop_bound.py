"""Anything that ends with its loop: a resource, or a callback. Its state, its task and context, and the tasks it starts.

=====================  ============  =====================  =========================================================
state                  event         next state             what is done
=====================  ============  =====================  =========================================================
MADE                   START         STARTED                its factory has started a task, or acquired something: it
                                                            takes its place in the order of exits
MADE                   ENTER         ENTERING               its task begins to enter
STARTED                ENTER         ENTERING               the same; it gives up its place
MADE                   OPENED        OPEN                   a callback is registered, or a value is made that has to be
                                                            closed: it takes its place
STARTED                OPENED        OPEN                   the same: it takes its place anew, as the newest
ENTERING               OPENED        OPEN                   its value is published; it takes its place, as the newest
RELEASED               OPENED        OPEN                   who waits gets the value, and nobody else finds it; it exits
                                                            at once, or when nothing uses it
ENTER_INTERRUPTED      OPENED        OPEN                   it did not heed Ctrl-C: the end of the loop exits it
ABANDONED              OPENED        EXITING                it did not heed the cancellation: its exit begins at once
ENTERING               RELEASE       RELEASED               it will exit as soon as it is open
ENTERING               ABANDON       ABANDONED              nobody waits any more: its task is cancelled
RELEASED               ABANDON       ABANDONED              the same
ENTERING               FAIL          EXITING                its enter raised: all who wait get the error, and the tasks
                                                            that it has started are cancelled
RELEASED               FAIL          EXITING                the same
ABANDONED              FAIL          EXITING                the same; its cancellation is no error
ENTER_INTERRUPTED      FAIL          EXIT_INTERRUPTED       the same
MADE                   EXIT          EXITING                there is nothing to exit
STARTED                EXIT          EXITING                only the tasks that it has started are cancelled
OPEN                   EXIT          EXITING                its task goes on to the exit; nobody finds it any more
OPEN                   RETIRE        RETIRED                nobody finds it any more; it exits when nothing uses it
RETIRED                EXIT          EXITING                nothing uses it any more, or the loop ends
ENTERING               INTERRUPT     ENTER_INTERRUPTED      Ctrl-C: its task is cancelled
RELEASED               INTERRUPT     ENTER_INTERRUPTED      the same
ABANDONED              INTERRUPT     ENTER_INTERRUPTED      the same, once more
EXITING                INTERRUPT     EXIT_INTERRUPTED       the same
ENTER_INTERRUPTED      END           ENDED                  a second Ctrl-C: nobody waits for its task any more
EXIT_INTERRUPTED       END           ENDED                  the same, or its exit is over
EXITING                END           ENDED                  its exit is over: all who wait for that are woken
MADE                   END           ENDED                  it is dropped: there is nothing to exit
STARTED                END           ENDED                  its factory has failed, or there is no memory to exit it
OPEN                   END           ENDED                  a callback is unregistered, or there is no memory to exit it
RETIRED                END           ENDED                  there is no memory to exit it
=====================  ============  =====================  =========================================================

From any state a fork leads to FORKED in the child: the parent ends it. When the task for an event cannot be made, for want of
memory, the event is undone. What was STARTED then takes a new place, as the newest.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context, copy_context
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from ._cpython import has_unseen_error, hide_task, require_stack, running_loop_or_none
from ._exit_order import Exitable
from ._wait_graph import current_node, running_node
from ._waiters import Failure, Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from ._exit_order import ExitOrder

_TASK_NAME = "asyncio_loop_local"
_OPENED_BY_EXITS = 1_000  # one by the exit of the other, while everything ends


class State(Enum):
    """Where something that ends with its loop is in its life."""

    MADE = "made"
    STARTED = "started"
    ENTERING = "entering"
    RELEASED = "released"
    ABANDONED = "abandoned"
    ENTER_INTERRUPTED = "enter interrupted"
    OPEN = "open"
    RETIRED = "retired"
    EXITING = "exiting"
    EXIT_INTERRUPTED = "exit interrupted"
    ENDED = "ended"
    FORKED = "forked"

    __hash__ = object.__hash__  # Enum's own is a Python function, and each event looks a state up


MADE, STARTED, OPEN, EXITING, ENDED, FORKED = State.MADE, State.STARTED, State.OPEN, State.EXITING, State.ENDED, State.FORKED
ENTERING, RELEASED, ABANDONED = State.ENTERING, State.RELEASED, State.ABANDONED
ENTER_INTERRUPTED, EXIT_INTERRUPTED, RETIRED = State.ENTER_INTERRUPTED, State.EXIT_INTERRUPTED, State.RETIRED

BEING_ENTERED = frozenset({ENTERING, RELEASED, ABANDONED, ENTER_INTERRUPTED})
BEING_EXITED = frozenset({EXITING, EXIT_INTERRUPTED})


class Event(dict[State, State]):
    """Something that happens to what ends with its loop: the next state, by the present one."""

    __slots__ = ()


START = Event({MADE: STARTED})
ENTER = Event({MADE: ENTERING, STARTED: ENTERING})
OPENED = Event({MADE: OPEN, STARTED: OPEN, ENTERING: OPEN, RELEASED: OPEN, ENTER_INTERRUPTED: OPEN, ABANDONED: EXITING})
RELEASE = Event({ENTERING: RELEASED})
ABANDON = Event({ENTERING: ABANDONED, RELEASED: ABANDONED})
FAIL = Event({ENTERING: EXITING, RELEASED: EXITING, ABANDONED: EXITING, ENTER_INTERRUPTED: EXIT_INTERRUPTED})
RETIRE = Event({OPEN: RETIRED})
EXIT = Event({MADE: EXITING, STARTED: EXITING, OPEN: EXITING, RETIRED: EXITING})
INTERRUPT = Event(
    {
        ENTERING: ENTER_INTERRUPTED,
        RELEASED: ENTER_INTERRUPTED,
        ABANDONED: ENTER_INTERRUPTED,
        EXITING: EXIT_INTERRUPTED,
    }
)
END = Event(dict.fromkeys((ENTER_INTERRUPTED, EXIT_INTERRUPTED, EXITING, MADE, STARTED, OPEN, RETIRED), ENDED))
FORK = Event(dict.fromkeys(State, FORKED))


class LoopBound(Exitable):
    """Lives from its making to the end of its exit. All its code runs in one context, a copy of its maker's."""

    __slots__ = ("_depth", "_exit_waiters", "_task", "context", "exits", "state", "tasks")

    def __init__(self, exits: ExitOrder) -> None:
        super().__init__()
        self._depth = _depth_of_next(exits)
        self.exits = exits
        self.state = MADE
        self.context = copy_context()
        self.context.run(current_node.set, self)
        self.tasks: dict[asyncio.Task[Any], None] = {}  # started by its code, and not done
        self._task: asyncio.Task[None] | None = None  # its own
        self._exit_waiters: Waiters[Failure | None] = Waiters()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop with which it ends."""
        return self.exits.loop

    @property
    def owner(self) -> LoopBound:
        """Itself."""
        return self

    @property
    def label(self) -> str:
        """Its name; that of its class if somebody's ``__repr__`` fails while the name is made, so that no report is lost."""
        try:
            return self.name
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return f"a {type(self).__name__.lower().strip('_')} whose name cannot be shown"

    @property
    def is_pending(self) -> bool:
        """Whether tasks may be waiting until it is entered, or has ended."""
        return self.state in BEING_ENTERED or self.state in BEING_EXITED

    def happens(self, event: Event) -> State | None:
        """Take the state to which an event leads.

        :returns: the state before; None if the event leads nowhere from there, and nothing has happened.
        """
        before = self.state
        if before not in event:
            return None
        self.state = event[before]  # no call since the state was read: a call may run the collector, and that any code
        return before

    def on_exit(self, cause: BaseException | None) -> Awaitable[object] | None:
        """Exit, or return an awaitable that exits. ``cause``: the error that ended it before its time, if there was one."""

    def invalidate(self) -> None:
        """Called when no new caller may find it any more, perhaps more than once."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Make a task that its code has started live and end with it."""
        if task.done() or task in self.tasks:
            return
        hide_task(task)
        self.tasks[task] = None
        task.add_done_callback(self._disown)
        self.start()

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def start(self) -> None:
        """Take a place in the order of exits, if it has none yet, since its factory is still making it."""
        if self.happens(START):
            self.exits.push(self)

    def run_task(self, coroutine: Coroutine[Any, Any, None], *, at_once: bool = False) -> None:
        """Start its task, in its own context. A resource has one task for enter, hold and exit, anything else one for its exit.

        ``at_once``: the task takes its first step before this returns; from Python 3.12 on.
        """
        exits = self.exits
        task: asyncio.Task[None] | None = None
        exits.in_transition[self] = None
        try:
            if at_once and sys.version_info >= (3, 12):
                task = asyncio.Task(coroutine, loop=exits.loop, name=_TASK_NAME, context=self.context, eager_start=True)
                if task.done():
                    return
            else:
                task = asyncio.Task(coroutine, loop=exits.loop, name=_TASK_NAME, context=self.context)
            hide_task(task)
        except BaseException:  # no memory, or deep in a recursion: the caller undoes the event, and it can be tried again
            exits.in_transition.pop(self, None)
            if task is None:
                coroutine.close()
            else:
                task.cancel()
            raise
        self._task = task

    async def exit(self) -> BaseException | None:
        """End it, once, or wait for an end that has begun. A caller that is cancelled leaves the exit to go on.

        :returns: the error of the exit.
        """
        if self.state in EXIT:
            require_stack()
        failure = await self._exit_waiters.wait(self.exits.loop, self._begin_exit_if_due)
        return None if failure is None else failure.take()

    def _begin_exit_if_due(self) -> None:
        if self._has_ended():
            self._exit_waiters.notify(None)
        else:
            self.begin_exit()

    def begin_exit(self, *, at_once: bool = False) -> None:
        """Start its exit, if that has not begun; `exit` and the end of the loop wait for it.

        ``at_once``: the exit takes its first step before this returns, where that is possible.
        """
        if before := self.happens(EXIT):
            self.invalidate()  # before its exit runs, whose code would find it
            try:
                self.run_task(self.finish(None), at_once=at_once)
            except BaseException:
                if not self._has_ended():
                    self.state = before
                raise
            self.exits.remove(self)

    async def finish(self, cause: BaseException | None) -> None:
        """Run the last part of its life: the exit, then the end of the tasks that it leaves behind."""
        if self.state is FORKED:
            return
        error: BaseException | None = None
        try:
            exiting = self.on_exit(cause)
            if exiting is not None:
                await exiting
        except BaseException as raised:
            self.raise_if_lost(raised)
            error = raised
        try:
            if self.tasks:
                await self.cancel_tasks()
        finally:
            try:
                if isinstance(error, asyncio.CancelledError):
                    is_interrupted = self.state is not EXITING
                    error = None if is_interrupted or cause is not None else _unexpected_cancellation(self.label, error)
                self.end(error, cause)
            finally:
                del error, cause  # their tracebacks hold this frame

    async def cancel_tasks(self) -> None:
        """Cancel the tasks it has started and wait for them, until there are none."""
        while self.tasks:
            tasks = list(self.tasks)
            for task in tasks:
                task.cancel()
            is_waited_for = False
            while not is_waited_for:
                try:
                    await asyncio.wait(tasks)
                    await asyncio.sleep(0)  # a task that awaits one of them gets its error first
                    is_waited_for = True
                except asyncio.CancelledError:
                    if self.state is not EXITING:
                        return
                    # else nobody has asked for this: it is left over from its enter or exit
            for task in tasks:
                if has_unseen_error(task) and (error := task.exception()) is not None:
                    self.report("a task left behind by {} failed", error, task=task)
                self._disown(task)

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        """It has ended: wake all who wait, or report to the loop's exception handler if nobody does."""
        if not self.happens(END):
            return
        self._task = None
        self.context = _NO_CONTEXT  # its own refers to it
        try:
            if cause is not None:
                self.report("{} died while it was held", error or cause)
                error = None
        finally:
            self._notify(error)

    def _notify(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self._exit_waiters.notify(None)
            else:
                failure = Failure(error, self.label, partial(self.report, "the exit of {} failed", error))
                failure.notify(self._exit_waiters, self.exits.waiters_of(self))
        finally:
            self.exits.ended(self)

    def forked(self) -> None:
        """This process is a fork of the one in which it ends: here, nothing of it runs to its end."""
        self.happens(FORK)

    def _has_ended(self) -> bool:
        return self.state is ENDED or self.state is FORKED

    def interrupt(self) -> None:
        """Cancel its enter or exit; the second time, mark it as ended, and no longer wait for its task."""
        if self._task is None:
            return
        if self.state is ENTER_INTERRUPTED or self.state is EXIT_INTERRUPTED:
            self.end(None, None)
        elif self.happens(INTERRUPT):
            self.cancel_soon(self.state)

    def cancel_soon(self, state: State) -> None:
        """Cancel its task in the loop's next turn, if it is still in this state.

        Not at once: a task that is cancelled before its first step, which may be due just now, never runs.
        """

        def cancel() -> None:
            if self.state is state and self._task is not None:
                self._task.cancel()

        self.exits.loop.call_soon(cancel)

    def report(self, message: str, error: BaseException, **more: object) -> None:
        """Give an error for which nobody waits to the loop's exception handler, with the name of this."""
        self.exits.loop.call_exception_handler({"message": message.format(self.label), "exception": error, **more})

    def raise_if_lost(self, error: BaseException) -> None:
        """Raise `GeneratorExit` if the loop no longer runs: the coroutine was dropped with its loop, and must not await.

        In a forked child, raise any error, above all `SystemExit`.
        """
        is_dropped = isinstance(error, GeneratorExit) and running_loop_or_none() is not self.exits.loop
        if is_dropped or self.state is FORKED:
            raise error


_NO_CONTEXT = Context()


def running_loop_bound(exits: ExitOrder) -> LoopBound | None:
    """Return the resource or callback whose code runs now, if it belongs to this loop and has not ended."""
    node = running_node()
    bound = None if node is None else node.owner
    return bound if isinstance(bound, LoopBound) and bound.exits is exits and bound.state is not ENDED else None


def _depth_of_next(exits: ExitOrder) -> int:
    """Return how many exits, while everything ends, have each opened the next one, up to what is made now.

    :raises RuntimeError: if there are so many that this would never end; or if Ctrl-C has put an end to it.
    """
    if not exits.is_ending:
        return 0
    if exits.opens_no_more:
        raise RuntimeError(
            "nothing more is opened while everything on this loop ends: Ctrl-C came in the exit of something that had been "
            "opened only meanwhile"
        )
    maker = running_loop_bound(exits)
    if maker is None:
        return 0
    depth = maker._depth + (maker.state in BEING_EXITED)
    if depth > _OPENED_BY_EXITS:
        raise RuntimeError(
            f"the exit of {maker.label} would open something, as the {_OPENED_BY_EXITS:,} exits before it have done, each of "
            f"what the one before had opened, and so the end would never come: let an exit use what it has, and a close function "
            f"the value that it is given, and not ask for another"
        )
    return depth


def refuse_inside(exits: ExitOrder, call: str, action: str) -> None:
    """Raise if the code that runs belongs to something whose end would then have to wait for itself.

    ``action``, for the message: what the call would have to do first.

    :raises RuntimeError: with the name of the resource or callback.
    """
    bound = running_loop_bound(exits)
    if bound is not None:
        raise RuntimeError(
            f"{call} was called from inside {bound.name}, and would have to {action} first: call it from code that is not its own"
        )


def _unexpected_cancellation(name: str, error: BaseException) -> RuntimeError:
    """Turn the cancellation of an exit that nobody has cancelled into an error: a task that waits is not cancelled by it."""
    wrapped = RuntimeError(f"the exit of {name} raised CancelledError, though nobody had cancelled it")
    wrapped.__cause__ = error
    return wrapped
