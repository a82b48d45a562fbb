"""Sockets that real SDKs leave open after some runs of `asyncio.run`: as they are, and with examples/sdk/loop_transport.py.

    python -m benchmarks.sdk_ports [--runs N] [--environment DIRECTORY]

The SDKs are installed in a virtual environment of their own, a temporary one if no directory is given. Each case runs in a
process of its own, against a server in this one. One client object is made, and used in each run, as programs do that keep it
in a global variable; the garbage collector is off, so that what is counted is what the SDK has closed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import threading
import venv
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("openai", "anthropic", "google-genai", "langchain-openai")
TRANSPORT = ROOT / "examples" / "sdk" / "loop_transport.py"

Ask = Callable[[], Awaitable[object]]


class _Model(BaseHTTPRequestHandler):
    """Answers each SDK in its own protocol."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/chat/completions"):
            message = {"role": "assistant", "content": "yes"}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": choices}
        elif self.path.endswith("/messages"):
            answer = {"id": "1", "type": "message", "role": "assistant", "model": "small", "stop_reason": "end_turn"}
            answer |= {"content": [{"type": "text", "text": "yes"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
        else:
            answer = {"candidates": [{"content": {"role": "model", "parts": [{"text": "yes"}]}, "finishReason": "STOP"}]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone without closing its connection is what is measured."""


def http_client(package: str, *, ported: bool) -> Any:
    """What an SDK is given as its client: nothing, or one with the transport of the example, of the httpx that the SDK uses."""
    if not ported:
        return None
    source = TRANSPORT.read_text(encoding="utf-8").replace("import httpx2 as httpx\n", f"import {package} as httpx\n")
    names: dict[str, Any] = {"__name__": "loop_transport"}
    exec(compile(source, str(TRANSPORT), "exec"), names)  # the example, of another package
    return names["httpx"].AsyncClient(transport=names["LoopTransport"]())


def with_openai(url: str, *, ported: bool) -> Ask:
    openai: Any = import_module("openai")
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", http_client=http_client("httpx2", ported=ported))
    return lambda: client.chat.completions.create(model="small", messages=[{"role": "user", "content": "?"}])


def with_anthropic(url: str, *, ported: bool) -> Ask:
    anthropic: Any = import_module("anthropic")
    client = anthropic.AsyncAnthropic(base_url=url, api_key="k", http_client=http_client("httpx2", ported=ported))
    return lambda: client.messages.create(model="small", max_tokens=9, messages=[{"role": "user", "content": "?"}])


def with_google_genai(url: str, *, ported: bool) -> Ask:
    genai: Any = import_module("google.genai")
    options = {"base_url": url, "httpx_async_client": http_client("httpx", ported=ported)}
    client = genai.Client(api_key="k", http_options=options)
    return lambda: client.aio.models.generate_content(model="small", contents="?")


def with_langchain_openai(url: str, *, ported: bool) -> Ask:
    langchain_openai: Any = import_module("langchain_openai")
    given = http_client("httpx2", ported=ported)
    model = langchain_openai.ChatOpenAI(base_url=f"{url}/v1", api_key="k", model="small", http_async_client=given)
    return lambda: model.ainvoke("?")


SDKS: dict[str, Callable[..., Ask]] = {
    "openai": with_openai,
    "anthropic": with_anthropic,
    "google-genai": with_google_genai,
    "langchain-openai": with_langchain_openai,
}


def program(name: str, url: str, runs: int, *, ported: bool) -> dict[str, Any]:
    """Uses one client in each run, and counts what is open afterwards."""
    psutil: Any = import_module("psutil")
    gc.disable()
    ask = SDKS[name](url, ported=ported)
    failed = 0

    async def main() -> None:
        await ask()

    for _ in range(runs):
        try:
            asyncio.run(main())
        except Exception:  # whatever: the request failed
            failed += 1
    sockets = len(psutil.Process().net_connections(kind="tcp"))
    return {"version": version(name), "failed": failed, "sockets": sockets}


@contextmanager
def interpreter(directory: Path | None) -> Generator[str]:
    """The interpreter of an environment that has the SDKs; it is made if it is not there."""
    if directory is None:
        with TemporaryDirectory(prefix="sdk-ports-") as temporary, interpreter(Path(temporary)) as found:
            yield found
        return
    python = directory.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(directory, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "psutil", *PACKAGES]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})
    yield str(python)


@contextmanager
def model_server() -> Generator[str]:
    """Where the server is, ``http://127.0.0.1:PORT``."""
    with _Server(("127.0.0.1", 0), _Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def measure(python: str, name: str, url: str, runs: int, *, ported: bool) -> dict[str, Any]:
    """What one case has left, in a process of its own."""
    command = [python, "-m", "benchmarks.sdk_ports", "--case", name, "--url", url, "--runs", str(runs)]
    command += ["--ported"] if ported else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def table(directory: Path | None, runs: int) -> str:
    """A line for each SDK, in Markdown."""
    lines = [
        f"| SDK, {runs} runs | as it is: sockets left open | requests that failed | with `LoopTransport`: sockets | failed |",
        "| --- | --- | --- | --- | --- |",
    ]
    with interpreter(directory) as python, model_server() as url:
        for name in SDKS:
            as_it_is, ported = (measure(python, name, url, runs, ported=ported) for ported in (False, True))
            cells = (as_it_is["sockets"], as_it_is["failed"], ported["sockets"], ported["failed"])
            lines.append(f"| {name} {as_it_is['version']} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--environment", type=Path, help="where the SDKs are, or are to be; it is kept")
    parser.add_argument("--case", choices=SDKS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--ported", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(program(options.case, options.url, options.runs, ported=options.ported)))
    else:
        print(table(options.environment, options.runs))


if __name__ == "__main__":
    main()
