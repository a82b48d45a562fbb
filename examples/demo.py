"""One aiohttp session per event loop: fetches from a real server over many loops, and checks what it claims.

Run it with ``make demo``. It exits with 1 if anything that it claims does not hold.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

import asyncio_loop_local

# These lines are all that it takes.

_ClientSession = asyncio_loop_local.sticky_singleton_acm(aiohttp.ClientSession)


async def fetch(url: str, visit: Visit) -> str:
    async with _ClientSession() as session:
        visit.sessions_seen.append(session)
        async with session.get(url, headers={"X-Loop": visit.name}) as response:
            return await response.text()


# What fetches: the same program on every loop.

RUNS_IN_MAIN_THREAD = 3
THREADS = 3
RUNS_IN_EACH_THREAD = 2
TASKS = 20
FETCHES_OF_EACH_TASK = 5


@dataclass
class Visit:
    """What one event loop did, as seen from that loop."""

    name: str
    tasks: int = 0
    answers: list[str] = field(default_factory=list[str])
    farewell: str = "never said"
    sessions_seen: list[aiohttp.ClientSession] = field(default_factory=list[aiohttp.ClientSession])
    open_while_running: bool = False

    @property
    def sessions(self) -> list[aiohttp.ClientSession]:
        """The different sessions that its tasks were given."""
        return list({id(session): session for session in self.sessions_seen}.values())


async def fetch_several(base: str, number: int, visit: Visit) -> None:
    for page in range(FETCHES_OF_EACH_TASK):
        visit.answers.append(await fetch(f"{base}/task/{number}/page/{page}", visit))


async def linger(base: str, visit: Visit) -> None:
    """Still runs when the program ends: asyncio.run cancels it, and it fetches once more while it cleans up."""
    try:
        await asyncio.Event().wait()
    finally:
        visit.farewell = await fetch(f"{base}/farewell", visit)


async def program(base: str, visit: Visit, lingering: set[asyncio.Task[None]]) -> None:
    lingering.add(asyncio.create_task(linger(base, visit)))
    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(fetch_several(base, number, visit))
    visit.tasks = TASKS + len(lingering)
    visit.open_while_running = not any(session.closed for session in visit.sessions)


def run_loop(base: str, name: str) -> Visit:
    visit = Visit(name)
    asyncio.run(program(base, visit, set()))
    return visit


def run_loops_in_thread(base: str, thread: int) -> list[Visit]:
    return [run_loop(base, f"thread {thread}, asyncio.run no. {run}") for run in range(1, RUNS_IN_EACH_THREAD + 1)]


# The server: in a thread and a loop of its own, counting what each loop does.


@dataclass
class Seen:
    """What the server has seen of one event loop."""

    requests: int = 0
    connections: int = 0
    closed: int = 0
    closed_before_farewell: int = 0
    said_farewell: bool = False


class Server:
    """A real HTTP server on 127.0.0.1; ``seen`` may be read when it has stopped."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.base: Future[str] = Future()
        self._connections: set[asyncio.Task[None]] = set()
        self._stop: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    def start(self) -> str:
        self._thread.start()
        return self.base.result(timeout=30)

    def stop(self) -> None:
        """Waits until every client has closed its connections, and stops."""
        if self._stop is not None:
            self._stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self.base.done():
                raise
            self.base.set_exception(error)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            self.base.set_result(f"http://{host}:{port}")
            await stop.wait()
            if self._connections:
                await asyncio.wait(self._connections, timeout=10)
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        seen = self.seen.setdefault(request.headers["X-Loop"], Seen())
        seen.requests += 1
        connection = request.task  # aiohttp serves each connection in one task
        if connection not in self._connections:
            self._connections.add(connection)
            seen.connections += 1
            connection.add_done_callback(lambda connection: self._closed(connection, seen))
        seen.said_farewell |= request.path == "/farewell"
        return web.Response(text=f"this is {request.path}")

    def _closed(self, connection: asyncio.Task[None], seen: Seen) -> None:
        self._connections.discard(connection)
        seen.closed += 1
        seen.closed_before_farewell += not seen.said_farewell


# What is shown, and checked.


def claims_that_fail(visits: list[Visit], server: Server, complaints: list[str]) -> list[str]:
    failed = [f"asyncio had something to complain about: {complaint}" for complaint in complaints]
    for visit in visits:
        seen = server.seen.get(visit.name, Seen())
        claims = {
            "every fetch was answered": len(visit.answers) == TASKS * FETCHES_OF_EACH_TASK
            and all(answer.startswith("this is /task/") for answer in visit.answers),
            "the server saw the same number of fetches": seen.requests == len(visit.answers) + 1 == len(visit.sessions_seen),
            "one session was opened, and all tasks shared it": len(visit.sessions) == 1,
            "it kept its connections, and used them again": 1 <= seen.connections <= TASKS < seen.requests,
            "it was open as long as the program ran": visit.open_while_running,
            "a task that was cancelled at the end could still use it": visit.farewell == "this is /farewell",
            "no connection was closed before that": seen.closed_before_farewell == 0,
            "it is closed, now that its loop has ended": all(session.closed for session in visit.sessions),
            "the server saw every connection closed": seen.closed == seen.connections,
        }
        failed += [f"{visit.name}: it is not so that {claim}" for claim, holds in claims.items() if not holds]
    sessions = {id(session) for visit in visits for session in visit.sessions}
    if len(sessions) != len(visits):
        failed.append(f"{len(visits)} loops had {len(sessions)} different sessions, not one each")
    return failed


def table(visits: list[Visit], server: Server) -> str:
    rows: list[tuple[str, ...]] = [("event loop", "tasks", "fetches", "sessions", "connections", "last fetch", "then")]
    for visit in visits:
        seen = server.seen.get(visit.name, Seen())
        last = "in a finally" if visit.farewell == "this is /farewell" else visit.farewell
        closed = all(session.closed for session in visit.sessions) and seen.closed == seen.connections
        rows.append(
            (
                visit.name,
                f"{visit.tasks:,}",
                f"{seen.requests:,}",
                f"{len(visit.sessions):,}",
                f"{seen.connections:,}",
                last,
                "closed" if closed else "NOT CLOSED",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    numbers = range(1, 5)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


@contextmanager
def complaints_of_asyncio() -> Generator[list[str]]:
    """Collects what asyncio logs: exits that failed, tasks and sessions that nobody closed."""
    complaints: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    handler = Collect(logging.WARNING)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)


def main() -> int:
    server = Server()
    with complaints_of_asyncio() as complaints:
        base = server.start()
        try:
            print(f"A server listens at {base}. {TASKS} tasks on each event loop will fetch from it.")
            print("No task is handed a session. Each of them just says: async with _ClientSession() as session: ...")
            print()
            print(f"{RUNS_IN_MAIN_THREAD} times asyncio.run in the main thread, one after the other,")
            visits = [run_loop(base, f"main thread, asyncio.run no. {run}") for run in range(1, RUNS_IN_MAIN_THREAD + 1)]
            print(f"then {THREADS} threads at the same time, {RUNS_IN_EACH_THREAD} times asyncio.run in each.")
            with ThreadPoolExecutor(THREADS) as threads:
                running = [threads.submit(run_loops_in_thread, base, thread) for thread in range(1, THREADS + 1)]
                visits += [visit for thread in running for visit in thread.result()]
        finally:
            server.stop()
    print()
    print(table(visits, server))
    print()
    failed = claims_that_fail(visits, server, complaints)
    if failed:
        print("Not all of it holds:")
        for line in failed:
            print(f"  {line}")
        return 1
    fetches = sum(seen.requests for seen in server.seen.values())
    print(f"{fetches:,} fetches on {len(visits)} event loops through {len(visits)} sessions. On every loop, the session was")
    print("  opened once, at the first fetch,")
    print("  shared by every task,")
    print("  still open for the task that asyncio.run cancelled and that fetched once more in its finally,")
    print("  and closed after that, with all its connections, before the loop was.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
