"""Every client keeps the same promises on its real server; real_clients.py says how each is opened, used and broken.

After each test, no connection of it is left on its server, and its loops have reported nothing: conftest.py checks that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

import asyncio_loop_local
from conftest import Run
from lingering import Reports, begin_to_linger
from real_clients import CLIENTS, AnyClient, Call
from servers import LONGEST_WAIT, wait_until


def of_clients(condition: Callable[[type[AnyClient]], bool]) -> pytest.MarkDecorator:
    """A test of those clients for which this holds."""
    kinds = [kind for kind in CLIENTS if condition(kind)]
    return pytest.mark.parametrize("client", kinds, ids=[kind.__name__ for kind in kinds], indirect=True)


def assert_closed(client: AnyClient, *opened: Any) -> None:
    """Asserts that these are different objects, all of them closed, as far as they can say so."""
    assert len({id(each) for each in opened}) == len(opened)
    assert all(client.is_closed(each) is not False for each in opened)
    assert client.was_left_in_good_order()


async def opened_by(client: AnyClient) -> Any:
    """The client of the running loop, with all its connections, after its first note has arrived."""
    opened = await client.write("before")
    await client.settle(opened)
    assert await asyncio.to_thread(client.has_got, "before")
    assert client.is_closed(opened) is not True
    return opened


async def ask_never(client: AnyClient) -> asyncio.Task[None]:
    """A task that waits for an answer that does not come, and of which the server knows."""
    opened = await client.call().get()
    asked = asyncio.create_task(client.never(opened))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(wait_until, client.is_busy)
    return asked


def test_all_tasks_of_a_loop_use_one_client(run: Run, client: AnyClient) -> None:
    """Every task of a loop gets the same client, which is closed, with all its connections, when the loop has ended."""
    notes = [f"by task {number}" for number in range(20)]

    async def main() -> list[Any]:
        opened = await asyncio.gather(*map(client.write, notes))
        await client.settle(opened[0])
        assert client.connections() in client.many_tasks
        assert client.is_closed(opened[0]) is not True
        return opened

    opened = run(main())
    assert all(each is opened[0] for each in opened)
    assert_closed(client, opened[0])
    assert client.has_got(*notes)


def test_each_of_several_loops_in_a_row_has_a_client_of_its_own(run: Run, client: AnyClient) -> None:
    """What fails with a client in a global variable works: each loop opens its own, and closes it."""
    opened: list[Any] = []
    for number in range(3):
        opened.append(run(client.write(str(number))))
        assert_closed(client, *opened)
    assert client.has_got("0", "1", "2")


def test_loops_in_several_threads_have_a_client_each(run: Run, client: AnyClient) -> None:
    """Loops that run at the same time in several threads have a client each, to the last ``finally`` of their tasks."""
    all_are_open = threading.Barrier(3, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(3, timeout=LONGEST_WAIT)
    counted: list[int] = []
    at_the_end: list[tuple[int, Any]] = []

    async def main(number: int) -> Any:
        async def write() -> None:
            at_the_end.append((number, await client.write(f"in a finally of {number}")))

        with client.opening:
            opened = await client.write(f"from {number}")
        await client.settle(opened)
        if await asyncio.to_thread(all_are_open.wait) == 0:
            counted.append(await asyncio.to_thread(client.connections))
        await asyncio.to_thread(all_are_counted.wait)
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(2, write)
        assert await client.write(f"again from {number}") is opened
        return opened

    def run_in_thread(number: int) -> Any:
        return run(main(number))

    with ThreadPoolExecutor(3) as threads:
        opened = list(threads.map(run_in_thread, range(3)))
    assert_closed(client, *opened)
    assert all(used is opened[number] for number, used in at_the_end)
    assert client.after_a_kill == "dies" or counted == [3 * client.one_task]
    notes = (f"{what} {number}" for what in ("from", "again from", *["in a finally of"] * 2) for number in range(3))
    assert client.has_got(*notes)


@pytest.mark.parametrize("first_needed", ["before", "in the finally"])
def test_tasks_that_are_cancelled_at_the_end_use_the_client_in_their_finally(
    run: Run, client: AnyClient, first_needed: str
) -> None:
    """Tasks that the runner cancels can use the client while they clean up, also one that nobody had needed before."""
    used: list[Any] = []

    async def write() -> None:
        used.extend([await client.write("in a finally") for _ in range(3)])

    async def main() -> list[asyncio.Task[None]]:
        if first_needed == "before":
            used.append(await opened_by(client))
        return await begin_to_linger(5, write)

    assert all(task.cancelled() for task in run(main()))
    assert all(each is used[0] for each in used)
    assert_closed(client, used[0])
    assert client.has_got(*["before"] * (first_needed == "before"), *["in a finally"] * 15)


@of_clients(lambda kind: kind.works_on)
def test_a_task_that_is_cancelled_while_the_server_lets_it_wait_uses_the_client_in_its_finally(
    run: Run, client: AnyClient
) -> None:
    """What waits for the server at the end of a loop is given up, a transaction too, and the client still works for its task."""

    async def consume() -> None:
        try:
            await client.never(await client.call().get())
        finally:
            await client.write("in a finally")

    async def main() -> asyncio.Task[None]:
        await opened_by(client)
        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        assert await asyncio.to_thread(wait_until, client.is_busy)
        return task

    assert run(main()).cancelled()
    assert client.has_got("before", "in a finally")


@pytest.mark.parametrize("acquired", ["when it is entered", "later"])
def test_a_resource_that_uses_the_client_in_its_exit_loses_nothing(run: Run, client: AnyClient, acquired: str) -> None:
    """What a resource has collected is written in its exit, before the client is closed, though the client be the newer one."""
    flushed_through: list[Any] = []

    @asyncio_loop_local.sticky_singleton_acm
    @asynccontextmanager
    async def writer() -> AsyncGenerator[tuple[list[str], Callable[[], object]]]:
        wanted = asyncio.Event()
        collected: list[str] = []

        async def acquire_later() -> None:
            await wanted.wait()
            await client.call().get()

        if acquired == "later":
            acquiring = asyncio.create_task(acquire_later())
            yield collected, wanted.set
            await acquiring
        else:
            await client.call().get()
            yield collected, wanted.set
        flushed_through.extend([await client.write(note) for note in collected])

    async def collect() -> None:
        async with writer() as (collected, _):
            collected.append("collected in a finally")

    async def main() -> tuple[Any, list[asyncio.Task[None]]]:
        async with writer() as (collected, want):
            collected.append("collected")
            opened = await client.write("directly")
            want()
        return opened, await begin_to_linger(1, collect)

    opened, (task,) = run(main())
    assert task.cancelled()
    assert flushed_through[0] is flushed_through[1] is opened
    assert_closed(client, opened)
    assert client.has_got("collected", "collected in a finally", "directly")


async def close_all(_call: Call[Any]) -> None:
    await asyncio_loop_local.aclose()


async def release(call: Call[Any]) -> None:
    assert await call.release()
    assert not await call.release()


@pytest.mark.parametrize("close", [close_all, release])
def test_what_is_closed_before_the_end_is_opened_anew(run: Run, client: AnyClient, close: Callable[[Call[Any]], Any]) -> None:
    """After ``aclose`` or ``release`` nothing is left on the server, the loop goes on, and the next call has a new client."""

    async def main() -> tuple[Any, Any]:
        first = await opened_by(client)
        await close(client.call())
        await asyncio.to_thread(assert_closed, client, first)
        assert asyncio_loop_local.resources() == ()
        return first, await client.write("after")

    assert_closed(client, *run(main()))
    assert client.has_got("before", "after")


def test_closing_a_loop_by_hand_closes_its_client(new_loop: Callable[[], asyncio.AbstractEventLoop], client: AnyClient) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its client between the runs, and ``close()`` closes it."""
    loop = new_loop()
    try:
        opened = loop.run_until_complete(client.write("1"))
        assert loop.run_until_complete(client.write("2")) is opened
    finally:
        loop.close()
    assert_closed(client, opened)
    assert client.has_got("1", "2")


@of_clients(lambda kind: kind.after_a_kill == "works again")
def test_a_client_works_again_when_its_server_was_killed_and_is_back(run: Run, client: AnyClient) -> None:
    """The client is still the loop's one client, also for tasks that are cancelled at the end."""
    used: list[Any] = []

    async def write() -> None:
        used.append(await client.write("in a finally"))

    async def main() -> None:
        used.append(await opened_by(client))
        tasks = await begin_to_linger(2, write)  # psycopg's pool asks again at once for two of them, after a second for one
        await client.kill(used[0])
        if client.refused is not None:
            with pytest.raises(client.refused):
                await client.write("never")
        await asyncio.to_thread(client.start)
        used.extend(await asyncio.gather(*(client.write(f"after {number}") for number in range(5))))
        asyncio_loop_local.storage()["tasks"] = tasks

    run(main())
    assert all(each is used[0] for each in used)
    assert_closed(client, used[0])
    assert client.has_got("before", *(f"after {number}" for number in range(5)), *["in a finally"] * 2)


@of_clients(lambda kind: kind.after_a_kill == "works again")
def test_a_finally_uses_a_server_that_was_killed_and_started_again(run: Run, client: AnyClient) -> None:
    """A task that is cancelled at the end of the loop is the first to use the new server, through the old client."""
    used: list[Any] = []

    async def write() -> None:
        used.append(await client.write("in a finally"))

    async def main() -> Any:
        opened = await opened_by(client)
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(2, write)
        await client.kill(opened)
        await asyncio.to_thread(client.start)
        return opened

    opened = run(main())
    assert used[0] is used[1] is opened
    assert_closed(client, opened)
    assert client.has_got("before", *["in a finally"] * 2)


@of_clients(lambda kind: kind.lost is not None)
def test_a_call_in_flight_fails_when_the_server_is_killed(run: Run, client: AnyClient) -> None:
    """A task that waits for a server that is killed gets the client's own error; the client works on if it ever does."""

    async def main() -> None:
        opened = await opened_by(client)
        asked = await ask_never(client)
        await client.kill(opened)
        assert client.lost is not None
        with pytest.raises(client.lost) as caught:
            await asked
        assert client.is_lost(caught.value)
        await asyncio.to_thread(client.start)
        if client.after_a_kill == "is broken":
            await release(client.call())
        assert (await client.write("after") is opened) == (client.after_a_kill == "works again")

    run(main())
    assert client.has_got("before", "after")


@of_clients(lambda kind: kind.after_a_kill != "dies")
def test_a_client_without_a_server_is_released_and_made_anew(run: Run, client: AnyClient) -> None:
    """``release`` closes a client whose server is dead, or raises what its exit does; the next call makes another."""

    async def main() -> Any:
        first = await opened_by(client)
        await client.kill(first)
        if client.after_a_kill == "is broken":
            assert client.lost is not None
            with pytest.raises(client.lost):
                await client.write("never")
        if client.cannot_exit is None:
            assert await client.call().release()
            assert client.is_closed(first) is not False
        else:
            with pytest.raises(client.cannot_exit):
                await client.call().release()
        assert not await client.call().release()
        assert asyncio_loop_local.resources() == ()
        if client.refused is not None:
            for _ in range(2):  # a failure is not remembered
                with pytest.raises(client.refused):
                    await client.write("never")
        await asyncio.to_thread(client.start)
        second = await client.write("after")
        assert client.connections() <= client.one_task  # the first one tries no longer to reconnect
        assert second is not first
        return second

    assert_closed(client, run(main()))
    assert client.has_got("before", "after")


def test_a_loop_ends_in_good_order_while_the_server_is_down(run: Run, client: AnyClient, reports: Reports) -> None:
    """A loop whose server was killed ends well, and reports at most what the client's exit raises; the next one works."""

    async def main() -> Any:
        opened = await opened_by(client)
        await client.kill(opened)
        return opened

    opened = run(main())
    assert client.cannot_exit is not None or client.is_closed(opened) is not False
    reported = reports.take()
    assert [type(report["exception"]) for report in reported] == [client.cannot_exit] * (client.cannot_exit is not None)
    assert all(report["message"].startswith("the exit of ") for report in reported)
    client.start()
    assert run(client.write("after")) is not opened
    assert client.has_got("before", "after")


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def registration(client: AnyClient) -> AsyncGenerator[Any]:
    """A resource that needs the server in its exit."""
    yield await client.write("registered")
    await client.write("unregistered")


@of_clients(lambda kind: kind.refused is not None)
def test_an_exit_that_needs_a_dead_server_raises_from_release(run: Run, client: AnyClient) -> None:
    """``release`` raises what the exit raises; what the resource used can be released too, and all is made anew."""

    async def main() -> None:
        async with registration(client) as first:
            await client.settle(first)
        assert await asyncio.to_thread(client.has_got, "registered")
        await client.kill(first)
        assert client.refused is not None
        with pytest.raises(client.refused):
            await asyncio_loop_local.release(registration, client)
        assert not await asyncio_loop_local.release(registration, client)
        assert await client.call().release()
        assert asyncio_loop_local.resources() == ()
        await asyncio.to_thread(client.start)
        async with registration(client) as second:
            assert second is not first

    run(main())
    assert client.has_got("registered", "registered", "unregistered")


@of_clients(lambda kind: kind.refused is not None)
def test_an_exit_that_fails_at_the_end_is_reported_by_name(run: Run, client: AnyClient, reports: Reports) -> None:
    """A loop ends where its server is dead: the exit that needed the server is reported, and the client is closed."""

    async def main() -> Any:
        async with registration(client) as opened:
            await client.settle(opened)
        assert await asyncio.to_thread(client.has_got, "registered")
        await client.kill(opened)
        return opened

    opened = run(main())
    (report,) = reports.take()
    assert client.refused is not None
    assert isinstance(report["exception"], client.refused)
    assert report["message"].startswith("the exit of registration(")
    client.start()
    assert_closed(client, opened)
    assert client.has_got("registered")
