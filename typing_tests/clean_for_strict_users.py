"""What a user writes who lets no expression and no decorated function have Any in its type; `test_checkers.py` has it checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from asyncio_loop_local import (
    LockingDict,
    LoopVar,
    StickyACM,
    aclose,
    atexit,
    enter,
    enter_once,
    format_resources,
    lifespan,
    override,
    release,
    release_all,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)


class Client:
    def __init__(self, host: str, *, retries: int = 3) -> None:
        self.host = host

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *args: object) -> None: ...

    async def aclose(self) -> None: ...


class FakeClient(Client): ...


def is_good(client: Client) -> bool:
    return bool(client.host)


def by_host(host: str, *_: object, **__: object) -> str:
    return host


client = sticky_singleton_acm(Client)
client_by_host = sticky_singleton_acm(Client, key=by_host)
valid_client = sticky_singleton_acm(Client, valid=is_good)
closing_client = singleton(Client, close=Client.aclose, valid=is_good)
clients = LoopVar("clients", factory=lambda: Client("h"), close=Client.aclose)
requests = LoopVar("requests", default=0)
names = LoopVar("names", factory=list[str])


@sticky_singleton_acm
@asynccontextmanager
async def connect(host: str, port: int = 80) -> AsyncGenerator[tuple[str, int]]:
    yield host, port


@sticky_singleton_acm(key=by_host)
@asynccontextmanager
async def connect_by_host(host: str, port: int = 80) -> AsyncGenerator[tuple[str, int]]:
    yield host, port


@singleton
def addresses(host: str) -> list[str]:
    return [host]


@singleton(key=by_host)
def more_addresses(host: str, size: int = 1) -> list[str]:
    return [host] * size


@singleton
async def resolve(host: str) -> list[str]:
    return [host]


@singleton(close=Client.aclose)
async def client_later(host: str) -> Client:
    return Client(host)


@sticky_singleton_acm(valid=is_good)
@asynccontextmanager
async def client_while_good(host: str) -> AsyncGenerator[Client]:
    yield Client(host)


class Service:
    @singleton
    def client(self, host: str) -> Client:
        return Client(host)


def say_goodbye(name: str) -> None:
    names.get().append(name)


async def main() -> None:
    async with client("h") as value, client_by_host("h", retries=1) as other, connect("h") as address:
        names.get().append(f"{value.host} {other.host} {address[0]}")
    async with connect_by_host("h", port=1) as address, sticky_acm(Client("h")) as value:
        names.get().extend([address[0], value.host, *addresses("h"), *more_addresses("h", 2), *await resolve("h")])
    sticky: StickyACM[Client] = client("h")
    async with sticky as value:
        names.get().append(value.host)
    names.get().append((await enter(Client("h"))).host + (await enter_once(value)).host + Service().client("h").host)
    names.get().extend([(await valid_client("h")).host, closing_client("h").host, (await client_later("h")).host])
    with override(closing_client, FakeClient), override(client, FakeClient):
        names.get().extend([closing_client("h").host, (await client("h")).host, (await client_while_good("h")).host])
    names.get().append(clients.get().host)
    await clients.aclose()
    names.get().append(str(await release_all(closing_client)))
    async with lifespan():
        names.get().append("in a block")
    token = requests.set(requests.get() + 1)
    requests.reset(token)
    names.get().append(str(requests.get(None)))
    atexit.register(say_goodbye, "n")
    atexit.unregister(say_goodbye)
    careful = LockingDict(count=0)
    async with careful as locked:
        locked["count"] += 1
    names.get().extend(info.name for info in resources())
    names.get().append(format_resources())
    await release(connect, "h")
    storage().clear()
    await aclose()


if __name__ == "__main__":
    asyncio.run(main())
