"""The clients for which the contract is tested, each on a real server.

To add a client: write a subclass of `Client`, which says how the client is opened, used, broken and counted on its server,
and list it in `CLIENTS`. test_contract.py then tests every promise for it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, cast

import aiohttp
import aiomqtt
import asyncpg
import grpc
import httpx
import nats
import nats.errors
import openai
import psutil
import psycopg
import redis.asyncio
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent
from nats.aio.client import Client as NatsClient
from psycopg_pool import AsyncConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import asyncio_loop_local
import servers_mqtt
import servers_nats
from asyncio_loop_local import StickyACM, singleton, sticky_singleton_acm
from servers import LONGEST_WAIT, HttpServer, SuiteServer, wait_until
from servers_mqtt import MqttBroker
from servers_nats import Connection, NatsServer
from servers_postgres import PostgresServer, postgres
from servers_redis import RedisServer


class Server(Protocol):
    """What all servers have in common."""

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def is_running(self) -> bool: ...


class NewServer(Protocol):
    """Makes a server, which its block starts and stops."""

    def __call__(self) -> AbstractContextManager[Any]: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=Server)


class Call(Generic[T]):
    """A call of a wrapped factory: how to get its value on the running loop, and how to release it."""

    def __init__(self, factory: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._factory, self._args, self._kwargs = factory, args, kwargs

    async def get(self) -> T:
        called = self._factory(*self._args, **self._kwargs)
        if isinstance(called, StickyACM):
            async with cast("StickyACM[T]", called) as entered:
                return entered
        value: T = await called if asyncio.iscoroutine(called) else called
        return value

    async def release(self) -> bool:
        return await asyncio_loop_local.release(self._factory, *self._args, **self._kwargs)


class Client(ABC, Generic[S, T]):
    """A client, and its server as one test sees it: the test's name marks all that it does on the server."""

    new_server: ClassVar[NewServer]
    one_task: ClassVar[int] = 1  # how many connections a client has for one task
    many_tasks: ClassVar[range] = range(1, 2)  # and for twenty
    after_a_kill: ClassVar[Literal["works again", "is broken", "dies"]] = "works again"  # when its server is back
    lost: ClassVar[type[Exception] | None] = None  # what a call raises whose server is killed; None if it goes on waiting
    # What a call raises where there is no server; None if it waits for one.
    refused: ClassVar[type[Exception] | None] = None
    works_on: ClassVar[bool] = True  # whether a cancelled task that waits for the server leaves the client in order
    cannot_exit: ClassVar[type[Exception] | None] = None  # what the exit raises where there is no server
    opening: ClassVar[AbstractContextManager[object]] = nullcontext()  # held while threads open one at the same time

    def __init__(self, server: S, name: str) -> None:
        self.server = server
        self.name = name

    @abstractmethod
    def call(self) -> Call[T]:
        """Asks for the client as an application would: with arguments made anew for every call."""

    @abstractmethod
    async def use(self, client: T, note: str) -> None:
        """Gives the server a note."""

    @abstractmethod
    async def never(self, client: T) -> None:
        """Waits for an answer that the server never gives."""

    def is_busy(self) -> bool:
        """Whether the server has been asked `never`, as far as it says so."""
        return True

    @abstractmethod
    def notes(self) -> list[str]:
        """The notes that the server has got in this test, in any order."""

    @abstractmethod
    def connections(self) -> int:
        """How many connections the clients of this test have on the server."""

    def is_closed(self, client: T) -> bool | None:
        """Whether the client says that it is closed; None if it cannot say."""
        return None

    def is_lost(self, error: Exception) -> bool:
        """Whether this is the error of a call whose server is killed."""
        return self.lost is not None and isinstance(error, self.lost)

    def is_noise(self, report: dict[str, Any]) -> bool:
        """Whether the client itself reports this, with or without the library."""
        return False

    async def settle(self, client: T) -> None:
        """Waits until the client has all its connections."""

    async def kill(self, client: T) -> None:
        """Kills the server, and waits until the client has noticed."""
        await asyncio.to_thread(self.server.kill)

    def start(self) -> None:
        """Starts the server that was killed."""
        self.server.start()

    def was_left_in_good_order(self) -> bool:
        """Waits until no connection of this test is left: a server hears of it a little later."""
        return wait_until(lambda: self.connections() == 0)

    def has_got(self, *notes: str) -> bool:
        """Waits until the server has got these notes, and no others."""
        wait_until(lambda: len(self.notes()) >= len(notes))
        assert sorted(self.notes()) == sorted(notes)
        return True

    async def write(self, note: str) -> T:
        """Gives the server a note through the client of the running loop."""
        client = await self.call().get()
        await self.use(client, note)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


AnyClient: TypeAlias = Client[Any, Any]


# Clients of the suite's HTTP server


class HttpClient(Client[HttpServer, T]):
    """A client whose notes are paths of the suite's HTTP server, below one of the test's own."""

    new_server = HttpServer
    many_tasks = range(1, 21)

    @abstractmethod
    async def get(self, client: T, path: str) -> str:
        """What the server answers."""

    async def use(self, client: T, note: str) -> None:
        path = f"/{self.name}/{note}"
        assert await self.get(client, path) == path

    async def never(self, client: T) -> None:
        await self.get(client, f"/never/{self.name}")

    def is_busy(self) -> bool:
        return f"/never/{self.name}" in self.server.paths

    def notes(self) -> list[str]:
        begin = f"/{self.name}/"
        return [path.removeprefix(begin) for path in self.server.paths if path.startswith(begin)]

    def connections(self) -> int:
        return self.server.open_connections()


_session = sticky_singleton_acm(aiohttp.ClientSession)


class Aiohttp(HttpClient[aiohttp.ClientSession]):
    lost = aiohttp.ClientConnectionError
    refused = aiohttp.ClientConnectorError

    def call(self) -> Call[aiohttp.ClientSession]:
        return Call(_session, self.server.url, headers={"X-Test": self.name}, timeout=aiohttp.ClientTimeout(LONGEST_WAIT))

    async def get(self, client: aiohttp.ClientSession, path: str) -> str:
        async with client.get(path) as response:
            return await response.text()

    def is_closed(self, client: aiohttp.ClientSession) -> bool:
        return client.closed and client.connector is None


_httpx_client = singleton(httpx.AsyncClient, close=httpx.AsyncClient.aclose)


class Httpx(HttpClient[httpx.AsyncClient]):
    lost = httpx.RemoteProtocolError
    refused = httpx.ConnectError

    def call(self) -> Call[httpx.AsyncClient]:
        return Call(_httpx_client, base_url=self.server.url, timeout=httpx.Timeout(LONGEST_WAIT))

    async def get(self, client: httpx.AsyncClient, path: str) -> str:
        return (await client.get(path)).text

    def is_closed(self, client: httpx.AsyncClient) -> bool:
        return client.is_closed


_openai_client = singleton(openai.AsyncOpenAI, close=openai.AsyncOpenAI.close)


class OpenAI(HttpClient[openai.AsyncOpenAI]):
    lost = openai.APIConnectionError
    refused = openai.APIConnectionError

    def call(self) -> Call[openai.AsyncOpenAI]:
        return Call(_openai_client, base_url=self.server.url, api_key="of the test", timeout=LONGEST_WAIT, max_retries=0)

    async def get(self, client: openai.AsyncOpenAI, path: str) -> str:
        return await client.get(path, cast_to=str)

    def is_closed(self, client: openai.AsyncOpenAI) -> bool:
        return client.is_closed()


# PostgreSQL


class PostgresClient(Client[PostgresServer, T]):
    """A client of PostgreSQL; `never` is a transaction that has written something, and must be rolled back."""

    new_server = postgres

    def __enter__(self) -> Self:
        self.server.ask("DROP TABLE IF EXISTS notes")
        self.server.ask("CREATE TABLE notes (note text)")
        return self

    def notes(self) -> list[str]:
        return self.server.ask("SELECT note FROM notes")

    def connections(self) -> int:
        return len(self.server.ask("SELECT pid FROM pg_stat_activity WHERE application_name = %s", self.name))

    def is_busy(self) -> bool:
        busy = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND state = 'active' AND wait_event = 'PgSleep'"
        return len(self.server.ask(busy, self.name)) == 1


Psycopg: TypeAlias = AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]]

_psycopg_pool = sticky_singleton_acm(AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]])


class PsycopgPool(PostgresClient[Psycopg]):
    """A pool that checks its connections, which it opens in the background."""

    one_task = 2
    many_tasks = range(2, 3)
    lost = psycopg.OperationalError

    def call(self, *, size: int = 2) -> Call[Psycopg]:
        return Call(
            _psycopg_pool,
            self.server.conninfo,
            min_size=size,
            max_size=size,
            open=False,
            check=AsyncConnectionPool.check_connection,
            kwargs={"application_name": self.name, "autocommit": True},
        )

    async def use(self, client: Psycopg, note: str) -> None:
        async with client.connection() as connection:
            await connection.execute("INSERT INTO notes VALUES (%s)", [note])

    async def never(self, client: Psycopg) -> None:
        async with client.connection() as connection, connection.transaction():
            await connection.execute("INSERT INTO notes VALUES ('half')")
            await connection.execute("SELECT pg_sleep(1000)")

    async def settle(self, client: Psycopg) -> None:
        await client.wait(LONGEST_WAIT)

    def is_closed(self, client: Psycopg) -> bool:
        return client.closed


Asyncpg: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


async def open_asyncpg_pool(**arguments: Any) -> Asyncpg:
    """A pool that is open, to any number of tasks: a pool itself can be awaited by one task alone until it is."""
    pool: Asyncpg = await asyncpg.create_pool(**arguments)
    return pool


_opened_asyncpg_pool = singleton(open_asyncpg_pool, close=asyncpg.Pool.close)

_asyncpg_pool = sticky_singleton_acm(asyncpg.create_pool)


class AsyncpgPool(PostgresClient[Asyncpg]):
    one_task = 2
    many_tasks = range(2, 3)
    lost = asyncpg.InterfaceError
    refused = OSError

    @property
    def arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"host": self.server.host, "user": "postgres", "database": "postgres"}
        return arguments | {"min_size": 2, "max_size": 2, "server_settings": {"application_name": self.name}}

    def call(self) -> Call[Asyncpg]:
        return Call(_asyncpg_pool, **self.arguments)

    async def use(self, client: Asyncpg, note: str) -> None:
        async with client.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO notes VALUES ($1)", note)

    async def never(self, client: Asyncpg) -> None:
        async with client.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO notes VALUES ('half')")
            await connection.execute("SELECT pg_sleep(1000)")

    async def kill(self, client: Asyncpg) -> None:
        await super().kill(client)
        while client.get_size():  # its connections that are not yet closed
            await asyncio.sleep(0)

    def is_closed(self, client: Asyncpg) -> bool:
        return client.is_closing() and client.get_size() == 0

    def is_lost(self, error: Exception) -> bool:
        """The end of the transaction fails too, and its error comes last."""
        return isinstance(error.__context__, asyncpg.ConnectionDoesNotExistError)


class OpenedAsyncpgPool(AsyncpgPool):
    """A pool that a coroutine function opens, and ``close`` closes."""

    def call(self) -> Call[Asyncpg]:
        return Call(_opened_asyncpg_pool, **self.arguments)


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    note: Mapped[str] = mapped_column(primary_key=True)


@sticky_singleton_acm
@asynccontextmanager
async def database(url: URL, *, application: str) -> AsyncGenerator[AsyncEngine]:
    """An engine that checks its connections, over asyncpg."""
    settings = {"server_settings": {"application_name": application}}
    engine = create_async_engine(url, pool_size=2, max_overflow=0, pool_pre_ping=True, connect_args=settings)
    try:
        yield engine
    finally:
        await engine.dispose()


class Sqlalchemy(PostgresClient[AsyncEngine]):
    many_tasks = range(2, 3)
    lost = DBAPIError
    refused = OSError

    @property
    def url(self) -> URL:
        return URL.create("postgresql+asyncpg", username="postgres", database="postgres", query={"host": self.server.host})

    def call(self) -> Call[AsyncEngine]:
        return Call(database, self.url, application=self.name)

    async def use(self, client: AsyncEngine, note: str) -> None:
        async with AsyncSession(client) as session, session.begin():
            session.add(Note(note=note))

    async def never(self, client: AsyncEngine) -> None:
        async with AsyncSession(client) as session, session.begin():
            session.add(Note(note="half"))
            await session.flush()
            await session.execute(text("SELECT pg_sleep(1000)"))

    def is_lost(self, error: Exception) -> bool:
        return isinstance(error, DBAPIError) and error.connection_invalidated


# Redis

_redis = cast("Callable[..., Any]", sticky_singleton_acm(redis.asyncio.Redis))
_redis_from_url: Any = singleton(redis.asyncio.from_url, close=redis.asyncio.Redis.aclose)


class CountingBackoff(NoBackoff):
    """Counts the commands that the client sends once more by itself: the server may have carried the first one out."""

    repeated = 0

    def compute(self, failures: int) -> float:
        CountingBackoff.repeated += 1
        return super().compute(failures)


class Redis(Client[RedisServer, redis.asyncio.Redis]):
    new_server = RedisServer
    many_tasks = range(1, 21)
    lost = redis.ConnectionError
    refused = redis.ConnectionError

    def call(self) -> Call[redis.asyncio.Redis]:
        return Call(_redis, port=self.server.port, client_name=self.name, **self.options())

    def options(self) -> dict[str, Any]:
        return {"decode_responses": True, "retry": Retry(CountingBackoff(), 1)}

    async def use(self, client: redis.asyncio.Redis, note: str) -> None:
        await client.rpush(f"{self.name} notes", note)

    async def never(self, client: redis.asyncio.Redis) -> None:
        await client.blpop([f"{self.name} nothing"], timeout=0)

    def is_busy(self) -> bool:
        with self.server.admin() as admin:
            return bool(admin.info("clients")["blocked_clients"] == 1)

    def notes(self) -> list[str]:
        return self.server.list(f"{self.name} notes")

    def connections(self) -> int:
        return self.server.clients().count(self.name)


class RedisFromUrl(Redis):
    """A client of a plain function, which ``close`` closes."""

    def call(self) -> Call[redis.asyncio.Redis]:
        return Call(_redis_from_url, f"redis://localhost:{self.server.port}?client_name={self.name}", **self.options())


# Clients of programs of the suite


class SuiteClient(Client[SuiteServer, T]):
    """A client of a program of the suite, which says on its output what happens to it, a line each."""

    def __init__(self, server: SuiteServer, name: str) -> None:
        super().__init__(server, name)
        self._begin = len(server.lines)

    def hears(self, what: str) -> bool:
        """Waits until the server has said this in this test."""
        return wait_until(lambda: what in self._lines())

    def is_busy(self) -> bool:
        return "never begun" in self._lines()

    def notes(self) -> list[str]:
        return [line.removeprefix("echo ") for line in self._lines() if line.startswith("echo ")]

    def connections(self) -> int:
        return self.server.connections()

    def _lines(self) -> list[str]:
        return [line.rstrip("\n") for line in self.server.lines[self._begin :]]


_channel = sticky_singleton_acm(grpc.aio.insecure_channel)


class Grpc(SuiteClient[grpc.aio.Channel]):
    """A channel whose connection is its own, which grpc would else share among all of a process."""

    new_server = functools.partial(SuiteServer, "grpc_server.py")
    lost = grpc.aio.AioRpcError

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def call(self) -> Call[grpc.aio.Channel]:
        return Call(_channel, self.target, options=[("grpc.use_local_subchannel_pool", 1)])

    async def use(self, client: grpc.aio.Channel, note: str) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.unary_unary("/Small/Echo")
        assert await method(note.encode(), wait_for_ready=True) == note.encode()

    def begin_never(self, client: grpc.aio.Channel) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.unary_unary("/Small/Never")
        return method(b"")

    async def never(self, client: grpc.aio.Channel) -> None:
        await self.begin_never(client)

    def is_closed(self, client: grpc.aio.Channel) -> bool:
        return client.get_state() is grpc.ChannelConnectivity.SHUTDOWN

    def is_lost(self, error: Exception) -> bool:
        return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE

    def is_noise(self, report: dict[str, Any]) -> bool:
        """Of the queue of events that all loops of a process share: see test_grpc.py."""
        error: BaseException | None = report.get("exception")
        return error is not None and any(
            "completion_queue" in each.filename for each in traceback.extract_tb(error.__traceback__)
        )

    def was_left_in_good_order(self) -> bool:
        gc.collect()  # a closed channel keeps its connection while a traceback refers to a call of it
        return super().was_left_in_good_order()


async def text_of(session: ClientSession, tool: str, **arguments: object) -> str:
    """The answer of a tool of mcp_server.py."""
    result = await session.call_tool(tool, arguments)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@sticky_singleton_acm
@asynccontextmanager
async def mcp_session_over_http(url: str) -> AsyncGenerator[ClientSession]:
    async with streamable_http_client(url) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


class McpHttp(SuiteClient[ClientSession]):
    """A session that dies at the first call after a kill of its server.

    For each call MCP starts a task, from the caller's, in its own task group. When the end of the loop cancels that task
    with the caller's, the whole group ends.
    """

    new_server = functools.partial(SuiteServer, "mcp_server.py")
    many_tasks = range(1, 100)
    after_a_kill = "dies"
    works_on = False

    def call(self) -> Call[ClientSession]:
        return Call(mcp_session_over_http, f"http://127.0.0.1:{self.server.port}/mcp")

    async def use(self, client: ClientSession, note: str) -> None:
        assert await text_of(client, "echo", what=note) == note

    async def never(self, client: ClientSession) -> None:
        await client.call_tool("never")


class StdioServers:
    """Server processes that clients start, each its own."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def alive(self) -> set[int]:
        return {pid for pid in self.pids if psutil.pid_exists(pid)}

    def start(self) -> None:
        pass

    def kill(self) -> None:
        for pid in self.alive():
            psutil.Process(pid).kill()

    def is_running(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@sticky_singleton_acm
@asynccontextmanager
async def mcp_session(server: StdioServerParameters) -> AsyncGenerator[ClientSession]:
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


class McpStdio(Client[StdioServers, ClientSession]):
    """A session with a server process of its own; its arguments are a pydantic model, which counts by value."""

    new_server = StdioServers
    after_a_kill = "is broken"
    lost = MCPError
    opening = threading.Lock()  # uvloop refuses to spawn processes on two loops at the same time

    def __init__(self, server: StdioServers, name: str) -> None:
        super().__init__(server, name)
        self._notes: list[str] = []

    @property
    def parameters(self) -> StdioServerParameters:
        return StdioServerParameters(command=sys.executable, args=[str(Path(__file__).with_name("mcp_server.py"))])

    def call(self) -> Call[ClientSession]:
        return Call(mcp_session, self.parameters)

    async def use(self, client: ClientSession, note: str) -> None:
        self.server.pids.add(int(await text_of(client, "process_id")))
        self._notes.append(await text_of(client, "echo", what=note))

    async def never(self, client: ClientSession) -> None:
        await client.call_tool("never")

    def is_lost(self, error: Exception) -> bool:
        return isinstance(error, MCPError) and "Connection closed" in str(error)

    def notes(self) -> list[str]:
        return self._notes

    def connections(self) -> int:
        return len(self.server.alive())


# Clients that publish: what arrives elsewhere is counted


class Subscriber(Protocol):
    """Gets all messages of a test."""

    messages: list[str]

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...


class PublishingClient(Client[S, T]):
    """A client whose notes are messages to a subscriber, which is there while the server is."""

    def __init__(self, server: S, name: str) -> None:
        super().__init__(server, name)
        self._messages: list[list[str]] = []
        self._subscriber: Subscriber | None = None

    @abstractmethod
    def new_subscriber(self) -> Subscriber: ...

    def __enter__(self) -> Self:
        self._subscriber = self.new_subscriber()
        self._subscriber.__enter__()
        self._messages.append(self._subscriber.messages)
        return self

    def __exit__(self, *_: object) -> None:
        if self._subscriber is not None:
            self._subscriber.__exit__(None, None, None)
            self._subscriber = None

    def notes(self) -> list[str]:
        return [message for messages in self._messages for message in messages]

    async def kill(self, client: T) -> None:
        await asyncio.to_thread(self.__exit__)
        await super().kill(client)

    def start(self) -> None:
        super().start()
        self.__enter__()


_mqtt = sticky_singleton_acm(aiomqtt.Client)


class Mqtt(PublishingClient[MqttBroker, aiomqtt.Client]):
    new_server = MqttBroker
    after_a_kill = "is broken"
    lost = aiomqtt.MqttError
    refused = aiomqtt.MqttError

    def new_subscriber(self) -> servers_mqtt.Subscriber:
        return servers_mqtt.Subscriber(self.server.port, f"{self.name}/notes")

    def call(self) -> Call[aiomqtt.Client]:
        """The client of this thread: a broker ends a connection whose name another one takes."""
        identifier = f"{self.name}-{threading.current_thread().name}"
        return Call(_mqtt, "127.0.0.1", self.server.port, identifier=identifier, timeout=LONGEST_WAIT)

    async def use(self, client: aiomqtt.Client, note: str) -> None:
        await client.publish(f"{self.name}/notes", note, qos=1)

    async def never(self, client: aiomqtt.Client) -> None:
        async for _ in client.messages:
            raise AssertionError

    async def kill(self, client: aiomqtt.Client) -> None:
        await super().kill(client)
        with suppress(aiomqtt.MqttError):
            await self.never(client)

    def connections(self) -> int:
        return len(self.server.clients()) - (self._subscriber is not None)


nats_connection = sticky_singleton_acm(servers_nats.connection)


class NatsPublisher(PublishingClient[NatsServer, T]):
    new_server = NatsServer
    cannot_exit = nats.errors.ConnectionReconnectingError

    def new_subscriber(self) -> servers_nats.Subscriber:
        return servers_nats.Subscriber(self.server.url, self.name)

    def connections(self) -> int:
        return self.server.clients().count(self.name)

    def was_left_in_good_order(self) -> bool:
        return super().was_left_in_good_order() and self.server.reasons(self.name) <= {"Client Closed"}


class Nats(NatsPublisher[Connection]):
    def call(self) -> Call[Connection]:
        return Call(nats_connection, self.server.url, name=self.name)

    async def use(self, client: Connection, note: str) -> None:
        """Publishes; the client need not have sent it yet when this returns."""
        if client.disconnected.is_set():
            await client.reconnected.wait()
        await client.publish(self.name, note)

    async def never(self, client: Connection) -> None:
        await client.next_message(f"{self.name}-never")

    async def kill(self, client: Connection) -> None:
        await super().kill(client)
        await client.disconnected.wait()

    def is_closed(self, client: Connection) -> bool:
        return client.client.is_closed


async def drain(client: NatsClient) -> None:
    """Drains a client, which tries no longer to reconnect: see servers_nats.connection."""
    client.options["max_reconnect_attempts"] = 1
    await client.drain()


_nats_client = singleton(cast("Any", nats).connect, close=drain)  # nats-py leaves the type of its options open


class NatsFromConnect(NatsPublisher[NatsClient]):
    """A client of nats-py's own coroutine function, which ``close=`` drains."""

    def call(self) -> Call[NatsClient]:
        return Call(_nats_client, self.server.url, name=self.name, reconnect_time_wait=0.05, max_reconnect_attempts=-1)

    async def use(self, client: NatsClient, note: str) -> None:
        while not client.is_connected:
            await asyncio.sleep(0.01)
        await client.publish(self.name, note.encode())

    async def never(self, client: NatsClient) -> None:
        await Connection(client).next_message(f"{self.name}-never")

    async def kill(self, client: NatsClient) -> None:
        await super().kill(client)
        while client.is_connected:
            await asyncio.sleep(0.01)

    def is_closed(self, client: NatsClient) -> bool:
        return client.is_closed


CLIENTS: list[type[AnyClient]] = [
    Aiohttp,
    Httpx,
    OpenAI,
    PsycopgPool,
    AsyncpgPool,
    OpenedAsyncpgPool,
    Sqlalchemy,
    Redis,
    RedisFromUrl,
    Grpc,
    McpHttp,
    McpStdio,
    Mqtt,
    Nats,
    NatsFromConnect,
]
