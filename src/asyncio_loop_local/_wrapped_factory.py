"""A wrapped factory: how a call of it finds its value on the running loop, or makes it."""

from __future__ import annotations

import functools
import warnings
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol

from ._cpython import annotate_like, running_loop_or_none
from ._keys import CallKeys, OwnKeys
from ._loop_bound import ENDED
from ._loop_cache import CacheEntry, LoopCache, NotCached
from ._loop_state import loop_state, running_loop
from ._names import name_of
from ._pickling import PicklesByIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._loop_state import LoopState
    from ._resource import Resource

_MANY_KEYS = 2_000
_ATTRIBUTE = "_asyncio_loop_local_factory"


class Make(Protocol):
    """Makes the value of a call."""

    def __call__(self, entry: CacheEntry, /) -> Any: ...


class WrappedFactory(PicklesByIdentity):
    """What is known of a wrapped factory on every loop; on each loop it has a `LoopCache` of its own."""

    __slots__ = ("_call_without_loop", "_make", "_name", "keys")

    def __init__(
        self,
        factory: Callable[..., Any],
        make: Make,
        key: Callable[..., Hashable] | None,
        call_without_loop: Callable[..., Any] | None,
    ) -> None:
        self._name = name_of(factory)
        self._make = make
        self._call_without_loop = call_without_loop
        self.keys = CallKeys(factory) if key is None else OwnKeys(factory, key)

    def find_or_make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the value of this call on the running loop, or make it now.

        :raises TypeError: if an argument cannot be part of a key.
        """
        if self._call_without_loop is not None and running_loop_or_none() is None:
            return self._call_without_loop(*args, **kwargs)
        state = loop_state()
        cache = state.caches.get(self)
        if cache is None:
            cache = state.caches[self] = LoopCache()
        arguments = self.keys.freeze(args, kwargs)
        if arguments[1] is not kwargs:  # some were frozen: only so does the C-level cache find them
            try:
                return cache.find(*arguments[0], **arguments[1])
            except NotCached:
                pass
        key = self.keys.key(*arguments)
        entry = cache.valid_entry(key)
        if entry is not None:
            cache.put(entry.value, arguments)  # and not before this second call, which may never come
            return entry.value
        entry = CacheEntry(state.exits, cache, self.keys, key, args, kwargs)
        value = entry.value = self._make(entry)
        if entry.is_invalid:
            return value
        made_meanwhile = cache.valid_entry(key)
        if made_meanwhile is not None:  # by the factory itself, which has made the same call
            return made_meanwhile.value
        cache.entries[key] = entry
        if len(cache.entries) > _MANY_KEYS and not cache.has_warned:
            self._warn_of_many_keys(cache)
        return value

    def find(
        self, state: LoopState, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[CacheEntry | None, Resource[Any] | None]:
        """Return the cached entry of this call and its resource; or the resource alone, if it is being released.

        :raises TypeError: if an argument cannot be part of a key.
        """
        cache = state.caches.get(self)
        if cache is None:
            return None, None
        key = self.keys.key(*self.keys.freeze(args, kwargs))
        entry = cache.valid_entry(key)
        if entry is not None:
            return entry, entry.resource
        resource = cache.releasing.get(key)
        if resource is not None and resource.state is ENDED:  # the release that had begun was cancelled
            del cache.releasing[key]
            resource = None
        return None, resource

    def _warn_of_many_keys(self, cache: LoopCache) -> None:
        cache.has_warned = True
        newest_first = reversed(cache.entries)
        newest, one_before = next(newest_first), next(newest_first)
        differing = self.keys.differing(one_before, newest)
        which = f" in the value of {', '.join(map(repr, differing))}" if differing else ""
        warnings.warn(
            f"{self._name}() has been called with {len(cache.entries):,} different keys on one event loop, the last two "
            f"of which differ{which}: such calls never find their value again, and all values live until the loop ends. "
            f"Pass what stays the same, or say with key=… what makes two calls the same",
            ResourceWarning,
            stacklevel=4,
        )


def wrapped(factory: Any, make: Make, key: object, *, where: str, call_without_loop: Callable[..., Any] | None = None) -> Any:
    """Return a function with the name, documentation and signature of the factory, which makes one value per call and loop.

    ``call_without_loop`` is called in its place where no loop runs, which is an error without it.

    :raises TypeError: if the factory, or the key, cannot be called.
    """
    if not callable(factory):
        raise TypeError(
            f"argument 'factory' of {where}() must be callable, not {_type_name(factory)}: "
            f"pass a class or a function, and decorate under @classmethod and @property, not over them"
        )
    if not (key is None or callable(key)):
        raise TypeError(
            f"argument 'key' of {where}() must be callable, not {_type_name(key)}: "
            f"pass a function of the call's arguments, which returns what makes two calls the same"
        )
    token = WrappedFactory(factory, make, key, call_without_loop)
    find_or_make = token.find_or_make

    if key is None:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return running_loop()._asyncio_loop_local.caches[token].find(*args, **kwargs)
            except (AttributeError, KeyError, TypeError, RuntimeError, NotCached):
                pass  # not from in here, where an error of the factory's own would seem to come from this one
            return find_or_make(args, kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return find_or_make(args, kwargs)

    _look_like(wrapper, factory)
    vars(wrapper)[_ATTRIBUTE] = token
    return wrapper


def factory_of(wrapper: object) -> WrappedFactory | None:
    """Return the factory that a function of ours wraps; None for any other function."""
    token = getattr(wrapper, _ATTRIBUTE, None)
    return token if isinstance(token, WrappedFactory) else None


def _type_name(value: object) -> str:
    return type(value).__qualname__


def _look_like(wrapper: Callable[..., Any], factory: Callable[..., Any]) -> None:
    if isinstance(factory, FunctionType):
        functools.update_wrapper(wrapper, factory)
        return
    functools.update_wrapper(wrapper, factory, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    annotate_like(wrapper, factory)
    if not hasattr(factory, "__name__"):
        wrapper.__name__ = wrapper.__qualname__ = name_of(factory)
        while isinstance(factory, functools.partial):
            factory = factory.func
        wrapper.__module__, wrapper.__doc__ = getattr(factory, "__module__", __name__), factory.__doc__
