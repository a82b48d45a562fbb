"""An SDK's client: made anywhere, before any loop runs too; used from many loops and threads."""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import Self

import httpx

from asyncio_loop_local import LoopVar


class Client:
    """Has one `httpx.AsyncClient` per event loop. It is closed with this object or with the loop, whichever ends first."""

    def __init__(self, base_url: str, *, api_key: str = "", timeout: float = 10) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        connect = partial(httpx.AsyncClient, base_url=base_url, headers=headers, timeout=timeout)
        self._clients = LoopVar("Client", factory=connect, close=httpx.AsyncClient.aclose)

    @property
    def client(self) -> httpx.AsyncClient:
        """The client of the running loop.

        :raises RuntimeError: if no event loop is running.
        """
        return self._clients.get()

    def client_or_none(self) -> httpx.AsyncClient | None:
        """Return the client of the running loop, or None where no loop runs."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        return self.client

    async def ask(self, path: str) -> str:
        """Return what the server says."""
        response = await self.client.get(path)
        return response.raise_for_status().text

    async def aclose(self) -> None:
        """Close the clients of all loops, each on its own; this object can be used afterwards."""
        await self._clients.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        await self.aclose()
