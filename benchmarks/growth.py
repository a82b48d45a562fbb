"""How the cost grows with the number of keys, waiters, resources, users of a hub, threads and loops; beside plain asyncio."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from benchmarks.cold import floor_enters, hub_costs, make_enters, use, use_bare
from benchmarks.timing import clock, own_garbage_only
from benchmarks.warm import Trivial, floor_call

import asyncio_loop_local as loop_local

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Line:
    """The cost of one, for each number of them."""

    name: str
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """How the cost of one changes with the number of them."""

    slug: str
    title: str
    of: str
    unit: str
    numbers: tuple[int, ...]
    lines: tuple[Line, ...]
    grows: bool = True
    """Whether the work grows with the number; else there is no slope."""

    def slope(self, line: Line) -> float:
        """The exponent of the number in the total cost, fitted to the upper half of the numbers: 1 if it is proportional."""
        half = len(self.numbers) // 2
        points = [
            (math.log(number), math.log(number * cost))
            for number, cost in zip(self.numbers[half:], line.costs[half:], strict=True)
            if cost > 0
        ]
        return _slope(points)


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line with the least squares, or nan if there is none."""
    if len(points) < 2:
        return math.nan
    x_mean, y_mean = (sum(values) / len(points) for values in zip(*points, strict=True))
    square = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / square if square else math.nan


def numbers_to(most: int, *, step: int = 10) -> tuple[int, ...]:
    """1, 10, 100 and so on, up to the greatest number."""
    numbers = [1]
    while numbers[-1] * step < most:
        numbers.append(numbers[-1] * step)
    return (*numbers, most) if most > 1 else (1,)


Measure = Callable[[int], tuple[float, ...]]
"""Measures with n of them, and returns the cost of one for each line of the plot."""


def lines_of(numbers: Sequence[int], measures: Mapping[str, Measure], *, most: int) -> tuple[Line, ...]:
    """Return the best of several rounds, each of which runs every measure once; small numbers are measured more often.

    A measure that draws two lines has the names of both, separated by a semicolon.
    """
    costs: dict[str, list[float]] = {}
    for number in numbers:
        rounds: dict[str, list[tuple[float, ...]]] = {names: [] for names in measures}
        for _ in range(max(7, min(30, most // number))):
            for names, measure in measures.items():
                rounds[names].append(measure(number))
        for names, taken in rounds.items():
            for name, each in zip(names.split("; "), zip(*taken, strict=True), strict=True):
                costs.setdefault(name, []).append(min(each))
    return tuple(Line(name, tuple(each)) for name, each in costs.items())


def keys(most: int) -> Growth:
    """More and more keys of one factory, without and with ``key=``."""
    sample_size = 1_000

    async def main(number: int, single: Callable[[int], object]) -> tuple[float, float]:
        start = clock()
        for key in range(number):
            single(key)
        new = (clock() - start) / number
        sample = [key * number // sample_size for key in range(sample_size)]
        warm = math.inf
        for _ in range(5):
            start = clock()
            for key in sample:
                single(key)
            warm = min(warm, (clock() - start) / sample_size)
        return warm, new

    numbers = numbers_to(most)
    measures: dict[str, Measure] = {
        "a warm call; a new key": lambda number: asyncio.run(main(number, loop_local.singleton(_for_a_key))),
        "a warm call, `key=`; a new key, `key=`": lambda number: asyncio.run(
            main(number, loop_local.singleton(_for_a_key, key=str))
        ),
    }
    return Growth("keys", "Keys of one factory", "keys", "ns", numbers, lines_of(numbers, measures, most=most))


def _for_a_key(_key: int) -> object:
    return object()


def hub(most: int) -> Growth:
    """Users of one hub, which uses new resources itself."""
    numbers = numbers_to(most)
    measures: dict[str, Measure] = {
        "a user of the hub, entered and exited; one that the hub asks for": lambda number: asyncio.run(hub_costs(number)),
    }
    return Growth("hub", "Resources that use one hub", "users", "ns", numbers, lines_of(numbers, measures, most=most // 4))


def waiters(most: int) -> Growth:
    """Tasks that wait for one enter, compared with tasks that wait for one future."""

    class Slow(Trivial):
        def __init__(self, gate: asyncio.Future[None]) -> None:
            self.gate = gate

        async def __aenter__(self) -> Slow:
            await self.gate
            return self

    def measure(*, bare: bool) -> Measure:
        async def main(number: int) -> tuple[float]:
            gate = asyncio.get_running_loop().create_future()
            make = loop_local.sticky_singleton_acm(Slow)

            async def wait() -> None:
                if bare:
                    await gate
                else:
                    async with make(gate):
                        pass

            start = clock()
            tasks = [asyncio.create_task(wait()) for _ in range(number)]
            for _ in range(3):
                await asyncio.sleep(0)  # by then they all wait
            gate.set_result(None)
            for task in tasks:
                await task
            return ((clock() - start) / number,)

        return lambda number: asyncio.run(main(number))

    numbers = numbers_to(most)
    measures = {"waiting for the enter": measure(bare=False), "waiting for a future": measure(bare=True)}
    return Growth("waiters", "Tasks that wait for one enter", "tasks", "ns", numbers, lines_of(numbers, measures, most=most))


def resources(most: int) -> Growth:
    """Resources of one loop, compared with tasks that hold as many context managers."""
    numbers = numbers_to(most)
    measures: dict[str, Measure] = {
        "entering one; exiting one": lambda number: asyncio.run(make_enters(number)),
        "entering, a bare task; exiting, a bare task": lambda number: asyncio.run(floor_enters(number)),
    }
    return Growth("resources", "Resources of one loop", "resources", "ns", numbers, lines_of(numbers, measures, most=most // 4))


def resource_bytes(most: int) -> Growth:
    """The memory of a resource."""
    make = loop_local.sticky_singleton_acm(_trivial_for_a_key)

    async def main(number: int) -> float:
        async with make(-1):
            pass
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for key in range(number):
                async with make(key):
                    pass
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / number
        finally:
            tracemalloc.stop()

    numbers = numbers_to(most)
    line = Line("one", tuple(asyncio.run(main(number)) for number in numbers))
    return Growth("bytes", "Memory of a resource", "resources", "bytes", numbers, (line,))


def _trivial_for_a_key(_key: int) -> Trivial:
    return Trivial()


def threads(most: int, *, calls: int) -> Growth:
    """Threads, each with a loop, that make the same calls: the time of one call, over all threads."""
    single = loop_local.singleton(object)

    def measure(function: Callable[[], object]) -> Measure:
        def run(number: int) -> tuple[float]:
            together = threading.Barrier(number)
            spans: list[tuple[int, int]] = []

            async def main() -> None:
                function()
                together.wait()
                start = perf_counter_ns()
                for _ in range(calls):
                    function()
                spans.append((start, perf_counter_ns()))

            workers = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(number)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return ((max(end for _, end in spans) - min(start for start, _ in spans)) / number / calls,)

        return run

    numbers = numbers_to(most, step=2)
    measures = {"`single()`": measure(single), "its floor": measure(floor_call)}
    lines = lines_of(numbers, measures, most=most)
    return Growth("threads", "Threads with loops of their own", "threads", "ns", numbers, lines, grows=False)


def loops(most: int) -> Growth:
    """Loops in a row, each of which opens and closes one resource, compared with loops with a bare ``async with``."""

    def measure(main: Callable[[], Coroutine[Any, Any, None]]) -> Measure:
        def run(number: int) -> tuple[float]:
            start = clock()
            for _ in range(number):
                asyncio.run(main())
            return ((clock() - start) / number,)

        return run

    numbers = numbers_to(most)
    measures = {"through the library": measure(use), "a bare `async with`": measure(use_bare)}
    return Growth("loops", "Loops in a row", "loops", "ns", numbers, lines_of(numbers, measures, most=most))


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a process after some loops, and after many more."""

    loops: int
    resources: int
    rss_before: int
    rss_after: int
    traced_before: int
    traced_after: int


def memory_after_loops(most: int) -> Memory:
    """Measure resident and traced memory, each in a fresh interpreter."""
    figures: dict[str, int] = {}
    for what in ("rss", "traced"):
        command = [sys.executable, "-m", "benchmarks.growth", what, str(most)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        figures |= json.loads(run.stdout)
    return Memory(loops=most, resources=HELD, **figures)


HELD = 20
"""The number of resources of each of these loops."""


def _memory_program(what: str, most: int) -> dict[str, int]:
    async def main() -> None:
        for number in range(HELD):
            async with _make_held(number):
                pass

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if what == "traced" else _rss()

    for _ in range(most // 5 + 1):  # by then the free lists and arenas are as large as they get
        asyncio.run(main())
    if what == "traced":
        tracemalloc.start()
        asyncio.run(main())
    before = held()
    for _ in range(most):
        asyncio.run(main())
    return {f"{what}_before": before, f"{what}_after": held()}


_make_held = loop_local.sticky_singleton_acm(_trivial_for_a_key)


def _rss() -> int:
    """Return the resident memory of the process, or 0 if that is not known here."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@dataclass(frozen=True, slots=True)
class Reach:
    """The greatest number for each plot."""

    keys: int
    waiters: int
    resources: int
    threads: int
    thread_calls: int
    loops: int


FULL = Reach(keys=100_000, waiters=10_000, resources=20_000, threads=64, thread_calls=50_000, loops=1_000)
QUICK = Reach(keys=1_000, waiters=100, resources=200, threads=4, thread_calls=500, loops=20)
TINY = Reach(keys=20, waiters=11, resources=12, threads=2, thread_calls=3, loops=2)


def grow(name: str, reach: Reach) -> Growth:
    with own_garbage_only(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # about many different keys, which are intended here
        return GROWTHS[name](reach)


GROWTHS: dict[str, Callable[[Reach], Growth]] = {
    "keys": lambda reach: keys(reach.keys),
    "waiters": lambda reach: waiters(reach.waiters),
    "resources": lambda reach: resources(reach.resources),
    "hub": lambda reach: hub(reach.resources // 2),
    "bytes": lambda reach: resource_bytes(reach.resources),
    "threads": lambda reach: threads(reach.threads, calls=reach.thread_calls),
    "loops": lambda reach: loops(reach.loops),
}


def gil() -> str:
    """Say whether this build has the GIL."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return "with the GIL" if enabled() else "free-threaded"


if __name__ == "__main__":
    print(json.dumps(_memory_program(sys.argv[1], int(sys.argv[2]))))
