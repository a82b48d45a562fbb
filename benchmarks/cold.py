"""Cold paths and their floors: entering and exiting, a whole loop for one resource, creating tasks, and memory."""

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
"""The number of rounds of subjects that take a second each."""


def trivial_factory(_number: int) -> Trivial:
    return Trivial()


make = loop_local.sticky_singleton_acm(trivial_factory)

Enters = Callable[[int], Coroutine[Any, Any, tuple[float, float]]]
"""Enters n resources, exits them, and returns the nanoseconds of one enter and of one exit."""


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
    """Rows for many resources, and for ten times as many."""
    many, more = size.many, 10 * size.many
    subjects = {"floor": (floor_enters, many), "make": (make_enters, many), "enter": (enter_enters, many)}
    both = _enters(subjects, size.at_most(MANY_ROUNDS))
    growing = _enters({"make": (make_enters, many), "make more": (make_enters, more)}, size.at_most(7))
    table: list[Row] = []
    for shown, name in ((f"`async with make(n)`, {many:,} of them", "make"), (f"`await enter(acm)`, {many:,} of them", "enter")):
        for index, part in enumerate((f"{shown}: entering one", f"{shown}: exiting one")):
            floor, ours = ([costs[index] for costs in both[each]] for each in ("floor", name))
            table.append(row_of(part, floor, ours, limit=1.5 if shown.startswith("`async") else 1.6))
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
    """Return the costs of entering and of exiting in each round."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}

    def subject(name: str, enters: Enters, number: int) -> Subject:
        def run() -> float:
            costs[name].append(asyncio.run(enters(number)))
            return sum(costs[name][-1])

        return run

    with own_garbage_only(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # about many different keys, which are intended here
        interleave({name: subject(name, *each) for name, each in subjects.items()}, rounds)
    return costs


class Hub(Trivial):
    """Its own task uses other resources, as a pool's worker or a batcher does."""

    def __init__(self) -> None:
        self._work = asyncio.Queue[tuple[int, asyncio.Future[float]]]()

    async def __aenter__(self) -> Hub:
        self._worker = asyncio.create_task(self._works())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._worker.cancel()
        await asyncio.wait([self._worker])

    async def ask(self, number: int) -> float:
        """Have its task use n new resources, and return the nanoseconds of one."""
        taken: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._work.put_nowait((number, taken))
        return await taken

    async def _works(self) -> None:
        while True:
            number, taken = await self._work.get()
            start = clock()
            for argument in range(number):
                async with make(argument):
                    pass
            taken.set_result((clock() - start) / number)


class HubUser(Trivial):
    """Uses the hub in its enter."""

    async def __aenter__(self) -> HubUser:
        async with make_hub():
            return self


def hub_user_factory(_number: int) -> HubUser:
    return HubUser()


make_hub = loop_local.sticky_singleton_acm(Hub)
make_hub_user = loop_local.sticky_singleton_acm(hub_user_factory)
ASKED = 100
"""The number of new resources that the hub uses."""


async def hub_costs(users: int) -> tuple[float, float]:
    """Return the nanoseconds of entering and exiting one of n users of a hub, and of one new resource that the hub uses then."""
    start = clock()
    for number in range(users):
        async with make_hub_user(number):
            pass
    entering = clock() - start
    async with make_hub() as hub:
        asked = await hub.ask(ASKED)
    start = clock()
    await loop_local.aclose()
    return (entering + clock() - start) / users, asked


def hubs(size: Size) -> list[Row]:
    """Rows for a hub with many users, compared with few."""
    few, many = max(1, size.many // 20), 5 * size.many
    costs = _enters({"few": (hub_costs, few), "many": (hub_costs, many)}, size.at_most(5))

    def one_row(path: str, at: int) -> Row:
        return row_of(f"{path} {many:,} use it, to {few:,}", *([each[at] for each in costs[name]] for name in costs), limit=1.5)

    return [
        one_row("entering and exiting one that asks a hub in its enter, where", 0),
        one_row("the hub's task asks for another for the first time, where", 1),
    ]


class Outer(Trivial):
    """Times warm blocks in its enter."""

    def __init__(self, calls: int) -> None:
        self._calls = calls

    async def __aenter__(self) -> Outer:
        self.taken = await warm_blocks(self._calls)
        return self


async def warm_blocks(calls: int) -> float:
    async with make(1):
        pass
    start = clock()
    for _ in range(calls):
        async with make(1):
            pass
    return (clock() - start) / calls


make_outer = loop_local.sticky_singleton_acm(Outer)


def blocks_of_a_resource(size: Size) -> list[Row]:
    """A row for a warm block in a resource's task, compared with one in any other task."""

    async def inside() -> float:
        async with make_outer(size.calls) as outer:
            return outer.taken

    floor, ours = (lambda: asyncio.run(warm_blocks(size.calls))), (lambda: asyncio.run(inside()))
    with own_garbage_only():
        return [row("`async with make(): pass` in a resource's task, to one outside", floor, ours, limit=1.5, rounds=size.rounds)]


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
        return [row("`asyncio.run` of one resource, to a bare `async with`", floor, ours, limit=1.6, rounds=size.rounds)]


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
