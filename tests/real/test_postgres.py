"""What psycopg's and asyncpg's pools and SQLAlchemy's sessions do besides the contract, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

import asyncio_loop_local
from conftest import Run
from lingering import begin_to_linger
from real_clients import Asyncpg, AsyncpgPool, Note, OpenedAsyncpgPool, PsycopgPool, Sqlalchemy, database

of_psycopg = pytest.mark.parametrize("client", [PsycopgPool], indirect=True)
of_asyncpg = pytest.mark.parametrize("client", [AsyncpgPool], indirect=True)
of_sqlalchemy = pytest.mark.parametrize("client", [Sqlalchemy], indirect=True)


@of_psycopg
def test_the_workers_of_a_pool_are_no_tasks_of_the_users(run: Run, client: PsycopgPool) -> None:
    """``asyncio.all_tasks()`` shows the user's tasks, and none of the pool's workers."""

    async def main() -> None:
        await client.write("one")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@of_psycopg
def test_equal_keyword_dicts_are_one_pool_and_others_another(run: Run, client: PsycopgPool) -> None:
    """A dict among the arguments counts by its content: equal ones get one pool, another one gets another."""

    async def main() -> None:
        first, again, other = [await client.call(size=size).get() for size in (2, 2, 1)]
        assert first is again
        assert first is not other
        assert first.kwargs == {"application_name": client.name, "autocommit": True}
        await asyncio.gather(client.settle(first), client.settle(other))
        assert client.connections() == 3

    run(main())


pool_to_await = asyncio_loop_local.singleton(asyncpg.create_pool, close=asyncpg.Pool.close)


@of_asyncpg
def test_a_pool_that_its_users_await_is_closed(run: Run, client: AsyncpgPool) -> None:
    """asyncpg's own `create_pool` gives a pool that connects when one task awaits it; it is closed like any value."""

    def pool() -> Asyncpg:
        made: Asyncpg = pool_to_await(**client.arguments)
        return made

    async def main() -> Asyncpg:
        opened = await pool()
        assert await pool() is pool() is opened
        await asyncio.gather(*(client.use(pool(), str(number)) for number in range(5)))
        return opened

    assert client.is_closed(run(main()))
    assert client.has_got(*map(str, range(5)))


@of_asyncpg
def test_tasks_that_ask_for_a_pool_at_once_have_it_opened_by_a_coroutine_function(run: Run, client: AsyncpgPool) -> None:
    """A bare pool can be awaited by one task alone until it is connected; what a coroutine function has opened, by any number."""

    async def await_it() -> None:
        await pool_to_await(**client.arguments)

    async def main() -> None:
        one, other = await asyncio.gather(await_it(), await_it(), return_exceptions=True)
        assert one is None
        assert isinstance(other, asyncpg.InterfaceError)
        opened = OpenedAsyncpgPool(client.server, client.name)
        assert len({id(pool) for pool in await asyncio.gather(*(opened.call().get() for _ in range(5)))}) == 1

    run(main())


@asyncio_loop_local.sticky_singleton_acm
@asynccontextmanager
async def make_sessions(url: URL, *, application: str) -> AsyncGenerator[async_sessionmaker[AsyncSession]]:
    """Makes sessions on the loop's one engine, which it keeps open."""
    async with database(url, application=application) as engine:
        yield async_sessionmaker(engine, expire_on_commit=False)


@of_sqlalchemy
def test_a_session_that_commits_in_an_exit_loses_nothing(run: Run, client: Sqlalchemy) -> None:
    """A session held as long as the loop commits in its exit what tasks gave it to the last: its engine goes after it."""

    @asyncio_loop_local.sticky_singleton_acm
    @asynccontextmanager
    async def unit_of_work() -> AsyncGenerator[AsyncSession]:
        async with make_sessions(client.url, application=client.name) as sessions, sessions.begin() as session:
            yield session

    async def add_last() -> None:
        async with unit_of_work() as session:
            session.add(Note(note="added in a finally"))

    async def main() -> list[asyncio.Task[None]]:
        async with unit_of_work() as session:
            session.add(Note(note="added"))
            await session.flush()
        assert await asyncio.to_thread(client.notes) == []
        return await begin_to_linger(1, add_last)

    (task,) = run(main())
    assert task.cancelled()
    assert client.has_got("added", "added in a finally")


@of_sqlalchemy
def test_what_uses_an_engine_is_released_before_it(run: Run, client: Sqlalchemy) -> None:
    """An engine in use cannot be released, also while its server is down; what uses it is released first, and made anew."""

    async def main() -> None:
        first = await client.write("before")
        async with make_sessions(client.url, application=client.name):
            await client.kill(first)
        with pytest.raises(RuntimeError, match=r"database\(.*\) cannot be released while it is in use by .*make_sessions\("):
            await client.call().release()
        for released in (True, False):
            assert await asyncio_loop_local.release(make_sessions, client.url, application=client.name) is released
            assert await client.call().release() is released
        await asyncio.to_thread(client.start)
        async with make_sessions(client.url, application=client.name) as sessions, sessions.begin() as session:
            session.add(Note(note="after"))
        assert await client.call().get() is not first

    run(main())
    assert client.has_got("before", "after")
