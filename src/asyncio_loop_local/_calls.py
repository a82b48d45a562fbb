"""One value a call: what a wrapped factory has made on one loop, found again by what makes two calls the same."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol

from ._keys import CallKeys, OwnKeys
from ._loop_state import loop_state, running_loop
from ._names import name_of
from ._pickling import PicklesByIdentity

if TYPE_CHECKING:
    from ._keys import Arguments
    from ._loop_state import LoopState
    from ._resource import Resource

_MANY_KEYS = 2_000
_ATTRIBUTE = "_asyncio_loop_local_factory"


class _Missing(Exception):
    """The cache has nothing for these arguments."""


# What `functools.lru_cache(maxsize=None, typed=True)` makes, without a copy of the function's name and documentation.
_c_cache: Any = functools._lru_cache_wrapper
_cache_info: Any = vars(functools)["_CacheInfo"]


def _cached(function: Callable[..., Any]) -> functools._lru_cache_wrapper[Any]:
    cache: functools._lru_cache_wrapper[Any] = _c_cache(function, None, True, _cache_info)
    return cache


class Call:
    """A call for which the loop has no value yet; ``forget`` lets the next one like it make a new value."""

    __slots__ = ("args", "calls", "forgotten", "key", "keys", "kwargs", "resource", "state", "value")

    def __init__(
        self, state: LoopState, calls: Calls, keys: CallKeys, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.state = state
        self.calls = calls
        self.keys = keys
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.forgotten = False
        self.value: Any = None
        self.resource: Resource[Any] | None = None  # what is to be exited before the value may be forgotten

    @property
    def name(self) -> str:
        """The call as people read it."""
        return self.keys.describe(self.args, self.kwargs)

    def forget(self) -> None:
        """The value is spent: the next call makes a new one."""
        if not self.forgotten:
            self.forgotten = True
            self.calls.forget(self)
            self.value = self.resource = None  # they refer to this

    async def leave(self, resource: Resource[Any]) -> BaseException | None:
        """Exits the resource; until that is done, who asks for it to be left finds it leaving.

        :returns: what the exit raised.
        """
        leaving = self.calls.leaving
        leaving[self.key] = resource
        try:
            return await resource.leave()
        finally:
            if resource.phase == "ended" or not self.forgotten:
                with suppress(Exception):  # of an argument's own hash; what has ended is found by nobody
                    if leaving.get(self.key) is resource:
                        del leaving[self.key]


class Make(Protocol):
    """Makes what a call returns."""

    def __call__(self, call: Call, /) -> Any: ...


class Calls:
    """What one factory has made on one loop, by key; and, before it, a C-level cache by the arguments as written.

    The cache finds a value without making its key. It tells types apart, but not those inside containers: so what counts
    by value is put into it as a `ByValue`, and never found in it as it is.
    """

    __slots__ = ("_pending", "find", "leaving", "remembered", "warned")

    def __init__(self) -> None:
        self.remembered: dict[Hashable, Call] = {}
        self.leaving: dict[Hashable, Resource[Any]] = {}
        self.warned = False
        self._pending: list[tuple[Any, Arguments]] = []
        self.find = _cached(self._take_pending())

    def _take_pending(self) -> Callable[..., Any]:
        pending = self._pending  # not self, which would make a circle

        def take(*args: Hashable, **kwargs: Hashable) -> Any:
            # What is pending is for these very arguments: the hash of one, or what runs meanwhile, may have called once more.
            for value, (of_args, of_kwargs) in pending:
                if len(args) != len(of_args) or kwargs.keys() != of_kwargs.keys():
                    continue
                if all(map(is_, args, of_args)) and all(map(is_, kwargs.values(), of_kwargs.values())):
                    return value
            raise _Missing

        return take

    def cache(self, value: Any, arguments: Arguments) -> None:
        """Lets `find` find the value for these counted arguments."""
        self._pending.append((value, arguments))
        try:
            self.find(*arguments[0], **arguments[1])
        finally:
            self._pending.pop()

    def clear(self) -> None:
        """Forgets everything, which undoes all circles of references."""
        for call in list(self.remembered.values()):
            if call.resource is not None and call.resource.phase == "made":
                call.resource.end(None, None)
            call.value = call.resource = None
        self.remembered.clear()
        self.leaving.clear()
        self.find.cache_clear()

    def forget(self, call: Call) -> None:
        """Takes out what this very call has made, if it is there; what its key does not find any more stays, as forgotten."""
        self.find.cache_clear()
        with suppress(Exception):  # of an argument's own hash, which was well when the call was made
            if self.remembered.get(call.key) is call:
                del self.remembered[call.key]

    def remembered_by(self, key: Hashable) -> Call | None:
        """The call with this key whose value is not spent."""
        call = self.remembered.get(key)
        return None if call is None or call.forgotten else call


class Factory(PicklesByIdentity):
    """A wrapped factory: how a call of it finds its value on the running loop, or makes it."""

    __slots__ = ("_make", "_name", "keys")

    def __init__(self, factory: Callable[..., Any], make: Make, key: Callable[..., Hashable] | None) -> None:
        self._name = name_of(factory)
        self._make = make
        self.keys = CallKeys(factory) if key is None else OwnKeys(factory, key)

    def find_or_make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the call returns: what there is for it on this loop, else what the factory makes now.

        :raises TypeError: if an argument can be no part of a key.
        """
        state = loop_state()
        calls = state.calls.get(self)
        if calls is None:
            calls = state.calls[self] = Calls()
        arguments = self.keys.freeze(args, kwargs)
        if arguments[1] is not kwargs:  # else they were not found as they are
            try:
                return calls.find(*arguments[0], **arguments[1])
            except _Missing:
                pass
        key = self.keys.key(*arguments)
        call = calls.remembered_by(key)
        if call is not None:
            calls.cache(call.value, arguments)  # and not before this second call, which may never come
            return call.value
        call = Call(state, calls, self.keys, key, args, kwargs)
        value = call.value = self._make(call)
        if call.forgotten:
            return value
        made_meanwhile = calls.remembered_by(key)
        if made_meanwhile is not None:  # by the factory itself, which has made the same call
            return made_meanwhile.value
        calls.remembered[key] = call
        if len(calls.remembered) > _MANY_KEYS and not calls.warned:
            self._warn(calls)
        return value

    def find(self, state: LoopState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call | None, Resource[Any] | None]:
        """The call like this one that the loop remembers, and its resource; or the resource alone, if it is being left.

        :raises TypeError: if an argument can be no part of a key.
        """
        calls = state.calls.get(self)
        if calls is None:
            return None, None
        key = self.keys.key(*self.keys.freeze(args, kwargs))
        call = calls.remembered_by(key)
        if call is not None:
            return call, call.resource
        resource = calls.leaving.get(key)
        if resource is not None and resource.phase == "ended":  # who had begun to leave it was cancelled
            del calls.leaving[key]
            resource = None
        return None, resource

    def _warn(self, calls: Calls) -> None:
        calls.warned = True
        newest_first = reversed(calls.remembered)
        newest, one_before = next(newest_first), next(newest_first)
        differing = self.keys.differing(one_before, newest)
        which = f" in the value of {', '.join(map(repr, differing))}" if differing else ""
        warnings.warn(
            f"{self._name}() has been called with {len(calls.remembered):,} different keys on one event loop, the last two "
            f"of which differ{which}: such calls never find their value again, and all values live until the loop ends. "
            f"Pass what stays the same, or say with key=… what makes two calls the same",
            ResourceWarning,
            stacklevel=4,
        )


def wrapped(factory: Any, make: Make, key: object, *, where: str) -> Any:
    """A function with the name, documentation and signature of the factory, which makes one value a call and loop.

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
    token = Factory(factory, make, key)
    find_or_make = token.find_or_make

    if key is None:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return running_loop()._asyncio_loop_local.calls[token].find(*args, **kwargs)
            except (AttributeError, KeyError, TypeError, _Missing):
                pass  # and not in here, where an error of the factory's own would seem to come from this one
            return find_or_make(args, kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return find_or_make(args, kwargs)

    _look_like(wrapper, factory)
    vars(wrapper)[_ATTRIBUTE] = token
    return wrapper


def factory_of(wrapper: object) -> Factory | None:
    """The factory that a function of ours wraps; None for any other."""
    token = getattr(wrapper, _ATTRIBUTE, None)
    return token if isinstance(token, Factory) else None


def _type_name(value: object) -> str:
    return type(value).__qualname__


def _look_like(wrapper: Callable[..., Any], factory: Callable[..., Any]) -> None:
    if isinstance(factory, FunctionType):
        functools.update_wrapper(wrapper, factory)
        return
    functools.update_wrapper(wrapper, factory, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    if not hasattr(factory, "__name__"):
        wrapper.__name__ = wrapper.__qualname__ = name_of(factory)
        while isinstance(factory, functools.partial):
            factory = factory.func
        wrapper.__module__, wrapper.__doc__ = factory.__module__, factory.__doc__
