"""Clients that are made without being entered, by factories of every kind, and have a method that closes them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from asyncio_loop_local import release, singleton
from recording import wait_for_gate


class Client:
    """Records each step of its closing, which waits, fails or goes on where a test wants it to."""

    def __init__(self, log: list[str] | None = None, name: str = "0") -> None:
        self.log: list[str] = [] if log is None else log
        self.name = name
        self.close_error: BaseException | None = None
        self.closing, self.may_close = asyncio.Event(), asyncio.Event()
        self.may_close.set()
        self.loop = asyncio.get_running_loop()
        self.closed_in: asyncio.Task[Any] | None = None

    async def aclose(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.closed_in = asyncio.current_task()
        self.closing.set()
        self.log.append(f"closing {self.name}")
        try:
            await asyncio.sleep(0)
            await wait_for_gate(self.may_close)
        except asyncio.CancelledError:
            self.log.append(f"closing {self.name} cancelled")
            raise
        if self.close_error is not None:
            raise self.close_error
        self.log.append(f"closed {self.name}")


def closes(*names: str) -> list[str]:
    """The record of these, closed one after the other."""
    return [f"{step} {name}" for name in names for step in ("closing", "closed")]


USER = ["exiting the user", "exited the user"]


@asynccontextmanager
async def takes_on_request(log: list[str], take: Callable[[], object]) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """A resource that takes something in a task of its own, when it is asked to."""
    wanted, taken = asyncio.Event(), asyncio.Event()

    async def take_it() -> None:
        await wanted.wait()
        value = take()
        if inspect.isawaitable(value):
            await value
        taken.set()
        await asyncio.Event().wait()

    async def ask() -> None:
        wanted.set()
        await wait_for_gate(taken)

    task = asyncio.create_task(take_it())
    yield ask
    log.append(USER[0])
    task.cancel()
    await asyncio.sleep(0)
    log.append(USER[1])


class Clients:
    """A factory of one kind, which closes what it makes; and all that it has made."""

    def __init__(self, log: list[str], kind: str, close: Callable[[Client], object] = Client.aclose) -> None:
        self.log = log
        self.kind = kind
        self.made: list[Client] = []
        self.error: BaseException | None = None
        self.run_waits = False
        self.may_run = asyncio.Event()
        self.make: Callable[..., Any] = _KINDS[kind](self, close)

    @property
    def is_awaited(self) -> bool:
        """Whether what a call gives is awaited for the client."""
        return "coroutine" in self.kind

    async def get(self, name: str = "0") -> Client:
        made = self.make(name)
        client: Client = await made if self.is_awaited else made
        return client

    async def release(self, name: str = "0") -> bool:
        return await release(self.make, name)

    def new(self, name: str) -> Client:
        if self.error is not None:
            raise self.error
        client = Client(self.log, name)
        self.made.append(client)
        return client

    async def connect(self, name: str) -> Client:
        if self.run_waits:
            await wait_for_gate(self.may_run)
        await asyncio.sleep(0)
        return self.new(name)


def _function(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    def make(name: str = "0") -> Client:
        return clients.new(name)

    return singleton(make, close=close)


def _class(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    class Own(Client):
        def __init__(self, name: str = "0") -> None:
            super().__init__(clients.log, name)
            if clients.error is not None:
                raise clients.error
            clients.made.append(self)

    return singleton(Own, close=close)


def _method(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    class Service:
        @singleton(close=close)
        def client(self, name: str = "0") -> Client:
            return clients.new(name)

    return Service().client


def _class_method(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    class Service:
        @classmethod
        @singleton(close=close)
        def client(cls, name: str = "0") -> Client:
            return clients.new(name)

    return Service.client


def _name(name: str = "0") -> str:
    return name


def _with_key(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    def make(name: str = "0") -> Client:
        return clients.new(name)

    return singleton(make, key=_name, close=close)


def _coroutine_function(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    async def connect(name: str = "0") -> Client:
        return await clients.connect(name)

    return singleton(connect, close=close)


def _returns_a_coroutine(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    def connect(name: str = "0") -> Coroutine[Any, Any, Client]:
        return clients.connect(name)

    return singleton(connect, close=close)


def _coroutine_method(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    class Service:
        @singleton(close=close)
        async def connect(self, name: str = "0") -> Client:
            return await clients.connect(name)

    return Service().connect


def _coroutine_function_with_key(clients: Clients, close: Callable[[Client], object]) -> Callable[..., Any]:
    async def connect(name: str = "0") -> Client:
        return await clients.connect(name)

    return singleton(connect, key=_name, close=close)


_KINDS: dict[str, Callable[[Clients, Callable[[Client], object]], Callable[..., Any]]] = {
    "function": _function,
    "class": _class,
    "method": _method,
    "class method": _class_method,
    "function with key=": _with_key,
    "coroutine function": _coroutine_function,
    "function that returns a coroutine": _returns_a_coroutine,
    "coroutine method": _coroutine_method,
    "coroutine function with key=": _coroutine_function_with_key,
}
KINDS = list(_KINDS)
COROUTINE_KINDS = [kind for kind in KINDS if "coroutine" in kind]
PLAIN_KINDS = [kind for kind in KINDS if "coroutine" not in kind]
