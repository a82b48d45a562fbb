"""redis-py's client, on a real Redis server: one client per loop, and no connection of it left on the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import asyncio_loop_local
from lingering import linger, reports_of_this_loop
from servers import LONGEST_WAIT, running
from servers_redis import RedisServer

if TYPE_CHECKING:
    from conftest import Run

# A few keywords of redis-py's have types that pyright does not know.
_redis = cast(
    "Callable[..., asyncio_loop_local.StickyACM[redis.asyncio.Redis]]",
    asyncio_loop_local.sticky_singleton_acm(redis.asyncio.Redis),
)


class Database:
    """The server as one test sees it: all its connections and keys bear the test's own name."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.server = server
        self.name = name

    def client(self) -> asyncio_loop_local.StickyACM[redis.asyncio.Redis]:
        """Asks for the client, as an application would: with arguments made anew for every call."""
        return _redis(
            host="127.0.0.1",
            port=self.server.port,
            client_name=self.name,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),
        )

    async def write(self, note: str) -> redis.asyncio.Redis:
        """Writes a note through the client."""
        async with self.client() as client:
            await client.rpush(f"{self.name} notes", note)
            return client

    def notes(self) -> list[str]:
        """The notes that were written, in their order."""
        return self.server.list(f"{self.name} notes")

    def connections(self) -> int:
        """How many connections of this test there are."""
        return len(self.server.clients(self.name))

    def wait_for_connections(self, number: int) -> bool:
        return self.server.wait_for_clients(number, self.name)


@pytest.fixture(scope="module")
def server() -> Generator[RedisServer]:
    server = RedisServer()
    with running(server):
        yield server
        server.count()
        print(f"\nRedis: {server.connections} connections, {server.commands} commands, {server.kills} kills")


@pytest.fixture
def database(server: RedisServer, request: pytest.FixtureRequest) -> Generator[Database]:
    yield Database(server, f"test-{abs(hash(request.node.nodeid)):x}")
    if not server.is_running():  # the test has failed
        server.start()
    assert server.wait_for_clients(0), "a connection was left on the server"


def test_a_client_serves_all_tasks_and_leaves_no_connection(run: Run, database: Database) -> None:
    """All tasks of a loop share one client, whose connections are all gone from the server when the loop has ended."""

    async def main() -> list[redis.asyncio.Redis]:
        clients = await asyncio.gather(*(database.write(f"{number:02}") for number in range(20)))
        assert 1 <= database.connections() <= 20
        return clients

    clients = run(main())
    assert all(client is clients[0] for client in clients)
    assert sorted(database.notes()) == [f"{number:02}" for number in range(20)]
    assert database.wait_for_connections(0)


def test_a_task_that_is_cancelled_while_it_waits_on_the_server_writes_in_its_finally(run: Run, database: Database) -> None:
    """A task that the runner cancels in a blocking command can still write while it cleans up, through the same client."""
    written_through: list[redis.asyncio.Redis] = []

    async def consume() -> None:
        try:
            async with database.client() as client:
                await client.blpop([f"{database.name} nothing"], timeout=0)
        finally:
            written_through.append(await database.write("in a finally"))

    async def is_waiting() -> bool:
        async with database.client() as client:
            info: dict[str, Any] = await client.info("clients")  # pyright: ignore[reportUnknownMemberType]  # of redis-py
            return bool(info["blocked_clients"] == 1)

    async def main() -> tuple[redis.asyncio.Redis, asyncio.Task[None]]:
        task = asyncio.create_task(consume())
        client = await database.write("at the beginning")
        while not await is_waiting():
            pass
        return client, task

    client, task = run(main())
    assert task.cancelled()
    assert written_through == [client]
    assert database.notes() == ["at the beginning", "in a finally"]
    assert database.wait_for_connections(0)


def test_a_client_that_is_first_needed_in_a_finally_is_closed_too(run: Run, database: Database) -> None:
    """A client that is first opened while the runner cancels tasks serves them, and is closed after them."""

    async def main() -> asyncio.Task[None]:
        begun = asyncio.Event()
        task = asyncio.create_task(linger(begun, lambda: database.write("in a finally")))
        await begun.wait()
        return task

    assert run(main()).cancelled()
    assert database.notes() == ["in a finally"]
    assert database.wait_for_connections(0)


def test_a_lock_of_a_task_that_is_cancelled_at_the_end_is_released_on_the_server(run: Run, database: Database) -> None:
    """Who holds a lock on the server when the program ends gives it back: the client is there for that."""
    name = f"{database.name} lock"

    async def hold(held: asyncio.Event) -> None:
        async with database.client() as client, client.lock(name):
            held.set()
            await asyncio.Event().wait()

    async def main() -> None:
        held = asyncio.Event()
        asyncio_loop_local.storage()["holder"] = asyncio.create_task(hold(held))
        await held.wait()
        async with database.client() as client:
            assert await client.exists(name) == 1

    run(main())
    with database.server.admin() as admin:
        assert admin.exists(name) == 0
    assert database.wait_for_connections(0)


def test_a_listener_hears_all_that_is_published_up_to_its_exit(run: Run, database: Database) -> None:
    """A subscriber with a task of its own hears what cancelled tasks publish in their ``finally``, and its client outlives it."""
    channel = f"{database.name} channel"

    @asynccontextmanager
    async def make_listener() -> AsyncGenerator[list[str]]:
        heard: list[str] = []
        async with database.client() as client, client.pubsub() as pubsub:  # pyright: ignore[reportUnknownMemberType]  # of redis-py
            subscribed = asyncio.Event()

            async def listen() -> None:
                messages = cast("AsyncIterator[dict[str, Any]]", pubsub.listen())  # pyright: ignore[reportUnknownMemberType]  # of redis-py
                async for message in messages:
                    if message["type"] == "subscribe":
                        subscribed.set()
                    elif message["data"] == "the end":
                        return
                    else:
                        heard.append(message["data"])

            await pubsub.subscribe(channel)  # pyright: ignore[reportUnknownMemberType]  # of redis-py
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(listen())
                await subscribed.wait()
                yield heard
                await publish("the end")

    listener = asyncio_loop_local.sticky_singleton_acm(make_listener)

    async def publish(message: str) -> None:
        async with database.client() as client:
            assert await client.publish(channel, message) == 1  # pyright: ignore[reportUnknownMemberType]  # of redis-py

    async def main() -> tuple[list[str], list[asyncio.Task[None]]]:
        begun = [asyncio.Event() for _ in range(5)]
        async with listener() as heard:
            tasks = [asyncio.create_task(linger(each, lambda: publish("in a finally"))) for each in begun]
            for each in begun:
                await each.wait()
            await publish("at the beginning")
        return heard, tasks

    heard, tasks = run(main())
    assert all(task.cancelled() for task in tasks)
    assert heard == ["at the beginning"] + ["in a finally"] * 5
    assert database.wait_for_connections(0)


def test_each_of_several_loops_in_a_row_has_a_client_of_its_own(run: Run, database: Database) -> None:
    """What fails with a client in a global variable works: each loop opens its own, and closes it."""
    clients: list[redis.asyncio.Redis] = []
    for number in range(5):
        clients.append(run(database.write(str(number))))
        assert database.wait_for_connections(0)
    assert len({id(client) for client in clients}) == 5
    assert database.notes() == ["0", "1", "2", "3", "4"]


def test_loops_in_several_threads_have_a_client_each(run: Run, database: Database) -> None:
    """Loops that run at the same time in several threads have a client each, and leave nothing on the server."""
    all_are_open = threading.Barrier(4, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(4, timeout=LONGEST_WAIT)
    counted: list[int] = []

    async def main(number: int) -> redis.asyncio.Redis:
        client = await database.write(f"from {number}")
        if await asyncio.to_thread(all_are_open.wait) == 0:
            counted.append(await asyncio.to_thread(database.connections))
        await asyncio.to_thread(all_are_counted.wait)
        assert await database.write(f"from {number}") is client
        return client

    def run_in_thread(number: int) -> redis.asyncio.Redis:
        return run(main(number))

    with ThreadPoolExecutor(4) as threads:
        clients = list(threads.map(run_in_thread, range(4)))
    assert counted == [4]
    assert len({id(client) for client in clients}) == 4
    assert sorted(database.notes()) == [f"from {number}" for number in range(4) for _ in range(2)]
    assert database.wait_for_connections(0)


def test_a_client_works_again_when_its_server_has_been_killed_and_is_back(run: Run, database: Database) -> None:
    """While the server is dead, the client says so; when it is back, the same client goes on, and is closed at the end."""

    async def main() -> None:
        client = await database.write("before")
        await asyncio.to_thread(database.server.kill)
        with pytest.raises(redis.ConnectionError):
            await database.write("never")
        await asyncio.to_thread(database.server.start)
        assert await database.write("after") is client
        await asyncio.to_thread(database.server.restart)
        assert await database.write("after another restart") is client

    run(main())
    assert database.notes() == ["before", "after", "after another restart"]
    assert database.wait_for_connections(0)


def test_what_was_acknowledged_is_there_after_a_kill_in_mid_use(run: Run, database: Database) -> None:
    """Eight tasks write while the server is killed and started again: each gets an error or an acknowledgement that holds."""
    acknowledged: list[str] = []
    failures: list[redis.ConnectionError] = []

    async def write_many(writer: int, first_written: asyncio.Event, dead: asyncio.Event, back: asyncio.Event) -> None:
        for number in range(40):
            note = f"{writer}: {number}"
            try:
                await database.write(note)
            except redis.ConnectionError as error:
                failures.append(error)
                dead.set()
                await back.wait()
                await database.write(note)
            acknowledged.append(note)
            if number == 5:
                first_written.set()
                await dead.wait()

    async def main() -> None:
        first_written, dead, back = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as writers:
            for writer in range(8):
                writers.create_task(write_many(writer, first_written, dead, back))
            await first_written.wait()
            await asyncio.to_thread(database.server.kill)
            dead.set()
            await asyncio.to_thread(database.server.start)
            back.set()

    run(main())
    assert len(acknowledged) == 8 * 40
    assert set(database.notes()) == set(acknowledged)
    assert len(database.notes()) <= len(acknowledged) + len(failures)  # what failed may have been written all the same
    assert database.wait_for_connections(0)


def test_a_client_of_a_dead_server_is_released_and_made_anew(run: Run, database: Database) -> None:
    """``release`` lets go of a client whose server is dead, without hanging, and the next call opens one to the new server."""

    @asynccontextmanager
    async def make_registration() -> AsyncGenerator[redis.asyncio.Redis]:
        async with database.client() as client:
            await client.set(f"{database.name} here", "yes")
            yield client
            await client.delete(f"{database.name} here")

    registration = asyncio_loop_local.sticky_singleton_acm(make_registration)

    async def main() -> list[dict[str, Any]]:
        reports = reports_of_this_loop()
        async with registration() as first:
            pass
        await asyncio.to_thread(database.server.kill)
        with pytest.raises(redis.ConnectionError):
            await asyncio_loop_local.release(registration)
        assert not await asyncio_loop_local.release(registration)
        assert await asyncio_loop_local.release(
            _redis,
            host="127.0.0.1",
            port=database.server.port,
            client_name=database.name,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),
        )
        assert not asyncio_loop_local.resources()
        await asyncio.to_thread(database.server.start)
        async with registration() as second:
            assert second is not first
            assert await second.get(f"{database.name} here") == "yes"
        return reports

    assert run(main()) == []
    with database.server.admin() as admin:
        assert admin.exists(f"{database.name} here") == 0
    assert database.wait_for_connections(0)


def test_a_loop_whose_server_is_dead_ends_and_reports_the_exit_that_failed(run: Run, database: Database) -> None:
    """A loop ends where its server is dead: the exit that needed it is reported, by name, and the client is closed."""

    @asynccontextmanager
    async def make_registration() -> AsyncGenerator[None]:
        async with database.client() as client:
            yield
            await client.delete(f"{database.name} here")

    registration = asyncio_loop_local.sticky_singleton_acm(make_registration)

    async def main() -> list[dict[str, Any]]:
        reports = reports_of_this_loop()
        async with registration():
            await database.write("before")
        await asyncio.to_thread(database.server.kill)
        return reports

    reports = run(main())
    database.server.start()
    assert [type(report["exception"]) for report in reports] == [redis.ConnectionError]
    assert "make_registration" in reports[0]["message"]
    assert database.notes() == ["before"]
    assert database.wait_for_connections(0)


def test_aclose_closes_the_client_and_the_next_call_opens_another(run: Run, database: Database) -> None:
    """After ``aclose`` nothing is left on the server, the loop goes on, and who writes next gets a new client."""

    async def main() -> tuple[redis.asyncio.Redis, redis.asyncio.Redis]:
        first = await database.write("before")
        await asyncio_loop_local.aclose()
        assert await asyncio.to_thread(database.wait_for_connections, 0)
        return first, await database.write("after")

    first, second = run(main())
    assert first is not second
    assert database.notes() == ["before", "after"]
    assert database.wait_for_connections(0)


def test_closing_a_loop_by_hand_closes_its_client(new_loop: Callable[[], asyncio.AbstractEventLoop], database: Database) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its client between the runs, and ``close()`` closes it."""
    loop = new_loop()
    try:
        client = loop.run_until_complete(database.write("1"))
        assert loop.run_until_complete(database.write("2")) is client
    finally:
        loop.close()
    assert database.notes() == ["1", "2"]
    assert database.wait_for_connections(0)
