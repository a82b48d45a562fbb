"""What redis-py's client does besides the contract: locks, subscriptions, and what it has acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import redis

import asyncio_loop_local
from conftest import Run
from lingering import begin_to_linger
from real_clients import CountingBackoff, Redis

pytestmark = pytest.mark.parametrize("client", [Redis], indirect=True)


def test_a_lock_of_a_task_that_is_cancelled_at_the_end_is_released_on_the_server(run: Run, client: Redis) -> None:
    """A task that holds a lock on the server when the program ends gives it back: the client still works for that."""
    name = f"{client.name} lock"

    async def hold(held: asyncio.Event) -> None:
        async with (await client.call().get()).lock(name):
            held.set()
            await asyncio.Event().wait()

    async def main() -> None:
        held = asyncio.Event()
        asyncio_loop_local.storage()["holder"] = asyncio.create_task(hold(held))
        await held.wait()
        assert await (await client.call().get()).exists(name) == 1

    run(main())
    with client.server.admin() as admin:
        assert admin.exists(name) == 0


def test_a_listener_hears_all_that_is_published_up_to_its_exit(run: Run, client: Redis) -> None:
    """A subscriber with a task of its own hears what cancelled tasks publish in their ``finally``, and its client outlives it."""
    channel = f"{client.name} channel"

    @asyncio_loop_local.sticky_singleton_acm
    @asynccontextmanager
    async def listener() -> AsyncGenerator[list[str]]:
        heard: list[str] = []
        async with (await client.call().get()).pubsub() as pubsub:  # pyright: ignore[reportUnknownMemberType]  # of redis-py
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

    async def publish(message: str) -> None:
        assert await (await client.call().get()).publish(channel, message) == 1  # pyright: ignore[reportUnknownMemberType]  # of redis-py

    async def main() -> tuple[list[str], list[asyncio.Task[None]]]:
        async with listener() as heard:
            tasks = await begin_to_linger(5, lambda: publish("in a finally"))
            await publish("at the beginning")
        return heard, tasks

    heard, tasks = run(main())
    assert all(task.cancelled() for task in tasks)
    assert heard == ["at the beginning"] + ["in a finally"] * 5


def test_what_was_acknowledged_is_there_after_a_kill_in_mid_use(run: Run, client: Redis) -> None:
    """Eight tasks write while the server is killed and started again: each gets an error or an acknowledgement that holds."""
    acknowledged: list[str] = []
    failures: list[redis.ConnectionError] = []
    CountingBackoff.repeated = 0

    async def write_many(writer: int, first_written: asyncio.Event, dead: asyncio.Event, back: asyncio.Event) -> None:
        for number in range(40):
            note = f"{writer}: {number}"
            try:
                await client.write(note)
            except redis.ConnectionError as error:
                failures.append(error)
                dead.set()
                await back.wait()
                await client.write(note)
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
            await asyncio.to_thread(client.server.kill)
            dead.set()
            await asyncio.to_thread(client.start)
            back.set()

    run(main())
    assert len(acknowledged) == 8 * 40
    assert set(client.notes()) == set(acknowledged)
    may_be_written_twice = len(failures) + CountingBackoff.repeated
    assert len(client.notes()) <= len(acknowledged) + may_be_written_twice
