"""The two shapes of an SDK in examples/sdk, on a real server: what they hold is closed with them, or with the loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import openai
import pytest
from examples.sdk.loop_transport import LoopTransport
from examples.sdk.per_loop_client import Client

import page_servers
from asyncio_loop_local import resources
from conftest import Run
from servers import LONGEST_WAIT, HttpServer

T = TypeVar("T")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Generator[HttpServer]:
    with HttpServer() as server:
        yield server


class ClientWithTransport:
    """An SDK that has been given its `http_client`."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, transport=LoopTransport())

    async def ask(self, path: str) -> str:
        return (await self._client.get(path)).text

    async def aclose(self) -> None:
        await self._client.aclose()


Sdk = Client | ClientWithTransport
NewSdk = Callable[[], Sdk]


@pytest.fixture(params=[Client, ClientWithTransport])
def new_sdk(request: pytest.FixtureRequest, server: HttpServer) -> NewSdk:
    """Makes an object of either shape."""
    return lambda: request.param(server.url)


def in_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> tuple[threading.Thread, Callable[[], T]]:
    """Start a loop in a thread; what is returned waits for its result."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(main())))
    thread.start()

    def result() -> T:
        thread.join(LONGEST_WAIT)
        return results[0]

    return thread, result


def test_made_before_any_loop_it_serves_one_after_the_other(run: Run, new_sdk: NewSdk, server: HttpServer) -> None:
    """Each loop has one connection for all its tasks in turn, and leaves none open."""
    sdk = new_sdk()

    async def main() -> list[str]:
        said = [await sdk.ask(f"/{number}") for number in range(3)]
        assert server.open_connections() == 1
        return said

    for _ in range(3):
        assert run(main()) == ["/0", "/1", "/2"]
        assert server.wait_until_all_closed()


def test_loops_of_many_threads_share_the_object_and_no_connection(new_sdk: NewSdk, server: HttpServer) -> None:
    """All are open at a time, and each is closed with its loop."""
    sdk = new_sdk()
    all_are_open = threading.Barrier(4)

    async def main(number: int) -> tuple[str, int]:
        said = await sdk.ask(f"/{number}")
        await asyncio.to_thread(all_are_open.wait, LONGEST_WAIT)
        opened = server.open_connections()
        await asyncio.to_thread(all_are_open.wait, LONGEST_WAIT)
        return said, opened

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(asyncio.run, map(main, range(4))))
    assert results == [(f"/{number}", 4) for number in range(4)]
    assert server.wait_until_all_closed()


def test_closing_it_closes_what_it_has_on_every_loop(new_sdk: NewSdk, server: HttpServer) -> None:
    """Here and in another thread, whose loop goes on."""
    sdk = new_sdk()
    asked, closed = threading.Event(), threading.Event()

    async def other() -> int:
        await sdk.ask("/other")
        asked.set()
        await asyncio.to_thread(closed.wait, LONGEST_WAIT)
        return len(resources())

    async def main() -> None:
        await sdk.ask("/here")
        await asyncio.to_thread(asked.wait, LONGEST_WAIT)
        assert server.open_connections() == 2
        await sdk.aclose()
        assert not resources()

    _, result = in_thread(other)
    try:
        asyncio.run(main())
        assert server.wait_until_all_closed()
    finally:
        closed.set()
    assert result() == 0


def test_a_dropped_object_is_gone_at_once_and_its_connections_soon(run: Run, new_sdk: NewSdk, server: HttpServer) -> None:
    """No loop keeps it alive; the loop goes on, and the server sees that the connection is closed."""

    async def main() -> None:
        sdk = new_sdk()
        assert await sdk.ask("/dropped") == "/dropped"
        assert len(resources()) == 1
        gone = weakref.ref(sdk)
        del sdk
        assert gone() is None
        assert await asyncio.to_thread(server.wait_until_all_closed)
        assert not resources()

    run(main())


def test_it_can_be_used_after_it_was_closed(server: HttpServer) -> None:
    """The next request makes a client again, or a transport. (An `httpx.AsyncClient` that was closed refuses by itself.)"""
    client, transport = Client(server.url), LoopTransport()

    async def main() -> None:
        for _ in range(2):
            assert await client.ask("/client") == "/client"
            response = await transport.handle_async_request(httpx.Request("GET", f"{server.url}/transport"))
            assert await response.aread() == b"/transport"
            await client.aclose()
            await transport.aclose()
            assert await asyncio.to_thread(server.wait_until_all_closed)

    asyncio.run(main())


def test_where_no_loop_runs_there_is_none() -> None:
    """One accessor raises an error, the other returns None; on a loop both give the same client."""
    client = Client("http://127.0.0.1", api_key="secret")
    assert client.client_or_none() is None
    with pytest.raises(RuntimeError, match="no running event loop"):
        assert client.client

    async def main() -> bool:
        assert client.client.headers["Authorization"] == "Bearer secret"
        return client.client is client.client_or_none()

    assert asyncio.run(main())


def test_its_block_closes_it(server: HttpServer) -> None:
    """`async with Client(…)` for those who want it closed before the loop ends."""

    async def main() -> None:
        async with Client(server.url) as client:
            assert await client.ask("/block") == "/block"
        assert await asyncio.to_thread(server.wait_until_all_closed)

    asyncio.run(main())


def test_an_sdk_that_takes_an_http_client_works_on_every_loop(run: Run) -> None:
    """One `AsyncOpenAI` for all loops and threads, with the transport in its `http_client`."""

    async def ask(question: str) -> str | None:
        answer = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": question}])
        assert len(resources()) == 1
        return answer.choices[0].message.content

    with page_servers.model_server() as url:
        http_client = httpx.AsyncClient(transport=LoopTransport())
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="secret", http_client=http_client)
        assert [run(ask(name)) for name in ("one", "two")] == ["You said: one", "You said: two"]
        assert in_thread(lambda: ask("three"))[1]() == "You said: three"


def test_the_page_shows_the_examples_as_they_are_and_they_are_short() -> None:
    """docs/how-to/sdk.md holds each file in full; each has less than 60 lines."""
    page = ROOT.joinpath("docs", "how-to", "sdk.md").read_text(encoding="utf-8")
    for path in sorted(ROOT.joinpath("examples", "sdk").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert f'```python title="{path.name}"\n{text}```\n' in page
        assert len(text.splitlines()) < 60
