"""`LoopVar`: a typed variable of the running loop, held against `contextvars.ContextVar`, whose manners it has."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, assert_type

import pytest

from asyncio_loop_local import LoopVar, Token, aclose, storage
from conftest import Run


def normal(text: object) -> str:
    """A message without what differs between any two objects, and between the two kinds of variable."""
    return re.sub(r"0x[0-9a-fA-F]+", "0x…", str(text)).replace("ContextVar", "LoopVar")


def error_of(call: Callable[[], object]) -> tuple[type[BaseException], str]:
    try:
        call()
    except Exception as error:
        return type(error), normal(error)
    raise AssertionError("nothing was raised")


# What it returns.


def test_default(run: Run) -> None:
    """A variable with a default has it on every loop where nothing was set, and is not thereby set."""
    var = LoopVar("limit", default=10)

    async def main() -> int:
        value = var.get()
        assert_type(value, int)
        assert var not in storage()
        return value

    assert [run(main()), run(main())] == [10, 10]


def test_none_is_a_value_and_a_default(run: Run) -> None:
    """None can be set, and be the default, as any value."""
    with_default = LoopVar[int | None]("a", default=None)
    without = LoopVar[int | None]("b")

    async def main() -> None:
        assert with_default.get() is None
        assert with_default.get(3) == 3
        without.set(None)
        assert without.get() is None
        assert without.get(3) is None

    run(main())


def test_get_with_a_default_of_another_type(run: Run) -> None:
    """`get(default)` gives the set value, else that default, before the variable's own; its type is the union."""
    var = LoopVar[int]("count")
    own = LoopVar("own", default=1)

    async def main() -> None:
        value = var.get("none")
        assert_type(value, int | str)
        assert value == "none"
        same = var.get(0)
        assert_type(same, int)
        assert same == 0
        nothing = var.get(None)
        assert_type(nothing, int | None)
        assert nothing is None
        assert own.get("mine") == "mine"
        var.set(5)
        assert var.get("none") == 5

    run(main())


def test_set_is_seen_by_all_tasks_of_the_loop(run: Run) -> None:
    """What one task sets, every task and callback of the loop sees, in whatever context."""
    var = LoopVar[str]("shared")
    seen: list[str] = []

    async def main() -> None:
        async def setter() -> None:
            var.set("set")

        await asyncio.create_task(setter())
        assert var.get() == "set"
        heard = asyncio.Event()

        def callback() -> None:
            seen.append(var.get())
            heard.set()

        asyncio.get_running_loop().call_soon(callback, context=copy_context())
        await heard.wait()

    run(main())
    assert seen == ["set"]


def test_each_loop_has_its_own_value(run: Run) -> None:
    """A second loop starts without what was set on the first."""
    var = LoopVar[int]("own")

    async def main(value: int) -> int:
        with pytest.raises(LookupError):
            var.get()
        var.set(value)
        return var.get()

    assert [run(main(1)), run(main(2))] == [1, 2]


def test_loops_in_threads_have_their_own_values(run: Run) -> None:
    """Loops that run at the same time in threads do not see each other's values."""
    var = LoopVar[int]("own")
    both = threading.Barrier(2)
    got: dict[int, int] = {}

    async def main(value: int) -> None:
        var.set(value)
        both.wait(30)
        got[value] = var.get()

    def in_thread(value: int) -> None:
        run(main(value))

    threads = [threading.Thread(target=in_thread, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {1: 1, 2: 2}


def test_two_variables_of_one_name_are_two(run: Run) -> None:
    """A variable is found by what it is, not by its name; nor does it meet the users' own keys in `storage`."""
    one, other = LoopVar[int]("same"), LoopVar[int]("same")

    async def main() -> None:
        storage()["same"] = "a user's own"
        one.set(1)
        other.set(2)
        assert (one.get(), other.get(), storage()["same"]) == (1, 2, "a user's own")

    run(main())


# What the factory makes.


def test_the_factory_makes_the_value_once_per_loop(run: Run) -> None:
    """The factory is called at the first `get` on a loop, and what it made is kept for that loop alone."""
    made: list[list[int]] = []

    def factory() -> list[int]:
        made.append([])
        return made[-1]

    var = LoopVar("queue", factory=factory)

    async def main() -> list[int]:
        assert len(made) in {0, 1}
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


def test_the_factory_runs_only_if_it_is_needed(run: Run) -> None:
    """Neither a value that was set nor a default that is given asks the factory."""

    def factory() -> int:
        raise AssertionError("was asked")

    var = LoopVar("lazy", factory=factory)

    async def main() -> None:
        assert var.get(7) == 7
        var.set(1)
        assert var.get() == 1

    run(main())


def test_an_error_of_the_factory_is_not_remembered(run: Run) -> None:
    """An error of the factory comes out of `get`, and the next `get` asks it again."""
    calls: list[int] = []

    def factory() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("first")
        return len(calls)

    var = LoopVar("frail", factory=factory)

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            var.get()
        assert var.get() == 2

    run(main())


def test_a_factory_that_asks_for_its_own_variable_after_setting_it(run: Run) -> None:
    """What the factory itself has set while it ran stays: one value a loop, whoever was first."""
    var: LoopVar[str]

    def factory() -> str:
        var.set("set by the factory")
        return "made"

    var = LoopVar("own", factory=factory)

    async def main() -> None:
        assert var.get() == "set by the factory"
        assert var.get() == "set by the factory"

    run(main())


# Tokens.


def test_reset_gives_back_what_was_there_before(run: Run) -> None:
    """`reset` restores the value before, and where there was none, there is none again."""
    var = LoopVar[int]("depth")
    context_var = ContextVar[int]("depth")

    async def main() -> None:
        first, theirs_first = var.set(1), context_var.set(1)
        second, theirs_second = var.set(2), context_var.set(2)
        assert_type(first, Token[int])
        assert (first.old_value, second.old_value) == (Token.MISSING, 1)
        assert (theirs_first.old_value, theirs_second.old_value) == (type(theirs_first).MISSING, 1)
        assert first.var is var
        var.reset(second)
        context_var.reset(theirs_second)
        assert (var.get(), context_var.get()) == (1, 1)
        var.reset(first)
        context_var.reset(theirs_first)
        assert (var.get("none"), context_var.get("none")) == ("none", "none")

    run(main())


def test_reset_brings_the_default_and_the_factory_back(run: Run) -> None:
    """After a `reset` to nothing the default counts again, and so does the factory."""
    with_default = LoopVar("a", default=1)
    made: list[int] = []

    def factory() -> int:
        made.append(1)
        return 0

    with_factory = LoopVar("b", factory=factory)

    async def main() -> None:
        with_default.reset(with_default.set(5))
        with_factory.reset(with_factory.set(5))
        assert (with_default.get(), with_factory.get()) == (1, 0)
        assert made == [1]

    run(main())


def test_tokens_may_be_used_out_of_order(run: Run) -> None:
    """An older token may be used before a newer one, as a `ContextVar`'s may."""
    var, context_var = LoopVar[int]("v"), ContextVar[int]("v")

    async def main() -> None:
        ours, theirs = [var.set(1), var.set(2)], [context_var.set(1), context_var.set(2)]
        var.reset(ours[0])
        context_var.reset(theirs[0])
        assert var.get(None) is context_var.get(None) is None
        var.reset(ours[1])
        context_var.reset(theirs[1])
        assert var.get(None) == context_var.get(None) == 1

    run(main())


def test_a_token_can_be_used_in_any_task_of_its_loop(run: Run) -> None:
    """Where a `ContextVar` wants its own context, a `LoopVar` wants its own loop, and any task of it will do."""
    var = LoopVar("v", default=0)

    async def main() -> None:
        async def set_it() -> Token[int]:
            return var.set(1)

        token = await asyncio.create_task(set_it())
        var.reset(token)
        assert var.get() == 0

    run(main())


# Errors: the same as `ContextVar`'s, word for word.


def test_no_value(run: Run) -> None:
    """`get` without any value is a `LookupError` that shows the variable, as `ContextVar`'s."""
    var, context_var = LoopVar[int]("absent"), ContextVar[int]("absent")

    async def main() -> None:
        assert error_of(var.get) == error_of(context_var.get)
        with pytest.raises(LookupError) as caught:
            var.get()
        assert caught.value.args == (var,)

    run(main())


def test_a_token_is_good_once(run: Run) -> None:
    """A token used twice is a `RuntimeError` with `ContextVar`'s message, and changes nothing."""
    var, context_var = LoopVar[int]("v"), ContextVar[int]("v")

    async def main() -> None:
        token, theirs = var.set(1), context_var.set(1)
        var.reset(token)
        context_var.reset(theirs)
        var.set(2)
        assert error_of(lambda: var.reset(token)) == error_of(lambda: context_var.reset(theirs))
        assert (
            error_of(lambda: var.reset(token))[1]
            == "<Token used var=<LoopVar name='v' at 0x…> at 0x…> has already been used once"
        )
        assert var.get() == 2

    run(main())


def test_a_token_of_another_variable(run: Run) -> None:
    """A token of another variable is a `ValueError` with `ContextVar`'s message, and is still good for its own."""
    var, other = LoopVar[int]("v"), LoopVar[int]("v")
    context_var, their_other = ContextVar[int]("v"), ContextVar[int]("v")

    async def main() -> None:
        token, theirs = other.set(1), their_other.set(1)
        assert error_of(lambda: var.reset(token)) == error_of(lambda: context_var.reset(theirs))
        other.reset(token)
        assert other.get(None) is None

    run(main())


def test_a_token_of_another_loop(run: Run) -> None:
    """A token of another loop is a `ValueError` with the message that `ContextVar` has for another context."""
    var, context_var = LoopVar("v", default=0), ContextVar("v", default=0)

    async def set_it() -> Token[int]:
        return var.set(1)

    token = run(set_it())
    theirs = copy_context().run(context_var.set, 1)

    async def main() -> None:
        kind, message = error_of(lambda: context_var.reset(theirs))
        assert error_of(lambda: var.reset(token)) == (kind, message.replace("different Context", "different event loop"))
        assert var.get() == 0

    run(main())


@pytest.mark.parametrize("no_token", [None, 1, "token", object()])
def test_what_is_no_token(run: Run, no_token: Any) -> None:
    """What is no token is a `TypeError` with `ContextVar`'s message."""
    var, context_var = LoopVar[int]("v"), ContextVar[int]("v")

    async def main() -> None:
        assert error_of(lambda: var.reset(no_token)) == error_of(lambda: context_var.reset(no_token))

    run(main())


def test_a_token_of_a_context_variable_is_no_token_of_ours(run: Run) -> None:
    """The two kinds of token are not taken for each other."""
    var, context_var = LoopVar[int]("v"), ContextVar[int]("v")

    async def main() -> None:
        theirs: Any = context_var.set(1)
        with pytest.raises(TypeError, match="expected an instance of Token, got <Token var=<ContextVar name='v'"):
            var.reset(theirs)

    run(main())


def test_without_a_loop() -> None:
    """Making a variable needs no loop; `get`, `set` and `reset` without one are a `RuntimeError`."""
    var = LoopVar("v", default=1)

    async def set_it() -> Token[int]:
        return var.set(1)

    token = asyncio.run(set_it())
    for call in (var.get, lambda: var.get(2), lambda: var.set(2), lambda: var.reset(token)):
        assert error_of(call) == (RuntimeError, "no running event loop")


def test_wrong_arguments_are_refused_when_it_is_made() -> None:
    """A name that is no string, a factory that cannot be called, or both of default and factory are a `TypeError`."""
    make: Any = LoopVar
    with pytest.raises(TypeError, match=r"argument 'name' of LoopVar.. must be a str, not int"):
        make(1)
    with pytest.raises(TypeError, match=r"argument 'factory' of LoopVar.. must be callable, not list: .*'default'"):
        make("v", factory=[])
    with pytest.raises(TypeError, match="takes 'default' or 'factory', not both"):
        make("v", default=None, factory=list)
    with pytest.raises(TypeError):
        make("v", 1)
    with pytest.raises(TypeError):
        make()


# How it looks, and how long it lives.


@pytest.mark.parametrize("more", [{}, {"default": [1]}, {"default": None}])
def test_repr_is_that_of_a_context_variable(more: dict[str, Any]) -> None:
    """The repr has the name, and the default if there is one, as `ContextVar`'s."""
    make: Any = LoopVar
    theirs: Any = ContextVar
    assert normal(repr(make("v", **more))) == normal(repr(theirs("v", **more)))
    var: Any = make("v")
    assert f"{id(var):#x}" in repr(var)


def test_repr_with_a_factory() -> None:
    """The repr names the factory."""
    assert normal(repr(LoopVar("v", factory=list[int]))) == "<LoopVar name='v' factory=list[int] at 0x…>"


def test_repr_of_tokens(run: Run) -> None:
    """The repr of a token is that of a `ContextVar`'s, before and after its use, and so is that of `MISSING`."""
    var, context_var = LoopVar[int]("v"), ContextVar[int]("v")

    async def main() -> None:
        token, theirs = var.set(1), context_var.set(1)
        assert normal(repr(token)) == normal(repr(theirs))
        var.reset(token)
        context_var.reset(theirs)
        assert normal(repr(token)) == normal(repr(theirs))
        assert repr(Token.MISSING) == repr(type(theirs).MISSING)

    run(main())


def test_the_name_cannot_be_changed() -> None:
    """The name, and a token's variable and old value, are read-only, as `ContextVar`'s."""
    var: Any = LoopVar[int]("v")
    assert var.name == "v"
    with pytest.raises(AttributeError):
        var.name = "w"
    with pytest.raises(AttributeError):
        var.something = 1


def test_values_go_with_their_loop(run: Run) -> None:
    """When the loop has ended nothing of it is kept, by reference counting alone; a token kept by the user keeps no loop."""

    class Value:
        pass

    var = LoopVar[Value]("v")
    refs: list[weakref.ref[Any]] = []

    async def main() -> Token[Value]:
        token = var.set(Value())
        refs.append(weakref.ref(var.get()))
        refs.append(weakref.ref(storage()))
        return token

    gc.collect()
    gc.disable()
    try:
        token = run(main())
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
    assert token.old_value is Token.MISSING


def test_aclose_empties_it(run: Run) -> None:
    """After `aclose` the variable is as on a new loop: the default counts again, and the factory makes anew."""
    var = LoopVar("v", factory=lambda: object())

    async def main() -> None:
        before = var.get()
        await aclose()
        assert var.get() is not before

    run(main())
