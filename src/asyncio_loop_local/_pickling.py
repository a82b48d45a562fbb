"""Objects that keep their identity when they are pickled.

cloudpickle, and so Dask, Ray and joblib, pickles everything that ``__main__`` defines by value; in a script or a notebook
that is everything. Each task that arrives at a worker brings a copy of each factory that it refers to: without this module,
a hundred tasks would make a hundred factories, each with resources of its own.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakValueDictionary

_by_id: WeakValueDictionary[bytes, PicklesByIdentity] = WeakValueDictionary()
_lock = threading.RLock()  # reentrant: the garbage collector may run any code while it is held


class PicklesByIdentity:
    """Unpickled or copied in its own process, it is the same object. In another process, all its pickles are one object."""

    __slots__ = ("__weakref__", "_pickle_id")

    _pickle_id: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        with _lock:
            if not hasattr(self, "_pickle_id"):
                self._pickle_id = os.urandom(16)
                _by_id[self._pickle_id] = self
        return _find_or_create, (type(self), self._pickle_id), self.__getstate__()

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        of_subclass, of_slots = state
        attributes = {**(of_subclass or {}), **of_slots}  # with _pickle_id among them, so only the first arrival sets them
        with _lock:
            if not hasattr(self, "_pickle_id"):
                for name, value in attributes.items():
                    setattr(self, name, value)


def _find_or_create(kind: type[PicklesByIdentity], pickle_id: bytes) -> PicklesByIdentity:
    with _lock:
        known = _by_id.get(pickle_id)
        if known is None:
            known = _by_id[pickle_id] = kind.__new__(kind)
        return known


def _replace_lock_after_fork() -> None:
    global _lock  # noqa: PLW0603  # another thread of the parent may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_lock_after_fork)
