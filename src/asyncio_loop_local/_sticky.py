"""Asynchronous context managers that are entered once per loop, however often the block is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from ._resource import checked_acm, checked_acm_factory, resource_made_by
from ._sticky_acm import StickyACM, sticky_call
from ._wrapped_factory import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ._loop_cache import CacheEntry
    from ._typing import ACM, Key, ReturnsBoth

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A", bound="ACM[object]")
A_co = TypeVar("A_co", bound="ACM[object]", covariant=True)

_NOT_GIVEN: Any = object()


def sticky_acm(acm: ACM[T]) -> StickyACM[T]:
    """Return an asynchronous context manager that enters ``acm`` once per loop, as `enter_once` does.

    It lives as long as it is referred to, and may be made at module level; what it enters lives as long as the loop.

    :raises TypeError: if ``acm`` is no asynchronous context manager.
    """
    return StickyACM(checked_acm(acm, where="sticky_acm()"))


# pyright cannot infer T from an overloaded factory of ACM[T], but can infer a type variable whose bound is ACM[object]. For mypy
# the second overload would be ambiguous where the factory takes Any; mypy alone takes this constant to be true.
MYPY = False

if TYPE_CHECKING and not MYPY:

    class _StickyACMOf(StickyACM[Any], Generic[A_co]):
        """A `StickyACM` of what an overloaded factory makes."""

        async def __aenter__(self: _StickyACMOf[ACM[T]]) -> T: ...
        def __await__(self: _StickyACMOf[ACM[T]]) -> Generator[Any, Any, T]: ...

    class _Decorator(Protocol):
        """`sticky_singleton_acm` that waits for its factory."""

        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, factory: Callable[P, ACM[T]], /
        ) -> Callable[P, StickyACM[T]]: ...
        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, factory: Callable[P, A], /
        ) -> Callable[P, _StickyACMOf[A]]: ...

    @overload
    def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
        factory: Callable[P, ACM[T]], /, *, key: Key | None = None, valid: Callable[[T], object] | None = None
    ) -> Callable[P, StickyACM[T]]: ...
    @overload
    def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
        factory: Callable[P, A], /, *, key: Key | None = None, valid: Callable[[object], object] | None = None
    ) -> Callable[P, _StickyACMOf[A]]: ...
    @overload
    def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
        factory: ReturnsBoth[P, ACM[R], ACM[T]], /, *, key: Key | None = None, valid: Callable[[T], object]
    ) -> Callable[P, StickyACM[R]]: ...
    @overload
    def sticky_singleton_acm(*, key: Key | None = None) -> _Decorator: ...


if TYPE_CHECKING:

    class _DecoratorWithValid(Generic[T]):
        """`sticky_singleton_acm` that waits for its factory; ``valid`` has to take the values that its results give."""

        @overload  # where ``valid`` takes any object, the factory keeps its type, with its overloads
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self: _DecoratorWithValid[object], factory: Callable[P, ACM[R]], /
        ) -> Callable[P, StickyACM[R]]: ...

        if not MYPY:

            @overload
            def __call__(  # pyright: ignore[reportOverlappingOverload]
                self: _DecoratorWithValid[object], factory: Callable[P, A], /
            ) -> Callable[P, _StickyACMOf[A]]: ...

        @overload
        def __call__(self, factory: ReturnsBoth[P, ACM[R], ACM[T]], /) -> Callable[P, StickyACM[R]]: ...
        def __call__(self, factory: Any, /) -> Any: ...


@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, ACM[T]], /
) -> Callable[P, StickyACM[T]]: ...
@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, ACM[T]], /, *, key: Key | None
) -> Callable[P, StickyACM[T]]: ...
@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, ACM[T]], /, *, key: Key | None = None, valid: Callable[[object], object] | None
) -> Callable[P, StickyACM[T]]: ...
@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    factory: Callable[P, ACM[T]], /, *, key: Key | None = None, valid: Callable[[T], object] | None
) -> Callable[P, StickyACM[T]]: ...
@overload
def sticky_singleton_acm(  # pyright: ignore[reportOverlappingOverload]
    *, key: Key | None = None
) -> Callable[[Callable[P, ACM[T]]], Callable[P, StickyACM[T]]]: ...
@overload
def sticky_singleton_acm(*, key: Key | None = None, valid: Callable[[T], object] | None) -> _DecoratorWithValid[T]: ...
def sticky_singleton_acm(factory: Any = _NOT_GIVEN, /, *, key: Any = None, valid: Any = None) -> Any:
    """Return a function whose calls give, per event loop and key, one `StickyACM` of what ``factory`` makes.

    ``async with make(...) as value`` enters it at the first block and returns the same value at every other, until the
    loop ends and exits it. Keys are as for `singleton`, ``key`` too. The factory runs at the first call, in the context in
    which its asynchronous context manager will be entered, held and exited.

    Two tasks that enter at once wait for the same entering; the last one that is cancelled cancels it. If it fails, all who
    wait get the error, and the next call makes and enters a new one; so it is, too, after it has died while it was held.
    Another loop has its own.

    ``valid`` is called with the value by each block that begins when the value is there already; blocks that wait for its
    entering do not ask. If it returns something false, the block gets a new value, as do all that begin afterwards, however
    many at once. Blocks that hold the old one go on with it; it is exited when the last of them is left, and nothing open uses
    it any more; what has asked again uses the new value alone. An error of ``valid`` is raised by the block, and changes
    nothing. Where ``valid`` itself runs such a block, that gets the value in question.

    :raises TypeError: if ``factory``, ``key`` or ``valid`` cannot be called, ``key`` or ``valid`` is a coroutine function, or
        ``factory`` is an async generator function without ``@contextlib.asynccontextmanager``. By the function: if an argument
        can be no part of a key, or if the factory returned no asynchronous context manager. By the block: if ``valid`` returned
        an awaitable.
    :raises RuntimeError: by the function: if no event loop is running. By the block: if it is needed, while it is being
        entered, by something that it needs itself.
    """

    def decorate(factory: Callable[..., ACM[Any]]) -> Any:
        def make(entry: CacheEntry) -> StickyACM[Any]:
            sticky = sticky_call(entry, wrapper)
            sticky.made(resource_made_by(entry.call_factory, exits=entry.exits, origin=sticky, where="sticky_singleton_acm()"))
            return sticky

        checked_acm_factory(factory, where="sticky_singleton_acm()")
        wrapper = wrapped(factory, make, where="sticky_singleton_acm", key=key, valid=valid)
        return wrapper

    return decorate if factory is _NOT_GIVEN else decorate(factory)
