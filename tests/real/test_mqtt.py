"""What aiomqtt's client does besides the contract: a resource that listens, up to its exit or the end of its broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import aiomqtt
import pytest

import asyncio_loop_local
from conftest import Run
from lingering import Reports, begin_to_linger
from real_clients import Mqtt
from servers import LONGEST_WAIT

pytestmark = pytest.mark.parametrize("client", [Mqtt], indirect=True)


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def listener(port: int, name: str, *, at_least: int = 0) -> AsyncGenerator[asyncio.Queue[str]]:
    """Hears everything up to its exit, or dies with its connection.

    The broker orders the messages of one connection alone: its own last one may overtake others, so it waits for these.
    """
    is_over = False
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with aiomqtt.Client("127.0.0.1", port, identifier=f"{name}-listener", timeout=LONGEST_WAIT) as client:

        async def listen() -> None:
            nonlocal is_over
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                if message.payload == b"the end":
                    is_over = True
                else:
                    heard.put_nowait(message.payload.decode())
                if is_over and heard.qsize() >= at_least:
                    return

        await client.subscribe(f"{name}/notes", qos=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            yield heard
            await client.publish(f"{name}/notes", "the end", qos=1)


def test_a_listener_hears_all_that_is_published_up_to_its_exit(run: Run, client: Mqtt) -> None:
    """A listener with a task of its own hears what cancelled tasks publish in their ``finally``, and what a later exit does."""

    async def main() -> asyncio.Queue[str]:
        async with listener(client.server.port, client.name, at_least=7) as heard:
            pass
        asyncio_loop_local.atexit.register(client.write, "in an exit")
        await client.write("at the beginning")
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(5, lambda: client.write("in a finally"))
        return heard

    heard = run(main())
    notes = [heard.get_nowait() for _ in range(heard.qsize())]
    assert notes == ["at the beginning"] + ["in a finally"] * 5 + ["in an exit"]


def test_a_listener_that_dies_with_its_broker_is_reported_and_made_anew(run: Run, client: Mqtt, reports: Reports) -> None:
    """A resource whose task group fails because its broker was killed is reported once, by name; the next call makes another."""

    async def main() -> None:
        async with listener(client.server.port, client.name) as first:
            opened = await client.write("before")
            assert await first.get() == "before"
        await client.kill(opened)
        await reports.came.wait()
        assert await client.call().release()
        await asyncio.to_thread(client.start)
        async with listener(client.server.port, client.name) as second:
            await client.write("after")
            assert await second.get() == "after"
        assert second is not first

    run(main())
    (report,) = [report for report in reports.take() if "listener" in report["message"]]  # aiomqtt loses an error of its own
    assert isinstance(_innermost(report["exception"]), aiomqtt.MqttError)


def _innermost(error: BaseException) -> BaseException:
    """The one error in a group of one, which may be in such a group itself."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return error
