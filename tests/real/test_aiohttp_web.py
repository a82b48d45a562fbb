"""aiohttp's own server, in a process that is stopped by a signal."""

from __future__ import annotations

import http.client
import signal
import sys
from pathlib import Path

import pytest

from server_process import SESSION, answers_of, notes_of, server_process, write_app
from servers import LONGEST_WAIT, HttpServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")

APP = """
    import socket, sys
    import uvloop
    from aiohttp import web

    async def relay(request):
        return web.json_response(await fetch(request.path))

    async def hang(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        try:
            await asyncio.Event().wait()
        finally:
            note(f"the request in progress ends, {await fetch('/last/request')}")

    async def work_beside(app):
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                note(f"the task ends, {await fetch('/last/task')}")

        app[TASK] = asyncio.create_task(work())

    async def clean_up(app):
        note(f"cleanup, {await fetch('/last/cleanup')}")

    TASK = web.AppKey('task', asyncio.Task)
    app = web.Application()
    app.add_routes([web.get("/hang", hang), web.get("/{number}", relay)])
    app.on_startup.append(work_beside)
    app.on_cleanup.append(clean_up)
    fd, kind = sys.argv[1:]
    loop = {"asyncio": asyncio, "uvloop": uvloop}[kind].new_event_loop()
    web.run_app(app, sock=socket.socket(fileno=int(fd)), loop=loop, print=None, shutdown_timeout=0.1)
    note(f"closed: {loop.is_closed()}")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("signalled", [signal.SIGTERM, signal.SIGINT])
def test_run_app_that_is_stopped(signalled: signal.Signals, loop: str, tmp_path: Path) -> None:
    """Hundreds of requests share one session, which stays open for all that ends with the server, and is closed after it."""
    write_app(tmp_path, SESSION, APP)
    with HttpServer() as upstream, server_process(tmp_path, "app.py", "{fd}", loop, UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 300)
        hanging = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=LONGEST_WAIT)
        hanging.request("GET", "/hang")
        with hanging.getresponse() as response:
            assert response.read(5) == b"begun"
            status = server.stop(signalled)
        hanging.close()
        assert upstream.wait_until_all_closed()
    assert answers == [f"/{number}" for number in range(300)]
    assert len(upstream.requests) == 303
    (notes,) = notes_of(tmp_path).values()
    assert (notes[0], notes[-2], notes[-1]) == ("opened", "closed", "closed: True")
    assert sorted(notes[1:-2]) == [
        "cleanup, /last/cleanup",
        "the request in progress ends, /last/request",
        "the task ends, /last/task",
    ]
    assert status == 0
    assert server.complaints == []
