"""The library beside its peers: the same four tasks, each as the peer's documentation would write it, in the same run."""

from __future__ import annotations

import asyncio
import functools
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from statistics import median
from typing import Any
from weakref import WeakKeyDictionary

import anyio.functools
import async_lru
import asyncstdlib
import dishka
import svcs
from anyio.lowlevel import RunVar
from benchmarks.peer_behaviours import leaves_out
from benchmarks.timing import Size, Subject, clock, in_loop, interleave, no_garbage_collection, own_garbage_only, statement
from benchmarks.warm import Trivial
from that_depends import providers

import asyncio_loop_local as loop_local

OURS, OLDER = "asyncio_loop_local", "the older package of this name"
SINGLETON, RESOURCES, ONCE, VARIABLE = (
    f"{OURS} `{name}`" for name in ("singleton", "sticky_singleton_acm", "enter_once", "LoopVar")
)


class Value:
    """What is made once."""


class Token:
    """What a coroutine function makes once."""


class Resource(Trivial):
    """What is entered once."""


async def token() -> Token:
    return Token()


async def resource() -> AsyncIterator[Resource]:
    async with Resource() as entered:
        assert isinstance(entered, Resource)
        yield entered


# --- ours
single = loop_local.singleton(Value)
loop_var: loop_local.LoopVar[Value] = loop_local.LoopVar("loop_var", factory=Value)
shared_token = loop_local.singleton(token)
make = loop_local.sticky_singleton_acm(Resource)
acm = Resource()

# --- caches
lru_value = functools.lru_cache(maxsize=None)(Value)
run_var: RunVar[Value] = RunVar("run_var")
anyio_token = anyio.functools.cache(token)
alru_token = async_lru.alru_cache(token)
asyncstdlib_token = asyncstdlib.cache(token)

# --- written by hand, as in so many programs
weak_values: WeakKeyDictionary[asyncio.AbstractEventLoop, Value] = WeakKeyDictionary()
weak_tokens: WeakKeyDictionary[asyncio.AbstractEventLoop, Token] = WeakKeyDictionary()
weak_resources: WeakKeyDictionary[asyncio.AbstractEventLoop, Resource] = WeakKeyDictionary()


def weak_value() -> Value:
    loop = get_running_loop()
    try:
        return weak_values[loop]
    except KeyError:
        value = weak_values[loop] = Value()
        return value


async def weak_token() -> Token:
    loop = get_running_loop()
    try:
        return weak_tokens[loop]
    except KeyError:
        value = weak_tokens[loop] = await token()
        return value


async def weak_resource() -> Resource:
    loop = get_running_loop()
    try:
        return weak_resources[loop]
    except KeyError:
        entered = weak_resources[loop] = Resource()
        await entered.__aenter__()
        return entered


# --- containers
registry: Any = svcs.Registry()  # its register_factory() is typed in part
registry.register_factory(Value, Value)
registry.register_factory(Token, token)
registry.register_factory(Resource, resource)

provider = dishka.Provider(scope=dishka.Scope.APP)
provider.provide(Value)
provider.provide(token)
provider.provide(resource)

that_value = providers.Singleton(Value)
that_token = providers.AsyncSingleton(token)
that_resource = providers.Resource(resource)


async def cold_ours() -> None:
    async with make():
        pass


async def cold_bare() -> None:
    async with Resource():
        pass


async def cold_svcs() -> None:
    async with svcs.Container(registry) as container:
        await container.aget(Resource)


async def cold_dishka() -> None:
    container = dishka.make_async_container(provider)
    await container.get(Resource)
    await container.close()


async def cold_that_depends() -> None:
    await that_resource.resolve()
    await that_resource.tear_down()


async def cold_weak() -> None:
    await weak_resource()


BARE = "no library: a bare `async with`"
WEAK = "`WeakKeyDictionary` by hand"

WARM: dict[str, dict[str, tuple[str, str]]] = {
    "A plain value, warm": {
        SINGLETON: (SINGLETON, "single()"),
        VARIABLE: (VARIABLE, "loop_var.get()"),
        "functools.lru_cache": ("functools.lru_cache", "lru_value()"),
        "anyio.lowlevel.RunVar": ("anyio.lowlevel.RunVar", "run_var.get()"),
        WEAK: (WEAK, "weak_value()"),
        "svcs": ("svcs", "svcs_container.get(Value)"),
        "dishka": ("dishka", "dishka_container.get_sync(Value)"),
        "that-depends": ("that-depends", "that_value.resolve_sync()"),
    },
    "What a coroutine function returns, warm": {
        SINGLETON: (SINGLETON, "await shared_token()"),
        "anyio.functools.cache": ("anyio.functools.cache", "await anyio_token()"),
        "async_lru": ("async_lru", "await alru_token()"),
        "asyncstdlib.cache": ("asyncstdlib.cache", "await asyncstdlib_token()"),
        WEAK: (WEAK, "await weak_token()"),
        "svcs": ("svcs", "await svcs_container.aget(Token)"),
        "dishka": ("dishka", "await dishka_container.get(Token)"),
        "that-depends": ("that-depends", "await that_token.resolve()"),
    },
    "A resource, warm": {
        RESOURCES: (RESOURCES, "async with make(): pass"),
        ONCE: (ONCE, "await enter_once(acm)"),
        WEAK: (WEAK, "await weak_resource()"),
        "svcs": ("svcs", "await svcs_container.aget(Resource)"),
        "dishka": ("dishka", "await dishka_container.get(Resource)"),
        "that-depends": ("that-depends", "await that_resource.resolve()"),
    },
}
"""By task: the line's name, the peer whose behaviours those are, and the statement."""

COLD_TITLE = "A loop that opens one resource and closes it, by `asyncio.run`"
COLD: dict[str, tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = {
    RESOURCES: (RESOURCES, cold_ours),
    BARE: (BARE, cold_bare),
    WEAK: (WEAK, cold_weak),
    "svcs, a container each": ("svcs", cold_svcs),
    "dishka, a container each": ("dishka", cold_dishka),
    "that-depends": ("that-depends", cold_that_depends),
}

HEADINGS = ["", "statement", "time", "to ours", "median", "leaves out"]


@dataclass(slots=True)
class PeerRow:
    """What one peer took for a task, beside what we took in the same rounds."""

    name: str
    source: str
    nanoseconds: float
    to_ours: float
    median_to_ours: float
    leaves_out: str

    @property
    def cells(self) -> list[str]:
        shown = f"{self.nanoseconds / 1_000:,.1f} µs" if self.nanoseconds >= 10_000 else f"{self.nanoseconds:,.0f} ns"
        source = f"`{self.source}`" if self.source else ""
        return [self.name, source, shown, f"{self.to_ours:.2f}", f"{self.median_to_ours:.2f}", self.leaves_out]


def peer_rows(costs: dict[str, list[float]], about: dict[str, tuple[str, str]], task: str) -> list[PeerRow]:
    """The rows of one task; the first is ours, and the others are held against it."""
    ours = next(iter(costs.values()))
    return [
        PeerRow(
            name,
            about[name][1],
            min(theirs),
            min(theirs) / min(ours),
            median(their / our for their, our in zip(theirs, ours, strict=True)),
            leaves_out(about[name][0], task),
        )
        for name, theirs in costs.items()
    ]


async def containers() -> dict[str, Any]:
    """The containers, and what is to be in place before a value is found on the warm path."""
    run_var.set(Value())
    return {"svcs_container": svcs.Container(registry), "dishka_container": dishka.make_async_container(provider)}


async def close_containers(made: dict[str, Any]) -> None:
    await made["svcs_container"].aclose()
    await made["dishka_container"].close()
    for each in (that_value, that_token, that_resource):
        await each.tear_down()


def rows(size: Size) -> dict[str, list[PeerRow]]:
    """The rows of each task."""
    tables: dict[str, list[PeerRow]] = {}
    with asyncio.Runner() as runner:
        made = runner.run(containers())
        names = {**globals(), **made, "enter_once": loop_local.enter_once}
        with no_garbage_collection():
            for task, peers in WARM.items():
                subjects = {
                    name: in_loop(runner, statement(source, names), size.calls // 2 + 1) for name, (_, source) in peers.items()
                }
                for subject in subjects.values():
                    subject()  # the first call is a cold one
                tables[task] = peer_rows(interleave(subjects, size.at_most(60)), peers, task)
        runner.run(close_containers(made))

    def loops(main: Callable[[], Coroutine[Any, Any, None]]) -> Subject:
        number = max(1, size.calls // 200)

        def run() -> float:
            start = clock()
            for _ in range(number):
                asyncio.run(main())
            return (clock() - start) / number

        return run

    with own_garbage_only():
        costs = interleave({name: loops(main) for name, (_, main) in COLD.items()}, size.at_most(40))
    tables[COLD_TITLE] = peer_rows(costs, {name: (peer, "") for name, (peer, _) in COLD.items()}, COLD_TITLE)
    return tables
