"""Programs that leave a loop open, drop one, or fork: each runs in a process of its own, on asyncio's loop or uvloop's."""

from __future__ import annotations

import textwrap

import pytest

from programs import run_python

_PRELUDE = """
import asyncio, gc, os, sys, threading
from contextlib import asynccontextmanager
import anyio, uvloop
from asyncio_loop_local import aclose, atexit, enter, sticky_singleton_acm, storage

new_loop = {new_loop}

def note(*words):
    print(*words, flush=True)

class Plain:
    def __init__(self, name="plain"):
        self.name = name
    async def __aenter__(self):
        await asyncio.sleep(0)
        note("enter", self.name)
        return self
    async def __aexit__(self, *exc):
        await asyncio.sleep(0)
        note("exit", self.name)

@asynccontextmanager
async def generator():
    note("enter generator")
    try:
        yield
    finally:
        await asyncio.sleep(0)
        note("exit generator")

@asynccontextmanager
async def threaded():
    note("enter threaded")
    yield
    note(await asyncio.to_thread(lambda: "exit threaded"))

async def work():
    while True:
        await asyncio.sleep(3600)

@asynccontextmanager
async def task_group():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        note("enter task_group")
        yield
        task.cancel()
    note("exit task_group")

@asynccontextmanager
async def anyio_group():
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        note("enter anyio_group")
        yield
        group.cancel_scope.cancel()
    note("exit anyio_group")

make = sticky_singleton_acm(Plain)
gc.collect()  # so that none comes between a loop and its sockets, which it then finalizes in an order that asyncio does not bear
"""

LOOPS = {"asyncio": "asyncio.new_event_loop", "uvloop": "uvloop.new_event_loop"}
each_kind_of_loop = pytest.mark.parametrize("loop_kind", list(LOOPS))


def run_script(loop_kind: str, script: str, *options: str) -> tuple[list[str], str]:
    """Runs a program with warnings shown. Returns the lines that it prints, and its stderr."""
    source = _PRELUDE.format(new_loop=LOOPS[loop_kind]) + textwrap.dedent(script)
    done = run_python(*(options or ("-W", "always::ResourceWarning")), "-c", source)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), done.stderr


def without_asyncios_own(stderr: str) -> list[str]:
    """The lines of stderr, without what asyncio and uvloop say of any loop that is dropped."""
    own = ("unclosed event loop", "unclosed resource <TCP", "unclosed transport", "Object allocated at", "tracemalloc")
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("  ")]
    return [line for line in lines if not any(words in line for words in own)]
