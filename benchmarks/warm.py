"""Warm calls and their floors: the loop already has the value."""

from __future__ import annotations

import asyncio
import functools
from asyncio import get_running_loop
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import pydantic
from benchmarks.timing import Row, Size, in_loop, no_garbage_collection, row, statement

import asyncio_loop_local as loop_local


class Trivial:
    """The simplest asynchronous context manager."""

    async def __aenter__(self) -> Trivial:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        pass


@dataclass
class Settings:
    host: str
    port: int
    tls: bool
    wait: float
    user: str | None


@dataclass(frozen=True)
class FrozenSettings:
    host: str
    port: int
    tls: bool
    wait: float
    user: str | None


class Model(pydantic.BaseModel):
    host: str
    port: int
    tls: bool
    wait: float
    user: str | None


@dataclass
class Client:
    host: str
    headers: dict[str, str]


def factory(*_args: object, **_kwargs: object) -> object:
    return object()


def trivial_factory(*_args: object, **_kwargs: object) -> Trivial:
    return Trivial()


async def token() -> str:
    return "token"


def host_of(host: str, *_args: object, **_kwargs: object) -> str:
    return host


def three_of(host: str, port: int, user: str | None = None) -> Hashable:
    return host, port, user


def is_valid(_value: object) -> bool:
    return True


async def close(_value: object) -> None:
    pass


class PerLoop:
    """Has a client per loop, as examples/sdk/per_loop_client.py does."""

    def __init__(self) -> None:
        self._clients = loop_local.LoopVar("PerLoop", factory=object, close=close)

    @property
    def client(self) -> object:
        return self._clients.get()


class FloorPerLoop:
    """Has a client per loop, as SDKs do that keep a cache of their own. Nothing closes the clients."""

    def __init__(self) -> None:
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, object] = WeakKeyDictionary()

    @property
    def client(self) -> object:
        loop = get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = object()
        return client


# Ours.
single = loop_local.singleton(factory)
closed = loop_local.singleton(factory, close=close)
checked = loop_local.singleton(factory, valid=is_valid)
checked_make = loop_local.sticky_singleton_acm(trivial_factory, valid=is_valid)
sdk = PerLoop()
by_host = loop_local.singleton(factory, key=host_of)
by_three = loop_local.singleton(factory, key=three_of)
make = loop_local.sticky_singleton_acm(trivial_factory)
shared_token = loop_local.singleton(token)

# The floors.
cached = functools.lru_cache(maxsize=None)(factory)
cached_trivial = functools.lru_cache(maxsize=None)(trivial_factory)
floor_sdk = FloorPerLoop()


def floor_storage() -> asyncio.AbstractEventLoop:
    return get_running_loop()


def floor_call(*args: Any, **kwargs: Any) -> object:
    get_running_loop()
    return cached(*args, **kwargs)


values_by_key: dict[Hashable, object] = {}


def floor_lookup(*_args: Any, **_kwargs: Any) -> object:
    return values_by_key[get_running_loop(), None]


def floor_by_host(*args: Any, **kwargs: Any) -> object:
    return values_by_key[get_running_loop(), host_of(*args, **kwargs)]


def floor_by_three(*args: Any, **kwargs: Any) -> object:
    return values_by_key[get_running_loop(), three_of(*args, **kwargs)]


def floor_make(*args: Any, **kwargs: Any) -> Trivial:
    get_running_loop()
    return cached_trivial(*args, **kwargs)


async def floor_coroutine() -> None:
    get_running_loop()


async def floor_await(future: asyncio.Future[None]) -> None:
    get_running_loop()
    await future


def floor_by_value(name: str, *attributes: str) -> str:
    """The floor of an argument that counts by value: look the value up by the loop, and hash the attributes."""
    return f"floor_lookup({name}); hash(({', '.join(f'{name}.{each}' for each in attributes)}))"


FIVE = ("host", "port", "tls", "wait", "user")
TIMEOUT = ("connect", "read", "write", "pool")
SUBJECTS: list[tuple[str, str, str, float]] = [
    ("`storage()`", "floor_storage()", "storage()", 1.45),
    ("`single()`", "floor_call()", "single()", 1.3),
    ("`single(1, 2, x=3)`", "floor_call(1, 2, x=3)", "single(1, 2, x=3)", 1.3),
    ("`async with make(): pass`", "async with floor_make(): pass", "async with make(): pass", 1.3),
    ("`await enter_once(acm)`", "await floor_coroutine()", "await enter_once(acm)", 1.8),
    ("`single(headers)`, a dict of three", "floor_call(); hash(tuple(sorted(headers.items())))", "single(headers)", 6),
    ("`single(headers=headers)`", "floor_call(); hash(tuple(sorted(headers.items())))", "single(headers=headers)", 6),
    ("`single(settings)`, a dataclass of five fields", floor_by_value("settings", *FIVE), "single(settings)", 4),
    ("`single(timeout)`, an `httpx.Timeout`", floor_by_value("timeout", *TIMEOUT), "single(timeout)", 4),
    ("`single(model)`, a pydantic model of five fields", floor_by_value("model", *FIVE), "single(model)", 4),
    ("`single(frozen)`, a frozen dataclass of five fields", floor_by_value("frozen", *FIVE), "single(frozen)", 1.5),
    (
        "`single(client)`, a dataclass that holds a dict of three",
        "floor_lookup(client); hash((client.host, tuple(sorted(client.headers.items()))))",
        "single(client)",
        8,
    ),
    ("`by_host('h', 1)`, `key=` returns a string", "floor_by_host('h', 1)", "by_host('h', 1)", 1.6),
    ("`by_three('h', 1)`, `key=` returns a tuple of three", "floor_by_three('h', 1)", "by_three('h', 1)", 1.6),
    ("`await shared_token()`", "await floor_await(done)", "await shared_token()", 1.5),
    ("`closed()`, with `close=`", "single(); is_valid(value)", "closed()", 1.3),
    ("`checked()`, with `valid=`", "single(); is_valid(value)", "checked()", 1.3),
    (
        "`async with checked_make(): pass`, with `valid=`",
        "async with make(): is_valid(value)",
        "async with checked_make(): pass",
        1.3,
    ),
    ("`sdk.client`, of a `LoopVar` with `close=`", "floor_sdk.client", "sdk.client", 2.5),
]
"""The path, the statement of its floor, our statement, and the limit of the ratio."""


def rows(size: Size) -> list[Row]:
    with asyncio.Runner() as runner:
        acm = Trivial()
        done = runner.get_loop().create_future()
        done.set_result(None)
        headers = {"Accept": "application/json", "Authorization": "Bearer abc", "User-Agent": "benchmarks"}
        five: dict[str, Any] = {"host": "example.org", "port": 443, "tls": True, "wait": 3.5, "user": None}
        loop = runner.get_loop()
        values_by_key.update({(loop, None): None, (loop, "h"): None, (loop, ("h", 1, None)): None})
        names: dict[str, object] = {
            **globals(),
            "storage": loop_local.storage,
            "enter_once": loop_local.enter_once,
            "acm": acm,
            "value": acm,
            "done": done,
            "headers": headers,
            "settings": Settings(**five),
            "timeout": httpx.Timeout(5.0, read=3.0),
            "model": Model(**five),
            "frozen": FrozenSettings(**five),
            "client": Client("example.org", headers),
        }
        table: list[Row] = []
        with no_garbage_collection():
            for path, floor, ours, limit in SUBJECTS:
                subjects = [in_loop(runner, statement(source, names), size.calls) for source in (floor, ours)]
                for subject in subjects:
                    subject()  # the first call makes the value
                table.append(row(path, *subjects, limit=limit, rounds=size.rounds))
        return table
