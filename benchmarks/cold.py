"""The cold path beside its floors: entering and exiting, a whole loop for one resource, tasks beside them, and memory."""

from __future__ import annotations

import asyncio
import tracemalloc
import warnings
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from benchmarks.timing import LENIENCY, Row, Size, Subject, clock, interleave, own_garbage_only, row, row_of
from benchmarks.warm import Trivial

import asyncio_loop_local as loop_local

MANY_ROUNDS = 25
"""Of those that take a whole second, fewer do."""


def trivial_factory(_number: int) -> Trivial:
    return Trivial()


make = loop_local.sticky_singleton_acm(trivial_factory)

Enters = Callable[[int], Coroutine[Any, Any, tuple[float, float]]]
"""Enters so many resources, exits them, and returns the nanoseconds that each took at entering and at exiting."""


async def floor_enters(number: int) -> tuple[float, float]:
    async def hold(acm: Trivial, opened: asyncio.Future[Trivial], closing: asyncio.Future[None]) -> None:
        async with acm as value:
            opened.set_result(value)
            await closing

    loop = asyncio.get_running_loop()
    held: list[tuple[asyncio.Future[None], asyncio.Task[None]]] = []
    start = clock()
    for _ in range(number):
        opened: asyncio.Future[Trivial] = loop.create_future()
        closing: asyncio.Future[None] = loop.create_future()
        task = loop.create_task(hold(Trivial(), opened, closing))
        await opened
        held.append((closing, task))
    middle = clock()
    while held:
        closing, task = held.pop()
        closing.set_result(None)
        await task
    return (middle - start) / number, (clock() - middle) / number


async def make_enters(number: int) -> tuple[float, float]:
    start = clock()
    for argument in range(number):
        async with make(argument):
            pass
    middle = clock()
    await loop_local.aclose()
    return (middle - start) / number, (clock() - middle) / number


async def enter_enters(number: int) -> tuple[float, float]:
    start = clock()
    for _ in range(number):
        await loop_local.enter(Trivial())
    middle = clock()
    await loop_local.aclose()
    return (middle - start) / number, (clock() - middle) / number


def entering_and_exiting(size: Size) -> list[Row]:
    """Rows of many resources, and of ten times as many."""
    many, more = size.many, 10 * size.many
    subjects = {"floor": (floor_enters, many), "make": (make_enters, many), "enter": (enter_enters, many)}
    both = _enters(subjects, size.at_most(MANY_ROUNDS))
    growing = _enters({"make": (make_enters, many), "make more": (make_enters, more)}, size.at_most(7))
    table: list[Row] = []
    for shown, name in ((f"`async with make(n)`, {many:,} of them", "make"), (f"`await enter(acm)`, {many:,} of them", "enter")):
        for index, part in enumerate((f"{shown}: entering one", f"{shown}: exiting one")):
            floor, ours = ([costs[index] for costs in both[each]] for each in ("floor", name))
            table.append(row_of(part, floor, ours, limit=1.6))
    table.append(
        row_of(
            f"exiting {more:,}, each, to {many:,}, each",
            [costs[1] for costs in growing["make"]],
            [costs[1] for costs in growing["make more"]],
            limit=1.5,
        )
    )
    return table


def _enters(subjects: Mapping[str, tuple[Enters, int]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """What entering and exiting cost in each round."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}

    def subject(name: str, enters: Enters, number: int) -> Subject:
        def run() -> float:
            costs[name].append(asyncio.run(enters(number)))
            return sum(costs[name][-1])

        return run

    with own_garbage_only(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # "so many different keys": they are what is timed
        interleave({name: subject(name, *each) for name, each in subjects.items()}, rounds)
    return costs


async def nothing() -> None:
    pass


async def use() -> None:
    async with make(1):
        pass


async def use_bare() -> None:
    async with Trivial():
        pass


def creating_tasks(size: Size) -> list[Row]:
    def subject(main: Callable[[], Coroutine[Any, Any, None]], *, awaited: bool) -> Subject:
        async def create() -> float:
            await main()
            create_task = asyncio.create_task
            start = clock()
            if awaited:
                for _ in range(size.calls):
                    await create_task(nothing())
                return (clock() - start) / size.calls
            tasks = [create_task(nothing()) for _ in range(size.calls)]
            taken = clock() - start
            await asyncio.gather(*tasks)
            return taken / size.calls

        return lambda: asyncio.run(create())

    def one_row(path: str, *, awaited: bool) -> Row:
        floor, ours = (subject(main, awaited=awaited) for main in (use_bare, use))
        return row(path, floor, ours, limit=1.15, rounds=size.at_most(40))

    with own_garbage_only():
        return [
            one_row("`create_task` in a loop that uses the library, to one that does not", awaited=False),
            one_row("`await create_task` in the same", awaited=True),
        ]


def whole_loops(size: Size) -> list[Row]:
    def subject(main: Callable[[], Coroutine[Any, Any, None]]) -> Subject:
        loops = max(1, size.calls // 200)

        def run() -> float:
            start = clock()
            for _ in range(loops):
                asyncio.run(main())
            return (clock() - start) / loops

        return run

    floor, ours = subject(use_bare), subject(use)
    with own_garbage_only():
        return [row("`asyncio.run` of one resource, to a bare `async with`", floor, ours, limit=1.7, rounds=size.rounds)]


def bytes_of_one(size: Size) -> list[Row]:
    async def measure() -> float:
        async with make(-1):
            pass
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(size.many - 1):
                async with make(number):
                    pass
            return (tracemalloc.get_traced_memory()[0] - before) / (size.many - 1)
        finally:
            tracemalloc.stop()

    return [Row("bytes a resource (tracemalloc)", None, asyncio.run(measure()), 4_096 * LENIENCY, unit="bytes", absolute=True)]
