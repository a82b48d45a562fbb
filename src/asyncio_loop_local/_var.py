"""A typed variable with a value for each event loop, as `contextvars.ContextVar` has one for each context."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._names import describe_factory
from ._pickling import PicklesByIdentity
from ._secrets import mask_if_secret, safe_repr
from ._storage import storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._loop_state import LoopLocalStorage

T = TypeVar("T")
D = TypeVar("D")


class _Missing:
    """The type of `Token.MISSING`, its only instance."""

    def __repr__(self) -> str:
        return "<Token.MISSING>"

    def __reduce__(self) -> str:
        return "_MISSING"


_MISSING = _Missing()


class Token(Generic[T]):
    """Returned by `LoopVar.set`, to undo it with `LoopVar.reset`: once, for the same variable and on the same loop."""

    __slots__ = ("_old_value", "_storage", "_used", "_var")

    MISSING = _MISSING

    def __init__(self, var: LoopVar[T], old_value: T | _Missing, where: LoopLocalStorage) -> None:
        """Only `LoopVar.set` makes tokens."""
        self._var = var
        self._old_value = old_value
        self._storage = weakref.ref(where)
        self._used = False

    @property
    def var(self) -> LoopVar[T]:
        """The variable whose `set` returned this token."""
        return self._var

    @property
    def old_value(self) -> T | _Missing:
        """The value of the variable before `set`, or `Token.MISSING` if it had none."""
        return self._old_value

    def __repr__(self) -> str:
        """Return the variable, and whether this token has been used."""
        return f"<Token{' used' if self._used else ''} var={self._var!r} at {id(self):#x}>"


class LoopVar(PicklesByIdentity, Generic[T]):
    """A variable with a separate value on every event loop. Create it at module level, like a `ContextVar`.

    All tasks of a loop see the same value. The loop's `storage` keeps it until the loop ends, or until `aclose`, and does not
    close it. The first `get` on each loop calls ``factory``, in its own task.

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
        """Set the name for reprs and errors, and ``default`` or ``factory`` for loops on which no value was set.

        :raises TypeError: if ``name`` is not a string, if ``factory`` is not callable, or if both ``default`` and ``factory``
            are given.
        """
        given: Any = name
        if not isinstance(given, str):
            raise TypeError(f"argument 'name' of LoopVar() must be a str, not {type(given).__qualname__}")
        if factory is not None and default is not _MISSING:
            raise TypeError("LoopVar() takes 'default' or 'factory', not both")
        given = factory
        if not (given is None or callable(given)):
            raise TypeError(
                f"argument 'factory' of LoopVar() must be callable, not {type(given).__qualname__}: "
                f"to give a value, pass 'default'"
            )
        self._name = name
        self._default: T | _Missing = default
        self._factory = factory

    @property
    def name(self) -> str:
        """The name of the variable."""
        return self._name

    @overload
    def get(self, /) -> T: ...
    @overload
    def get(self, default: T | D, /) -> T | D: ...
    def get(self, default: Any = _MISSING, /) -> Any:
        """Return the variable's value on the running loop; else ``default``, the result of its factory, or its default.

        The result of the factory becomes the variable's value on this loop. If the factory raises, the error is raised here
        and the next `get` calls the factory again.

        :raises LookupError: if there is no value, no default and no factory.
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
        """Set the variable's value on the running loop, for all its tasks, until the loop ends.

        :returns: a token with which `reset` restores the previous value.
        :raises RuntimeError: if no event loop is running.
        """
        values = storage()
        old_value: T | _Missing = values.get(self, _MISSING)
        values[self] = value
        return Token(self, old_value, values)

    def reset(self, token: Token[T]) -> None:
        """Restore the variable's value on the running loop from before the `set` that returned ``token``.

        :raises TypeError: if ``token`` is not a `Token`.
        :raises RuntimeError: if ``token`` has been used already, or if no event loop is running.
        :raises ValueError: if ``token`` is of another variable, or of another loop.
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
        """Return the name, and the default or factory if there is one, with secrets masked."""
        default = "" if self._default is _MISSING else f" default={mask_if_secret(self._name, safe_repr(self._default))}"
        factory = "" if self._factory is None else f" factory={describe_factory(self._factory)}"
        return f"<LoopVar name={self._name!r}{default}{factory} at {id(self):#x}>"
