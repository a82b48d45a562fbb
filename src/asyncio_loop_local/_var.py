"""A typed variable with a value for each event loop, as `contextvars.ContextVar` has one for each context."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._closing import check_close
from ._closing_variable import ValuesToClose
from ._loop_state import loop_state
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

    With ``close``, each value is a resource of its loop, and is closed once, in a task of its own there: in the order of exits
    when the loop ends, or at that loop's next turn when another value is set, or when the variable itself is gone, in whichever
    thread. So the variable can belong to an object, a client of an SDK, say: no loop keeps the variable or the object alive. (A
    bound method of the object as ``close``, or as ``factory``, does no harm either.) A loop that is dropped unclosed, and to
    which a value refers, lives as long as the variable.

    >>> requests = LoopVar("requests", default=0)
    >>> async def count() -> int:
    ...     requests.set(requests.get() + 1)
    ...     return requests.get()
    """

    __slots__ = ("_default", "_factory", "_name", "_to_close")

    @overload
    def __init__(self, name: str, *, close: Callable[[T], object] | None = None) -> None: ...
    @overload
    def __init__(self, name: str, *, default: T, close: Callable[[T], object] | None = None) -> None: ...
    @overload
    def __init__(self, name: str, *, factory: Callable[[], T], close: Callable[[T], object] | None = None) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        default: Any = _MISSING,
        factory: Callable[[], T] | None = None,
        close: Callable[[T], object] | None = None,
    ) -> None:
        """Set the name for reprs and errors, and ``default`` or ``factory`` for loops on which no value was set.

        ``close`` is called with each value that was set or made, sync or async; never with the default.

        :raises TypeError: if ``name`` is not a string, if ``factory`` or ``close`` is not callable, if ``close`` is an async
            generator function, or if both ``default`` and ``factory`` are given.
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
        if close is not None:
            check_close(close, where="LoopVar")
        self._name = name
        self._default: T | _Missing = default
        self._factory = factory
        self._to_close = None if close is None else ValuesToClose(f"LoopVar {name!r}", close)

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
        and the next `get` calls the factory again. With ``close``, code of a resource that gets the value uses it: the value is
        closed after that resource has ended.

        :raises LookupError: if there is no value, no default and no factory.
        :raises RuntimeError: if no event loop is running.
        """
        value = default
        if self._to_close is None:
            value = storage().get(self, default)
        elif (held := self._to_close.use(loop_state())) is not None:
            value = held.value
        if value is not _MISSING:
            return value
        if self._factory is not None:
            if self._to_close is not None:
                return self._to_close.make(loop_state(), self._factory)
            made = self._factory()
            return storage().setdefault(self, made)
        if self._default is _MISSING:
            raise LookupError(self)
        return self._default

    def set(self, value: T) -> Token[T]:
        """Set the variable's value on the running loop, for all its tasks, until the loop ends.

        With ``close``, the value before is closed at the loop's next turn, unless it is this one, or an open resource still uses
        it; the code that calls this no longer does.

        :returns: a token with which `reset` restores the previous value.
        :raises RuntimeError: if no event loop is running.
        """
        old_value: T | _Missing = self._present()
        if self._to_close is None:
            storage()[self] = value
        elif old_value is not value:
            self._to_close.set(loop_state(), value)
        return Token(self, old_value, storage())

    def reset(self, token: Token[T]) -> None:
        """Restore the variable's value on the running loop from before the `set` that returned ``token``.

        With ``close``, the value from before has been closed. So the variable has none afterwards, and the present one is closed.

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
        if self._to_close is not None:
            if token._old_value is not self._present():
                self._to_close.discard(loop_state())
        elif token._old_value is _MISSING:
            values.pop(self, None)
        else:
            values[self] = cast("T", token._old_value)

    async def aclose(self) -> None:
        """Close the variable's value on every loop, each on its own: here now; on loops that run in other threads, there.

        All of that is awaited. A loop that does not run closes its value at its end. What an open resource still uses is closed
        all the same. Afterwards the variable can be used as before. Of two tasks that call this at a time, both wait for the
        same exits. If it is cancelled, the exits go on by themselves. Without ``close``, it does nothing.

        :raises ExceptionGroup: after the last exit, with the errors of all exits, each with a note of whose it is.
        :raises RuntimeError: if no event loop is running, or if this is called from inside a resource for which the exit waits.
        """
        if self._to_close is not None:
            await self._to_close.aclose()

    def _present(self) -> T | _Missing:
        if self._to_close is None:
            return cast("T | _Missing", storage().get(self, _MISSING))
        held = self._to_close.find(loop_state())
        return _MISSING if held is None else held.value

    def __repr__(self) -> str:
        """Return the name, and the default or factory if there is one, with secrets masked."""
        default = "" if self._default is _MISSING else f" default={mask_if_secret(self._name, safe_repr(self._default))}"
        factory = "" if self._factory is None else f" factory={describe_factory(self._factory)}"
        return f"<LoopVar name={self._name!r}{default}{factory} at {id(self):#x}>"
