"""Times programs in rounds. A round runs each subject once, so a busy machine slows all of them.

The cost of a subject is its best round, because noise can only add time. The median of the rounds' ratios is shown beside the
ratio of the best ones. If the two differ much, the machine was too busy.
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

clock = {"nt": perf_counter_ns}.get(os.name, thread_time_ns)  # too coarse on Windows
"""The CPU time of this thread, in nanoseconds. Other threads and programs do not add to it."""

Subject = Callable[[], float]
"""Runs the code, and returns its cost: the time of one run."""

LENIENCY = 1.0 if sys.version_info >= (3, 13) else 1.1
"""The limits are for CPython 3.13 and later. On older versions, a tenth more is allowed."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure: everything, or just enough to test that it runs."""

    rounds: int
    calls: int
    many: int
    """The number of resources in the rows about many resources."""

    def at_most(self, rounds: int) -> int:
        return min(self.rounds, rounds)


FULL = Size(rounds=100, calls=4_000, many=2_000)
QUICK = Size(rounds=10, calls=500, many=200)
TINY = Size(rounds=2, calls=3, many=5)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a cost, the cost of its floor, and the limit."""

    path: str
    floor: float | None
    ours: float
    limit: float
    median_ratio: float | None = None
    unit: str = "ns"
    absolute: bool = False
    """Whether the limit is a cost, and not a ratio to the floor."""

    @property
    def verdict(self) -> str:
        """The ratio to the floor, or the cost if the limit is one; in bold if it exceeds the limit."""
        shown = f"{self.ours:,.0f} {self.unit}" if self.ratio is None else f"{self.ratio:.2f}"
        return shown if self.ok else f"**{shown}**"

    @property
    def allowed(self) -> str:
        """The limit, a ratio or a cost."""
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
    """Return the cost of each subject in each round. Every second round runs the subjects in reverse order."""
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
    """Make a row from the costs of both in each round."""
    ratios = [ours / floor for floor, ours in zip(floor, ours, strict=True)]
    return Row(path, min(floor), min(ours), limit * LENIENCY, median(ratios))


def statement(source: str, names: Mapping[str, object]) -> Callable[[int], Coroutine[Any, Any, float]]:
    """Return a coroutine function that runs the statement n times, as ``timeit`` does, and returns the nanoseconds of one run."""
    namespace = {**names, "repeat": repeat, "clock": clock}
    lines = (
        "async def timed(times):",
        "    start = clock()",
        "    for _ in repeat(None, times):",
        f"        {source}",
        "    return (clock() - start) / times",
    )
    exec("\n".join(lines), namespace)  # calling a function would take as long as the statement
    timed: Any = namespace["timed"]
    return timed  # type: ignore[no-any-return]  # defined by the exec above


def in_loop(runner: asyncio.Runner, timed: Callable[[int], Coroutine[Any, Any, float]], times: int) -> Subject:
    """Make a subject that runs the statement on the runner's loop."""
    return lambda: runner.run(timed(times))


@contextmanager
def no_garbage_collection() -> Generator[None]:
    """Turn the garbage collector off in the block. Objects that exist now are left out of later collections."""
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
    """Leave the garbage collector on in the block, but leave objects that exist now out of its collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table with a first column of text and further columns of figures."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make the same table for a terminal."""
    widths = [max(len(line[column]) for line in (headings, *rows)) for column in range(len(headings))]

    def padded(line: Sequence[str]) -> str:
        first, *others = line
        return "  ".join([first.ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]])

    return "\n".join(map(padded, (headings, *rows)))
