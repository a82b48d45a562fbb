"""What is told apart by its identity, and keeps it where it is carried by value.

cloudpickle, and with it Dask, Ray and joblib, carries by value whatever ``__main__`` defines: in a script and in a
notebook, everything. A task that arrives brings what it refers to, and a hundred tasks would bring a hundred factories.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakValueDictionary

_known: WeakValueDictionary[bytes, Carried] = WeakValueDictionary()
_lock = threading.RLock()  # reentrant, since the garbage collector may run anything meanwhile


class Carried:
    """However often it arrives in a process, it is one object there; in its own process, itself. So is a copy of it."""

    __slots__ = ("__weakref__", "_carried_as")

    _carried_as: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        with _lock:
            if not hasattr(self, "_carried_as"):
                self._carried_as = os.urandom(16)
                _known[self._carried_as] = self
        return _arrived, (type(self), self._carried_as), self.__getstate__()

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        attributes = state[1]
        with _lock:
            if not hasattr(self, "_carried_as"):
                for name, value in attributes.items():
                    setattr(self, name, value)


def _arrived(kind: type[Carried], carried_as: bytes) -> Carried:
    with _lock:
        there = _known.get(carried_as)
        if there is None:
            there = _known[carried_as] = kind.__new__(kind)
        return there


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  # another thread of the parent may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
