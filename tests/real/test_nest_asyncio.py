"""nest_asyncio: loops that run inside themselves, by tasks of asyncio's Python class. Each program in a process of its own."""

from __future__ import annotations

import textwrap

import pytest

from programs import run_python

PRELUDE = """
import asyncio
import nest_asyncio
from contextlib import asynccontextmanager
from asyncio_loop_local import aclose, release, singleton, sticky_singleton_acm

def note(*words):
    print(*words, flush=True)

@sticky_singleton_acm
@asynccontextmanager
async def resource(name, needs=None):
    if needs is not None:
        async with resource(needs):
            pass
    note("enter", name)
    yield name
    note("exit", name)

async def use(*names):
    for name in names:
        async with resource(name):
            pass
"""


def ran(program: str) -> list[str]:
    done = run_python("-W", "ignore::DeprecationWarning", "-c", PRELUDE + textwrap.dedent(program))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


CLOSED = {
    "close": "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\nloop.close()",
    "runner": "with asyncio.Runner() as runner:\n    runner.run(main())",
    "interpreter exit": "asyncio.run(main())",  # nest_asyncio's own, which leaves the loop open
    "aclose": "async def both():\n    await main()\n    await aclose()\nasyncio.run(both())",
}


@pytest.mark.parametrize("closed", list(CLOSED))
def test_a_loop_that_runs_inside_itself_is_ended(closed: str) -> None:
    """What was entered inside and outside of a nested run is shared by both, and exits in order, however the loop ends."""
    program = """
nest_asyncio.apply()

async def main():
    await use("a", "b")
    asyncio.get_running_loop().run_until_complete(use("b", "c"))
    async with resource("d", needs="a"):
        pass
    await use("e")

"""
    exits = ["exit e", "exit d", "exit c", "exit b", "exit a"]
    assert ran(program + CLOSED[closed]) == ["enter a", "enter b", "enter c", "enter d", "enter e", *exits]


def test_it_may_be_applied_while_the_loop_runs() -> None:
    """As in a notebook: tasks of both classes are on one loop then. Those made before cannot run in a nested run on 3.14."""
    printed = ran("""
        async def inner():
            await use("a", "b", "c")
            await release(resource, "c")
            await use("c")

        async def main():
            await use("a", "b")
            nest_asyncio.apply()
            asyncio.run(inner())
            await asyncio.create_task(use("c", "d"))

        asyncio.run(main())
    """)
    entered = ["enter a", "enter b", "enter c", "exit c", "enter c", "enter d"]
    assert printed == [*entered, "exit d", "exit c", "exit b", "exit a"]


def test_a_shared_coroutine_knows_its_tasks_apart() -> None:
    """Several tasks may drive one coroutine of a wrapped function at the same time, and one of them be cancelled."""
    printed = ran("""
        nest_asyncio.apply()

        @singleton
        async def compute():
            note("run")
            await asyncio.sleep(0)
            return 7

        async def main():
            first, second = asyncio.create_task(compute()), asyncio.create_task(compute())
            await asyncio.sleep(0)
            first.cancel()
            note(await second, *await asyncio.gather(compute(), compute()))

        asyncio.run(main())
    """)
    assert printed == ["run", "7 7 7"]


def test_tasks_end_before_the_resources_that_they_use() -> None:
    """`loop.close()` cancels the user's tasks first, although from Python 3.14 on `asyncio.all_tasks` shows none of them."""
    printed = ran("""
        nest_asyncio.apply()
        tasks = []

        async def user():
            async with resource("a") as value:
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    note("task ends with", value)

        async def main():
            tasks.append(asyncio.create_task(user()))
            await asyncio.sleep(0)
            await use("a")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    """)
    assert printed == ["enter a", "task ends with a", "exit a"]
