"""What MCP's client does besides the contract: sessions in parts, sessions that die with their server, and cancelled callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client

import asyncio_loop_local
from conftest import Run
from lingering import Reports, begin_to_linger
from real_clients import McpHttp, McpStdio, mcp_session

of_stdio = pytest.mark.parametrize("client", [McpStdio], indirect=True)
of_http = pytest.mark.parametrize("client", [McpHttp], indirect=True)

_stdio = asyncio_loop_local.sticky_singleton_acm(stdio_client)
_ClientSession = asyncio_loop_local.sticky_singleton_acm(ClientSession)


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def session_in_three_parts(server: StdioServerParameters) -> AsyncGenerator[ClientSession]:
    async with _stdio(server) as (read, write), _ClientSession(read, write) as session:
        await session.initialize()
        yield session


@of_stdio
def test_transport_and_session_can_be_resources_of_their_own(run: Run, client: McpStdio) -> None:
    """Transport, session and what initializes it, wrapped each by itself, end in the order that their cancel scopes need."""

    async def main() -> None:
        async with session_in_three_parts(client.parameters) as session:
            await client.use(session, "a")
        async with _stdio(client.parameters) as (read, write), _ClientSession(read, write) as same:
            assert same is session
        assert client.connections() == 1

    run(main())
    assert client.connections() == 0


@of_stdio
def test_a_first_caller_that_is_cancelled_takes_no_session_from_the_others(run: Run, client: McpStdio) -> None:
    """The session outlives the task that entered it, also where that one is cancelled with a cancel scope of its own open."""

    async def enter_and_wait(entered: asyncio.Event) -> None:
        async with asyncio.timeout(None), mcp_session(client.parameters):
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        entered = asyncio.Event()
        first = asyncio.create_task(enter_and_wait(entered))
        await entered.wait()
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        await client.write("after")
        assert client.connections() == 1

    run(main())
    assert client.connections() == 0


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def watched_session(server: StdioServerParameters) -> AsyncGenerator[ClientSession]:
    """A session that dies with its server: MCP's own does so only at the next call."""
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session, asyncio.TaskGroup() as group:
        await session.initialize()
        watching = group.create_task(session.call_tool("never"))
        yield session
        watching.cancel()


@of_stdio
def test_a_session_that_dies_with_its_server_process_is_reported_and_made_anew(
    run: Run, client: McpStdio, reports: Reports
) -> None:
    """A session that watches its server dies with it, which is reported once; the next call has another session."""

    async def main() -> None:
        async with watched_session(client.parameters) as session:
            await client.use(session, "before")
        processes = len(client.server.pids)
        async with watched_session(client.parameters) as same:
            assert same is session
        await client.kill(session)
        await reports.came.wait()
        assert asyncio_loop_local.resources() == ()
        assert not await asyncio_loop_local.release(watched_session, client.parameters)
        async with watched_session(client.parameters) as another:
            await client.use(another, "after")
        assert another is not session
        assert len(client.server.pids) == processes + 1

    run(main())
    (report,) = reports.take()
    assert report["message"].startswith("watched_session(")
    assert report["message"].endswith(" died while it was held")


@of_http
def test_a_session_over_http_that_dies_with_its_server_is_reported_and_made_anew(
    run: Run, client: McpHttp, reports: Reports
) -> None:
    """A session whose server was killed fails the calls in flight, and dies of the next, which is reported once.

    The next call has a new session, and so has a task that is cancelled at the end of the loop.
    """
    talked_through: list[ClientSession] = []

    async def write() -> None:
        talked_through.append(await client.write("in a finally"))

    async def main() -> tuple[ClientSession, list[asyncio.Task[None]]]:
        tasks = await begin_to_linger(1, write)
        first = await client.write("before")
        call = asyncio.create_task(client.never(first))
        assert await asyncio.to_thread(client.hears, "never begun")
        await client.kill(first)
        with pytest.raises(MCPError, match="ended without a response"):
            await call
        assert reports.all == []
        with pytest.raises(MCPError, match="Connection closed"):
            await client.write("never")
        await reports.came.wait()
        assert asyncio_loop_local.resources() == ()
        assert not await client.call().release()
        await asyncio.to_thread(client.start)
        second = await client.write("after")
        assert second is not first
        return second, tasks

    second, (task,) = run(main())
    assert task.cancelled()
    assert talked_through == [second]
    name = f"mcp_session_over_http('http://127.0.0.1:{client.server.port}/mcp')"
    assert [report["message"] for report in reports.take()] == [f"{name} died while it was held"]
    assert client.has_got("before", "after", "in a finally")
