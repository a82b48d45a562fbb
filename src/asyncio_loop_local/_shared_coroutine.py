"""A coroutine that any number of tasks may await: its function runs once, and all get what it returns."""

from __future__ import annotations

from asyncio import CancelledError, Task, get_running_loop
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import ref

from ._cpython import current_task, running_loop_or_none
from ._loop_cache import ArgumentsNotKept
from ._names import name_of
from ._wait_graph import WaitNode, current_node, register_wait, running_node
from ._waiters import Failure, Waiters
from ._wrapped_factory import CallResult

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from types import CodeType, TracebackType

    from ._loop_cache import CacheEntry

_RUNS = 10  # begun anew, at most, after others have cancelled one; a function that cancels itself would be run for ever

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Run(WaitNode):
    """One run of the function, in a task of its own, and those who wait for it."""

    __slots__ = ("_loop", "_owner", "_qualname", "is_over", "task", "waiters")

    def __init__(self, loop: AbstractEventLoop, qualname: str) -> None:
        super().__init__()
        self._loop = loop
        self._qualname = qualname
        node = running_node()
        self._owner = None if node is None else node.owner
        self.task: Task[Any] | None = None
        self.is_over = False
        self.waiters: Waiters[Task[Any] | Failure | None] = Waiters()

    @property
    def name(self) -> str:
        return f"{self._qualname.rpartition('<locals>.')[2]}()"

    @property
    def loop(self) -> AbstractEventLoop:
        return self._loop

    @property
    def owner(self) -> WaitNode | None:
        return self._owner

    @property
    def is_pending(self) -> bool:
        return not self.is_over

    def notify_if_over(self) -> None:
        """Wake the task that has just begun to wait, if the run is over: other code may have run meanwhile."""
        if self.is_over:
            self.waiters.notify(None)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Task[Any]:
        """Starts it in a copy of the caller's context: a task of the caller's, as any that it starts."""
        context = copy_context()
        context.run(current_node.set, self)
        # Not with context=…, which task factories that people wrote before Python 3.11 do not take.
        task: Task[Any] = context.run(self._loop.create_task, coroutine)
        self.task = task
        return task


class ReusableCoroutine(Coroutine[Any, Any, T_co], CallResult):
    """Whatever takes a coroutine takes this; any number of tasks may await or drive it at the same time, any number of times.

    Each task that drives it, as one does that `asyncio.create_task` makes of it, has a state of its own in it.
    """

    __slots__ = ("__name__", "__qualname__", "__weakref__", "_drivers", "_with_arguments", "cr_code")

    # What a coroutine object has besides, since a checker may take the function's for one: this one has no frame of its own.
    cr_await = None
    cr_frame = None
    cr_origin = None
    cr_running = False

    def __init__(self, first: Coroutine[Any, Any, T_co]) -> None:
        self._drivers: dict[Task[Any] | None, Generator[Any, Any, T_co]] = {}
        self._with_arguments: ref[_CoroutineByKey[T_co]] | None = None
        self.__name__: str = getattr(first, "__name__", "coroutine")
        self.__qualname__: str = getattr(first, "__qualname__", self.__name__)
        self.cr_code: CodeType | None = getattr(first, "cr_code", None)

    def send(self, value: Any, /) -> Any:
        driver = _driver()
        steps = self._drivers.get(driver)
        if steps is None:
            if value is not None:
                raise TypeError("can't send non-None value to a just-started coroutine")
            steps = self._drivers[driver] = self.__await__()
        try:
            return steps.send(value)
        except BaseException:
            self._drivers.pop(driver, None)
            raise
        finally:
            del driver  # this frame is held by the traceback of an error that the task keeps

    def throw(self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None, /) -> Any:
        driver = _driver()
        steps = self._drivers.setdefault(driver, self._drivers.get(driver) or self.__await__())
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        try:
            return steps.throw(error if tb is None else error.with_traceback(tb))
        except BaseException:
            self._drivers.pop(driver, None)
            raise
        finally:
            del driver, typ, val, tb, error

    def close(self) -> None:
        """Let go of what the task that calls this has waited for; others go on."""
        steps = self._drivers.pop(_driver(), None)
        if steps is not None:
            steps.close()

    def with_arguments(self, call_again: Callable[[], Coroutine[Any, Any, T_co]]) -> Coroutine[Any, Any, T_co]:
        """Return the same for a call of which only this, and not the loop, keeps the arguments."""
        known = None if self._with_arguments is None else self._with_arguments()
        if known is None:
            known = _CoroutineByKey(self, call_again)
            self._with_arguments = ref(known)
        return known


class _CoroutineByKey(ReusableCoroutine[T_co]):
    """The result of a call with ``key=``. This object alone keeps the arguments, for when it has to make the call again."""

    __slots__ = ("_call_again", "_coroutine")

    def __init__(self, coroutine: ReusableCoroutine[T_co], call_again: Callable[[], Coroutine[Any, Any, T_co]]) -> None:
        super().__init__(coroutine)
        self._coroutine = coroutine
        self._call_again = call_again

    def __await__(self) -> Generator[Any, Any, T_co]:
        try:
            return (yield from self._coroutine.__await__())
        except ArgumentsNotKept:
            pass  # go on after this block: in it, an error of the function's own would have this one as its context
        return (yield from self._call_again().__await__())

    def __repr__(self) -> str:
        return repr(self._coroutine)


class FirstCoroutine(Generic[T_co]):
    """The coroutine that a call has made before anybody has awaited it, or the call to make it then."""

    __slots__ = ("_first", "_function")

    def __init__(self, first: Coroutine[Any, Any, T_co], function: Callable[[], Coroutine[Any, Any, T_co]]) -> None:
        self._first: Coroutine[Any, Any, T_co] | None = first
        self._function = function
        if _does_nothing_but_make(first, function):
            first.close()  # its arguments have been checked, and another one costs nothing
            self._first = None

    def take(self) -> Coroutine[Any, Any, T_co]:
        """Return the first one, and afterwards a new one each time."""
        coroutine, self._first = self._first or self._function(), None
        return coroutine

    def __del__(self) -> None:
        first = getattr(self, "_first", None)  # which Ctrl-C may have kept from being set
        if first is not None:
            first.close()  # nobody has awaited it, which is no mistake


class SharedCoroutine(ReusableCoroutine[T_co]):
    """What a call of a coroutine function gives when `singleton` wraps it; lives as long as its loop's state, or its user.

    What a run returns is kept; a failure is not.
    """

    __slots__ = ("_done_on", "_entry", "_first", "_is_spent", "_loop", "_result", "_run", "_wrapper")

    def __init__(
        self,
        first: Coroutine[Any, Any, T_co],
        entry: CacheEntry,
        wrapper: Callable[..., Coroutine[Any, Any, T_co]],
    ) -> None:
        super().__init__(first)
        self._first: FirstCoroutine[T_co] | None = first_coroutine(first, entry)
        self._entry = entry
        self._wrapper = wrapper  # makes the same call anew, on another loop too
        self._is_spent = False
        self._loop = get_running_loop()
        self._run: _Run | None = None
        self._done_on: AbstractEventLoop | None = None

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._done_on is get_running_loop():
            return self._result
        return (yield from self._wait().__await__())

    def __repr__(self) -> str:
        state = "done" if self._done_on is not None else "not started" if self._run is None else "running"
        return f"<shared coroutine {name_of(self)}, {state}>"

    async def _wait(self) -> T_co:
        if self._loop is not get_running_loop():
            return await self._entry.call_again(self._wrapper)
        for _ in range(_RUNS):
            run = self._run
            if run is not None and run.task is not None and run.task.done():
                self._finished(run, run.task)  # and not at the loop's next turn, when it will call this
                run = None
            if self._done_on is not None:
                return self._result
            if self._is_spent:
                return await self._entry.call_again(self._wrapper)
            run = run or self._start()
            if run is None:
                continue
            nodes = register_wait(run)
            try:
                ended = await run.waiters.wait(self._loop, run.notify_if_over)
            except CancelledError:
                if self._run is run and run.task is not None and not run.waiters:
                    if run.task.done():
                        self._finished(run, run.task)  # in the same turn: to cancel it would silence its error
                    else:
                        self._spend()
                        run.task.cancel()
                raise
            finally:
                for node in nodes:
                    node.awaiting.remove(run)
            if ended is None:
                continue  # it was over before this could wait
            if isinstance(ended, Failure):
                try:
                    raise ended.take()
                finally:
                    del ended  # the traceback of its error holds this frame
            if not _was_taken_away(ended):
                return cast("T_co", ended.result())
        raise RuntimeError(
            f"{name_of(self)}() was cancelled {_RUNS} times while it was awaited, by others than those who had awaited it"
        )

    def _spend(self) -> None:
        """Its run has come to nothing: the next call, with its own arguments, and whoever awaits this once more, begin anew."""
        self._run = None
        self._is_spent = True
        self._first = None
        self._entry.invalidate()

    def _start(self) -> _Run | None:
        """Start a run, unless other code has done so meanwhile, by the collector: then there is something else to look at."""
        run = _Run(self._loop, self.__qualname__)
        first = self._first
        if self._run is not None or first is None:
            return self._run
        self._run = run
        try:
            coroutine = first.take()
            try:
                task = run.start(coroutine)
            except BaseException:
                coroutine.close()
                raise
        except BaseException:
            self._run = None
            run.is_over = True
            run.waiters.notify(None)
            raise
        task.add_done_callback(partial(self._finished, run))
        return run

    def _finished(self, run: _Run, task: Task[T_co]) -> None:
        is_cancelled = task.cancelled()
        error = None if is_cancelled else task.exception()
        result = None if is_cancelled or error is not None else task.result()
        if run.is_over:
            return  # this was called before
        run.is_over = True
        run.task = None  # its context refers to the run
        is_wanted = self._run is run  # else everybody who had waited for it was cancelled, and so it was
        if is_wanted:  # all at once, and before any call
            self._run = None
            if error is None and not is_cancelled:
                self._result: T_co = cast("T_co", result)
                self._done_on = self._loop
                self._first = None
            elif not _was_taken_away(task):
                self._spend()
        if error is None:
            run.waiters.notify(task)
        else:
            Failure(error, run.name, partial(self._report, run, task, error)).notify(run.waiters)

    def _report(self, run: _Run, task: Task[T_co], error: BaseException) -> None:
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):  # which the loop itself has raised out of its run
            message = f"{run.name} failed when nobody waited for it any more"
            self._loop.call_exception_handler({"message": message, "exception": error, "task": task})


class CheckedSharedCoroutine(SharedCoroutine[T_co]):
    """One whose result is checked at each await: when it is no longer good, the next call begins anew, and so does the await."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._done_on is get_running_loop():
            result = self._result
            if self._entry.is_good(result):
                return result
            if self._done_on is not None:  # else somebody has found that meanwhile
                self._done_on = None
                del self._result
                self._entry.retire()
                self._spend()
        return (yield from self._wait().__await__())


def shared_coroutine(first: Coroutine[Any, Any, Any], entry: CacheEntry, wrapper: Callable[..., Any]) -> SharedCoroutine[Any]:
    """Return what the call of an entry gives, whose factory has returned a coroutine."""
    if entry.factory.valid is None:
        return SharedCoroutine(first, entry, wrapper)
    return CheckedSharedCoroutine(first, entry, wrapper)


def first_coroutine(first: Coroutine[Any, Any, T], entry: CacheEntry) -> FirstCoroutine[T]:
    """Return what makes the coroutines of an entry's call, of which the call itself has made the first."""
    return FirstCoroutine(first, partial(entry.factory.call, *entry.args, **entry.kwargs))


def is_coroutine(value: object, *, or_shared: bool = False) -> bool:
    """Tell whether a value is a coroutine to asyncio, as those of Cython, mypyc and uvloop are, and is not made for other uses.

    A generator is not taken for one, and an asynchronous context manager is rather entered than awaited. A shared coroutine may
    be shared as it is; ``or_shared``: not where what it gives is to be checked, or closed.
    """
    if isinstance(value, ReusableCoroutine):
        return or_shared
    is_other = isinstance(value, GeneratorType) or hasattr(type(value), "__aenter__")
    return isinstance(value, Coroutine) and not is_other


def _does_nothing_but_make(coroutine: Coroutine[Any, Any, Any], function: Any) -> bool:
    """Whether calling the function has made the coroutine and nothing else, so that another call would cost nothing."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", None) is getattr(coroutine, "cr_code", function)


def _driver() -> Task[Any] | None:
    loop = running_loop_or_none()  # none runs where a coroutine is closed that could not be started
    return None if loop is None else current_task(loop)


def _was_taken_away(task: Task[Any]) -> bool:
    """Whether others than its awaiters have cancelled a run, as the end of the resource whose code began it: they begin anew."""
    return task.cancelled() and task.cancelling() > 0
