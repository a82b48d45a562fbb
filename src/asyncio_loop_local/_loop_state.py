"""Everything that the library holds for one loop; attaching it to the loop, and the loop's methods that it replaces."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from . import _process
from ._cpython import (
    all_tasks,
    has_unseen_error,
    hide_creation_frames,
    hide_task,
    is_eager_task_factory,
    no_running_loop,
    task_class_of,
    threads_have_shut_down,
)
from ._exit_order import ExitOrder
from ._interrupt import CallOnInterrupt
from ._loop_bound import running_loop_bound
from ._names import qualified_name
from ._wait_graph import running_node

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ._exit_order import OnFailure
    from ._loop_cache import LoopCache
    from ._resource import Resource
    from ._waiters import Failure

_ATTRIBUTE = "_asyncio_loop_local"
_SECONDS_TO_ANSWER = 5.0
_WAITS_FOR_CLOSE = 100  # of 10 ms
_PATCHED = ("close", "shutdown_asyncgens", "create_task", "get_task_factory")


_CLOSED_BY_OLD_METHOD = (
    "{} was closed by a close method that was looked up before the loop was first used here, as in addCleanup(loop.close), so "
    "what it held was never exited: {}. Look the method up when it is called, as in addCleanup(lambda: loop.close()), or use "
    "asyncio.run()"
)


class LoopLocalStorage(dict[Any, Any]):
    """The dict of one event loop: what `storage` returns.

    It lives as long as its loop is open, and whatever is in it is let go when the loop is closed. Its keys and values
    are its users' own; `LoopVar` gives typed access to it.
    """

    __slots__ = ("__weakref__",)


class AttachedLoop(Protocol):
    """An event loop on which the library has its one attribute."""

    _asyncio_loop_local: LoopState


# Typed as if every loop had the attribute: the warm paths take it, and attach where it is missing.
running_loop = cast("Callable[[], AttachedLoop]", asyncio.get_running_loop)


class LoopState:
    """What the library holds for one event loop, from its first use on that loop until the loop is closed.

    A loop refers to its state by one attribute, and by the methods that are set on it. These make a reference cycle, which
    closing the loop undoes.
    """

    __slots__ = (
        "__weakref__",
        "_attribute",
        "_cancelling_tasks",
        "_close",
        "_create_task",
        "_forked_exits",
        "_get_task_factory",
        "_is_dropped",
        "_is_ending",
        "_replaced",
        "_shutdown_asyncgens",
        "caches",
        "entered",
        "entered_values",
        "exits",
        "loop",
        "storage",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.exits = ExitOrder(loop)
        self.storage = LoopLocalStorage()
        self.caches: dict[object, LoopCache] = {}  # of each wrapped factory
        self.entered: dict[int, Resource[Any]] = {}  # by the id of its ACM, which it keeps alive
        self.entered_values: dict[int, Any] = {}  # of those among them that are open
        self._is_dropped = False  # the loop closes itself, since nobody refers to it any more
        self._is_ending = False  # the runner waits in shutdown_asyncgens
        self._cancelling_tasks: asyncio.Task[None] | None = None  # waits for the user's tasks to end, before the loop is closed
        self._replaced: dict[str, Any] = {}  # methods that others had set on the loop

    def attach(self) -> None:
        """Set the methods on the loop, and the one attribute.

        :raises TypeError: if nothing can be set on it.
        """
        loop = self.loop
        attribute = self._attribute = _ATTRIBUTE if getattr(loop, _ATTRIBUTE, None) is None else _ATTRIBUTE_BESIDE
        self._close = loop.close
        self._shutdown_asyncgens = loop.shutdown_asyncgens
        self._get_task_factory = loop.get_task_factory
        self._create_task: Callable[..., asyncio.Task[Any]] = loop.create_task
        # Not by the loop's __dict__: from when that is asked for, CPython finds all that loop's attributes in a slower way.
        try:
            # From 3.14 on, it finds quickly only names that were set while all attributes were inline: so ours is set before the
            # methods, and deleted again until all else is in place.
            setattr(loop, attribute, self)
            delattr(loop, attribute)
            for name in _PATCHED:
                method = getattr(loop, name)
                if not _is_of_class(loop, name, method):
                    self._replaced[name] = method
                setattr(loop, name, getattr(self, name))
            setattr(loop, attribute, self)
            _process.attached(self)
        except BaseException as error:
            self._unpatch()
            if not isinstance(error, (AttributeError, TypeError)):
                raise
            kind = type(loop)
            raise TypeError(
                f"an event loop of class {qualified_name(kind)} can hold nothing of its own, since nothing can be "
                f"set on its instances: use a loop class, or a subclass of this one, whose instances take attributes"
            ) from error

    def _unpatch(self) -> None:
        loop = self.loop
        for name in _PATCHED:
            if getattr(getattr(loop, name), "__self__", None) is self:  # else somebody has wrapped it, and goes on calling it
                with suppress(AttributeError):  # at the interpreter's exit, another thread may do the same
                    if name in self._replaced:
                        setattr(loop, name, self._replaced[name])
                    else:
                        delattr(loop, name)
        if getattr(loop, self._attribute, None) is self:
            with suppress(AttributeError):
                delattr(loop, self._attribute)

    def _detach(self) -> None:
        self._unpatch()
        _process.detached(self)
        self._forget_all()

    # The patched methods: each is set on the loop in place of its own, which it calls in turn.

    def create_task(self, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:
        """Start a task. If a resource's code starts it, it lives and ends with that resource."""
        task = self._create_task(coro, **kwargs)  # just what the caller gave: a task factory may take nothing else
        if self.loop.get_debug():
            hide_creation_frames(task, __file__)
        if running_node() is not None and (bound := running_loop_bound(self.exits)) is not None:
            bound.adopt(task)
        return task

    def get_task_factory(self) -> Any:
        """Return the loop's task factory. A resource's code gets an eager one wrapped, so that the resource adopts its tasks.

        For anyio, which makes tasks by the class that it finds in an eager factory, and not by the loop.
        """
        factory: Any = self._get_task_factory()
        if sys.version_info >= (3, 12):
            if running_loop_bound(self.exits) is not None and is_eager_task_factory(factory):
                task_class, exits = task_class_of(factory), self.exits

                def make(*args: Any, **kwargs: Any) -> Any:
                    task = task_class(*args, **kwargs)
                    bound = running_loop_bound(exits)  # at this call: the factory may since have been set on the loop
                    if bound is not None:
                        bound.adopt(task)
                    return task

                return asyncio.create_eager_task_factory(make)
        return factory

    async def shutdown_asyncgens(self) -> None:
        """End everything, when a runner ends the loop: its tasks have ended, its async generators and executor still work."""
        if self.exits:
            self._is_ending = True
            try:
                with CallOnInterrupt(self.loop, self._interrupt):
                    await self.end(_report, at_once=True)
            except (KeyboardInterrupt, SystemExit):
                self.exits.interrupt()
                raise
            finally:
                self._is_ending = False
        await self._shutdown_asyncgens()

    def close(self) -> None:
        """End everything that has not ended, then close the loop.

        On a loop that is driven by hand nothing has ended yet, since nobody calls ``shutdown_asyncgens``.
        """
        loop = self.loop
        if gc.is_finalized(loop):
            self._is_dropped = True
            # Closing may fail, since the collector may have finalized the loop's own sockets before. If async generators were
            # finalized before, asyncio warns of each; where the loop held something, there shall be one warning, ours.
            with suppress(OSError, ValueError), warnings.catch_warnings():
                if self.exits:
                    warnings.filterwarnings("ignore", ".* 'aclose' of ", RuntimeWarning)
                self._close()
            return
        if loop.is_running() or loop.is_closed():
            self._close()
            return
        try:
            if self.exits:
                if self._is_ending and not isinstance(sys.exception(), RuntimeError):  # which says that the loop was stopped
                    self.exits.interrupt()  # Ctrl-C got the runner out of the end that had begun
                self._run_to_end()
        finally:
            self._detach()
            self.storage = LoopLocalStorage()  # an error on its way out may hold this frame, but not what users have stored
            self._close()

    async def end(self, on_failure: OnFailure, *, at_once: bool = False) -> None:
        """End everything, newest first, and forget all that was made; the loop can be used afterwards."""
        if threads_have_shut_down():  # an exit may need one all the same
            self.loop.set_default_executor(_process.LateExecutor())
            # It has nothing to shut down, for which asyncio would start a thread, and Python 3.12 starts none by now.
            self.loop.shutdown_default_executor = _shut_down_nothing  # type: ignore[method-assign]  # on this one alone
        fatal: BaseException | None = None
        is_over = False
        while not is_over:
            fatal = await self.exits.end_all(on_failure, at_once=at_once) or fatal
            self._forget_all()
            is_over = not self.exits  # what is forgotten may have run code that has opened something
        if fatal is not None:
            try:
                raise fatal
            finally:
                del fatal  # its traceback holds this frame

    def retire(self, factory: object) -> None:
        """Forget what this factory has made here, and exit it as soon as nothing uses it any more."""
        cache = self.caches.pop(factory, None)
        for entry in () if cache is None else list(cache.entries.values()):
            resource = entry.resource
            entry.invalidate()
            if resource is not None:
                resource.retire()

    def _forget_all(self) -> None:
        caches, self.caches, self.entered, self.entered_values = self.caches, {}, {}, {}
        for cache in caches.values():
            cache.clear()

    def _run_to_end(self) -> None:
        """Run the loop until everything has ended, whatever comes between.

        :raises KeyboardInterrupt, SystemExit: that came meanwhile; the exit in progress was cancelled, the others have run.
        """
        interruption: BaseException | None = None
        ending: asyncio.Task[None] | None = None
        with no_running_loop(), CallOnInterrupt(self.loop, self._interrupt):
            while self.exits:
                if ending is None or ending.done():
                    ending = self._hidden_task(self._end_after_tasks())
                try:
                    self.loop.run_until_complete(ending)
                except (KeyboardInterrupt, SystemExit) as error:
                    interruption = error
                    if ending.done():
                        ending.exception()  # seen, or its task would report it once more
                    self._interrupt()
                except RuntimeError:
                    if ending.done() or self.loop.is_running() or self.loop.is_closed():
                        raise
                    # else something has called loop.stop()
        if interruption is not None:
            try:
                raise interruption
            finally:
                del interruption, ending  # its traceback holds this frame

    def _interrupt(self) -> None:
        if self._cancelling_tasks is not None:
            self._cancelling_tasks.cancel()
        self.exits.interrupt()

    async def _end_after_tasks(self) -> None:
        while tasks := all_tasks(self.loop):  # and those that they start meanwhile
            waiting = self._cancelling_tasks = self._hidden_task(_cancel_and_wait(tasks))
            await asyncio.wait([waiting])
            self._cancelling_tasks = None
            if waiting.cancelled():
                break
        await self.end(_report, at_once=True)

    def _hidden_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.Task(coroutine, loop=self.loop, name="asyncio_loop_local")
        hide_task(task)
        return task

    def interpreter_exits(self) -> None:
        """End what the loop still holds, and warn of it; from here on the loop is as it was before."""
        loop, held, was_closed = self.loop, self._held(), self.loop.is_closed()
        try:
            if was_closed:
                return
            if loop.is_running():
                self._end_in_daemon_thread()
            elif held:
                self._run_to_end()
        finally:
            self._detach()
            if held:
                self._warn(
                    _CLOSED_BY_OLD_METHOD.format(repr(loop), held)
                    if was_closed
                    else f"{loop!r} was still open when the interpreter exited: close it, or use asyncio.run(). It held {held}"
                )

    def _end_in_daemon_thread(self) -> None:
        """Have the thread in which the loop runs end everything, with the loop's tasks; give up if the loop does not answer."""
        loop = self.loop
        answered, done = threading.Event(), threading.Event()

        def start() -> None:
            answered.set()
            ending = self._hidden_task(self._end_after_tasks())
            ending.add_done_callback(lambda _: done.set())

        loop.call_soon_threadsafe(start)
        if not answered.wait(_SECONDS_TO_ANSWER):
            return
        stood_still = 0
        while not done.wait(0.01) and not loop.is_closed():  # its runner may come to an end meanwhile, and close the loop
            stood_still = 0 if loop.is_running() else stood_still + 1
            if stood_still > _WAITS_FOR_CLOSE:  # or come to an end, and leave it open
                self._run_to_end()
                return

    def process_forked(self) -> None:
        """Leave everything to the parent process: in this one, the loop exits nothing and finalizes no async generator."""
        self._replaced["shutdown_asyncgens"] = self._shutdown_asyncgens = _shut_down_nothing
        self._unpatch()
        for bound in self.exits:
            bound.forked()
        self._forked_exits = self.exits  # kept, so that nothing in it is finalized
        self.exits = ExitOrder(self.loop)

    def _held(self) -> str:
        return ", ".join(bound.label for bound in self.exits)

    def __del__(self) -> None:
        """A loop that was dropped unclosed: nothing can run on it any more."""
        if sys.is_finalizing():
            return
        _process.detached(self)
        if getattr(self, "exits", None) and (held := self._held()):
            for notify in _process.when_dropped:
                notify(self.loop, held)
            loop = f"an event loop of class {type(self.loop).__qualname__}"
            self._warn(
                _CLOSED_BY_OLD_METHOD.format(loop, held)
                if self.loop.is_closed() and not self._is_dropped
                else f"{loop} was dropped without being closed, so what it held was never exited: {held}. "
                f"Close it, or use asyncio.run()"
            )

    def _warn(self, message: str) -> None:
        warnings.warn(message, ResourceWarning, stacklevel=3, source=self.loop)


# Of a second copy of this package, as an SDK may have vendored it, on a loop on which the first one has its state.
_ATTRIBUTE_BESIDE = f"{_ATTRIBUTE}_{id(LoopState)}"


def loop_state() -> LoopState:
    """The state of the running loop, made and attached if this is its first use.

    :raises RuntimeError: if no loop runs.
    :raises TypeError: if nothing can be set on instances of the loop's class.
    """
    loop = running_loop()
    try:
        state = loop._asyncio_loop_local
        if type(state) is LoopState:
            return state
    except AttributeError:
        pass
    return _state_of(loop) or _attached_to(cast("asyncio.AbstractEventLoop", loop))


_attaching: dict[int, LoopState] = {}  # by the id of the loop


def _attached_to(loop: asyncio.AbstractEventLoop) -> LoopState:
    """Attach exactly one state to the loop, even if the collector runs code meanwhile that uses the loop for the first time."""
    made = LoopState(loop)
    state = _attaching.setdefault(id(loop), made)
    if state is not made:
        return state  # that code runs while this one is being attached
    try:
        attached = _state_of(loop)
        if attached is not None:
            return attached  # by code that ran while this one was being made
        state.attach()
        return state
    finally:
        del _attaching[id(loop)]


def attached_state() -> LoopState | None:
    """The state of the running loop, if it has one.

    :raises RuntimeError: if no loop runs.
    """
    return _state_of(running_loop())


def _state_of(loop: object) -> LoopState | None:
    state: LoopState | None = getattr(loop, _ATTRIBUTE, None)
    if state is None or type(state) is LoopState:
        return state
    return getattr(loop, _ATTRIBUTE_BESIDE, None)


def attached_states() -> list[LoopState]:
    """The states of all loops of this process, in whichever thread they run."""
    return [state for state in _process.all_attached() if isinstance(state, LoopState)]


def _is_of_class(loop: asyncio.AbstractEventLoop, name: str, value: object) -> bool:
    """Tell whether the method comes from the class, so that deleting our override restores it."""
    of_class = getattr(type(loop), name, value)
    bind = getattr(of_class, "__get__", None)
    return bool(value == (of_class if bind is None else bind(loop)))


async def _cancel_and_wait(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for them, as `asyncio.run` does."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if has_unseen_error(task) and (error := task.exception()) is not None:
            message = "unhandled exception while the loop was being closed"
            task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})


def _report(failure: Failure) -> None:
    failure.take()
    failure.report()


async def _shut_down_nothing(_timeout: float | None = None) -> None:
    """Replace a method of a loop that this process has from its parent, or of one whose threads the interpreter has ended."""
