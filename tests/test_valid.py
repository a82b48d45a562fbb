"""``valid=``: a value that is no longer good is made anew, and the old one is exited when nothing holds it any more."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self
from unittest.mock import MagicMock

import aiohttp
import httpx
import pytest

from asyncio_loop_local import aclose, enter, override, release, release_all, resources, singleton, sticky_singleton_acm, storage
from conftest import Run
from recording import begin, cancel, keep, on_each_loop, on_one_loop, reports_of_this_loop, turns


def own_key(user: str = "u") -> str:
    return user.lower()


class Token:
    """A value that counts how often it was closed."""

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


def is_good(token: Token) -> bool:
    return token.is_good


class Maker:
    """A factory of one kind, whose values are checked; what it does, and what ``valid`` does, a test may change."""

    def __init__(self, kind: str = "sticky") -> None:
        self.kind = kind
        self.made: list[Token] = []
        self.asked: list[Token] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_make: Callable[[], object] = lambda: None
        self.on_enter: Callable[[], object] = lambda: None
        self.verdict: Callable[[Token], object] = is_good
        options: dict[str, Any] = {"valid": self.valid}
        if "key=" in kind:
            options["key"] = own_key
        if "close=" in kind:
            options["close"] = Token.close
        self.make: Callable[..., Any] = (
            sticky_singleton_acm(self.new, **options)
            if "sticky" in kind
            else singleton(self.connect if "coroutine" in kind else self.new, **options)
        )

    async def get(self, user: str = "u") -> Token:
        """The token, as any caller gets it."""
        made = self.make(user)
        if self.kind in STICKY:
            async with made as token:
                return token  # type: ignore[no-any-return]  # as wrapped above
        return made if self.kind.startswith("function") else await made  # type: ignore[no-any-return]  # as wrapped above

    async def get_spoilt(self) -> Token:
        """A token that has gone bad since."""
        token = await self.get()
        token.is_good = False
        return token

    @property
    def closes(self) -> int:
        """How often a value is closed that is no longer good."""
        return int(self.kind in CLOSING)

    @property
    def closed(self) -> list[int]:
        """How often each value has been closed."""
        return [token.closed for token in self.made]

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


STICKY = ["sticky", "sticky, key="]
PLAIN = ["function", "function, close="]
COROUTINES = ["coroutine", "coroutine, close=", "coroutine, key=", "coroutine, close=, key="]
WAITING = [*STICKY, "sticky, awaited", *COROUTINES]  # in which making is entering or awaiting
KINDS = [*WAITING, *PLAIN]
CLOSING = [kind for kind in KINDS if "sticky" in kind or "close=" in kind]


@pytest.fixture
def maker(request: pytest.FixtureRequest) -> Maker:
    """A maker of the kind that the test is parametrized with."""
    return Maker(request.param)


each_kind = pytest.mark.parametrize("maker", KINDS, indirect=True)
each_closing_kind = pytest.mark.parametrize("maker", CLOSING, indirect=True)
each_waiting_kind = pytest.mark.parametrize("maker", WAITING, indirect=True)
each_coroutine_kind = pytest.mark.parametrize("maker", COROUTINES, indirect=True)
each_sticky_kind = pytest.mark.parametrize("maker", STICKY, indirect=True)


class Block:
    """A task that is in a block until its `leave` is called."""

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


@pytest.mark.parametrize("maker", [*KINDS, "function, key="], indirect=True)
@on_each_loop
async def test_what_is_no_longer_good_is_made_anew(maker: Maker) -> None:
    """Each call that finds a value asks ``valid`` once; only a value that is no longer good is made anew, once."""
    first, other = await maker.get("a"), await maker.get("b")
    assert maker.asked == []
    same = "A" if "key=" in maker.kind else "a"
    assert await maker.get(same) is first
    first.is_good = False
    second = await maker.get(same)
    assert second is not first
    first.is_good = True
    assert await maker.get("a") is second
    assert await maker.get("b") is other
    assert maker.asked == [first, first, second, other]
    assert maker.made == [first, other, second]


@each_waiting_kind
@on_each_loop
async def test_who_waits_gets_what_is_made_unchecked(maker: Maker) -> None:
    """Tasks that wait for a value which is being made all get it, without another question."""
    maker.gate.clear()
    waiting = [await begin(maker.get()) for _ in range(3)]
    maker.gate.set()
    assert set(await asyncio.gather(*waiting)) == {maker.made[0]}
    assert maker.asked == []


@each_kind
@on_each_loop
async def test_a_thousand_tasks_make_one_new_value(maker: Maker) -> None:
    """However many ask while a value is no longer good, one new value is made, and all get that."""
    first = await maker.get_spoilt()
    maker.gate.clear()
    asking = [asyncio.create_task(maker.get()) for _ in range(1_000)]
    await turns()
    maker.gate.set()
    assert set(await asyncio.gather(*asking)) == {maker.made[1]}
    assert len(maker.made) == 2
    await turns()
    assert first.closed == maker.closes


def fail(_: Token) -> bool:
    raise KeyError("valid")


class Undecided:
    """Is neither true nor false, as a numpy array."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


async def later() -> bool:
    return False


WRONG: dict[str, tuple[Callable[[Token], object], type[Exception], str]] = {
    "an error": (fail, KeyError, "valid"),
    "neither true nor false": (lambda _: Undecided(), ValueError, "ambiguous"),
    "a coroutine": (lambda _: later(), TypeError, r"valid=… of .* returned an awaitable"),
    "a future": (lambda _: asyncio.Future[bool](), TypeError, r"valid=… of .* returned an awaitable"),
}


@each_kind
@pytest.mark.parametrize(("verdict", "error", "message"), WRONG.values(), ids=list(WRONG))
@on_each_loop
async def test_an_error_of_valid_changes_nothing(
    maker: Maker, verdict: Callable[[Token], object], error: type[Exception], message: str
) -> None:
    """An error of ``valid``, or of what it returns, is the caller's; the value stays what the next call finds."""
    first = await maker.get()
    maker.verdict = verdict
    for _ in range(3):
        with pytest.raises(error, match=message):
            await maker.get()
    maker.verdict = is_good
    assert await maker.get() is first
    first.is_good = False
    assert await maker.get() is not first
    await turns()
    assert first.closed == maker.closes


@each_kind
@pytest.mark.parametrize(
    ("verdict", "is_valid"), [(1, True), ("yes", True), (object(), True), (0, False), (None, False), ("", False), ([], False)]
)
@on_each_loop
async def test_valid_may_return_anything_that_is_true_or_false(maker: Maker, verdict: object, is_valid: bool) -> None:
    """What ``valid`` returns counts as in an ``if``."""
    maker.verdict = lambda _: verdict
    assert (await maker.get() is await maker.get()) is is_valid


def run_beside(run: Run, first: Callable[[Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]], second: Any) -> None:
    """Runs the second while the first, on the loop of another thread, waits in the call of its argument."""
    is_waiting, may_go_on = threading.Event(), threading.Event()

    async def pause() -> None:
        is_waiting.set()
        await asyncio.to_thread(may_go_on.wait, 20)

    thread = threading.Thread(target=run, args=(first(pause),))
    thread.start()
    assert is_waiting.wait(20)
    run(second())
    may_go_on.set()
    thread.join(20)


@each_kind
def test_each_loop_asks_of_its_own_value(maker: Maker, run: Run) -> None:
    """On a second loop a value is made, checked and made anew as on the first, also in another thread meanwhile."""

    async def first(pause: Callable[[], Awaitable[None]]) -> None:
        token = await maker.get()
        await pause()
        assert await maker.get() is token

    async def second() -> None:
        token = await maker.get_spoilt()
        assert await maker.get() is not token

    run_beside(run, first, second)
    assert maker.closed == [maker.closes] * 3


# A value that is never good.


@each_kind
def test_each_call_makes_one_where_none_is_ever_good(maker: Maker, run: Run) -> None:
    """Each call makes a value where ``valid`` takes none for good, and none is lost: each is closed once."""
    maker.verdict = lambda _: False

    async def main() -> None:
        got = [await maker.get() for _ in range(50)]
        assert got == maker.made
        assert len({*got}) == 50
        await turns()
        assert [token.closed for token in got] == [maker.closes] * 49 + [0]

    run(main())
    assert maker.closed == [maker.closes] * 50


@each_kind
@on_one_loop
async def test_two_thousand_in_a_row_that_were_never_good_warn(maker: Maker) -> None:
    """A factory of 2,000 values in a row that were not good when they were first found again warns, once on a loop."""
    maker.verdict = lambda _: False
    for _ in range(2_001):
        await maker.get()
    with pytest.warns(ResourceWarning, match=r"2,001 values in a row .* no longer valid") as warned:
        for _ in range(2_100):
            await maker.get()
    assert len(warned) == 1
    if maker.kind in PLAIN:
        assert warned[0].filename == __file__  # the caller's own line


@each_kind
@on_one_loop
async def test_a_service_that_renews_for_years_does_not_warn(maker: Maker) -> None:
    """A value that was good at a call between is no reason to warn, however often it is renewed, or found bad meanwhile."""
    for number in range(5_000):
        token = await maker.get()
        if number % 1_000 == 0:  # a good one now and then is enough
            assert await maker.get() is token
        token.is_good = False
    assert len(maker.made) == 5_000


# Making it anew, and who waits for that.


@each_kind
@on_each_loop
async def test_what_fails_to_be_made_anew_is_tried_again(maker: Maker) -> None:
    """If the new value cannot be made, the error is the caller's; the next call tries again, and the old one is closed once."""
    first = await maker.get_spoilt()
    maker.on_make = MagicMock(side_effect=OSError("no network"))
    with pytest.raises(OSError, match="no network"):
        await maker.get()
    maker.on_make.assert_called_once()
    maker.on_make = lambda: None
    second = await maker.get()
    assert await maker.get() is second is not first
    await turns()
    assert [first.closed, second.closed] == [maker.closes, 0]


@pytest.mark.parametrize("maker", ["sticky", "sticky, awaited"], indirect=True)
@on_each_loop
async def test_what_fails_to_be_entered_anew_is_tried_again(maker: Maker) -> None:
    """If the new value cannot be entered, all who wait for it get the error, and the next block tries again."""
    first = await maker.get_spoilt()
    maker.gate.clear()
    maker.on_enter = MagicMock(side_effect=OSError("no network"))
    waiting = [await begin(maker.get()) for _ in range(3)]
    maker.gate.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [maker.on_enter.side_effect] * 3
    maker.on_enter = lambda: None
    third = await maker.get()
    assert await maker.get() is third
    await turns()
    assert maker.closed == [1, 0, 0]
    assert maker.made[0] is first


@each_waiting_kind
@on_each_loop
async def test_others_get_it_if_who_makes_it_anew_is_cancelled(maker: Maker) -> None:
    """The task whose call has found that a value is no longer good may be cancelled: those who wait with it go on."""
    await maker.get_spoilt()
    maker.gate.clear()
    first = await begin(maker.get())
    others = [await begin(maker.get()) for _ in range(3)]
    await cancel(first)
    maker.gate.set()
    assert set(await asyncio.gather(*others)) == {await maker.get()} == {maker.made[-1]}
    assert len(maker.made) == 2


@each_waiting_kind
@on_each_loop
async def test_the_next_call_makes_it_if_all_who_wait_are_cancelled(maker: Maker) -> None:
    """If all who wait for the new value are cancelled, the next call makes one; the old one is closed once all the same."""
    first = await maker.get_spoilt()
    maker.gate.clear()
    for task in [await begin(maker.get()) for _ in range(3)]:
        await cancel(task)
    maker.gate.set()
    assert await maker.get() is await maker.get() is maker.made[-1]
    await turns()
    assert first.closed == maker.closes
    assert sum(token.closed for token in maker.made[1:]) == 0


# Code that ``valid`` runs.


@each_kind
@on_each_loop
async def test_valid_may_make_the_same_call(maker: Maker) -> None:
    """Where ``valid`` makes the same call, it gets the value that it is asked about, and is not asked again."""
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
    assert [first.closed, second.closed] == [maker.closes, 0]


@each_kind
@on_each_loop
async def test_valid_may_make_another_call(maker: Maker) -> None:
    """Where ``valid`` makes another call, that is checked too; where each of two values asks of the other, it ends."""
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
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        storage().setdefault("tasks", []).append(task)
    else:
        keep(coroutine)


@each_kind
@pytest.mark.parametrize("is_valid", [True, False])
@pytest.mark.parametrize("at_once", [False, True] if sys.version_info >= (3, 12) else [False])
@on_each_loop
async def test_valid_may_release_what_it_is_asked_about(maker: Maker, is_valid: bool, at_once: bool) -> None:
    """A value that ``valid`` itself releases is closed once, and made anew; no call gets what is being closed."""
    first = await maker.get()

    def verdict(token: Token) -> bool:
        maker.verdict = is_good
        start(release(maker.make, "u"), at_once=at_once)
        return is_valid

    maker.verdict = verdict
    token = await maker.get()
    is_released = at_once or asyncio.get_running_loop().get_task_factory() is not None
    is_still_given = maker.kind in ("coroutine", "coroutine, key=") or not is_released  # a coroutine may still be awaited
    assert (token is first) == (is_valid and is_still_given)
    await turns()
    await turns()
    second = await maker.get()
    assert second is await maker.get() is not first
    await turns()
    assert [first.closed, second.closed, second.is_good] == [maker.closes, 0, True]


@each_kind
@pytest.mark.parametrize("is_valid", [True, False])
@on_each_loop
async def test_valid_may_begin_to_close_everything(maker: Maker, is_valid: bool) -> None:
    """Where ``valid`` starts a task that calls `aclose`, what it was asked about is closed once, and the next call makes anew."""
    first = await maker.get()
    closing: list[asyncio.Task[None]] = []

    def verdict(token: Token) -> bool:
        closing.append(asyncio.create_task(aclose()))
        return is_valid

    maker.verdict = verdict
    await maker.get()
    await closing[0]
    maker.verdict = is_good
    assert await maker.get() is await maker.get() is maker.made[-1] is not first
    assert first.closed == maker.closes
    assert maker.closed[:-1] == [maker.closes] * (len(maker.made) - 1)


# What becomes of the old value.


@each_closing_kind
@on_each_loop
async def test_the_old_value_is_closed_while_the_new_one_is_in_use(maker: Maker) -> None:
    """A value that no block holds is closed as soon as it is found to be no longer good, once, and listed until then."""
    first = await maker.get_spoilt()
    assert len(resources()) == 1
    second = await maker.get()
    await turns()
    assert [first.closed, second.closed] == [1, 0]
    assert [each.state for each in resources()] == ["open"]
    await aclose()
    assert [first.closed, second.closed] == [1, 1]


@each_closing_kind
@on_each_loop
async def test_the_error_of_an_old_values_exit_is_reported(maker: Maker) -> None:
    """If closing what is no longer good fails, the loop's exception handler gets the error; the caller gets the new value."""
    reports = reports_of_this_loop()
    first = await maker.get_spoilt()
    first.exit_error = OSError("broken pipe")
    second = await maker.get()
    await turns()
    assert [report["exception"] for report in reports] == [first.exit_error]
    assert "failed" in reports[0]["message"]
    assert await maker.get() is second


@each_closing_kind
@on_each_loop
async def test_it_outlives_a_resource_that_uses_it(maker: Maker) -> None:
    """A value that a resource has got stays open until that resource has ended, though it is no longer good."""

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
    assert maker.closed == [1, 0]


@each_closing_kind
@on_each_loop
async def test_a_resource_that_asks_again_uses_the_new_value_alone(maker: Maker) -> None:
    """However often a worker of a resource asks anew, the old values are exited, and only the last one outlives the resource."""

    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        async def work() -> None:
            for _ in range(5):
                token = await maker.get()
                await turns()
                token.is_good = False
            worked.set()

        worked = asyncio.Event()
        worker = asyncio.create_task(work())
        await worked.wait()
        yield
        await worker
        assert maker.closed == [1, 1, 1, 1, 0]

    await enter(service())
    await turns()
    assert maker.closed == [1, 1, 1, 1, 0]


@each_closing_kind
@on_each_loop
async def test_a_resource_that_asks_again_in_vain_uses_the_old_value_no_longer_when_it_gets_a_new_one(maker: Maker) -> None:
    """If making the new value fails at first, the old one is exited when the resource's code has got a new one at last."""

    def fail() -> None:
        raise OSError("refused")

    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        async def work() -> None:
            await maker.get_spoilt()
            if "coroutine" in maker.kind or "function" in maker.kind:
                maker.on_make = fail
            else:
                maker.on_enter = fail
            for _ in range(2):
                with pytest.raises(OSError, match="refused"):
                    await maker.get()
            maker.on_make = maker.on_enter = lambda: None
            await maker.get()
            worked.set()

        worked = asyncio.Event()
        worker = asyncio.create_task(work())
        await worked.wait()
        yield
        await worker

    await enter(service())
    await turns()
    assert maker.closed[0] == 1
    assert maker.made[-1].closed == 0


@pytest.mark.parametrize("maker", ["sticky", "sticky, key="], indirect=True)
@on_each_loop
async def test_a_block_of_a_resource_keeps_its_value_when_the_resource_asks_again(maker: Maker) -> None:
    """Another task of the resource gets a new value; the old one is exited when the block is left, and not before."""
    asked, may_leave = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def service() -> AsyncGenerator[None]:
        async def hold() -> None:
            async with maker.make("u"):
                await may_leave.wait()
                assert maker.closed == [0, 0]

        async def ask() -> None:
            maker.made[0].is_good = False
            await maker.get()
            asked.set()

        holding = asyncio.create_task(hold())
        await turns()
        asking = asyncio.create_task(ask())
        yield
        await asyncio.gather(holding, asking)

    await enter(service())
    await asked.wait()
    await turns()
    may_leave.set()
    await turns()
    assert maker.closed == [1, 0]


@each_closing_kind
@on_each_loop
async def test_it_may_be_renewed_from_inside_its_own_exit(maker: Maker) -> None:
    """An exit that makes the call again gets the new value, which is then closed after it."""
    first = await maker.get_spoilt()
    own: list[Token] = []

    async def ask_once_more() -> None:
        own.append(await maker.get())

    first.on_close = ask_once_more
    second = await maker.get()
    await turns()
    assert own == [second]
    assert maker.closed == [1, 0]


# The object that a call has given.


@each_coroutine_kind
@on_each_loop
async def test_a_coroutine_that_was_kept_is_checked_at_each_await(maker: Maker) -> None:
    """One coroutine object gives the present value at each await, in whatever way, however often that was renewed."""
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
    assert maker.closed == [maker.closes] * 20 + [0]


@each_waiting_kind
def test_an_object_that_was_kept_serves_two_loops(maker: Maker, run: Run) -> None:
    """An object that one loop's call has given checks each loop's own value, and makes it anew there."""
    kept: list[Any] = []

    async def use_kept() -> Token:
        if maker.kind in STICKY:
            async with kept[0] as token, kept[0] as again:
                assert token is again
                return token  # type: ignore[no-any-return]  # as the factory was wrapped
        return await kept[0]  # type: ignore[no-any-return]  # as the factory was wrapped

    async def first(pause: Callable[[], Awaitable[None]]) -> None:
        kept.append(maker.make())
        token = await use_kept()
        await pause()
        assert await use_kept() is token
        token.is_good = False
        assert await use_kept() is not token
        await turns()
        assert token.closed == maker.closes

    async def second() -> None:
        for number in range(1, 4):
            token = await use_kept()
            assert token is await maker.get() is maker.made[number]
            token.is_good = False

    run_beside(run, first, second)
    assert maker.closed == [maker.closes] * 5


# Blocks.


@each_sticky_kind
@on_each_loop
async def test_blocks_go_on_with_what_they_hold(maker: Maker) -> None:
    """A value that is no longer good is exited at the end of the last block that holds it, and not before."""
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
    assert maker.closed == [1, 1, 0]


@each_sticky_kind
@on_each_loop
async def test_nested_blocks_of_one_task(maker: Maker) -> None:
    """A task may hold an old value outside and newer ones inside; each is exited at the end of its own block."""
    async with maker.make() as first:
        first.is_good = False
        async with maker.make() as second, maker.make() as same:
            assert second is same is not first
            second.is_good = False
            async with maker.make() as third:
                third.is_good = False
                await turns()
                assert maker.closed == [0, 0, 0]
            await turns()
            assert third.is_open  # nobody has asked since
        await turns()
        assert maker.closed == [0, 1, 0]
    await turns()
    assert maker.closed == [1, 1, 0]


@each_sticky_kind
@on_each_loop
async def test_one_object_is_used_for_ever(maker: Maker) -> None:
    """An object that was kept gives the present value at each block, however often that was renewed, and holds no old one."""
    kept = maker.make()
    for number in range(20):
        async with kept as token:
            assert token is maker.made[number]
            async with kept as again, maker.make() as other:
                assert again is other is token
        token.is_good = False
    await maker.get()
    await turns()
    assert maker.closed == [1] * 20 + [0]


@each_sticky_kind
@pytest.mark.parametrize("is_kept", [True, False])
@on_each_loop
async def test_one_object_is_used_by_several_tasks(maker: Maker, is_kept: bool) -> None:
    """Tasks that use one object hold each its own value, in whatever order they come and go."""
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
        assert maker.closed == expected


@each_sticky_kind
@on_each_loop
async def test_exit_stacks(maker: Maker) -> None:
    """Blocks in an `AsyncExitStack` are blocks too, one task may have several on one object."""
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
    assert maker.closed == [1] * 4 + [0]


@each_sticky_kind
@pytest.mark.parametrize("has_ended", [True, False])
@on_each_loop
async def test_a_block_may_be_left_by_another_task(maker: Maker, has_ended: bool) -> None:
    """A block that one task begins and another leaves, as in a fixture or a dropped generator, exits its value as any other."""
    kept = maker.make()
    (await kept).is_good = False
    stack = AsyncExitStack()
    may_end = asyncio.Event()

    async def hold() -> None:
        await stack.enter_async_context(kept)
        if not has_ended:
            await may_end.wait()

    holding = asyncio.create_task(hold())
    await turns()
    assert holding.done() is has_ended
    maker.made[1].is_good = False
    await maker.get()
    await turns()
    assert maker.closed == [1, 0, 0]
    await stack.aclose()
    await turns()
    assert maker.closed == [1, 1, 0]
    may_end.set()
    await holding


@each_sticky_kind
@on_each_loop
async def test_a_block_that_another_task_leaves_leaves_the_others_theirs(maker: Maker) -> None:
    """If another task than the one that began it ends a block, the other blocks of that object keep their values."""
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
    assert maker.closed == [1, 0, 0]
    await stack.aclose()
    await turns()
    assert maker.closed == [1, 1, 0]
    await new.leave()
    assert maker.closed == [1, 1, 0]


@each_sticky_kind
@on_each_loop
async def test_a_dropped_generator_lets_go(maker: Maker) -> None:
    """An asynchronous generator that was dropped in its block, and is closed by the loop, holds no value any longer."""

    async def items() -> AsyncGenerator[Token]:
        async with maker.make() as token:
            while True:
                yield token

    async def take_one() -> Token:
        async for token in items():
            return token
        raise AssertionError

    first = await maker.get_spoilt()
    second = await asyncio.create_task(take_one())
    gc.collect()
    await turns()
    second.is_good = False
    await maker.get()
    await turns()
    assert maker.made[:2] == [first, second]
    assert maker.closed == [1, 1, 0]


@each_sticky_kind
def test_a_coroutine_that_is_closed_where_no_loop_runs(maker: Maker, run: Run) -> None:
    """A coroutine that is closed in its block when its loop has ended leaves the block without an error."""

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
    assert maker.closed == [1, 1]
    for coroutine in coroutines:
        coroutine.close()
    assert maker.closed == [1, 1]


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
async def test_what_waits_to_be_entered_is_held(maker: Maker) -> None:
    """A task that still waits for a value while another finds that it is no longer good gets it, and goes on with it."""
    maker.gate.clear()
    waiting = Block(maker.make())
    await turns()
    asyncio.get_running_loop().call_soon(maker.gate.set)
    while not maker.made[0].is_open:
        await asyncio.sleep(0)
    maker.made[0].is_good = False
    other = Block(maker.make())  # it asks before the waiting task has run
    first = await waiting.token()
    assert first is maker.made[0]
    assert await other.token() is maker.made[1]
    await turns()
    assert maker.closed == [0, 0]
    await waiting.leave()
    assert maker.closed == [1, 0]
    await other.leave()
    assert maker.closed == [1, 0]


@each_sticky_kind
@on_each_loop
async def test_a_block_that_valid_fails_for_holds_nothing(maker: Maker) -> None:
    """A block that did not begin, since ``valid`` failed or its task was cancelled, keeps nothing open."""
    kept = maker.make()
    maker.gate.clear()
    waiting = await begin(kept)
    other = await begin(kept)
    await cancel(waiting)
    maker.gate.set()
    first = await other
    maker.verdict = fail
    with pytest.raises(KeyError):
        await kept
    maker.verdict = lambda _: False
    assert await kept is maker.made[1]
    await turns()
    assert first.closed == 1


@each_sticky_kind
@pytest.mark.parametrize("let_go", [release, release_all])
@on_each_loop
async def test_release_does_not_wait_for_blocks(maker: Maker, let_go: Callable[..., Awaitable[int]]) -> None:
    """`release` and `release_all` exit what blocks hold, at once; they do not find old values, which are listed as open."""
    acm = maker.make()
    async with acm as first, acm:
        assert await let_go(maker.make) == 1
        assert first.closed == 1
        async with acm as second:
            assert second is maker.made[1]
            second.is_good = False
            await maker.get()
            assert [each.state for each in resources()] == ["open", "open"]
            assert [await let_go(maker.make), await let_go(maker.make)] == [1, 0]
            assert maker.closed == [1, 0, 1]
    await turns()
    assert maker.closed == [1, 1, 1]


@each_sticky_kind
@on_each_loop
async def test_override_keeps_valid(maker: Maker) -> None:
    """A replacement's values are checked too; those that blocks still hold after the override exit at the end of these blocks."""
    other = Maker()
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
    """A value that dies while it is held, good or not, is forgotten and exited once; its blocks end as usual."""
    reports = reports_of_this_loop()
    deaths: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def dying() -> AsyncGenerator[Token]:
        async def die(death: asyncio.Future[None]) -> None:
            await death

        death = asyncio.get_running_loop().create_future()
        deaths.append(death)
        token = Token(Maker(), len(deaths))
        async with asyncio.TaskGroup() as group:
            group.create_task(die(death))
            try:
                yield token
            finally:
                token.closed += 1
                if not death.done():
                    death.set_result(None)

    make = sticky_singleton_acm(dying, valid=is_good)
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
async def test_aclose_exits_what_blocks_hold(maker: Maker) -> None:
    """`aclose` ends old and new values, held or not, each once; the end of a block afterwards does nothing."""
    async with maker.make() as first:
        first.is_good = False
        async with maker.make() as second:
            await aclose()
            assert [first.closed, second.closed] == [1, 1]
        assert await maker.get() is maker.made[2]
    await turns()
    assert maker.closed == [1, 1, 0]


@each_sticky_kind
def test_the_end_of_the_loop_exits_old_and_new(maker: Maker, run: Run) -> None:
    """When the loop ends while blocks hold old values, the tasks end first, then each value is exited, once."""
    at_the_end: list[tuple[int, int]] = []

    async def hold() -> None:
        async with maker.make() as token:
            try:
                await asyncio.Event().wait()
            finally:
                at_the_end.append((token.number, token.closed))

    async def main() -> None:
        for number in range(4):
            keep(hold())
            await turns()
            maker.made[number].is_good = False

    run(main())
    assert sorted(at_the_end) == [(number, 0) for number in range(4)]
    assert maker.closed == [1] * 4


@each_sticky_kind
def test_a_loop_that_is_closed_by_hand_exits_what_tasks_hold(
    maker: Maker, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """`loop.close` exits what the blocks of pending tasks hold."""

    async def hold() -> None:
        async with maker.make():
            await asyncio.Event().wait()

    async def main() -> None:
        for number in range(2):
            keep(hold())
            await turns()
            maker.made[number].is_good = False

    loop = new_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # which hears of the tasks
    loop.run_until_complete(main())
    loop.close()
    assert maker.closed == [1, 1]
    gc.collect()
    assert maker.closed == [1, 1]


@each_sticky_kind
def test_ctrl_c_in_a_block_exits_old_and_new(maker: Maker) -> None:
    """A `KeyboardInterrupt` in a block that holds an old value ends the loop, and each value is exited, once."""

    async def main() -> None:
        async with maker.make() as first:
            first.is_good = False
            async with maker.make():
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert maker.closed == [1, 1]


@each_kind
def test_ctrl_c_in_valid_changes_nothing(maker: Maker) -> None:
    """A `KeyboardInterrupt` that comes while ``valid`` runs is the caller's, and the value is closed at the loop's end."""

    async def main() -> None:
        first = await maker.get()
        maker.verdict = MagicMock(side_effect=KeyboardInterrupt)
        try:
            finished(maker.get())
        except KeyboardInterrupt:
            maker.verdict = is_good
            assert await maker.get() is first
            raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert maker.closed == [maker.closes]


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
async def test_valid_is_asked_about_what_a_wrapped_coroutine_function_gives() -> None:
    """Each later await asks ``valid``, also of a coroutine function that `singleton` has wrapped already."""
    asked: list[object] = []

    @singleton
    async def token() -> object:
        return object()

    def is_valid(value: object) -> bool:
        asked.append(value)
        return len(asked) != 2

    checked = singleton(token, valid=is_valid)
    first = await checked()
    assert asked == []
    assert await checked() is first
    assert await release(token)
    second = await checked()
    assert second is not first
    assert asked == [first, first]
