"""The clients and their servers; and a check, after each test, that nothing was reported or left open."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any

import pytest

from conftest import Run
from lingering import Reports
from real_clients import CLIENTS, AnyClient, NewServer
from servers import running

StartOnce = Callable[[NewServer], Any]


@pytest.fixture
def reports() -> Generator[Reports]:
    """What loops report in the test; a test that expects reports takes them."""
    reports = Reports()
    yield reports
    assert reports.all == []


@pytest.fixture
def run(run: Run, reports: Reports) -> Run:
    """Each way to run a loop, one after the other; what the loop reports is recorded."""
    return reports.watched(run)


@pytest.fixture(scope="module")
def start_once() -> Generator[StartOnce]:
    """Starts a server when a test first needs it, and stops it after the tests of its module."""
    with ExitStack() as stack:
        started: dict[NewServer, Any] = {}

        def start(server: NewServer) -> Any:
            if server not in started:
                started[server] = stack.enter_context(running(server()))
            return started[server]

        yield start


@pytest.fixture(params=CLIENTS, ids=lambda each: each.__name__)
def client(request: pytest.FixtureRequest, start_once: StartOnce, reports: Reports) -> Generator[AnyClient]:
    """Each client, on its server; a module of one client says which."""
    kind: type[AnyClient] = request.param
    client = kind(start_once(kind.new_server), f"test-{abs(hash(request.node.nodeid)):x}")
    reports.is_noise = client.is_noise
    with client:
        yield client
        if not client.server.is_running():  # the test has failed
            client.start()
        assert client.was_left_in_good_order()
