"""Attaches the library to each new event loop of a process, as the variable FOREIGN_LOOPS says. A .pth file imports this.

Loops are of asyncio and of uvloop. With FOREIGN_LOOPS=resource, one sticky resource is opened on each as soon as it can run. A
loop of a class that only tests have (one with a mocked selector, say) is attached only.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

counts = {"attached": 0, "with a resource": 0}


def install(*, with_resource: bool) -> None:
    import asyncio  # noqa: PLC0415 # not where FOREIGN_LOOPS is not set, as in pip
    from collections.abc import AsyncGenerator  # noqa: PLC0415
    from contextlib import asynccontextmanager, suppress  # noqa: PLC0415

    from asyncio_loop_local import _cpython, _loop_state, sticky_singleton_acm  # noqa: PLC0415

    @sticky_singleton_acm
    @asynccontextmanager
    async def resource() -> AsyncGenerator[str]:
        yield "open"

    async def open_resource() -> None:
        async with resource():
            pass

    def attach(loop: asyncio.AbstractEventLoop) -> None:
        _loop_state._attached_to(loop)
        counts["attached"] += 1

    of_c = asyncio.get_running_loop

    def open_on(loop: asyncio.AbstractEventLoop) -> None:
        if asyncio.get_running_loop is not of_c:
            return  # tests of asyncio set that of Python in its place, which the library, like all C code, does not ask
        with _cpython.no_running_loop():  # a loop may be made while another one runs
            loop.run_until_complete(open_resource())
        counts["with a resource"] += 1

    after_init(asyncio.BaseEventLoop, attach)
    if with_resource:
        after_init(asyncio.SelectorEventLoop, open_on)
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415

        after_init(uvloop.Loop, attach)
        if with_resource:
            after_init(uvloop.Loop, open_on)


def after_init(kind: type[Any], act: Callable[[Any], None]) -> None:
    """Have each new instance of the class, and of its subclasses, given to the function."""
    init: Callable[..., None] = kind.__init__

    @functools.wraps(init)
    def init_and_act(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        act(self)

    kind.__init__ = init_and_act


if os.environ.get("FOREIGN_LOOPS", "bare") != "bare":
    install(with_resource=os.environ["FOREIGN_LOOPS"] == "resource")
