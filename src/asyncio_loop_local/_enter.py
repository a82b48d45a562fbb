"""Entering an asynchronous context manager for as long as the loop lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from ._loop_state import loop_state, running_loop
from ._resource import Resource
from ._scope import current_scope

if TYPE_CHECKING:
    from ._typing import ACM

T = TypeVar("T")


async def enter(acm: ACM[T]) -> T:
    """Enter ``acm`` now, and exit it when the running loop ends; each call enters again.

    Entering, holding and exiting happen in one task, which is not the caller's, and in a copy of the caller's context. The
    tasks that ``acm`` starts live as long as it does, and no runner cancels them before.

    :returns: what ``acm.__aenter__`` gives; it can be used until the loop ends, also by tasks that clean up when it does.
    :raises RuntimeError: if it is needed, while it is being entered, by something that it needs itself.
    :raises TypeError: if ``acm`` is no asynchronous context manager.

    An error of ``__aenter__`` is raised as it is. If the caller is cancelled, so is the entering.
    """
    state = loop_state()
    return await Resource[T].of(state.exits, acm, where="enter()").acquire()


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
        resource = running_loop()._asyncio_loop_local.entered[id(acm)]
    except (AttributeError, KeyError):
        resource = _resource_of(acm)
    if resource.open_on is not None:
        user = current_scope.get()
        if user is not None:
            resource.note_user(user)
        return cast("T", resource.value)
    return cast("T", await resource.acquire())


def _resource_of(acm: ACM[T]) -> Resource[T]:
    state = loop_state()
    resource = Resource[T].of(state.exits, acm, where="enter_once()")
    entered, place = state.entered, id(acm)

    def forget() -> None:
        if entered.get(place) is resource:
            del entered[place]

    entered[place] = resource
    resource.when_forgotten(forget)
    return resource
