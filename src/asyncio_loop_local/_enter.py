"""Entering an asynchronous context manager for as long as the loop lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ._loop_state import loop_state, running_loop
from ._names import name_of_acm
from ._resource import EndedMeanwhile, Resource, Unpublished, checked_acm
from ._wait_graph import running_node

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ._loop_state import LoopState
    from ._typing import ACM

T = TypeVar("T")


async def enter(acm: ACM[T]) -> T:
    """Enter ``acm`` now, and exit it when the running loop ends; each call enters again.

    Entering, holding and exiting happen in one task, which is not the caller's, and in a copy of the caller's context. The
    tasks that ``acm`` starts live as long as it does, and no runner cancels them before.

    :returns: what ``acm.__aenter__`` gives; it can be used until the loop ends, also by tasks that clean up when it does.
    :raises RuntimeError: if it is needed, while it is being entered, by something that it needs itself, or that a task needs
        which it has started meanwhile.
    :raises TypeError: if ``acm`` is no asynchronous context manager.

    An error of ``__aenter__`` is raised as it is. If the caller is cancelled, so is the entering.
    """
    return await Resource(loop_state().exits, checked_acm(acm, where="enter()"), Unpublished(name_of_acm(acm))).acquire()


async def enter_once(acm: ACM[T]) -> T:
    """Enter ``acm``, as `enter` does, once per loop and object; by identity, never by ``==``.

    Two tasks that ask at once wait for the same entering. If it fails, both get the error, and the next call tries afresh.
    If one is cancelled, it goes on for the other; the last one that is cancelled cancels it. On a second loop the object is
    entered again. What has died while it was held, or was released, is entered anew by the next call.

    :returns: what the one ``acm.__aenter__`` gave.
    :raises RuntimeError: if it is needed, while it is being entered, by something that it needs itself.
    :raises TypeError: if ``acm`` is no asynchronous context manager.
    """
    try:
        if running_node() is None:
            value: T = running_loop()._asyncio_loop_local.entered_values[id(acm)]
            return value
    except (AttributeError, KeyError):
        pass  # go on after this block: in it, an error of the enter's own would have this one as its context
    while True:
        resource = _resource_of(acm)
        try:
            return await resource.acquire()
        except EndedMeanwhile:
            resource.invalidate()  # or this might find it again, and again


class _ObjectByIdentity(Unpublished):
    """The origin of a resource that is found by the identity of the object, which the resource keeps alive meanwhile."""

    __slots__ = ("_place", "_state", "resource")

    def __init__(self, acm: object, state: LoopState) -> None:
        super().__init__(name_of_acm(acm))
        self._place = id(acm)
        self._state = state
        self.resource: Resource[Any] | None = None

    def publish(self, value: Any, loop: AbstractEventLoop, /) -> None:
        if self.resource is not None:
            self._state.entered_values[self._place] = value

    def invalidate(self) -> None:
        state, place = self._state, self._place
        resource, self.resource = self.resource, None
        if resource is not None and state.entered.get(place) is resource:
            state.entered_values.pop(place, None)
            state.entered.pop(place, None)


def _resource_of(acm: ACM[T]) -> Resource[T]:
    state = loop_state()
    resource: Resource[T] | None = state.entered.get(id(acm))
    if resource is None:
        origin = _ObjectByIdentity(acm, state)
        resource = Resource(state.exits, checked_acm(acm, where="enter_once()"), origin)
        origin.resource = resource
        resource = state.entered.setdefault(id(acm), resource)  # the collector may have run code that has entered it meanwhile
    return resource
