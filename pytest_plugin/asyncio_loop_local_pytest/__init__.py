"""The pytest plugin of asyncio-loop-local: a fixture to replace what is shared on loops, and a check of what tests leave open.

pytest loads it by its entry point. The fixture ``loop_local_override`` is always there. The check is off by default;
``--loop-local``, or ``loop_local`` in the configuration, switches it on. Until one of the two is used, the library is not even
imported. ``_watch`` has the checks.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asyncio_loop_local import StickyACM
    from asyncio_loop_local._typing import ACM, NoFunction


__all__ = ["LoopLocalOverride", "loop_local_override", "pytest_addoption", "pytest_configure"]

P = ParamSpec("P")
T = TypeVar("T")

_MODES = ("fail", "list", "off")


class LoopLocalOverride(Protocol):
    """The value of the fixture ``loop_local_override``: `asyncio_loop_local.override`, until the end of the test."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, factory: Callable[P, T], replacement: Callable[P, T] | NoFunction, /
    ) -> None: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, factory: Callable[P, StickyACM[T]], replacement: Callable[P, ACM[T]] | NoFunction, /
    ) -> None: ...


@pytest.fixture
def loop_local_override() -> Generator[LoopLocalOverride]:
    """Have calls of a wrapped factory make from another one until the test ends: ``loop_local_override(factory, replacement)``.

    It takes what ``asyncio_loop_local.override`` takes, and may be called any number of times. At the end of the test all is
    undone, the last first. What the replacement has made exits then, at the next turn of the loop if that goes on.
    """
    from asyncio_loop_local import override  # noqa: PLC0415  # only a test that uses the fixture imports the library

    with ExitStack() as stack:

        def begin(factory: Any, replacement: Any, /) -> None:
            stack.enter_context(override(factory, replacement))  # pyright: ignore[reportUnknownArgumentType]  # it is any of them

        yield begin


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line option and the configuration option."""
    text = "what to do with a test that leaves a loop-local resource open on its event loop: fail it, list it, or nothing"
    parser.getgroup("loop-local").addoption("--loop-local", choices=_MODES, default=None, help=text)
    parser.addini("loop_local", f"{text} (fail, list or off; default: off)", default="off")


def pytest_configure(config: pytest.Config) -> None:
    """Register the checks if they are switched on."""
    mode = config.getoption("--loop-local") or config.getini("loop_local")
    if mode not in _MODES:
        raise pytest.UsageError(f"loop_local = {mode}: write fail, list or off")
    if mode != "off":
        from ._watch import Watch  # noqa: PLC0415  # it imports the library, which must not happen while the plugin is off

        config.pluginmanager.register(Watch(fails=mode == "fail"), "asyncio_loop_local_watch")
