"""A pytest plugin that writes each test's outcome to a file as soon as it is known, and runs only the tests that it is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypedDict

import foreign_loops
import pytest

FOLDER = Path(os.environ["FOREIGN_FOLDER"])


class Selection(TypedDict):
    only: list[str] | None
    without: list[str]


def write(**line: object) -> None:
    with (FOLDER / "outcomes").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    selection: Selection = json.loads((FOLDER / "selection").read_text(encoding="utf-8"))
    only = None if selection["only"] is None else {*selection["only"]}
    without = {*selection["without"]}
    items[:] = [each for each in items if each.nodeid not in without and (only is None or each.nodeid in only)]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        write(test=report.nodeid, outcome="failed")


def pytest_runtest_logstart(nodeid: str) -> None:
    write(test=nodeid, outcome="started")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed or report.skipped or report.when == "call":
        write(test=report.nodeid, outcome=report.outcome)


def pytest_runtest_logfinish(nodeid: str) -> None:
    write(test=nodeid, outcome="ended")


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
        write(finished=foreign_loops.counts)
