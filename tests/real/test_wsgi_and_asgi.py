"""Flask and Django on real servers, and Django's test clients: a loop for each call under WSGI, the server's loop under ASGI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from server_process import LIFESPAN, SESSION, WSGI_SERVER, answers_of, notes_of, server_process, two_workers, write_app
from servers import HttpServer

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


@pytest.mark.parametrize("app", [FLASK, DJANGO], ids=["Flask", "Django"])
def test_two_asgi_workers(app: str, tmp_path: Path) -> None:
    """Each worker of `uvicorn` opens one session for its requests, and closes it at its shutdown, which awaits `aclose()`."""
    write_app(tmp_path, SESSION, LIFESPAN, app)
    command = ("-m", "uvicorn", "app:asgi", "--workers=2", "--fd={fd}", "--log-level=warning")
    with HttpServer() as upstream, server_process(tmp_path, *command, UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 200, until=two_workers)
        status = server.stop(signal.SIGTERM)
        assert upstream.wait_until_all_closed()
    assert texts_of(answers) == [[f"/{number}"] * 2 for number in range(len(answers))]
    assert len(upstream.requests) == 2 * len(answers)
    notes = notes_of(tmp_path)
    assert notes.keys() == {worker for worker, *_ in answers}
    assert list(notes.values()) == [["opened", "closed"]] * 2
    assert status == 0
    assert server.complaints == []


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
        result = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "script.py"],
            cwd=directory,
            env={**os.environ, "UPSTREAM": upstream.url, **environment},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
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
