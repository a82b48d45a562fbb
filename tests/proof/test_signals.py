"""SIGINT and SIGTERM to real processes at any moment: a sample of the storm that is run by hand."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from signal_storm import LIFE, RESOURCES, WAYS, Outcome, strike

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

_PARTS = (0, 1, 2, 4, 6, 8)  # of ten of a process's life
# Neither uvloop's start nor its end: it cannot go on after some interruptions of those, without the library neither. Nor a loop
# that is driven by hand, where KeyboardInterrupt may come between any two bytecodes: see docs/limits.md.
MOMENTS = [(way, part) for way in WAYS if way not in ("default", "close") for part in _PARTS if way != "uvloop" or part in (1, 2)]


@pytest.mark.parametrize(("way", "part"), MOMENTS)
def test_a_signal_at_any_moment_leaves_nothing_open(way: str, part: int) -> None:
    """A program that is interrupted ends, has closed what it had opened, once each, and says nothing but the interruption."""
    outcome = strike(way, LIFE * part / 10)
    assert outcome.violations == [], outcome.stderr
    assert outcome.opened == outcome.closed


def test_sigterm_that_nobody_handles_ends_the_process_where_it_stands() -> None:
    """A program that does not handle SIGTERM ends at once, with nothing said, and nothing closed twice."""
    outcome = strike("default", LIFE / 2)
    assert outcome.violations == [], outcome.stderr
    assert outcome.stderr == ""


def test_the_storm_sees_what_goes_wrong() -> None:
    """What is left open, closed twice, hung or said is found by the storm's own account."""
    good = {"one": RESOURCES}
    assert _outcome({"one": 1}, {"one": 1}).violations == []
    assert _outcome({"one": 1, "two": 1}, {"one": 1}).violations == ["two was left open"]
    assert _outcome({"one": 1}, {"one": 2}).violations == ["one was closed 2 times"]
    assert _outcome(good, good, hung=True).violations == ["hung"]
    assert _outcome(good, good, stderr="Traceback:\nKeyboardInterrupt\n").violations == []
    assert _outcome(good, good, stderr="Traceback:\nValueError: x\n").violations == ["says ValueError"]
    assert _outcome(good, good, stderr="Task was destroyed but it is pending!\n").violations != []
    assert _outcome(good, good, stderr="coroutine 'Resource._live' was never awaited\n").violations != []
    assert _outcome(good, good, returncode=1).violations == ["status 1"]


def _outcome(
    opened: dict[str, int], closed: dict[str, int], *, hung: bool = False, stderr: str = "", returncode: int = 0
) -> Outcome:
    return Outcome("run", 0.0, "held", Counter(opened), Counter(closed), returncode, stderr, hung)
