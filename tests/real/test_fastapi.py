"""FastAPI: under `uvicorn` with several workers, in a loop of the user's, and in its own test client."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from conftest import Run
from server_process import answers_of, notes_of, server_process, two_workers, write_app
from servers import HttpServer
from shared_numbers import log, make_numbers, next_number

APP = """
    import asyncio
    from contextlib import asynccontextmanager
    from typing import Annotated

    from aiohttp import ClientSession
    from fastapi import Depends, FastAPI

    from asyncio_loop_local import aclose, sticky_singleton_acm

    sessions = set()
    make_session = sticky_singleton_acm(ClientSession)

    @sticky_singleton_acm
    @asynccontextmanager
    async def make_client():
        note("opened")
        async with make_session(os.environ["UPSTREAM"]) as session:
            yield session
        note(await asyncio.to_thread(lambda: "closed"))

    async def session_of_the_loop():
        async with make_client() as session:
            sessions.add(session)
            yield session

    @asynccontextmanager
    async def lifespan(app):
        yield
        note(f"shutdown, {len(sessions)} session")
        AT_SHUTDOWN
        note(f"{sum(session.closed for session in sessions)} session closed")

    app = FastAPI(lifespan=lifespan)

    @app.get("/{number}")
    async def relay(number: int, session: Annotated[ClientSession, Depends(session_of_the_loop)]):
        async with session.get(f"/{number}") as response:
            return os.getpid(), id(asyncio.get_running_loop()), id(session), await response.text()
"""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")


@posix_only
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_two_workers_of_uvicorn(told: signal.Signals, loop: str, tmp_path: Path) -> None:
    """Each worker opens once for hundreds of concurrent requests, and closes at its shutdown, which awaits `aclose()`."""
    write_app(tmp_path, APP.replace("AT_SHUTDOWN", "await aclose()"))
    command = ("-m", "uvicorn", "app:app", "--workers=2", "--fd={fd}", f"--loop={loop}", "--log-level=warning")
    with HttpServer() as upstream, server_process(tmp_path, *command, UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 400, until=two_workers)
        status = server.stop(told)
        assert upstream.wait_until_all_closed()
        relayed = Counter(upstream.paths)
    assert [text for *_, text in answers] == [f"/{number}" for number in range(len(answers))]
    assert relayed == Counter(text for *_, text in answers)
    workers = {worker for worker, *_ in answers}
    assert len({(worker, loop, session) for worker, loop, session, _ in answers}) == len(workers) == 2
    notes = notes_of(tmp_path)
    assert notes.keys() == workers
    assert all(noted == ["opened", "shutdown, 1 session", "closed", "1 session closed"] for noted in notes.values())
    assert status == 0
    assert server.complaints == []


@posix_only
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_fact_a_worker_of_uvicorn_dies_before_its_loop_ends(told: signal.Signals, tmp_path: Path) -> None:
    """Why `aclose()` is needed: a worker raises its SIGTERM again after the shutdown, and dies of it before its loop ends."""
    write_app(
        tmp_path,
        """
        import asyncio

        async def task_of_the_loop():
            try:
                await asyncio.Event().wait()
            finally:
                note("the loop ends")

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                task = asyncio.create_task(task_of_the_loop())
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                note("shutdown")
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": f"[{os.getpid()}]".encode()})
        """,
    )
    command = ("-m", "uvicorn", "app:app", "--workers=2", "--fd={fd}", "--log-level=warning")
    with server_process(tmp_path, *command) as server:
        workers = {worker for (worker,) in answers_of(server.url, 100, until=two_workers)}
        server.stop(told)
    assert notes_of(tmp_path) == {worker: ["shutdown"] for worker in workers}


# In one process


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


async def numbers_of_the_loop() -> AsyncGenerator[Iterator[int]]:
    async with make_numbers() as numbers:
        yield numbers


Numbers = Annotated[Iterator[int], Depends(numbers_of_the_loop)]


async def log_number(what: str) -> None:
    log.append(f"{what} {await next_number()}")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    await log_number("startup")
    yield
    await log_number("shutdown")


app = FastAPI(lifespan=lifespan)


@app.get("/number")
async def number(numbers: Numbers) -> int:
    return next(numbers)


@app.get("/background")
async def background(tasks: BackgroundTasks) -> None:
    tasks.add_task(log_number, "background")


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def digits() -> AsyncGenerator[str]:
        for _ in range(3):
            yield f"{await next_number()} "

    return StreamingResponse(digits())


def test_requests_on_a_loop_of_ones_own(run: Run) -> None:
    """Hundreds of concurrent requests, their dependencies, streams and background tasks share what the loop opened once."""

    async def main() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            answers = await asyncio.gather(*(client.get("/number") for _ in range(200)))
            await client.get("/background")
            assert (await client.get("/stream")).text == "201 202 203 "
        return [answer.json() for answer in answers]

    assert sorted(run(main())) == list(range(200))
    assert log == ["opened", "background 200", "closed"]


def test_the_test_client_with_a_lifespan() -> None:
    """`with TestClient(app)` has one loop for the lifespan and all requests, opens once, and closes at the block's end."""
    with TestClient(app) as client:
        assert [client.get("/number").json() for _ in range(20)] == list(range(1, 21))
        assert log == ["opened", "startup 0"]
    assert log == ["opened", "startup 0", "shutdown 21", "closed"]


def test_the_test_client_without_a_lifespan() -> None:
    """A bare `TestClient(app)` has a loop for each request, which opens and closes its own."""
    client = TestClient(app)
    assert [client.get("/number").json() for _ in range(20)] == [0] * 20
    assert log == ["opened", "closed"] * 20
