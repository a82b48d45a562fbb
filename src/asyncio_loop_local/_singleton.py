"""The result of a function, once per loop and key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ._calls import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._calls import Call

P = ParamSpec("P")
T = TypeVar("T")


@overload
def singleton(factory: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def singleton() -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def singleton(factory: Any = None, /) -> Any:
    """Return a function that calls ``factory`` once per event loop and key, and returns its result from then on.

    The result lives until its loop ends, and is then let go; nothing closes it. Equal arguments are one key, however they
    are written; dicts, lists, sets and objects that compare by value count by what they hold at the time of the call.

    The factory runs in the first caller's task; an error of it is raised and not remembered. On another loop it runs
    anew. The function has the factory's name, documentation and signature, and binds as a method where a function would.

    :raises TypeError: if ``factory`` cannot be called. By the function: if an argument can be no part of a key.
    :raises RuntimeError: by the function: if no event loop is running.
    """

    def decorate(factory: Callable[..., Any]) -> Any:
        def make(call: Call) -> Any:
            return factory(*call.args, **call.kwargs)

        return wrapped(factory, make, None, where="singleton")

    return decorate if factory is None else decorate(factory)
