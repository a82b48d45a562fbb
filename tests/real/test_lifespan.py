"""`lifespan`, as frameworks take it, under servers in processes of their own that are stopped by a signal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient as FastAPIClient
from litestar import Litestar, get
from litestar.testing import TestClient as LitestarClient
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp.shared.memory import create_client_server_memory_streams
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asyncio_loop_local import lifespan
from server_process import notes_of_workers
from shared_numbers import log, next_number

FASTAPI = """
    from fastapi import FastAPI
    from asyncio_loop_local import lifespan

    app = FastAPI(lifespan=lifespan)

    @app.get("/{number}")
    async def relay(number: int):
        return os.getpid(), await fetch(f"/{number}")
"""

STARLETTE = """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from asyncio_loop_local import lifespan

    async def relay(request):
        return JSONResponse([os.getpid(), await fetch(request.url.path)])

    app = Starlette(lifespan=lifespan, routes=[Route("/{number}", relay)])
"""

LITESTAR = """
    from litestar import Litestar, get
    from asyncio_loop_local import lifespan

    @get("/{number:int}")
    async def relay(number: int) -> list[int | str]:
        return [os.getpid(), await fetch(f"/{number}")]

    app = Litestar([relay], lifespan=[lifespan])
"""

FAST_MCP = """
    from mcp.server import MCPServer
    from starlette.responses import JSONResponse
    from asyncio_loop_local import lifespan

    server = MCPServer("relay", lifespan=lifespan, log_level="CRITICAL")

    @server.custom_route("/{number}", methods=["GET"])
    async def relay(request):
        return JSONResponse([os.getpid(), await fetch(request.url.path)])

    app = server.streamable_http_app()
"""

ONE_OF_ONES_OWN = """
    from contextlib import asynccontextmanager
    from fastapi import FastAPI
    from asyncio_loop_local import lifespan

    @asynccontextmanager
    async def own(app):
        async with lifespan():
            note(await fetch("/startup"))
            yield
            note(await fetch("/shutdown"))
        note("end")

    app = FastAPI(lifespan=own)

    @app.get("/{number}")
    async def relay(number: int):
        return os.getpid(), await fetch(f"/{number}")
"""

APPS = {"FastAPI": FASTAPI, "Starlette": STARLETTE, "Litestar": LITESTAR, "FastMCP": FAST_MCP}
UVICORN = ("-m", "uvicorn", "app:app", "--fd={fd}", "--log-level=warning")
GUNICORN = ("-m", "gunicorn", "app:app", "--bind=fd://{fd}", "--worker-class=uvicorn_worker.UvicornWorker", "--log-level=warning")

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")


@posix_only
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("app", "signalled"), [*((app, signal.SIGTERM) for app in APPS), ("FastAPI", signal.SIGINT)])
def test_under_uvicorn(app: str, signalled: signal.Signals, workers: int, tmp_path: Path) -> None:
    """What each worker has opened is closed before it dies of the signal, with one worker and with two."""
    command = UVICORN if workers == 1 else (*UVICORN, "--workers=2")
    notes = notes_of_workers(tmp_path, APPS[app], command=command, workers=workers, signalled=signalled)
    assert notes == [["opened", "closed"]] * workers


@posix_only
@pytest.mark.parametrize("workers", [1, 2])
def test_under_gunicorn(workers: int, tmp_path: Path) -> None:
    """So it is in a worker of gunicorn's that runs uvicorn, which gunicorn stops."""
    command = (*GUNICORN, f"--workers={workers}")
    notes = notes_of_workers(tmp_path, FASTAPI, command=command, workers=workers, signalled=signal.SIGTERM)
    assert notes == [["opened", "closed"]] * workers


@posix_only
def test_a_lifespan_of_ones_own(tmp_path: Path) -> None:
    """In a block of a lifespan of one's own everything is open, before and after the ``yield``; it is closed after that."""
    notes = notes_of_workers(tmp_path, ONE_OF_ONES_OWN, command=UVICORN, signalled=signal.SIGTERM)
    assert notes == [["opened", "/startup", "/shutdown", "closed", "end"]]


# In one process.


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


async def number(_: Request) -> JSONResponse:
    return JSONResponse(await next_number())


def test_the_test_client_of_starlette() -> None:
    """`with TestClient(app)` closes at the end of its block what its requests have opened."""
    with TestClient(Starlette(lifespan=lifespan, routes=[Route("/", number)])) as client:
        assert [client.get("/").json() for _ in range(3)] == [0, 1, 2]
        assert log == ["opened"]
    assert log == ["opened", "closed"]


def test_the_test_client_of_fastapi_and_two_applications_on_one_loop() -> None:
    """An application that is mounted in another leaves its lifespan to that one, so all is closed once, at the end."""
    app = FastAPI(lifespan=lifespan)
    app.mount("/mounted", Starlette(lifespan=lifespan, routes=[Route("/", number)]))
    app.add_route("/", number)
    with FastAPIClient(app) as client:
        assert [client.get(path).json() for path in ("/", "/mounted/", "/")] == [0, 1, 2]
    assert log == ["opened", "closed"]


def test_the_test_client_of_litestar() -> None:
    """Litestar takes a list of lifespans; others in it find everything open until the last of them, the first, is left."""

    @asynccontextmanager
    async def inner(_: Litestar) -> AsyncGenerator[None]:
        yield
        log.append(f"inner {await next_number()}")

    @get("/")
    async def next_one() -> int:
        return await next_number()

    with LitestarClient(Litestar([next_one], lifespan=[lifespan, inner])) as client:
        assert [client.get("/").json() for _ in range(3)] == [0, 1, 2]
    assert log == ["opened", "inner 3", "closed"]


@pytest.mark.asyncio
async def test_the_servers_of_mcp() -> None:
    """`MCPServer`, and the server below it, take it: what tools have opened is closed when the session manager ends."""
    for server in (MCPServer("high", lifespan=lifespan), Server("low", lifespan=lifespan)):
        app: Any = server.streamable_http_app()
        async with app.router.lifespan_context(app):
            assert await next_number() == 0
            assert log == ["opened"]
        assert log == ["opened", "closed"]
        log.clear()


@pytest.mark.asyncio
async def test_fact_a_server_of_mcp_enters_its_lifespan_for_each_connection_that_it_is_run_for() -> None:
    """Why it is not for SSE, where each connection is a run: the end of one connection closes what the others use."""
    server = Server[None]("low", lifespan=lifespan)
    async with create_client_server_memory_streams() as (_, (read, write)):
        running = asyncio.create_task(server.run(read, write, server.create_initialization_options()))
        async with create_client_server_memory_streams() as (other_client, other_server):
            other = asyncio.create_task(server.run(*other_server, server.create_initialization_options()))
            assert await next_number() == 0
            await other_client[1].aclose()
            await other
        assert log == ["opened", "closed"]
        assert not running.done()
    await running


def test_it_gives_no_state() -> None:
    """Frameworks that take state from a lifespan find none."""

    async def state(request: Request) -> JSONResponse:
        return JSONResponse(json.dumps(request.scope.get("state", {})))

    with TestClient(Starlette(lifespan=lifespan, routes=[Route("/", state)])) as client:
        assert json.loads(client.get("/").json()) == {}
