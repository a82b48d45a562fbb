"""What aiohttp's client does besides the contract: its arguments say which session it is."""

from __future__ import annotations

import aiohttp
import pytest

import asyncio_loop_local
from conftest import Run
from real_clients import Aiohttp

pytestmark = pytest.mark.parametrize("client", [Aiohttp], indirect=True)

_ClientSession = asyncio_loop_local.sticky_singleton_acm(aiohttp.ClientSession)


def test_equal_arguments_are_one_session_and_others_another(run: Run, client: Aiohttp) -> None:
    """A base URL, headers and a timeout may be given; equal ones, made anew for each call, are the same session."""

    async def main() -> None:
        sessions: list[aiohttp.ClientSession] = []
        for agent in ("one", "other", "one"):
            headers = {"User-Agent": agent, "Accept": "text/plain"}
            timeout = aiohttp.ClientTimeout(total=20)
            async with _ClientSession(base_url=client.server.url, headers=headers, timeout=timeout) as session:
                async with session.get("/relative") as response:
                    assert await response.text() == "/relative"
                assert session.timeout.total == 20
                sessions.append(session)
        assert sessions[0] is sessions[2]
        assert sessions[0] is not sessions[1]
        async with (
            _ClientSession(client.server.url, headers={}) as positional,
            _ClientSession(headers={}, base_url=client.server.url) as by_name,
        ):
            assert positional is by_name
            assert positional not in sessions

    run(main())
    assert [request.headers["User-Agent"] for request in client.server.requests[-3:]] == ["one", "other", "one"]


def test_headers_that_change_later_change_no_session_that_was_made(run: Run, client: Aiohttp) -> None:
    """Headers count as they are at the time of the call: after a change, the same call gets another session."""

    async def main() -> None:
        headers = {"X-Tenant": "a"}
        async with _ClientSession(headers=headers) as first:
            pass
        headers["X-Tenant"] = "b"
        async with _ClientSession(headers=headers) as second, _ClientSession(headers={"X-Tenant": "a"}) as first_again:
            assert second is not first
            assert first_again is first
            for session in (first, second):
                async with session.get(client.server.url):
                    pass

    run(main())
    assert [request.headers["X-Tenant"] for request in client.server.requests[-2:]] == ["a", "b"]
