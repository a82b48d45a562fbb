"""Real servers for the suite: each is started by a `with` block, and gone after it."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self, TypeVar

import psutil
import pytest
from aiohttp import web

T = TypeVar("T")

LONGEST_WAIT = 30.0  # seconds; only for what would otherwise hang


class CannotRun(Exception):
    """This platform cannot run the server; the message says why."""


class HttpServer:
    """A real HTTP server on 127.0.0.1, in a thread and a loop of its own, that knows its requests and connections."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.url = ""
        self._port = free_port()
        self._connections: set[asyncio.Task[None]] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread()
        self._stop: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Starts it, the first time or after `kill`, on the same port."""
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="HttpServer")
        self._thread.start()
        started.result(LONGEST_WAIT)
        self.url = f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """Ends it, with all connections and requests."""
        self._stop()
        self._thread.join(LONGEST_WAIT)
        assert not self._thread.is_alive()

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> HttpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def paths(self) -> list[str]:
        """The paths of all requests, in the order in which they came."""
        return [request.path for request in self.requests]

    def open_connections(self) -> int:
        """How many connections clients have open now."""
        with self._changed:
            return len(self._connections)

    def wait_until_all_closed(self) -> bool:
        """Waits until no client has a connection open: what a client closes, the server hears of a little later."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, LONGEST_WAIT)

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[None]) -> None:
        app = web.Application()
        app.router.add_get("/never", self._never)
        app.router.add_get("/never/{tail:.*}", self._never)
        app.router.add_get("/{tail:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            started.set_result(None)
            await stop.wait()
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self._note(request)
        return web.Response(text=request.path)

    async def _never(self, request: web.Request) -> web.Response:
        self._note(request)
        await asyncio.Event().wait()
        raise AssertionError

    def _note(self, request: web.Request) -> None:
        connection = request.task  # aiohttp serves each connection in one task
        with self._changed:
            self.requests.append(request)
            if connection not in self._connections:
                self._connections.add(connection)
                connection.add_done_callback(self._closed)

    def _closed(self, connection: asyncio.Task[None]) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()


class ServerProcess:
    """A server program in a process of its own, on a port of 127.0.0.1, that can be killed and started again on that port.

    Its files are in a temporary directory, which it keeps when it is started again.
    """

    ready = ""  # part of the line with which it says that it accepts connections

    def __init__(self) -> None:
        self.port = free_port()
        self.lines: list[str] = []  # of its output, since it was first started
        self._unread = 0
        self._said = threading.Condition()
        self._directory = tempfile.TemporaryDirectory(prefix="loop-local-")
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def command(self, directory: Path) -> Sequence[str | Path]:
        """The program and its arguments."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it, and waits until it accepts connections.

        :raises CannotRun: if the program does not run here.
        """
        command = self.command(Path(self._directory.name))
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf8"
            )
        except OSError as error:
            raise CannotRun(f"{command[0]} does not run here: {error}") from error
        self._reader = threading.Thread(target=self._read, args=(self._process,), name=f"output of {type(self).__name__}")
        self._reader.start()
        try:
            self.wait_for_line(self.ready)
        except RuntimeError as error:
            if self._process.wait(LONGEST_WAIT) == 127:  # a shared library is missing
                raise CannotRun(str(error)) from error
            raise

    def kill(self) -> None:
        """Ends it with SIGKILL: it says goodbye to nobody."""
        assert self._process is not None
        self._process.kill()
        self._wait()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask(self, question: str, answer: str) -> str:
        """Writes a line to its standard input; the line of its output, from then on, that has ``answer`` in it."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self.wait_for_line(answer)

    def wait_for_line(self, part: str) -> str:
        """The next line of its output with that in it."""
        deadline = time.monotonic() + LONGEST_WAIT
        with self._said:
            while True:
                while self._unread < len(self.lines):
                    self._unread += 1
                    if part in self.lines[self._unread - 1]:
                        return self.lines[self._unread - 1]
                if not self._reader.is_alive() or time.monotonic() > deadline:
                    said = "".join(self.lines[-20:])
                    raise RuntimeError(f"{type(self).__name__} did not say {part!r}, but: {said}")
                self._said.wait(0.1)  # the reader's end notifies nobody

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                process.wait(LONGEST_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
            self._wait()
        self._directory.cleanup()

    def _wait(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.wait(LONGEST_WAIT)
        self._reader.join(LONGEST_WAIT)
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        assert not self._reader.is_alive()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._said:
                    self.lines.append(line)
                    self._said.notify_all()


def free_port() -> int:
    """A port on which nothing listens.

    It is none of those that systems give to clients: such a client could get the port of a server that has been killed, and
    one that tries to reach this server again and again could even get it itself, and be connected to itself.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 30_000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CannotRun("no port is free")


@contextmanager
def running(server: AbstractContextManager[T]) -> Generator[T]:
    """Has a server running in the block; skips what needs it on systems for which there is none, of which Linux is not one."""
    try:
        entered = server.__enter__()
    except CannotRun as error:
        if sys.platform == "linux":
            raise
        pytest.skip(str(error))
    try:
        yield entered
    finally:
        server.__exit__(None, None, None)


def wait_until(condition: Callable[[], bool]) -> bool:
    """Waits until a server says so: it hears of what its clients do a little later."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class SuiteServer(ServerProcess):
    """A server that is a program of the suite's, which gets its port as argument, and says on its first line which it has got."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self.ready = str(self.port)
        self._program = Path(__file__).with_name(program)

    def command(self, directory: Path) -> Sequence[str | Path]:
        return [sys.executable, self._program, str(self.port)]

    def connections(self) -> int:
        """How many connections clients have with it now."""
        assert self._process is not None
        connections = psutil.Process(self._process.pid).net_connections(kind="tcp")
        return sum(connection.status != psutil.CONN_LISTEN for connection in connections)
