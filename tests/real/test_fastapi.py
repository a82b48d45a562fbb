"""FastAPI, on a loop of the user's and in its own test client; and why its lifespan has to end what it has opened."""

from __future__ import annotations

import asyncio
import signal
import sys
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
from shared_numbers import log, make_numbers, next_number


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")
@pytest.mark.parametrize("signalled", [signal.SIGTERM, signal.SIGINT])
def test_fact_a_worker_of_uvicorn_dies_before_its_loop_ends(signalled: signal.Signals, tmp_path: Path) -> None:
    """Why `aclose()` is needed: a worker raises its SIGTERM again after the shutdown, and dies of it before its loop ends."""
    write_app(
        tmp_path,
        """
        import asyncio
        from contextlib import asynccontextmanager
        from fastapi import FastAPI

        async def task_of_the_loop():
            try:
                await asyncio.Event().wait()
            finally:
                note("the loop ends")

        @asynccontextmanager
        async def lifespan(app):
            task = asyncio.create_task(task_of_the_loop())
            yield
            note("shutdown")

        app = FastAPI(lifespan=lifespan)

        @app.get("/{number}")
        async def worker(number: int):
            return [os.getpid()]
        """,
    )
    command = ("-m", "uvicorn", "app:app", "--workers=2", "--fd={fd}", "--log-level=warning")
    with server_process(tmp_path, *command) as server:
        workers = {worker for (worker,) in answers_of(server.url, 100, until=two_workers)}
        server.stop(signalled)
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
