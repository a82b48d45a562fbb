"""Something that ends with its loop: a context of its own, the tasks that its code starts, and what it has acquired."""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _unregister_task  # pyright: ignore[reportPrivateUsage]  # documented for task implementers
from contextvars import Context, copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from ._cycles import Asker, current_asker, find_path, running_asker
from ._waiters import Failure, Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable

    from ._exit_order import ExitOrder

_TASK_NAME = "asyncio_loop_local"
_FRAMES_NEEDED = 80

Phase = Literal["made", "entering", "abandoned", "open", "exiting", "ended", "left"]


def hide(task: asyncio.Task[Any]) -> None:
    """Takes a task out of `asyncio.all_tasks`, by which a runner finds what to cancel before anything is closed."""
    _unregister_task(task)
    # A loop that is dropped unclosed says so once, by our own warning, and not once more for each hidden task.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # private, as asyncio.gather itself sets it


class Scope(Asker):
    """Lives from its making to the end of its exit; all its code runs in one context, a copy of its maker's."""

    __slots__ = (
        "_enders",
        "_interrupted",
        "_task",
        "context",
        "exits",
        "phase",
        "serial",
        "tasks",
        "users",
        "uses",
        "waived",
    )

    def __init__(self, exits: ExitOrder) -> None:
        super().__init__()
        self.exits = exits
        self.phase: Phase = "made"
        self.serial = 0
        self.context = copy_context()
        self.context.run(current_asker.set, self)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.uses: dict[Scope, None] = {}  # all that it has acquired
        self.users: dict[Scope, None] = {}  # those that must end before it
        self.waived: dict[Scope, None] = {}  # those that use it too, but of which it has come to use itself
        self._task: asyncio.Task[None] | None = None
        self._enders: Waiters[Failure | None] = Waiters()
        self._interrupted = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop with which it ends."""
        return self.exits.loop

    @property
    def scope(self) -> Scope:
        """Itself."""
        return self

    @property
    def label(self) -> str:
        """Its name, or that of its class where somebody's ``__repr__`` keeps it from being made: no report is lost by that."""
        try:
            return self.name
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return f"a {type(self).__name__.lower().strip('_')} whose name cannot be shown"

    @property
    def is_pending(self) -> bool:
        """Whether others may be waiting for it to be entered, or to end."""
        return self.phase in ("entering", "abandoned", "exiting")

    def on_exit(self, cause: BaseException | None) -> Awaitable[object] | None:
        """Does what is to be done at its end, or begins it; ``cause`` is what it died of while it was held."""

    def forget(self) -> None:
        """Called when nobody may find it any more, perhaps more than once."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Makes a task, started by code of this scope, one that lives and ends with it."""
        if task.done():
            return
        hide(task)
        self.tasks[task] = None
        task.add_done_callback(self._disown)
        if self.phase == "made" and not self.serial:
            self.exits.push(self)

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def acquired_by(self, user: Scope) -> None:
        """``user`` has asked for it, and must end before it from now on.

        Two that came to use each other end newest first: of each circle, what its newest member is used by gives way.
        """
        if user is self or self in user.uses:
            return
        user.uses[self] = None
        self.users[user] = None
        while user.users and user in self.users and (circle := find_path(user, self, _users_of)) is not None:
            newest = max(circle, key=_age)
            waived = circle[(circle.index(newest) + 1) % len(circle)]
            del newest.users[waived]
            newest.waived[waived] = None
            self.exits.unblock(newest)

    def run_task(self, coroutine: Coroutine[Any, Any, None], *, at_once: bool = False) -> None:
        """Runs a part of its life, in the one task in which it has its whole life, in its own context.

        ``at_once``: up to where it waits for something, before this returns; from Python 3.12 on.
        """
        exits = self.exits
        task: asyncio.Task[None] | None = None
        exits.busy[self] = None
        try:
            if at_once and sys.version_info >= (3, 12):
                task = asyncio.Task(coroutine, loop=exits.loop, name=_TASK_NAME, context=self.context, eager_start=True)
                if task.done():
                    return
            else:
                task = asyncio.Task(coroutine, loop=exits.loop, name=_TASK_NAME, context=self.context)
            hide(task)
        except BaseException:  # no memory, or deep in a recursion: nothing has begun, and it can be tried again
            exits.busy.pop(self, None)
            if task is None:
                coroutine.close()
            else:
                task.cancel()
            raise
        self._task = task

    async def exit(self) -> BaseException | None:
        """Ends it, once, or waits for an end that has begun; whoever is cancelled here leaves the exit to go on.

        :returns: what the exit raised.
        """
        if self.phase == "ended":
            return None
        begin = None
        if self.phase in ("made", "open"):
            require_stack()
            begin = self.begin_exit
        failure = await self._enders.wait(self.exits.loop, begin)
        return None if failure is None else failure.take()

    def begin_exit(self, *, at_once: bool = False) -> None:
        """Starts its end, if it has not begun; ``exit`` and the end of the loop wait for it.

        ``at_once``: up to where it waits for something, before this returns, where it can be had.
        """
        phase = self.phase
        if phase in ("made", "open"):
            self.phase = "exiting"
            try:
                self.run_task(self.finish(None), at_once=at_once)
            except BaseException:
                if not self._has_ended():
                    self.phase = phase
                raise
            self.exits.remove(self)
            self.forget()

    async def finish(self, cause: BaseException | None) -> None:
        """The last part of its life: the exit, then the end of the tasks that it leaves behind."""
        if self.phase == "left":
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
                if not self._has_ended():  # else nobody waits for it any more
                    if isinstance(error, asyncio.CancelledError):
                        error = None if self._interrupted or cause is not None else _was_cancelled(self.label, error)
                    self.end(error, cause)
            finally:
                del error, cause  # their tracebacks hold this frame

    async def cancel_tasks(self) -> None:
        """Cancels the tasks it has started and waits for them, until there are none."""
        while self.tasks:
            tasks = list(self.tasks)
            for task in tasks:
                task.cancel()
            is_waited_for = False
            while not is_waited_for:
                try:
                    await asyncio.wait(tasks)
                    await asyncio.sleep(0)  # who has awaited one gets its error first
                    is_waited_for = True
                except asyncio.CancelledError:  # else a cancellation that its enter or exit has left behind
                    if self._interrupted:
                        return
            for task in tasks:
                if is_unseen(task) and (error := task.exception()) is not None:
                    self.report("a task left behind by {} failed", error, task=task)
                self._disown(task)

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        """It has ended: tells those who wait, or the loop's exception handler if nobody does."""
        self.phase = "ended"
        self._task = None
        self.context = _NO_CONTEXT  # its own refers to it
        try:
            if cause is not None:
                self.report("{} died while it was held", error or cause)
                error = None
        finally:
            self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self._enders.tell(None)
            else:
                failure = Failure(error, self.label, partial(self.report, "the exit of {} failed", error))
                failure.tell(self._enders, self.exits.who_ends(self))
        finally:
            self.exits.ended(self)

    def leave_to_parent(self) -> None:
        """This process is a fork of the one in which it ends: here, nothing of it is run to its end."""
        self.phase = "left"

    def _has_ended(self) -> bool:
        return self.phase in ("ended", "left")

    def interrupt(self) -> None:
        """Cancels the exit in progress; the second time, does without it."""
        if self._task is None or self.phase == "ended":
            return
        if self._interrupted:
            self.end(None, None)
        else:
            self._interrupted = True
            # Not at once: a task that is cancelled before its first step, which may be due just now, never runs.
            self.exits.loop.call_soon(self._task.cancel)

    def report(self, message: str, error: BaseException, **more: object) -> None:
        """Gives an error that nobody waits for to the loop's exception handler, with this named."""
        self.exits.loop.call_exception_handler({"message": message.format(self.label), "exception": error, **more})

    def raise_if_lost(self, error: BaseException) -> None:
        """Raises the `GeneratorExit` that a coroutine gets when its loop was dropped, where nothing can be awaited.

        And whatever is raised where it is left to the parent process: `SystemExit` above all.
        """
        is_dropped = isinstance(error, GeneratorExit) and asyncio._get_running_loop() is not self.exits.loop
        if is_dropped or self.phase == "left":
            raise error


_NO_CONTEXT = Context()


def is_unseen(task: asyncio.Task[Any]) -> bool:
    """Whether it has failed and nobody has got its error."""
    return not task.cancelled() and bool(task._log_traceback)  # private; asyncio itself reports by it


def require_stack() -> None:
    """Raises where a recursion is so deep that what follows might fail midway: a future that cannot wake its task never will.

    :raises RecursionError: before anything has begun.
    """
    try:
        sys._getframe(max(sys.getrecursionlimit() - _FRAMES_NEEDED, 0))
    except ValueError:
        return  # the stack is not as deep as that
    raise RecursionError("the stack is too deep for something to be entered or ended safely")


def scope_on(exits: ExitOrder) -> Scope | None:
    """The scope whose code asks, if it is one of this loop and has not ended."""
    asker = running_asker()
    scope = None if asker is None else asker.scope
    return None if scope is None or scope.exits is not exits or scope.phase == "ended" else scope


def refuse_inside(exits: ExitOrder, call: str, wish: str) -> None:
    """Raises where code of something that ends with the loop asks for an end that would have to wait for itself.

    :raises RuntimeError: with the name of what asks.
    """
    scope = scope_on(exits)
    if scope is not None:
        raise RuntimeError(
            f"{call} was called from inside {scope.name}, and would have to {wish} first: call it from code that is not its own"
        )


def _age(scope: Scope) -> float:
    return scope.serial or inf  # what is being entered will be the newest


def _users_of(scope: Scope) -> Iterable[Scope]:
    return scope.users


def _was_cancelled(name: str, error: BaseException) -> RuntimeError:
    """An exit that ends as cancelled though nobody cancelled it: an error, not a request to whoever waits for it."""
    wrapped = RuntimeError(f"the exit of {name} raised CancelledError, though nobody had cancelled it")
    wrapped.__cause__ = error
    return wrapped
