"""The frameworks that make and end loops themselves: asgiref and uvicorn."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from asgiref.sync import async_to_sync, sync_to_async

from asyncio_loop_local import atexit, storage
from server_process import LIFESPAN, SESSION, answers_of, notes_of, server_process, write_app
from servers import LONGEST_WAIT, HttpServer
from shared_numbers import log, next_number


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


# asgiref


def test_async_to_sync() -> None:
    """Each call of `asgiref`'s `async_to_sync`, which makes a loop for it, has its own resources, and ends them."""
    counted = async_to_sync(next_number)
    assert [counted() for _ in range(3)] == [0, 0, 0]
    assert log == ["opened", "closed"] * 3


def test_async_to_sync_after_an_error() -> None:
    """A call that raises ends them as well."""

    async def fail() -> None:
        await next_number()
        raise LookupError("of the call")

    with pytest.raises(LookupError, match="of the call"):
        async_to_sync(fail)()
    assert log == ["opened", "closed"]


def test_async_to_sync_inside_an_async_application() -> None:
    """Sync code in an asynchronous application that calls back into it by `async_to_sync` shares that application's resources."""

    async def main() -> list[int]:
        return [await next_number(), await sync_to_async(async_to_sync(next_number))(), await next_number()]

    assert asyncio.run(main()) == [0, 1, 2]
    assert log == ["opened", "closed"]


def test_async_to_sync_in_many_threads() -> None:
    """Threads that call at the same time, as Flask's, Django's and Celery's do, share nothing and lose nothing."""
    together = threading.Barrier(4)

    async def two() -> list[int]:
        first = await next_number()
        together.wait(LONGEST_WAIT)
        return [first, await next_number()]

    def call(_number: int) -> list[int]:
        return async_to_sync(two)()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, range(4))) == [[0, 1]] * 4
    assert Counter(log) == {"opened": 4, "closed": 4}


def test_a_thousand_loops_for_one_call_each() -> None:
    """A thousand loops for one call each have a storage of their own, and run what was registered, once each."""
    ended: list[int] = []

    async def call(number: int) -> bool:
        fresh = "number" not in storage()
        storage()["number"] = number
        atexit.register(ended.append, number)
        return fresh

    called = async_to_sync(call)
    assert all(called(number) for number in range(1000))
    assert ended == list(range(1000))


# uvicorn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each request with its number, and takes one more number at its shutdown."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        log.append(f"shutdown {await next_number()}")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(await next_number()).encode()})


def bound_socket() -> tuple[socket.socket, str]:
    """A socket for a server, and its URL; requests wait in it until the server is there."""
    bound = socket.create_server(("127.0.0.1", 0))
    return bound, f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_server_in_a_thread(loop: str) -> None:
    """Requests to a `uvicorn.Server` in a thread share a resource, which is open for the shutdown, too, and ends with it."""
    bound, url = bound_socket()
    server = uvicorn.Server(uvicorn.Config(asgi_app, loop=loop, lifespan="on", log_config=None))
    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(server.run, sockets=[bound])
        try:
            with httpx.Client(base_url=url, trust_env=False, timeout=LONGEST_WAIT) as client:
                assert [client.get("/").json() for _ in range(3)] == [0, 1, 2]
                assert log == ["opened"]
        finally:
            server.should_exit = True
        serving.result(LONGEST_WAIT)
    assert log == ["opened", "shutdown 3", "closed"]


def test_uvicorn_serve_in_a_loop_of_ones_own() -> None:
    """`await server.serve()` shares the resources of the loop that it is awaited on, and leaves them open when it ends."""
    bound, url = bound_socket()

    async def main() -> list[int]:
        first = await next_number()
        server = uvicorn.Server(uvicorn.Config(asgi_app, lifespan="on", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            second = (await client.get("/")).json()
        server.should_exit = True
        await serving
        assert log == ["opened", "shutdown 2"]
        return [first, second, await next_number()]

    assert asyncio.run(main()) == [0, 1, 3]
    assert log == ["opened", "shutdown 2", "closed"]


WAYS_TO_STOP = {
    # A SIGINT comes to the runner of the loop as a KeyboardInterrupt.
    "SIGINT": (signal.SIGINT, "", 0),
    # A SIGTERM uvicorn raises again before its loop ends, so that by default the process dies at once.
    "SIGTERM, aclose() at the shutdown": (signal.SIGTERM, "app = with_lifespan(app)", -signal.SIGTERM),
    "SIGTERM, with a handler": (signal.SIGTERM, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
}
UVICORN = """
    import json, signal, sys
    import uvicorn

    async def app(scope, receive, send):
        if scope["type"] == "http":
            body = json.dumps(await fetch(scope["path"])).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": body})

    SETTING
    fd, loop = sys.argv[1:]
    uvicorn.run(app, fd=int(fd), loop=loop, log_level="warning")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("way", list(WAYS_TO_STOP))
def test_uvicorn_in_a_process(loop: str, way: str, tmp_path: Path) -> None:
    """A `uvicorn` process that gets a signal ends the resources of its loop before it ends itself."""
    signalled, setting, status = WAYS_TO_STOP[way]
    write_app(tmp_path, SESSION, LIFESPAN, UVICORN.replace("SETTING", setting))
    with HttpServer() as upstream, server_process(tmp_path, "app.py", "{fd}", loop, UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 100)
        assert server.stop(signalled) == status
        assert upstream.wait_until_all_closed()
    assert answers == [f"/{number}" for number in range(100)]
    assert list(notes_of(tmp_path).values()) == [["opened", "closed", *["shutdown ends"] * ("aclose" in way)]]
    assert server.complaints == []
