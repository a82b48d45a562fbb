"""All that was measured, and the page that tells of it."""

from __future__ import annotations

import math
import multiprocessing
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import ParamSpec, Protocol, TypeVar

from benchmarks import cold, growth, imports, older, peer_behaviours, peers, plots, warm
from benchmarks.growth import Growth, Memory, Reach
from benchmarks.older import OlderPackageError
from benchmarks.peers import PeerRow
from benchmarks.timing import HEADINGS, LENIENCY, Row, Size, aligned, markdown

P = ParamSpec("P")
T = TypeVar("T")

FLOORS: list[Callable[[Size], list[Row]]] = [
    warm.rows,
    cold.entering_and_exiting,
    cold.creating_tasks,
    cold.whole_loops,
    cold.bytes_of_one,
    imports.rows,
]
PLOTS_FOLDER = "benchmarks"


class Runs(Protocol):
    """Runs a part of the benchmarks."""

    def __call__(self, part: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


def in_this_interpreter(part: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return part(*args, **kwargs)


def in_a_fresh_interpreter(part: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs it where nothing ran before: asyncio's set of all tasks, for one, stays as large as it ever was."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(partial(part, *args, **kwargs)).result()


@dataclass(slots=True)
class Report:
    """What was measured."""

    floors: list[Row]
    peers: dict[str, list[PeerRow]] = field(default_factory=dict[str, list[PeerRow]])
    behaviours: tuple[list[str], list[list[str]]] = field(default_factory=lambda: ([], []))
    growths: list[Growth] = field(default_factory=list[Growth])
    memory: Memory | None = None
    notes: list[str] = field(default_factory=list[str])


def floors(size: Size, run: Runs) -> list[Row]:
    return [row for part in FLOORS for row in run(part, size)]


def beside_peers(report: Report, size: Size, run: Runs, *, with_older: bool) -> None:
    report.peers = run(peers.rows, size)
    report.behaviours = run(peer_behaviours.table)
    if not with_older:
        return
    try:
        its_version, theirs, ours = older.costs(size)
    except OlderPackageError as error:
        report.notes.append(f"The older package could not be installed: {error}")
        return
    for task, rows in report.peers.items():
        costs = {"ours": ours[task], peers.OLDER: theirs.get(task, [])}
        if costs[peers.OLDER]:
            about = {"ours": ("", ""), peers.OLDER: (peers.OLDER, older.STATEMENTS.get(task, ""))}
            row = peers.peer_rows(costs, about, task)[1]
            row.name = f"{peers.OLDER}, {its_version}"
            rows.append(row)
        else:
            report.notes.append(f"The older package raises an error at this: {task[0].lower()}{task[1:]}.")


def growing(report: Report, reach: Reach, run: Runs) -> None:
    report.growths = [run(growth.grow, name, reach) for name in growth.GROWTHS]
    report.memory = growth.memory_after_loops(reach.loops)


def everything(size: Size, reach: Reach, run: Runs, *, with_older: bool) -> Report:
    report = Report(floors(size, run))
    beside_peers(report, size, run, with_older=with_older)
    growing(report, reach, run)
    return report


# --- as text


def floors_text(rows: list[Row]) -> str:
    return aligned(HEADINGS, [row.cells for row in rows])


def text(report: Report) -> str:
    """For a terminal."""
    parts = [floors_text(report.floors)] if report.floors else []
    for task, rows in report.peers.items():
        parts += [task, aligned(peers.HEADINGS, [row.cells for row in rows])]
    if report.behaviours[0]:
        parts.append(aligned(*report.behaviours))
    if report.growths:
        parts.append(aligned(GROWTH_HEADINGS, growth_cells(report.growths)))
    if report.memory:
        parts.append(memory_text(report.memory))
    return "\n\n".join([*parts, *report.notes])


GROWTH_HEADINGS = ["cost of one", "numbers", "at the least", "in the middle", "at the greatest", "slope of the whole"]


def growth_cells(growths: list[Growth]) -> list[list[str]]:
    cells: list[list[str]] = []
    for each in growths:
        middle = len(each.numbers) // 2
        for line in each.lines:
            shown = [f"{line.costs[at]:,.0f} {each.unit}" for at in (0, middle, -1)]
            slope = each.slope(line)
            cells.append(
                [
                    f"{each.title.lower()}: {line.name}",
                    f"{each.numbers[0]:,}, {each.numbers[middle]:,}, {each.numbers[-1]:,}",
                    *shown,
                    "" if math.isnan(slope) or not each.grows else f"{slope:.2f}",
                ]
            )
    return cells


def memory_text(memory: Memory) -> str:
    def change(before: int, after: int) -> str:
        return f"{before / 1024:,.1f} KiB before, {after / 1024:,.1f} KiB after"

    rss = f"of the machine's memory {change(memory.rss_before, memory.rss_after)}; " if memory.rss_before else ""
    return (
        f"{memory.loops:,} loops in a row, each with {memory.resources} resources, after a fifth as many to warm up: "
        f"{rss}of what tracemalloc sees {change(memory.traced_before, memory.traced_after)}."
    )


def page(report: Report) -> str:
    """The page of the documentation."""
    parts = [
        HEAD.format(
            python=f"{platform.python_implementation()} {platform.python_version()}, {growth.gil()}, {platform.system()}",
            versions=", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS),
        ),
        FLOORS_TEXT + ("" if LENIENCY == 1 else "On this Python, a tenth more than on 3.13 is allowed.\n"),
        markdown(HEADINGS, [row.cells for row in report.floors]) + "\n",
        PEERS_TEXT,
    ]
    for task, rows in report.peers.items():
        parts += [f"### {task}\n", markdown(peers.HEADINGS, [row.cells for row in rows]) + "\n", ahead(rows) + "\n"]
    parts += [note + "\n" for note in report.notes]
    parts += [BEHAVIOURS_TEXT, markdown(*report.behaviours) + "\n"]
    parts += [GROWTH_TEXT.format(gil=growth.gil()), markdown(GROWTH_HEADINGS, growth_cells(report.growths)) + "\n"]
    if report.memory:
        parts.append(memory_text(report.memory) + "\n")
    parts += [f"![{each.title}]({PLOTS_FOLDER}/{each.slug}.svg)\n" for each in report.growths]
    return "\n".join(parts)


def ahead(rows: list[PeerRow]) -> str:
    """Which of them are ahead of ours, and whether they do the same."""
    faster = [row for row in rows[1:] if row.to_ours < 1 and not row.name.startswith(peers.OURS)]
    older = [row.name for row in faster if row.name.startswith(peers.OLDER)]
    less = [row.name for row in faster if row.leaves_out and row.name not in older]
    same = [row.name for row in faster if not row.leaves_out]
    sentences = [
        f"{what}: {'; '.join(names)}."
        for what, names in (
            ("Ahead of ours, and leaving nothing out", same),
            ("Ahead of ours, and leaving out what the last column says", less),
            ("Ahead of ours, with what it does not looked into", older),
        )
        if names
    ]
    return " ".join(sentences) or "None is ahead of ours."


def plot_files(report: Report) -> dict[str, str]:
    """The plots, by the names of their files."""
    return {f"{each.slug}.svg": plots.svg(each) for each in report.growths}


DISTRIBUTIONS = ["anyio", "async-lru", "asyncstdlib", "svcs", "dishka", "that-depends"]

HEAD = """\
<!-- Written by `python -m benchmarks --write-docs`. The text is in benchmarks/report.py. -->

# Benchmarks

What the library costs: beside the least that pure Python can do, beside its peers, and as numbers grow. No figure here was
typed: the page, its tables and its plots were written by

<!-- not run: it takes minutes -->
```console
$ pip install -e '.[bench]'
$ python -m benchmarks --write-docs
```

on {python}, with {versions}.
`python -m benchmarks floors` prints the first table alone, in half a minute.

Times are the processor's, in the thread that does it; of several threads, and on Windows, the clock's. A ratio is of
two things timed in turns in the same run, for many rounds: the best round of the one to the best of the other (nothing but
noise is ever added to what code costs). The median of the rounds' own ratios stands beside it; where the two are far apart,
the machine was busy. Times are of one machine, and say little of another; ratios say more.
"""

FLOORS_TEXT = """\
## Beside the least that pure Python can do

The floors, which are in `benchmarks/warm.py` and `benchmarks/cold.py`:

- of `storage()`, a function that returns `get_running_loop()`;
- of a `singleton` factory, a `*args, **kwargs` function that calls `get_running_loop()` and a `functools.lru_cache`d factory;
  with a dict of three headers, that without arguments, and `hash(tuple(sorted(headers.items())))`;
- of `async with make(): pass`, the same function, and `async with` of a trivial context manager;
- of `enter_once`, a coroutine function that calls `get_running_loop()`; of an awaited coroutine function, one that then awaits
  a done future;
- of entering and exiting one of many, a task that enters a trivial context manager, resolves one future and waits for another;
- of a whole loop, `asyncio.run` of a bare `async with`.

What is above its limit has been looked into. CPython 3.13 keeps up to 29 attributes of an object where it finds them soonest;
asyncio's own loop has 26, and the library sets five. From then on each look at that loop takes a little longer, asyncio's own
looks too: `create_task`, `enter_once` and `asyncio.run` show it, and on 3.12 they do not. `enter_once` asks besides whose code
it is that runs. On 3.11 `get_running_loop()` makes a system call, and a warm block calls it twice; nor can a task take its
first step within its maker's there, which entering costs.
"""

PEERS_TEXT = """\
## Beside its peers

The same tasks, each as the peer's documentation would write it, all in turns in the same run. "To ours" is the peer's time to
that of our first line: below 1, the peer is faster. What it leaves out of the task's work is what small programs have found
(see below), not what its documentation says.

The older package of this name has an environment of its own, and is timed by the same program as ours, in turns. What it does
was not looked into.
"""

BEHAVIOURS_TEXT = """\
### What they do

Each cell is what a small program did; the last two are what mypy said of another (`benchmarks/peer_behaviours.py`).

- "per loop": of two loops that take turns, each finds its own value.
- "lets a loop go": a closed loop is freed, also where the value refers to it, as clients do.
- "by an argument's value": two equal dicts are the same argument.
- "by hand": it is closed if the program calls for it.
- "exited in the task that entered it", as `asyncio.timeout`, task groups and cancel scopes insist: also where a task that is
  gone was the first to ask.
- "value typed", "argument typed": a mistake about the value, or a wrong argument, is found.

Containers are made once in these programs, as our factory is. A program could make one for each loop, and would have to carry
it to wherever it is needed. More of coroutine functions is in [coroutines.md](coroutines.md).
"""

GROWTH_TEXT = """\
## How it grows

The slope is that of the whole cost over the number, both as logarithms, fitted to the upper half of the numbers: 1 is a
straight line. What plain asyncio does in the same run stands beside it: the caches of the processor, and the garbage collector,
are in its way too. Threads were timed {gil}. With it, one call at a time runs in the whole process, so that a level line
is as good as it gets; without it, the time of one call, all threads together, falls until the processor has no more cores.
"""
