"""nats-py's client, on a real NATS server: one client per loop, drained at its end, and not one message lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import nats.errors
import pytest

import asyncio_loop_local
from lingering import begin_to_linger, reports_of_this_loop
from servers import LONGEST_WAIT, running
from servers_nats import Connection, NatsServer, Stream, Subscriber, connection

if TYPE_CHECKING:
    from conftest import Run

_connection = asyncio_loop_local.sticky_singleton_acm(connection)


class Subject:
    """The server as one test sees it: all its connections, subjects and streams bear the test's own name."""

    def __init__(self, server: NatsServer, name: str) -> None:
        self.server = server
        self.name = name

    def connection(self) -> asyncio_loop_local.StickyACM[Connection]:
        """Asks for the client, as an application would."""
        return _connection(self.server.url, name=self.name)

    async def publish(self, message: str) -> Connection:
        """Publishes through the client, which need not have sent it yet when this returns."""
        async with self.connection() as connection:
            await connection.publish(self.name, message)
            return connection

    def subscriber(self) -> Subscriber:
        """Counts what arrives, elsewhere."""
        return Subscriber(self.server.url, self.name)

    def was_left_in_good_order(self) -> bool:
        """Whether no connection of this test is open any more, and each was closed by its client."""
        return self.server.wait_for_clients(0, self.name) and self.server.reasons(self.name) <= {"Client Closed"}

    def stored(self) -> list[str]:
        """What is in the stream of this test, in its order."""

        async def main() -> list[str]:
            async with connection(self.server.url, "reader") as reader:
                return await reader.jetstream().messages(self.name)

        return asyncio.run(main())


@pytest.fixture(scope="module")
def server() -> Generator[NatsServer]:
    server = NatsServer()
    with running(server):
        yield server
        server.count()
        print(f"\nNATS: {server.connections} connections, {server.messages} messages, {server.kills} kills")


@pytest.fixture
def subject(server: NatsServer, request: pytest.FixtureRequest) -> Generator[Subject]:
    yield Subject(server, f"test-{abs(hash(request.node.nodeid)):x}")
    if not server.is_running():  # the test has failed
        server.start()
    assert server.wait_for_clients(0), "a connection was left on the server"


def test_all_that_the_tasks_of_a_loop_publish_arrives(run: Run, subject: Subject) -> None:
    """All tasks of a loop publish through one client, and each of their messages has been sent when the loop has ended."""

    async def publish_many(number: int) -> list[Connection]:
        return [await subject.publish(f"{number}: {each}") for each in range(100)]

    async def main() -> list[Connection]:
        connections = await asyncio.gather(*(publish_many(number) for number in range(10)))
        assert len(subject.server.clients(subject.name)) == 1
        return [connection for each in connections for connection in each]

    with subject.subscriber() as subscriber:
        connections = run(main())
        assert subscriber.wait_for(1000)
    assert all(connection is connections[0] for connection in connections)
    assert sorted(subscriber.messages) == sorted(f"{number}: {each}" for number in range(10) for each in range(100))
    assert connections[0].client.is_closed
    assert subject.was_left_in_good_order()


def test_all_that_is_published_in_a_finally_at_the_end_arrives(run: Run, subject: Subject) -> None:
    """Tasks that the runner cancels publish while they clean up, and all of that is sent: the client's own tasks are alive."""

    async def publish_many() -> None:
        for _ in range(100):
            await subject.publish("in a finally")

    async def main() -> tuple[Connection, list[asyncio.Task[None]]]:
        tasks = await begin_to_linger(10, publish_many)
        return await subject.publish("at the beginning"), tasks

    with subject.subscriber() as subscriber:
        connection, tasks = run(main())
        assert subscriber.wait_for(1001)
    assert all(task.cancelled() for task in tasks)
    assert subscriber.messages == ["at the beginning"] + ["in a finally"] * 1000
    assert connection.client.is_closed
    assert subject.was_left_in_good_order()


def test_what_a_client_publishes_that_was_first_needed_in_a_finally_arrives(run: Run, subject: Subject) -> None:
    """A client that is first connected while the runner cancels tasks sends their messages, and is drained after them."""

    async def main() -> None:
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, lambda: subject.publish("in a finally"))

    with subject.subscriber() as subscriber:
        run(main())
        assert subscriber.wait_for(3)
    assert subscriber.messages == ["in a finally"] * 3
    assert subject.was_left_in_good_order()


def test_a_request_in_a_finally_gets_its_reply(run: Run, subject: Subject) -> None:
    """A task that the runner cancels can still ask others, on its loop too, and wait for what they say."""
    replies: list[str] = []

    @asynccontextmanager
    async def make_answerer() -> AsyncGenerator[None]:
        async with subject.connection() as connection, connection.answering(subject.name, "answer"):
            yield

    answerer = asyncio_loop_local.sticky_singleton_acm(make_answerer)

    async def ask() -> None:
        async with subject.connection() as connection:
            replies.append((await connection.client.request(subject.name, timeout=LONGEST_WAIT)).data.decode())

    async def main() -> None:
        async with answerer():
            await ask()
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, ask)

    run(main())
    assert replies == ["answer"] * 4
    assert subject.was_left_in_good_order()


def test_what_has_arrived_is_processed_before_the_client_is_closed(run: Run, subject: Subject) -> None:
    """Messages that a resource has not yet processed when the loop ends are all processed: its exit waits for its callback."""
    processed: list[str] = []

    @asynccontextmanager
    async def make_worker() -> AsyncGenerator[None]:
        at_the_end = asyncio.Event()

        async def process(message: str) -> None:
            await at_the_end.wait()
            processed.append(message)
            await subject.publish(f"processed {message}")

        async with subject.connection() as connection, connection.subscribed(f"{subject.name}-work", process):
            yield
            at_the_end.set()

    worker = asyncio_loop_local.sticky_singleton_acm(make_worker)

    async def give_work() -> None:
        async with worker(), subject.connection() as connection:
            for number in range(50):
                await connection.publish(f"{subject.name}-work", str(number))
            await connection.client.flush()  # all 50 are here when the server's answer is

    async def main() -> None:
        await give_work()
        assert processed == []
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(1, give_work)

    with subject.subscriber() as subscriber:
        run(main())
        assert subscriber.wait_for(100)
    assert processed == [str(number) for number in range(50)] * 2
    assert subscriber.messages == [f"processed {message}" for message in processed]
    assert subject.was_left_in_good_order()


def test_each_of_several_loops_in_a_row_drains_a_client_of_its_own(run: Run, subject: Subject) -> None:
    """What fails with a client in a global variable works: each loop connects its own, and what it publishes arrives."""
    connections: list[Connection] = []
    with subject.subscriber() as subscriber:
        for number in range(5):
            connections.append(run(subject.publish(str(number))))
            assert subject.was_left_in_good_order()
        assert subscriber.wait_for(5)
    assert len({id(connection) for connection in connections}) == 5
    assert subscriber.messages == ["0", "1", "2", "3", "4"]


def test_loops_in_several_threads_drain_a_client_each(run: Run, subject: Subject) -> None:
    """Loops that run at the same time in several threads have a client each, and lose nothing of what they publish."""
    all_are_open = threading.Barrier(4, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(4, timeout=LONGEST_WAIT)
    counted: list[int] = []

    async def main(number: int) -> Connection:
        connection = await subject.publish(f"from {number}")
        if await asyncio.to_thread(all_are_open.wait) == 0:
            counted.append(await asyncio.to_thread(lambda: len(subject.server.clients(subject.name))))
        await asyncio.to_thread(all_are_counted.wait)
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, lambda: subject.publish(f"from {number}"))
        return connection

    def run_in_thread(number: int) -> Connection:
        return run(main(number))

    with subject.subscriber() as subscriber, ThreadPoolExecutor(4) as threads:
        connections = list(threads.map(run_in_thread, range(4)))
        assert subscriber.wait_for(16)
    assert counted == [4]
    assert len({id(connection) for connection in connections}) == 4
    assert sorted(subscriber.messages) == [f"from {number}" for number in range(4) for _ in range(4)]
    assert subject.was_left_in_good_order()


@asynccontextmanager
async def _make_writer(url: str, name: str) -> AsyncGenerator[Stream]:
    """Publishes to a stream, waits for none of it to be stored until its exit, and then for all of it.

    The first to publish starts the task that gets the acknowledgements, so it is the writer itself.
    """
    async with _connection(url, name=name) as connection:
        stream = connection.jetstream()
        await stream.make(name)
        await stream.publish_soon(name, "opened")
        yield stream
        await stream.all_stored()


_writer = asyncio_loop_local.sticky_singleton_acm(_make_writer)


def test_a_writer_that_waits_for_its_acknowledgements_in_its_exit_gets_them(run: Run, subject: Subject) -> None:
    """All that is published to a stream, also in a ``finally``, is stored when the loop has ended: its client is drained last."""

    async def write() -> Stream:
        async with _writer(subject.server.url, subject.name) as stream:
            for number in range(50):
                await stream.publish_soon(f"{subject.name}.{number}", "stored")
            return stream

    async def main() -> Stream:
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, write)
        return await write()

    run(main())
    assert subject.stored() == ["opened"] + ["stored"] * 200
    assert subject.was_left_in_good_order()


def test_a_client_reconnects_to_a_server_that_has_been_killed_and_is_back(run: Run, subject: Subject) -> None:
    """What is published while the server is dead is sent when it is back, and what follows arrives, through the same client."""

    async def main(subscriber: Subscriber) -> Connection:
        connection = await subject.publish("before")
        assert await asyncio.to_thread(subscriber.wait_for, 1)
        await asyncio.to_thread(subject.server.kill)
        await connection.disconnected.wait()
        for _ in range(10):
            assert await subject.publish("meanwhile") is connection
        await asyncio.to_thread(subject.server.start)
        await connection.reconnected.wait()
        await connection.client.flush()
        assert subject.server.messages_since_start() == 10  # the client has kept them
        await asyncio.to_thread(subscriber.wait_until_reconnected)
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(5, lambda: subject.publish("in a finally"))
        assert await subject.publish("after") is connection
        return connection

    with subject.subscriber() as subscriber:
        connection = run(main(subscriber))
        assert subscriber.wait_for(1 + 1 + 5)
    heard = [message for message in subscriber.messages if message != "meanwhile"]  # who was back first is not said
    assert heard == ["before", "after"] + ["in a finally"] * 5
    assert connection.client.is_closed
    assert subject.was_left_in_good_order()


def test_what_was_acknowledged_is_stored_once_after_a_kill_in_mid_use(run: Run, subject: Subject) -> None:
    """Eight tasks publish to a stream while the server is killed and started again: all of it is stored, and once."""
    failures: list[nats.errors.Error] = []

    async def publish_many(
        stream: Stream, publisher: int, some_stored: asyncio.Event, dead: asyncio.Event, back: asyncio.Event
    ) -> None:
        for number in range(30):
            while True:
                try:
                    await stream.publish(f"{subject.name}.{publisher}", str(number), timeout=1)
                except nats.errors.Error as error:
                    failures.append(error)
                    await back.wait()
                else:
                    break
            if number == 5:
                some_stored.set()
                await dead.wait()

    async def main() -> None:
        some_stored, dead, back = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with subject.connection() as connection:
            stream = connection.jetstream()
            await stream.make(subject.name)
            async with asyncio.TaskGroup() as publishers:
                for publisher in range(8):
                    publishers.create_task(publish_many(stream, publisher, some_stored, dead, back))
                await some_stored.wait()
                await asyncio.to_thread(subject.server.kill)
                dead.set()
                await asyncio.to_thread(subject.server.start)
                await connection.reconnected.wait()
                back.set()

    run(main())
    assert sorted(subject.stored()) == sorted(str(number) for number in range(30) for _ in range(8))
    assert subject.was_left_in_good_order()


def test_a_client_of_a_dead_server_is_released_and_made_anew(run: Run, subject: Subject) -> None:
    """``release`` raises what the drain of a client of a dead server raises, and leaves none of its tasks; another is made."""

    async def main() -> tuple[Connection, Connection]:
        first = await subject.publish("before")
        await asyncio.to_thread(subject.server.kill)
        await first.disconnected.wait()
        with pytest.raises(nats.errors.ConnectionReconnectingError):
            await asyncio_loop_local.release(_connection, subject.server.url, name=subject.name)
        assert not asyncio_loop_local.resources()
        assert not await asyncio_loop_local.release(_connection, subject.server.url, name=subject.name)
        await asyncio.to_thread(subject.server.start)
        with subject.subscriber() as subscriber:
            second = await subject.publish("after")
            assert await asyncio.to_thread(subscriber.wait_for, 1)
            assert subscriber.messages == ["after"]
        assert len(subject.server.clients(subject.name)) == 1  # the first one tries no longer to reconnect
        return first, second

    first, second = run(main())
    assert first is not second
    assert not first.reconnected.is_set()
    assert second.client.is_closed
    assert subject.was_left_in_good_order()


def test_a_loop_whose_server_is_dead_ends_and_reports_the_drain_that_failed(run: Run, subject: Subject) -> None:
    """A loop ends where its server is dead: the client that could not be drained is reported, by name, and tries no longer."""

    async def main() -> list[dict[str, Any]]:
        reports = reports_of_this_loop()
        connection = await subject.publish("before")
        await asyncio.to_thread(subject.server.kill)
        await connection.disconnected.wait()
        return reports

    reports = run(main())
    subject.server.start()
    assert [type(report["exception"]) for report in reports] == [nats.errors.ConnectionReconnectingError]
    assert "connection" in reports[0]["message"]
    assert subject.was_left_in_good_order()


def test_aclose_drains_the_client_and_the_next_call_connects_another(run: Run, subject: Subject) -> None:
    """After ``aclose`` all is sent and nothing left on the server; the loop goes on, and who publishes next gets a new client."""

    async def main(subscriber: Subscriber) -> tuple[Connection, Connection]:
        first = await subject.publish("before")
        await asyncio_loop_local.aclose()
        assert first.client.is_closed
        assert await asyncio.to_thread(subscriber.wait_for, 1)
        assert await asyncio.to_thread(subject.was_left_in_good_order)
        return first, await subject.publish("after")

    with subject.subscriber() as subscriber:
        first, second = run(main(subscriber))
        assert subscriber.wait_for(2)
    assert first is not second
    assert subscriber.messages == ["before", "after"]
    assert subject.was_left_in_good_order()


def test_closing_a_loop_by_hand_drains_its_client(new_loop: Callable[[], asyncio.AbstractEventLoop], subject: Subject) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its client between the runs, and ``close()`` sends the rest."""
    with subject.subscriber() as subscriber:
        loop = new_loop()
        try:
            connection = loop.run_until_complete(subject.publish("1"))
            assert loop.run_until_complete(subject.publish("2")) is connection
        finally:
            loop.close()
        assert connection.client.is_closed
        assert subscriber.wait_for(2)
    assert subscriber.messages == ["1", "2"]
    assert subject.was_left_in_good_order()
