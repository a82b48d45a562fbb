"""MCP's own client, with a real server process: one session a loop, held as long as the loop, for all its tasks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import TextContent

import asyncio_loop_local

if TYPE_CHECKING:
    from conftest import Run

SERVER = Path(__file__).with_name("mcp_server.py")


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
