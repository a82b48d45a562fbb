"""A storm of signals, by hand: real processes are interrupted at random moments, and must leave nothing open.

``python tests/proof/signal_storm.py [--signals 500] [--seed 1] [--way run|uvloop|handler|default|close]``

Each process starts, enters ten resources, holds them, ends, and exits them; the signal comes at a random moment of that. Each
resource writes a line as it opens and as it closes. The ways, by turns:

run, uvloop   SIGINT to `asyncio.run` or `uvloop.run`, as Ctrl-C sends it
handler       SIGTERM, for which the program has ``loop.add_signal_handler(SIGTERM, task.cancel)``
close         SIGINT to a loop that is driven and closed by hand
default       SIGTERM, for which the program has nothing: the system ends it where it stands, and nothing can be closed

It ends with status 1 if a process hangs, leaves something open that it need not, closes something twice, or says anything on
stderr but the `KeyboardInterrupt`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

WAYS = ("run", "uvloop", "handler", "close", "default")
SECONDS_TO_END = 10.0
LIFE = 0.065  # seconds that a process takes from its start to its end, if it is left alone
RESOURCES = 10

PROGRAM = """
import asyncio, os, signal, sys
from contextlib import asynccontextmanager
from asyncio_loop_local import atexit, enter, enter_once, singleton, sticky_singleton_acm
import uvloop

way, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)

def note(what, name):
    os.write(log, f"{what} {name}\\n".encode())

class Resource:
    def __init__(self, name):
        self.name = name

    async def __aenter__(self):
        await asyncio.sleep(0.001)
        try:
            note("open", self.name)
            await asyncio.sleep(0.001)
        except BaseException:
            note("close", self.name)
            raise
        return self

    async def __aexit__(self, *exc):
        try:
            await asyncio.sleep(0.001)
        finally:
            note("close", self.name)

make = sticky_singleton_acm(Resource)

@sticky_singleton_acm
@asynccontextmanager
async def pair(name):
    async with make(f"below {name}"), asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(3600))
        note("open", name)
        try:
            yield
        finally:
            note("close", name)
            task.cancel()

@singleton
async def client():
    return await enter(Resource("client"))

async def user(name):
    try:
        async with make("shared"), make(name):
            await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(0.002)

async def work():
    await enter(Resource("first"))
    async with asyncio.TaskGroup() as group:
        for name in "one", "two", "three":
            group.create_task(user(name))
        group.create_task(enter_once(Resource("object")))
        await client()
    async with pair("pair"):
        await asyncio.sleep(0.01)
    atexit.register(asyncio.sleep, 0.001)
    asyncio.create_task(user("left"), name="left")
    await asyncio.sleep(0.005)

async def main():
    if way == "handler":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    note("start", "main")
    await work()
    note("end", "main")

def by_hand():
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()

print("ready", flush=True)
try:
    match way:
        case "close": by_hand()
        case "uvloop": uvloop.run(main())
        case _: asyncio.run(main())
except asyncio.CancelledError:
    assert way == "handler"
finally:
    if way != "default":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("over", "program")
"""

# What a process may say: of the interruption, and what asyncio itself leaves behind where that strikes its runner.
_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception|Interrupt|Exit|Group|Warning))\b", re.MULTILINE)
_ALLOWED = {"KeyboardInterrupt", "CancelledError"}
_BAD = ("never awaited", "destroyed but it is pending", "Exception ignored", "never retrieved", "Exception in callback", "Fatal")
_OF_RUNNERS = r"main|[\w.]*shutdown_default_executor|[\w.]*shutdown_asyncgens"
_ASYNCIOS_OWN = re.compile(
    # Its loop's __init__ or close was interrupted, and its __del__ finds what is not there.
    r"^Exception ignored in: <function BaseEventLoop.__del__ .*\n(?:.*\n)*?AttributeError: .*\n"
    # A finalizer ran as the interruption came.
    r"|^Exception ignored in: <function .*__del__ .*\n(?:.*\n)*?KeyboardInterrupt: *\n"
    # The runner was about to await it.
    r"|^Task was destroyed but it is pending!\ntask: .*coro=<(?:" + _OF_RUNNERS + r")\(\).*\n"
    # The loop's end of the wakeup pipe was closed before the handler was taken away.
    r"|^Exception ignored when trying to write to the signal wakeup fd:\n(?:.*\n)*?(?:OSError|BrokenPipeError): .*\n"
    # A task of the program's own was interrupted: it has the KeyboardInterrupt, too, that ended the run.
    r"|^Task exception was never retrieved\nfuture: <Task finished .*exception=KeyboardInterrupt\(\)>\n"
    # A coroutine had been made, and there was no task of it yet.
    r"|^.*coroutine '(?:run.<locals>.wrapper|user|client|work|sleep|" + _OF_RUNNERS + r")' "
    r"was never awaited\n(?:  .*\n)*"
    r"|^(?:RuntimeWarning: )?.*Enable tracemalloc.*\n",
    re.MULTILINE,
)


@dataclass
class Outcome:
    """What became of one process."""

    way: str
    moment: float
    phase: str
    opened: Counter[str]
    closed: Counter[str]
    returncode: int
    stderr: str
    hung: bool

    @property
    def is_uvloops_own(self) -> bool:
        """Whether uvloop goes on to say that it runs after a KeyboardInterrupt has ended its run, as it does without the library.

        Such a loop can neither be run again nor closed: 4 of 200 signals to the end of `uvloop.run`, with nothing of ours.
        """
        return self.way == "uvloop" and "running event loop" in self.stderr

    @property
    def violations(self) -> list[str]:
        if self.is_uvloops_own or self.phase == "start":  # at the start there is no loop yet
            return []
        found: list[str] = []
        if self.hung:
            found.append("hung")
        found += [f"{name} was closed {count} times" for name, count in self.closed.items() if count > self.opened[name]]
        if self.way != "default" and self.opened != self.closed:
            found += [f"{name} was left open" for name in self.opened - self.closed]
        stderr = _ASYNCIOS_OWN.sub("", self.stderr)
        found += [f"says {word!r}" for word in _BAD if word in stderr]
        found += [f"says {word}" for word in sorted(set(_ERROR.findall(stderr)) - _ALLOWED)]
        if self.returncode not in (0, -signal.SIGINT, -signal.SIGTERM):
            found.append(f"status {self.returncode}")
        return found


def strike(way: str, moment: float) -> Outcome:
    """Starts a process, and signals it at this moment of its life, in seconds since it was ready."""
    number = signal.SIGINT if way in ("run", "uvloop", "close") else signal.SIGTERM
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, way, log.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment)
        phase = _phase(Path(log.name).read_text())
        process.send_signal(number)
        hung = False
        try:
            stderr = process.communicate(timeout=SECONDS_TO_END)[1]
        except subprocess.TimeoutExpired:
            hung = True
            process.send_signal(signal.SIGABRT)  # faulthandler says where it stands
            stderr = process.communicate()[1]
        lines = [line.split(" ", 1) for line in Path(log.name).read_text().splitlines()]
    opened = Counter(name for what, name in lines if what == "open")
    closed = Counter(name for what, name in lines if what == "close")
    return Outcome(way, moment, phase, opened, closed, process.returncode, stderr, hung)


def _phase(log: str) -> str:
    if "over" in log:
        return "over"
    if "end main" in log:
        return "exit"
    if "start" not in log:
        return "start"
    return "held" if "open pair" in log else "enter"


def storm(signals: int, seed: int, ways: tuple[str, ...]) -> list[Outcome]:
    """That many signals, spread over the ways and over the life of a process."""
    rng = random.Random(seed)
    return [strike(ways[number % len(ways)], rng.uniform(0, LIFE)) for number in range(signals)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help="this one alone")
    options = parser.parse_args()
    outcomes = storm(options.signals, options.seed, (options.way,) if options.way else WAYS)
    print(f"Python {sys.version.split()[0]}, {len(outcomes)} signals, seed {options.seed}")
    for way in WAYS:
        those = [each for each in outcomes if each.way == way]
        if those:
            phases = ", ".join(f"{count} at {phase}" for phase, count in sorted(Counter(each.phase for each in those).items()))
            opened = sum(each.opened.total() for each in those)
            closed = sum(each.closed.total() for each in those)
            print(f"  {way:<8} {len(those):>4} signals ({phases}): {opened:,} opened, {closed:,} closed")
    print(f"  after {sum(each.is_uvloops_own for each in outcomes)} of them uvloop could not go on: a fault of its own")
    bad = [each for each in outcomes if each.violations]
    for outcome in bad:
        print(f"VIOLATION, {outcome.way} after {outcome.moment * 1000:.1f} ms ({outcome.phase}): {'; '.join(outcome.violations)}")
        print("    " + "\n    ".join(outcome.stderr.splitlines()))
    print(f"{len(bad)} violations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
