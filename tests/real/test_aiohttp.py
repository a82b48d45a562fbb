"""aiohttp's client, against a real server: one session per loop, closed when its loop ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import aiohttp
import pytest

import asyncio_loop_local
from servers import HttpServer

if TYPE_CHECKING:
    from conftest import Run

_ClientSession = asyncio_loop_local.sticky_singleton_acm(aiohttp.ClientSession)


@pytest.fixture
def server() -> Generator[HttpServer]:
    with HttpServer() as server:
        yield server


async def fetch(url: str) -> tuple[aiohttp.ClientSession, str]:
    async with _ClientSession() as session, session.get(url) as response:
        return session, await response.text()


def test_all_tasks_of_a_loop_fetch_through_one_session(run: Run, server: HttpServer) -> None:
    """Every task of a loop gets the same session, which reuses its connections, and is closed with all of them at the end."""

    async def fetch_in_turn(number: int) -> list[tuple[aiohttp.ClientSession, str]]:
        return [await fetch(f"{server.url}/{number}/{page}") for page in range(5)]

    async def main() -> list[tuple[aiohttp.ClientSession, str]]:
        several = await asyncio.gather(*(fetch_in_turn(number) for number in range(10)))
        assert not several[0][0][0].closed
        assert 1 <= server.open_connections() <= 10
        return [fetched for each in several for fetched in each]

    fetched = run(main())
    assert [text for _, text in fetched] == [f"/{number}/{page}" for number in range(10) for page in range(5)]
    session = fetched[0][0]
    assert all(other is session for other, _ in fetched)
    assert session.closed
    assert session.connector is None
    assert server.wait_until_all_closed()


def test_the_connector_of_a_session_is_closed_with_it(run: Run, server: HttpServer) -> None:
    """The connector, which holds the connections, is closed at the end of the loop, and not before."""

    async def main() -> aiohttp.BaseConnector:
        session, _ = await fetch(server.url)
        assert session.connector is not None
        assert not session.connector.closed
        return session.connector

    assert run(main()).closed


def test_a_second_loop_fetches_through_a_session_of_its_own(run: Run, server: HttpServer) -> None:
    """What fails with a session in a global variable works: a second loop opens its own, and never meets the first one's."""
    first, text = run(fetch(f"{server.url}/first"))
    second, other_text = run(fetch(f"{server.url}/second"))
    assert (text, other_text) == ("/first", "/second")
    assert first is not second
    assert first.closed
    assert second.closed


def test_loops_in_several_threads_have_a_session_each(run: Run, server: HttpServer) -> None:
    """Loops that run at the same time in several threads have a session each, and close it each at its own end."""
    all_are_open = threading.Barrier(4)

    async def main(number: int) -> aiohttp.ClientSession:
        session, _ = await fetch(f"{server.url}/{number}")
        await asyncio.to_thread(all_are_open.wait)
        assert not session.closed
        again, _ = await fetch(f"{server.url}/{number}/again")
        assert again is session
        return session

    def run_in_thread(number: int) -> aiohttp.ClientSession:
        return run(main(number))

    with ThreadPoolExecutor(4) as threads:
        sessions = list(threads.map(run_in_thread, range(4)))
    assert len({id(session) for session in sessions}) == 4
    assert all(session.closed for session in sessions)
    assert len(server.requests) == 8
    assert server.wait_until_all_closed()


def test_a_task_that_is_cancelled_at_the_end_fetches_in_its_finally(run: Run, server: HttpServer) -> None:
    """A task that the runner cancels can still fetch while it cleans up, through the session that it has always used."""
    farewells: list[tuple[aiohttp.ClientSession, str]] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            farewells.append(await fetch(f"{server.url}/farewell"))

    async def main() -> tuple[aiohttp.ClientSession, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        session, _ = await fetch(f"{server.url}/hello")
        return session, task

    session, task = run(main())
    assert task.cancelled()
    assert farewells == [(session, "/farewell")]
    assert server.paths == ["/hello", "/farewell"]
    assert session.closed


def test_a_task_that_is_cancelled_at_the_end_may_be_the_first_to_fetch(run: Run, server: HttpServer) -> None:
    """A session that is first opened while the runner cancels tasks is closed too."""
    farewells: list[tuple[aiohttp.ClientSession, str]] = []

    async def linger(begun: asyncio.Event) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            farewells.append(await fetch(f"{server.url}/farewell"))

    async def main() -> asyncio.Task[None]:
        begun = asyncio.Event()
        task = asyncio.create_task(linger(begun))
        await begun.wait()
        return task

    assert run(main()).cancelled()
    assert [text for _, text in farewells] == ["/farewell"]
    assert farewells[0][0].closed
    assert server.wait_until_all_closed()


def test_a_fetch_that_is_cancelled_by_the_end_leaves_nothing_open(run: Run, server: HttpServer) -> None:
    """A request that is under way when the program ends is given up, and its connection closed."""

    async def main() -> asyncio.Task[tuple[aiohttp.ClientSession, str]]:
        task = asyncio.create_task(fetch(f"{server.url}/never"))
        while not server.requests:
            await asyncio.sleep(0)
        return task

    assert run(main()).cancelled()
    assert server.wait_until_all_closed()


def test_equal_arguments_are_one_session_and_others_another(run: Run, server: HttpServer) -> None:
    """A base URL, headers and a timeout may be given; equal ones, made anew for each call, are the same session."""

    async def main() -> None:
        def make(agent: str) -> asyncio_loop_local.StickyACM[aiohttp.ClientSession]:
            return _ClientSession(
                base_url=server.url,
                headers={"User-Agent": agent, "Accept": "text/plain"},
                timeout=aiohttp.ClientTimeout(total=20),
            )

        sessions: list[aiohttp.ClientSession] = []
        for agent in ("one", "other", "one"):
            async with make(agent) as session, session.get("/relative") as response:
                assert await response.text() == "/relative"
                assert session.timeout.total == 20
                sessions.append(session)
        assert sessions[0] is sessions[2]
        assert sessions[0] is not sessions[1]
        async with (
            _ClientSession(server.url, headers={}) as positional,
            _ClientSession(headers={}, base_url=server.url) as by_name,
        ):
            assert positional is by_name
            assert positional not in sessions

    run(main())
    assert [request.headers["User-Agent"] for request in server.requests] == ["one", "other", "one"]
    assert server.wait_until_all_closed()


def test_headers_that_change_later_change_no_session_that_was_made(run: Run, server: HttpServer) -> None:
    """Headers count as they are when the session is asked for: after a change they ask for another session."""

    async def main() -> None:
        headers = {"X-Tenant": "a"}
        async with _ClientSession(headers=headers) as first:
            pass
        headers["X-Tenant"] = "b"
        async with _ClientSession(headers=headers) as second, _ClientSession(headers={"X-Tenant": "a"}) as first_again:
            assert second is not first
            assert first_again is first
            for session in (first, second):
                async with session.get(server.url):
                    pass

    run(main())
    assert [request.headers["X-Tenant"] for request in server.requests] == ["a", "b"]


def test_a_resource_that_fetches_in_its_exit_still_has_its_session(run: Run, server: HttpServer) -> None:
    """A resource that came to use the session long after it was entered itself is exited before the session, which is newer."""
    farewells: list[tuple[aiohttp.ClientSession, str]] = []

    class Registration:
        """Registers when it is asked to, and takes that back in its exit."""

        async def __aenter__(self) -> Registration:
            self._wanted = asyncio.Event()
            self._done = asyncio.Event()
            self._task = asyncio.create_task(self._register())
            return self

        async def register(self) -> None:
            self._wanted.set()
            await self._done.wait()

        async def _register(self) -> None:
            await self._wanted.wait()
            await fetch(f"{server.url}/register")
            self._done.set()

        async def __aexit__(self, *_: object) -> None:
            await self._task
            farewells.append(await fetch(f"{server.url}/unregister"))

    async def main() -> aiohttp.ClientSession:
        registration = await asyncio_loop_local.enter(Registration())
        session, _ = await fetch(f"{server.url}/hello")
        await registration.register()
        return session

    session = run(main())
    assert server.paths == ["/hello", "/register", "/unregister"]
    assert farewells == [(session, "/unregister")]
    assert session.closed
    assert server.wait_until_all_closed()


def test_aclose_closes_the_session_and_the_next_fetch_opens_another(run: Run, server: HttpServer) -> None:
    """After ``aclose`` the loop goes on, and whoever fetches next gets a new session."""

    async def main() -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        first, _ = await fetch(f"{server.url}/before")
        await asyncio_loop_local.aclose()
        assert first.closed
        second, text = await fetch(f"{server.url}/after")
        assert text == "/after"
        assert not second.closed
        return first, second

    first, second = run(main())
    assert first is not second
    assert second.closed


def test_closing_a_loop_by_hand_closes_its_session(new_loop: Callable[[], asyncio.AbstractEventLoop], server: HttpServer) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its session between the runs, and ``close()`` closes it."""
    loop = new_loop()
    try:
        session, _ = loop.run_until_complete(fetch(f"{server.url}/1"))
        again, _ = loop.run_until_complete(fetch(f"{server.url}/2"))
        assert again is session
        assert session.connector is not None
    finally:
        loop.close()
    assert session.closed
    assert server.wait_until_all_closed()
