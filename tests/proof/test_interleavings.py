"""Every interleaving of two and three concurrent callers, each of them cancelled at every step or not: all of them, not a sample.

A caller enters the one resource that there is, by `enter_once` or through its sticky factory, releases it, or ends everything.
The second caller comes before each step that the loop takes for the first, until that has come to rest, and so does the third.
Each caller is cancelled before each step that the loop takes between its beginning and its end. What happens is compared with the
``model``. In the suite, for some lengths of entering and exiting; all that there are, by hand::

    python tests/proof/test_interleavings.py --all
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import pytest

import collector
import model
from deterministic_loop import DeterministicLoop
from model import Aclose, Broken, Fail, History, Idle, Op, Ops, Program, Release, Resource, Turns, Use, check

Kind = Literal["once", "factory", "release", "aclose"]
Failing = Literal["nothing", "enter", "exit"]

_CALLS: dict[Kind, Op] = {
    "once": Use("once", 0),
    "factory": Use("factory", 0),
    "release": Release("resource", 0),
    "aclose": Aclose(),
}
_KINDS = tuple(_CALLS)


@dataclass(frozen=True)
class Scene:
    """What the callers do, and what the resource takes for it."""

    callers: tuple[Kind, ...]
    enter_turns: int = 0
    exit_turns: int = 0
    failing: Failing = "nothing"
    is_open: bool = False  # before the callers come

    @property
    def history(self) -> History:
        """The history around the callers, who come when its program has nothing more to do."""
        before: Ops = (Use("once", 0), Use("factory", 0)) if self.is_open else ()
        failing: Ops = (Fail(1 if self.failing == "enter" else 99),)
        return History(
            main=(*before, Idle()),
            resources=(
                Resource(
                    enter=(*_turns(self.enter_turns), *(failing if self.failing == "enter" else ())),
                    exit=(*_turns(self.exit_turns), *(failing if self.failing == "exit" else ())),
                ),
            ),
            end="run",
        )


def _turns(count: int) -> Ops:
    return (Turns(count),) if count else ()


@dataclass(frozen=True)
class Action:
    """A caller begins, or is cancelled, before the loop's step of that number; the first one begins before the first step."""

    what: Literal["begin", "cancel"]
    caller: int
    step: int


Schedule = tuple[Action, ...]


@dataclass
class Stage:
    """One run of a scene, by a schedule."""

    scene: Scene
    schedule: Schedule
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    ends: dict[int, int] = field(default_factory=dict[int, int])  # the step before which each caller was found to have ended
    was_idle: bool = False  # nothing could go on any more when the last action came, so that it can come no later
    _done: int = 0
    _first_step: int = 0

    def play(self) -> Stage:
        """Runs it.

        :raises Broken: with the code that runs it again.
        """
        try:
            check(self.scene.history, prepare=self._prepare, let_go=self.tasks.clear)
        except Broken as error:
            raise Broken(f"{self.scene}, {self.schedule}: {error}") from None
        return self

    def _prepare(self, program: Program, loop: DeterministicLoop) -> None:
        steps = loop.steps

        def act(step: int) -> None:
            for caller, task in enumerate(self.tasks):
                if caller not in self.ends and task.done():
                    self.ends[caller] = step
            while self._done < len(self.schedule) and self.schedule[self._done].step <= step:
                action = self.schedule[self._done]
                self._done += 1
                program.monitor.note(f"caller {action.caller} is to {action.what}")
                if action.what == "begin":
                    self.tasks.append(program.start((_CALLS[self.scene.callers[action.caller]],)))
                else:
                    self.tasks[action.caller].cancel()

        def before_step(taken: int) -> None:
            if self.tasks:
                act(taken - self._first_step)

        def when_idle() -> bool:
            if self._done == len(self.schedule):
                act(steps.taken - self._first_step)
                return False
            if not self.tasks:
                self._first_step = steps.taken
            self.was_idle = bool(self.tasks)
            act(self.schedule[self._done].step)
            return True

        steps.before_step = before_step
        loop.clock.when_idle = when_idle


def _with(schedule: Schedule, action: Action) -> Iterator[Schedule]:
    """The schedule with one more action, before and after each of those that come at the same step."""
    others = [place for place, each in enumerate(schedule) if each.step == action.step]
    first = others[0] if others else sum(each.step < action.step for each in schedule)
    for place in range(first, first + len(others) + 1):
        if any(each.what == "begin" and each.caller == action.caller for each in schedule[:place]):
            yield (*schedule[:place], action, *schedule[place:])


def _beginnings(scene: Scene, schedule: Schedule = (Action("begin", 0, 0),)) -> Iterator[Schedule]:
    """All schedules by which all callers begin."""
    caller = len(schedule)
    if caller == len(scene.callers):
        yield schedule
        return
    step = schedule[-1].step
    while True:
        longer = (*schedule, Action("begin", caller, step))
        stage = Stage(scene, longer).play()
        yield from _beginnings(scene, longer)
        if stage.was_idle:
            return
        step += 1


def _cancellations(stage: Stage, most: int) -> Iterator[Stage]:
    """All schedules that have up to so many more cancellations, of other callers and not before those that there are."""
    yield stage
    cancelled = [each for each in stage.schedule if each.what == "cancel"]
    if len(cancelled) == most:
        return
    begins = {each.caller: each.step for each in stage.schedule if each.what == "begin"}
    for caller, begin in begins.items():
        if any(each.caller == caller for each in cancelled):
            continue
        earliest = max([begin, *(each.step for each in cancelled)])
        for step in range(earliest, stage.ends.get(caller, earliest) + 1):
            for schedule in _with(stage.schedule, Action("cancel", caller, step)):
                yield from _cancellations(Stage(stage.scene, schedule).play(), most)


def interleavings(scenes: Iterable[Scene], *, cancellations: int) -> tuple[int, int]:
    """Runs all interleavings of these scenes.

    :returns: how many there were, and in how many of them somebody was cancelled.
    """
    count = cancelled = 0
    for number, scene in enumerate(scenes):
        if number % 20 == 0:
            gc.collect()
        for schedule in _beginnings(scene):
            for stage in _cancellations(Stage(scene, schedule).play(), cancellations):
                count += 1
                cancelled += any(each.what == "cancel" for each in stage.schedule)
    return count, cancelled


def scenes(callers: int, lengths: Iterable[tuple[int, int]]) -> Iterator[Scene]:
    """All scenes with so many callers, and with enters and exits that take so many turns."""
    for kinds, (enter_turns, exit_turns) in product(product(_KINDS, repeat=callers), lengths):
        failings: tuple[Failing, ...] = ("nothing", "enter", "exit")
        for failing, is_open in product(failings, (False, True)):
            if not (is_open and failing == "enter"):  # it would not be open
                yield Scene(kinds, enter_turns, exit_turns, failing, is_open)


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    with collector.disabled():
        yield


def _different(scene: Scene) -> bool:
    return scene.failing != "nothing" and set(scene.callers) == {"factory", "release", "aclose"}


def _same(scene: Scene) -> bool:
    return scene.callers in {("once", "once"), ("factory", "factory")}


# Which scenes, how many of their callers are cancelled, and how many interleavings there are at least.
SAMPLES: dict[str, tuple[Iterator[Scene], int, int]] = {
    "two callers, a long exit": (scenes(2, [(0, 2)]), 1, 2_500),
    "two callers": (scenes(2, [(1, 1)]), 1, 2_500),
    "two callers, a long enter": (scenes(2, [(2, 0)]), 1, 2_500),
    "three callers": (scenes(3, [(0, 0)]), 0, 2_000),
    "three different callers, a failure": (filter(_different, scenes(3, [(1, 1)])), 1, 2_000),
    "two who enter the same, both cancelled": (filter(_same, scenes(2, [(1, 1), (2, 0)])), 2, 500),
}


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_interleavings(sample: str) -> None:
    """However callers meet at a resource, and whenever they are cancelled: it is exited once, and nothing is lost or left."""
    chosen, cancellations, at_least = SAMPLES[sample]
    count, cancelled = interleavings(chosen, cancellations=cancellations)
    assert count >= at_least
    assert count > cancelled > count / 2 or cancelled == cancellations == 0


def main() -> None:
    """Runs all interleavings, and says how many there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="three callers, and every length of entering and exiting")
    everything: bool = parser.parse_args().all
    began = time.perf_counter()
    for (callers, cancellations), lengths in product(((2, 2), (3, 1)) if everything else ((2, 1),), product(range(3), range(3))):
        with collector.disabled():
            count, cancelled = interleavings(scenes(callers, [lengths]), cancellations=cancellations)
            print(
                f"{callers} callers, entering in {lengths[0]} turns, exiting in {lengths[1]}: {count:,} interleavings, "
                f"{cancelled:,} of them with cancellations; {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{model.counts}; {time.perf_counter() - began:.0f} s on Python {version}")


if __name__ == "__main__":
    main()
