"""SQLAlchemy's asynchronous engine and sessions, over asyncpg, on a real PostgreSQL: one engine per loop, gone at its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import asyncio_loop_local
from servers import LONGEST_WAIT, running
from servers_postgres import PostgresServer, PostgresView, postgres

if TYPE_CHECKING:
    from conftest import Run

    Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    note: Mapped[str] = mapped_column(primary_key=True)


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def database(url: URL, *, application: str) -> AsyncGenerator[AsyncEngine]:
    """An engine that looks whether a connection still works before it gives it to anybody."""
    engine = create_async_engine(
        url,
        pool_size=2,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"server_settings": {"application_name": application}},
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def make_sessions(url: URL, *, application: str) -> AsyncGenerator[Sessions]:
    """What makes sessions on the loop's one engine, which it keeps open."""
    async with database(url, application=application) as engine:
        yield async_sessionmaker(engine, expire_on_commit=False)


class Server(PostgresView):
    """The server, and the engine and sessions through which the test uses it."""

    def url(self) -> URL:
        return URL.create("postgresql+asyncpg", username="postgres", database="postgres", query={"host": self.host})

    def engine(self) -> asyncio_loop_local.StickyACM[AsyncEngine]:
        return database(self.url(), application=self.name)

    def sessions(self) -> asyncio_loop_local.StickyACM[Sessions]:
        return make_sessions(self.url(), application=self.name)

    async def release_engine(self) -> bool:
        return await asyncio_loop_local.release(database, self.url(), application=self.name)

    async def release_sessions(self) -> bool:
        return await asyncio_loop_local.release(make_sessions, self.url(), application=self.name)

    async def write(self, note: str) -> AsyncEngine:
        """Writes a note through a session, in a transaction."""
        async with self.sessions() as sessions, sessions.begin() as session:
            session.add(Note(note=note))
        async with self.engine() as engine:
            return engine

    async def sleep(self) -> None:
        """Runs a query that takes for ever."""
        async with self.engine() as engine, engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(1000)"))


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


def test_an_engine_serves_all_tasks_and_leaves_no_back_end(run: Run, server: Server) -> None:
    """All tasks of a loop share one engine, whose connections are all gone from the server when the loop has ended."""

    async def main() -> None:
        engines = await asyncio.gather(*(server.write(f"{number:02}") for number in range(20)))
        assert all(engine is engines[0] for engine in engines)
        assert server.back_ends() == 2

    run(main())
    assert server.notes() == [f"{number:02}" for number in range(20)]
    assert server.wait_for_back_ends(0)


def test_loops_in_a_row_have_an_engine_each(run: Run, server: Server) -> None:
    """Each of several loops in a row has an engine of its own, and disposes of it; a global engine fails on the second."""
    engines: list[AsyncEngine] = []
    for number in range(3):
        engines.append(run(server.write(str(number))))
        assert server.wait_for_back_ends(0)
    assert len({id(engine) for engine in engines}) == 3
    assert server.notes() == ["0", "1", "2"]


def test_loops_in_several_threads_have_an_engine_each(run: Run, server: Server) -> None:
    """Loops that run at the same time in several threads have an engine each, and leave nothing on the server."""
    all_are_open = threading.Barrier(3, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(3, timeout=LONGEST_WAIT)
    counted: list[int] = []

    async def main(number: int) -> AsyncEngine:
        engine = await server.write(f"first from {number}")
        if await asyncio.to_thread(all_are_open.wait) == 0:
            counted.append(await asyncio.to_thread(server.back_ends))
        await asyncio.to_thread(all_are_counted.wait)
        assert await server.write(f"second from {number}") is engine
        return engine

    def run_in_thread(number: int) -> AsyncEngine:
        return run(main(number))

    with ThreadPoolExecutor(3) as threads:
        engines = list(threads.map(run_in_thread, range(3)))
    assert counted == [3]
    assert len({id(engine) for engine in engines}) == 3
    assert server.notes() == [f"{which} from {number}" for which in ("first", "second") for number in range(3)]
    assert server.wait_for_back_ends(0)


def test_a_task_that_is_cancelled_at_the_end_writes_in_its_finally(run: Run, server: Server) -> None:
    """A task that the runner cancels can still open a session, and the engine too if nobody had, while it cleans up."""

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await server.write("in a finally")

    async def main(note: str | None) -> asyncio.Task[None]:
        task = asyncio.create_task(linger())
        if note is not None:
            await server.write(note)
        await asyncio.sleep(0)  # or the task would be cancelled before it begins
        return task

    assert run(main("at the beginning")).cancelled()
    assert server.notes() == ["at the beginning", "in a finally"]
    assert server.wait_for_back_ends(0)
    server.forget_notes()
    assert run(main(None)).cancelled()
    assert server.notes() == ["in a finally"]
    assert server.wait_for_back_ends(0)


def test_a_transaction_that_the_end_of_the_loop_cancels_is_rolled_back(run: Run, server: Server) -> None:
    """A task that the runner cancels within a transaction takes it back, and its connection too, before the engine goes."""
    complaints: list[object] = []

    async def transfer() -> None:
        async with server.sessions() as sessions, sessions.begin() as session:
            session.add(Note(note="half"))
            await session.flush()
            await session.execute(text("SELECT pg_sleep(1000)"))

    async def main() -> asyncio.Task[None]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        task = asyncio.create_task(transfer())
        await server.write("whole")
        assert await asyncio.to_thread(server.wait_for_back_ends, 1, busy=True)
        return task

    assert run(main()).cancelled()
    assert server.notes() == ["whole"]
    assert complaints == []
    assert server.wait_for_back_ends(0)


def test_a_session_that_commits_in_an_exit_loses_nothing(run: Run, server: Server) -> None:
    """A session held as long as the loop commits in its exit what tasks gave it, also at the last: its engine goes after it."""

    @asyncio_loop_local.sticky_singleton_acm
    @asynccontextmanager
    async def unit_of_work() -> AsyncGenerator[AsyncSession]:
        async with server.sessions() as sessions, sessions.begin() as session:
            yield session

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            async with unit_of_work() as session:
                session.add(Note(note="added in a finally"))

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(linger())
        async with unit_of_work() as session:
            session.add(Note(note="added"))
            await session.flush()
        assert await asyncio.to_thread(server.notes) == []
        return task

    assert run(main()).cancelled()
    assert server.notes() == ["added", "added in a finally"]
    assert server.wait_for_back_ends(0)


def test_closing_a_loop_by_hand_disposes_of_its_engine(new_loop: Callable[[], asyncio.AbstractEventLoop], server: Server) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its engine between the runs, and ``close()`` disposes of it."""
    loop = new_loop()
    try:
        engine = loop.run_until_complete(server.write("1"))
        assert loop.run_until_complete(server.write("2")) is engine
    finally:
        loop.close()
    assert server.notes() == ["1", "2"]
    assert server.wait_for_back_ends(0)


def test_an_engine_whose_server_was_killed_and_started_again_goes_on(run: Run, server: Server) -> None:
    """An engine that looks before it gives gets new connections when the server is back, and is still the loop's one engine."""

    async def main() -> None:
        engine = (await asyncio.gather(*(server.write(f"before {number}") for number in range(2))))[0]
        await asyncio.to_thread(server.restart)
        again = await asyncio.gather(*(server.write(f"after {number}") for number in range(5)))
        assert all(each is engine for each in again)

    run(main())
    assert server.notes() == [f"after {number}" for number in range(5)] + ["before 0", "before 1"]
    assert server.wait_for_back_ends(0)


def test_a_query_in_flight_fails_when_the_server_is_killed(run: Run, server: Server) -> None:
    """Who was waiting for an answer of a server that is killed is told that the connection is lost; the engine is still there."""

    async def main() -> None:
        engine = await server.write("before")
        query = asyncio.create_task(server.sleep())
        assert await asyncio.to_thread(server.wait_for_back_ends, 1, busy=True)
        await asyncio.to_thread(server.restart)
        with pytest.raises(DBAPIError) as caught:
            await query
        assert caught.value.connection_invalidated
        assert await server.write("after") is engine

    run(main())
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_an_engine_without_a_server_is_released_and_made_anew(run: Run, server: Server) -> None:
    """While the server is down, what uses the engine is released first, then the engine; later calls make both anew."""

    async def main() -> None:
        first = await server.write("before")
        await asyncio.to_thread(server.kill)
        with pytest.raises(RuntimeError, match=r"database\(.*\) cannot be released while it is in use by .*make_sessions\("):
            await server.release_engine()
        assert await server.release_sessions()
        assert await server.release_engine()
        assert not await server.release_sessions()
        assert not await server.release_engine()
        await asyncio.to_thread(server.start)
        assert await server.write("after") is not first

    run(main())
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_a_loop_ends_in_good_order_while_the_server_is_down(run: Run, server: Server) -> None:
    """A loop whose server was killed ends as ever, and nothing is complained of; the next loop works when the server is back."""
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await server.write("before")
        await asyncio.to_thread(server.kill)

    run(main())
    assert complaints == []
    server.start()
    run(server.write("after"))
    assert server.notes() == ["after", "before"]
    assert server.wait_for_back_ends(0)


def test_a_finally_writes_to_a_server_that_was_killed_and_started_again(run: Run, server: Server) -> None:
    """A task that is cancelled at the end of the loop writes through the old engine to the new server."""
    written_through: list[AsyncEngine] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            written_through.append(await server.write("in a finally"))

    async def main() -> tuple[AsyncEngine, asyncio.Task[None]]:
        task = asyncio.create_task(linger())
        engine = await server.write("before")
        await asyncio.to_thread(server.restart)
        return engine, task

    engine, task = run(main())
    assert task.cancelled()
    assert written_through == [engine]
    assert server.notes() == ["before", "in a finally"]
    assert server.wait_for_back_ends(0)
