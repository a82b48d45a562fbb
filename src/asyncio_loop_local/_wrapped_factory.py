"""A wrapped factory: how a call of it finds its value on the running loop, or makes it."""

from __future__ import annotations

import functools
import warnings
from functools import partial
from inspect import iscoroutinefunction
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, Protocol

from . import _wait_graph  # as a module: cloudpickle has to pickle what `wrapper` refers to, and can pickle no ContextVar
from ._cpython import annotate_like, running_loop_or_none
from ._keys import CallKeys, OwnKeys
from ._loop_bound import ENDED
from ._loop_cache import NOTHING, CacheEntry, LoopCache, NotCached
from ._loop_state import loop_state, running_loop
from ._names import name_of
from ._pickling import PicklesByIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Self

    from ._keys import Arguments
    from ._loop_state import LoopState
    from ._resource import Resource

_MANY_KEYS = 2_000


class Make(Protocol):
    """Makes the value of a call."""

    def __call__(self, entry: CacheEntry, /) -> Any: ...


class CallResult:
    """The result of a call that can make the call again when its value has ended."""

    __slots__ = ()

    def with_arguments(self, _call_again: Callable[[], Any]) -> Any:
        """Return the same for a call with ``key=``: only the object that this returns keeps the arguments, and not the loop."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        return self  # only the object itself is told that its value has ended

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self


class WrappedFactory(PicklesByIdentity):
    """What is known of a wrapped factory on every loop; on each loop it has a `LoopCache` of its own."""

    __slots__ = ("_call_without_loop", "_checks_values", "_key", "_make", "call", "keeps_arguments", "keys", "replaces", "valid")

    def __init__(
        self,
        factory: Callable[..., Any],
        make: Make,
        *,
        key: Callable[..., Hashable] | None = None,
        valid: Callable[[Any], object] | None = None,
        checks_values: bool = False,
        call_without_loop: Callable[..., Any] | None = None,
    ) -> None:
        self.call = factory
        self._make = make
        self._key = key
        self.valid = valid
        self._checks_values = checks_values
        self._call_without_loop = call_without_loop
        self.keeps_arguments = key is None
        self.replaces: WrappedFactory | None = None
        self.keys = CallKeys(factory) if key is None else OwnKeys(factory, key)

    def replaced_by(self, replacement: Callable[..., Any]) -> WrappedFactory:
        """Return the same with another factory, for which each loop has a cache of its own."""
        other = WrappedFactory(
            replacement,
            self._make,
            key=self._key,
            valid=self.valid,
            checks_values=self._checks_values,
            call_without_loop=self._call_without_loop,
        )
        other.replaces = self
        return other

    def find_or_make(self, args: tuple[Any, ...], kwargs: dict[str, Any], arguments: Arguments | None = None) -> Any:
        """Return the value of this call on the running loop, or make it now.

        :param arguments: as `CallKeys.freeze` returns them, if that has been done.
        :raises TypeError: if an argument cannot be part of a key.
        """
        if self._call_without_loop is not None and running_loop_or_none() is None:
            return self._call_without_loop(*args, **kwargs)
        state = loop_state()
        cache = state.caches.get(self)
        if cache is None:
            cache = state.caches.setdefault(self, LoopCache())
        if self.keeps_arguments:
            found = cache.find_otherwise(args, kwargs)
            if found is not NOTHING and (value := self.value_of(found)) is not NOTHING:
                return value
        if arguments is None:
            arguments = self.keys.freeze(args, kwargs)
        if self.keeps_arguments and arguments[1] is not kwargs:  # some were frozen: only so does the C-level cache find them
            value = self.value_of(cache.find_frozen(arguments))
            if value is not NOTHING:
                return value
        key = self.keys.key(*arguments)
        entry = cache.valid_entry(key)
        if entry is not None:
            value = entry.value
            if not entry.is_invalid and (not self._checks_values or is_usable(entry, value)):
                # At the second call, since many values are asked for only once.
                found = entry if self._checks_values else value
                if self.keeps_arguments:
                    cache.put(entry, found, arguments)
                else:
                    cache.put_by_own_key(entry, (found, isinstance(value, CallResult)), arguments[0][0])
                return value
        entry = CacheEntry(state.exits, cache, self, key, args, kwargs)
        if cache.valid_entry(key) is not None:  # the collector has run code that has made the same call
            return self.find_or_make(args, kwargs)
        value = entry.value = self._make(entry)
        if not self.keeps_arguments:
            entry.forget_arguments()
        if entry.is_invalid:
            return value
        made_meanwhile = cache.entries.setdefault(key, entry)
        if made_meanwhile is not entry:  # by the factory itself, which has made the same call
            value_meanwhile = made_meanwhile.value
            if not made_meanwhile.is_invalid:
                note_user(made_meanwhile)
                entry.drop()
                return value_meanwhile
            cache.entries[key] = entry
        if not cache.has_warned:
            self._warn_of_many(cache)
        return value

    def value_of(self, found: Any) -> Any:
        """Return the value of what a cache has found, if a call may give it; else NOTHING."""
        if found is NOTHING or not self._checks_values:
            return found
        value = found.value
        return value if is_usable(found, value) else NOTHING

    def find_or_make_by_key(
        self, call_again: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], own_key: tuple[Any] | None = None
    ) -> Any:
        """Do the same for a factory with ``key=``. Only the object that this call returns keeps the arguments.

        :param own_key: what the key function has returned, if it has been called.
        """
        keys = self.keys
        arguments = keys.freeze_own(*own_key) if own_key is not None and isinstance(keys, OwnKeys) else None
        value = self.find_or_make(args, kwargs, arguments)
        return value.with_arguments(partial(call_again, *args, **kwargs)) if isinstance(value, CallResult) else value

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

    def _warn_of_many(self, cache: LoopCache) -> None:
        if cache.never_good > _MANY_KEYS:
            message = (
                f"{name_of(self.call)}() has made {cache.never_good:,} values in a row on one event loop which valid=… found "
                f"no longer valid at the next call, so each call makes a value of its own: "
                f"let valid=… return whether the value can still be used"
            )
        elif len(cache.entries) > _MANY_KEYS:
            newest_first = reversed(cache.entries)
            newest, one_before = next(newest_first), next(newest_first)
            differing = self.keys.differing(one_before, newest)
            which = f" in the value of {', '.join(map(repr, differing))}" if differing else ""
            message = (
                f"{name_of(self.call)}() has been called with {len(cache.entries):,} different keys on one event loop, the last "
                f"two of which differ{which}: such calls never find their value again, and all values live until the loop ends. "
                f"Pass what stays the same, or say with key=… what makes two calls the same"
            )
        else:
            return
        cache.has_warned = True
        warnings.warn(message, ResourceWarning, stacklevel=4 if self.keeps_arguments else 5)


def is_usable(entry: CacheEntry, value: Any) -> bool:
    """Tell whether a call may give the value that it has found, and note a resource whose code gets it; else forget the value."""
    if entry.valid is not None and not entry.is_good(value):
        entry.retire()
        return False
    if entry.is_invalid:
        return False  # since `valid` itself has had it released
    note_user(entry)
    return True


def note_user(entry: CacheEntry) -> None:
    """If a resource's code gets the value of an entry, and the value has to be closed, note that resource as its user."""
    resource = entry.resource
    if resource is not None and (node := _wait_graph.running_node()) is not None:
        resource.note_user(node)


def wrapped(
    factory: Any,
    make: Make,
    *,
    where: str,
    key: object = None,
    valid: object = None,
    checks_values: bool = False,
    call_without_loop: Callable[..., Any] | None = None,
) -> Any:
    """Return a function with the name, documentation and signature of the factory, which makes one value per call and loop.

    ``checks_values``: each call of it checks the value that it finds, and notes who gets it.
    ``call_without_loop`` is called in its place where no loop runs, which is an error without it.

    :raises TypeError: if the factory, or the key, cannot be called, or the key is a coroutine function.
    """
    if not callable(factory):
        raise TypeError(
            f"argument 'factory' of {where}() must be callable, not {_type_name(factory)}: "
            f"pass a class or a function, and decorate under @classmethod and @property, not over them"
        )
    is_coroutine_function = iscoroutinefunction(key)
    if is_coroutine_function or not (key is None or callable(key)):
        wrong = "a plain function, not a coroutine function" if is_coroutine_function else f"callable, not {_type_name(key)}"
        raise TypeError(
            f"argument 'key' of {where}() must be {wrong}: "
            f"pass a function of the call's arguments, which returns what makes two calls the same"
        )
    if not (valid is None or callable(valid)) or iscoroutinefunction(valid):
        raise TypeError(
            f"argument 'valid' of {where}() must be a plain function, not "
            f"{'a coroutine function' if iscoroutinefunction(valid) else _type_name(valid)}: "
            f"pass a function of the value, which returns whether it can still be used"
        )
    token = WrappedFactory(factory, make, key=key, valid=valid, checks_values=checks_values, call_without_loop=call_without_loop)

    if key is not None:
        key_of: Callable[..., Any] = key

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            asked: tuple[Any] | None = None  # the key function has been: once a call, and its errors are raised as they are
            try:
                cache = running_loop()._asyncio_loop_local.caches[token]
            except (AttributeError, KeyError, RuntimeError):
                pass
            else:
                own_key = key_of(*args, **kwargs)
                kind: type = type(own_key)  # pyright: ignore[reportUnknownVariableType]  # a key may be anything
                try:
                    found, is_call_result = cache.cached(*own_key) if kind is tuple else cache.by_own_key[own_key][kind]
                except (KeyError, TypeError, ValueError, NotCached):
                    pass
                else:
                    value = token.value_of(found) if checks_values else found
                    if value is not NOTHING:
                        return value.with_arguments(partial(wrapper, *args, **kwargs)) if is_call_result else value
                asked = (own_key,)
            return token.find_or_make_by_key(wrapper, args, kwargs, asked)

    elif checks_values:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                entry = running_loop()._asyncio_loop_local.caches[token].find(*args, **kwargs)
            except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, NotCached):
                pass  # not from in here, where an error of the factory's own would seem to come from this one
            else:
                value, valid, resource = entry.value, entry.valid, entry.resource
                if valid is not None and entry.asks:  # as `is_usable` does, since calls would cost more than the rest
                    entry.asks = False
                    try:
                        is_good = valid(value)
                    finally:
                        entry.asks = True
                    if is_good is True or entry.judge(is_good):
                        entry.was_good = True
                    else:
                        entry.retire()
                if not entry.is_invalid:  # `valid` itself may have had it released
                    if resource is not None and (node := _wait_graph.running_node()) is not None:
                        resource.note_user(node)
                    return value
            return token.find_or_make(args, kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return running_loop()._asyncio_loop_local.caches[token].find(*args, **kwargs)
            except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, NotCached):
                pass  # not from in here, where an error of the factory's own would seem to come from this one
            return token.find_or_make(args, kwargs)

    look_like(wrapper, factory)
    return wrapper


def cell_of(wrapper: object) -> CellType | None:
    """Return the closure's cell in which a function of ours has its `WrappedFactory`; None for any other function."""
    while isinstance(wrapper, FunctionType):
        names = wrapper.__code__.co_freevars
        if "token" in names and wrapper.__closure__ is not None:
            cell = wrapper.__closure__[names.index("token")]
            if isinstance(cell.cell_contents, WrappedFactory):
                return cell
        wrapper = getattr(wrapper, "__wrapped__", None)  # that of somebody's decorator
    return None


def factory_of(wrapper: object) -> WrappedFactory | None:
    """Return the factory that a function of ours wraps now; None for any other function."""
    cell = cell_of(wrapper)
    return None if cell is None else cell.cell_contents


def _type_name(value: object) -> str:
    return type(value).__qualname__


def look_like(wrapper: Callable[..., Any], factory: Callable[..., Any]) -> None:
    """Give a function the name, documentation and annotations of another callable, whatever kind it is."""
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
