"""Holds the library against what people write in its place: each cell of the table is what a small program did.

    python -m benchmarks.comparison            prints the table
    python -m benchmarks.comparison --write    puts it into docs/comparison.md, and wherever else its markers stand
    python -m benchmarks.comparison --check    fails if one of these holds another one

Needs the extra 'bench', and Starlette, which FastAPI brings.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from benchmarks import peer_behaviours as peers
from benchmarks.peer_behaviours import Global, Thing, Use, Work
from benchmarks.written_part import WrittenPart
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

import asyncio_loop_local as loop_local

if TYPE_CHECKING:
    from starlette.requests import Request

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "comparison.md", ROOT / "README.md"]
TABLE = WrittenPart("<!-- begin of what benchmarks/comparison.py --write has written -->")
Build = Callable[[Work], Use]
State = MutableMapping[str, Any]

RUNS = 100


def use_this_library(work: Work) -> Use:
    wrapped = loop_local.sticky_singleton_acm(work.enter, valid=lambda thing: thing not in work.broken)

    async def get(argument: object) -> object:
        async with wrapped(argument) as thing:
            return thing

    def override(thing: Thing) -> AbstractContextManager[object]:
        @asynccontextmanager
        async def fake(argument: object = 1) -> AsyncGenerator[Thing]:  # noqa: ARG001  # the parameters of what it replaces
            yield thing

        return loop_local.override(wrapped, fake)

    get_now = loop_local.singleton(work.make_now, close=lambda _thing: work.closed(1))
    return Use(get, get_now=get_now, override=override)


def use_module_global(work: Work) -> Use:
    thing: Global[Thing | None] = Global(None)

    async def get(_argument: object) -> object:
        if thing.value is None:
            thing.value = await work.enter().__aenter__()
        return thing.value

    def get_now() -> object:
        if thing.value is None:
            thing.value = work.make_now()
        return thing.value

    async def forget() -> None:
        thing.value = None

    return Use(get, takes_arguments=False, get_now=get_now, forget=forget, replace=thing.replace)


def use_dict_by_id(work: Work) -> Use:
    things: dict[int, Thing] = {}

    async def get(_argument: object) -> object:
        loop = id(get_running_loop())
        if loop not in things:
            things[loop] = await work.enter().__aenter__()
        return things[loop]

    def get_now() -> object:
        loop = id(get_running_loop())
        if loop not in things:
            things[loop] = work.make_now()
        return things[loop]

    async def forget() -> None:
        del things[id(get_running_loop())]

    def replace(thing: Thing) -> AbstractContextManager[object]:
        return patch.dict(things, {id(get_running_loop()): thing})

    return Use(get, takes_arguments=False, get_now=get_now, forget=forget, replace=replace)


class Lifespan:
    """An application that opens two things in its lifespan, and a request handler that uses one of them."""

    def __init__(self, work: Work) -> None:
        self._found: list[object] = []

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncGenerator[dict[str, Thing]]:
            async with work.enter(1) as one, work.enter(2) as two:
                yield {"one": one, "two": two}

        self._app = Starlette(routes=[Route("/{number}", self._handle)], lifespan=lifespan)

    async def _handle(self, request: Request) -> Response:
        self._found.append(request.state.one if request.path_params["number"] == "1" else request.state.two)
        return Response()

    async def request(self, state: State, argument: object) -> object:
        """What the handler of a request has found."""

        async def send(_message: State) -> None:
            pass

        path = f"/{argument}"
        scope: State = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "state": dict(state)}
        await self._app(scope, _nothing_to_receive, send)
        return self._found.pop()

    async def serve(self, state: State, started: asyncio.Event, stop: asyncio.Event) -> None:
        """Does what a server does, in a task of its own."""
        begun = False

        async def receive() -> State:
            nonlocal begun
            if not begun:
                begun = True
                return {"type": "lifespan.startup"}
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: State) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set()

        await self._app({"type": "lifespan", "state": state}, receive, send)


async def _nothing_to_receive() -> State:
    return {"type": "http.request", "body": b"", "more_body": False}


def use_lifespan(work: Work) -> Use:
    """On each loop there is a server of that application, which is stopped where the others are closed by hand."""
    application = Lifespan(work)
    servers: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[State, asyncio.Event, asyncio.Event, asyncio.Task[None]]]
    servers = WeakKeyDictionary()

    async def get(argument: object) -> object:
        loop = get_running_loop()
        if loop not in servers:
            state: State = {}
            started, stop = asyncio.Event(), asyncio.Event()
            servers[loop] = state, started, stop, asyncio.create_task(application.serve(state, started, stop))
        found, ready, _, _ = servers[loop]
        await ready.wait()
        return await application.request(found, argument)

    async def close() -> None:
        _, _, stop, task = servers.pop(get_running_loop())
        stop.set()
        await task

    def replace(thing: Thing) -> AbstractContextManager[object]:
        state, _, _, _ = servers[get_running_loop()]  # Starlette's TestClient has it as app_state
        return patch.dict(state, {"one": thing})

    return Use(get, close, takes_arguments=False, replace=replace)


def use_lifespan_without_server(work: Work) -> Use:
    return Use(partial(Lifespan(work).request, {}), takes_arguments=False)


SUBJECTS: dict[str, Build] = {
    "this library": use_this_library,
    "module global": use_module_global,
    "dict by id(loop)": use_dict_by_id,
    "weak dict by loop": peers.use_weak,
    "anyio RunVar": peers.use_run_var,
    "async_lru": peers.use_async_lru,
    "svcs": peers.use_svcs,
    "dishka": peers.use_dishka,
    "that-depends": peers.use_that_depends,
    "lifespan": use_lifespan,
}
WITHOUT_SERVER: dict[Build, Build] = {use_lifespan: use_lifespan_without_server}


def works_anywhere(build: Build) -> str:
    use = WITHOUT_SERVER.get(build, build)(Work())
    try:
        asyncio.run(_get_and_close(use))
    except AttributeError:  # the state of a request has nothing of that name
        return "no"
    return "yes"


def is_each_loops_own(build: Build) -> str:
    work = Work()
    use = build(work)
    gc.collect()
    gc.freeze()  # what was there before need not be looked at
    for number in range(RUNS):
        asyncio.run(_get_and_close(use))
        if number % 10 == 0:
            gc.collect()  # what a long-lived program's loops come to: their addresses are taken again
    gc.unfreeze()
    return "yes" if work.count("made 1") == RUNS else "no"


def outlives_tasks(build: Build) -> str:
    """A task that is cancelled at the end of the loop finds it open, and after that it is closed."""
    work = Work()
    use = build(work)
    open_at_last: list[bool] = []
    tasks: set[asyncio.Task[None]] = set()

    async def worker(ready: asyncio.Event) -> None:
        await use.get(1)
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            open_at_last.append(work.count("closed 1") == 0)

    async def main() -> None:
        ready = asyncio.Event()
        tasks.add(asyncio.create_task(worker(ready)))
        await ready.wait()
        if use.close is not None:
            await use.close()  # the last line of a main

    asyncio.run(main())
    return "yes" if open_at_last == [True] and work.count("closed 1") else "no"


def is_closed(build: Build) -> str:
    return (
        peers.is_closed(build).replace("no", "never").replace("by hand", "by the server" if build is use_lifespan else "by hand")
    )


def is_closed_if_got_now(build: Build) -> str:
    """The same of a thing that a plain function gets, which is called while the loop runs."""
    if build is use_lifespan:  # whose handlers get it from the state of their request
        return is_closed(build)

    def closed(*, by_hand: bool) -> bool:
        work = Work()
        use = build(work)

        async def main() -> None:
            if use.get_now is not None and use.get_now() is use.get_now() and by_hand and use.close is not None:
                await use.close()

        asyncio.run(main())
        return work.log == ["made 1", "closed 1"]

    if build(Work()).get_now is None:
        return "no"
    return "with the loop" if closed(by_hand=False) else "by hand" if closed(by_hand=True) else "never"


def is_made_anew(build: Build) -> str:
    """A thing that has been marked as broken is not given again, while others are."""
    work = Work()
    use = build(work)
    forget = use.forget or use.close  # which forgets the others too

    async def main() -> str:
        thing, other = await use.get(1), await use.get(2)

        async def anew() -> bool:
            return await use.get(1) is not thing and (other is thing or await use.get(2) is other)

        work.broken.append(thing)
        if await anew():
            return "yes"
        if forget is not None:
            await forget()
        return "by hand" if await anew() else "no"

    return asyncio.run(main())


def is_replaced(build: Build) -> str:
    """A loop that has a thing already gets another one in a block, and after it the same as before."""

    async def works(use: Use, replace: Callable[[Thing], AbstractContextManager[object]]) -> bool:
        real, fake = await use.get(1), Thing()
        with replace(fake):
            given = await use.get(1)
        return given is fake and await use.get(1) is real

    use = build(Work())
    if use.override is not None and asyncio.run(works(use, use.override)):
        return "yes"
    return "by hand" if use.replace is not None and asyncio.run(works(use, use.replace)) else "no"


async def _get_and_close(use: Use) -> None:
    await use.get(1)
    if use.close is not None:
        await use.close()


ROWS: dict[str, Callable[[Build], str]] = {
    "works with nothing set up: in a script, a test, a thread": works_anywhere,
    "two loops that take turns have one each": peers.is_per_loop,
    f"of {RUNS} `asyncio.run` in a row, each has its own": is_each_loops_own,
    "one for each set of arguments": peers.is_by_arguments,
    "equal dicts are the same argument": peers.is_by_value,
    "two tasks that ask at once: made once": peers.is_made_once,
    "closed": is_closed,
    "… newest first": peers.is_newest_first,
    "… in the task that opened it, as task groups insist": peers.is_left_where_it_was_entered,
    "… after the tasks that are cancelled at the end, which can use it": outlives_tasks,
    "a closed loop is freed": peers.lets_go,
    "got without `await`, and closed": is_closed_if_got_now,
    "a value that is no longer good is made anew": is_made_anew,
    "replaced in a test, also where a loop has it already": is_replaced,
}


def cells() -> dict[str, dict[str, str]]:
    """What each program did, by row and subject."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # svcs gives one of what is left open, async_lru of another loop
        return {title: {subject: probe(build) for subject, build in SUBJECTS.items()} for title, probe in ROWS.items()}


def table() -> str:
    lines = ["| | " + " | ".join(SUBJECTS) + " |", "| --- |" + " --- |" * len(SUBJECTS)]
    lines += [f"| {title} | " + " | ".join(row.values()) + " |" for title, row in cells().items()]
    return "\n".join(lines)


def main() -> int:
    text = table()
    if not {"--write", "--check"} & set(sys.argv[1:]):
        print(text)
        return 0
    result = 0
    for page in PAGES:
        before = page.read_text("utf-8")
        if TABLE.begin not in before or before == TABLE.put(text, before):
            continue
        if "--write" in sys.argv[1:]:
            page.write_text(TABLE.put(text, before), "utf-8")
        else:
            print(f"{page.name} holds another table than this: run with --write", text, sep="\n\n")
            result = 1
    return result


if __name__ == "__main__":
    sys.exit(main())
