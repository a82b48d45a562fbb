"""A wait that could never end is refused before it begins, with the cycle named."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import sticky_singleton_acm
from conftest import Run
from recording import on_each_loop, use

WAYS: dict[str, Callable[[Any], Any]] = {"block": use, "await": lambda acm: acm, "tasks": lambda acm: asyncio.gather(use(acm))}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("path", ["aa", "aba", "abca", "abcda"])
@on_each_loop
async def test_a_cycle_of_enters_is_refused_by_name(path: str, way: Callable[[Any], Any]) -> None:
    """Enters that need each other, or themselves, also by tasks of theirs, get a RuntimeError that names the cycle, at once."""
    names: dict[str, Callable[[], Any]] = {}

    def needs(name: str, other: str) -> None:
        @asynccontextmanager
        async def enters() -> AsyncGenerator[str]:
            await way(names[other]())
            yield name

        enters.__qualname__ = name
        names[name] = sticky_singleton_acm(enters)

    for name, other in itertools.pairwise(path):
        needs(name, other)
    with pytest.raises(RuntimeError) as caught:
        await use(names["a"]())
    last = path[-2]
    cycle = " -> ".join(f"{name}()" for name in (last, *path[:-1]))
    assert f"each of these needs the next one first: {cycle}." in str(caught.value)


def test_two_that_need_the_same_third_are_no_cycle(run: Run) -> None:
    """A diamond of needs is entered, and ends in order."""
    log: list[str] = []

    @sticky_singleton_acm
    @asynccontextmanager
    async def node(name: str, *needs: str) -> AsyncGenerator[str]:
        async with asyncio.TaskGroup() as group:
            for need in needs:
                group.create_task(use(node(need, *(["bottom"] if need != "bottom" else []))))
        log.append(f"enter {name}")
        yield name
        log.append(f"exit {name}")

    async def main() -> None:
        await use(node("top", "left", "right"))

    run(main())
    assert log[0] == "enter bottom"
    assert sorted(log[1:3]) == ["enter left", "enter right"]
    assert log[3:5] == ["enter top", "exit top"]
    assert log[-1] == "exit bottom"
