"""One asynchronous context manager that its loop has entered and will exit. Its own task enters it, holds it, and exits it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from ._cpython import current_task, require_stack, running_loop_or_none, wake_at_once
from ._loop_bound import (
    ABANDON,
    ABANDONED,
    BEING_ENTERED,
    ENDED,
    ENTER,
    ENTER_INTERRUPTED,
    ENTERING,
    EXIT,
    FAIL,
    FORKED,
    MADE,
    OPEN,
    OPENED,
    RELEASE,
    RELEASED,
    RETIRE,
    RETIRED,
    STARTED,
    LoopBound,
    running_loop_bound,
)
from ._names import name_of
from ._wait_graph import register_wait, running_node
from ._waiters import Failure, Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._exit_order import Exitable, ExitOrder
    from ._typing import ACM
    from ._wait_graph import WaitNode

T = TypeVar("T")
V = TypeVar("V")

_logger = logging.getLogger("asyncio_loop_local")


class Origin(Protocol):
    """Where a resource comes from, and where callers find it."""

    @property
    def name(self) -> str:
        """The name of the resource in errors and logs."""
        ...

    def publish(self, value: Any, loop: asyncio.AbstractEventLoop, /) -> None:
        """Let callers on its loop have its value at once, from now on until `invalidate`."""
        ...

    def invalidate(self) -> None:
        """Let no new caller find it; called at least once, when it has ended."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether a block that has begun still holds its value; False where blocks are not counted."""
        ...

    def acquired_by(self, user: Exitable, /) -> None:
        """Something that ends with the loop has asked for the value."""
        ...


class Unpublished:
    """The origin of a resource that nobody else finds."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_held(self) -> bool:
        return False

    def acquired_by(self, user: Exitable, /) -> None:
        """There is no other value that it could have got before."""

    def publish(self, value: Any, loop: asyncio.AbstractEventLoop, /) -> None:
        """Nobody else finds it."""

    def invalidate(self) -> None:
        """Nobody else finds it."""


class EndedMeanwhile(Exception):
    """The resource began to exit before the caller, who had found it, could wait for it: the caller has to look again."""


class Resource(LoopBound, Generic[T]):
    """Entered when first asked for, open until its loop ends or it dies, exited once, and never entered again."""

    __slots__ = ("_enter_waiters", "_hold", "acm", "origin", "since", "value")

    def __init__(self, exits: ExitOrder, acm: ACM[T] | None, origin: Origin) -> None:
        super().__init__(exits)
        self.acm = acm
        self.origin = origin
        self._enter_waiters: Waiters[T | Failure] = Waiters()
        self._hold: asyncio.Future[None] | None = None  # its task waits for it between the enter and the exit
        self.value: T = cast("T", None)
        self.since: float | None = None  # when it was entered, on the loop's clock

    @property
    def name(self) -> str:
        """Its origin's name for it."""
        return self.origin.name

    def invalidate(self) -> None:
        """Let the next call make a new one."""
        self.origin.invalidate()

    def note_user(self, node: WaitNode) -> None:
        """Record that the code of ``node`` has taken the value, so that this one exits after the owner of that code."""
        user = node.owner
        if isinstance(user, LoopBound) and self not in user.uses and user.exits is self.exits and user.state is not ENDED:
            self.acquired_by(user)

    def acquired_by(self, user: Exitable) -> None:
        """Note that ``user`` has got the value, and has to end before it."""
        super().acquired_by(user)
        self.origin.acquired_by(user)

    def let_go_by(self, user: Exitable) -> None:
        """Note that ``user`` no longer uses the value, since it has asked for a newer one."""
        self.exits.not_used(self, user)
        self.user_ended()

    def run_factory(self, make: Callable[[], V]) -> V:
        """Call its factory, in its own context: resources that the factory acquires, and tasks that it starts, are its own."""
        try:
            with self.exits.undisturbed():
                return self.context.run(make)
        except BaseException:
            if not self.tasks:
                self.end(None, None)
            raise

    def open_with(self, acm: ACM[T], value: T, *, since: float) -> None:
        """It is open from now on with a value that needs no enter; its exit is that of ``acm``.

        ``since`` comes from before the value was made: asking the clock may fail, and the value would then never be closed.
        """
        exits = self.exits
        if self.state is FORKED:  # its factory has forked this process: the parent exits what the factory makes there
            return
        exits.remove(self)
        self.acm, self.value, self.since = acm, value, since
        self.happens(OPENED)
        self._log("entered %s")
        self.origin.publish(value, exits.loop)
        exits.push(self)

    def retire(self) -> None:
        """Let nobody find it any more, and exit it when neither a block nor anything open uses it any more."""
        self.invalidate()
        if self.happens(RETIRE):
            self.exit_if_unused()
        elif self.happens(RELEASE):
            pass  # it will be retired when it is open
        elif self.state is MADE:
            self.end(None, None)
        elif self.state is STARTED:
            self.begin_exit()

    def exit_if_unused(self) -> None:
        """Begin to exit it, if it is retired and nothing uses it."""
        if self.state is RETIRED and not self.users and not self.origin.is_held:
            self.begin_exit()

    def user_ended(self) -> None:
        """Exit it, if that was the last one to use it."""
        with suppress(MemoryError, RecursionError):  # it will exit with its loop
            self.exit_if_unused()

    async def release(self) -> BaseException | None:
        """Exit it before its loop ends. From now on nobody finds it. If it is being entered, it exits after that.

        :returns: the error of the exit.
        :raises RuntimeError: if its enter or exit waits, perhaps through others, for the code that calls this.
        """
        nodes = register_wait(self)
        self.invalidate()
        self.happens(RELEASE)
        try:
            return await self.exit()
        finally:
            for node in nodes:
                node.awaiting.remove(self)

    async def acquire(self) -> T:
        """Return its value as soon as it is entered; any number of resources are entered side by side.

        The last caller that is cancelled cancels the enter, and the next call makes a new resource at once.

        :raises RuntimeError: if resources that wait for each other to be entered would come to wait for themselves.
        :raises EndedMeanwhile: if other code has ended it since the caller found it.
        """
        if self.state is not OPEN:
            return await self._enter()
        user = running_loop_bound(self.exits)
        if user is not None:
            self.acquired_by(user)
        if self.state is not OPEN:
            raise EndedMeanwhile
        return self.value

    async def _enter(self) -> T:
        """Begin to enter it, or wait until that is done."""
        nodes = register_wait(self)
        try:
            user = running_loop_bound(self.exits)
            if user is not None:
                self.acquired_by(user)
            entered = await self._enter_waiters.wait(self.exits.loop, self._begin_enter_if_due)
        except (asyncio.CancelledError, GeneratorExit):
            if not self._enter_waiters and running_loop_or_none() is self.exits.loop:
                self._abandon()
            raise
        finally:
            for node in nodes:
                node.awaiting.remove(self)
        if not isinstance(entered, Failure):
            return entered
        try:
            raise entered.take()
        finally:
            del entered  # the traceback of its error holds this frame

    def begin_exit(self, *, at_once: bool = False) -> None:
        """Let its task go on to the exit; if it was never entered, only its tasks are to be cancelled."""
        hold = self._hold
        if hold is None:
            super().begin_exit(at_once=at_once)
        elif self._take_out():
            if hold.done():
                return  # its task has been cancelled, and goes on by itself
            if at_once:
                wake_at_once(hold, self.exits.loop)
            else:
                hold.set_result(None)

    def on_exit(self, cause: BaseException | None) -> Awaitable[object] | None:
        """Exit the context manager, with the error of which it died if it did."""
        self._log("exiting %s")
        acm, self.acm, self.value = self.acm, None, cast("T", None)
        if acm is None or not self._was_entered:
            return None
        if cause is None:
            return type(acm).__aexit__(acm, None, None, None)
        return type(acm).__aexit__(acm, type(cause), cause, cause.__traceback__)

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        """It has ended, and keeps nothing alive."""
        self.invalidate()
        if self._was_entered:
            self._log("exited %s")
        self.acm = self._hold = None
        super().end(error, cause)

    @property
    def _was_entered(self) -> bool:
        """Whether `__aenter__` has returned, also if there was no memory to publish the value."""
        return self._hold is not None or self.since is not None

    def _log(self, message: str) -> None:
        if _logger.isEnabledFor(logging.DEBUG):  # names are made only if somebody reads them
            try:
                _logger.debug(message, self.label)
            except Exception as error:
                self.report("the log of {} failed", error)

    def _begin_enter_if_due(self) -> None:
        if self.state in ENTER:
            require_stack()
        if self.happens(ENTER):
            self._begin_enter()
        elif self.state is OPEN:
            self._enter_waiters.notify(self.value)
        elif self.state not in (ENTERING, ENTER_INTERRUPTED):
            raise EndedMeanwhile

    def _begin_enter(self) -> None:
        self.exits.remove(self)
        self.serial = 0
        # Not within a resource's code, since a long chain of enters would overflow the stack; nor where an error is being
        # handled, which its code would find in its context.
        at_once = running_node() is None and sys.exception() is None
        try:
            self.run_task(self._live(cast("ACM[T]", self.acm)), at_once=at_once)
        except BaseException:
            if self.state is ENTERING:  # nothing has begun
                self.state = MADE
                if self.tasks or self.uses:
                    self.start()
            raise

    async def _live(self, acm: ACM[T]) -> None:
        cause: BaseException | None = None
        try:
            try:
                hold = self.exits.loop.create_future()  # first: once it is entered, nothing may fail before its exit is sure
                value = await type(acm).__aenter__(acm)
            except BaseException as error:
                self.raise_if_lost(error)
                notified = True
                try:
                    notified = self._fail(error)
                finally:
                    try:
                        await self.cancel_tasks()
                    finally:
                        self.end(None, None)
                if not notified and isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                return
            try:
                self._hold = hold
                self._open(value, hold)
                del value
                await hold
            except BaseException as error:
                self.raise_if_lost(error)
                if self._take_out():
                    if self._enter_waiters:  # no memory, or Ctrl-C, before all waiting tasks were woken
                        self._notify_failure(error)
                    else:
                        cause = error
                elif self.state in BEING_ENTERED:  # the same, before its state was OPEN
                    self._fail(error)
            await self.finish(cause)
        finally:
            del acm, cause  # the error's traceback holds this frame

    def _open(self, value: T, hold: asyncio.Future[None]) -> None:
        """It has been entered: publish the value."""
        exits = self.exits
        if self.state is FORKED:  # the callers that this process has from its parent go on; the parent exits it
            self._enter_waiters.notify(value)
            return
        self.value, self.since = value, exits.loop.time()
        before = self.happens(OPENED)
        if before is ABANDONED:  # __aenter__ suppressed the cancellation, but no one is waiting: exit at once
            if (task := current_task(exits.loop)) is not None:
                task.uncancel()
            hold.set_result(None)
            return
        if before is not RELEASED:
            self.origin.publish(value, exits.loop)
        self._log("entered %s")
        self._enter_waiters.notify(value)
        if self.state is OPEN:
            exits.push(self)
        if before is RELEASED:
            if self._exit_waiters:
                self.begin_exit()
            elif self.happens(RETIRE):  # nobody waits for its exit, as a release does
                self.exit_if_unused()

    def _fail(self, error: BaseException) -> bool:
        """Entering has failed: all who wait get the error, and it is not remembered.

        :returns: whether anybody waited.
        """
        before = self.happens(FAIL)
        # None: a second Ctrl-C has ended it.
        was_cancelled = before in (ABANDONED, ENTER_INTERRUPTED, None) and isinstance(error, asyncio.CancelledError)
        self.invalidate()
        return not (was_cancelled and not self._enter_waiters) and self._notify_failure(error)

    def _notify_failure(self, error: BaseException) -> bool:
        report = partial(self.report, "entering {} failed when nobody waited for it any more", error)
        return Failure(error, self.label, report).notify(self._enter_waiters)

    def _take_out(self) -> bool:
        """If it is open, it gives up its place, and nobody finds it any more. Its exit is still to run.

        :returns: whether it was open.
        """
        if not self.happens(EXIT):
            return False
        self.exits.in_transition[self] = None
        self.exits.remove(self)
        self.invalidate()
        return True

    def _abandon(self) -> None:
        """Nobody waits for it to be entered any more."""
        if self._task is not None and self.happens(ABANDON):
            self.invalidate()
            self.cancel_soon(ABANDONED)


def resource_made_by(make: Callable[[], ACM[T]], *, exits: ExitOrder, origin: Origin, where: str) -> Resource[T]:
    """A resource of the ACM that a function makes, in the resource's own context."""
    resource: Resource[T] = Resource(exits, None, origin)
    resource.acm = resource.run_factory(lambda: checked_acm(make(), where=where))
    return resource


async def close_by(close: Callable[[T], object], value: T) -> None:
    """Close a value by a function, sync or async."""
    result = close(value)
    if inspect.isawaitable(result):
        await result


def checked_acm_factory(factory: object, *, where: str) -> None:
    """Refuse what can be known to make no ACM before it is ever called.

    :raises TypeError: for an async generator function, or a coroutine function.
    """
    name = name_of(factory)
    if inspect.isasyncgenfunction(factory):
        raise TypeError(
            f"{where} got {name}(), an async generator function, which makes no asynchronous context manager: "
            f"decorate it with @contextlib.asynccontextmanager first"
        )
    if inspect.iscoroutinefunction(factory):
        raise TypeError(
            f"{where} got {name}(), a coroutine function, which makes no asynchronous context manager: "
            f"let it yield its value, once, and decorate it with @contextlib.asynccontextmanager first"
        )


def checked_acm(acm: ACM[T], *, where: str) -> ACM[T]:
    """The ACM itself.

    :raises TypeError: if it is none, with what it is and how to make one of it.
    """
    kind = type(acm)
    if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
        return acm
    got: Any = acm
    advice = "an object with __aenter__ and __aexit__ is needed"
    if inspect.iscoroutine(got):
        got.close()  # or it would warn that it was never awaited
        what = f"a coroutine, of {got.__qualname__}()"
        advice = "let the function yield its value, once, and decorate it with @contextlib.asynccontextmanager"
    elif inspect.isasyncgen(got):
        what = f"an async generator, of {got.__qualname__}()"
        advice = "decorate the function with @contextlib.asynccontextmanager"
    elif inspect.isgenerator(got):
        what = f"a generator, of {got.__qualname__}()"
        advice = "make the function async and decorate it with @contextlib.asynccontextmanager"
    elif inspect.isawaitable(got):
        what = f"an awaitable, of class {kind.__qualname__}"
        advice = "await it in a function that yields its value and is decorated with @contextlib.asynccontextmanager"
    elif isinstance(got, type):
        what = f"the class {name_of(got)}"
        advice = "an instance is needed: call the class"
    elif hasattr(kind, "__enter__") and hasattr(kind, "__exit__"):
        what = f"a synchronous context manager, of class {kind.__qualname__}"
        advice = "enter it in a function decorated with @contextlib.asynccontextmanager"
    elif callable(got):
        what = f"a callable, {name_of(got)}"
        advice = "what it returns is needed: call it"
    else:
        what = f"an object of class {kind.__qualname__}"
        closing = next((name for name in ("aclose", "close") if callable(getattr(kind, name, None))), None)
        if hasattr(kind, "__aenter__"):
            advice = "its class has no __aexit__: write one"
        elif closing is not None:
            advice = f"wrap it with singleton(…, close={kind.__qualname__}.{closing})"
    raise TypeError(f"{where} got {what}, which is no asynchronous context manager: {advice}")
