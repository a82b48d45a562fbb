"""How many different calls of a wrapped factory some calls are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from asyncio_loop_local import singleton, sticky_singleton_acm

T = TypeVar("T")
Written = tuple[tuple[Any, ...], dict[str, Any]]


def call(*args: Any, **kwargs: Any) -> Written:
    """A call, as it is written."""
    return args, kwargs


def on_a_loop(what: Callable[[], T]) -> T:
    async def main() -> T:
        return what()

    return asyncio.run(main())


class Count(Protocol):
    """How many calls of a wrapped factory these are."""

    def __call__(self, factory: Callable[..., Any], /, *calls: Written) -> int: ...


def counting(wrap: Callable[[Callable[..., Any]], Callable[..., object]]) -> Count:
    def count(factory: Callable[..., Any], /, *calls: Written) -> int:
        make = wrap(factory)

        def all_twice() -> int:
            values = [make(*args, **kwargs) for args, kwargs in calls]
            for value, (args, kwargs) in zip(values, calls, strict=True):
                assert make(*args, **kwargs) is value
            return len({id(value) for value in values})

        return on_a_loop(all_twice)

    return count


COUNTS: dict[str, Count] = {"singleton": counting(singleton), "sticky_singleton_acm": counting(sticky_singleton_acm)}
