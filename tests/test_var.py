"""`LoopVar`: a typed variable of the running loop, which behaves as `contextvars.ContextVar` does."""

from __future__ import annotations

import asyncio
import re
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, assert_type
from unittest.mock import ANY

import pytest

import collector
from asyncio_loop_local import LoopVar, Token, aclose, storage
from conftest import Run
from recording import in_threads, on_each_loop

Note = Callable[[Callable[[], object]], None]


def normal(text: object) -> str:
    """A text without addresses, and without the difference between the two kinds of variable."""
    return re.sub(r"0x[0-9a-fA-F]+", "0x…", str(text)).replace("ContextVar", "LoopVar")


# The same as ContextVar, word for word.


def no_value(make: Any, note: Note) -> None:
    """`get` without a value shows the variable in a `LookupError`."""
    note(make("absent").get)


def nested_resets(make: Any, note: Note) -> None:
    """`reset` restores the value before, and without one, there is none again."""
    var = make("v")
    first, second = var.set(1), var.set(2)
    note(lambda: (first.old_value, second.old_value, first.var is var))
    for token in (second, first):
        var.reset(token)
        note(lambda: var.get("none"))


def tokens_out_of_order(make: Any, note: Note) -> None:
    """An older token may be used before a newer one."""
    var = make("v")
    first, second = var.set(1), var.set(2)
    for token in (first, second):
        var.reset(token)
        note(lambda: var.get("none"))


def token_used_twice(make: Any, note: Note) -> None:
    """A token is good once; its second use is a `RuntimeError` and changes nothing."""
    var = make("v")
    token = var.set(1)
    note(lambda: token)
    var.reset(token)
    note(lambda: token)
    var.set(2)
    note(lambda: var.reset(token))
    note(var.get)


def token_of_another_variable(make: Any, note: Note) -> None:
    """A token of another variable is a `ValueError`, and is still good for its own."""
    var, other = make("v"), make("v")
    token = other.set(1)
    note(lambda: var.reset(token))
    other.reset(token)
    note(lambda: other.get(None))


def no_token(make: Any, note: Note) -> None:
    """What is not a token is a `TypeError`."""
    var = make("v")
    for wrong in (None, 1, "token", var):
        note(lambda wrong=wrong: var.reset(wrong))  # type: ignore[misc]  # it has a default


def reprs(make: Any, note: Note) -> None:
    """The repr of a variable has its name and default; that of a token its variable, and whether it was used."""
    for options in ({}, {"default": [1]}, {"default": None}):
        note(lambda options=options: make("v", **options))  # type: ignore[misc]  # it has a default
    token = make("v").set(1)
    note(lambda: token.MISSING)


def read_only(make: Any, note: Note) -> None:
    """The name, and a token's variable and old value, are read-only."""
    var = make("v")
    token = var.set(1)
    for thing, name in ((var, "name"), (token, "var"), (token, "old_value")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 1)
    note(lambda: var.name)


def wrong_arguments(make: Any, _note: Note) -> None:
    """A name is needed, and a default has to be given by name."""
    for arguments in ((), ("v", 1)):
        with pytest.raises(TypeError):
            make(*arguments)


@pytest.mark.parametrize(
    "scenario",
    [
        *(no_value, nested_resets, tokens_out_of_order, token_used_twice, token_of_another_variable, no_token, reprs),
        *(read_only, wrong_arguments),
    ],
)
@on_each_loop
async def test_it_behaves_as_a_context_variable(scenario: Callable[[Any, Note], None]) -> None:
    """Values, reprs, and the types and texts of errors are those of a `ContextVar`."""

    def observe(make: Any) -> list[str]:
        noted: list[str] = []

        def note(call: Callable[[], object]) -> None:
            try:
                noted.append(normal(repr(call())))
            except Exception as error:
                noted.append(f"{type(error).__name__}: {normal(error)}")

        scenario(make, note)
        return noted

    assert observe(LoopVar) == observe(ContextVar)


def test_a_token_of_another_loop(run: Run) -> None:
    """A token of another loop is a `ValueError` with the message that `ContextVar` has for another context."""
    var, context_var = LoopVar("v", default=0), ContextVar("v", default=0)

    async def set_it() -> Token[int]:
        return var.set(1)

    token = run(set_it())
    theirs = copy_context().run(context_var.set, 1)

    async def main() -> None:
        with pytest.raises(ValueError) as expected:
            context_var.reset(theirs)
        with pytest.raises(ValueError) as caught:
            var.reset(token)
        assert normal(caught.value) == normal(expected.value).replace("different Context", "different event loop")
        assert var.get() == 0

    run(main())


@on_each_loop
async def test_a_token_of_a_context_variable_is_not_one_of_a_loop_variable() -> None:
    """The two kinds of token are not mistaken for each other."""
    var, context_var = LoopVar[int]("v"), ContextVar[int]("v")

    theirs: Any = context_var.set(1)
    with pytest.raises(TypeError, match="expected an instance of Token, got <Token var=<ContextVar name='v'"):
        var.reset(theirs)


# Values: the static types are true at run time.


def test_get_gives_the_set_value_or_a_default(run: Run) -> None:
    """`get` gives the set value, else its argument, else the variable's default; it sets nothing, and None is a value."""
    limit = LoopVar("limit", default=10)
    count = LoopVar[int]("count")
    nothing = LoopVar[int | None]("nothing", default=None)

    async def main() -> None:
        value = limit.get()
        assert_type(value, int)
        assert (value, limit.get("mine"), limit in storage()) == (10, "mine", False)
        other = count.get("none")
        assert_type(other, int | str)
        same = count.get(0)
        assert_type(same, int)
        none = count.get(None)
        assert_type(none, int | None)
        assert (other, same, none) == ("none", 0, None)
        token = count.set(5)
        assert_type(token, Token[int])
        assert count.get("none") == 5
        assert (nothing.get(), nothing.get(3)) == (None, 3)
        nothing.set(None)
        assert nothing.get(3) is None

    run(main())
    run(main())


@on_each_loop
async def test_all_tasks_of_a_loop_share_the_value(log: list[str]) -> list[str]:
    """A value or `reset` of one task is log by every task and callback of the loop, in whatever context."""
    var = LoopVar("shared", default="default")

    async def setter() -> Token[str]:
        return var.set("set")

    token = await asyncio.create_task(setter())
    assert var.get() == "set"
    heard = asyncio.Event()

    def callback() -> None:
        log.append(var.get())
        heard.set()

    asyncio.get_running_loop().call_soon(callback, context=copy_context())
    await heard.wait()
    var.reset(token)
    assert var.get() == "default"
    return ["set"]


def test_each_loop_has_its_own_value(run: Run) -> None:
    """A loop starts without the values of others, also if they run at the same time in other threads."""
    var = LoopVar[int]("own")
    both = threading.Barrier(2)
    got: dict[int, int] = {}

    async def main(value: int) -> None:
        with pytest.raises(LookupError):
            var.get()
        var.set(value)
        both.wait(30)
        got[value] = var.get()

    for _ in range(2):
        in_threads(lambda: run(main(1)), lambda: run(main(2)))
    assert got == {1: 1, 2: 2}


@on_each_loop
async def test_two_variables_of_one_name_are_two() -> None:
    """Variables of the same name are separate, and do not collide with the users' own keys in `storage`."""
    one, other = LoopVar[int]("same"), LoopVar[int]("same")

    storage()["same"] = "a user's own"
    one.set(1)
    other.set(2)
    assert (one.get(), other.get(), storage()["same"]) == (1, 2, "a user's own")


# Factories.


def test_the_factory_makes_the_value_once_per_loop(run: Run) -> None:
    """The first `get` on a loop calls the factory, and its result is kept for that loop only."""
    made: list[list[int]] = []

    def factory() -> list[int]:
        made.append([])
        return made[-1]

    var = LoopVar("queue", factory=factory)

    async def main() -> list[int]:
        before = len(made)
        value = var.get()
        assert_type(value, list[int])
        assert len(made) == before + 1

        async def get() -> list[int]:
            return var.get()

        assert list(await asyncio.gather(get(), get())) == [value, value]
        assert var.get() is value
        assert len(made) == before + 1
        return value

    first, second = run(main()), run(main())
    assert first is not second


@on_each_loop
async def test_the_factory_runs_only_if_it_is_needed() -> None:
    """A set value, or the default of `get`, makes the factory unnecessary."""

    def factory() -> int:
        raise AssertionError("was called")

    var = LoopVar("lazy", factory=factory)

    assert var.get(7) == 7
    var.set(1)
    assert var.get() == 1


@on_each_loop
async def test_an_error_of_the_factory_is_not_remembered() -> None:
    """`get` raises the factory's error, and the next `get` calls the factory again."""
    calls: list[int] = []

    def factory() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("first")
        return len(calls)

    var = LoopVar("frail", factory=factory)

    with pytest.raises(ValueError, match="first"):
        var.get()
    assert var.get() == 2


@on_each_loop
async def test_a_factory_may_set_its_own_variable() -> None:
    """A value that the factory itself sets while it runs is the variable's value, not the factory's result."""
    var: LoopVar[str]

    def factory() -> str:
        var.set("set by the factory")
        return "made"

    var = LoopVar("own", factory=factory)

    assert [var.get(), var.get()] == ["set by the factory"] * 2


@on_each_loop
async def test_reset_and_aclose_bring_the_default_and_the_factory_back() -> None:
    """After a `reset` to no value, and after `aclose`, the default counts again, and the factory makes a new value."""
    with_default = LoopVar("a", default=1)
    with_factory = LoopVar("b", factory=lambda: object())

    with_default.reset(with_default.set(5))
    with_factory.reset(with_factory.set(object()))
    made = with_factory.get()
    assert with_default.get() == 1
    with_default.set(5)
    await aclose()
    assert with_default.get() == 1
    assert with_factory.get() is not made


# Errors, and how long values live.


def test_without_a_loop() -> None:
    """A variable can be made without a loop; `get`, `set` and `reset` without one are a `RuntimeError`."""
    var = LoopVar("v", default=1)

    async def set_it() -> Token[int]:
        return var.set(1)

    token = asyncio.run(set_it())
    for call in (var.get, lambda: var.get(2), lambda: var.set(2), lambda: var.reset(token)):
        with pytest.raises(RuntimeError, match=r"^no running event loop$"):
            call()


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    (r"argument 'name' of LoopVar\(\) must be a str, not int", (1,), {}),
    (r"argument 'factory' of LoopVar\(\) must be callable, not list: .*'default'", ("v",), {"factory": []}),
    ("takes 'default' or 'factory', not both", ("v",), {"default": None, "factory": list}),
]


@pytest.mark.parametrize(("message", "args", "kwargs"), WRONG, ids=["name", "factory", "both"])
def test_wrong_arguments_are_refused(message: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A name that is not a string, a factory that is not callable, and both default and factory are a `TypeError`."""
    make: Any = LoopVar
    with pytest.raises(TypeError, match=message):
        make(*args, **kwargs)


def test_repr_with_a_factory() -> None:
    """The repr names the factory, and has the variable's address; other attributes cannot be set."""
    var: Any = LoopVar("v", factory=list[int])
    assert repr(var) == f"<LoopVar name='v' factory=list[int] at {id(var):#x}>"
    with pytest.raises(AttributeError):
        var.something = 1


def test_values_go_with_their_loop(run: Run) -> None:
    """Values are freed with their loop, by reference counting alone; a token does not keep the loop alive."""

    class Value:
        pass

    var = LoopVar[Value]("v")
    refs: list[weakref.ref[Any]] = []

    async def main() -> Token[Value]:
        token = var.set(Value())
        refs.extend([weakref.ref(var.get()), weakref.ref(storage())])
        return token

    with collector.disabled():
        token = run(main())
        assert [ref() for ref in refs] == [None, None]
    assert token.old_value is Token.MISSING


@on_each_loop
async def test_reset_restores_a_value_that_equals_everything() -> None:
    """Whether there was a value before is not a question of ``==``, which a value may answer as it likes."""
    var = LoopVar[Any]("v")
    var.set(ANY)
    var.reset(var.set(1))
    assert var.get(None) is ANY
