"""What `resources` tells is typed in full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal, assert_type

import pytest

from asyncio_loop_local import ResourceInfo, aclose, format_resources, resources, sticky_singleton_acm

pytestmark = pytest.mark.asyncio


@sticky_singleton_acm
@asynccontextmanager
async def connect(host: str) -> AsyncGenerator[str]:
    yield host


async def test_each_field_has_its_type() -> None:
    """A name, a state out of three, a time or None, names of others, and tasks."""
    assert assert_type(resources(), tuple[ResourceInfo, ...]) == ()
    async with connect("h"):
        (info,) = resources()
    assert "connect('h')" in assert_type(info.name, str)
    assert assert_type(info.state, Literal["entering", "open", "exiting"]) == "open"
    since = assert_type(info.since, float | None)
    assert since is not None
    assert since <= asyncio.get_running_loop().time()
    assert assert_type(info.uses, tuple[str, ...]) == ()
    assert assert_type(info.tasks, tuple[asyncio.Task[Any], ...]) == ()
    assert "connect('h')" in assert_type(format_resources(), str)
    with pytest.raises(AttributeError):
        info.state = "exiting"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    await aclose()
