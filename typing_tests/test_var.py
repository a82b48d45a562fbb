"""`LoopVar` has the type of its value, as `contextvars.ContextVar` has."""

from __future__ import annotations

from typing import assert_type

import pytest
from typing_tests.shapes import refused

from asyncio_loop_local import LoopVar, Token

pytestmark = pytest.mark.asyncio

number = LoopVar("number", default=0)
names = LoopVar("names", factory=list[str])
unset: LoopVar[bytes] = LoopVar("unset")
maybe: LoopVar[str | None] = LoopVar("maybe", default=None)


async def test_its_type_is_found_from_its_default_or_its_factory() -> None:
    """Without either it is annotated."""
    assert assert_type(number.get(), int) == 0
    assert assert_type(names.get(), list[str]) == []
    assert assert_type(maybe.get(), str | None) is None
    with pytest.raises(LookupError):
        assert_type(unset.get(), bytes)
    assert_type(unset, LoopVar[bytes])
    assert_type(names, LoopVar[list[str]])
    assert assert_type(number.name, str) == "number"


async def test_get_with_a_default_gives_the_one_or_the_other() -> None:
    """The default may be of another type: `get` is then typed as either."""
    assert assert_type(unset.get(None), bytes | None) is None
    assert assert_type(unset.get(1), bytes | int) == 1
    assert assert_type(unset.get(b"d"), bytes) == b"d"
    unset.set(b"v")
    assert assert_type(unset.get(None), bytes | None) == b"v"
    refused(lambda: unset.get(default=b""))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def test_a_token_belongs_to_variables_of_its_type() -> None:
    """`set` takes the variable's type, and its token goes back to a variable of that type."""
    token = number.set(1)
    assert isinstance(assert_type(token, Token[int]), Token)
    assert assert_type(token.var, LoopVar[int]) is number
    assert token.old_value is Token.MISSING
    with pytest.raises(ValueError, match="different LoopVar"):
        names.reset(token)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number.reset(token)
    assert number.get() == 0
    number.set("s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_default_and_factory_are_no_pair_and_have_names() -> None:
    """At most one of them, by name."""
    refused(lambda: LoopVar("v", default=1, factory=int))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    refused(lambda: LoopVar("v", 1))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    refused(lambda: LoopVar(1, default=1))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    LoopVar[int]("v", default="s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def test_it_is_closed_on_every_loop_by_a_call_without_arguments() -> None:
    """`aclose` gives nothing; a function that closes is one of the value, or the variable has no type."""
    closing = LoopVar("closing", factory=list[str], close=list[str].clear)
    value = closing.get()
    value.append("open")
    assert_type(closing, LoopVar[list[str]])
    assert_type(await closing.aclose(), None)
    assert value == []
    closing.set([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    LoopVar("v", factory=list[str], close=bytes.hex)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
