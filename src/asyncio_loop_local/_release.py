"""Letting go of what a wrapped factory has made, before the loop ends."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec

from ._loop_bound import BEING_EXITED, ENDED, running_loop_bound
from ._loop_state import attached_state
from ._names import describe_factory, name_of
from ._wait_graph import register_wait
from ._waiters import noted
from ._wrapped_factory import WrappedFactory, factory_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterable

    from ._loop_cache import CacheEntry
    from ._resource import Resource
    from ._wait_graph import WaitNode

P = ParamSpec("P")


async def release(factory: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
    """Forget what a wrapped factory has made for these arguments on the running loop, exiting it first if it was entered.

    The arguments are a call's, and find by the same key. A call made meanwhile gets a new value, never one that is on its
    way out. Of two releases at a time, both wait for the same exit; a resource that is being entered is waited for, and
    exited then. If this is cancelled, the exit goes on by itself. Other loops keep theirs.

    :returns: whether there was a value. It is forgotten, also if its exit has failed.
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
    _refuse(resource, "release()")
    error = await (resource.release() if entry is None else entry.release(resource))
    if error is None:
        return True
    try:
        raise error
    finally:
        del error  # its traceback holds this frame


async def release_all(factory: Callable[..., object], /) -> int:
    """Forget everything that a wrapped factory has made on the running loop, and exit what was entered, or has to be closed.

    From its first step on, neither a new call nor what a call has given before gives one of these values. The exits run one
    after the other, newest first, and each after those of the values of this factory that use it; all of them run, also if some
    fail. Of two at a time, both wait for the same exits; so does a `release`. If this is cancelled, the exit in progress and
    all others go on by themselves. Other loops keep theirs.

    :returns: how many values it has forgotten, or has seen on their way out.
    :raises TypeError: if ``factory`` was not made by `singleton` or `sticky_singleton_acm`, or is bound to an instance.
    :raises RuntimeError: if no event loop is running; if something that is open, and not of this factory, still uses one of
        them, or if this is called from inside one of them. Both are named, and nothing is forgotten.
    :raises ExceptionGroup: after the last exit, with the errors of all exits, each with a note of whose it is.
    """
    state = attached_state()
    token = _wrapped_by(factory, "release_all")
    bound_to: object = getattr(factory, "__self__", None)
    if not (bound_to is None or isinstance(bound_to, type)):
        raise TypeError(
            f"argument 'factory' of release_all() must not be bound to an instance, as {describe_factory(factory)} is: pass the "
            f"function in the class, as in release_all(Service.client), or use release() for the values of one instance"
        )
    cache = None if state is None else state.caches.get(token)
    if cache is None:
        return 0
    entries = [entry for entry in cache.entries.values() if not entry.is_invalid]
    found: dict[Resource[Any], CacheEntry | None] = {
        resource: None for resource in cache.releasing.values() if resource.state is not ENDED
    }
    count = len(entries) + len(found)
    found |= {entry.resource: entry for entry in entries if entry.resource is not None}
    newest_first = sorted(found, key=lambda each: (each.state in BEING_EXITED, each.serial), reverse=True)
    remaining = {resource: found[resource] for resource in newest_first}
    for resource in remaining:
        _refuse(resource, "release_all()", but=remaining)
    errors: list[BaseException] = []
    with _waits_for(remaining):
        try:
            for entry in entries:
                if entry.resource is not None:
                    cache.releasing[entry.key] = entry.resource
                    entry.resource.invalidate()  # what calls have given, and somebody has kept, no longer gives the value either
                entry.invalidate()
            while remaining:
                resource = _next_to_exit(remaining)
                own = remaining.pop(resource)
                error = await (resource.release() if own is None else own.release(resource))
                if error is not None:
                    errors.append(noted(error, resource.label))
        finally:
            for resource, own in remaining.items():  # this was cancelled, or the hash of an argument failed
                if own is not None:
                    resource.retire()
    try:
        if errors:
            raise BaseExceptionGroup(f"errors at the exits of what {name_of(factory)}() had made", [*errors])
    finally:
        errors.clear()  # their tracebacks hold this frame
    return count


def _next_to_exit(newest_first: dict[Resource[Any], Any]) -> Resource[Any]:
    """The newest that none of the others uses; of those that use each other, the newest."""
    for resource in newest_first:
        if not any(user in newest_first for user in resource.users):
            return resource
    return next(iter(newest_first))


@contextmanager
def _waits_for(resources: Iterable[Resource[Any]]) -> Generator[None]:
    """Refuse to wait for what waits, perhaps through others, for the code that runs now."""
    waits: list[tuple[WaitNode, WaitNode]] = []
    try:
        for resource in resources:
            waits += [(node, resource) for node in register_wait(resource)]
        yield
    finally:
        for node, target in waits:
            node.awaiting.remove(target)


def _wrapped_by(factory: Any, where: str) -> WrappedFactory:
    token = factory_of(getattr(factory, "__func__", factory))
    if token is None:
        raise TypeError(
            f"argument 'factory' of {where}() must be what singleton() or sticky_singleton_acm() has returned, "
            f"not {describe_factory(factory)}"
        )
    return token


def _unbound(factory: Any, args: tuple[Any, ...]) -> tuple[WrappedFactory, tuple[Any, ...]]:
    """The wrapped factory, and the arguments with the object before them to which it was bound as a method."""
    is_bound = hasattr(factory, "__self__") and hasattr(factory, "__func__")
    return _wrapped_by(factory, "release"), (factory.__self__, *args) if is_bound else args


def _refuse(resource: Resource[Any], call: str, *, but: Container[object] = ()) -> None:
    if running_loop_bound(resource.exits) is resource:
        raise RuntimeError(
            f"{call} was called from inside {resource.name}, which it would have to wait for: "
            f"call it from code that is not its own"
        )
    users = [user for user in resource.users if user not in but]
    if users:
        names = ", ".join(user.name for user in users)
        raise RuntimeError(f"{resource.name} cannot be released while it is in use by {names}: release what uses it first")
