"""What nats-py's client does besides the contract: volume, replies, callbacks, streams, and what it buffers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import nats.errors
import pytest

import asyncio_loop_local
from conftest import Run
from lingering import begin_to_linger
from real_clients import Nats, nats_connection
from servers import LONGEST_WAIT
from servers_nats import Connection, Stream, connection

pytestmark = pytest.mark.parametrize("client", [Nats], indirect=True)


def stored(client: Nats) -> list[str]:
    """The messages in the stream of this test, in order."""

    async def main() -> list[str]:
        async with connection(client.server.url, "reader") as reader:
            return await reader.jetstream().messages(client.name)

    return asyncio.run(main())


def test_all_that_is_published_in_a_finally_at_the_end_arrives(run: Run, client: Nats) -> None:
    """A thousand messages that cancelled tasks publish while they clean up are all sent, after those before them."""

    async def publish_many() -> None:
        for _ in range(100):
            await client.write("in a finally")

    async def main() -> list[asyncio.Task[None]]:
        tasks = await begin_to_linger(10, publish_many)
        await client.write("at the beginning")
        return tasks

    assert all(task.cancelled() for task in run(main()))
    assert client.has_got("at the beginning", *["in a finally"] * 1000)
    assert client.notes()[0] == "at the beginning"


def test_a_request_in_a_finally_gets_its_reply(run: Run, client: Nats) -> None:
    """A task that the runner cancels can still ask others, on its loop too, and wait for what they say."""
    replies: list[str] = []

    @asynccontextmanager
    async def make_answerer() -> AsyncGenerator[None]:
        async with (await client.call().get()).answering(f"{client.name}-asked", "answer"):
            yield

    answerer = asyncio_loop_local.sticky_singleton_acm(make_answerer)

    async def ask() -> None:
        connection = await client.call().get()
        replies.append((await connection.client.request(f"{client.name}-asked", timeout=LONGEST_WAIT)).data.decode())

    async def main() -> None:
        async with answerer():
            await ask()
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, ask)

    run(main())
    assert replies == ["answer"] * 4


def test_what_has_arrived_is_processed_before_the_client_is_closed(run: Run, client: Nats) -> None:
    """Messages that a resource has not yet processed when the loop ends are all processed: its exit waits for its callback."""
    processed: list[str] = []

    @asynccontextmanager
    async def make_worker() -> AsyncGenerator[None]:
        at_the_end = asyncio.Event()

        async def process(message: str) -> None:
            await at_the_end.wait()
            processed.append(message)
            await client.write(f"processed {message}")

        async with (await client.call().get()).subscribed(f"{client.name}-work", process):
            yield
            at_the_end.set()

    worker = asyncio_loop_local.sticky_singleton_acm(make_worker)

    async def give_work() -> None:
        async with worker():
            connection = await client.call().get()
            for number in range(50):
                await connection.publish(f"{client.name}-work", str(number))
            await connection.client.flush()  # all 50 are here when the server's answer is

    async def main() -> None:
        await give_work()
        assert processed == []
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(1, give_work)

    run(main())
    assert processed == [str(number) for number in range(50)] * 2
    assert client.has_got(*(f"processed {message}" for message in processed))
    assert client.notes() == [f"processed {message}" for message in processed]


@asynccontextmanager
async def make_writer(url: str, name: str) -> AsyncGenerator[Stream]:
    """Publishes to a stream, waits for none of it to be stored until its exit, and then for all of it.

    The first to publish starts the task that gets the acknowledgements, so it is the writer itself.
    """
    async with nats_connection(url, name=name) as connection:
        stream = connection.jetstream()
        await stream.make(name)
        await stream.publish_soon(name, "opened")
        yield stream
        await stream.all_stored()


writer = asyncio_loop_local.sticky_singleton_acm(make_writer)


def test_a_writer_that_waits_for_its_acknowledgements_in_its_exit_gets_them(run: Run, client: Nats) -> None:
    """All that is published to a stream, also in a ``finally``, is stored when the loop has ended: its client is drained last."""

    async def write() -> Stream:
        async with writer(client.server.url, client.name) as stream:
            for number in range(50):
                await stream.publish_soon(f"{client.name}.{number}", "stored")
            return stream

    async def main() -> Stream:
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, write)
        return await write()

    run(main())
    assert stored(client) == ["opened"] + ["stored"] * 200


def test_a_client_reconnects_to_a_server_that_has_been_killed_and_is_back(run: Run, client: Nats) -> None:
    """What is published while the server is dead is sent when it is back, and what follows arrives, through the same client."""

    async def main() -> Connection:
        connection = await client.write("before")
        await connection.client.flush()
        await client.kill(connection)
        for _ in range(10):
            await connection.publish(client.name, "meanwhile")
        await asyncio.to_thread(client.server.start)
        await connection.reconnected.wait()
        await connection.client.flush()
        assert client.server.messages_since_start() == 10  # the client has kept them
        await asyncio.to_thread(client.__enter__)
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(5, lambda: client.write("in a finally"))
        assert await client.write("after") is connection
        return connection

    connection = run(main())
    assert client.has_got("before", "after", *["in a finally"] * 5)
    assert client.notes()[:2] == ["before", "after"]
    assert connection.client.is_closed


def test_what_was_acknowledged_is_stored_once_after_a_kill_in_mid_use(run: Run, client: Nats) -> None:
    """Eight tasks publish to a stream while the server is killed and started again: all of it is stored, and once."""
    failures: list[nats.errors.Error] = []

    async def publish_many(
        stream: Stream, publisher: int, some_stored: asyncio.Event, dead: asyncio.Event, back: asyncio.Event
    ) -> None:
        for number in range(30):
            while True:
                try:
                    await stream.publish(f"{client.name}.{publisher}", str(number), timeout=1)
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
        connection = await client.call().get()
        stream = connection.jetstream()
        await stream.make(client.name)
        async with asyncio.TaskGroup() as publishers:
            for publisher in range(8):
                publishers.create_task(publish_many(stream, publisher, some_stored, dead, back))
            await some_stored.wait()
            await asyncio.to_thread(client.server.kill)
            dead.set()
            await asyncio.to_thread(client.server.start)
            await connection.reconnected.wait()
            back.set()

    run(main())
    assert sorted(stored(client)) == sorted(str(number) for number in range(30) for _ in range(8))
