"""The lifespan of an ASGI application, or of anything else, at whose end everything of its loop ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ._aclose import aclose

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
async def lifespan(_app: object = None, /) -> AsyncGenerator[None]:
    """Return an asynchronous context manager that calls `aclose` when its block is left, in whichever way.

    It takes the application, and ignores it, so that frameworks take it as it is: ``FastAPI(lifespan=lifespan)``, Starlette,
    Litestar (``lifespan=[lifespan]``), FastMCP. In a lifespan of your own, write ``async with lifespan():`` around the ``yield``.
    A server that handles SIGTERM leaves the lifespan before its process dies, so everything is closed then.

    What is open on the loop ends, whoever has opened it, as with `aclose`; nothing begins when the block does. Two such blocks
    on one loop: the first that is left ends everything, and what is opened afterwards ends with the second, or the loop. If the
    block is cancelled, everything ends all the same; a second cancellation, during the exits, leaves the rest to the loop's end.

    :raises ExceptionGroup: when the block is left, with the errors of the exits.
    :raises RuntimeError: if no event loop is running, or where `aclose` may not be called.
    """
    try:
        yield
    finally:
        await aclose()
