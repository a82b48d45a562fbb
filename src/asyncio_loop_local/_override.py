"""Another factory in the place of a wrapped one, for a block: for tests."""

from __future__ import annotations

import inspect
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, TypeVar, overload

from ._cpython import running_loop_or_none, signature
from ._loop_state import attached_states
from ._names import describe_factory, name_of
from ._wrapped_factory import WrappedFactory, cell_of, look_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import CellType, TracebackType

    from ._sticky_acm import StickyACM
    from ._typing import ACM, NoFunction


P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound="Callable[..., object]")
G = TypeVar("G", bound="Callable[..., object]")

_lock = threading.RLock()  # reentrant: the garbage collector may run any code while it is held


# A type variable that both arguments decide becomes whatever both are. pyright compares what the one and the other have
# decided when the block is entered. mypy does not, but it decides by the factory alone where the replacement is a union.
MYPY = False

if TYPE_CHECKING and not MYPY:

    class _Override(Generic[T, R_co]):
        """Can be entered if an ``R_co`` is a ``T``."""

        def __init__(self, made: T) -> None: ...
        def __enter__(self: _Override[R, R]) -> None: ...
        def __exit__(
            self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None, /
        ) -> None: ...

    @overload
    def override(  # pyright: ignore[reportOverlappingOverload]
        factory: Callable[P, StickyACM[T]], replacement: Callable[P, ACM[R]], /
    ) -> _Override[T, R]: ...
    @overload
    def override(  # pyright: ignore[reportOverlappingOverload]
        factory: Callable[P, T], replacement: Callable[P, R], /
    ) -> _Override[T, R]: ...
    @overload
    def override(factory: F, replacement: G, /) -> _Override[F, G]: ...  # with overloads, or other parameters


@overload
def override(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, T], replacement: Callable[P, T] | NoFunction, /
) -> AbstractContextManager[None]: ...
@overload
def override(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, StickyACM[T]], replacement: Callable[P, ACM[T]] | NoFunction, /
) -> AbstractContextManager[None]: ...
def override(factory: Any, replacement: Any, /) -> Any:
    """Return a context manager in whose block calls of a wrapped factory make from ``replacement``: for tests.

    That holds on every loop and in every thread, with values of their own, even where the factory had made some before;
    ``key=``, ``close=`` and ``valid=`` stay those of the factory. After the block the factory's own values are found again.
    Calls then no longer find what the replacement has made. That exits: on the running loop at once, on each other loop at that
    loop's next turn, and what an open resource still uses after that resource. Blocks nest, and those of two threads may
    overlap: the one that began last, and has not ended, decides.

    ``replacement`` takes the factory's parameters, and makes what the factory makes: in the place of a coroutine function a
    function that returns a coroutine; for `sticky_singleton_acm`, an asynchronous context manager of the same type. For a
    method, override the function in its class (``Service.client``); the replacement takes ``self``. For a class method, the
    replacement takes no class, and holds for subclasses too. Where the replacement itself calls the factory, it calls itself.

    :raises TypeError: if ``factory`` was not made by `singleton` or `sticky_singleton_acm`, or is bound to an instance; or if
        ``replacement`` cannot be called. By calls in the block: if the replacement makes no asynchronous context manager; or,
        by awaiting them, if it returns nothing that can be awaited in the place of a coroutine function.
    """
    bound_to: object = getattr(factory, "__self__", None)
    given: Any = getattr(factory, "__func__", factory)
    if given is not factory and not isinstance(bound_to, type):
        raise TypeError(
            f"argument 'factory' of override() must not be bound to an instance, as {describe_factory(factory)} is: pass the "
            f"function in the class, as in override(Service.client, …), and a replacement that takes self"
        )
    cell = cell_of(given)
    if cell is None:
        raise TypeError(
            f"argument 'factory' of override() must be what singleton() or sticky_singleton_acm() has returned, "
            f"not {describe_factory(factory)}"
        )
    if not callable(replacement):
        raise TypeError(
            f"argument 'replacement' of override() must be callable, not {type(replacement).__qualname__}: "
            f"pass a function with the factory's parameters, as in lambda *args, **kwargs: …"
        )
    if given is not factory:
        replacement = _without_class(replacement)
    if inspect.iscoroutinefunction(cell.cell_contents.call):
        replacement = _coroutine_function(replacement, cell.cell_contents.call)
    return _Block(cell, replacement)


def _without_class(replacement: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement for the function of a class method, which gets the class besides what its callers pass."""

    def of_class(_cls: type, /, *args: Any, **kwargs: Any) -> Any:
        return replacement(*args, **kwargs)

    look_like(of_class, replacement)
    del vars(of_class)["__wrapped__"]
    with suppress(TypeError, ValueError):  # it has no signature that could be read, as some that are written in C
        parameters = signature(replacement).parameters.values()
        first = inspect.Parameter("_cls", inspect.Parameter.POSITIONAL_ONLY)
        vars(of_class)["__signature__"] = inspect.Signature([first, *parameters])
    return of_class


def _coroutine_function(replacement: Callable[..., Any], factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return the replacement if it is a coroutine function that is not wrapped; else one that returns the same as it does."""
    if inspect.iscoroutinefunction(replacement) and cell_of(replacement) is None:
        return replacement

    async def of_replacement(*args: Any, **kwargs: Any) -> Any:
        result = replacement(*args, **kwargs)
        if not inspect.isawaitable(result):
            raise TypeError(
                f"{name_of(replacement)}(), which replaces {name_of(factory)}() by override(), returned an object of class "
                f"{type(result).__qualname__}, which cannot be awaited: {name_of(factory)}() is a coroutine function, so replace "
                f"it with one, written with async def"
            )
        return await result

    look_like(of_replacement, replacement)
    return of_replacement


class _Block:
    """The block of `override`."""

    __slots__ = ("_begun", "_cell", "_replacement")

    def __init__(self, cell: CellType, replacement: Callable[..., Any]) -> None:
        self._cell = cell
        self._replacement = replacement
        self._begun: list[WrappedFactory] = []  # several, if the block is entered again in itself

    def __enter__(self) -> None:
        with _lock:
            own: WrappedFactory = self._cell.cell_contents.replaced_by(self._replacement)
            self._cell.cell_contents = own
        self._begun.append(own)

    def __exit__(self, *_error: object) -> None:
        own = self._begun.pop()
        with _lock:
            _take_out(self._cell, own)
        for state in attached_states():
            if own not in state.caches:
                continue
            if state.loop is running_loop_or_none():
                state.retire(own)
            else:
                with suppress(RuntimeError):  # it has just been closed
                    state.loop.call_soon_threadsafe(state.retire, own)

    def __call__(self, *_args: object, **_kwargs: object) -> Never:
        # As a decorator of a coroutine function, it would be over before that first awaits.
        raise TypeError("override() is no decorator: write 'with override(factory, replacement):' in the function")


def _take_out(cell: CellType, own: WrappedFactory) -> None:
    """End an override, which need not be the one that began last."""
    factory: WrappedFactory = cell.cell_contents
    if factory is own:
        assert own.replaces is not None
        cell.cell_contents = own.replaces
        return
    while factory.replaces is not own:
        assert factory.replaces is not None
        factory = factory.replaces
    factory.replaces = own.replaces
