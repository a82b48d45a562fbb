"""One ACM that its loop has entered and will exit: its own task enters it, holds it, and exits it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from ._cycles import ask_for, running_asker
from ._names import name_of
from ._scope import Scope, require_stack, scope_on
from ._waiters import Failure, Waiters, wake_at_once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._cycles import Asker
    from ._exit_order import ExitOrder
    from ._typing import ACM

T = TypeVar("T")

_logger = logging.getLogger("asyncio_loop_local")


class Origin(Protocol):
    """Where a resource comes from, and where its callers find it."""

    @property
    def name(self) -> str:
        """How errors and logs call the resource."""
        ...

    def opened(self, value: Any, loop: asyncio.AbstractEventLoop, /) -> None:
        """Lets callers have its value at once, on its loop, from now on until it is to be forgotten."""
        ...

    def forget(self) -> None:
        """Lets callers find it no longer; called at least once, when it is spent."""
        ...


class Resource(Scope, Generic[T]):
    """Made, entered when first asked for, open until its loop ends or it dies, exited once, and never entered again."""

    __slots__ = ("_askers", "_leave", "_leaves_at_once", "_origin", "acm", "since", "value")

    def __init__(self, exits: ExitOrder, acm: ACM[T] | None, origin: Origin) -> None:
        super().__init__(exits)
        self.acm = acm
        self._origin = origin
        self._askers: Waiters[T | Failure] = Waiters()
        self._leave: asyncio.Future[None] | None = None
        self._leaves_at_once = False  # as soon as it is entered
        self.value: T = cast("T", None)
        self.since: float | None = None  # when it was entered, on the loop's clock

    @property
    def name(self) -> str:
        """How its origin calls it."""
        return self._origin.name

    def forget(self) -> None:
        """Nobody may find it any more: the next call makes a new one."""
        self._origin.forget()

    def note_user(self, asker: Asker) -> None:
        """Its value is taken by code of what ends with the loop, and which it must outlive."""
        user = asker.scope
        if user is not None and self not in user.uses and user.exits is self.exits and user.phase != "ended":
            self.acquired_by(user)

    async def leave(self) -> BaseException | None:
        """Exits it before its loop ends; from now on nobody finds it. One that is being entered is waited for.

        :returns: what the exit raised.
        :raises RuntimeError: if its enter or exit waits, through whatever others, for the code that asks for this.
        """
        askers = ask_for(self)
        self.forget()
        self._leaves_at_once = True
        try:
            return await self.exit()
        finally:
            for asker in askers:
                asker.awaiting.remove(self)

    async def acquire(self) -> T:
        """Its value, as soon as it is entered; side by side with all others that are being entered.

        The last asker that is cancelled cancels the entering, and then a new one starts anew at once.

        :raises RuntimeError: if those that wait for each other to be entered would come to wait for themselves.
        """
        if self.phase != "open":
            return await self._enter()
        user = scope_on(self.exits)
        if user is not None:
            self.acquired_by(user)
        return self.value

    async def _enter(self) -> T:
        """Has it entered, or waits until it is."""
        askers = ask_for(self)
        try:
            user = scope_on(self.exits)
            if user is not None:
                self.acquired_by(user)
            begin = self._begin_enter if self.phase == "made" else None
            entered = await self._askers.wait(self.exits.loop, begin)
        except asyncio.CancelledError:
            if not self._askers:
                self._abandon()
            raise
        finally:
            for asker in askers:
                asker.awaiting.remove(self)
        if not isinstance(entered, Failure):
            return entered
        try:
            raise entered.take()
        finally:
            del entered  # the traceback of its error holds this frame

    def begin_exit(self, *, at_once: bool = False) -> None:
        """Lets its task go on to the exit."""
        if self._leave is None:
            super().begin_exit(at_once=at_once)
        elif self.phase == "open":
            self._close()
            if self._leave.done():
                return  # its task has been cancelled, and goes on by itself
            if at_once:
                wake_at_once(self._leave, self.exits.loop)
            else:
                self._leave.set_result(None)

    def on_exit(self, cause: BaseException | None) -> Awaitable[object] | None:
        """Exits the ACM, with what it died of if it did."""
        self._log("exiting %s")
        acm, self.acm, self.value = self.acm, None, cast("T", None)
        if acm is None or self._leave is None:
            return None
        if cause is None:
            return type(acm).__aexit__(acm, None, None, None)
        return type(acm).__aexit__(acm, type(cause), cause, cause.__traceback__)

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        """It has ended, and keeps nothing alive."""
        self.forget()
        if self._leave is not None:
            self._log("exited %s")
        self.acm = self._leave = None
        super().end(error, cause)

    def _log(self, message: str) -> None:
        if _logger.isEnabledFor(logging.DEBUG):  # names are made for those who read them
            try:
                _logger.debug(message, self.label)
            except Exception as error:
                self.report("the log of {} failed", error)

    def _begin_enter(self) -> None:
        require_stack()
        if self.serial:
            self.exits.remove(self)  # it had its place for the tasks that its making started
            self.serial = 0
        self.phase = "entering"
        # Not in the stack of another one that is being entered, since how long a chain of them is has no limit; nor where an
        # error is being handled, which its code would see.
        at_once = running_asker() is None and sys.exception() is None
        try:
            self.run_task(self._live(cast("ACM[T]", self.acm)), at_once=at_once)
        except BaseException:
            if self._is_entering():
                self.phase = "made"
                if self.tasks:
                    self.exits.push(self)
            raise

    def _is_entering(self) -> bool:
        return self.phase == "entering"

    async def _live(self, acm: ACM[T]) -> None:
        cause: BaseException | None = None
        try:
            try:
                leave = self.exits.loop.create_future()  # first: nothing between the enter and the exit may fail
                value = await type(acm).__aenter__(acm)
            except BaseException as error:
                self.raise_if_lost(error)
                told = True
                try:
                    told = self._fail(error)
                finally:
                    try:
                        await self.cancel_tasks()
                    finally:
                        self.end(None, None)
                if not told and isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                return
            try:
                self._leave = leave
                self._open(value, leave)
                del value
                await leave
            except BaseException as error:
                self.raise_if_lost(error)
                if self.phase in ("entering", "open"):
                    is_held = self.phase == "open" and not self._askers  # else there was no memory, or Ctrl-C came
                    self._close()
                    if is_held:
                        cause = error
                    else:
                        self._tell_askers(error)
            await self.finish(cause)
        finally:
            del acm, cause  # the error's traceback holds this frame

    def _open(self, value: T, leave: asyncio.Future[None]) -> None:
        """It has been entered: callers may have its value."""
        exits = self.exits
        if self.phase == "abandoned":  # it took no notice of the cancellation, and nobody wants it any more
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            self.phase = "exiting"
            leave.set_result(None)
            return
        self.value, self.since = value, exits.loop.time()
        self._origin.opened(value, exits.loop)
        self.phase = "open"
        self._log("entered %s")
        self._askers.tell(value)
        del exits.busy[self]
        exits.push(self)
        if self._leaves_at_once and self.phase == "open":
            self.begin_exit()

    def _fail(self, error: BaseException) -> bool:
        """Entering has failed: all who wait get the error, and it is not remembered.

        :returns: whether anybody waited.
        """
        was_cancelled = self.phase == "abandoned" and isinstance(error, asyncio.CancelledError)
        self.phase = "exiting"
        self.forget()
        return not was_cancelled and self._tell_askers(error)

    def _tell_askers(self, error: BaseException) -> bool:
        report = partial(self.report, "entering {} failed when nobody waited for it any more", error)
        return Failure(error, self.label, report).tell(self._askers)

    def _close(self) -> None:
        """It is on its way out: no longer in its place, nor to be found."""
        self.exits.remove(self)
        self.exits.busy[self] = None
        self.phase = "exiting"
        self.forget()

    def _abandon(self) -> None:
        """Nobody waits for it to be entered any more."""
        if self.phase == "entering" and self._task is not None:
            self.phase = "abandoned"
            self.forget()
            self._task.cancel()


def resource_made_by(
    factory: Callable[..., ACM[T]], args: tuple[Any, ...], kwargs: dict[str, Any], *, exits: ExitOrder, origin: Origin, where: str
) -> Resource[T]:
    """A resource of the ACM that a factory makes, in the resource's own context."""
    resource: Resource[T] = Resource(exits, None, origin)
    try:
        resource.acm = checked_acm(resource.context.run(factory, *args, **kwargs), where=where)
    except BaseException:
        if not resource.tasks:
            resource.end(None, None)
        raise
    return resource


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
        if hasattr(kind, "aclose"):
            advice = "wrap it in contextlib.aclosing()"
    raise TypeError(f"{where} got {what}, which is no asynchronous context manager: {advice}")
