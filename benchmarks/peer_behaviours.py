"""What each peer does of what the library does: every cell is what a small program did, and what mypy said of another."""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import subprocess
import sys
import warnings
import weakref
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar
from unittest.mock import patch
from weakref import WeakKeyDictionary

import anyio.functools
import async_lru
import asyncstdlib
import dishka
import svcs
from anyio.lowlevel import RunVar
from that_depends import BaseContainer, providers

import asyncio_loop_local as loop_local

T = TypeVar("T")


class Thing:
    """What is made."""


class OtherThing(Thing):
    """What containers make where others are given another argument: they know types alone."""


class ThingNow(Thing):
    """What containers make without ``await``."""


@dataclass
class Work:
    """The functions that a program gives to a peer, and what became of the things they made."""

    log: list[str] = field(default_factory=list[str])
    entered_in: str = ""
    exited_in: str = ""
    broken: list[object] = field(default_factory=list[object])

    async def make(self, argument: object = 1) -> Thing:
        self.log.append(f"made {argument}")
        self.entered_in = _task_name()
        await asyncio.sleep(0)
        return Thing()

    @asynccontextmanager
    async def enter(self, argument: object = 1) -> AsyncGenerator[Thing]:
        yield await self.make(argument)
        self.closed(argument)  # not in a finally: a generator that is thrown away has closed nothing

    def closed(self, argument: object) -> None:
        self.log.append(f"closed {argument}")
        self.exited_in = _task_name()

    def make_now(self, argument: object = 1) -> Thing:
        self.log.append(f"made {argument}")
        return Thing()

    async def thing(self) -> AsyncIterator[Thing]:
        yield await self.make(1)
        self.closed(1)

    async def other_thing(self) -> AsyncIterator[OtherThing]:
        await self.make(2)
        yield OtherThing()
        self.closed(2)

    def thing_now(self) -> Iterator[ThingNow]:
        self.make_now(1)
        yield ThingNow()
        self.closed(1)

    def count(self, entry: str) -> int:
        return self.log.count(entry)


def _task_name() -> str:
    task = asyncio.current_task()
    return "" if task is None else task.get_name()  # and not the task, which would hold its loop


@dataclass(frozen=True)
class Use:
    """How a program gets a thing from the peer, and what it calls when it has done."""

    get: Callable[[Any], Awaitable[object]]
    close: Callable[[], Awaitable[object]] | None = None
    takes_arguments: bool = True
    get_now: Callable[[], object] | None = None
    """Gets a thing in a plain function."""
    forget: Callable[[], Awaitable[object]] | None = None
    """Makes the next ``get(1)`` give a new thing, and leaves the others alone."""
    override: Callable[[Thing], AbstractContextManager[object]] | None = None
    """What the peer has for tests: in the block, ``get(1)`` gives another thing."""
    replace: Callable[[Thing], AbstractContextManager[object]] | None = None
    """The same, where the test itself sets something, and puts back what was there."""


@dataclass
class Global(Generic[T]):
    """A global variable of a program."""

    value: T

    def replace(self, value: T) -> AbstractContextManager[object]:
        return patch.object(self, "value", value)


def use_sticky_singleton_acm(work: Work) -> Use:
    wrapped = loop_local.sticky_singleton_acm(work.enter)

    async def get(argument: object) -> object:
        async with wrapped(argument) as thing:
            return thing

    return Use(get)


def use_singleton(work: Work) -> Use:
    return Use(loop_local.singleton(work.make))


def use_enter_once(work: Work) -> Use:
    class Entered:
        def __init__(self, argument: object) -> None:
            self.argument = argument

        async def __aenter__(self) -> Thing:
            return await work.make(self.argument)

        async def __aexit__(self, *_exception: object) -> None:
            work.closed(self.argument)

    acms = {argument: Entered(argument) for argument in (1, 2)}

    async def get(argument: Any) -> object:
        return await loop_local.enter_once(acms[argument])

    return Use(get, takes_arguments=False)


def use_loop_var(work: Work) -> Use:
    variable: loop_local.LoopVar[Thing] = loop_local.LoopVar("thing", factory=work.make_now)

    async def get(_argument: object) -> object:
        return variable.get()

    return Use(get, takes_arguments=False)


def use_lru_cache(work: Work) -> Use:
    cached = functools.lru_cache(maxsize=None)(work.make_now)

    async def get(argument: Any) -> object:
        return cached(argument)

    return Use(get)


def use_run_var(work: Work) -> Use:
    variable: RunVar[Thing] = RunVar("thing")

    async def get(_argument: object) -> object:
        try:
            return variable.get()
        except LookupError:
            thing = await work.make()
            variable.set(thing)
            return thing

    def get_now() -> object:
        try:
            return variable.get()
        except LookupError:
            thing = work.make_now()
            variable.set(thing)
            return thing

    async def forget() -> None:
        variable.set(await work.make())

    return Use(get, takes_arguments=False, get_now=get_now, forget=forget, override=variable.set)


def use_anyio_cache(work: Work) -> Use:
    return Use(anyio.functools.cache(work.make))


def use_async_lru(work: Work) -> Use:
    cached = async_lru.alru_cache(work.make)
    function: Global[Callable[[Any], Awaitable[object]]] = Global(cached)

    async def get(argument: Any) -> object:
        return await function.value(argument)

    async def forget() -> None:
        cached.cache_invalidate(1)

    def replace(thing: Thing) -> AbstractContextManager[object]:
        async def fake(_argument: object) -> object:
            return thing

        return function.replace(fake)

    return Use(get, forget=forget, replace=replace)


def use_asyncstdlib(work: Work) -> Use:
    return Use(asyncstdlib.cache(work.make))


def use_weak(work: Work) -> Use:
    things: WeakKeyDictionary[asyncio.AbstractEventLoop, Thing] = WeakKeyDictionary()

    async def get(_argument: object) -> object:
        loop = get_running_loop()
        try:
            return things[loop]
        except KeyError:
            thing = things[loop] = await work.enter().__aenter__()
            return thing

    def get_now() -> object:
        loop = get_running_loop()
        try:
            return things[loop]
        except KeyError:
            thing = things[loop] = work.make_now()
            return thing

    async def forget() -> None:
        del things[get_running_loop()]

    def replace(thing: Thing) -> AbstractContextManager[object]:
        return patch.dict(things, {get_running_loop(): thing})

    return Use(get, takes_arguments=False, get_now=get_now, forget=forget, replace=replace)


def use_svcs(work: Work) -> Use:
    registry: Any = svcs.Registry()  # its register_factory() is typed in part
    registry.register_factory(Thing, work.thing)
    registry.register_factory(OtherThing, work.other_thing)
    registry.register_factory(ThingNow, work.thing_now)
    container = Global(svcs.Container(registry))

    async def get(argument: object) -> object:
        return await (container.value.aget(Thing) if argument == 1 else container.value.aget(OtherThing))

    def replace(thing: Thing) -> AbstractContextManager[object]:
        fakes: Any = svcs.Registry()
        fakes.register_value(Thing, thing)
        return container.replace(svcs.Container(fakes))

    return Use(
        get,
        container.value.aclose,
        takes_arguments=False,
        get_now=lambda: container.value.get(ThingNow),
        replace=replace,
    )


def use_dishka(work: Work) -> Use:
    provider = dishka.Provider(scope=dishka.Scope.APP)
    provider.provide(work.thing)
    provider.provide(work.other_thing)
    provider.provide(work.thing_now)
    container = Global(dishka.make_async_container(provider))

    async def get(argument: object) -> object:
        return await (container.value.get(Thing) if argument == 1 else container.value.get(OtherThing))

    def replace(thing: Thing) -> AbstractContextManager[object]:
        fakes = dishka.Provider(scope=dishka.Scope.APP)
        fakes.provide(lambda: thing, provides=Thing)
        return container.replace(dishka.make_async_container(fakes))

    return Use(
        get,
        container.value.close,
        takes_arguments=False,
        get_now=lambda: container.value.get_sync(ThingNow),
        replace=replace,
    )


def use_that_depends(work: Work) -> Use:
    class Container(BaseContainer):
        thing = providers.Resource(work.thing)
        other_thing = providers.Resource(work.other_thing)
        thing_now = providers.Resource(work.thing_now)

    async def get(argument: object) -> object:
        return await (Container.thing.resolve() if argument == 1 else Container.other_thing.resolve())

    return Use(
        get,
        Container.tear_down,
        takes_arguments=False,
        get_now=Container.thing_now.resolve_sync,
        forget=Container.thing.tear_down,
        override=Container.thing.override_context_sync,
    )


PEERS: dict[str, Callable[[Work], Use]] = {
    "asyncio_loop_local `sticky_singleton_acm`": use_sticky_singleton_acm,
    "asyncio_loop_local `singleton`": use_singleton,
    "asyncio_loop_local `enter_once`": use_enter_once,
    "asyncio_loop_local `LoopVar`": use_loop_var,
    "functools.lru_cache": use_lru_cache,
    "anyio.lowlevel.RunVar": use_run_var,
    "anyio.functools.cache": use_anyio_cache,
    "async_lru": use_async_lru,
    "asyncstdlib.cache": use_asyncstdlib,
    "`WeakKeyDictionary` by hand": use_weak,
    "svcs": use_svcs,
    "dishka": use_dishka,
    "that-depends": use_that_depends,
}


Probe = Callable[[Callable[[Work], Use]], str]
PROBES: dict[str, Probe] = {}
ONCE = "made once, if two ask at once"
ONE_TASK = "exited in the task that entered it"


def probe(title: str) -> Callable[[Probe], Probe]:
    def add(program: Probe) -> Probe:
        PROBES[title] = program
        return program

    return add


@probe("per loop")
def is_per_loop(build: Callable[[Work], Use]) -> str:
    """Of two loops that take turns, each finds its own value."""
    use = build(Work())
    with asyncio.Runner() as one, asyncio.Runner() as another:
        try:
            first, other = one.run(_get(use, 1)), another.run(_get(use, 1))
            again, other_again = one.run(_get(use, 1)), another.run(_get(use, 1))
        except RuntimeError:
            return "no"
    return _yes(first is again and other is other_again and first is not other)


@probe("frees a closed loop")
def lets_go(build: Callable[[Work], Use]) -> str:
    """A loop is freed, once it is closed, to which what was made on it refers, as clients do."""

    class Client(Thing):
        def __init__(self) -> None:
            self.loop = get_running_loop()

    class ClientWork(Work):
        async def make(self, argument: object = 1) -> Thing:
            return Client()

        def make_now(self, argument: object = 1) -> Thing:
            return Client()

    use = build(ClientWork())
    runner = asyncio.Runner()
    with runner:
        loop = weakref.ref(runner.get_loop())
        runner.run(_get_and_drop(use))
        if use.close is not None:
            runner.run(_drop(use.close))
    del runner
    gc.collect()
    return _yes(loop() is None)


@probe("by arguments")
def is_by_arguments(build: Callable[[Work], Use]) -> str:
    use = build(Work())
    if not use.takes_arguments:
        return "no"

    async def main() -> bool:
        one, two, again = [await use.get(argument) for argument in (1, 2, 1)]
        return one is again and one is not two

    return _yes(asyncio.run(main()))


@probe("by an argument's value")
def is_by_value(build: Callable[[Work], Use]) -> str:
    """Two equal dicts are the same argument."""
    use = build(Work())
    if not use.takes_arguments:
        return "no"

    async def main() -> bool:
        try:
            return await use.get({"a": ["b"]}) is await use.get({"a": ["b"]})
        except TypeError:
            return False

    return _yes(asyncio.run(main()))


@probe(ONCE)
def is_made_once(build: Callable[[Work], Use]) -> str:
    work = Work()
    use = build(work)

    async def main() -> None:
        await asyncio.gather(use.get(1), use.get(1))

    asyncio.run(main())
    return _yes(work.count("made 1") == 1)


@probe("closed")
def is_closed(build: Callable[[Work], Use]) -> str:
    """With its loop, and nothing else to be called; else by hand."""
    work = Work()
    asyncio.run(_get(build(work), 1))
    if work.count("closed 1"):
        return "with the loop"
    return "by hand" if _closes_by_hand(build) == ["closed 2", "closed 1"] else "no"


@probe("newest first")
def is_newest_first(build: Callable[[Work], Use]) -> str:
    work = Work()
    use = build(work)

    async def main() -> None:
        await use.get(1)
        await use.get(2)

    asyncio.run(main())
    closed = [entry for entry in work.log if entry.startswith("closed")] or _closes_by_hand(build)
    return _yes(closed == ["closed 2", "closed 1"])


@probe(ONE_TASK)
def is_left_where_it_was_entered(build: Callable[[Work], Use]) -> str:
    """As `asyncio.timeout`, task groups and cancel scopes insist, also where a task that is gone was the first to ask."""
    work = Work()
    use = build(work)

    async def main() -> None:
        await asyncio.create_task(_get_and_drop(use))
        if use.close is not None:
            await use.close()

    asyncio.run(main())
    return _yes(work.exited_in != "" and work.exited_in == work.entered_in)


def _closes_by_hand(build: Callable[[Work], Use]) -> list[str]:
    work = Work()
    use = build(work)
    if use.close is None:
        return []
    close = use.close

    async def main() -> None:
        await use.get(1)
        await use.get(2)
        await close()

    asyncio.run(main())
    return [entry for entry in work.log if entry.startswith("closed")]


async def _get(use: Use, argument: object) -> object:
    return await use.get(argument)


async def _get_and_drop(use: Use) -> None:
    await use.get(1)


async def _drop(close: Callable[[], Awaitable[object]]) -> None:
    await close()


def _yes(so: bool) -> str:
    return "yes" if so else "no"


TYPED_BEGIN = """
import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

class Client:
    def __init__(self, host: str = "") -> None: ...

async def connect(host: str = "") -> Client:
    return Client()

async def connected() -> AsyncIterator[Client]:
    yield Client()

connection = asynccontextmanager(connected)

@asynccontextmanager
async def connection_to(host: str) -> AsyncIterator[Client]:
    yield Client()
"""
"""In each program below, line "of the value" is an error if the value's type is known, the other if a wrong argument is found."""

TYPED: dict[str, str] = {
    "asyncio_loop_local `singleton`": """
from asyncio_loop_local import singleton
make = singleton(connect)
async def main() -> None:
    value = await make("host")
    wrong: int = value  # of the value
    make(1)  # of the argument
""",
    "asyncio_loop_local `enter_once`": """
from asyncio_loop_local import enter_once
async def main() -> None:
    value = await enter_once(connection())
    wrong: int = value  # of the value
""",
    "asyncio_loop_local `LoopVar`": """
from asyncio_loop_local import LoopVar
client = LoopVar("client", factory=Client)
value = client.get()
wrong: int = value  # of the value
""",
    "asyncio_loop_local `sticky_singleton_acm`": """
from asyncio_loop_local import sticky_singleton_acm
make = sticky_singleton_acm(connection_to)
async def main() -> None:
    async with make("host") as value:
        wrong: int = value  # of the value
    make(1)  # of the argument
""",
    "functools.lru_cache": """
from functools import lru_cache
make = lru_cache(maxsize=None)(Client)
value = make("host")
wrong: int = value  # of the value
make(1)  # of the argument
""",
    "anyio.lowlevel.RunVar": """
from anyio.lowlevel import RunVar
client: RunVar[Client] = RunVar("client")
value = client.get()
wrong: int = value  # of the value
""",
    "anyio.functools.cache": """
from anyio.functools import cache
make = cache(connect)
async def main() -> None:
    value = await make("host")
    wrong: int = value  # of the value
    await make(1)  # of the argument
""",
    "async_lru": """
from async_lru import alru_cache
make = alru_cache(connect)
async def main() -> None:
    value = await make("host")
    wrong: int = value  # of the value
    await make(1)  # of the argument
""",
    "asyncstdlib.cache": """
from asyncstdlib import cache
make = cache(connect)
async def main() -> None:
    value = await make("host")
    wrong: int = value  # of the value
    await make(1)  # of the argument
""",
    "`WeakKeyDictionary` by hand": """
clients: WeakKeyDictionary[AbstractEventLoop, Client] = WeakKeyDictionary()
def get_client() -> Client:
    return clients[asyncio.get_running_loop()]
value = get_client()
wrong: int = value  # of the value
""",
    "svcs": """
import svcs
async def main(container: svcs.Container) -> None:
    value = await container.aget(Client)
    wrong: int = value  # of the value
""",
    "dishka": """
import dishka
async def main(container: dishka.AsyncContainer) -> None:
    value = await container.get(Client)
    wrong: int = value  # of the value
""",
    "that-depends": """
from that_depends import providers
make = providers.Resource(connected)
async def main() -> None:
    value = await make.resolve()
    wrong: int = value  # of the value
""",
}


def typed() -> dict[str, dict[str, str]]:
    """What mypy finds in programs with a mistake about the value, and one about the argument."""
    with TemporaryDirectory() as directory:
        files: dict[str, tuple[str, list[str]]] = {}
        for number, (peer, program) in enumerate(TYPED.items()):
            source = TYPED_BEGIN + program
            files[f"program_{number}.py"] = (peer, source.splitlines())
            (Path(directory) / f"program_{number}.py").write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental", *files]
        said = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False).stdout
    if not said:
        return {}
    found: dict[str, set[int]] = {name: set() for name in files}
    for name, line in re.findall(r"^(program_\d+\.py):(\d+): error", said, re.MULTILINE):
        found[name].add(int(line))

    def verdict(name: str, what: str) -> str:
        there = [number for number, line in enumerate(files[name][1], 1) if line.endswith(f"# of the {what}")]
        return "" if not there else _yes(there[0] in found[name])

    return {peer: {f"{what} typed": verdict(name, what) for what in ("value", "argument")} for name, (peer, _) in files.items()}


@functools.cache
def behaviours(*, with_types: bool = False) -> dict[str, dict[str, str]]:
    """What every probe found, by peer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # svcs gives one of what is left open, async_lru of another loop
        found = {peer: {title: program(build) for title, program in PROBES.items()} for peer, build in PEERS.items()}
    if with_types:
        types = typed()
        for peer, row in found.items():
            row.update(types.get(peer, {}))
    return found


MATTERS: dict[str, list[str]] = {
    "A plain value, warm": ["per loop", "by arguments", "by an argument's value", "frees a closed loop"],
    "What a coroutine function returns, warm": [
        "per loop",
        "by arguments",
        "by an argument's value",
        "frees a closed loop",
        ONCE,
    ],
    # the containers in this are made for one loop, by hand
    "A loop that opens one resource and closes it, by `asyncio.run`": ["by arguments", ONCE, "closed", "newest first", ONE_TASK],
}
"""What of it is part of a task's work; in the others, all is."""


UNKNOWN = {"no library: a bare `async with`": "sharing", "the older package of this name": "not looked into"}
"""What is said of those for which there is no probe."""


def leaves_out(peer: str, task: str) -> str:
    """What the peer leaves out of the task's work."""
    found = behaviours().get(peer)
    if found is None:
        return UNKNOWN.get(peer, "")
    shown = [title for title in MATTERS.get(task, [*PROBES]) if found[title] == "no"]
    if "closed" in MATTERS.get(task, PROBES) and found["closed"] == "by hand":
        shown.append("closed with the loop")
    return "; ".join(shown)


def table() -> tuple[list[str], list[list[str]]]:
    found = behaviours(with_types=True)
    titles = list(dict.fromkeys(title for row in found.values() for title in row))
    return ["", *titles], [[peer, *[row.get(title, "") for title in titles]] for peer, row in found.items()]
