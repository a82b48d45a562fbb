"""The frameworks that make and end loops themselves: asgiref, aiohttp's server and uvicorn."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from aiohttp import ClientSession, web
from asgiref.sync import async_to_sync, sync_to_async

from asyncio_loop_local import atexit, sticky_singleton_acm, storage
from server_process import notes_of, server_process, write_app

log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


class Counter:
    """Counts its users."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> int:
        self.count += 1
        return self.count


@sticky_singleton_acm
@asynccontextmanager
async def make_counter() -> AsyncGenerator[Counter]:
    counter = Counter()
    log.append("enter")
    work: asyncio.Queue[str] = asyncio.Queue()

    async def write() -> None:
        while True:
            log.append(await work.get())
            work.task_done()

    writer = asyncio.create_task(write())
    yield counter
    await work.put(f"counted {counter.count}")
    await work.join()
    writer.cancel()
    log.append(await asyncio.to_thread(lambda: "exit"))


@sticky_singleton_acm
@asynccontextmanager
async def make_client(base_url: str) -> AsyncGenerator[ClientSession]:
    async with ClientSession(base_url) as client:
        yield client
    log.append("client closed")


async def count() -> int:
    async with make_counter() as counter:
        return counter.next()


# asgiref


def test_async_to_sync() -> None:
    """Each call of `asgiref`'s `async_to_sync`, which makes a loop for it, has its own resources, and ends them."""
    counted = async_to_sync(count)
    assert [counted() for _ in range(3)] == [1, 1, 1]
    assert log == ["enter", "counted 1", "exit"] * 3


def test_async_to_sync_after_an_error() -> None:
    """A call that raises ends them as well."""

    async def fail() -> None:
        await count()
        raise LookupError("of the call")

    with pytest.raises(LookupError, match="of the call"):
        async_to_sync(fail)()
    assert log == ["enter", "counted 1", "exit"]


def test_async_to_sync_inside_an_async_application() -> None:
    """Sync code in an asynchronous application that calls back into it by `async_to_sync` shares that application's resources."""

    def view() -> int:
        return async_to_sync(count)()

    async def main() -> list[int]:
        return [await count(), await sync_to_async(view)(), await count()]

    assert asyncio.run(main()) == [1, 2, 3]
    assert log == ["enter", "counted 3", "exit"]


def test_async_to_sync_in_many_threads() -> None:
    """Threads that call at the same time, as Flask's, Django's and Celery's do, share nothing and lose nothing."""
    together = threading.Barrier(4)
    results: list[int] = []

    async def two() -> list[int]:
        first = await count()
        together.wait()
        return [first, await count()]

    def work() -> None:
        results.extend(async_to_sync(two)())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1, 2] * 4
    assert {line: log.count(line) for line in log} == {"enter": 4, "counted 2": 4, "exit": 4}


# aiohttp


@contextmanager
def running(target: Callable[[], object]) -> Generator[threading.Thread]:
    """Runs a server in a thread, and lets no error of it go unseen."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(50)
    assert not thread.is_alive()
    assert errors == []


def bound_socket() -> socket.socket:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


def url_of(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_aiohttp_run_app() -> None:
    """Requests to an `aiohttp` server share a resource, which is there for its clean-up, too, and ends with `run_app`."""
    bound = bound_socket()
    url = url_of(bound)
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def counted(_request: web.Request) -> web.Response:
        return web.json_response(await count())

    async def relayed(_request: web.Request) -> web.Response:
        async with make_client(url) as client, client.get("/counted") as answer:
            return web.json_response(await answer.json())

    async def on_startup(app: web.Application) -> None:
        loop = asyncio.get_running_loop()

        def leave() -> None:
            raise web.GracefulExit

        stop.append(lambda: loop.call_soon_threadsafe(leave))
        loop.call_soon(started.set)

    async def on_cleanup(_app: web.Application) -> None:
        log.append(f"cleanup {await count()}")

    app = web.Application()
    app.add_routes([web.get("/counted", counted), web.get("/relayed", relayed)])
    app.on_startup.append(on_startup)
    app.on_cleanup.append(on_cleanup)

    def serve() -> None:
        loop = asyncio.new_event_loop()
        web.run_app(app, sock=bound, handle_signals=False, print=None, loop=loop)
        assert loop.is_closed()

    with running(serve):
        try:
            assert started.wait(30)
            with httpx.Client(base_url=url, trust_env=False) as client:
                numbers = [client.get(path).json() for path in ("/counted", "/relayed", "/counted", "/relayed")]
                assert log == ["enter"]
        finally:
            for leave in stop:
                leave()
    bound.close()
    assert numbers == [1, 2, 3, 4]
    assert log == ["enter", "cleanup 5", "client closed", "counted 5", "exit"]


# uvicorn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each request with its number, and counts its own shutdown."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        log.append(f"shutdown {await count()}")
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps(await count()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_server_in_a_thread(loop: str) -> None:
    """Requests to a `uvicorn.Server` in a thread share a resource, which is there for the shutdown, too, and ends with it."""
    bound = bound_socket()
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    config = uvicorn.Config(asgi_app, loop=loop, lifespan="on", log_config=None)
    server = Server(config)
    with running(lambda: server.run(sockets=[bound])):
        try:
            assert started.wait(30)
            with httpx.Client(base_url=url_of(bound), trust_env=False) as client:
                numbers = [client.get("/").json() for _ in range(3)]
                assert log == ["enter"]
        finally:
            server.should_exit = True
    assert numbers == [1, 2, 3]
    assert log == ["enter", "shutdown 4", "counted 4", "exit"]


def test_uvicorn_serve_in_a_loop_of_ones_own() -> None:
    """`await server.serve()` shares the resources of the loop that it is awaited on, and leaves them open when it ends."""
    bound = bound_socket()
    bound.listen()  # the request waits in it until the server is there

    async def main() -> list[int]:
        first = await count()
        server = uvicorn.Server(uvicorn.Config(asgi_app, lifespan="on", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        async with make_client(url_of(bound)) as client, client.get("/") as answer:
            second = await answer.json()
        server.should_exit = True
        await serving
        assert log == ["enter", "shutdown 3"]
        return [first, second, await count()]

    assert asyncio.run(main()) == [1, 2, 4]
    assert log == ["enter", "shutdown 3", "client closed", "counted 4", "exit"]


WAYS_TO_STOP = {
    # A SIGINT comes to the runner of the loop as a KeyboardInterrupt.
    "SIGINT": (signal.SIGINT, "", 0),
    # A SIGTERM uvicorn raises again before its loop ends, so that by default the process dies at once.
    "SIGTERM, aclose() at the shutdown": (signal.SIGTERM, "at_shutdown = aclose", -signal.SIGTERM),
    "SIGTERM, with a handler": (signal.SIGTERM, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
}


UVICORN = """
    import asyncio, signal, sys
    from contextlib import asynccontextmanager
    import uvicorn
    from asyncio_loop_local import aclose, sticky_singleton_acm

    @sticky_singleton_acm
    @asynccontextmanager
    async def make():
        note("enter")
        yield iter(range(1, 100))
        note(await asyncio.to_thread(lambda: "exit"))

    async def at_shutdown():
        pass

    SETTING

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await at_shutdown()
            await send({"type": "lifespan.shutdown.complete"})
            return
        async with make() as numbers:
            body = str(next(numbers)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    fd, loop = sys.argv[1:]
    uvicorn.run(app, fd=int(fd), loop=loop, lifespan="on", log_level="warning")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("way", list(WAYS_TO_STOP))
def test_uvicorn_in_a_process(loop: str, way: str, tmp_path: Path) -> None:
    """A `uvicorn` process that is told to stop ends the resources of its loop before it ends itself."""
    told, setting, status = WAYS_TO_STOP[way]
    write_app(tmp_path, UVICORN.replace("SETTING", setting))
    with server_process(tmp_path, "app.py", "{fd}", loop) as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]
        assert server.stop(told) == status
    (notes,) = notes_of(tmp_path).values()
    assert notes == ["enter", "exit"]
    assert server.complaints == []


# Loops for one call each


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
