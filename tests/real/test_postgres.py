"""psycopg's connection pool, on a real PostgreSQL: one pool per loop, and no back end of it left on the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

import asyncio_loop_local
from servers import LONGEST_WAIT, running
from servers_postgres import PostgresServer, PostgresView, postgres

if TYPE_CHECKING:
    from conftest import Run

Pool: TypeAlias = AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]]

_pool = asyncio_loop_local.sticky_singleton_acm(AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]])


class Server(PostgresView):
    """The server, and the pool through which the test uses it."""

    def pool(self, *, size: int = 2) -> asyncio_loop_local.StickyACM[Pool]:
        """Asks for the pool, as an application would: with arguments made anew for every call."""
        return _pool(
            self.conninfo,
            min_size=size,
            max_size=size,
            open=False,
            check=AsyncConnectionPool.check_connection,
            kwargs={"application_name": self.name, "autocommit": True},
        )

    async def release(self) -> bool:
        """Releases the pool."""
        return await asyncio_loop_local.release(
            _pool,
            self.conninfo,
            min_size=2,
            max_size=2,
            open=False,
            check=AsyncConnectionPool.check_connection,
            kwargs={"application_name": self.name, "autocommit": True},
        )

    async def write(self, note: str) -> Pool:
        """Writes a note through a connection of the pool."""
        async with self.pool() as pool, pool.connection() as connection:
            await connection.execute("INSERT INTO notes VALUES (%s)", [note])
            return pool

    async def sleep(self) -> None:
        """Runs a query that takes for ever."""
        async with self.pool() as pool, pool.connection() as connection:
            await connection.execute("SELECT pg_sleep(1000)")


@pytest.fixture(scope="module")
def postgres_of_module() -> Generator[PostgresServer]:
    with running(postgres()) as server:
        yield server


@pytest.fixture
def server(postgres_of_module: PostgresServer, request: pytest.FixtureRequest) -> Generator[Server]:
    server = Server(postgres_of_module, f"test {abs(hash(request.node.nodeid)):x}")
    try:
        yield server
    finally:
        server.close()


def test_a_pool_serves_all_tasks_and_leaves_no_back_end(run: Run, server: Server) -> None:
    """All tasks of a loop share one pool, whose connections are all gone from the server when the loop has ended."""

    async def main() -> list[Pool]:
        pools = await asyncio.gather(*(server.write(f"{number:02}") for number in range(20)))
        await pools[0].wait(LONGEST_WAIT)  # a pool opens its connections in the background
        assert server.back_ends() == 2
        return pools

    pools = run(main())
    assert all(pool is pools[0] for pool in pools)
    assert pools[0].closed
    assert server.notes() == [f"{number:02}" for number in range(20)]
    assert server.wait_for_back_ends(0)


def test_a_task_that_is_cancelled_at_the_end_writes_in_its_finally(run: Run, server: Server) -> None:
    """A task that the runner cancels can still write to the database while it cleans up: the pool's own workers are alive."""

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await server.write("in a finally")

    async def main() -> tuple[Pool, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        return await server.write("at the beginning"), task

    pool, task = run(main())
    assert task.cancelled()
    assert server.notes() == ["at the beginning", "in a finally"]
    assert pool.closed
    assert server.wait_for_back_ends(0)


def test_a_pool_that_is_first_needed_in_a_finally_is_closed_too(run: Run, server: Server) -> None:
    """A pool that is first opened while the runner cancels tasks serves them, and is closed after them."""

    async def linger(begun: asyncio.Event) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await server.write("in a finally")

    async def main() -> asyncio.Task[None]:
        begun = asyncio.Event()
        task = asyncio.create_task(linger(begun))
        await begun.wait()
        return task

    assert run(main()).cancelled()
    assert server.notes() == ["in a finally"]
    assert server.wait_for_back_ends(0)


def test_the_workers_of_a_pool_are_no_tasks_of_the_users(run: Run, server: Server) -> None:
    """``asyncio.all_tasks()`` shows the user's tasks, as ever, and none of those that keep the pool going."""

    async def main() -> None:
        mine = asyncio.current_task()
        await server.write("one")
        assert asyncio.all_tasks() == {mine}

    run(main())
    assert server.notes() == ["one"]
    assert server.wait_for_back_ends(0)


def test_equal_keyword_dicts_are_one_pool_and_others_another(run: Run, server: Server) -> None:
    """A dict among the arguments counts by what is in it: equal ones get one pool, another one gets another."""

    async def main() -> None:
        async with server.pool() as first, server.pool() as again, server.pool(size=1) as other:
            assert first is again
            assert first is not other
            assert first.kwargs == {"application_name": server.name, "autocommit": True}
            await first.wait(LONGEST_WAIT)
            await other.wait(LONGEST_WAIT)
            assert server.back_ends() == 3

    run(main())
    assert server.wait_for_back_ends(0)


def test_a_second_loop_has_a_pool_of_its_own(run: Run, server: Server) -> None:
    """What fails with a pool in a global variable works: each loop opens its own pool, and closes it."""
    first = run(server.write("first"))
    assert server.wait_for_back_ends(0)
    second = run(server.write("second"))
    assert first is not second
    assert first.closed
    assert second.closed
    assert server.notes() == ["first", "second"]
    assert server.wait_for_back_ends(0)


def test_loops_in_several_threads_have_a_pool_each(run: Run, server: Server) -> None:
    """Loops that run at the same time in several threads have a pool each, and leave nothing on the server."""
    all_are_open = threading.Barrier(3, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(3, timeout=LONGEST_WAIT)
    counted: list[int] = []

    async def main(number: int) -> Pool:
        async with server.pool() as pool:
            await pool.wait(LONGEST_WAIT)
        if await asyncio.to_thread(all_are_open.wait) == 0:
            counted.append(await asyncio.to_thread(server.back_ends))
        await asyncio.to_thread(all_are_counted.wait)
        assert await server.write(f"from {number}") is pool
        return pool

    def run_in_thread(number: int) -> Pool:
        return run(main(number))

    with ThreadPoolExecutor(3) as threads:
        pools = list(threads.map(run_in_thread, range(3)))
    assert counted == [6]
    assert len({id(pool) for pool in pools}) == 3
    assert all(pool.closed for pool in pools)
    assert server.notes() == ["from 0", "from 1", "from 2"]
    assert server.wait_for_back_ends(0)


def test_a_writer_that_flushes_in_its_exit_loses_nothing(run: Run, server: Server) -> None:
    """What a resource has collected reaches the database when it is written at the exit: the pool it uses is closed after it."""
    flushed_through: list[Pool] = []

    @asynccontextmanager
    async def make_writer() -> AsyncGenerator[list[str]]:
        collected: list[str] = []
        async with server.pool():
            yield collected
            flushed_through.extend([await server.write(note) for note in collected])

    writer = asyncio_loop_local.sticky_singleton_acm(make_writer)

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            async with writer() as collected:
                collected.append("collected in a finally")

    async def main() -> tuple[Pool, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        async with writer() as collected:
            collected.append("collected")
        return await server.write("directly"), task

    pool, task = run(main())
    assert task.cancelled()
    assert server.notes() == ["collected", "collected in a finally", "directly"]
    assert flushed_through == [pool, pool]
    assert pool.closed
    assert server.wait_for_back_ends(0)


def test_aclose_closes_the_pool_and_the_next_call_opens_another(run: Run, server: Server) -> None:
    """After ``aclose`` nothing is left on the server, the loop goes on, and who writes next gets a new pool."""

    async def main() -> tuple[Pool, Pool]:
        first = await server.write("before")
        await asyncio_loop_local.aclose()
        assert first.closed
        assert await asyncio.to_thread(server.wait_for_back_ends, 0)
        return first, await server.write("after")

    first, second = run(main())
    assert first is not second
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_closing_a_loop_by_hand_closes_its_pool(new_loop: Callable[[], asyncio.AbstractEventLoop], server: Server) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its pool between the runs, and ``close()`` closes it."""
    loop = new_loop()
    try:
        pool = loop.run_until_complete(server.write("1"))
        assert loop.run_until_complete(server.write("2")) is pool
    finally:
        loop.close()
    assert pool.closed
    assert server.notes() == ["1", "2"]
    assert server.wait_for_back_ends(0)


def test_a_pool_whose_server_was_killed_and_started_again_goes_on(run: Run, server: Server) -> None:
    """A pool that checks its connections gets new ones when the server is back, and is still the loop's one pool."""

    async def main() -> Pool:
        pool = await server.write("before")
        await pool.wait(LONGEST_WAIT)
        await asyncio.to_thread(server.restart)
        again = await asyncio.gather(*(server.write(f"after {number}") for number in range(5)))
        assert all(each is pool for each in again)
        return pool

    assert run(main()).closed
    assert server.notes() == ["after 0", "after 1", "after 2", "after 3", "after 4", "before"]
    assert server.wait_for_back_ends(0)


def test_a_query_in_flight_fails_when_the_server_is_killed(run: Run, server: Server) -> None:
    """Who was waiting for an answer of a server that is killed gets the client's own error, and the pool is still there."""

    async def main() -> None:
        async with server.pool() as pool:
            await pool.wait(LONGEST_WAIT)
        query = asyncio.create_task(server.sleep())
        assert await asyncio.to_thread(server.wait_for_back_ends, 1, busy=True)
        await asyncio.to_thread(server.restart)
        with pytest.raises(psycopg.OperationalError):
            await query
        assert await server.write("after") is pool

    run(main())
    assert server.notes() == ["after"]
    assert server.wait_for_back_ends(0)


def test_a_pool_without_a_server_is_released_and_made_anew(run: Run, server: Server) -> None:
    """``release`` closes a pool while its server is down, and the next call opens another one when the server is back."""

    async def main() -> tuple[Pool, Pool]:
        first = await server.write("before")
        await first.wait(LONGEST_WAIT)
        await asyncio.to_thread(server.kill)
        assert await server.release()
        assert first.closed
        assert not await server.release()
        await asyncio.to_thread(server.start)
        return first, await server.write("after")

    first, second = run(main())
    assert first is not second
    assert second.closed
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_a_loop_ends_in_good_order_while_the_server_is_down(run: Run, server: Server) -> None:
    """A loop whose server was killed ends as ever: its pool is closed, and nothing is complained of."""
    complaints: list[object] = []

    async def main() -> Pool:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        pool = await server.write("before")
        await pool.wait(LONGEST_WAIT)
        await asyncio.to_thread(server.kill)
        return pool

    pool = run(main())
    assert pool.closed
    assert complaints == []
    server.start()
    assert server.notes() == ["before"]
    assert server.wait_for_back_ends(0)


def test_a_finally_writes_to_a_server_that_was_killed_and_started_again(run: Run, server: Server) -> None:
    """A task that is cancelled at the end of the loop writes through the old pool to the new server."""

    written_through: list[Pool] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:  # the pool asks again at once for two of them, after a second for one
            written_through.extend(await asyncio.gather(server.write("in a finally"), server.write("in the same")))

    async def main() -> tuple[Pool, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        pool = await server.write("before")
        await pool.wait(LONGEST_WAIT)
        await asyncio.to_thread(server.restart)
        return pool, task

    pool, task = run(main())
    assert task.cancelled()
    assert written_through == [pool, pool]
    assert pool.closed
    assert server.notes() == ["before", "in a finally", "in the same"]
    assert server.wait_for_back_ends(0)
