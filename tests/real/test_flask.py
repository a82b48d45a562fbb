"""Flask: async views, which run on a loop for each call under WSGI, and on the server's loop under ASGI."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask

from asyncio_loop_local import sticky_singleton_acm
from conftest import Run
from server_process import LIFESPAN, WSGI_SERVER, answers_of, notes_of, server_process, two_workers, write_app
from servers import HttpServer

log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


@sticky_singleton_acm
@asynccontextmanager
async def make_numbers() -> AsyncGenerator[Iterator[int]]:
    log.append("opened")
    yield count()
    log.append(await asyncio.to_thread(lambda: "closed"))


async def next_number() -> int:
    async with make_numbers() as numbers:
        return next(numbers)


async def two_numbers() -> list[int]:
    return [await next_number(), await next_number()]


async def forbid() -> None:
    await next_number()


async def fail() -> list[int]:
    await next_number()
    raise LookupError("of the view")


def new_app() -> Flask:
    app = Flask("app")
    app.add_url_rule("/", view_func=two_numbers)
    app.add_url_rule("/fail", view_func=fail)
    return app


def test_a_request_under_wsgi() -> None:
    """Each request to an async view has a loop of its own, and on it one of each resource, closed before the answer."""
    with new_app().test_client() as client:
        for number in range(1, 101):
            assert client.get("/").json == [0, 1]
            assert log == ["opened", "closed"] * number


def test_a_request_that_fails_under_wsgi() -> None:
    """A view that raises closes what it has used, too."""
    with new_app().test_client() as client:
        assert client.get("/fail").status_code == 500
    assert log == ["opened", "closed"]


def test_each_async_function_of_a_request_under_wsgi() -> None:
    """Flask runs an async `before_request` on a loop of its own, which is another one than the view's."""
    app = new_app()
    app.before_request(forbid)
    with app.test_client() as client:
        assert client.get("/").json == [0, 1]
    assert log == ["opened", "closed"] * 2


def test_many_requests_under_asgi(run: Run) -> None:
    """Under ASGI, concurrent requests, with all their async functions, share what the server's loop has opened once."""
    app = new_app()
    app.before_request(forbid)
    to_asgi: Any = WsgiToAsgi  # it has no types

    async def main() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(to_asgi(app)), base_url="http://app") as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(100)))
        return [number for answer in answers for number in answer.json()]

    numbers = run(main())
    assert len(set(numbers)) == len(numbers) == 200
    assert max(numbers) == 299
    assert log == ["opened", "closed"]


APP = """
    import asyncio
    from contextlib import asynccontextmanager

    from aiohttp import ClientSession
    from asgiref.wsgi import WsgiToAsgi
    from flask import Flask

    from asyncio_loop_local import sticky_singleton_acm

    @sticky_singleton_acm
    @asynccontextmanager
    async def make_session():
        note("opened")
        async with ClientSession(os.environ["UPSTREAM"]) as session:
            yield session
        note(await asyncio.to_thread(lambda: "closed"))

    async def fetch(path):
        async with make_session() as session, session.get(path) as answer:
            return await answer.text()

    wsgi = Flask(__name__)

    @wsgi.get("/<int:number>")
    async def relay(number):
        return [os.getpid(), await fetch(f"/{number}"), await fetch(f"/{number}")]

    asgi = with_lifespan(WsgiToAsgi(wsgi))
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")


def test_a_wsgi_server_with_threads(tmp_path: Path) -> None:
    """Requests in many threads at a time: each has a session of its own for all its fetches, and closes it."""
    write_app(tmp_path, LIFESPAN, APP)
    (tmp_path / "serve.py").write_text(WSGI_SERVER)
    with HttpServer() as upstream, server_process(tmp_path, "serve.py", "{fd}", UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 200)
        assert upstream.wait_until_all_closed()
        status = server.stop(signal.SIGINT)
    assert [tuple(texts) for _, *texts in answers] == [(f"/{number}", f"/{number}") for number in range(200)]
    assert len(upstream.requests) == 400
    (notes,) = notes_of(tmp_path).values()
    assert (notes.count("opened"), notes.count("closed"), len(notes)) == (200, 200, 400)
    assert status == 0
    assert server.complaints == []


def test_two_asgi_workers(tmp_path: Path) -> None:
    """Each worker of `uvicorn` opens one session for its requests, and closes it at its shutdown, which awaits `aclose()`."""
    write_app(tmp_path, LIFESPAN, APP)
    command = ("-m", "uvicorn", "app:asgi", "--workers=2", "--fd={fd}", "--log-level=warning")
    with HttpServer() as upstream, server_process(tmp_path, *command, UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 200, until=two_workers)
        status = server.stop(signal.SIGTERM)
        assert upstream.wait_until_all_closed()
    assert [text for *_, text in answers] == [f"/{number}" for number in range(len(answers))]
    assert len(upstream.requests) == 2 * len(answers)
    notes = notes_of(tmp_path)
    assert notes.keys() == {worker for worker, *_ in answers}
    assert list(notes.values()) == [["opened", "closed"]] * 2
    assert status == 0
    assert server.complaints == []
