"""The benchmarks run, in their quickest mode; no test asserts a time."""

from __future__ import annotations

import functools
import math
import platform
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks import growth, imports, peer_behaviours, peers, report, timing, warm
from benchmarks.growth import Growth, Line
from benchmarks.timing import TINY, Row

OURS = peers.RESOURCES
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@functools.cache
def tiny_report() -> report.Report:
    """Everything that needs no other interpreter, with the smallest numbers."""
    found = report.Report([row for part in report.FLOORS if part is not imports.rows for row in part(TINY)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers have theirs
        found.peers = peers.rows(TINY)
        found.behaviours = behaviours_table()
    found.growths = [growth.grow(name, growth.TINY) for name in growth.GROWTHS]
    return found


def behaviours_table() -> tuple[list[str], list[list[str]]]:
    """As the report has it, without mypy's columns."""
    rows = peer_behaviours.behaviours()
    return ["", *peer_behaviours.PROBES], [[peer, *row.values()] for peer, row in rows.items()]


def test_each_path_of_the_table_is_timed_beside_its_floor() -> None:
    """Every row of the table of floors has a time, a limit, and a ratio wherever there is a floor."""
    rows = tiny_report().floors
    assert len({row.path for row in rows}) == len(rows)
    assert all(row.ours > 0 and row.limit > 0 for row in rows)
    assert [row.path for row in rows if row.ratio is None] == ["bytes a resource (tracemalloc)"]
    assert all(len(row.cells) == len(timing.HEADINGS) for row in rows)


def test_the_import_is_timed_in_fresh_interpreters() -> None:
    """The import's row has a time of ours, and one of an empty module."""
    (row,) = imports.rows(TINY)
    assert row.floor is not None
    assert 0 < row.floor < row.ours


def test_a_row_is_within_its_limit_by_its_ratio_or_by_what_it_costs() -> None:
    """A row's verdict is of the ratio to the floor; where the limit is absolute, of the cost alone."""
    assert Row("path", floor=10, ours=13, limit=1.3).verdict == "1.30"
    assert Row("path", floor=10, ours=14, limit=1.3).verdict == "**1.40**"
    assert Row("path", floor=1, ours=7_000, limit=8_000, absolute=True).ok
    assert Row("path", floor=None, ours=9_000, limit=8_000, absolute=True).verdict == "**9,000 ns**"


def test_rounds_take_the_subjects_in_turns() -> None:
    """Each subject runs once a round, and every second round begins with the last."""
    order: list[str] = []

    def subject(name: str) -> timing.Subject:
        def run() -> float:
            order.append(name)
            return len(order)

        return run

    costs = timing.interleave({"a": subject("a"), "b": subject("b")}, 2)
    assert order == ["a", "b", "b", "a"]
    assert costs == {"a": [1, 4], "b": [2, 3]}


def test_every_peer_is_timed_at_its_tasks() -> None:
    """Each peer has a row in at least one task, and ours is the first of each."""
    tables = tiny_report().peers
    assert list(tables) == [*peers.WARM, peers.COLD_TITLE]
    assert all(rows[0].name.startswith(peers.OURS) and rows[0].to_ours == 1 for rows in tables.values())
    timed = {peer for lines in peers.WARM.values() for peer, _ in lines.values()}
    assert timed == set(peer_behaviours.PEERS)


def test_only_the_library_does_all_that_is_asked() -> None:
    """What each peer does is found by running it: `sticky_singleton_acm` leaves nothing out, and all else something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = peer_behaviours.behaviours()
    lacking = {peer for peer, row in found.items() if {"no", "by hand"} & set(row.values())}
    assert lacking == set(peer_behaviours.PEERS) - {OURS}
    assert {title: answer for title, answer in found[OURS].items() if answer != "yes"} == {"closed": "with the loop"}


def test_growth_is_told_of_keys_waiters_resources_hubs_threads_and_loops() -> None:
    """Each line has a cost for every number, from one to the greatest."""
    growths = tiny_report().growths
    assert {each.slug for each in growths} == {"keys", "waiters", "resources", "hub", "bytes", "threads", "loops"}
    for each in growths:
        assert each.numbers[0] == 1
        assert all(len(line.costs) == len(each.numbers) for line in each.lines)


@pytest.mark.parametrize("exponent", [1, 2])
def test_the_slope_is_the_exponent_of_growth(exponent: int) -> None:
    """What costs the same each has the slope 1, and what costs as much more as there are of them the slope 2."""
    numbers = (1, 10, 100, 1_000)
    line = Line("line", tuple(float(number ** (exponent - 1)) for number in numbers))
    assert math.isclose(Growth("slug", "Title", "things", "ns", numbers, (line,)).slope(line), exponent)


def test_memory_after_loops_is_measured_in_fresh_interpreters() -> None:
    """The figures of memory are of as many loops as were asked for."""
    memory = growth.memory_after_loops(2)
    assert memory.loops == 2
    assert min(memory.traced_before, memory.traced_after) > 0


def test_the_page_holds_every_figure() -> None:
    """The page is made of the report: each row of each table, each plot, and the Python that it was made with."""
    found = tiny_report()
    page = report.page(found)
    rows = (
        [row.cells for row in found.floors] + [row.cells for rows in found.peers.values() for row in rows] + found.behaviours[1]
    )
    assert all(" | ".join(cells) in page for cells in rows)
    assert all(f"({report.PLOTS_FOLDER}/{name})" in page for name in report.plot_files(found))
    assert "on CPython 3." in page
    assert report.text(found).count("\n") > len(rows)


def test_the_floors_of_another_python_have_a_column_of_their_own() -> None:
    """Another interpreter measures the same paths; a ratio that is not within its limit is in bold."""
    version, rows = report.floors_on(sys.executable, quick=True)
    assert version == platform.python_version()
    here = report.Report([Row(row.path, floor=1, ours=1, limit=1) for row in rows])
    beyond = [Row(row.path, floor=1, ours=2, limit=1) for row in rows]
    here.other_pythons = {"3.11": beyond}
    table = report.by_python(here)
    assert table.startswith(f"| path | at most | {platform.python_version()} | 3.11 |\n")
    assert [line for line in table.splitlines()[2:] if "| 1.00 | 1.00 | **2.00** |" not in line] == []
    assert table in report.page(here)


def test_the_page_of_the_documentation_is_that_of_these_benchmarks() -> None:
    """The page in docs has each path, each peer and each growth that is measured now, and its plots are there."""
    found = tiny_report()
    page = PAGE.read_text(encoding="utf-8")
    first_cells = [path for path, *_ in warm.SUBJECTS] + [row.name for rows in found.peers.values() for row in rows]
    assert [cell for cell in first_cells if f"| {cell} |" not in page] == []
    assert [name for name in report.plot_files(found) if not (PAGE.parent / report.PLOTS_FOLDER / name).exists()] == []


def test_the_plots_are_well_formed() -> None:
    """Each plot is SVG with a line for each of what it compares."""
    found = tiny_report()
    for each, plot in zip(found.growths, report.plot_files(found).values(), strict=True):
        root = ET.fromstring(plot)
        assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == len(each.lines)
