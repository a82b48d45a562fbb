"""One pool per Dask worker: a cluster of worker processes fetches from a real server, each through one aiohttp session.

Run it with ``python examples/dask_pool.py``; it needs ``distributed`` and ``aiohttp``. It exits with 1 if a claim fails.

Dask runs an ``async def`` task on its worker's event loop, so all such tasks of one worker share the resources of that loop.
The pool is not passed to the tasks, and no code starts it on the workers beforehand. When Dask stops a worker process, the
worker ends its loop as ``asyncio.run`` does, and the resources of the loop are exited then: no Dask plugin is needed for that.

By default, Dask kills a worker process that has not ended four seconds after the request to stop. For exits that may take
longer, call ``client.run(asyncio_loop_local.aclose)`` before the cluster is closed: it exits the resources of every worker's
loop, waits for that, and raises the errors of their exits here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from distributed import Client, LocalCluster

import asyncio_loop_local

# The program needs only these lines.


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def pool(base: str) -> AsyncGenerator[aiohttp.ClientSession]:
    """The connections of one worker to the server; requests report when they are opened, and before they are closed."""
    async with aiohttp.ClientSession(base, headers={"X-Worker": str(os.getpid())}) as session:
        await (await session.post("/opened")).read()
        yield session
        await (await session.post("/closed")).read()


async def fetch(base: str, number: int) -> str:
    async with pool(base) as session, session.get(f"/page/{number}") as response:
        return await response.text()


# The server runs in its own thread and loop, and counts the requests and connections of each worker.

WORKERS = 3
FETCHES = 600


@dataclass
class Seen:
    """The requests and connections of one worker process, counted by the server."""

    said: list[str] = field(default_factory=list[str])
    fetches: int = 0
    connections: int = 0
    connections_closed: int = 0


class Server:
    """A real HTTP server on 127.0.0.1; ``seen``, by worker, may be read when it has stopped."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self._base: Future[str] = Future()
        self._connections: set[asyncio.Task[None]] = set()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="server")

    def start(self) -> str:
        self._thread.start()
        return self._base.result(timeout=30)

    def stop(self) -> None:
        """Wait until every worker has closed its connections, and stop."""
        self._stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._base.done():
                raise
            self._base.set_exception(error)

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/page/{number}", self._page),
                web.post("/opened", self._announcement),
                web.post("/closed", self._announcement),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            self._base.set_result(f"http://{host}:{port}")
            await stop.wait()
            if self._connections:
                await asyncio.wait(self._connections, timeout=10)
        finally:
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        self._worker(request).fetches += 1
        return web.Response(text=f"page {request.match_info['number']}")

    async def _announcement(self, request: web.Request) -> web.Response:
        self._worker(request).said.append(request.path.removeprefix("/"))
        return web.Response()

    def _worker(self, request: web.Request) -> Seen:
        seen = self.seen.setdefault(request.headers["X-Worker"], Seen())
        connection = request.task  # aiohttp serves each connection in one task
        if connection not in self._connections:
            self._connections.add(connection)
            seen.connections += 1
            connection.add_done_callback(lambda connection: self._closed(connection, seen))
        return seen

    def _closed(self, connection: asyncio.Task[None], seen: Seen) -> None:
        self._connections.discard(connection)
        seen.connections_closed += 1


# The output, and the checks.


def fetch_on_a_cluster(base: str) -> tuple[list[str], set[str]]:
    """Fetch every page on some worker.

    :returns: the pages, and the process ids of all workers.
    """
    new_cluster: Any = LocalCluster  # distributed is typed in part
    new_client: Any = Client
    with (
        new_cluster(n_workers=WORKERS, threads_per_worker=8, host="127.0.0.1", dashboard_address=None) as cluster,
        new_client(cluster) as client,
    ):
        pages: list[str] = client.gather(client.map(fetch, [base] * FETCHES, range(FETCHES)))
        workers = {str(pid) for pid in client.run(os.getpid).values()}
    return pages, workers


def claims_that_fail(pages: list[str], workers: set[str], server: Server) -> list[str]:
    failed: list[str] = []
    if pages != [f"page {number}" for number in range(FETCHES)]:
        failed.append("it is not so that every fetch was answered")
    if server.seen.keys() != workers:
        failed.append(f"the server knows the workers {sorted(server.seen)}, not {sorted(workers)}")
    for worker, seen in server.seen.items():
        claims = {
            "its pool was opened once, and closed once": seen.said == ["opened", "closed"],
            "its tasks shared connections": seen.connections < seen.fetches,
            "it closed all of them": seen.connections_closed == seen.connections,
        }
        failed += [f"worker {worker}: it is not so that {claim}" for claim, holds in claims.items() if not holds]
    return failed


def main() -> int:
    server = Server()
    base = server.start()
    try:
        print(f"A server listens at {base}. {FETCHES} Dask tasks on {WORKERS} worker processes will fetch from it.", flush=True)
        pages, workers = fetch_on_a_cluster(base)
    finally:
        server.stop()
    for worker, seen in sorted(server.seen.items()):
        opened, closed = seen.said.count("opened"), seen.said.count("closed")
        print(
            f"worker {worker}: opened {opened} pool, shared by {seen.fetches} tasks, "
            f"over {seen.connections} connections; closed {closed} pool and {seen.connections_closed} connections"
        )
    failed = claims_that_fail(pages, workers, server)
    for line in failed:
        print(line)
    if not failed:
        print("Each worker opened one pool on its loop, at its first task, and closed it at its own end.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
