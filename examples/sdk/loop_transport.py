"""A transport for clients that other people's code makes once, and uses on any loop: what SDKs take as ``http_client=``."""

from __future__ import annotations

from collections.abc import Callable

import httpx2 as httpx

from asyncio_loop_local import LoopVar


class LoopTransport(httpx.AsyncBaseTransport):
    """Sends each request by a transport of the running loop, which is closed with that loop, or with this one.

    ``client = httpx.AsyncClient(transport=LoopTransport())`` may be made before any loop runs, and shared by loops and threads.
    """

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport] = httpx.AsyncHTTPTransport) -> None:
        """Take what makes a transport for a loop: ``lambda: httpx.AsyncHTTPTransport(http2=True)``, say."""
        self._transports = LoopVar("LoopTransport", factory=make, close=lambda transport: transport.aclose())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it on the running loop."""
        return await self._transports.get().handle_async_request(request)

    async def aclose(self) -> None:
        """Close the transports of all loops, each on its own; the client that has this one calls this."""
        await self._transports.aclose()
