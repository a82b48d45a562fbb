"""The values of one variable, one a loop: each is closed with its loop, or as soon as the variable is gone.

The variable holds its values, and a loop holds only a resource that knows where its value is. So no loop keeps the variable
alive, nor an object to which the variable belongs, even if the value refers to that. When a value is dropped, in whichever
thread, it is handed over to its resource, which then exits at the loop's next turn.
"""

from __future__ import annotations

import asyncio
import warnings
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from ._loop_bound import ENDED, FORKED, OPEN, State, running_loop_bound
from ._resource import Resource, Unpublished, close_by
from ._secrets import safe_repr
from ._wait_graph import register_wait, running_node
from ._waiters import noted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._loop_state import LoopState

T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS = 0.05
_FAILED = "the exit of {} failed"
_NOT_ENDED = frozenset(State) - {ENDED, FORKED}


class ValuesToClose(Generic[T]):
    """The values of one variable, by loop; lives as long as the variable."""

    __slots__ = ("__weakref__", "_by_loop", "_close", "_resources", "name")

    def __init__(self, name: str, close: Callable[[T], object]) -> None:
        self.name = name
        self._close = close
        self._by_loop: WeakKeyDictionary[LoopState, _Held[T]] = WeakKeyDictionary()
        self._resources: dict[int, ref[_ResourceOfVariable]] = {}  # all that have not ended, by their ids

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has loops and values of its own."""
        return type(self), (self.name, self._close)

    def find(self, state: LoopState) -> _Held[T] | None:
        """Return what holds the value on this loop."""
        return self._by_loop.get(state)

    def use(self, state: LoopState) -> _Held[T] | None:
        """Return the same to code that gets the value. If that is a resource's, the value is closed after that resource."""
        held = self._by_loop.get(state)
        if held is not None and (node := running_node()) is not None and (resource := held.resource()) is not None:
            resource.note_user(node)
        return held

    def make(self, state: LoopState, make: Callable[[], T]) -> T:
        """Make the value of this loop. If `make` itself has made or set one meanwhile, that one is the value.

        The other one is then closed at the loop's next turn.
        """
        resource = _ResourceOfVariable(self, state)
        since = state.loop.time()
        with state.exits.undisturbed():
            value = resource.run_factory(make)
            meanwhile = self.use(state)
            self._open(resource, value, state if meanwhile is None else None, since=since)
        return value if meanwhile is None else meanwhile.value

    def set(self, state: LoopState, value: T) -> None:
        """Let this be the loop's value; the one before is closed. The code that sets another one no longer uses it."""
        held = self.find(state)
        before = None if held is None else held.resource()
        user = running_loop_bound(state.exits)
        if before is not None and user is not None:
            state.exits.not_used(before, user)
        del held
        with state.exits.undisturbed():
            self._open(_ResourceOfVariable(self, state), value, state, since=state.loop.time())

    def discard(self, state: LoopState) -> None:
        """Close the value of this loop at its next turn, if there is one."""
        self._by_loop.pop(state, None)

    def forget(self, state: LoopState, resource: Resource[Any]) -> None:
        """Let go of the value that has this resource, if it is still the loop's."""
        held = self._by_loop.get(state)
        if held is not None and held.resource() is resource:
            del self._by_loop[state]

    def ended(self, resource: Resource[Any]) -> None:
        """Its exit is over."""
        self._resources.pop(id(resource), None)

    def _open(self, resource: _ResourceOfVariable, value: T, state: LoopState | None, *, since: float) -> None:
        handover = _Handover(resource)
        held = _Held(value, self._close, handover)
        handover.held = ref(held)
        self._resources[id(resource)] = ref(resource)
        resource.open_with(handover, None, since=since)
        if state is not None:
            self._by_loop[state] = held
            self.use(state)

    async def aclose(self) -> None:
        """Close the values of all loops that run, each on its own loop."""
        running = asyncio.get_running_loop()
        resources = [resource for each in list(self._resources.values()) if (resource := each()) and resource.state in _NOT_ENDED]
        here = [each for each in resources if each.loop is running]
        for each in here:
            for node in register_wait(each):  # it is refused before anything has begun
                node.awaiting.remove(each)
        elsewhere = [each for each in resources if each.loop is not running and each.loop.is_running()]
        outcomes = [_release_on_its_loop(each) for each in elsewhere]
        waits = asyncio.gather(*(each.release() for each in here), *map(_result_of, outcomes, elsewhere))
        for each in here:
            each.begin_exit()  # now: if this is cancelled at once, none of those waits ever begins
        try:
            results = await waits
        except asyncio.CancelledError:
            for outcome, each in zip(outcomes, elsewhere, strict=True):
                if not outcome.cancel() and (error := outcome.result()) is not None:
                    running.call_exception_handler({"message": _FAILED.format(each.label), "exception": error})
            raise
        errors = [noted(error, each.label) for each, error in zip(here + elsewhere, results, strict=True) if error is not None]
        try:
            if errors:
                raise BaseExceptionGroup(f"errors at the exits of what {self.name} held", [*errors])
        finally:
            errors.clear()  # their tracebacks hold this frame


class _Held(Generic[T]):
    """A value that its variable holds. When that lets go of it, the loop's resource gets it, and exits."""

    __slots__ = ("__weakref__", "_handover", "_to_close", "value")

    def __init__(self, value: T, close: Callable[[T], object], handover: _Handover) -> None:
        self.value = value
        self._to_close = [(value, close)]
        self._handover = handover

    def resource(self) -> Resource[Any] | None:
        """Return the resource that closes the value, if it is still there."""
        return self._handover.resource()

    def take(self) -> tuple[Any, Callable[[Any], object]] | None:
        """Return the value and its close function to the first caller, then None: the exit and ``__del__`` may both ask."""
        try:
            return self._to_close.pop()
        except IndexError:
            return None

    def __del__(self) -> None:
        taken = self.take()
        if taken is None:
            return  # its exit has taken it
        handover = self._handover
        handover.value = taken
        if handover.is_over:
            warnings.warn(
                f"the loop of a value ended while the variable of that value was being collected, so it was never closed: "
                f"{safe_repr(self.value)}",
                ResourceWarning,
                stacklevel=2,
            )
        resource = handover.resource()
        if resource is not None and resource.state is OPEN:
            with suppress(RuntimeError):  # the loop has just been closed
                resource.exits.loop.call_soon_threadsafe(resource.retire)


class _Handover:
    """The asynchronous context manager that closes a value which its variable holds, or has handed over.

    The weak reference to the resource is here: if the variable had it, the collector would clear it before ``__del__`` reads it.
    """

    __slots__ = ("held", "is_over", "resource", "value")

    def __init__(self, resource: _ResourceOfVariable) -> None:
        self.resource = ref(resource)
        self.held: ref[_Held[Any]] | None = None
        self.value: tuple[Any, Callable[[Any], object]] | None = None
        self.is_over = False

    async def __aenter__(self) -> None:
        """It is open from the beginning."""

    async def __aexit__(self, *_error: object) -> None:
        held = None if self.held is None else self.held()
        taken = None if held is None else held.take()
        taken, self.value = taken or self.value, None
        del held
        self.is_over = True
        if taken is not None:
            value, close = taken
            await close_by(close, value)


class _ResourceOfVariable(Resource[None]):
    """The resource of one loop's value. It refers to the variable only weakly."""

    __slots__ = ("__weakref__", "_state", "_values")

    def __init__(self, values: ValuesToClose[Any], state: LoopState) -> None:
        super().__init__(state.exits, None, Unpublished(values.name))
        self._values = ref(values)
        self._state = ref(state)

    def invalidate(self) -> None:
        """Let the variable forget the value, which hands it over."""
        values, state = self._values(), self._state()
        if values is not None and state is not None:
            values.forget(state, self)

    def end(self, error: BaseException | None, cause: BaseException | None) -> None:
        super().end(error, cause)
        values = self._values()
        if values is not None:
            values.ended(self)


def _release_on_its_loop(resource: Resource[Any]) -> Future[BaseException | None]:
    """Release a resource of another thread's loop.

    :returns: the error of its exit, later.
    """
    outcome: Future[BaseException | None] = Future()
    loop = resource.loop

    def start() -> None:
        if resource.state not in _NOT_ENDED:
            finished(None)
            return
        task = loop.create_task(resource.release())
        task.add_done_callback(lambda task: finished(None if task.cancelled() else task.exception() or task.result()))

    def finished(error: BaseException | None) -> None:
        try:
            outcome.set_result(error)
        except InvalidStateError:  # nobody waits for it any more
            if error is not None:
                resource.report(_FAILED, error)

    try:
        loop.call_soon_threadsafe(start)
    except RuntimeError:  # it has just been closed
        outcome.set_result(None)
    return outcome


async def _result_of(outcome: Future[BaseException | None], resource: Resource[Any]) -> BaseException | None:
    """Wait for another loop's exit, as long as that loop runs: it may stop, and never run again."""
    future = asyncio.wrap_future(outcome)
    while not future.done() and resource.loop.is_running():
        await asyncio.wait([future], timeout=_SECONDS_BETWEEN_LOOKS)
    return None if outcome.cancel() else outcome.result()
