"""`atexit.register` takes a function with its own arguments, and gives that function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, assert_type

import pytest

from asyncio_loop_local import atexit

called: list[object] = []


def note(name: str, size: int = 1, *, flag: bool = False) -> int:
    called.append((name, size, flag))
    return size


async def note_later(name: str) -> None:
    called.append(name)


def test_it_takes_sync_and_async_functions_with_their_arguments() -> None:
    """What is registered runs at the end of the loop, newest first."""
    called.clear()

    async def main() -> None:
        assert atexit.register(note, "n", flag=True) is note
        assert atexit.register(note_later, "later") is note_later
        with pytest.raises(TypeError):
            atexit.register(note("n"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        called.clear()

    asyncio.run(main())
    assert called == ["later", ("n", 1, True)]


def test_it_gives_the_function_with_its_type() -> None:
    """So it can be used as a decorator of functions without parameters, and a name keeps its type."""
    called.clear()

    async def main() -> None:
        @atexit.register
        def last() -> str:
            called.append("last")
            return "last"

        assert_type(last, Callable[[], str])
        given = atexit.register(note_later, "later")
        later: Callable[[str], Coroutine[Any, Any, None]] = given
        await later("now")
        atexit.unregister(note_later)
        assert assert_type(last(), str) == "last"

    asyncio.run(main())
    assert called == ["now", "last", "last"]


def test_wrong_arguments_are_found_where_it_is_registered() -> None:
    """Not at the end of the loop, where nobody looks."""

    async def main() -> None:
        atexit.register(note)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        atexit.register(note, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        atexit.register(note, "n", falg=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        atexit.register(note_later, name=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        atexit.unregister(note)
        atexit.unregister(note_later)
        with pytest.raises(TypeError):
            atexit.unregister()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    called.clear()
    asyncio.run(main())
    assert called == []
