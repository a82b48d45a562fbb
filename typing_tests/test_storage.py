"""`storage` is a dict of anything; `LockingDict` is a dict of its types, and gives itself when it is locked."""

from __future__ import annotations

import asyncio
from typing import Any, assert_type

import pytest
from typing_tests.shapes import refused

from asyncio_loop_local import LockingDict, LoopLocalStorage, storage

pytestmark = pytest.mark.asyncio


async def test_storage_is_a_dict_of_the_loop() -> None:
    """Its keys and values are its users' own, so they are typed as anything."""
    values = storage()
    assert assert_type(values, LoopLocalStorage) is storage()
    values["k"] = 1
    assert assert_type(values["k"], Any) == 1
    number: int = values["k"]
    assert number == 1


async def test_a_locking_dict_is_made_as_a_dict_is() -> None:
    """From nothing, a mapping, pairs, or keywords, with the types that a dict would have."""
    mapping = LockingDict({"a": 1})
    items: list[tuple[int, bytes]] = [(1, b"")]
    pairs = LockingDict(items)
    keywords = LockingDict(count=0)
    assert assert_type(mapping, LockingDict[str, int]) == {"a": 1}
    assert assert_type(pairs, LockingDict[int, bytes]) == {1: b""}
    assert assert_type(keywords, LockingDict[str, int]) == {"count": 0}
    assert LockingDict({"a": 1}, b=2) == LockingDict([("a", 1)], b=2) == {"a": 1, "b": 2}
    empty = LockingDict[str, list[int]]()
    assert assert_type(empty.setdefault("k", []), list[int]) == []
    empty["k"] = 1  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    refused(lambda: LockingDict(1))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_its_block_gives_the_dict_itself_locked() -> None:
    """It can be used where a lock is asked for, and where a dict is."""

    async def count(values: dict[str, int], lock: asyncio.Lock) -> bool:
        values["count"] += 1
        return lock.locked()

    careful = LockingDict(count=0)
    async with careful as locked:
        assert assert_type(locked, LockingDict[str, int]) is careful
        assert assert_type(locked["count"], int) == 0
        assert await count(locked, careful)
    assert careful == {"count": 1}
    assert assert_type(careful.locked(), bool) is False
