"""Servers of frameworks, each started in a process of its own by a `with` block, and gone after it, with its workers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from servers import LONGEST_WAIT, HttpServer

NOTE = """
import os

def note(what):
    with open("log", "a") as file:
        file.write(f"{os.getpid()} {what}\\n")
"""

SESSION = """
import asyncio
from contextlib import asynccontextmanager
from aiohttp import ClientSession
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
"""

LIFESPAN = """
from asyncio_loop_local import aclose

def with_lifespan(app):
    async def application(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await aclose()
        note("shutdown ends")
        await send({"type": "lifespan.shutdown.complete"})

    return application
"""

WSGI_SERVER = """
import sys
from werkzeug.serving import make_server
from app import wsgi

make_server("127.0.0.1", 0, wsgi, threaded=True, fd=int(sys.argv[1])).serve_forever()
"""


def write_app(directory: Path, *sources: str) -> None:
    """Writes ``app.py``, which has `note(what)` for `notes_of`."""
    (directory / "app.py").write_text("".join(textwrap.dedent(source) for source in (NOTE, *sources)))


def notes_of(directory: Path) -> dict[int, list[str]]:
    """What each process has noted, in that order, by its id."""
    notes: dict[int, list[str]] = {}
    for line in (directory / "log").read_text().splitlines():
        pid, what = line.split(maxsplit=1)
        notes.setdefault(int(pid), []).append(what)
    return notes


class FrameworkServer:
    """A server that runs now, with ``url``, or did, with ``complaints``."""

    def __init__(self, process: subprocess.Popen[str], url: str, stderr: Path) -> None:
        self.url = url
        self._process = process
        self._stderr = stderr

    @property
    def complaints(self) -> list[str]:
        """What it said of errors, and of what nobody has closed; not of the socket that it was given, which uvicorn drops."""
        lines = self._stderr.read_text().splitlines()
        return [line for line in lines if re.search(r"Traceback|Error|nclosed (?!<socket)|Warning: <|never", line)]

    def stop(self, how: signal.Signals) -> int:
        """Tells it to stop.

        :returns: its exit status.
        """
        self._process.send_signal(how)
        return self._process.wait(LONGEST_WAIT)


@contextmanager
def server_process(directory: Path, *args: str, **environment: str) -> Generator[FrameworkServer]:
    """Starts a Python program; ``{fd}`` in its arguments is a socket that listens already, where requests wait for it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(200)
        fd = bound.fileno()
        with (directory / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-W", "always::ResourceWarning", *(each.replace("{fd}", str(fd)) for each in args)],
                cwd=directory,
                env={**os.environ, **environment},
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # so that its workers can be ended with it
                text=True,
            )
        try:
            yield FrameworkServer(process, f"http://127.0.0.1:{bound.getsockname()[1]}", directory / "stderr")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers_of(url: str, count: int, *, until: Callable[[list[Any]], bool] = bool) -> list[Any]:
    """The JSON of at least this many requests, forty at a time, each on a connection of its own.

    :param until: asked after every hundred requests whether these answers will do.
    """

    async def one(session: aiohttp.ClientSession, number: int) -> Any:
        async with session.get(f"/{number}") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def all_of_them() -> list[Any]:
        answers: list[Any] = []
        connector = aiohttp.TCPConnector(limit=40, force_close=True)
        async with aiohttp.ClientSession(url, connector=connector) as session:
            while len(answers) < count or not until(answers):
                answers += await asyncio.gather(*(one(session, number) for number in range(len(answers), len(answers) + 100)))
        return answers

    return asyncio.run(all_of_them())


def notes_of_workers(
    directory: Path, *sources: str, command: Sequence[str], signalled: signal.Signals, workers: int = 1, status: int | None = None
) -> list[list[str]]:
    """What each worker of a server notes that gets a signal when it has answered many requests, by the sources of its app.

    It answers a request for a number with the id of the worker's process, and what it has fetched at that number, by `SESSION`.
    """
    write_app(directory, SESSION, *sources)
    with HttpServer() as upstream, server_process(directory, *command, UPSTREAM=upstream.url) as server:
        answers = answers_of(server.url, 200, until=bool if workers == 1 else two_workers)
        assert server.stop(signalled) == status or status is None
        assert upstream.wait_until_all_closed()
    fetched = [text for number, (_, *texts) in enumerate(answers) for text in texts if text == f"/{number}"]
    assert len(fetched) == sum(len(texts) for _, *texts in answers) == sum(path[1:].isdigit() for path in upstream.paths)
    assert server.complaints == []
    notes = notes_of(directory)
    assert notes.keys() == {worker for worker, *_ in answers}
    assert len(notes) == workers
    return [*notes.values()]


def two_workers(answers: list[Any]) -> bool:
    """Whether two processes have given these answers, each of which begins with its id."""
    return len({worker for worker, *_ in answers}) == 2
