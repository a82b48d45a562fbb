"""One ACM that its loop has entered and will exit: its own task enters it, holds it, and exits it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from ._cycles import ask_for
from ._names import name_of
from ._scope import Scope, scope_on
from ._waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._cycles import Asker
    from ._exit_order import ExitOrder
    from ._typing import ACM

T = TypeVar("T")

_logger = logging.getLogger("asyncio_loop_local")

_Entered = tuple[Any, BaseException | None]


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
        self._askers: Waiters[_Entered] = Waiters()
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
        :raises RuntimeError: if its enter waits, through whatever others, for the code that asks for this.
        """
        asker = ask_for(self) if self.phase == "entering" else None
        self.forget()
        self._leaves_at_once = True
        try:
            return await self.exit()
        finally:
            if asker is not None:
                asker.awaiting.remove(self)

    async def acquire(self) -> T:
        """Its value, as soon as it is entered; side by side with all others that are being entered.

        The last asker that is cancelled cancels the entering, and then a new one starts anew at once.

        :raises RuntimeError: if those that wait for each other to be entered would come to wait for themselves.
        """
        user = scope_on(self.exits)
        asker = None if self.phase == "open" else ask_for(self)
        try:
            if user is not None:
                self.acquired_by(user)
            if self.phase == "open":
                return self.value
            if self.phase == "made":
                self._begin_enter()
            value, error = await self._askers.wait(self.exits.loop)
        except asyncio.CancelledError:
            if not self._askers:
                self._abandon()
            raise
        finally:
            if asker is not None:
                asker.awaiting.remove(self)
        if error is None:
            return cast("T", value)
        try:
            raise error
        finally:
            del error, value  # its traceback holds this frame

    def begin_exit(self) -> None:
        """Lets its task go on to the exit."""
        if self._leave is None:
            super().begin_exit()
        else:
            self._close()
            if not self._leave.done():
                self._leave.set_result(None)

    async def on_exit(self, cause: BaseException | None) -> None:
        """Exits the ACM, with what it died of if it did."""
        self._log("exiting %s")
        acm, self.acm, self.value = self.acm, None, cast("T", None)
        if acm is not None and self._leave is not None:
            kind = None if cause is None else type(cause)
            try:
                await type(acm).__aexit__(acm, kind, cause, None if cause is None else cause.__traceback__)
            finally:
                del cause  # its traceback holds this frame

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        """It has ended, and keeps nothing alive."""
        self.forget()
        if self._leave is not None:
            self._log("exited %s")
        self.acm = self._leave = None
        super().end(error, cause)

    def _log(self, message: str) -> None:
        if _logger.isEnabledFor(logging.DEBUG):  # names are made for those who read them
            _logger.debug(message, self.name)

    def _begin_enter(self) -> None:
        if self.serial:
            self.exits.remove(self)  # it had its place for the tasks that its making started
            self.serial = 0
        self.phase = "entering"
        self.run_task(self._live(cast("ACM[T]", self.acm)))

    async def _live(self, acm: ACM[T]) -> None:
        error: BaseException | None = None
        try:
            try:
                value = await type(acm).__aenter__(acm)
            except BaseException as raised:
                self.raise_if_dropped(raised)
                error = raised
            else:
                self._leave = self.exits.loop.create_future()
                error = await self._hold(value)
                del value
                await self.finish(error)
                return
            told = self._fail(error)
            await self.cancel_tasks()
            self.end(None, None)
            if not told and isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error
        finally:
            del error, acm  # the error's traceback holds this frame

    def _fail(self, error: BaseException) -> bool:
        """Entering has failed: all who wait get the error, and it is not remembered.

        :returns: whether anybody waited.
        """
        cancelled = self.phase == "abandoned" and isinstance(error, asyncio.CancelledError)
        self.phase = "exiting"
        self.forget()
        told = self._askers.tell((None, error))
        if not told and not cancelled:
            self.report("entering {} failed when nobody waited for it any more", error)
        return told

    async def _hold(self, value: T) -> BaseException | None:
        """Holds it open until it is to leave.

        :returns: what it died of, if that came first.
        """
        if self.phase == "abandoned":  # it took no notice of the cancellation, and nobody wants it any more
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            self.phase = "exiting"
            return None
        loop = self.exits.loop
        self.value, self.since = value, loop.time()
        self._origin.opened(value, loop)
        self.phase = "open"
        self.exits.busy.pop(self, None)
        self.exits.push(self)
        self._log("entered %s")
        self._askers.tell((value, None))
        if self._leaves_at_once:
            self.begin_exit()
        cause: BaseException | None = None
        try:
            await cast("asyncio.Future[None]", self._leave)
        except BaseException as raised:
            self.raise_if_dropped(raised)
            if self.phase == "open":
                cause = raised
                self._close()
        try:
            return cause
        finally:
            del cause, value  # its traceback holds this frame

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
