"""The servers that pages of the documentation may ask for, by ``<!-- with NAME as TEXT -->``: see test_docs.py."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import servers
import servers_postgres
from servers_nats import NatsServer
from servers_redis import RedisServer


@contextmanager
def http_server() -> Generator[str]:
    """``http://127.0.0.1:PORT``, which answers with the path that it is asked for."""
    with servers.HttpServer() as server:
        yield server.url


@contextmanager
def postgres() -> Generator[str]:
    """``USER@/DATABASE?host=DIRECTORY``: what stands after ``postgresql://`` or ``postgresql+asyncpg://``."""
    with servers_postgres.postgres() as server:
        yield f"postgres@/postgres?host={server.host}"


@contextmanager
def redis() -> Generator[str]:
    """``redis://127.0.0.1:PORT``."""
    server = RedisServer()
    with server:
        yield server.url


@contextmanager
def nats() -> Generator[str]:
    """``nats://127.0.0.1:PORT``."""
    server = NatsServer()
    with server:
        yield server.url


class _ModelServer(BaseHTTPRequestHandler):
    """Answers each chat of OpenAI's protocol with what was said last."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": f"You said: {asked['messages'][-1]['content']}"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Says nothing."""


@contextmanager
def model_server() -> Generator[str]:
    """``http://127.0.0.1:PORT``, below which ``/v1`` is what a client of OpenAI's may ask."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _ModelServer) as server:
        thread = threading.Thread(target=server.serve_forever, name="model_server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(servers.LONGEST_WAIT)


@contextmanager
def mcp_server() -> Generator[str]:
    """The file of an MCP server on standard input and output: a program for Python, with the tools of tests/mcp_server.py."""
    yield str(Path(__file__).with_name("mcp_server.py"))


@contextmanager
def python() -> Generator[str]:
    """The Python that runs the suite."""
    yield sys.executable


SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "http_server": http_server,
    "postgres": postgres,
    "redis": redis,
    "nats": nats,
    "model_server": model_server,
    "mcp_server": mcp_server,
    "python": python,
}
"""Each is started when the first page asks for it, and shared by all pages."""
