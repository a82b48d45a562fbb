"""All measurements, and the documentation page made from them."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
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
    cold.hubs,
    cold.blocks_of_a_resource,
    cold.creating_tasks,
    cold.whole_loops,
    cold.bytes_of_one,
    imports.rows,
]
PLOTS_FOLDER = "benchmarks"
ROOT = Path(__file__).parents[1]


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
    other_pythons: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    peers: dict[str, list[PeerRow]] = field(default_factory=dict[str, list[PeerRow]])
    behaviours: tuple[list[str], list[list[str]]] = field(default_factory=lambda: ([], []))
    growths: list[Growth] = field(default_factory=list[Growth])
    memory: Memory | None = None
    notes: list[str] = field(default_factory=list[str])


def floors(size: Size, run: Runs) -> list[Row]:
    return [row for part in FLOORS for row in run(part, size)]


def floors_on(interpreter: str, *, quick: bool) -> tuple[str, list[Row]]:
    """Another Python's version, and its floors, in a process of its own."""
    command = [interpreter, "-m", "benchmarks", "floors", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return answer["python"], [Row(**row) for row in answer["floors"]]


def as_json(rows: list[Row]) -> str:
    """What `floors_on` reads."""
    return json.dumps({"python": platform.python_version(), "floors": [asdict(row) for row in rows]})


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
            report.notes.append(f"The older package raises an error in this task: {task[0].lower()}{task[1:]}.")


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


GROWTH_HEADINGS = ["cost of one", "numbers", "smallest number", "middle", "greatest number", "slope of the total"]


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

    rss = f"resident memory {change(memory.rss_before, memory.rss_after)}; " if memory.rss_before else ""
    return (
        f"{memory.loops:,} loops in a row, each with {memory.resources} resources, after a fifth as many for warming up: "
        f"{rss}memory traced by tracemalloc {change(memory.traced_before, memory.traced_after)}."
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
        *([PYTHONS_TEXT, by_python(report)] if report.other_pythons else []),
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


def by_python(report: Report) -> str:
    """A column of ratios for each Python."""
    columns = {platform.python_version(): report.floors, **report.other_pythons}
    rows = [
        [row.path, row.allowed, *(each.verdict for each in line)]
        for row, *line in zip(report.floors, *columns.values(), strict=True)
    ]
    return markdown(["path", "at most", *columns], rows) + "\n"


def ahead(rows: list[PeerRow]) -> str:
    """Which of them are ahead of ours, and whether they do the same."""
    faster = [row for row in rows[1:] if row.to_ours < 1 and not row.name.startswith(peers.OURS)]
    older = [row.name for row in faster if row.name.startswith(peers.OLDER)]
    less = [row.name for row in faster if row.leaves_out and row.name not in older]
    same = [row.name for row in faster if not row.leaves_out]
    sentences = [
        f"{what}: {'; '.join(names)}."
        for what, names in (
            ("Faster than ours, and does all of the task", same),
            ("Faster than ours, but leaves out the parts in the last column", less),
            ("Faster than ours, behaviour not examined", older),
        )
        if names
    ]
    return " ".join(sentences) or "None is faster than ours."


def plot_files(report: Report) -> dict[str, str]:
    """The plots, by the names of their files."""
    return {f"{each.slug}.svg": plots.svg(each) for each in report.growths}


DISTRIBUTIONS = ["anyio", "async-lru", "asyncstdlib", "svcs", "dishka", "that-depends"]

HEAD = """\
<!-- Written by `python -m benchmarks --write-docs`. The text is in benchmarks/report.py. -->

# Benchmarks

The cost of the library, compared with the least that pure Python can take and with other libraries, and how the cost grows
with numbers. A script has written this page, its tables and its plots:

<!-- not run: it takes minutes -->
```console
$ pip install -e '.[bench]'
$ python -m benchmarks --write-docs
```

on {python}, with {versions}.
`python -m benchmarks floors` prints the first table alone, in half a minute.

Times are CPU times of the measuring thread; for several threads, and on Windows, they are wall-clock times. For a ratio,
two programs are timed alternately in the same run, for many rounds. The ratio is the best round of the one divided by the
best round of the other, because noise can only add time. The median of the ratios of all rounds is shown too; if the two
differ much, the machine was busy. Times differ from machine to machine; ratios differ less.
"""

FLOORS_TEXT = """\
## Compared with the least that pure Python can take

Each path has a *floor*: the simplest pure Python code that does the same. The floors are in `benchmarks/warm.py` and
`benchmarks/cold.py`:

| path | floor |
| --- | --- |
| `storage()` | a function that returns `get_running_loop()` |
| a `singleton` factory | a `*args, **kwargs` function that calls `get_running_loop()` and a factory with `functools.lru_cache` |
| the same, with a dict of three headers | that without arguments, and `hash(tuple(sorted(headers.items())))` |
| with an object that counts by value | a function that looks a dict up by the running loop, and `hash` of a tuple of attributes |
| with `close=` or `valid=` | the call of a factory without them, and one call of a Python function |
| `sdk.client` | a property that looks up a `WeakKeyDictionary` by the running loop, as SDKs have it; nothing closes its values |
| with `key=` | a `*args, **kwargs` function that calls the key function, and looks a dict up by the running loop and the key |
| `async with make(): pass` | the function of a `singleton` factory, and `async with` of a trivial context manager |
| `enter_once` | a coroutine function that calls `get_running_loop()` |
| an awaited coroutine function | a coroutine function that does this, and then awaits a done future |
| entering and exiting one of many | a task that enters a trivial context manager, resolves one future and waits for another |
| a whole loop | `asyncio.run` of a bare `async with` |

The paths above their limits have been examined. CPython 3.13 finds the first 29 attributes of an object faster than any
further one; asyncio's own loop has 26, and the library sets five. So every attribute access on that loop, also by asyncio
itself, takes a little longer. This slows `create_task`, `enter_once` and `asyncio.run`, but not on 3.12. From 3.14 on, the
loop has 27. In addition, `enter_once` must find out whose code is running. A new resource is a task with a context of its
own, and takes part in the order of exits; a call with arguments that are new makes their key besides. On 3.15, awaiting a
done future has become faster, and awaiting an object of a class in Python has not. On 3.11 `get_running_loop()` makes a
system call, and a warm block calls it twice; and a task cannot take its first step within its creator's step there, which
makes entering slower.
"""

PYTHONS_TEXT = """\
The ratios of each Python, each in a run of its own. In bold: not within the limit.
"""

PEERS_TEXT = """\
## Compared with other libraries

Each library does the same tasks, written as its documentation shows them, and all are timed alternately in the same run.
"To ours" is the time of the library divided by the time of our first line: below 1, the other library is faster. The last
column names the parts of the task that the library does not do. Small programs have found that out (see below); it is not
taken from documentation.

The older package of this name has its own environment. The same program times it and ours alternately. Its behaviour was not
examined.
"""

BEHAVIOURS_TEXT = """\
### Behaviour

Each cell is the result of a small program; the last two columns are mypy's result for another one
(`benchmarks/peer_behaviours.py`).

- "per loop": if two loops take turns, each finds its own value.
- "frees a closed loop": a closed loop is freed, even if the value refers to it, as clients do.
- "by an argument's value": two equal dicts are the same argument.
- "by hand": the resource is closed only if the program calls a method for that.
- "exited in the task that entered it": as `asyncio.timeout`, task groups and cancel scopes require; also if the task that
  asked first has ended.
- "value typed", "argument typed": mypy finds a wrong use of the value, or a wrong argument.

Containers are made once in these programs, like our factory. A program could make a container for each loop, but would have
to pass it to all functions that use it. [Shared coroutines](coroutines.md) says more about coroutine functions.
"""

GROWTH_TEXT = """\
## How the cost grows

The slope is that of the total cost over the number, both as logarithms, fitted to the upper half of the numbers: 1 means
that the cost is proportional. Plain asyncio is measured in the same run, because processor caches and the garbage collector
slow it down too. Threads were timed {gil}. With the GIL, the whole process runs one call at a time, so a flat line is the
best possible result. Without it, the time per call, over all threads, falls until all cores are busy.
"""
