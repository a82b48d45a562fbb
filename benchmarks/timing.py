"""How everything here is timed: in rounds that take each subject in turn, so that what slows the machine slows them all.

Of the rounds, the best is what the code costs, since nothing but noise is ever added to it; the median of the rounds' ratios
is shown beside it, and the two are far apart only where the machine was too busy to tell.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import perf_counter_ns, thread_time_ns
from typing import Any

clock = {"nt": perf_counter_ns}.get(os.name, thread_time_ns)  # which is too coarse there
"""The processor's time in this thread, in nanoseconds: what else runs on the machine is no part of it."""

Subject = Callable[[], float]
"""Does what is to be timed, and returns what it cost, of one."""

LENIENCY = 1.0 if sys.version_info >= (3, 13) else 1.1
"""The limits are those of CPython 3.13; older ones may miss them by a tenth."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run: all of it, or just enough to see that it runs."""

    rounds: int
    calls: int
    many: int
    """How many resources are many."""

    def at_most(self, rounds: int) -> int:
        return min(self.rounds, rounds)


FULL = Size(rounds=100, calls=4_000, many=2_000)
QUICK = Size(rounds=10, calls=500, many=200)
TINY = Size(rounds=2, calls=3, many=5)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what it cost, beside the least that pure Python could do, and what it may cost."""

    path: str
    floor: float | None
    ours: float
    limit: float
    median_ratio: float | None = None
    unit: str = "ns"
    absolute: bool = False
    """Whether the limit is one of what it costs, and not of the ratio to the floor."""

    @property
    def verdict(self) -> str:
        """The ratio to the floor, or what it costs; in bold where that is not within the limit."""
        shown = f"{self.ours:,.0f} {self.unit}" if self.ratio is None else f"{self.ratio:.2f}"
        return shown if self.ok else f"**{shown}**"

    @property
    def allowed(self) -> str:
        """The limit of the ratio, or of what it may cost."""
        return f"{self.limit:,.0f} {self.unit}" if self.ratio is None else f"{self.limit:,.2f}"

    @property
    def ratio(self) -> float | None:
        return None if self.floor is None or self.absolute else self.ours / self.floor

    @property
    def ok(self) -> bool:
        """Whether it is within the limit."""
        return (self.ours if self.ratio is None else self.ratio) <= self.limit

    @property
    def cells(self) -> list[str]:
        ratio, middle = self.ratio, self.median_ratio
        return [
            self.path,
            "" if self.floor is None else f"{self.floor:,.0f} {self.unit}",
            f"{self.ours:,.0f} {self.unit}",
            "" if ratio is None else f"{ratio:.2f}",
            "" if middle is None else f"{middle:.2f}",
            self.allowed,
            "yes" if self.ok else "**no**",
        ]


HEADINGS = ["path", "floor", "ours", "ratio", "median ratio", "at most", "within"]


def interleave(subjects: Mapping[str, Subject], rounds: int) -> dict[str, list[float]]:
    """What each subject cost in each round; every second round takes them the other way round."""
    costs: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            costs[name].append(subjects[name]())
    return costs


def row(path: str, floor: Subject, ours: Subject, *, limit: float, rounds: int) -> Row:
    costs = interleave({"floor": floor, "ours": ours}, rounds)
    return row_of(path, costs["floor"], costs["ours"], limit=limit)


def row_of(path: str, floor: Sequence[float], ours: Sequence[float], *, limit: float) -> Row:
    """A line of what both have cost, round by round."""
    ratios = [ours / floor for floor, ours in zip(floor, ours, strict=True)]
    return Row(path, min(floor), min(ours), limit * LENIENCY, median(ratios))


def statement(source: str, names: Mapping[str, object]) -> Callable[[int], Coroutine[Any, Any, float]]:
    """A coroutine function that runs the statement so many times, as ``timeit`` does, and returns the nanoseconds of one."""
    namespace = {**names, "repeat": repeat, "clock": clock}
    lines = (
        "async def timed(times):",
        "    start = clock()",
        "    for _ in repeat(None, times):",
        f"        {source}",
        "    return (clock() - start) / times",
    )
    exec("\n".join(lines), namespace)  # a call of a function would cost as much as what is timed
    timed: Any = namespace["timed"]
    return timed  # type: ignore[no-any-return]  # just made


def in_loop(runner: asyncio.Runner, timed: Callable[[int], Coroutine[Any, Any, float]], times: int) -> Subject:
    """The statement as a subject, on the runner's one loop."""
    return lambda: runner.run(timed(times))


@contextmanager
def no_garbage_collection() -> Generator[None]:
    """Keeps the collector from running meanwhile, and what is there now out of its later runs."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def own_garbage_only() -> Generator[None]:
    """Leaves the collector on, and what was there before out of its runs: it is no part of what is timed."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of which the first column is text, and the others are figures."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same for a terminal."""
    widths = [max(len(line[column]) for line in (headings, *rows)) for column in range(len(headings))]

    def padded(line: Sequence[str]) -> str:
        first, *others = line
        return "  ".join([first.ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]])

    return "\n".join(map(padded, (headings, *rows)))
