"""All that a loop holds goes with the loop, and what a resource held goes with the resource, by reference counting."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import pytest

import asyncio_loop_local
import collector
from asyncio_loop_local import (
    LoopLocalStorage,
    LoopVar,
    aclose,
    atexit,
    enter,
    enter_once,
    release,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)
from conftest import Run
from recording import cancel, on_each_loop, use

RUNS = 50


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Leaves all to reference counting."""
    with collector.disabled():
        yield


class Held:
    """Something that can be watched, and that refers to its loop and to what it uses; as an ACM, it gives itself."""

    def __init__(self, used: object = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.used = used

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        pass


class Fails(Held):
    """Cannot be entered, or exited; the loop is in the traceback."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    async def __aenter__(self) -> Self:
        await self._reach("enter")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._reach("exit")

    async def _reach(self, step: str) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        if step == self.step:
            assert loop is self.loop
            raise LookupError(step)


def ignore_reports() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)


async def turns(count: int = 3) -> None:
    """Lets the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class OwnError(Exception):
    """An error that can be watched."""


class Alive:
    """Finds which of the objects that it was shown are still alive."""

    def __init__(self) -> None:
        self._refs: list[weakref.ref[Any]] = []

    def watch(self, *things: object) -> None:
        self._refs.extend(map(weakref.ref, things))

    def still(self) -> list[object]:
        assert self._refs
        return [thing for ref in self._refs if (thing := ref()) is not None]


make = sticky_singleton_acm(Held)
make_failing = sticky_singleton_acm(Fails)
make_singleton = singleton(Held)
loop_of_singleton = singleton(asyncio.get_running_loop)


@singleton
def with_unhashable(options: dict[str, Any]) -> Held:
    options["held"] = held = Held()
    return held


async def hold_in_storage(alive: Alive) -> None:
    """The loop itself, and what refers to it, in `storage()`."""
    held = Held()
    storage()["loop"] = asyncio.get_running_loop()
    storage()["held"] = held
    alive.watch(held, storage())


async def hold_in_singletons(alive: Alive) -> None:
    """Singletons that are the loop, and that refer to it."""
    alive.watch(make_singleton())
    assert loop_of_singleton() is asyncio.get_running_loop()
    alive.watch(with_unhashable({"loop": asyncio.get_running_loop()}))


async def hold_in_resources(alive: Alive) -> None:
    """Resources of every kind, whose values refer to the loop."""
    held = Held()
    alive.watch(await enter(Held()), await enter_once(held))
    alive.watch(held, await use(sticky_acm(Held())), await use(make()))
    storage()["loop"] = asyncio.get_running_loop()


async def hold_in_generators(alive: Alive) -> None:
    """Resources made of async generators, with a task group and tasks left behind."""

    @asynccontextmanager
    async def resource() -> AsyncGenerator[Held]:
        held = Held()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.Event().wait())
            yield held
            task.cancel()

    @asynccontextmanager
    async def careless() -> AsyncGenerator[Held]:
        yield Held(asyncio.create_task(asyncio.Event().wait()))  # makes a circle with the loop

    alive.watch(await enter(resource()), await enter(careless()))


async def hold_in_users(alive: Alive) -> None:
    """Resources that use each other."""

    @asynccontextmanager
    async def user() -> AsyncGenerator[Held]:
        async with make() as used:
            yield Held(used)

    async with sticky_singleton_acm(user)() as held, make() as used:
        alive.watch(held, used)


async def hold_in_callbacks(alive: Alive) -> None:
    """Callbacks that refer to the loop."""
    held = Held()
    alive.watch(held)
    atexit.register(lambda *_args: None, held, storage())


async def hold_in_tasks(alive: Alive) -> None:
    """A task of the user's in `storage()`, which the runner cancels."""

    async def work() -> None:
        async with make() as held:
            alive.watch(held)
            await asyncio.Event().wait()

    storage()["task"] = task = asyncio.create_task(work())
    alive.watch(task)
    await turns(2)


async def hold_in_failures(alive: Alive) -> None:
    """Resources and callbacks whose enter or exit fails, with the loop in their tracebacks."""
    ignore_reports()
    failing = Fails("enter")
    alive.watch(await enter(Fails("exit")), failing)
    for entering in (enter_once(failing), use(make_failing("enter"))):
        with pytest.raises(LookupError, match="enter"):
            await entering


class Closing(Held):
    """Something that has to be closed."""

    async def aclose(self) -> None:
        assert self.loop is asyncio.get_running_loop()


close_it = singleton(Closing, close=Closing.aclose)
variable = LoopVar("variable", factory=Closing, close=Closing.aclose)


@singleton(close=Closing.aclose)
async def connect_it(failing: bool = False) -> Closing:
    await asyncio.sleep(0)
    if failing:
        raise OwnError
    return Closing(close_it())


async def hold_with_close(alive: Alive) -> None:
    """Values with ``close``, which refer to the loop and to each other, used, replaced, never awaited, and failed."""

    @asynccontextmanager
    async def user() -> AsyncGenerator[Held]:
        yield Held((close_it(), variable.get()))

    alive.watch(await enter(user()), close_it(), await connect_it(), variable.get())
    variable.get().used = connect_it()
    never_awaited = connect_it(failing=False)
    alive.watch(never_awaited, variable.get())
    with pytest.raises(OwnError):
        await connect_it(failing=True)
    variable.set(Closing())


async def hold_with_close_that_fails(alive: Alive) -> None:
    """Values whose ``close`` fails, with the loop in the traceback."""

    async def close(closing: Closing) -> None:
        loop = asyncio.get_running_loop()
        assert loop is closing.loop
        raise LookupError("close")

    async def connect() -> Closing:
        return Closing()

    ignore_reports()
    var = storage()["var"] = LoopVar("v", factory=Closing, close=close)
    alive.watch(singleton(Closing, close=close)(), await singleton(connect, close=close)(), var.get(), var)


HOLDS = [
    *(hold_in_storage, hold_in_singletons, hold_in_resources, hold_in_generators, hold_in_users, hold_in_callbacks),
    *(hold_in_tasks, hold_in_failures, hold_with_close, hold_with_close_that_fails),
]
NOT_FOR_ACLOSE = {hold_in_tasks, hold_in_failures, hold_with_close_that_fails}  # which goes on, or whose errors it raises

Hold = Callable[[Alive], Coroutine[Any, Any, None]]


# Since Python 3.12 the `asyncio.gather` by which a runner cancels tasks makes a circle of their errors and the loop.
@pytest.mark.parametrize("hold", [hold for hold in HOLDS if hold is not hold_in_tasks])
def test_fifty_runs_leave_no_loop_alive(run: Run, hold: Hold) -> None:
    """Whatever refers to the loop from what it holds, fifty runs leave no loop alive, nor anything that one held."""
    loops, alive = Alive(), Alive()

    async def main() -> None:
        loops.watch(asyncio.get_running_loop())
        await hold(alive)

    for _ in range(RUNS):
        run(main())
    assert loops.still() == []
    assert alive.still() == []


@pytest.mark.parametrize("hold", HOLDS)
def test_fifty_loops_closed_by_hand(new_loop: Callable[[], asyncio.AbstractEventLoop], hold: Hold) -> None:
    """So do fifty loops that are driven and closed by hand."""
    loops, alive = Alive(), Alive()
    for _ in range(RUNS):
        loop = new_loop()
        loops.watch(loop)
        loop.run_until_complete(hold(alive))
        loop.close()
        del loop
    assert loops.still() == []
    assert alive.still() == []


@pytest.mark.parametrize("hold", [hold for hold in HOLDS if hold not in NOT_FOR_ACLOSE])
def test_aclose_leaves_nothing(run: Run, hold: Hold) -> None:
    """After `aclose` nothing that the loop held is alive, though the loop goes on; and then the loop goes, too."""
    loops = Alive()

    async def main() -> None:
        loops.watch(asyncio.get_running_loop())
        for _ in range(3):
            alive = Alive()
            await hold(alive)
            await aclose()
            left = [thing for thing in alive.still() if not isinstance(thing, LoopLocalStorage)]
            assert left == []
            assert storage() == {}

    run(main())
    assert loops.still() == []


class Short(Held):
    """Dies while it is held when `die` is called; the loop alone refers to its error."""

    def __init__(self) -> None:
        super().__init__()
        self.dead = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()  # to which it refers also when it has ended
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.dead.set()

    async def die(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await self.dead.wait()


@on_each_loop
async def test_a_resource_that_died_leaves_nothing() -> None:
    """A resource that dies while it is held leaves neither its value nor its ACM alive, while the loop goes on."""
    alive = Alive()
    ignore_reports()
    for enter_it in (enter, enter_once):
        short = Short()
        alive.watch(await enter_it(short))
        assert alive.still() == [short]
        await short.die()
        del short
    await turns()
    assert alive.still() == []


@on_each_loop
async def test_a_released_resource_leaves_nothing() -> None:
    """What `release` has ended is not kept alive, while the loop goes on; nor is what could not be exited."""
    alive = Alive()
    alive.watch(await use(make()), await use(make_failing("exit")), make_singleton())
    assert len(alive.still()) == 3
    assert await release(make)
    with pytest.raises(LookupError):
        await release(make_failing, "exit")
    assert await release(make_singleton)
    await turns(1)
    assert alive.still() == []


@on_each_loop
async def test_a_failed_enter_leaves_nothing() -> None:
    """What could not be entered is not kept alive, while the loop goes on."""
    alive = Alive()

    class FailsToEnter(Fails):
        def __init__(self) -> None:
            super().__init__("enter")
            alive.watch(self)

    factory = sticky_singleton_acm(FailsToEnter)
    for _ in range(10):
        for entering in (use(factory()), enter(FailsToEnter()), enter_once(FailsToEnter())):
            with pytest.raises(LookupError):
                await entering
        del entering
    await turns(1)  # until then the loop refers to the future by which the last error came
    assert alive.still() == []


async def cancelled(coroutine: Coroutine[Any, Any, object]) -> bool:
    """Runs it in a task that is cancelled after two turns of the loop."""
    task = asyncio.create_task(coroutine)
    await turns(2)
    await cancel(task)
    return task.cancelled()


@on_each_loop
async def test_a_cancelled_enter_leaves_nothing() -> None:
    """What nobody waited for any more is not kept alive, while the loop goes on."""
    alive = Alive()
    begun = 0

    class Slow(Held):
        async def __aenter__(self) -> Self:
            nonlocal begun
            begun += 1
            alive.watch(self)
            await asyncio.Event().wait()
            return self

    for _ in range(10):
        assert await cancelled(enter(Slow()))
    await turns()
    assert begun == 10
    assert alive.still() == []


@on_each_loop
async def test_a_long_lived_resource_forgets_what_it_has_used() -> None:
    """A resource that lives long and acquires many that end before it keeps none of them alive."""
    alive = Alive()
    wanted: asyncio.Queue[Short] = asyncio.Queue()

    @asynccontextmanager
    async def long() -> AsyncGenerator[None]:
        async def acquire() -> None:
            while True:
                alive.watch(await enter_once(await wanted.get()))
                wanted.task_done()

        task = asyncio.create_task(acquire())
        yield
        task.cancel()

    ignore_reports()
    await enter(long())
    for _ in range(RUNS):
        short = Short()
        await wanted.put(short)
        await wanted.join()
        assert alive.still() == [short]
        await short.die()
        await turns()
        del short
        assert alive.still() == []


@on_each_loop
async def test_tasks_of_a_resource_are_let_go_when_they_end() -> None:
    """A resource that starts many short tasks in its life keeps none of them alive."""
    alive = Alive()
    enough = asyncio.Event()

    @asynccontextmanager
    async def long() -> AsyncGenerator[None]:
        async def spawn() -> None:
            for _ in range(RUNS):
                task = asyncio.create_task(asyncio.sleep(0))
                alive.watch(task)
                await task
            enough.set()

        task = asyncio.create_task(spawn())
        yield
        await task

    await enter(long())
    await enough.wait()
    await turns(1)
    assert alive.still() == []


@on_each_loop
async def test_the_callers_context_and_error_are_let_go() -> None:
    """Neither a caller's task nor the error that it got is kept alive by the library."""
    alive = Alive()

    class Failing(Held):
        async def __aenter__(self) -> Self:
            error = OwnError()
            alive.watch(error)
            try:
                raise error
            finally:
                del error

    async def caller() -> None:
        alive.watch(asyncio.current_task())
        await use(make())
        try:
            await enter(Failing())
        except OwnError:
            return

    for _ in range(3):
        await asyncio.create_task(caller())
    await turns(1)
    assert alive.still() == []


class Token(Held):
    """Something that is no longer good after its first use."""

    is_good = True

    async def close(self) -> None:
        assert not self.is_good


async def connected() -> Token:
    return Token()


def is_still_good(token: Token) -> bool:
    return token.is_good


def one_key(used: object = None) -> str:
    return "k"


async def renew_in_blocks(make: Callable[[], Any]) -> Any:
    async with make() as outer:
        outer.is_good = False
        async with make() as token, make():
            return token


async def renew_by_awaiting(make: Callable[[], Any]) -> Any:
    return await make()


async def renew_by_calling(make: Callable[[], Any]) -> Any:
    return make()


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize(
    ("renew", "make"),
    [
        pytest.param(renew_in_blocks, sticky_singleton_acm(Token, valid=is_still_good), id="blocks"),
        pytest.param(renew_in_blocks, sticky_singleton_acm(Token, valid=is_still_good, key=one_key), id="blocks, key"),
        pytest.param(renew_by_awaiting, sticky_singleton_acm(Token, valid=is_still_good), id="await"),
        pytest.param(renew_by_calling, singleton(Token, valid=is_still_good), id="plain"),
        pytest.param(renew_by_calling, singleton(Token, valid=is_still_good, close=Token.close), id="plain, closed"),
        pytest.param(renew_by_awaiting, singleton(connected, valid=is_still_good), id="coroutine"),
        pytest.param(renew_by_awaiting, singleton(connected, valid=is_still_good, key=one_key), id="coroutine, key"),
        pytest.param(renew_by_awaiting, singleton(connected, valid=is_still_good, close=Token.close), id="coroutine, closed"),
    ],
)
def test_what_is_no_longer_good_is_let_go(
    renew: Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]], make: Callable[[], Any], is_kept: bool
) -> None:
    """A service that makes a value anew 10,000 times holds no more objects than after the first few times."""
    alive = Alive()

    async def main() -> None:
        kept = make()
        counts: list[int] = []
        for number in range(10_000):
            token = await renew((lambda: kept) if is_kept and renew is not renew_by_calling else make)
            if renew is not renew_in_blocks:
                await renew(make)  # a good call between, or it would warn
            token.is_good = False
            if number % 1_000 == 10:
                alive.watch(token)
                counts.append(len(gc.get_objects()))
            del token
            await asyncio.sleep(0)
        await renew(make)
        await turns(2)
        assert alive.still() == []
        assert counts[-1] - counts[0] < 100

    asyncio.run(main())


@on_each_loop
async def test_a_value_is_held_by_its_blocks_alone() -> None:
    """What is no longer good goes when the last of its blocks is left, also where one was left by another task."""
    alive = Alive()
    make_token = sticky_singleton_acm(Token, valid=is_still_good)
    kept = make_token()
    async with kept as first:
        first.is_good = False
        alive.watch(first)
        stack = AsyncExitStack()
        token = await asyncio.create_task(stack.enter_async_context(kept))
        alive.watch(token)
        token.is_good = False
        async with kept as third:
            assert third.is_good
        assert alive.still() == [first, token]
        del third
    del first
    await turns(2)
    assert alive.still() == [token]
    await stack.aclose()
    del token
    await turns(2)
    assert alive.still() == []


def test_wrapped_factories_hold_no_loop(run: Run) -> None:
    """A factory wrapped at module level, which lives as long as the process, refers to nothing of a loop that has ended."""
    before = set(map(id, gc.get_referents(make, make_singleton)))

    async def main() -> None:
        make_singleton()
        await use(make())

    for _ in range(RUNS):
        run(main())
    assert set(map(id, gc.get_referents(make, make_singleton))) == before


@on_each_loop
async def test_a_value_that_was_closed_is_let_go() -> None:
    """What `release` or `LoopVar.aclose` closes, or another value replaces, is freed while the loop goes on."""
    alive = Alive()
    for _ in range(RUNS):
        alive.watch(close_it(), variable.get())
        await release(close_it)
        await variable.aclose()
        alive.watch(await connect_it())
        await release(connect_it)
        await release(close_it)
        for _ in range(2):
            variable.set(Closing())
            alive.watch(variable.get())
        await variable.aclose()
    await turns(1)
    assert alive.still() == []


@on_each_loop
async def test_a_run_that_was_cancelled_is_let_go() -> None:
    """A run of a coroutine function with ``close`` that was cancelled, or has failed, leaves nothing."""
    alive = Alive()

    async def connect(held: Held) -> Held:
        await asyncio.Event().wait()
        return held

    make = singleton(connect, close=Held.__aexit__)
    for _ in range(10):
        held = Held()
        alive.watch(held)
        assert await cancelled(make(held))
        del held
    await turns()
    assert alive.still() == []


def test_a_token_of_a_variable_with_close_keeps_no_loop_alive(run: Run) -> None:
    """A token, which keeps the value from before, does not keep the value that it has set, nor the loop."""
    alive = Alive()

    async def main() -> asyncio_loop_local.Token[Closing]:
        token = variable.set(Closing())
        alive.watch(asyncio.get_running_loop(), variable.get())
        return token

    token = run(main())
    assert alive.still() == []
    assert token.old_value is asyncio_loop_local.Token.MISSING


@on_each_loop
async def test_dropped_variables_leave_nothing() -> None:
    """Many short-lived variables on one loop leave nothing but what they have yet to close."""
    alive = Alive()
    for _ in range(RUNS):
        var = LoopVar("v", factory=Closing, close=Closing.aclose)
        alive.watch(var, var.get())
        del var
        await turns(5)
        assert alive.still() == []
