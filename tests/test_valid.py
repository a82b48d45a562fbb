"""``valid=``: a value that is no longer good is made anew, and the old one is exited when nothing holds it any more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp
import httpx
import pytest

from asyncio_loop_local import (
    aclose,
    enter,
    override,
    release,
    release_all,
    resources,
    singleton,
    sticky_singleton_acm,
)
from conftest import Run
from recording import cancel, keep, on_each_loop, reports_of_this_loop, turns


def own_key(user: str = "u") -> str:
    return user.lower()


class Token:
    """A value that counts how often it was closed, and who holds it."""

    def __init__(self, maker: Maker, number: int) -> None:
        self.maker = maker
        self.number = number
        self.is_good = True
        self.is_open = False
        self.closed = 0
        self.exit_error: BaseException | None = None
        self.on_close: Callable[[], Awaitable[object]] | None = None

    def __repr__(self) -> str:
        return f"token {self.number}"

    async def __aenter__(self) -> Self:
        await self.maker.wait()
        self.is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self.on_close is not None:
            await self.on_close()
        self.closed += 1
        self.is_open = False
        if self.exit_error is not None:
            raise self.exit_error


class Maker:
    """A factory whose values are checked; what it does, and what ``valid`` does, a test may change."""

    def __init__(self) -> None:
        self.made: list[Token] = []
        self.asked: list[Token] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_make: Callable[[], object] = lambda: None
        self.on_enter: Callable[[], object] = lambda: None
        self.verdict: Callable[[Token], object] = lambda token: token.is_good
        self.make: Callable[..., Any] = self.wrap()

    def wrap(self) -> Callable[..., Any]:
        raise NotImplementedError

    async def get(self, user: str = "u") -> Token:
        """The token, as any caller gets it."""
        raise NotImplementedError

    def valid(self, token: Token) -> object:
        self.asked.append(token)
        return self.verdict(token)

    def new(self, user: str = "u") -> Token:
        self.on_make()
        token = Token(self, len(self.made))
        self.made.append(token)
        return token

    async def wait(self) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        self.on_enter()

    async def connect(self, user: str = "u") -> Token:
        await self.wait()
        return self.new()


class Sticky(Maker):
    """A sticky factory, in blocks."""

    def wrap(self) -> Callable[..., Any]:
        return sticky_singleton_acm(self.new, valid=self.valid)

    async def get(self, user: str = "u") -> Token:
        async with self.make(user) as token:
            return token  # type: ignore[no-any-return]  # as wrapped above


class Awaited(Sticky):
    """A sticky factory, awaited."""

    async def get(self, user: str = "u") -> Token:
        return await self.make(user)  # type: ignore[no-any-return]  # as wrapped above


class Keyed(Sticky):
    """A sticky factory with ``key=``."""

    def wrap(self) -> Callable[..., Any]:
        return sticky_singleton_acm(self.new, key=own_key, valid=self.valid)


class Plain(Maker):
    """A plain function."""

    def wrap(self) -> Callable[..., Any]:
        return singleton(self.new, valid=self.valid)

    async def get(self, user: str = "u") -> Token:
        return self.make(user)  # type: ignore[no-any-return]  # as wrapped above


class Closed(Plain):
    """A plain function of a value that is closed."""

    def wrap(self) -> Callable[..., Any]:
        return singleton(self.new, close=Token.close, valid=self.valid)


class Shared(Awaited):
    """A coroutine function."""

    def wrap(self) -> Callable[..., Any]:
        return singleton(self.connect, valid=self.valid)


class SharedClosed(Awaited):
    """A coroutine function of a value that is closed."""

    def wrap(self) -> Callable[..., Any]:
        return singleton(self.connect, close=Token.close, valid=self.valid)


class SharedKeyed(Awaited):
    """A coroutine function with ``key=``."""

    def wrap(self) -> Callable[..., Any]:
        return singleton(self.connect, key=own_key, valid=self.valid)


class SharedClosedKeyed(Awaited):
    """A coroutine function with ``key=`` of a value that is closed."""

    def wrap(self) -> Callable[..., Any]:
        return singleton(self.connect, key=own_key, close=Token.close, valid=self.valid)


COROUTINES: list[type[Maker]] = [Shared, SharedClosed, SharedKeyed, SharedClosedKeyed]
KINDS: list[type[Maker]] = [Sticky, Awaited, Keyed, Plain, Closed, *COROUTINES]
CLOSING: list[type[Maker]] = [Sticky, Awaited, Keyed, Closed, SharedClosed, SharedClosedKeyed]
WAITING: list[type[Maker]] = [Sticky, Awaited, Keyed, *COROUTINES]  # in which making is entering or awaiting
each_kind = pytest.mark.parametrize("kind", KINDS)
each_closing_kind = pytest.mark.parametrize("kind", CLOSING)
each_waiting_kind = pytest.mark.parametrize("kind", WAITING)
each_coroutine_kind = pytest.mark.parametrize("kind", COROUTINES)
each_sticky_kind = pytest.mark.parametrize("kind", [Sticky, Keyed])


async def get_spoilt(maker: Maker) -> Token:
    """A token that has gone bad since."""
    token = await maker.get()
    token.is_good = False
    return token


async def begin(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """A task that has come to where it waits."""
    task = asyncio.ensure_future(awaitable)
    await turns()
    assert not task.done()
    return task


class Block:
    """A task that holds a block until it is told to leave it."""

    def __init__(self, acm: Any) -> None:
        self._acm = acm
        self._leave = asyncio.Event()
        self._got: asyncio.Future[Token] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._acm as token:
            self._got.set_result(token)
            await self._leave.wait()
            assert not token.closed

    async def token(self) -> Token:
        return await self._got

    async def leave(self) -> None:
        self._leave.set()
        await self.task
        await turns()


# What is asked, and what it changes.


@each_kind
@on_each_loop
async def test_what_is_no_longer_good_is_made_anew(kind: type[Maker]) -> None:
    """A value is found again as long as it is good; then the next call makes another, and calls after that find this one."""
    maker = kind()
    first = await maker.get()
    assert await maker.get() is first
    first.is_good = False
    second = await maker.get()
    assert second is not first
    first.is_good = True
    assert await maker.get() is await maker.get() is second
    assert maker.made == [first, second]


@each_kind
@on_each_loop
async def test_each_call_but_the_first_asks_once(kind: type[Maker]) -> None:
    """``valid`` is asked once by each call that finds a value, and not by the one that makes it."""
    maker = kind()
    first = await maker.get()
    assert maker.asked == []
    await maker.get()
    await maker.get()
    assert maker.asked == [first, first]
    first.is_good = False
    await maker.get()
    assert maker.asked == [first] * 3


@each_waiting_kind
@on_each_loop
async def test_who_waits_gets_what_is_made_unchecked(kind: type[Maker]) -> None:
    """Tasks that wait for a value which is being made all get it, without another question."""
    maker = kind()
    maker.gate.clear()
    waiting = [await begin(maker.get()) for _ in range(3)]
    maker.gate.set()
    assert set(await asyncio.gather(*waiting)) == {maker.made[0]}
    assert maker.asked == []


@each_kind
@on_each_loop
async def test_a_thousand_tasks_make_one_new_value(kind: type[Maker]) -> None:
    """However many ask while a value is no longer good, one new value is made, and all get that."""
    maker = kind()
    first = await get_spoilt(maker)
    maker.gate.clear()
    asking = [asyncio.create_task(maker.get()) for _ in range(1_000)]
    await turns()
    maker.gate.set()
    assert set(await asyncio.gather(*asking)) == {maker.made[1]}
    assert len(maker.made) == 2
    await turns()
    assert first.closed == (kind in CLOSING)


@each_kind
@on_each_loop
async def test_an_error_of_valid_changes_nothing(kind: type[Maker]) -> None:
    """An error of ``valid`` is raised to the caller who asked; the value stays what the next call finds."""
    maker = kind()
    first = await maker.get()

    def fail(_: Token) -> bool:
        raise KeyError("valid")

    maker.verdict = fail
    for _ in range(3):
        with pytest.raises(KeyError, match="valid"):
            await maker.get()
    maker.verdict = lambda token: token.is_good
    assert await maker.get() is first
    first.is_good = False
    assert await maker.get() is not first
    await turns()
    assert first.closed == (kind in CLOSING)


@each_kind
@pytest.mark.parametrize(
    ("verdict", "is_good"), [(1, True), ("yes", True), (object(), True), (0, False), (None, False), ("", False), ([], False)]
)
@on_each_loop
async def test_valid_may_return_anything_that_is_true_or_false(kind: type[Maker], verdict: object, is_good: bool) -> None:
    """What ``valid`` returns counts as in an ``if``."""
    maker = kind()
    maker.verdict = lambda _: verdict
    assert (await maker.get() is await maker.get()) is is_good


@each_kind
@on_each_loop
async def test_a_verdict_that_is_neither_true_nor_false_is_an_error(kind: type[Maker]) -> None:
    """An error of the verdict's own, as a numpy array has one, is raised to the caller, and changes nothing."""

    class Undecided:
        def __bool__(self) -> bool:
            raise ValueError("ambiguous")

    maker = kind()
    first = await maker.get()
    maker.verdict = lambda _: Undecided()
    with pytest.raises(ValueError, match="ambiguous"):
        await maker.get()
    maker.verdict = lambda _: True
    assert await maker.get() is first


@each_kind
@pytest.mark.parametrize("what", ["coroutine", "future"])
@on_each_loop
async def test_a_verdict_that_would_have_to_be_awaited_is_an_error(kind: type[Maker], what: str) -> None:
    """An awaitable verdict is a `TypeError`, which changes nothing and leaves no warning."""
    maker = kind()
    first = await maker.get()

    async def later() -> bool:
        return False

    maker.verdict = lambda _: later() if what == "coroutine" else asyncio.get_running_loop().create_future()
    with pytest.raises(TypeError, match=r"valid=… of .* returned an awaitable"):
        await maker.get()
    maker.verdict = lambda _: True
    assert await maker.get() is first


@each_kind
@on_each_loop
async def test_other_calls_are_not_concerned(kind: type[Maker]) -> None:
    """Each key has a value of its own: one that is no longer good leaves the others as they are."""
    maker = kind()
    first, other = await maker.get("a"), await maker.get("b")
    first.is_good = False
    assert await maker.get("a") is not first
    assert await maker.get("b") is other


@pytest.mark.parametrize("kind", [singleton, sticky_singleton_acm])
@on_each_loop
async def test_a_key_of_ones_own_finds_what_is_checked(kind: Callable[..., Any]) -> None:
    """With ``key=`` too, what counts as the same call finds a value, and makes it anew when that is no longer good."""
    maker = Sticky()
    make = kind(maker.new, key=str.lower, valid=maker.valid)

    async def get(user: str) -> Token:
        made = make(user)
        return made if kind is singleton else await made  # type: ignore[no-any-return]  # as wrapped above

    first = await get("a")
    assert await get("A") is first
    first.is_good = False
    second = await get("A")
    assert second is await get("a") is maker.made[1]
    assert maker.asked == [first, first, second]


@each_kind
def test_each_loop_asks_of_its_own_value(kind: type[Maker], run: Run) -> None:
    """On a second loop a value is made, checked and made anew as on the first, also in another thread meanwhile."""
    maker = kind()
    is_held, may_end = threading.Event(), threading.Event()

    async def main(is_first: bool) -> None:
        token = await maker.get()
        if is_first:
            is_held.set()
            await asyncio.to_thread(may_end.wait, 20)
            assert await maker.get() is token
            return
        token.is_good = False
        assert await maker.get() is not token

    first = threading.Thread(target=run, args=(main(True),))
    first.start()
    assert is_held.wait(20)
    run(main(False))
    may_end.set()
    first.join(20)
    assert len(maker.made) == 3
    assert [token.closed for token in maker.made] == [int(kind in CLOSING)] * 3


# A value that is never good.


@each_kind
def test_each_call_makes_one_where_none_is_ever_good(kind: type[Maker], run: Run) -> None:
    """Each call makes a value where ``valid`` takes none for good, and none is lost: each is closed once."""
    maker = kind()
    maker.verdict = lambda _: False

    async def main() -> None:
        got = [await maker.get() for _ in range(50)]
        assert got == maker.made
        assert len({*got}) == 50
        await turns()
        assert [token.closed for token in got] == [int(kind in CLOSING)] * 49 + [0]

    run(main())
    assert [token.closed for token in maker.made] == [int(kind in CLOSING)] * 50


@each_kind
def test_two_thousand_in_a_row_that_were_never_good_warn(kind: type[Maker]) -> None:
    """A factory of 2,000 values in a row that were not good when they were first found again warns, once on a loop."""
    maker = kind()
    maker.verdict = lambda _: False

    async def main() -> None:
        for _ in range(2_001):
            await maker.get()
        with pytest.warns(ResourceWarning, match=r"2,001 values in a row .* no longer valid") as warned:
            for _ in range(2_100):
                await maker.get()
        assert len(warned) == 1
        if kind in (Plain, Closed):
            assert warned[0].filename == __file__  # the caller's own line

    asyncio.run(main())


@each_kind
def test_a_service_that_renews_for_years_does_not_warn(kind: type[Maker]) -> None:
    """A value that was good at a call between is no reason to warn, however often it is renewed, or found bad meanwhile."""
    maker = kind()

    async def main() -> None:
        for number in range(5_000):
            token = await maker.get()
            if number % 1_000 == 0:  # a good one now and then is enough
                assert await maker.get() is token
            token.is_good = False

    asyncio.run(main())
    assert len(maker.made) == 5_000


# Making it anew, and who waits for that.


@each_kind
@on_each_loop
async def test_what_fails_to_be_made_anew_is_tried_again(kind: type[Maker]) -> None:
    """If the new value cannot be made, the error is the caller's; the next call tries again, and the old one is closed once."""
    maker = kind()
    first = await get_spoilt(maker)
    maker.on_make = error_once = Failing()
    with pytest.raises(OSError, match="no network"):
        await maker.get()
    assert error_once.count == 1
    maker.on_make = lambda: None
    second = await maker.get()
    assert await maker.get() is second is not first
    await turns()
    assert [first.closed, second.closed] == [kind in CLOSING, 0]


@pytest.mark.parametrize("kind", [Sticky, Awaited])
@on_each_loop
async def test_what_fails_to_be_entered_anew_is_tried_again(kind: type[Maker]) -> None:
    """If the new value cannot be entered, all who wait for it get the error, and the next block tries again."""
    maker = kind()
    first = await get_spoilt(maker)
    maker.gate.clear()
    maker.on_enter = Failing()
    waiting = [await begin(maker.get()) for _ in range(3)]
    maker.gate.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert len({*errors}) == 1
    assert isinstance(errors[0], OSError)
    maker.on_enter = lambda: None
    third = await maker.get()
    assert await maker.get() is third
    await turns()
    assert [token.closed for token in maker.made] == [1, 0, 0]
    assert maker.made[0] is first


class Failing:
    """Raises each time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        raise OSError("no network")


@each_waiting_kind
@on_each_loop
async def test_others_get_it_if_who_makes_it_anew_is_cancelled(kind: type[Maker]) -> None:
    """The task whose call has found that a value is no longer good may be cancelled: those who wait with it go on."""
    maker = kind()
    await get_spoilt(maker)
    maker.gate.clear()
    first = await begin(maker.get())
    others = [await begin(maker.get()) for _ in range(3)]
    await cancel(first)
    maker.gate.set()
    assert set(await asyncio.gather(*others)) == {await maker.get()} == {maker.made[-1]}
    assert len(maker.made) == 2


@each_waiting_kind
@on_each_loop
async def test_the_next_call_makes_it_if_all_who_wait_are_cancelled(kind: type[Maker]) -> None:
    """If all who wait for the new value are cancelled, the next call makes one; the old one is closed once all the same."""
    maker = kind()
    first = await get_spoilt(maker)
    maker.gate.clear()
    for task in [await begin(maker.get()) for _ in range(3)]:
        await cancel(task)
    maker.gate.set()
    assert await maker.get() is await maker.get() is maker.made[-1]
    await turns()
    assert first.closed == (kind in CLOSING)
    assert sum(token.closed for token in maker.made[1:]) == 0


# Code that ``valid`` runs.


@each_kind
@on_each_loop
async def test_valid_may_make_the_same_call(kind: type[Maker]) -> None:
    """Where ``valid`` makes the same call, it gets the value that it is asked about, and is not asked again."""
    maker = kind()
    first = await maker.get()
    found: list[Token] = []

    def verdict(token: Token) -> bool:
        found.append(finished(maker.get()))
        return token.is_good

    maker.verdict = verdict
    assert await maker.get() is first
    first.is_good = False
    second = await maker.get()
    assert found == maker.asked == [first, first]
    assert await maker.get() is second is maker.made[1]
    await turns()
    assert [first.closed, second.closed] == [kind in CLOSING, 0]


@each_kind
@on_each_loop
async def test_valid_may_make_another_call(kind: type[Maker]) -> None:
    """Where ``valid`` makes another call, that is checked too; where each of two values asks of the other, it ends."""
    maker = kind()
    tokens = {user: await maker.get(user) for user in ("a", "b")}

    def verdict(token: Token) -> bool:
        other = "b" if token is tokens["a"] else "a"
        return finished(maker.get(other)) is tokens[other] and token.is_good

    maker.verdict = verdict
    assert await maker.get("a") is tokens["a"]
    assert maker.asked == [tokens["a"], tokens["b"]]
    tokens["a"].is_good = False
    maker.asked.clear()
    new = await maker.get("a")
    assert new is maker.made[2]
    assert maker.asked == [tokens["a"], tokens["b"]]


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("it waits")


def start(coroutine: Coroutine[Any, Any, Any], *, at_once: bool) -> None:
    """Starts a task, which begins at once or at the loop's next turn."""
    if at_once and sys.version_info >= (3, 12):
        keep(_ended(asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)))
    else:
        keep(coroutine)


async def _ended(task: asyncio.Task[Any]) -> None:
    await task


@each_kind
@pytest.mark.parametrize("is_good", [True, False])
@pytest.mark.parametrize("at_once", [False, True] if sys.version_info >= (3, 12) else [False])
@on_each_loop
async def test_valid_may_release_what_it_is_asked_about(kind: type[Maker], is_good: bool, at_once: bool) -> None:
    """A value that ``valid`` itself releases is closed once, and made anew; no call gets what is being closed."""
    maker = kind()
    first = await maker.get()

    def verdict(token: Token) -> bool:
        maker.verdict = lambda token: token.is_good
        start(release(maker.make, "u"), at_once=at_once)
        return is_good

    maker.verdict = verdict
    token = await maker.get()
    is_released = at_once or asyncio.get_running_loop().get_task_factory() is not None
    assert (token is first) == (
        is_good and (kind in (Shared, SharedKeyed) or not is_released)
    )  # who has a coroutine may still await it
    await turns()
    await turns()
    second = await maker.get()
    assert second is await maker.get() is not first
    await turns()
    assert first.closed == (kind in CLOSING)
    assert second.closed == 0
    assert second.is_good


@each_kind
@pytest.mark.parametrize("is_good", [True, False])
@on_each_loop
async def test_valid_may_begin_to_close_everything(kind: type[Maker], is_good: bool) -> None:
    """Where ``valid`` starts a task that calls `aclose`, what it was asked about is closed once, and the next call makes anew."""
    maker = kind()
    first = await maker.get()
    closing: list[asyncio.Task[None]] = []

    def verdict(token: Token) -> bool:
        closing.append(asyncio.create_task(aclose()))
        return is_good

    maker.verdict = verdict
    await maker.get()
    await closing[0]
    maker.verdict = lambda token: token.is_good
    assert await maker.get() is await maker.get() is maker.made[-1] is not first
    assert first.closed == (kind in CLOSING)
    assert all(token.closed == (kind in CLOSING) for token in maker.made[:-1])


# What becomes of the old value.


@each_closing_kind
@on_each_loop
async def test_the_old_value_is_closed_while_the_new_one_is_in_use(kind: type[Maker]) -> None:
    """What nobody holds is closed as soon as it is found to be no longer good, once, and listed until then."""
    maker = kind()
    first = await get_spoilt(maker)
    assert len(resources()) == 1
    second = await maker.get()
    await turns()
    assert [first.closed, second.closed] == [1, 0]
    assert [each.state for each in resources()] == ["open"]
    await aclose()
    assert [first.closed, second.closed] == [1, 1]


@each_closing_kind
@on_each_loop
async def test_the_error_of_an_old_values_exit_is_reported(kind: type[Maker]) -> None:
    """If closing what is no longer good fails, the loop's exception handler gets the error; the caller gets the new value."""
    reports = reports_of_this_loop()
    maker = kind()
    first = await get_spoilt(maker)
    first.exit_error = OSError("broken pipe")
    second = await maker.get()
    await turns()
    assert [report["exception"] for report in reports] == [first.exit_error]
    assert "failed" in reports[0]["message"]
    assert await maker.get() is second


@each_closing_kind
@on_each_loop
async def test_it_outlives_a_resource_that_uses_it(kind: type[Maker]) -> None:
    """What a resource has got stays open until that resource has ended, also if it is no longer good, and nobody else's."""
    maker = kind()

    @asynccontextmanager
    async def service() -> AsyncGenerator[Token]:
        token = await maker.get()
        yield token
        assert not token.closed

    make_service = sticky_singleton_acm(service)
    async with make_service() as first:
        pass
    first.is_good = False
    assert await maker.get() is maker.made[1]
    await turns()
    assert first.closed == 0
    await release(make_service)
    await turns()
    assert [token.closed for token in maker.made] == [1, 0]


@each_closing_kind
@on_each_loop
async def test_a_resource_that_asks_again_uses_both(kind: type[Maker]) -> None:
    """A resource that has got an old value and then a new one is ended before both of them."""
    maker = kind()
    renew = asyncio.Event()
    renewed = asyncio.Event()

    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        async def serve() -> None:
            await renew.wait()
            tokens.append(await maker.get())
            renewed.set()

        tokens = [await maker.get()]
        task = asyncio.create_task(serve())
        yield
        await task
        assert tokens == maker.made[:2]
        assert not any(token.closed for token in tokens)

    await enter(service())
    maker.made[0].is_good = False
    renew.set()
    await renewed.wait()
    maker.made[1].is_good = False
    await maker.get()
    await turns()
    assert [token.closed for token in maker.made] == [0, 0, 0]
    await aclose()
    assert [token.closed for token in maker.made] == [1, 1, 1]


@each_closing_kind
@on_each_loop
async def test_it_may_be_renewed_from_inside_its_own_exit(kind: type[Maker]) -> None:
    """An exit that makes the call again gets the new value, which is then closed after it."""
    maker = kind()
    first = await get_spoilt(maker)
    own: list[Token] = []

    async def ask_once_more() -> None:
        own.append(await maker.get())

    first.on_close = ask_once_more
    second = await maker.get()
    await turns()
    assert own == [second]
    assert [token.closed for token in maker.made] == [1, 0]


# The object that a call has given.


@each_coroutine_kind
@on_each_loop
async def test_a_coroutine_that_was_kept_is_checked_at_each_await(kind: type[Maker]) -> None:
    """One coroutine object gives the present value at each await, in whatever way, however often that was renewed."""
    maker = kind()
    kept = maker.make()
    for number in range(20):
        token = await kept
        assert token is maker.made[number]
        assert maker.asked == maker.made[:number]
        assert await asyncio.create_task(kept) is await asyncio.wait_for(kept, 10) is await maker.get() is token
        token.is_good = False
        maker.asked.clear()
        maker.asked += maker.made[:number]
    waiting = [asyncio.ensure_future(kept if number % 2 else maker.make()) for number in range(100)]
    assert set(await asyncio.gather(*waiting)) == {maker.made[20]}
    await turns()
    assert [token.closed for token in maker.made] == [int(kind in CLOSING)] * 20 + [0]


@each_waiting_kind
def test_an_object_that_was_kept_serves_two_loops(kind: type[Maker], run: Run) -> None:
    """An object that one loop's call has given checks each loop's own value, and makes it anew there."""
    maker = kind()
    is_kept, may_end = threading.Event(), threading.Event()
    kept: list[Any] = []

    async def use_kept() -> Token:
        if kind in (Sticky, Keyed):
            async with kept[0] as token, kept[0] as again:
                assert token is again
                return token  # type: ignore[no-any-return]  # as the factory was wrapped
        return await kept[0]  # type: ignore[no-any-return]  # as the factory was wrapped

    async def first() -> None:
        kept.append(maker.make())
        token = await use_kept()
        is_kept.set()
        await asyncio.to_thread(may_end.wait, 20)
        assert await use_kept() is token
        token.is_good = False
        assert await use_kept() is not token
        await turns()
        assert token.closed == (kind in CLOSING)

    async def second() -> None:
        for number in range(1, 4):
            token = await use_kept()
            assert token is await maker.get() is maker.made[number]
            token.is_good = False

    thread = threading.Thread(target=run, args=(first(),))
    thread.start()
    assert is_kept.wait(20)
    run(second())
    may_end.set()
    thread.join(20)
    assert [token.closed for token in maker.made] == [int(kind in CLOSING)] * 5


# Blocks.


@each_sticky_kind
@on_each_loop
async def test_blocks_go_on_with_what_they_hold(kind: type[Maker]) -> None:
    """A value that is no longer good is exited when the last of the blocks that hold it is left, and not before."""
    maker = kind()
    old = [Block(maker.make("u")) for _ in range(3)]
    first = await old[0].token()
    assert [await block.token() for block in old] == [first] * 3
    first.is_good = False
    new = [Block(maker.make("u")) for _ in range(2)]
    second = await new[0].token()
    assert await new[1].token() is second is not first
    for block in old:
        assert first.closed == 0
        await block.leave()
    assert first.closed == 1
    second.is_good = False
    for block in new:
        await block.leave()
        assert second.closed == 0  # nobody has asked
    await maker.get()
    await turns()
    assert [token.closed for token in maker.made] == [1, 1, 0]


@each_sticky_kind
@on_each_loop
async def test_nested_blocks_of_one_task(kind: type[Maker]) -> None:
    """A task may hold an old value outside and newer ones inside; each is exited when its own block is left."""
    maker = kind()
    async with maker.make() as first:
        first.is_good = False
        async with maker.make() as second, maker.make() as same:
            assert second is same is not first
            second.is_good = False
            async with maker.make() as third:
                third.is_good = False
                await turns()
                assert [token.closed for token in maker.made] == [0, 0, 0]
            await turns()
            assert third.is_open  # nobody has asked since
        await turns()
        assert [token.closed for token in maker.made] == [0, 1, 0]
    await turns()
    assert [token.closed for token in maker.made] == [1, 1, 0]


@each_sticky_kind
@on_each_loop
async def test_one_object_is_used_for_ever(kind: type[Maker]) -> None:
    """An object that was kept gives the present value at each block, however often that was renewed, and holds no old one."""
    maker = kind()
    kept = maker.make()
    for number in range(20):
        async with kept as token:
            assert token is maker.made[number]
            async with kept as again, maker.make() as other:
                assert again is other is token
        token.is_good = False
    await maker.get()
    await turns()
    assert [token.closed for token in maker.made] == [1] * 20 + [0]


@each_sticky_kind
@pytest.mark.parametrize("is_kept", [True, False])
@on_each_loop
async def test_one_object_is_used_by_several_tasks(kind: type[Maker], is_kept: bool) -> None:
    """Tasks that use one object hold each its own value, in whatever order they come and go."""
    maker = kind()
    kept = maker.make()
    blocks: list[Block] = []
    for number in range(6):
        blocks += [Block(kept if is_kept else maker.make()) for _ in range(2)]
        assert await blocks[-2].token() is await blocks[-1].token() is maker.made[number]
        maker.made[number].is_good = False
    await maker.get()
    expected = [0] * 7
    for place in (3, 2, 11, 0, 5, 10, 4, 9, 1, 8, 7, 6):
        await blocks[place].leave()
        number = place // 2
        expected[number] = int(blocks[place ^ 1].task.done())
        assert [token.closed for token in maker.made] == expected


@each_sticky_kind
@on_each_loop
async def test_exit_stacks(kind: type[Maker]) -> None:
    """Blocks in an `AsyncExitStack` are blocks too, one task may have several on one object."""
    maker = kind()
    kept = maker.make()
    async with AsyncExitStack() as stack:
        held: list[Token] = []
        for _ in range(4):
            token = await stack.enter_async_context(kept)
            held.append(token)
            token.is_good = False
        assert held == maker.made
        moved = stack.pop_all()
    await maker.get()
    await turns()
    assert [token.closed for token in held] == [0] * 4
    await moved.aclose()
    await turns()
    assert [token.closed for token in maker.made] == [1] * 4 + [0]


@each_sticky_kind
@pytest.mark.parametrize("has_ended", [True, False])
@on_each_loop
async def test_a_block_may_be_left_by_another_task(kind: type[Maker], has_ended: bool) -> None:
    """What a task holds, and another lets go, as in a fixture or a generator that is dropped, is exited as all else."""
    maker = kind()
    kept = maker.make()
    first = await kept
    first.is_good = False
    stack = AsyncExitStack()
    may_end = asyncio.Event()

    async def hold() -> Token:
        token: Token = await stack.enter_async_context(kept)
        entered.set_result(token)
        if not has_ended:
            await may_end.wait()
        return token

    entered: asyncio.Future[Token] = asyncio.get_running_loop().create_future()
    holding = asyncio.create_task(hold())
    second = await entered
    if has_ended:
        await holding
    assert second is maker.made[1]
    second.is_good = False
    await maker.get()
    await turns()
    assert [token.closed for token in maker.made] == [1, 0, 0]
    await stack.aclose()
    await turns()
    assert [token.closed for token in maker.made] == [1, 1, 0]
    may_end.set()
    await holding


@each_sticky_kind
@on_each_loop
async def test_a_block_that_another_task_leaves_leaves_the_others_theirs(kind: type[Maker]) -> None:
    """Of several blocks of one object, some left by other tasks than have begun them, none loses what it holds."""
    maker = kind()
    kept = maker.make()
    old = Block(kept)
    first = await old.token()
    first.is_good = False
    stack = AsyncExitStack()
    second = await asyncio.create_task(stack.enter_async_context(kept))
    assert second is maker.made[1]
    second.is_good = False
    new = Block(kept)
    assert await new.token() is maker.made[2]
    await old.leave()
    assert [token.closed for token in maker.made] == [1, 0, 0]
    await stack.aclose()
    await turns()
    assert [token.closed for token in maker.made] == [1, 1, 0]
    await new.leave()
    assert [token.closed for token in maker.made] == [1, 1, 0]


@each_sticky_kind
@on_each_loop
async def test_a_dropped_generator_lets_go(kind: type[Maker]) -> None:
    """An asynchronous generator that was dropped in its block, and is closed by the loop, holds no value any longer."""
    maker = kind()

    async def items() -> AsyncGenerator[Token]:
        async with maker.make() as token:
            while True:
                yield token

    async def take_one() -> Token:
        async for token in items():
            return token
        raise AssertionError

    first = await get_spoilt(maker)
    second = await asyncio.create_task(take_one())
    gc.collect()
    await turns()
    second.is_good = False
    await maker.get()
    await turns()
    assert maker.made[:2] == [first, second]
    assert [token.closed for token in maker.made] == [1, 1, 0]


@each_sticky_kind
def test_a_coroutine_that_is_closed_where_no_loop_runs(kind: type[Maker], run: Run) -> None:
    """A coroutine that is closed in its block when its loop has ended leaves the block without an error."""
    maker = kind()

    async def hold(acm: Any) -> None:
        async with acm:
            await _suspend()

    async def main() -> list[Coroutine[Any, Any, None]]:
        kept = maker.make()
        token = await kept
        coroutines: list[Coroutine[Any, Any, None]] = []
        for number in range(4):
            token.is_good = number != 1
            coroutines.append(hold(kept))
            await _until_suspended(coroutines[-1])
        return coroutines

    coroutines = run(main())
    assert [token.closed for token in maker.made] == [1, 1]
    for coroutine in coroutines:
        coroutine.close()
    assert [token.closed for token in maker.made] == [1, 1]


_SUSPENDED = object()


@types.coroutine
def _suspend() -> Generator[object]:
    yield _SUSPENDED


@types.coroutine
def _until_suspended(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any]:
    while (step := coroutine.send(None)) is not _SUSPENDED:
        yield step


@each_sticky_kind
@on_each_loop
async def test_what_waits_to_be_entered_is_held(kind: type[Maker]) -> None:
    """A task that still waits for a value while another finds that it is no longer good gets it, and goes on with it."""
    maker = kind()
    maker.gate.clear()
    waiting = Block(maker.make())
    await turns()

    def spoil() -> None:
        maker.made[0].is_good = False
        others.append(Block(maker.make()))  # it asks before the waiting task has run

    others: list[Block] = []
    asyncio.get_running_loop().call_soon(maker.gate.set)
    while not maker.made[0].is_open:
        await asyncio.sleep(0)
    spoil()
    first = await waiting.token()
    assert first is maker.made[0]
    second = await others[0].token()
    await turns()
    assert second is maker.made[1]
    assert first.closed == 0
    await waiting.leave()
    assert first.closed == 1
    await others[0].leave()
    assert second.closed == 0


@each_sticky_kind
@on_each_loop
async def test_a_block_that_valid_fails_for_holds_nothing(kind: type[Maker]) -> None:
    """A block that did not begin, since ``valid`` failed or its task was cancelled, keeps nothing open."""
    maker = kind()
    kept = maker.make()
    maker.gate.clear()
    waiting = await begin(kept)
    other = await begin(kept)
    await cancel(waiting)
    maker.gate.set()
    first = await other

    def fail(_: Token) -> bool:
        raise KeyError("valid")

    maker.verdict = fail
    with pytest.raises(KeyError):
        await kept
    maker.verdict = lambda _: False
    assert await kept is maker.made[1]
    await turns()
    assert first.closed == 1


@each_sticky_kind
@on_each_loop
async def test_release_does_not_wait_for_blocks(kind: type[Maker]) -> None:
    """`release` exits at once what blocks hold, as without ``valid=``; leaving them later does nothing more."""
    maker = kind()
    acm = maker.make()
    async with acm as first, acm:
        assert await release(maker.make) is True
        assert first.closed == 1
        async with acm as second:
            assert second is maker.made[1]
            second.is_good = False
            await maker.get()
            assert await release_all(maker.make) == 1
            assert [token.closed for token in maker.made] == [1, 0, 1]
    await turns()
    assert [token.closed for token in maker.made] == [1, 1, 1]


@each_sticky_kind
@on_each_loop
async def test_what_blocks_hold_is_no_longer_found(kind: type[Maker]) -> None:
    """An old value that is still held is listed as open, but `release` and `release_all` find the new one alone."""
    maker = kind()
    block = Block(maker.make())
    first = await block.token()
    first.is_good = False
    assert await release_all(maker.make) == 1
    assert first.closed == 1
    block.task.cancel()
    await asyncio.wait([block.task])
    block = Block(maker.make())
    second = await block.token()
    second.is_good = False
    await maker.get()
    assert [each.state for each in resources()] == ["open", "open"]
    assert await release(maker.make) is True
    assert await release(maker.make) is False
    assert [token.closed for token in maker.made] == [1, 0, 1]
    await block.leave()
    assert [token.closed for token in maker.made] == [1, 1, 1]


@each_sticky_kind
@on_each_loop
async def test_override_keeps_valid(kind: type[Maker]) -> None:
    """A replacement's values are checked too; what blocks hold of them after the override is exited when they are left."""
    maker = kind()
    other = Sticky()
    original = await maker.get()
    with override(maker.make, other.new):
        block = Block(maker.make())
        first = await block.token()
        first.is_good = False
        later = Block(maker.make())
        second = await later.token()
        assert other.made == [first, second]
    await turns()
    assert [token.closed for token in other.made] == [0, 0]
    assert await maker.get() is original
    await block.leave()
    await later.leave()
    assert [token.closed for token in other.made] == [1, 1]


@on_each_loop
async def test_a_value_that_dies_in_its_blocks() -> None:
    """A value that dies while it is held, good or not, is forgotten and exited once; its blocks are left as usual."""
    reports = reports_of_this_loop()
    deaths: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def dying() -> AsyncGenerator[Token]:
        async def die(death: asyncio.Future[None]) -> None:
            await death

        death = asyncio.get_running_loop().create_future()
        deaths.append(death)
        token = Token(maker, len(deaths))
        async with asyncio.TaskGroup() as group:
            group.create_task(die(death))
            try:
                yield token
            finally:
                token.closed += 1
                if not death.done():
                    death.set_result(None)

    maker = Sticky()
    make = sticky_singleton_acm(dying, valid=lambda token: token.is_good)
    for is_retired in (True, False):
        async with make() as first:
            first.is_good = not is_retired
            number = len(deaths)
            async with make() as second:
                assert (second is first) is not is_retired
                deaths[number - 1].set_exception(OSError("lost"))
                await turns()
                assert first.closed == 1
                assert second.closed == (not is_retired)
            async with make() as third:
                assert third is not first
                assert (third is second) is is_retired
        await turns()
        assert first.closed == 1
        await release(make)
    assert len(reports) == 2


# The end of the loop.


@each_sticky_kind
@on_each_loop
async def test_aclose_exits_what_blocks_hold(kind: type[Maker]) -> None:
    """`aclose` ends old and new values, held or not, each once; blocks that are left afterwards do nothing."""
    maker = kind()
    async with maker.make() as first:
        first.is_good = False
        async with maker.make() as second:
            await aclose()
            assert [first.closed, second.closed] == [1, 1]
        assert await maker.get() is maker.made[2]
    await turns()
    assert [token.closed for token in maker.made] == [1, 1, 0]


@each_sticky_kind
def test_the_end_of_the_loop_exits_old_and_new(kind: type[Maker], run: Run) -> None:
    """When the loop ends while blocks hold old values, the tasks end first, then each value is exited, once."""
    maker = kind()
    left: list[tuple[Token, int]] = []

    async def hold() -> None:
        async with maker.make() as token:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.append((token, token.closed))

    async def main() -> None:
        for number in range(4):
            started.clear()
            keep(hold())
            await started.wait()
            maker.made[number].is_good = False

    started = asyncio.Event()
    run(main())
    assert sorted(token.number for token, _ in left) == [0, 1, 2, 3]
    assert [closed for _, closed in left] == [0] * 4
    assert [token.closed for token in maker.made] == [1] * 4


@each_sticky_kind
def test_a_loop_that_is_closed_by_hand_exits_what_tasks_hold(
    kind: type[Maker], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Where nobody cancels the tasks, `loop.close` exits what their blocks hold all the same."""
    maker = kind()

    async def hold() -> None:
        async with maker.make():
            await asyncio.Event().wait()

    async def main() -> None:
        keep(hold())
        await turns()
        maker.made[0].is_good = False
        keep(hold())
        await turns()

    loop = new_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # which hears of the tasks
    loop.run_until_complete(main())
    loop.close()
    assert [token.closed for token in maker.made] == [1, 1]
    gc.collect()
    assert [token.closed for token in maker.made] == [1, 1]


@each_sticky_kind
def test_ctrl_c_in_a_block_exits_old_and_new(kind: type[Maker]) -> None:
    """A `KeyboardInterrupt` in a block that holds an old value ends the loop, and each value is exited, once."""
    maker = kind()

    async def main() -> None:
        async with maker.make() as first:
            first.is_good = False
            async with maker.make():
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert [token.closed for token in maker.made] == [1, 1]


@each_kind
def test_ctrl_c_in_valid_changes_nothing(kind: type[Maker]) -> None:
    """A `KeyboardInterrupt` that comes while ``valid`` runs is the caller's, and the value is closed at the loop's end."""
    maker = kind()

    async def main() -> None:
        first = await maker.get()

        def interrupt(_: Token) -> bool:
            raise KeyboardInterrupt

        maker.verdict = interrupt
        try:
            finished(maker.get())
        except KeyboardInterrupt:
            maker.verdict = lambda _: True
            assert await maker.get() is first
            raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert [token.closed for token in maker.made] == [int(kind in CLOSING)]


# Real clients.


@on_each_loop
async def test_an_aiohttp_session_that_somebody_has_closed() -> None:
    """A session that some code has closed is no longer given to others; it stays as it is for who holds it."""
    make = sticky_singleton_acm(aiohttp.ClientSession, valid=lambda session: not session.closed)
    async with make() as outer, make() as session:
        assert session is outer
        await session.close()
        async with make() as other:
            assert other is not session
            assert not other.closed
        assert await make() is other
    assert await make() is other
    await turns()
    assert [each.state for each in resources()] == ["open"]


@on_each_loop
async def test_an_httpx_client_that_somebody_has_closed() -> None:
    """A client that is made without ``await``, and that some code has closed, is made anew, and the new one is closed too."""
    client_for = singleton(httpx.AsyncClient, close=httpx.AsyncClient.aclose, valid=lambda client: not client.is_closed)
    first = client_for(base_url="http://a")
    async with first:
        assert client_for(base_url="http://a") is first
    second = client_for(base_url="http://a")
    assert second is not first
    assert not second.is_closed
    await aclose()
    assert second.is_closed


@on_each_loop
async def test_a_token_that_expires() -> None:
    """A token is fetched once for all who ask, and once more when it has expired."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    fetched: list[float] = []

    async def fetch(audience: str) -> float:
        await asyncio.sleep(0)
        fetched.append(now + 60)  # when it expires
        return fetched[-1]

    token_for = singleton(fetch, valid=lambda expires: now < expires)
    for number in range(1, 5):
        tokens = await asyncio.gather(*(token_for("a") for _ in range(50)))
        assert set(tokens) == {fetched[-1]}
        assert len(fetched) == number
        now += 60


@on_each_loop
async def test_a_connection_that_the_server_has_closed() -> None:
    """A connection that was broken is made anew by the next block, and each one is closed, once."""
    served: list[asyncio.StreamWriter] = []
    closed: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    @asynccontextmanager
    async def connect() -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            yield reader, writer
        finally:
            closed.append(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    make = sticky_singleton_acm(connect, valid=lambda connection: not connection[0].at_eof())

    async def echo(word: bytes) -> bytes:
        async with make() as (reader, writer):
            writer.write(word)
            return await reader.readline()

    for number in range(3):
        assert await echo(b"one\n") == b"one\n"
        assert await echo(b"two\n") == b"two\n"
        assert (len(served), len(closed)) == (number + 1, number)
        served[-1].close()
        async with make() as (reader, _):
            assert await reader.read() == b""
    await release(make)
    server.close()
    assert (len(served), len(closed)) == (3, 3)


@on_each_loop
async def test_valid_is_asked_about_what_a_wrapped_coroutine_function_gives() -> None:
    """Each later await asks ``valid``, also of a coroutine function that `singleton` has wrapped already."""
    asked: list[object] = []

    @singleton
    async def token() -> object:
        return object()

    def is_good(value: object) -> bool:
        asked.append(value)
        return len(asked) != 2

    checked = singleton(token, valid=is_good)
    first = await checked()
    assert asked == []
    assert await checked() is first
    assert await release(token)
    second = await checked()
    assert second is not first
    assert asked == [first, first]
