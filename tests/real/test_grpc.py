"""What gRPC's channels do besides the contract: calls of all kinds, in flight and in exits, and what grpc.aio does by itself.

Two things that grpc.aio does not do by itself, and neither with this library:

- All loops of a process share one queue of events, and each reports to its exception handler what goes wrong with those of
  others: that the loop is closed to which an event of a cancelled call belongs ("Event loop is closed", 50 to 210 times in
  1,500 loops in a row that end with a call in flight, without this library and with it), and rarely that the queue was
  closed by the loop that ended last ("Bad file descriptor", without it in 3 and with it in 2 of 360 runs of four threads).
  grpcio 1.68, but not 1.80, also reports that a loop came too late for an event ("Resource temporarily unavailable", grpc
  issue 25364). Calls are answered all the same. So `Grpc.is_noise` keeps reports of that queue apart, and
  one test shows the first of these without the library.
- A closed channel keeps its connection while anybody refers to a call of it, finished or not; a test shows that without it.
  The traceback of an error refers to it, of a task too that the end of the loop cancels. So some tests collect garbage.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest

import asyncio_loop_local
from conftest import Run
from lingering import Reports, begin_to_linger
from real_clients import Grpc
from servers import LONGEST_WAIT

pytestmark = pytest.mark.parametrize("client", [Grpc], indirect=True)

Channel = grpc.aio.Channel
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def count(channel: Channel, number: int) -> list[bytes]:
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/Small/Count")
    return [answer async for answer in method(str(number).encode())]


async def add(channel: Channel, numbers: range) -> int:
    method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/Small/Add")
    return int(await method(str(number).encode() for number in numbers))


async def talk(channel: Channel, words: list[bytes]) -> list[bytes]:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/Small/Talk")
    return [answer async for answer in method(iter(words))]


async def use(client: Grpc, channel: Channel, number: int) -> None:
    """Calls of all four kinds, side by side."""
    await asyncio.gather(*(client.use(channel, f"{number} {each}") for each in range(10)))
    counted, added, answers = await asyncio.gather(
        count(channel, number), add(channel, range(number)), talk(channel, [b"a", b"b"])
    )
    assert counted == [str(each).encode() for each in range(number)]
    assert added == sum(range(number))
    assert answers == [b"A", b"B"]


@pytest.mark.parametrize("with_library", [True, False])
def test_loops_in_several_threads_call_at_the_same_time(run: Run, client: Grpc, *, with_library: bool) -> None:
    """Loops of several threads call through a channel each, with a connection each, as they do without this library."""
    all_have_called = threading.Barrier(4, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(4, timeout=LONGEST_WAIT)
    counted: list[int] = []

    def channel_of_loop() -> AbstractAsyncContextManager[Channel]:
        if with_library:
            return asyncio_loop_local.sticky_singleton_acm(grpc.aio.insecure_channel)(client.target, options=OPTIONS)
        return grpc.aio.insecure_channel(client.target, options=OPTIONS)

    async def main(number: int) -> int:
        async with channel_of_loop() as channel:
            for _ in range(3):
                await use(client, channel, number)
            if await asyncio.to_thread(all_have_called.wait) == 0:
                counted.append(client.connections())
            await asyncio.to_thread(all_are_counted.wait)
            await use(client, channel, number)
            return id(channel)

    def run_in_thread(number: int) -> int:
        return run(main(number))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run_in_thread, range(4)))
    assert counted == [4]


def test_calls_in_flight_are_cancelled_by_the_end_of_the_loop(run: Run, client: Grpc) -> None:
    """The server hears that calls are cancelled, of one answer and of many, which tasks wait for when the loop ends."""

    async def read_for_ever() -> None:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = (await client.call().get()).unary_stream("/Small/Endless")
        call = method(b"")
        assert await call.read() == b"one"
        await call.read()

    async def wait_for_ever() -> None:
        await client.never(await client.call().get())

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(read_for_ever()), asyncio.create_task(wait_for_ever())]
        assert await asyncio.to_thread(client.hears, "never begun")
        assert await asyncio.to_thread(client.hears, "endless begun")
        return tasks

    assert all(task.cancelled() for task in run(main()))
    assert client.hears("never cancelled")
    assert client.hears("endless cancelled")


def test_a_stream_held_as_long_as_the_loop_is_ended_before_its_channel(run: Run, client: Grpc) -> None:
    """A stream that is a resource itself is used by tasks to the last, and says its farewell through the open channel."""
    last_words: list[object] = []

    @asyncio_loop_local.sticky_singleton_acm
    @asynccontextmanager
    async def conversation() -> AsyncGenerator[grpc.aio.StreamStreamCall[bytes, bytes]]:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = (await client.call().get()).stream_stream("/Small/Talk")
        call = method()
        yield call
        await call.write(b"farewell")
        last_words.append(await call.read())
        await call.done_writing()
        last_words.append(await call.read())

    async def say(what: bytes) -> None:
        async with conversation() as call:
            await call.write(what)
            assert await call.read() == what.upper()

    async def main() -> list[asyncio.Task[None]]:
        tasks = await begin_to_linger(1, lambda: say(b"in a finally"))
        await say(b"a")
        return tasks

    assert run(main())[0].cancelled()
    assert client.hears("talk ended")
    assert last_words == [b"FAREWELL", grpc.aio.EOF]


def test_release_cancels_calls_in_flight(run: Run, client: Grpc) -> None:
    """After ``release`` the old channel is closed, with the calls it had, of which the server hears."""

    async def main() -> None:
        first = await client.write("before")
        call = asyncio.create_task(client.never(first))
        assert await asyncio.to_thread(client.hears, "never begun")
        assert await client.call().release()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await asyncio.to_thread(client.hears, "never cancelled")
        assert client.is_closed(first)

    run(main())


def test_a_call_that_is_referred_to_keeps_the_connection_of_a_closed_channel(run: Run, client: Grpc) -> None:
    """What gRPC does by itself: the connection of a closed channel ends when nothing refers to a call of it any more."""

    async def main() -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        async with grpc.aio.insecure_channel(client.target) as channel:
            call = client.begin_never(channel)
            assert await asyncio.to_thread(client.hears, "never begun")
        assert call.cancelled()
        return call

    call = run(main())
    assert client.hears("never cancelled")
    gc.collect()
    assert client.connections() == 1
    del call
    assert client.was_left_in_good_order()


def ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    pass


def test_a_call_of_a_closed_loop_is_reported_by_the_next(new_loop: Callable[[], asyncio.AbstractEventLoop], client: Grpc) -> None:
    """What gRPC does by itself: a call that outlives its loop ends in the next loop, which reports that the other is closed."""
    reports = Reports()

    async def begin() -> tuple[Channel, grpc.aio.UnaryUnaryCall[bytes, bytes]]:
        channel = grpc.aio.insecure_channel(client.target)
        call = client.begin_never(channel)
        assert await asyncio.to_thread(client.hears, "never begun")
        await asyncio.get_running_loop().shutdown_default_executor()
        return channel, call

    async def main() -> None:
        async with grpc.aio.insecure_channel(client.target) as channel:
            await client.use(channel, "a")
            await client.kill(channel)
            await reports.came.wait()

    loop = new_loop()
    loop.set_exception_handler(ignore)  # it would report that the call's task is never done, as this test wants it
    kept = loop.run_until_complete(begin())
    loop.close()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        reports.watched(runner.run)(main())
    assert {str(report["exception"]) for report in reports.all} == {"Event loop is closed"}
    assert all(map(client.is_noise, reports.all))
    del kept


def test_a_task_that_waits_for_a_dead_server_is_cancelled_at_the_end(run: Run, client: Grpc) -> None:
    """A loop whose server was killed ends in good order, with a task that waits for the server to come back."""

    async def main() -> tuple[Channel, asyncio.Task[Channel]]:
        channel = await client.write("before")
        await client.kill(channel)
        task = asyncio.create_task(client.write("never"))
        await asyncio.sleep(0)
        return channel, task

    channel, task = run(main())
    assert task.cancelled()
    assert client.is_closed(channel)
    client.start()
