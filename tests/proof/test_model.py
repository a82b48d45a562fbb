"""Random histories of one event loop, everything public in them, against a reference model: see ``model``.

In the suite some hundreds of hypothesis's choice and a thousand of chance, always the same. By hand any number, other ones each
time. What fails is made as short as it can be, and printed as a script::

    python tests/proof/test_model.py --histories 20000
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import collector
import model
from asyncio_loop_local._sticky_acm import CheckedStickyCall
from deterministic_loop import DeterministicLoop
from model import (
    Aclose,
    Await,
    Block,
    Broken,
    Call,
    Cancel,
    Checked,
    Door,
    End,
    Fail,
    Forever,
    Guard,
    History,
    Kill,
    Op,
    Ops,
    Register,
    Release,
    Resource,
    Sleep,
    Spawn,
    Spoil,
    Store,
    Stubborn,
    Together,
    Turns,
    Unregister,
    Use,
    check,
)

Choose = Callable[[int], int]  # a number below this one; smaller numbers make simpler histories

_DOORS: tuple[Door, ...] = ("factory", "once", "enter", "sticky", "kept")
_RELEASED: tuple[Literal["resource"] | Checked, ...] = ("resource", "checked", "closed", "connected")
_CHECKED: tuple[Checked, ...] = ("checked", "closed", "connected")
_ENDS: tuple[End, ...] = ("runner", "close", "run", "aclose", "twice", "shutdown")


class _Writer:
    """Writes a history, by choices."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._resources = 1 + choose(4)

    def history(self) -> History:
        choose = self._choose
        return History(
            main=self._ops(8, self._op_of_user, depth=3),
            resources=tuple(self._resource() for _ in range(self._resources)),
            runs=tuple(self._ops(3, self._op_inside, depth=1) for _ in range(2)),
            callbacks=tuple(self._ops(3, self._op_inside, depth=1) for _ in range(2)),
            end=_ENDS[choose(len(_ENDS))],
            eager=bool(choose(2)),
        )

    def _resource(self) -> Resource:
        return Resource(
            enter=self._ops(3, self._op_inside, depth=2),
            exit=self._ops(3, self._op_inside, depth=2),
            make=self._ops(1, self._op_of_factory, depth=1) if self._choose(4) == 3 else (),
            group=self._choose(2),
        )

    def _ops(self, most: int, op: Callable[[int], Op], *, depth: int) -> Ops:
        ops: list[Op] = []
        while len(ops) < most and self._choose(most):  # a choice before each, so that what fails can be made shorter
            ops.append(op(depth))
        return tuple(ops)

    def _wait(self) -> Op:
        match self._choose(4):
            case 0 | 1:
                return Turns(1 + self._choose(4))
            case 2:
                return Sleep(self._choose(3) / 2)
            case _:
                return Stubborn(1 + self._choose(3))

    def _use(self) -> Op:
        return Use(_DOORS[self._choose(len(_DOORS))], self._choose(self._resources))

    def _get(self) -> Op:
        return Use(_CHECKED[self._choose(3)], self._choose(self._resources), self._choose(2))

    def _anything(self, depth: int) -> Op:
        """What both the user's code and that of resources does."""
        choose = self._choose
        match choose(16):
            case 0 | 1 | 2:
                return self._use()
            case 11:
                return self._get()
            case 12:
                return Spoil(choose(3), choose(8) // 7)
            case 13 | 14:
                ops = self._ops(4, self._op_inside_quiet, depth=depth - 1) if depth > 0 else ()
                return Block(choose(self._resources), ops, choose(2))
            case 3 | 4:
                return self._wait()
            case 5:
                return Await(choose(2), choose(2))
            case 6:
                return Release(_RELEASED[choose(4)], choose(self._resources))
            case 7:
                return Register(choose(2))
            case 8:
                return Kill(choose(self._resources))
            case 9:
                what: Op = (Call(choose(2)), Store(choose(2)), Unregister(choose(2)), Release("value", choose(2)))[choose(4)]
                return what
            case 10:
                return Release("run", choose(2)) if choose(2) else Aclose()
            case _:
                if depth == 0:
                    return self._use()
                parts = tuple(self._ops(2, self._op_inside_quiet, depth=depth - 1) for _ in range(1 + choose(2)))
                return Together(parts)

    def _op_inside_quiet(self, depth: int) -> Op:
        return self._anything(depth)

    def _op_inside(self, depth: int) -> Op:
        """What the code of a resource, a callback or a coroutine function does."""
        match self._choose(8):
            case 6 if depth > 0:
                ops = self._ops(4, self._op_inside_quiet, depth=depth - 1)
                cleanup = self._ops(2, self._op_inside_quiet, depth=0)
                return Spawn((Guard((*ops, Forever()), cleanup),)) if self._choose(2) else Spawn(ops)
            case 7:
                return Fail(1 + self._choose(2))
            case _:
                return self._anything(depth)

    def _op_of_factory(self, depth: int) -> Op:
        """What is done without waiting."""
        match self._choose(3):
            case 0:
                return Register(self._choose(2))
            case 1:
                return Spawn(self._ops(2, self._op_inside_quiet, depth=0))
            case _:
                return Fail(1)

    def _op_of_user(self, depth: int) -> Op:
        match self._choose(8):
            case 0 | 1 if depth > 0:
                ops = self._ops(4, self._op_of_user, depth=depth - 1)
                if self._choose(2):
                    return Spawn(ops)
                return Spawn((Guard((*ops, Forever()), self._ops(3, self._op_inside_quiet, depth=0)),))
            case 2:
                return Cancel(self._choose(3))
            case 3:
                return Turns(1 + self._choose(5))
            case 4:
                return self._use()
            case 5 if depth > 0:
                return Block(self._choose(self._resources), self._ops(4, self._op_of_user, depth=depth - 1), self._choose(2))
            case 6:
                return Spoil(self._choose(3), self._choose(8) // 7) if self._choose(2) else self._get()
            case _:
                return self._anything(depth)


def history_of(choices: Sequence[int]) -> History:
    """The history that these choices lead to; where they end, it soon ends too."""
    rest = iter(choices)
    return _Writer(lambda count: next(rest, 0) % count).history()


@settings(
    max_examples=500,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    report_multiple_bugs=False,
)
@given(st.one_of(st.binary(max_size=30), st.binary(min_size=100, max_size=400), st.binary(min_size=200, max_size=400)))
def check_some(choices: bytes) -> None:
    """Checks hundreds of histories, the same ones each time."""
    check(history_of(choices))


@settings(max_examples=1, database=None)
@given(st.binary())
def use_hypothesis(_choices: bytes) -> None:
    """Lets hypothesis register its random numbers: on Python 3.14 it warns if the garbage collector is frozen by then."""


def test_random_histories() -> None:
    """Whatever is done with a loop, and however it ends: what was entered is exited once and in order, and nothing is left."""
    use_hypothesis()
    before = replace(model.counts)
    with collector.disabled():
        check_some()
        check_any(1_000, seed=0)
    assert model.counts.histories - before.histories >= 1_300
    assert model.counts.opened - before.opened == model.counts.closed - before.closed >= 2_000
    assert model.counts.retired - before.retired >= 200
    assert model.counts.errors - before.errors >= 400
    assert model.counts.cancelled - before.cancelled >= 200


def test_a_broken_promise_is_found() -> None:
    """A library that forgets an exit would be found out, with a script that shows it."""

    def lose_what_is_open(_program: model.Program, loop: DeterministicLoop) -> None:
        loop.call_later(1, lambda: vars(loop)["_asyncio_loop_local"].exits._open.clear())

    history = History(main=(Use("factory", 0), Sleep(2)))
    check(history)
    with collector.disabled(), pytest.raises(Broken, match=r"f0\.0 is still open") as caught:
        check(history, prepare=lose_what_is_open)
    assert f"main={history.main!r}" in str(caught.value)
    gc.collect()


def test_a_value_that_is_exited_under_a_block_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that exits a value under its blocks, or never exits it after the last one, would be found out."""
    main = (Block(0, (Spoil(0), Block(0), Sleep(1))), Turns(9))
    check(History(main=main))
    for is_held, message in (False, r"c0\.0 is exited while 1 blocks hold it"), (True, r"c0\.0 stays open"):
        with monkeypatch.context() as patched:
            patched.setattr(CheckedStickyCall, "is_held", is_held)
            with collector.disabled(), pytest.raises(Broken, match=message):
                check(History(main=main))
    gc.collect()


def shrunk(choices: list[int]) -> tuple[list[int], Broken]:
    """Choices as few and as small as can be found that break a promise still."""
    broken = _broken_by(choices)
    assert broken is not None
    best, size = choices, len(choices)
    while size:
        place = 0
        while place < len(best):
            for shorter in (best[:place] + best[place + size :], best[:place] + [0] * size + best[place + size :]):
                if shorter != best and (found := _broken_by(shorter)) is not None:
                    best, broken = shorter, found
                    break
            else:
                place += size
        size //= 2
    return best, broken


def _broken_by(choices: list[int]) -> Broken | None:
    try:
        check(history_of(choices))
    except Broken as broken:
        return broken
    return None


def check_any(count: int, *, seed: int) -> None:
    """Checks so many histories that come of chance.

    :raises Broken: with the first that breaks a promise, made as short as it can be.
    """
    for number in range(count):
        numbers = random.Random(f"{seed} {number}")
        choices = [numbers.randrange(5_040) for _ in range(numbers.choice((30, 100, 300)))]
        if number % 500 == 0:
            gc.collect()
        if (broken := _broken_by(choices)) is not None:
            print(f"history {number} of seed {seed} broke a promise", flush=True)
            if _broken_by(choices) is None:
                print("and kept it at the second time", flush=True)
                raise broken
            raise shrunk(choices)[1]


def main() -> None:
    """Runs any number of histories, and says what happened in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--collect-always", action="store_true", help="with the garbage collector at threshold 1")
    given = parser.parse_args()
    began = time.perf_counter()
    with collector.always_on() if given.collect_always else collector.disabled():
        check_any(given.histories, seed=given.seed)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{model.counts}; seed {given.seed}, {time.perf_counter() - began:.0f} s on Python {version}")


if __name__ == "__main__":
    main()
