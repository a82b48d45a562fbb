"""Flask, Django and FastAPI on real servers, and test clients: a loop for each call under WSGI, the server's loop under ASGI."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask

from conftest import Run
from programs import run_python
from server_process import LIFESPAN, SESSION, WSGI_SERVER, answers_of, notes_of, notes_of_workers, server_process, write_app
from servers import HttpServer
from shared_numbers import log, next_number

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")

FLASK = """
    from asgiref.wsgi import WsgiToAsgi
    from flask import Flask

    wsgi = Flask(__name__)

    @wsgi.get("/<int:number>")
    async def relay(number):
        return [os.getpid(), await fetch(f"/{number}"), await fetch(f"/{number}")]

    asgi = with_lifespan(WsgiToAsgi(wsgi))
"""

DJANGO = """
    import django
    from asgiref.sync import async_to_sync, markcoroutinefunction
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path

    async def relay(request, number):
        return JsonResponse([os.getpid(), await fetch(f"/{number}"), await fetch(f"/{number}")], safe=False)

    def sync_relay(request, number):
        return JsonResponse([os.getpid(), async_to_sync(fetch)(f"/{number}")], safe=False)

    class AsyncMiddleware:
        async_capable, sync_capable = True, False

        def __init__(self, get_response):
            self.get_response = get_response
            markcoroutinefunction(self)

        async def __call__(self, request):
            await fetch("/middleware")
            return await self.get_response(request)

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["app.AsyncMiddleware"] if "MIDDLEWARE" in os.environ else [],
        SECRET_KEY="not one",
    )
    urlpatterns = [path("<int:number>", relay), path("sync/<int:number>", sync_relay)]
    wsgi = get_wsgi_application()
    asgi = with_lifespan(get_asgi_application())
"""


def texts_of(answers: list[list[Any]]) -> list[list[str]]:
    return [texts for _, *texts in answers]


@pytest.mark.parametrize("app", [FLASK, DJANGO], ids=["Flask", "Django"])
def test_a_wsgi_server_with_threads(app: str, tmp_path: Path) -> None:
    """Requests in many threads at a time: each has a session of its own for all its fetches, and closes it."""
    write_app(tmp_path, SESSION, LIFESPAN, app)
    (tmp_path / "serve.py").write_text(WSGI_SERVER)
    with HttpServer() as upstream, server_process(tmp_path, "serve.py", "{fd}", UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 200)
        assert upstream.wait_until_all_closed()
        status = server.stop(signal.SIGINT)
    assert texts_of(answers) == [[f"/{number}"] * 2 for number in range(200)]
    assert len(upstream.requests) == 400
    (notes,) = notes_of(tmp_path).values()
    assert (notes.count("opened"), notes.count("closed"), len(notes)) == (200, 200, 400)
    assert status == 0
    assert server.complaints == []


FASTAPI = """
    from typing import Annotated
    from fastapi import Depends, FastAPI

    async def session_of_the_loop():
        async with make_session() as session:
            yield session

    fastapi = FastAPI()

    @fastapi.get("/{number}")
    async def relay(number: int, session: Annotated[ClientSession, Depends(session_of_the_loop)]):
        async with session.get(f"/{number}") as response:
            return os.getpid(), await response.text(), await fetch(f"/{number}")

    asgi = with_lifespan(fastapi)
"""
ASGI = {"Flask": FLASK, "Django": DJANGO, "FastAPI": FASTAPI}
EACH_WAY = [("FastAPI", loop, signalled) for loop in ("asyncio", "uvloop") for signalled in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize(
    ("app", "loop", "signalled"), [("Flask", "auto", signal.SIGTERM), ("Django", "auto", signal.SIGTERM), *EACH_WAY]
)
def test_two_asgi_workers(app: str, loop: str, signalled: signal.Signals, tmp_path: Path) -> None:
    """Each worker of `uvicorn` opens one session for its requests, and closes it at its shutdown, which awaits `aclose()`."""
    command = ("-m", "uvicorn", "app:asgi", "--workers=2", "--fd={fd}", f"--loop={loop}", "--log-level=warning")
    sources = (LIFESPAN, ASGI[app])
    notes = notes_of_workers(tmp_path, *sources, command=command, workers=2, signalled=signalled, status=0)
    assert notes == [["opened", "closed", "shutdown ends"]] * 2


# Flask, in this process


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


async def two_numbers() -> list[int]:
    return [await next_number(), await next_number()]


async def use_before_request() -> None:
    await next_number()


async def fail() -> list[int]:
    await next_number()
    raise LookupError("of the view")


def new_app(*, before_request: bool = False) -> Flask:
    app = Flask("app")
    app.add_url_rule("/", view_func=two_numbers)
    app.add_url_rule("/fail", view_func=fail)
    if before_request:
        app.before_request(use_before_request)
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
    """Flask runs an async `before_request` on a loop of its own, not on the view's."""
    with new_app(before_request=True).test_client() as client:
        assert client.get("/").json == [0, 1]
    assert log == ["opened", "closed"] * 2


def test_many_requests_under_asgi(run: Run) -> None:
    """Under ASGI, concurrent requests, with all their async functions, share what the server's loop has opened once."""
    to_asgi: Any = WsgiToAsgi  # it has no types
    transport = httpx.ASGITransport(to_asgi(new_app(before_request=True)))

    async def main() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(100)))
        return [number for answer in answers for number in answer.json()]

    numbers = run(main())
    assert len(set(numbers)) == len(numbers) == 200
    assert max(numbers) == 299
    assert log == ["opened", "closed"]


# Django's test clients, in a process of their own

WITH_CLIENT = """
    import asyncio, json
    from app import note
    from django.test import AsyncClient, Client

    def with_client():
        client = Client()
        answers = []
        for number in range(100):
            answers += [client.get(f"/{number}").json(), client.get(f"/sync/{number}").json()]
            note("answered")
        return answers

    async def with_async_client():
        client = AsyncClient()
        paths = [f"/{which}{number}" for number in range(100) for which in ("", "sync/")]
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        note("answered")
        return [answer.json() for answer in answers]

    print(json.dumps(RUN))
"""


def run_script(directory: Path, run: str, **environment: str) -> Any:
    (directory / "script.py").write_text(textwrap.dedent(WITH_CLIENT).replace("RUN", run))
    write_app(directory, SESSION, LIFESPAN, DJANGO)
    with HttpServer() as upstream:
        env = {**os.environ, "UPSTREAM": upstream.url, **environment}
        result = run_python("-W", "error::ResourceWarning", "script.py", cwd=directory, env=env)
        assert upstream.wait_until_all_closed()
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


BOTH_VIEWS = [texts for number in range(100) for texts in ([f"/{number}"] * 2, [f"/{number}"])]


@pytest.mark.parametrize("environment", [{}, {"MIDDLEWARE": "yes"}], ids=["plain", "async middleware"])
def test_django_under_wsgi(environment: dict[str, str], tmp_path: Path) -> None:
    """Each request to an async view, and each `async_to_sync` in a sync one, has a loop and a session, which is closed with it.

    Async middleware makes one loop for the request, which the view shares, be it async or a sync one with `async_to_sync`.
    """
    assert texts_of(run_script(tmp_path, "with_client()", **environment)) == BOTH_VIEWS
    (notes,) = notes_of(tmp_path).values()
    assert notes == ["opened", "closed", "opened", "closed", "answered"] * 100


def test_django_under_asgi(tmp_path: Path) -> None:
    """Hundreds of concurrent requests, to async and to sync views, share one session, which is closed when the loop ends."""
    assert texts_of(run_script(tmp_path, "asyncio.run(with_async_client())", MIDDLEWARE="yes")) == BOTH_VIEWS
    (notes,) = notes_of(tmp_path).values()
    assert notes == ["opened", "answered", "closed"]
