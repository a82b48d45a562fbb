"""What one wrapped factory has made on one loop, by the arguments of the calls."""

from __future__ import annotations

from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any

from ._cpython import lru_cache
from ._loop_bound import ENDED, MADE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._exit_order import ExitOrder
    from ._keys import Arguments, CallKeys
    from ._resource import Resource


class NotCached(Exception):
    """The C-level cache has nothing for these arguments."""


class CacheEntry:
    """One cached call: its key, its arguments and, once made, its value. `invalidate` lets the next such call make anew."""

    __slots__ = ("args", "cache", "exits", "is_invalid", "key", "keys", "kwargs", "resource", "value")

    def __init__(
        self,
        exits: ExitOrder,
        cache: LoopCache,
        keys: CallKeys,
        key: Hashable,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.exits = exits
        self.cache = cache
        self.keys = keys
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.is_invalid = False
        self.value: Any = None
        self.resource: Resource[Any] | None = None  # to be exited before the value may be forgotten

    @property
    def name(self) -> str:
        """The call as people read it."""
        return self.keys.describe(self.args, self.kwargs)

    def invalidate(self) -> None:
        """Forget the value: the next call makes a new one."""
        if not self.is_invalid:
            self.is_invalid = True
            self.cache.discard(self)
            self.value = self.resource = None  # they refer to this

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

    The C-level cache finds a value without making its key. It tells types apart, but not those inside containers. So an
    argument that counts by value is put into it as a frozen snapshot, and is never found in it as it is.
    """

    __slots__ = ("_pending", "entries", "find", "has_warned", "releasing")

    def __init__(self) -> None:
        self.entries: dict[Hashable, CacheEntry] = {}
        self.releasing: dict[Hashable, Resource[Any]] = {}
        self.has_warned = False
        self._pending: list[tuple[Any, Arguments]] = []
        self.find = lru_cache(self._take_pending())

    def _take_pending(self) -> Callable[..., Any]:
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

    def put(self, value: Any, arguments: Arguments) -> None:
        """Let `find` find the value for these arguments, each of which is hashable or frozen."""
        self._pending.append((value, arguments))
        try:
            self.find(*arguments[0], **arguments[1])
        finally:
            self._pending.pop()

    def clear(self) -> None:
        """Forget everything, which undoes all reference cycles."""
        for entry in list(self.entries.values()):
            if entry.resource is not None and entry.resource.state is MADE:
                entry.resource.end(None, None)
            entry.value = entry.resource = None
        self.entries.clear()
        self.releasing.clear()
        self.find.cache_clear()

    def discard(self, entry: CacheEntry) -> None:
        """Take this very entry out. If its key no longer finds it, it stays, marked as invalid."""
        self.find.cache_clear()
        with suppress(Exception):  # of an argument's own hash, which worked when the call was made
            if self.entries.get(entry.key) is entry:
                del self.entries[entry.key]

    def valid_entry(self, key: Hashable) -> CacheEntry | None:
        """The entry with this key, unless its value has been forgotten."""
        entry = self.entries.get(key)
        return None if entry is None or entry.is_invalid else entry
