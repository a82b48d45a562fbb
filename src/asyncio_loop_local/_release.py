"""Letting go of one thing that a wrapped factory has made, before the loop ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec

from ._loop_bound import running_loop_bound
from ._loop_state import attached_state
from ._names import describe_factory
from ._wrapped_factory import WrappedFactory, factory_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._resource import Resource

P = ParamSpec("P")


async def release(factory: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
    """Forget what a wrapped factory has made for these arguments on the running loop, exiting it first if it was entered.

    The arguments are a call's, and find by the same key. A call made meanwhile gets a new value, never one that is on its
    way out. Of two releases at a time, both wait for the same exit; a resource that is being entered is waited for, and
    exited then. If this is cancelled, the exit goes on by itself. Other loops keep theirs.

    :returns: whether there was anything. What there was is no longer found, also if its exit has failed.
    :raises TypeError: if ``factory`` was not made by `singleton` or `sticky_singleton_acm`, or an argument can be no part of
        a key.
    :raises RuntimeError: if no event loop is running; if a resource is still in use by another one that is open, which is
        named; or if this is called from inside the resource that it would have to exit.

    An error of the exit is raised as it is.
    """
    token, bound = _unbound(factory, args)
    state = attached_state()
    if state is None:
        return False
    entry, resource = token.find(state, bound, kwargs)
    if resource is None:
        if entry is not None:
            entry.invalidate()
        return entry is not None
    _refuse(resource)
    error = await (resource.release() if entry is None else entry.release(resource))
    if error is None:
        return True
    try:
        raise error
    finally:
        del error  # its traceback holds this frame


def _unbound(factory: Any, args: tuple[Any, ...]) -> tuple[WrappedFactory, tuple[Any, ...]]:
    """The wrapped factory, and the arguments with the object before them to which it was bound as a method."""
    bound_to: tuple[Any, ...] = ()
    function = factory
    if hasattr(factory, "__self__") and hasattr(factory, "__func__"):
        bound_to, function = (factory.__self__,), factory.__func__
    token = factory_of(function)
    if token is None:
        raise TypeError(
            f"argument 'factory' of release() must be what singleton() or sticky_singleton_acm() has returned, "
            f"not {describe_factory(factory)}"
        )
    return token, bound_to + args


def _refuse(resource: Resource[Any]) -> None:
    if running_loop_bound(resource.exits) is resource:
        raise RuntimeError(
            f"release() was called from inside {resource.name}, which it would have to wait for: "
            f"call it from code that is not its own"
        )
    if resource.users:
        users = ", ".join(user.name for user in resource.users)
        raise RuntimeError(f"{resource.name} cannot be released while it is in use by {users}: release what uses it first")
