"""asyncpg's connection pool, on a real PostgreSQL: one pool per loop, and no back end of it left on the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import pytest

import asyncio_loop_local
from servers import LONGEST_WAIT, running
from servers_postgres import PostgresServer, PostgresView, postgres

if TYPE_CHECKING:
    from conftest import Run

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_pool = asyncio_loop_local.sticky_singleton_acm(asyncpg.create_pool)


class Server(PostgresView):
    """The server, and the pool through which the test uses it."""

    def pool(self, *, size: int = 2) -> asyncio_loop_local.StickyACM[Pool]:
        """Asks for the pool, as an application would: with arguments made anew for every call."""
        return _pool(
            host=self.host,
            user="postgres",
            database="postgres",
            min_size=size,
            max_size=size,
            server_settings={"application_name": self.name},
        )

    async def release(self) -> bool:
        """Releases the pool."""
        return await asyncio_loop_local.release(
            _pool,  # pyright: ignore[reportArgumentType]  # it takes no wrapped overloads, whatever the arguments
            host=self.host,
            user="postgres",
            database="postgres",
            min_size=2,
            max_size=2,
            server_settings={"application_name": self.name},
        )

    async def write(self, note: str) -> Pool:
        """Writes a note through a connection of the pool, in a transaction."""
        async with self.pool() as pool, pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO notes VALUES ($1)", note)
            return pool

    async def sleep(self) -> None:
        """Runs a query that takes for ever."""
        async with self.pool() as pool:
            await pool.execute("SELECT pg_sleep(1000)")


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


def is_closed(pool: Pool) -> bool:
    return pool.is_closing() and pool.get_size() == 0


def test_a_pool_serves_all_tasks_and_leaves_no_back_end(run: Run, server: Server) -> None:
    """All tasks of a loop share one pool, whose connections are all gone from the server when the loop has ended."""

    async def main() -> list[Pool]:
        pools = await asyncio.gather(*(server.write(f"{number:02}") for number in range(20)))
        assert server.back_ends() == 2
        return pools

    pools = run(main())
    assert all(pool is pools[0] for pool in pools)
    assert is_closed(pools[0])
    assert server.notes() == [f"{number:02}" for number in range(20)]
    assert server.wait_for_back_ends(0)


def test_loops_in_a_row_have_a_pool_each(run: Run, server: Server) -> None:
    """Each of several loops in a row opens a pool of its own and closes it; a pool in a global variable fails on the second."""
    pools: list[Pool] = []
    for number in range(3):
        pools.append(run(server.write(str(number))))
        assert is_closed(pools[-1])
        assert server.wait_for_back_ends(0)
    assert len({id(pool) for pool in pools}) == 3
    assert server.notes() == ["0", "1", "2"]


def test_loops_in_several_threads_have_a_pool_each(run: Run, server: Server) -> None:
    """Loops that run at the same time in several threads have a pool each, and leave nothing on the server."""
    all_are_open = threading.Barrier(3, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(3, timeout=LONGEST_WAIT)
    counted: list[int] = []

    async def main(number: int) -> Pool:
        async with server.pool() as pool:
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
    assert all(map(is_closed, pools))
    assert server.notes() == ["from 0", "from 1", "from 2"]
    assert server.wait_for_back_ends(0)


def test_a_task_that_is_cancelled_at_the_end_writes_in_its_finally(run: Run, server: Server) -> None:
    """A task that the runner cancels can still write to the database while it cleans up, also through a pool not yet opened."""

    async def linger(size: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            async with server.pool(size=size) as pool:
                await pool.execute("INSERT INTO notes VALUES ($1)", f"in a finally, {pool.get_max_size()}")

    async def main() -> tuple[Pool, list[asyncio.Task[None]]]:
        tasks = [asyncio.create_task(linger(size)) for size in (1, 2)]
        return await server.write("at the beginning"), tasks

    pool, tasks = run(main())
    assert all(task.cancelled() for task in tasks)
    assert server.notes() == ["at the beginning", "in a finally, 1", "in a finally, 2"]
    assert is_closed(pool)
    assert server.wait_for_back_ends(0)


def test_a_transaction_that_the_end_of_the_loop_cancels_is_rolled_back(run: Run, server: Server) -> None:
    """A task that the runner cancels within a transaction takes it back, and its connection too, before the pool closes."""
    complaints: list[object] = []

    async def transfer(begun: asyncio.Event) -> None:
        async with server.pool() as pool, pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO notes VALUES ('half')")
            begun.set()
            await connection.execute("SELECT pg_sleep(1000)")

    async def main() -> asyncio.Task[None]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        begun = asyncio.Event()
        task = asyncio.create_task(transfer(begun))
        await begun.wait()
        assert await asyncio.to_thread(server.wait_for_back_ends, 1, busy=True)
        await server.write("whole")
        return task

    assert run(main()).cancelled()
    assert server.notes() == ["whole"]
    assert complaints == []
    assert server.wait_for_back_ends(0)


def test_a_writer_that_flushes_in_its_exit_loses_nothing(run: Run, server: Server) -> None:
    """What a resource has collected reaches the database when it is written at the exit: the pool it uses is closed after it."""

    @asyncio_loop_local.sticky_singleton_acm
    @asynccontextmanager
    async def writer() -> AsyncGenerator[list[str]]:
        collected: list[str] = []
        async with server.pool() as pool:
            yield collected
            await pool.executemany("INSERT INTO notes VALUES ($1)", [(note,) for note in collected])

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
    assert is_closed(pool)
    assert server.wait_for_back_ends(0)


def test_closing_a_loop_by_hand_closes_its_pool(new_loop: Callable[[], asyncio.AbstractEventLoop], server: Server) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its pool between the runs, and ``close()`` closes it."""
    loop = new_loop()
    try:
        pool = loop.run_until_complete(server.write("1"))
        assert loop.run_until_complete(server.write("2")) is pool
    finally:
        loop.close()
    assert is_closed(pool)
    assert server.notes() == ["1", "2"]
    assert server.wait_for_back_ends(0)


def test_a_pool_whose_server_was_killed_and_started_again_goes_on(run: Run, server: Server) -> None:
    """A pool gets new connections when the server is back, and is still the loop's one pool."""

    async def main() -> Pool:
        pool = await server.write("before")
        await asyncio.to_thread(server.restart)
        again = await asyncio.gather(*(server.write(f"after {number}") for number in range(5)))
        assert all(each is pool for each in again)
        return pool

    assert is_closed(run(main()))
    assert server.notes() == ["after 0", "after 1", "after 2", "after 3", "after 4", "before"]
    assert server.wait_for_back_ends(0)


def test_a_query_in_flight_fails_when_the_server_is_killed(run: Run, server: Server) -> None:
    """Who was waiting for an answer of a server that is killed gets the client's own error, and the pool is still there."""

    async def main() -> None:
        pool = await server.write("before")
        query = asyncio.create_task(server.sleep())
        assert await asyncio.to_thread(server.wait_for_back_ends, 1, busy=True)
        await asyncio.to_thread(server.restart)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await query
        assert await server.write("after") is pool

    run(main())
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_a_pool_without_a_server_is_released_and_made_anew(run: Run, server: Server) -> None:
    """``release`` closes a pool while its server is down; calls raise the client's error until the server is back."""

    async def main() -> tuple[Pool, Pool]:
        first = await server.write("before")
        await asyncio.to_thread(server.kill)
        assert await server.release()
        assert is_closed(first)
        assert not await server.release()
        for _ in range(2):  # a failure is not remembered
            with pytest.raises(OSError, match="No such file"):
                await server.write("never")
        await asyncio.to_thread(server.start)
        return first, await server.write("after")

    first, second = run(main())
    assert first is not second
    assert is_closed(second)
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_a_loop_ends_in_good_order_while_the_server_is_down(run: Run, server: Server) -> None:
    """A loop whose server was killed ends as ever: its pool is closed, and nothing is complained of."""
    complaints: list[object] = []

    async def main() -> Pool:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        pool = await server.write("before")
        await asyncio.to_thread(server.kill)
        return pool

    pool = run(main())
    assert is_closed(pool)
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
        finally:
            written_through.append(await server.write("in a finally"))

    async def main() -> tuple[Pool, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        pool = await server.write("before")
        await asyncio.to_thread(server.restart)
        return pool, task

    pool, task = run(main())
    assert task.cancelled()
    assert written_through == [pool]
    assert is_closed(pool)
    assert server.notes() == ["before", "in a finally"]
    assert server.wait_for_back_ends(0)
