"""MCP's own client, with real server processes: one session a loop, held as long as the loop, for all its tasks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

import asyncio_loop_local
from servers import LONGEST_WAIT, SuiteServer, running

if TYPE_CHECKING:
    from conftest import Run

SERVER = Path(__file__).parents[1] / "support" / "mcp_server.py"


def parameters() -> StdioServerParameters:
    """What starts the server: a pydantic model, made anew for every call, which counts by value."""
    return StdioServerParameters(command=sys.executable, args=[str(SERVER)])


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def mcp_session(server: StdioServerParameters) -> AsyncGenerator[ClientSession]:
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


_stdio = asyncio_loop_local.sticky_singleton_acm(stdio_client)
_ClientSession = asyncio_loop_local.sticky_singleton_acm(ClientSession)


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def mcp_session_in_three_parts(server: StdioServerParameters) -> AsyncGenerator[ClientSession]:
    async with _stdio(server) as (read, write), _ClientSession(read, write) as session:
        await session.initialize()
        yield session


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def watched_mcp_session(server: StdioServerParameters) -> AsyncGenerator[ClientSession]:
    """A session that dies with its server: MCP's own waits for the next call to tell."""
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session, asyncio.TaskGroup() as group:
        await session.initialize()
        watching = group.create_task(session.call_tool("never"))
        yield session
        watching.cancel()


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def mcp_session_over_http(url: str) -> AsyncGenerator[ClientSession]:
    async with streamable_http_client(url) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


class HttpServer(SuiteServer):
    """A server on HTTP, and the session through which the test uses it."""

    def session(self) -> asyncio_loop_local.StickyACM[ClientSession]:
        return mcp_session_over_http(f"http://127.0.0.1:{self.port}/mcp")

    async def release(self) -> bool:
        return await asyncio_loop_local.release(mcp_session_over_http, f"http://127.0.0.1:{self.port}/mcp")

    async def add(self, first: int, second: int) -> ClientSession:
        """Adds up, on the server."""
        async with self.session() as session:
            assert await text_of(session, "add", first=first, second=second) == str(first + second)
            return session


@pytest.fixture(scope="module")
def http_server_of_module() -> Generator[HttpServer]:
    server = HttpServer("mcp_server.py")
    with running(server):
        yield server


@pytest.fixture
def http_server(http_server_of_module: HttpServer) -> Generator[HttpServer]:
    yield http_server_of_module
    if not http_server_of_module.is_running():
        http_server_of_module.start()


class Complaints:
    """What the running loop's exception handler is told."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.come = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._take(context))

    def _take(self, context: dict[str, Any]) -> None:
        self.all.append(context)
        self.come.set()

    @property
    def messages(self) -> list[str]:
        return [context["message"] for context in self.all]


async def text_of(session: ClientSession, tool: str, **arguments: object) -> str:
    result = await session.call_tool(tool, arguments)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def server_process() -> tuple[ClientSession, int]:
    async with mcp_session(parameters()) as session:
        return session, int(await text_of(session, "process_id"))


def exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_tasks_of_a_loop_talk_through_one_session(run: Run) -> None:
    """Tasks that come and go use one session, in one server process, which is gone when the loop has ended."""

    async def add(first: int, second: int) -> str:
        async with mcp_session(parameters()) as session:
            return await text_of(session, "add", first=first, second=second)

    async def main() -> int:
        sums = await asyncio.gather(*(add(number, 100) for number in range(10)))
        assert sums == [str(number + 100) for number in range(10)]
        session, process = await asyncio.create_task(server_process())
        assert await server_process() == (session, process)
        assert exists(process)
        return process

    assert not exists(run(main()))


def test_a_task_that_is_cancelled_at_the_end_talks_in_its_finally(run: Run) -> None:
    """A task that the runner cancels can still call a tool while it cleans up: the session's own tasks are alive."""
    farewells: list[tuple[ClientSession, int]] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            farewells.append(await server_process())

    async def main() -> tuple[ClientSession, int, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        session, process = await server_process()
        return session, process, task

    session, process, task = run(main())
    assert task.cancelled()
    assert farewells == [(session, process)]
    assert not exists(process)


def test_transport_and_session_can_be_resources_of_their_own(run: Run) -> None:
    """Transport, session and what initializes it, wrapped each by itself, end in the order that their cancel scopes need."""
    complaints: list[object] = []

    async def main() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with mcp_session_in_three_parts(parameters()) as session:
            process = int(await text_of(session, "process_id"))
        async with _stdio(parameters()) as (read, write), _ClientSession(read, write) as same:
            assert same is session
        return process

    assert not exists(run(main()))
    assert complaints == []


def test_a_second_loop_starts_a_server_of_its_own(run: Run) -> None:
    """The second loop in a process gets a working session, and neither loop leaves a server behind."""
    first, first_process = run(server_process())
    assert not exists(first_process)
    second, second_process = run(server_process())
    assert not exists(second_process)
    assert first is not second


def test_a_first_caller_that_is_cancelled_takes_no_session_from_the_others(run: Run) -> None:
    """The session outlives the task that entered it, also where that one is cancelled with a cancel scope of its own open."""

    async def main() -> int:
        async def enter_and_wait() -> None:
            async with asyncio.timeout(None), mcp_session(parameters()):
                entered.set()
                await asyncio.Event().wait()

        entered = asyncio.Event()
        first = asyncio.create_task(enter_and_wait())
        await entered.wait()
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        _, process = await server_process()
        assert exists(process)
        return process

    assert not exists(run(main()))


def test_aclose_ends_the_server_and_the_next_call_starts_another(run: Run) -> None:
    """After ``aclose`` the server process is gone, the loop goes on, and the next call has a new session."""

    async def main() -> int:
        _, first = await server_process()
        await asyncio_loop_local.aclose()
        assert not exists(first)
        _, second = await server_process()
        assert exists(second)
        return second

    assert not exists(run(main()))


def test_closing_a_loop_by_hand_ends_its_server(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its session between the runs, and ``close()`` ends the server."""
    loop = new_loop()
    try:
        first = loop.run_until_complete(server_process())
        assert loop.run_until_complete(server_process()) == first
    finally:
        loop.close()
    assert not exists(first[1])


def test_loops_in_several_threads_have_a_session_each(run: Run) -> None:
    """Loops that run at the same time in several threads talk to a server of their own each, and leave none behind."""
    one_at_a_time = threading.Lock()  # uvloop refuses to spawn processes on two loops at the same time
    all_are_open = threading.Barrier(2, timeout=LONGEST_WAIT)

    async def main() -> int:
        with one_at_a_time:
            _, process = await server_process()
        await asyncio.to_thread(all_are_open.wait)
        assert (await server_process())[1] == process
        return process

    def run_in_thread(_: int) -> int:
        return run(main())

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run_in_thread, range(2))
    assert first != second
    assert not exists(first)
    assert not exists(second)


def test_a_session_whose_server_process_was_killed_is_released_and_made_anew(run: Run) -> None:
    """Who calls a server that was killed gets MCP's own error until ``release``; the next call has another session."""

    async def main() -> int:
        complaints = Complaints()
        session, first = await server_process()
        call = asyncio.create_task(session.call_tool("never"))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(MCPError, match="Connection closed"):
            await call
        with pytest.raises(MCPError, match="Connection closed"):
            await server_process()
        assert await asyncio_loop_local.release(mcp_session, parameters())
        assert not await asyncio_loop_local.release(mcp_session, parameters())
        again, second = await server_process()
        assert again is not session
        assert second != first
        assert complaints.all == []
        return second

    assert not exists(run(main()))


def test_a_session_that_dies_with_its_server_process_is_reported_and_made_anew(run: Run) -> None:
    """A session that watches its server dies with it, which is reported once; the next call has another session."""

    async def main() -> int:
        complaints = Complaints()
        async with watched_mcp_session(parameters()) as session:
            first = int(await text_of(session, "process_id"))
        async with watched_mcp_session(parameters()) as same:
            assert same is session
        os.kill(first, signal.SIGKILL)
        await complaints.come.wait()
        (message,) = complaints.messages
        assert message.startswith("watched_mcp_session(")
        assert message.endswith(" died while it was held")
        assert asyncio_loop_local.resources() == ()
        assert not await asyncio_loop_local.release(watched_mcp_session, parameters())
        async with watched_mcp_session(parameters()) as another:
            second = int(await text_of(another, "process_id"))
        assert second != first
        assert len(complaints.all) == 1
        return second

    assert not exists(run(main()))


def test_a_session_over_http_serves_all_tasks_and_leaves_no_connection(run: Run, http_server: HttpServer) -> None:
    """All tasks of a loop talk through one session, each of several loops in a row has its own, and no connection is left."""
    sessions: list[ClientSession] = []

    async def main() -> ClientSession:
        complaints = Complaints()
        sessions = await asyncio.gather(*(http_server.add(number, 100) for number in range(10)))
        assert all(session is sessions[0] for session in sessions)
        assert http_server.connections() > 0
        assert complaints.all == []
        return sessions[0]

    for _ in range(3):
        sessions.append(run(main()))
        assert http_server.wait_for_no_connection()
    assert len({id(session) for session in sessions}) == 3


def test_loops_in_several_threads_have_a_session_over_http_each(run: Run, http_server: HttpServer) -> None:
    """Loops that run at the same time in several threads have a session each, and leave no connection."""
    all_are_open = threading.Barrier(3, timeout=LONGEST_WAIT)

    async def main(number: int) -> ClientSession:
        session = await http_server.add(number, 1)
        await asyncio.to_thread(all_are_open.wait)
        assert await http_server.add(number, 2) is session
        return session

    def run_in_thread(number: int) -> ClientSession:
        return run(main(number))

    with ThreadPoolExecutor(3) as threads:
        sessions = list(threads.map(run_in_thread, range(3)))
    assert len({id(session) for session in sessions}) == 3
    assert http_server.wait_for_no_connection()


def test_a_session_over_http_that_dies_with_its_server_is_reported_and_made_anew(run: Run, http_server: HttpServer) -> None:
    """A session whose server was killed fails the calls in flight, and dies of the next, which is reported once.

    The next call has a new session, and so has a task that is cancelled at the end of the loop.
    """
    talked_through: list[ClientSession] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            talked_through.append(await http_server.add(3, 4))

    async def main() -> tuple[ClientSession, asyncio.Task[None], Complaints]:
        complaints = Complaints()
        task = asyncio.create_task(linger())
        first = await http_server.add(1, 2)
        call = asyncio.create_task(first.call_tool("never"))
        assert await asyncio.to_thread(http_server.hears, "never begun")
        await asyncio.to_thread(http_server.kill)
        with pytest.raises(MCPError, match="ended without a response"):
            await call
        assert complaints.all == []
        with pytest.raises(MCPError, match="Connection closed"):
            await http_server.add(1, 2)
        await complaints.come.wait()
        assert asyncio_loop_local.resources() == ()
        assert not await http_server.release()
        await asyncio.to_thread(http_server.start)
        second = await http_server.add(1, 2)
        assert second is not first
        return second, task, complaints

    second, task, complaints = run(main())
    assert task.cancelled()
    assert talked_through == [second]
    name = f"mcp_session_over_http('http://127.0.0.1:{http_server.port}/mcp')"
    assert complaints.messages == [f"{name} died while it was held"]
    assert http_server.wait_for_no_connection()


def test_release_lets_go_of_a_session_over_http_and_the_next_call_has_another(run: Run, http_server: HttpServer) -> None:
    """After ``release`` no connection is left, the loop goes on, and the next call has a new session."""

    async def main() -> None:
        first = await http_server.add(1, 2)
        assert await http_server.release()
        assert await asyncio.to_thread(http_server.wait_for_no_connection)
        assert await http_server.add(1, 2) is not first

    run(main())
    assert http_server.wait_for_no_connection()


def test_a_loop_ends_in_good_order_while_its_server_is_down(run: Run, http_server: HttpServer) -> None:
    """A loop whose server was killed ends as ever, and nothing is complained of; the next one works when the server is back."""

    async def main() -> Complaints:
        complaints = Complaints()
        await http_server.add(1, 2)
        await asyncio.to_thread(http_server.kill)
        return complaints

    assert run(main()).all == []
    http_server.start()
    run(http_server.add(1, 2))
    assert http_server.wait_for_no_connection()
