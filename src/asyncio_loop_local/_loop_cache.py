"""What one wrapped factory has made on one loop, by the arguments of the calls."""

from __future__ import annotations

import inspect
from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ._cpython import lru_cache
from ._flat_form import flat_form, flat_form_of_frozen, unfrozen
from ._keys import KNOWN_CLASSES, Snapshot
from ._loop_bound import ENDED, MADE, OPEN, RETIRED
from ._names import name_of

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Hashable

    from ._exit_order import Exitable, ExitOrder
    from ._keys import Arguments, CallKeys
    from ._resource import Resource


V = TypeVar("V")
NOTHING = object()
"""Returned where nothing is found, since an exception would take longer."""


class NotCached(Exception):
    """The C-level cache has nothing for these arguments."""


class ArgumentsNotKept(Exception):
    """The call cannot be made again: with ``key=``, its arguments are not kept."""


class Factory(Protocol):
    """What an entry has to know of the factory that makes its value."""

    @property
    def call(self) -> Callable[..., Any]:
        """The factory itself, as it was before it was wrapped."""
        ...

    @property
    def keys(self) -> CallKeys:
        """The keys of its calls."""
        ...

    @property
    def keeps_arguments(self) -> bool:
        """Whether the arguments say which call it is, and so are kept."""
        ...

    @property
    def valid(self) -> Callable[[Any], object] | None:
        """Tells whether a value is still good."""
        ...


class CacheEntry:
    """One cached call: its key, its arguments and, once made, its value. `invalidate` lets the next such call make anew.

    It is also the origin of the resource of a value that has to be closed.
    """

    __slots__ = (
        "_name",
        "args",
        "asks",
        "cache",
        "exits",
        "factory",
        "is_invalid",
        "key",
        "kwargs",
        "resource",
        "valid",
        "value",
        "was_good",
    )

    def __init__(
        self,
        exits: ExitOrder,
        cache: LoopCache,
        factory: Factory,
        key: Hashable,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.exits = exits
        self.cache = cache
        self.factory = factory
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.is_invalid = False
        self.value: Any = None
        self.resource: Resource[Any] | None = None  # to be exited before the value may be forgotten
        self._name: str | None = None
        self.valid: Callable[[Any], object] | None = None  # asked by each call; None if what the call gives asks it
        self.asks = True  # not while `valid` runs: a call that `valid` itself makes does not ask again
        self.was_good = False  # whether `valid` has accepted the value at least once

    @property
    def name(self) -> str:
        """The call as people read it."""
        return self._name or self.factory.keys.describe(self.args, self.kwargs)

    def forget_arguments(self) -> None:
        """Keep them no longer: what ``key=`` returned says which call this is."""
        if self.resource is not None:
            try:
                self._name = self.name
            except Exception:  # of an argument's own __repr__
                self._name = f"{name_of(self.factory.call)}(…)"
        self.args, self.kwargs = (), {}

    @property
    def is_held(self) -> bool:
        """A value has no blocks."""
        return False

    def call_factory(self) -> Any:
        """Call the factory itself with the arguments."""
        return self.factory.call(*self.args, **self.kwargs)

    def call_again(self, wrapper: Callable[..., V]) -> V:
        """Call the wrapped factory with the arguments once more, as where this entry's value is no longer found.

        :raises ArgumentsNotKept: if they are not kept.
        """
        if not self.factory.keeps_arguments:
            raise ArgumentsNotKept
        return wrapper(*self.args, **self.kwargs)

    def publish(self, value: Any, _loop: AbstractEventLoop, /) -> None:
        """Let calls find this value."""
        if not self.is_invalid:
            self.value = value

    def invalidate(self) -> None:
        """Forget the value: the next call makes a new one."""
        if not self.is_invalid:
            cache = self.cache
            self.is_invalid = True
            cache.forget_found()  # at once: nothing finds it there any more
            cache.discard(self)
            self.value = self.resource = self.valid = None  # they may refer to this

    def is_good(self, value: Any) -> bool:
        """Ask ``valid`` about the value. Where ``valid`` itself makes this call, it gets the value that it is asked about.

        :raises TypeError: if ``valid`` returns something that would have to be awaited.
        """
        valid = self.factory.valid
        if valid is None or not self.asks:
            return True
        self.asks = False
        try:
            verdict = valid(value)
        finally:
            self.asks = True
        if verdict is True or self.judge(verdict):
            self.was_good = True
            return True
        return False

    def judge(self, verdict: object) -> bool:
        """Whether what ``valid`` has returned says that the value can still be used.

        :raises TypeError: if it would have to be awaited.
        """
        if inspect.isawaitable(verdict):
            if inspect.iscoroutine(verdict):
                verdict.close()  # or it would warn that it was never awaited
            raise TypeError(
                f"valid=… of {name_of(self.factory.call)}() returned an awaitable, of class {type(verdict).__qualname__}: "
                f"it must be a plain function, which returns whether the value is still good"
            )
        return bool(verdict)

    def retire(self) -> None:
        """Forget a value that is no longer valid. If it has to be closed, that begins as soon as nothing uses it any more."""
        self.cache.never_good = 0 if self.was_good else self.cache.never_good + 1
        resource = self.resource
        self.invalidate()
        if resource is not None:
            with suppress(Exception):  # of an argument's own hash
                self.cache.retired[self.key] = [*self.cache.still_open(self.key), resource]
            resource.retire()

    def acquired_by(self, user: Exitable) -> None:
        """Note that what has asked for this value no longer uses the values of this call before."""
        if self.cache.retired and not self.is_invalid:
            for resource in self.cache.still_open(self.key):
                if not resource.origin.is_held:
                    resource.let_go_by(user)

    def blocks_left(self, resource: Resource[Any]) -> None:
        """Do the same for a value before, of which the last block was left only now."""
        newest = self.cache.valid_entry(self.key)
        if newest is not None:
            retired = self.cache.still_open(self.key)
            newer = [newest.resource, *[each for each in retired if each.serial > resource.serial]]
            for user in list(resource.users):
                if any(each in user.uses for each in newer):
                    resource.let_go_by(user)

    def drop(self) -> None:
        """Close the value at once: the factory itself has made the same call, that value counts, and nobody has got this one."""
        if self.resource is not None and self.resource.state is OPEN:
            self.resource.begin_exit()

    async def release(self, resource: Resource[Any]) -> BaseException | None:
        """Exit the resource. Until that is done, another release of the same call finds it, and waits for the same exit.

        :returns: the error of the exit.
        """
        releasing = self.cache.releasing
        releasing[self.key] = resource
        try:
            return await resource.release()
        finally:
            if resource.state is ENDED or not self.is_invalid:
                with suppress(Exception):  # of an argument's own hash; nobody finds what has ended
                    if releasing.get(self.key) is resource:
                        del releasing[self.key]


class LoopCache:
    """What one factory has made on one loop, by key; and, before that, a C-level cache by the arguments as written.

    With ``key=``, the key that the user's function has returned takes the place of the arguments: the items of a tuple, as they
    are, or else the key and its type in a dict, which takes less time.

    The C-level cache finds a value without making its key. It tells types apart, but not those inside containers. So there are
    two kinds of calls: most are put into it with their arguments as they are; a call with an argument that counts by value is
    put into it in its flat form. `find` tries the kind of the last call; `find_otherwise` tries the other one, which takes about
    a microsecond more.
    """

    __slots__ = (
        "_pending",
        "by_own_key",
        "by_value",
        "cached",
        "entries",
        "find",
        "has_warned",
        "never_good",
        "releasing",
        "retired",
    )

    def __init__(self) -> None:
        self.entries: dict[Hashable, CacheEntry] = {}
        self.releasing: dict[Hashable, Resource[Any]] = {}
        self.retired: dict[Hashable, list[Resource[Any]]] = {}  # values no longer valid, which something may still use
        self.never_good = 0  # values in a row that `valid` has never accepted
        self.has_warned = False
        self._pending: list[tuple[Any, Arguments]] = []
        self.by_value = False
        self.cached = lru_cache(self._take_pending())
        self.find: Callable[..., Any] = self.cached
        self.by_own_key: dict[Hashable, dict[type, Any]] = {}

    def _take_pending(self) -> Callable[..., Any]:
        """Return the function that the C-level cache calls for what it does not have, which gives it what `put` has to put in."""
        pending = self._pending  # not self, which would make a reference cycle

        def take(*args: Hashable, **kwargs: Hashable) -> Any:
            # Only for these very arguments: the hash of one, or whatever runs meanwhile, may have called once more.
            for value, (of_args, of_kwargs) in pending:
                if len(args) != len(of_args) or kwargs.keys() != of_kwargs.keys():
                    continue
                if all(map(is_, args, of_args)) and all(map(is_, kwargs.values(), of_kwargs.values())):
                    return value
            raise NotCached

        return take

    def find_otherwise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Find what `find` has not found, if it expected another kind of call; else return NOTHING."""
        try:
            flat = flat_form(args, kwargs)
            if (flat is not None) is self.by_value:
                return NOTHING
            self._expect(by_value=flat is not None)
            return self.cached(*args, **kwargs) if flat is None else self.cached(*flat)
        except Exception:  # perhaps of an argument's own hash, which is asked again for the key
            return NOTHING

    def find_frozen(self, arguments: Arguments) -> Any:
        """Find the value for these arguments, some of which are frozen; NOTHING if there is none."""
        self._expect(by_value=True)
        args, kwargs = self._as_cached(arguments)
        try:
            return self.cached(*args, **kwargs)
        except NotCached:
            return NOTHING

    def _expect(self, *, by_value: bool) -> None:
        if by_value is not self.by_value:
            self.by_value = by_value
            self.find = _by_value(self.cached) if by_value else self.cached

    def put(self, entry: CacheEntry, found: Any, arguments: Arguments) -> None:
        """Let `find` find the entry, or its value, for these arguments, each of which is hashable or frozen."""
        self._put_as_cached(entry, found, self._as_cached(arguments))

    def put_by_own_key(self, entry: CacheEntry, found: Any, frozen: Hashable) -> None:
        """Let it be found by what the user's key function has returned, if nothing in that had to be frozen."""
        own_key = unfrozen(frozen)
        if type(own_key) is tuple:
            self._put_as_cached(entry, found, (own_key, {}))
        elif type(own_key) is not Snapshot:
            self.by_own_key.setdefault(own_key, {})[type(own_key)] = found
            if entry.is_invalid:  # meanwhile
                self.forget_found()

    def _put_as_cached(self, entry: CacheEntry, found: Any, arguments: Arguments) -> None:
        args, kwargs = arguments
        self._pending.append((found, arguments))
        try:
            self.cached(*args, **kwargs)
        finally:
            self._pending.pop()
            if entry.is_invalid:  # meanwhile
                self.forget_found()

    def forget_found(self) -> None:
        """Find nothing without its key."""
        self.cached.cache_clear()
        self.by_own_key.clear()

    def _as_cached(self, arguments: Arguments) -> Arguments:
        return (flat_form_of_frozen(*arguments), {}) if self.by_value else arguments

    def still_open(self, key: Hashable) -> list[Resource[Any]]:
        """Return the values of a call that are no longer valid, and have not begun to exit."""
        try:
            retired = self.retired.pop(key, [])
            still_open = [each for each in retired if each.state is RETIRED]
            if still_open:
                self.retired[key] = still_open
        except Exception:  # of an argument's own hash
            return []
        return still_open

    def clear(self) -> None:
        """Forget everything, which undoes all reference cycles."""
        for entry in list(self.entries.values()):
            resource = entry.resource
            if resource is not None and resource.state is MADE:
                resource.end(None, None)
            entry.is_invalid = True  # for code that has found it just before
            entry.value = entry.resource = None
        self.entries.clear()
        self.releasing.clear()
        self.retired.clear()
        self.forget_found()

    def discard(self, entry: CacheEntry) -> None:
        """Remove this very entry. If the hash of its key has changed, it stays, but is invalid."""
        with suppress(Exception):  # of an argument's own hash, which worked when the call was made
            if self.entries.get(entry.key) is entry:
                self.entries.pop(entry.key, None)

    def valid_entry(self, key: Hashable) -> CacheEntry | None:
        """The entry with this key, unless its value has been forgotten."""
        entry = self.entries.get(key)
        return None if entry is None or entry.is_invalid else entry


def _by_value(cached: Callable[..., Any]) -> Callable[..., Any]:
    def find(*args: object, **kwargs: object) -> Any:
        if len(args) == 1 and not kwargs:  # the same as below, in four fifths of the time
            return cached(*KNOWN_CLASSES[id(type(args[0]))].flat_form(args[0]))
        flat = flat_form(args, kwargs)
        if flat is None:
            raise NotCached
        return cached(*flat)

    return find
