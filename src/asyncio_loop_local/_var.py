"""A typed variable of the running loop, as `contextvars.ContextVar` is one of the context."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._carried import Carried
from ._names import shown_unwrapped
from ._secrets import shown, unless_secret
from ._storage import storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._loop_state import LoopLocalStorage

T = TypeVar("T")
D = TypeVar("D")


class _Missing:
    """What stands for no value; there is one."""

    def __repr__(self) -> str:
        return "<Token.MISSING>"

    def __reduce__(self) -> str:
        return "_MISSING"


_MISSING = _Missing()


class Token(Generic[T]):
    """What `LoopVar.set` returns, for `LoopVar.reset`: good once, on the loop and for the variable that gave it."""

    __slots__ = ("_old_value", "_storage", "_used", "_var")

    MISSING = _MISSING

    def __init__(self, var: LoopVar[T], old_value: T | _Missing, where: LoopLocalStorage) -> None:
        """Made by `LoopVar.set` alone."""
        self._var = var
        self._old_value = old_value
        self._storage = weakref.ref(where)
        self._used = False

    @property
    def var(self) -> LoopVar[T]:
        """The variable that gave it."""
        return self._var

    @property
    def old_value(self) -> T | _Missing:
        """The value that the variable had before, or `Token.MISSING` if it had none."""
        return self._old_value

    def __repr__(self) -> str:
        """Return the variable, and whether this was used."""
        return f"<Token{' used' if self._used else ''} var={self._var!r} at {id(self):#x}>"


class LoopVar(Carried, Generic[T]):
    """A variable that has a value of its own on every event loop; made at module level, as a `ContextVar` is.

    All tasks of a loop see the same value. It lives until its loop ends, or until `aclose`, in the loop's `storage`; nothing
    closes it then. What ``factory`` makes is made at the first `get` on each loop, in the task that asks, and only once.

    >>> requests = LoopVar("requests", default=0)
    >>> async def count() -> int:
    ...     requests.set(requests.get() + 1)
    ...     return requests.get()
    """

    __slots__ = ("_default", "_factory", "_name")

    @overload
    def __init__(self, name: str) -> None: ...
    @overload
    def __init__(self, name: str, *, default: T) -> None: ...
    @overload
    def __init__(self, name: str, *, factory: Callable[[], T]) -> None: ...
    def __init__(self, name: str, *, default: Any = _MISSING, factory: Callable[[], T] | None = None) -> None:
        """Take the name that is shown, and what there is on a loop on which nothing was set: at most one of the two.

        :raises TypeError: if ``name`` is no string, if ``factory`` cannot be called, or if both are given.
        """
        given: Any = name
        if not isinstance(given, str):
            raise TypeError(f"argument 'name' of LoopVar() must be a str, not {type(given).__qualname__}")
        if factory is not None and default is not _MISSING:
            raise TypeError("LoopVar() takes 'default' or 'factory', not both: what the factory makes is the default")
        given = factory
        if not (given is None or callable(given)):
            raise TypeError(
                f"argument 'factory' of LoopVar() must be callable, not {type(given).__qualname__}: "
                f"for a value there is 'default'"
            )
        self._name = name
        self._default: T | _Missing = default
        self._factory = factory

    @property
    def name(self) -> str:
        """The name that it was given."""
        return self._name

    @overload
    def get(self, /) -> T: ...
    @overload
    def get(self, default: T | D, /) -> T | D: ...
    def get(self, default: Any = _MISSING, /) -> Any:
        """Return the value on the running loop; else ``default``; else the variable's own default, or what its factory makes.

        A value that the factory makes is kept, and lives until the loop ends. An error of the factory is raised and not
        remembered.

        :raises LookupError: if there is none of these.
        :raises RuntimeError: if no event loop is running.
        """
        values = storage()
        value = values.get(self, default)
        if value is not _MISSING:
            return value
        if self._factory is not None:
            made = self._factory()
            return values.setdefault(self, made)
        if self._default is _MISSING:
            raise LookupError(self)
        return self._default

    def set(self, value: T) -> Token[T]:
        """Set the value on the running loop, for all its tasks, until the loop ends.

        :returns: a token with which `reset` gives back what was there before.
        :raises RuntimeError: if no event loop is running.
        """
        values = storage()
        old_value: T | _Missing = values.get(self, _MISSING)
        values[self] = value
        return Token(self, old_value, values)

    def reset(self, token: Token[T]) -> None:
        """Give the variable the value on the running loop that it had before the `set` that returned ``token``.

        :raises TypeError: if ``token`` is none.
        :raises RuntimeError: if it has been used once, or if no event loop is running.
        :raises ValueError: if another variable gave it, or this one on another loop.
        """
        if not isinstance(cast("object", token), Token):
            raise TypeError(f"expected an instance of Token, got {token!r}")
        values = storage()
        if token._used:
            raise RuntimeError(f"{token!r} has already been used once")
        if token._var is not self:
            raise ValueError(f"{token!r} was created by a different LoopVar")
        if token._storage() is not values:
            raise ValueError(f"{token!r} was created in a different event loop")
        token._used = True
        if token._old_value is _MISSING:
            values.pop(self, None)
        else:
            values[self] = cast("T", token._old_value)

    def __repr__(self) -> str:
        """Return the name, and the default if there is one; passwords and tokens are masked."""
        default = "" if self._default is _MISSING else f" default={unless_secret(self._name, shown(self._default))}"
        factory = "" if self._factory is None else f" factory={shown_unwrapped(self._factory)}"
        return f"<LoopVar name={self._name!r}{default}{factory} at {id(self):#x}>"
