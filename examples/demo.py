"""One aiohttp session per event loop: fetch pages from a real server on many loops, and check every claim.

Run it with ``make demo``. In a terminal it shows a live table, if ``rich`` is installed, and runs more slowly for that. It exits
with 1 if a claim fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

import asyncio_loop_local

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.table import Table

# The program needs only these lines.

_ClientSession = asyncio_loop_local.sticky_singleton_acm(aiohttp.ClientSession)


async def fetch(url: str, visit: Visit) -> str:
    async with _ClientSession() as session:
        visit.sessions_seen.append(session)
        async with session.get(url, headers={"X-Loop": visit.name}) as response:
            return await response.text()


# A resource may use another one, which then stays open longer: this one makes a last request through the session at the end.


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def _visitors_book(base: str, name: str) -> AsyncGenerator[list[str]]:
    async with _ClientSession() as session:
        entries: list[str] = []
        yield entries
        async with session.get(f"{base}/book/{len(entries)}", headers={"X-Loop": name}):
            pass


# The program, which runs on every loop.

RUNS_IN_MAIN_THREAD = 3
THREADS = 3
RUNS_IN_EACH_THREAD = 2
TASKS = 20
FETCHES_OF_EACH_TASK = 5


@dataclass(eq=False)
class Visit:
    """What one event loop did, recorded by its own tasks."""

    name: str
    tasks: int = 0
    answers: list[str] = field(default_factory=list[str])
    farewell: str = "never said"
    sessions_seen: list[aiohttp.ClientSession] = field(default_factory=list[aiohttp.ClientSession])
    open_while_running: bool = False
    held: str = ""

    @property
    def sessions(self) -> list[aiohttp.ClientSession]:
        """The different sessions that its tasks were given."""
        return list({id(session): session for session in self.sessions_seen}.values())


async def fetch_several(base: str, number: int, visit: Visit) -> None:
    for page in range(FETCHES_OF_EACH_TASK):
        visit.answers.append(await fetch(f"{base}/task/{number}/page/{page}", visit))
        async with _visitors_book(base, visit.name) as entries:
            entries.append(f"task {number} has read page {page}")


async def linger(base: str, visit: Visit) -> None:
    """Run until the program ends: asyncio.run cancels this task, and it fetches once more while it cleans up."""
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
    visit.held = asyncio_loop_local.format_resources()


def run_loops(base: str, visits: list[Visit]) -> None:
    """Run the program once for each visit, one after the other, each on a new loop."""
    for visit in visits:
        asyncio.run(program(base, visit, set()))


# The server runs in its own thread and loop, and counts the requests and connections of each client loop.


@dataclass
class Seen:
    """The requests and connections of one client loop, counted by the server."""

    requests: int = 0
    connections: int = 0
    closed: int = 0
    closed_before_farewell: int = 0
    said_farewell: bool = False
    entries_in_book: int = -1


class Server:
    """A real HTTP server on 127.0.0.1; ``seen`` is complete when it has stopped."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.base: Future[str] = Future()
        self.seconds_to_answer = 0.0
        self._connections: set[asyncio.Task[None]] = set()
        self._stop: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    def start(self) -> str:
        self._thread.start()
        return self.base.result(timeout=30)

    def stop(self) -> None:
        """Wait until every client has closed its connections, and stop."""
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
        if request.path.startswith("/book/"):
            seen.entries_in_book = int(request.path.rpartition("/")[2])
        await asyncio.sleep(random.uniform(0, 2 * self.seconds_to_answer))
        return web.Response(text=f"this is {request.path}")

    def _closed(self, connection: asyncio.Task[None], seen: Seen) -> None:
        self._connections.discard(connection)
        seen.closed += 1
        seen.closed_before_farewell += not seen.said_farewell


# The checks.


def claims_that_fail(visits: list[Visit], server: Server, complaints: list[str]) -> list[str]:
    failed = [f"asyncio had something to complain about: {complaint}" for complaint in complaints]
    for visit in visits:
        seen = server.seen.get(visit.name, Seen())
        claims = {
            "every fetch was answered": len(visit.answers) == TASKS * FETCHES_OF_EACH_TASK
            and all(answer.startswith("this is /task/") for answer in visit.answers),
            "the server saw the same number of fetches": seen.requests == len(visit.answers) + 2 == len(visit.sessions_seen) + 1,
            "one session was opened, and all tasks shared it": len(visit.sessions) == 1,
            "it kept its connections, and used them again": 1 <= seen.connections <= TASKS < seen.requests,
            "it was open as long as the program ran": visit.open_while_running,
            "a task that was cancelled at the end could still use it": visit.farewell == "this is /farewell",
            "so could the visitors' book, at its own end": seen.entries_in_book == len(visit.answers),
            "no connection was closed before that": seen.closed_before_farewell == 0,
            "it is closed, now that its loop has ended": all(session.closed for session in visit.sessions),
            "the server saw every connection closed": seen.closed == seen.connections,
        }
        failed += [f"{visit.name}: it is not so that {claim}" for claim, holds in claims.items() if not holds]
    sessions = {id(session) for visit in visits for session in visit.sessions}
    if len(sessions) != len(visits):
        failed.append(f"{len(visits)} loops had {len(sessions)} different sessions, not one each")
    return failed


@contextmanager
def complaints_of_asyncio() -> Generator[list[str]]:
    """Collect the warnings that asyncio logs: failed exits, and tasks and sessions that were not closed."""
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


# The output: a live table in a terminal, otherwise plain text at the end.


def live_view(visits: list[Visit], server: Server) -> AbstractContextManager[Any] | None:
    """Return a live table of all loops; None without a suitable terminal, or without rich."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra, for this view alone
        from rich.live import Live  # noqa: PLC0415
    except ImportError:
        return None
    console = Console()
    if console.is_dumb_terminal:
        return None
    return Live(console=console, get_renderable=lambda: live_table(visits, server), refresh_per_second=12)


def live_table(visits: list[Visit], server: Server) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("event loop", no_wrap=True)
    table.add_column("fetches", min_width=8, max_width=24)
    table.add_column("its session", no_wrap=True)
    for visit in visits:
        fetches = server.seen.get(visit.name, Seen()).requests
        table.add_row(visit.name, ProgressBar(TASKS * FETCHES_OF_EACH_TASK + 2, fetches), state_of_session(visit))
    return table


def state_of_session(visit: Visit) -> str:
    sessions = visit.sessions
    if not sessions:
        return "[dim]not yet opened"
    if len(sessions) > 1:
        return f"[bold red]{len(sessions)} of them!"
    state = "[green]closed[/]" if sessions[0].closed else "[bold cyan]open[/]"
    return f"{state}, shared {len(visit.sessions_seen)} times"


def plain_table(visits: list[Visit], server: Server) -> str:
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


def main() -> int:
    in_main_thread = [Visit(f"main thread, no. {run}") for run in range(1, RUNS_IN_MAIN_THREAD + 1)]
    in_threads = [
        [Visit(f"thread {thread}, no. {run}") for run in range(1, RUNS_IN_EACH_THREAD + 1)] for thread in range(1, THREADS + 1)
    ]
    visits = [*in_main_thread, *(visit for each in in_threads for visit in each)]
    server = Server()
    view = live_view(visits, server)
    if view is not None:
        server.seconds_to_answer = 0.12  # slow enough to watch
    with complaints_of_asyncio() as complaints:
        base = server.start()
        try:
            print(f"A server listens at {base}. {TASKS} tasks on each event loop will fetch from it.")
            print("No task is handed a session. Each of them just says: async with _ClientSession() as session: ...")
            print()
            print(f"{RUNS_IN_MAIN_THREAD} times asyncio.run in the main thread, one after the other,")
            print(f"then {THREADS} threads at the same time, {RUNS_IN_EACH_THREAD} times asyncio.run in each.")
            with view or nullcontext(), ThreadPoolExecutor(THREADS) as threads:
                run_loops(base, in_main_thread)
                for running in [threads.submit(run_loops, base, each) for each in in_threads]:
                    running.result()
        finally:
            server.stop()
    print()
    if view is None:
        print(plain_table(visits, server))
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
    print()
    print("What the last of these loops held, and what needed what, as asyncio_loop_local.format_resources() shows it:")
    print()
    print(visits[-1].held)
    return 0


if __name__ == "__main__":
    sys.exit(main())
