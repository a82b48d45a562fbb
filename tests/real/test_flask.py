"""Flask: async views, which run on a loop for each call under WSGI, and on the server's loop under ASGI."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask

from conftest import Run
from shared_numbers import log, next_number


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


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
