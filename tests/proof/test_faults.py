"""Every kind of error, raised at every step of an enter and an exit: it surfaces once, and nothing else is lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import itertools
import logging
import re
import signal
import sys
import textwrap
import traceback
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, cast

import pytest
import uvloop

import collector
from asyncio_loop_local import LoopVar, aclose, atexit, enter, enter_once, release, singleton, sticky_acm, sticky_singleton_acm
from programs import run_python

NewLoop = Callable[[], asyncio.AbstractEventLoop]
Use = Callable[[], Awaitable[Any]]
Hook = Callable[[], Coroutine[Any, Any, object]]
Case = Callable[["Plan"], Coroutine[Any, Any, None]]

ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("ordinary"),
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("deep"),
    "StopIteration": lambda: StopIteration("stopped"),
    "StopAsyncIteration": lambda: StopAsyncIteration("stopped"),
    "ExceptionGroup": lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [ValueError("one"), GeneratorExit()]),
    "CancelledError": lambda: asyncio.CancelledError("by nobody"),
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
}
FATAL = (SystemExit, KeyboardInterrupt)

# Steps of an enter, in the order in which they are reached; those of an exit; and those of a callback.
ENTER_STEPS = ["factory", "aenter attribute", "aenter call", "aenter await", "enter before await", "enter after await"]
EXIT_STEPS = ["aexit attribute", "aexit call", "aexit await", "exit before await", "exit after await"]
CALLBACK_STEPS = ["callback call", "callback await", "callback before await", "callback after await"]


class Plan:
    """At which step something fails, and how; what was entered and exited; and where errors came to light."""

    def __init__(self, step: str, error: BaseException) -> None:
        self.step = step
        self.error = error
        self.naming_error: BaseException | None = None
        self.is_armed = True
        self.entered: Counter[str] = Counter()
        self.exited: Counter[str] = Counter()
        self.surfaced: list[str] = []
        self.others: list[str] = []

    @property
    def all_exited(self) -> bool:
        """Whether all that was entered was exited, once each."""
        return self.entered == self.exited and set(self.exited.values()) == {1}

    def assert_surfaced(self, *where: str) -> None:
        """That the error came to light in these places, once in each, and no other error anywhere."""
        assert (repr(self.error), self.surfaced, self.others) == (repr(self.error), [*where], [])

    def assert_all_exited(self, *names: str) -> None:
        """That all that was entered was exited, once each; and that these are the names of it, where they are given."""
        assert self.all_exited, repr(self.error)
        assert not names or self.exited.keys() == {*names}, repr(self.error)

    def reach(self, step: str) -> None:
        if self.is_armed and step == self.step:
            raise self.error

    def seen(self, where: str, error: BaseException) -> None:
        found = sum(each is self.error for each in _parts_of(error, self.error))
        if not found and isinstance(self.error, asyncio.CancelledError) and isinstance(error, asyncio.CancelledError):
            found = 1  # asyncio makes a new one for each who awaits a cancelled task
        self.surfaced += [where] * found
        if not found:
            self.others.append(repr(error))  # the error itself would hold its loop

    async def catch(self, call: Use) -> None:
        """Notes the error of the call, if it fails."""
        try:
            await call()
        except BaseException as error:
            self.seen("caller", error)

    def listen(self) -> None:
        """Notes what the running loop reports."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.seen("handler", context["exception"]))


def _parts_of(error: Any, wanted: BaseException) -> Iterator[BaseException]:
    """The error itself, and those it was made of; a group that is wanted as a whole is not taken apart."""
    yield error
    if error is wanted:
        return
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for each in group.exceptions:
            yield from _parts_of(each, wanted)
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        yield from _parts_of(error.__cause__, wanted)


class Awaited:
    """An awaitable that is no coroutine, and may fail as it is asked for its iterator."""

    def __init__(self, plan: Plan, step: str, coroutine: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._plan = plan
        self._step = step
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        self._plan.reach(self._step)
        return self._coroutine().__await__()


class Method:
    """A method that may fail as it is looked up, and as it is called."""

    def __init__(self, plan: Plan, name: str, coroutine_function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._plan = plan
        self._name = name
        self._function = coroutine_function

    def __get__(self, instance: object, owner: type) -> Callable[..., Awaited]:
        self._plan.reach(f"{self._name} attribute")

        def call(*args: Any) -> Awaited:
            self._plan.reach(f"{self._name} call")
            return Awaited(self._plan, f"{self._name} await", lambda: self._function(*args))

        return call


class Sound:
    """Enters and exits without a fault, and awaits in both, if it ``waits``; then runs what it was given for that."""

    def __init__(
        self, plan: Plan, name: str, *, on_enter: Hook | None = None, on_exit: Hook | None = None, waits: bool = True
    ) -> None:
        self.plan, self.name, self.waits = plan, name, waits
        self.on_enter, self.on_exit = on_enter, on_exit

    async def __aenter__(self) -> str:
        if self.waits:
            await asyncio.sleep(0)
        self.plan.entered[self.name] += 1
        if self.on_enter is not None:
            await self.on_enter()
        return self.name

    async def __aexit__(self, *_exc: object) -> None:
        if self.waits:
            await asyncio.sleep(0)
        self.plan.exited[self.name] += 1
        if self.on_exit is not None:
            await self.on_exit()


def faulty_factory(plan: Plan) -> Callable[[], Any]:
    """A factory of ACMs that fail as planned, until the plan is disarmed."""

    async def on_enter(acm: object) -> str:
        plan.reach("enter before await")
        await asyncio.sleep(0)
        plan.reach("enter after await")
        plan.entered["faulty"] += 1
        return "faulty"

    async def on_exit(acm: object, *_exc: object) -> None:
        plan.exited["faulty"] += 1
        plan.reach("exit before await")
        await asyncio.sleep(0)
        plan.reach("exit after await")

    class Faulty:
        __aenter__ = Method(plan, "aenter", on_enter)
        __aexit__ = Method(plan, "aexit", on_exit)

    def make() -> Any:
        plan.reach("factory")
        return Faulty()

    return make


def value_of(make_acm: Callable[[], contextlib.AbstractAsyncContextManager[Any]]) -> Use:
    async def use() -> Any:
        async with make_acm() as value:
            return value

    return use


def by_enter_once(make: Callable[[], Any]) -> Use:
    made = functools.cache(make)

    async def use() -> Any:
        return await enter_once(made())

    return use


def by_singleton_coroutine(make: Callable[[], Any]) -> Use:
    @singleton
    async def value() -> Any:
        return await enter(make())

    return value


def by_its_user(make: Callable[[], Any]) -> Use:
    """Entered by the enter of another resource, which has no fault of its own."""
    use = value_of(sticky_singleton_acm(make))

    @contextlib.asynccontextmanager
    async def user() -> AsyncGenerator[Any]:
        yield await use()
        await asyncio.sleep(0)

    return value_of(sticky_singleton_acm(user))


SHARED_WAYS: dict[str, Callable[[Callable[[], Any]], Use]] = {
    "enter_once": by_enter_once,
    "sticky_acm": lambda make: value_of(functools.cache(lambda: sticky_acm(make()))),
    "sticky_singleton_acm": lambda make: value_of(sticky_singleton_acm(make)),
    "singleton coroutine": by_singleton_coroutine,
    "its user": by_its_user,
}
WAYS: dict[str, Callable[[Callable[[], Any]], Use]] = {"enter": lambda make: lambda: enter(make()), **SHARED_WAYS}


def end_by_run(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main)


def end_by_close(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


ENDS = {"run": end_by_run, "close": end_by_close}


def end_of(end: str) -> Callable[[asyncio.AbstractEventLoop, Coroutine[Any, Any, None]], None]:
    """How the loop ends, where something else may have ended what it held before."""
    return ENDS.get(end, end_by_run)


def _loop(*, debug: bool = False, eager: bool = False) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(debug)
    if eager and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


LOOPS: dict[str, NewLoop] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "debug": functools.partial(_loop, debug=True),
}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = functools.partial(_loop, eager=True)


@pytest.fixture(scope="module", autouse=True)
def _only_new_objects_are_collected() -> Iterator[None]:
    """Spares the many collections of this module what other modules have left alive."""
    with collector.frozen():
        yield


@pytest.fixture(params=[kind for kind in LOOPS if kind != "debug"])
def quick_loop(request: pytest.FixtureRequest) -> NewLoop:
    return LOOPS[request.param]


@pytest.fixture(params=list(LOOPS))
def any_loop(request: pytest.FixtureRequest) -> NewLoop:
    return LOOPS[request.param]


def play(new_loop: NewLoop, end: str, step: str, main: Case) -> Iterator[Plan]:
    """Plays a case with each kind of error, to its loop's end; no loop may be left."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    for make_error in ERRORS.values():
        plan = Plan(step, make_error())
        loop = new_loop()
        loops.append(weakref.ref(loop))
        try:
            end_of(end)(loop, main(plan))
        except BaseException as error:
            plan.seen("runner", error)
            error.__traceback__ = None
        assert loop.is_closed()
        del loop
        plan.error.__traceback__ = plan.error.__context__ = None
        yield plan
        plan.error = ValueError("let go of")
    gc.collect()
    assert [ref for ref in loops if ref() is not None] == []


# Entering.


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("step", ENTER_STEPS)
def test_any_error_of_an_enter_is_raised_to_its_callers(quick_loop: NewLoop, step: str, way: str, end: str) -> None:
    """Whatever an enter raises, each who waits gets it and nobody else; the next call works, and all is exited once."""
    callers = 2 if way in SHARED_WAYS else 1

    async def main(plan: Plan) -> None:
        plan.listen()
        await enter(Sound(plan, "older"))
        make = faulty_factory(plan)
        use = WAYS[way](make)
        await asyncio.wait([asyncio.create_task(plan.catch(use)) for _ in range(callers)])
        plan.is_armed = False
        assert await use() == "faulty"
        await enter(Sound(plan, "newer"))

    for plan in play(quick_loop, end, step, main):
        if way == "singleton coroutine" and isinstance(plan.error, FATAL):
            # A task of the user's own raised it: that ends the loop's run, as without the library, or an eager task's making.
            assert {"runner", "caller"} & {*plan.surfaced}, repr(plan.error)
            assert plan.entered == plan.exited, repr(plan.error)
        else:
            plan.assert_surfaced(*["caller"] * callers)
            plan.assert_all_exited("older", "faulty", "newer")


# Exiting.


def place_of_report(plan: Plan, end: str) -> str:
    """Where an error of an exit comes to light."""
    if end in ("aclose", "release"):
        return "caller"
    return "runner" if isinstance(plan.error, FATAL) else "handler"


# Only what a wrapped factory has made can be released.
_EXITS = [*((way, end) for way in WAYS for end in (*ENDS, "aclose")), ("sticky_singleton_acm", "release")]


@pytest.mark.parametrize(("way", "end"), _EXITS, ids=[" ".join(pair) for pair in _EXITS])
@pytest.mark.parametrize("step", EXIT_STEPS)
def test_any_error_of_an_exit_surfaces_once(quick_loop: NewLoop, step: str, way: str, end: str) -> None:
    """Whatever an exit raises is reported once, or raised by the end if it is to end the program; all others are exited."""

    async def main(plan: Plan) -> None:
        plan.listen()
        plan.is_armed = False
        make = faulty_factory(plan)
        await enter(Sound(plan, "older"))
        made = sticky_singleton_acm(make)
        use = value_of(made) if end == "release" else WAYS[way](make)
        assert await use() == "faulty"
        await enter(Sound(plan, "newer"))
        atexit.register(plan.exited.update, ["callback"])
        plan.entered["callback"] += 1
        plan.is_armed = True
        if end == "release":
            await plan.catch(lambda: release(made))
            assert await release(made) is False
            plan.is_armed = False
            plan.entered["faulty"] -= 1
            plan.exited["faulty"] = 0
            assert await use() == "faulty"
        if end == "aclose":
            await plan.catch(aclose)
            await aclose()
            await enter(Sound(plan, "afterwards"))

    for plan in play(quick_loop, end, step, main):
        plan.assert_surfaced(place_of_report(plan, end))
        if step in ("aexit attribute", "aexit call", "aexit await") and end != "release":
            assert plan.exited.pop("faulty", 0) == 0  # its own code was never reached
            plan.entered.pop("faulty")
        plan.assert_all_exited()


@pytest.mark.parametrize("end", [*ENDS, "aclose"])
@pytest.mark.parametrize("step", CALLBACK_STEPS)
def test_any_error_of_a_callback_surfaces_once(any_loop: NewLoop, step: str, end: str) -> None:
    """Whatever an `atexit` callback raises, sync or async, surfaces as an exit's error does; all else ends too."""

    async def callback(plan: Plan) -> None:
        plan.reach("callback before await")
        await asyncio.sleep(0)
        plan.reach("callback after await")

    def call(plan: Plan) -> Awaited:
        plan.exited["callback"] += 1
        plan.reach("callback call")
        return Awaited(plan, "callback await", lambda: callback(plan))

    async def main(plan: Plan) -> None:
        plan.listen()
        await enter(Sound(plan, "older"))
        atexit.register(call, plan)
        plan.entered["callback"] += 1
        await enter(Sound(plan, "newer"))
        if end == "aclose":
            await plan.catch(aclose)

    for plan in play(any_loop, end, step, main):
        plan.assert_surfaced(place_of_report(plan, end))
        plan.assert_all_exited()


# Near the limit of recursion.


async def deep(frames: int, call: Use) -> Any:
    return await (deep(frames - 1, call) if frames else call())


async def prepared(what: str, plan: Plan) -> Use:
    """A call of the library, which may have used a resource already."""
    make = functools.partial(Sound, plan, "deep", waits=False)  # so that it needs little of the stack
    made = sticky_singleton_acm(make)
    match what:
        case "release":
            await value_of(made)()
            return lambda: release(made)
        case "aclose":
            await enter(make())
            return aclose
        case "atexit":

            async def register() -> None:
                atexit.register(plan.exited.update, ["deep"])
                plan.entered["deep"] += 1

            return register
        case _ if what.startswith("close="):
            return closing_call(what, plan)
        case _:
            return WAYS[what](make)


def closing_call(what: str, plan: Plan) -> Use:
    """A call that makes a value with ``close=``."""

    def make() -> str:
        plan.entered["deep"] += 1
        return "deep"

    async def connect() -> str:
        return make()

    def close(_: str) -> None:
        plan.exited["deep"] += 1

    if what == "close= of a coroutine function":
        return singleton(connect, close=close)
    var = LoopVar("deep", factory=make, close=close)
    function = var.get if what == "close= of a variable" else singleton(make, close=close)

    async def call() -> str:
        return function()

    return call


CALLS = [
    *("enter", "enter_once", "sticky_singleton_acm", "singleton coroutine", "release", "aclose", "atexit"),
    *("close=", "close= of a coroutine function", "close= of a variable"),
]
ROOM = 110  # frames before the limit, of which each depth is tried


@pytest.mark.parametrize("what", CALLS)
def test_a_call_near_the_limit_of_recursion_works_or_raises(any_loop: NewLoop, what: str) -> None:
    """However full the stack is: a call works or raises `RecursionError`; afterwards it works, and all is exited once."""
    outcomes: set[str] = set()

    async def attempt(frames: int, limit: int, call: Use) -> str:
        before = sys.getrecursionlimit()
        gc.disable()  # finalizers of whatever garbage there is would run at that depth, too
        sys.setrecursionlimit(limit)
        try:
            await deep(frames, call)
        except RecursionError:
            return "RecursionError"
        finally:
            sys.setrecursionlimit(before)
            gc.enable()
        return "worked"

    async def main(plan: Plan, room: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: _expect_only_asyncios_own(plan, context))
        call = await prepared(what, plan)
        limit = sum(1 for _ in traceback.walk_stack(None)) + 200
        outcomes.add(await asyncio.wait_for(asyncio.ensure_future(attempt(200 - room, limit, call)), 20))
        await asyncio.wait_for(call(), 20)
        await enter(Sound(plan, "newer"))

    for room in range(ROOM):
        plan = Plan("none", ValueError())
        end_by_run(any_loop(), main(plan, room))
        assert plan.others == [], room
        assert plan.entered == plan.exited, room
        assert plan.exited["newer"] == 1, room
    assert outcomes == {"worked", "RecursionError"}


def _expect_only_asyncios_own(plan: Plan, context: dict[str, Any]) -> None:
    if "was destroyed" not in context["message"]:  # which asyncio says of a task whose making has failed
        plan.others.append(repr(context))


# Arguments, factories and ACMs whose special methods fail.


class Breaks:
    """An argument whose special methods begin to fail after `break_after`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls = 0
        self.after = sys.maxsize

    def _reach(self, step: str) -> None:
        self.calls += step == self.plan.step
        if self.calls > self.after:
            self.plan.reach(step)

    def break_after(self, calls: int) -> None:
        self.calls, self.after = 0, calls

    def __hash__(self) -> int:
        self._reach("hash")
        return 1

    def __eq__(self, other: object) -> bool:
        self._reach("eq")
        return self is other

    def __repr__(self) -> str:
        self._reach("repr")
        return "<breaks>"


ORDINARY = {
    name: make
    for name, make in ERRORS.items()
    if isinstance(make(), Exception) and name not in ("StopIteration", "StopAsyncIteration")
}


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("end", [*ENDS, "aclose", "release", "failed enter"])
@pytest.mark.parametrize("step", ["hash", "eq", "repr"])
def test_a_broken_argument_hangs_nothing(new_loop: NewLoop, step: str, end: str, after: int) -> None:
    """Where `__hash__`, `__eq__` or `__repr__` of an argument begins to fail, all that was entered is exited, once."""
    numbers = itertools.count()

    async def fail() -> None:
        raise LookupError("no")

    def fragile(plan: Plan, broken: Breaks) -> Sound:
        """Fails in its enter; or in its exit, to be reported with a name that cannot be made."""

        async def break_and_fail() -> None:
            plan.entered.popitem()
            broken.break_after(after)
            await fail()

        on_enter = break_and_fail if end == "failed enter" else None
        return Sound(plan, f"fragile {next(numbers)}", on_enter=on_enter, on_exit=fail if end in ENDS else None)

    async def main(plan: Plan) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: plan.others.append(repr(context["exception"])))
        made = sticky_singleton_acm(fragile)
        broken = Breaks(plan)

        async def use(argument: Breaks) -> None:
            async with made(plan, argument):
                pass

        await enter(Sound(plan, "older"))
        if end == "failed enter":
            with pytest.raises(LookupError):
                await asyncio.wait_for(use(broken), 20)
            return
        await use(Breaks(plan))  # with the same hash, so that the two are compared
        await use(broken)
        broken.break_after(after)
        if end == "release":
            with contextlib.suppress(type(plan.error)):
                await asyncio.wait_for(release(made, plan, broken), 20)
        elif end == "aclose":
            await asyncio.wait_for(aclose(), 20)
        if end in ("aclose", "release"):
            plan.is_armed = False
            await asyncio.wait_for(use(broken), 20)
            plan.is_armed = True

    for make_error in ORDINARY.values():
        plan = Plan(step, make_error())
        end_of(end)(new_loop(), main(plan))
        plan.assert_all_exited()
        assert plan.others == (["LookupError('no')"] * 2 if end in ENDS else []), repr(plan.error)


class Unnameable:
    """A factory whose name cannot be read any more once it has been called."""

    def __init__(self, plan: Plan, make: Callable[[], Any]) -> None:
        self.plan = plan
        self.make = make
        self.was_called = False

    def __getattr__(self, name: str) -> Any:
        if name == "__qualname__" and self.was_called:
            raise self.plan.naming_error or AssertionError
        raise AttributeError(name)

    def __call__(self) -> Any:
        self.was_called = True
        return self.make()


@pytest.mark.parametrize("end", [*ENDS, "aclose"])
def test_an_error_is_reported_though_its_resource_cannot_be_named(new_loop: NewLoop, end: str) -> None:
    """Where a factory's own name cannot be read, the error of an exit still surfaces, once, and all else is exited."""

    async def main(plan: Plan) -> None:
        plan.listen()
        plan.is_armed = False
        await enter(Sound(plan, "older"))
        async with sticky_singleton_acm(Unnameable(plan, faulty_factory(plan)))():
            pass
        plan.is_armed = True
        if end == "aclose":
            await plan.catch(aclose)

    for make_error in ORDINARY.values():
        plan = Plan("exit after await", ValueError("of the exit"))
        plan.naming_error = make_error()
        end_of(end)(new_loop(), main(plan))
        plan.assert_surfaced(place_of_report(plan, end))
        plan.assert_all_exited()


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Lets nothing be set on it, a note neither."""

    code: int


def test_an_error_that_takes_no_note_is_raised_all_the_same(new_loop: NewLoop) -> None:
    """`aclose` raises the errors of all exits, those too to which nothing can be added."""
    errors = [FrozenError(1), ValueError("two")]

    async def fail(error: Exception) -> None:
        raise error

    async def main() -> None:
        for error in errors:
            await enter(Sound(Plan("none", error), "failing", on_exit=functools.partial(fail, error)))
        with pytest.raises(ExceptionGroup) as caught:
            await aclose()
        assert caught.value.exceptions == (errors[1], errors[0])

    end_by_run(new_loop(), main())


# What others raise where the library calls them.


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("failing", ["enter", "exit", "held"])
def test_an_exception_handler_that_ends_the_program(new_loop: NewLoop, failing: str, end: str, error: BaseException) -> None:
    """A handler that raises SystemExit or KeyboardInterrupt when an error is reported keeps nothing from being exited."""
    plan = Plan("none", error)
    begun: asyncio.Event

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), LookupError) or "died" in context["message"]:
            plan.surfaced.append("handler")
            raise error

    async def fail() -> None:
        raise LookupError("no")

    async def fail_when_cancelled() -> None:
        plan.exited["failing"] += 1
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await fail()

    async def die_soon() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        loop.call_soon(lambda: loop.call_soon(task.cancel))

    async def main() -> None:
        nonlocal begun
        begun = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(handle)
        await enter(Sound(plan, "older"))
        on_enter = {"enter": fail_when_cancelled, "held": die_soon}.get(failing)
        entering = asyncio.create_task(
            enter(Sound(plan, "failing", on_enter=on_enter, on_exit=fail if failing == "exit" else None))
        )
        if failing == "enter":
            await begun.wait()
            entering.cancel()  # so that nobody waits for the error any more
        await asyncio.wait([entering])
        await enter(Sound(plan, "newer"))
        for _ in range(5):
            await asyncio.sleep(0)

    with pytest.raises(type(error)) as caught:
        ENDS[end](new_loop(), main())
    assert caught.value is error
    assert plan.surfaced == ["handler"]
    assert plan.entered == plan.exited
    assert plan.exited["older"] == plan.exited["failing"] == 1


@pytest.mark.parametrize("end", list(ENDS))
def test_sys_exit_in_a_callback_of_the_loop_ends_everything(any_loop: NewLoop, end: str) -> None:
    """`sys.exit()` in a callback leaves the loop at once; the loop's end exits what was open and what was being entered."""
    plan = Plan("none", SystemExit(5))

    async def exit_soon_and_wait() -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 5)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            plan.exited["slow"] += 1
            raise

    async def main() -> None:
        await enter(Sound(plan, "older"))
        await asyncio.gather(enter(Sound(plan, "slow", on_enter=exit_soon_and_wait)), enter(Sound(plan, "newer")))

    with pytest.raises(SystemExit) as caught:
        ENDS[end](any_loop(), main())
    assert caught.value.code == 5
    plan.assert_all_exited("older", "slow", "newer")


@pytest.mark.parametrize(
    "error", [ValueError("broken"), MemoryError(), RecursionError("deep")], ids=lambda error: type(error).__name__
)
def test_a_log_filter_that_fails_keeps_nothing_from_being_entered_or_exited(new_loop: NewLoop, error: Exception) -> None:
    """A filter of the `asyncio_loop_local` logger that raises is reported, and all is entered and exited as without it."""
    plan = Plan("none", error)
    logger = logging.getLogger("asyncio_loop_local")

    def fail(_record: logging.LogRecord) -> bool:
        raise error

    async def main() -> None:
        plan.listen()
        assert await asyncio.wait_for(enter(Sound(plan, "one")), 20) == "one"
        await asyncio.wait_for(aclose(), 20)

    level = logger.level
    logger.addFilter(fail)
    logger.setLevel(logging.DEBUG)
    try:
        end_by_run(new_loop(), main())
    finally:
        logger.setLevel(level)
        logger.removeFilter(fail)
    plan.assert_all_exited("one")
    assert set(plan.surfaced) == {"handler"}
    assert plan.others == []


# No memory.


class ShortOfMemory(asyncio.SelectorEventLoop):
    """Has no memory left for what the library asks of it at the n-th time.

    Save where a future is to wake its task: asyncio has forgotten by then whom to wake, and nobody can make that good.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left = sys.maxsize
        self.has_failed = False

    def _take(self) -> None:
        caller = sys._getframe(2).f_globals["__name__"]
        if caller.startswith("asyncio_loop_local."):
            self.left -= 1
            if self.left == -1:
                self.has_failed = True
                raise MemoryError

    def create_future(self) -> asyncio.Future[Any]:
        self._take()
        return super().create_future()

    def time(self) -> float:
        self._take()
        return super().time()

    def call_soon(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]  # as is
        if getattr(callback, "__name__", "") != "task_wakeup":
            self._take()
        return super().call_soon(callback, *args, **kwargs)


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("end", list(ENDS))
def test_a_loop_without_memory_at_any_step(end: str, what: str) -> None:
    """Where the loop raises MemoryError at any step, that surfaces once, and what was entered is exited."""
    outcomes: Counter[str] = Counter()

    async def main(plan: Plan, loop: ShortOfMemory, steps: int) -> None:
        loop.set_exception_handler(lambda _loop, context: _expect_only_asyncios_own(plan, context))
        await enter(Sound(plan, "older"))
        call = await prepared(what, plan)
        loop.left = steps
        try:
            await asyncio.wait_for(call(), 20)
        except MemoryError:
            plan.surfaced.append("caller")
        loop.left = sys.maxsize
        await asyncio.wait_for(call(), 20)
        await enter(Sound(plan, "newer"))

    for steps in range(20):
        plan = Plan("none", MemoryError())
        loop = ShortOfMemory()
        ENDS[end](loop, main(plan, loop, steps))
        assert plan.entered == plan.exited, steps
        assert len(plan.surfaced) + len(plan.others) == loop.has_failed, (steps, plan.others)
        outcomes.update(plan.surfaced or ["worked"])
        if not loop.has_failed:
            break
    assert outcomes["worked"] >= 1
    assert outcomes["caller"] >= (what != "atexit")


@pytest.mark.parametrize("end", list(ENDS))
def test_an_enter_that_cannot_begin_keeps_the_tasks_that_its_making_has_started(end: str) -> None:
    """Such tasks are cancelled and awaited at the end of the loop, though nothing was ever entered."""
    outcomes: list[str] = []

    async def main(loop: ShortOfMemory, steps: int, log: list[str]) -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                log.append("task ended")

        @sticky_singleton_acm
        def make() -> Sound:
            tasks.append(asyncio.create_task(work()))
            return Sound(plan, "made")

        tasks: list[asyncio.Task[None]] = []
        sticky = make()
        await asyncio.sleep(0)
        loop.left = steps
        try:
            raise LookupError
        except LookupError:  # where no enter begins in the caller's own step
            try:
                async with sticky:
                    outcomes.append("worked")
            except MemoryError:
                outcomes.append("failed")
        loop.left = sys.maxsize
        assert log == []

    for steps in range(10):
        plan, log = Plan("none", MemoryError()), list[str]()
        loop = ShortOfMemory()
        ENDS[end](loop, main(loop, steps, log))
        assert log == ["task ended"], steps
        assert plan.entered == plan.exited
    assert {*outcomes} == {"failed", "worked"}


# Processes.


def program(script: str, *arguments: str) -> tuple[list[str], str, int]:
    """Runs a program in a process of its own; what it printed, its stderr, and its status."""
    done = run_python("-c", _PRELUDE + textwrap.dedent(script), *arguments)
    return done.stdout.splitlines(), done.stderr, done.returncode


_PRELUDE = """
import asyncio, gc, os, signal, sys, threading, warnings
from asyncio_loop_local import aclose, atexit, enter, enter_once, release, sticky_singleton_acm
import uvloop

warnings.filterwarnings("always", ".*(was still open|was dropped)", ResourceWarning)
new_loop = uvloop.new_event_loop if "uvloop" in sys.argv else asyncio.new_event_loop

def note(*words):
    print(os.getpid() == parent and "parent" or "child", *words, flush=True)

parent = os.getpid()

class Resource:
    def __init__(self, name="resource"):
        self.name = name
    async def __aenter__(self):
        await self.during("enter")
        note("entered", self.name)
        return self
    async def __aexit__(self, *exc):
        await self.during("exit")
        note("exited", self.name)
    async def during(self, what):
        await asyncio.sleep(0)

"""


LOST_FROM_3_14 = pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="asyncio itself finds no running loop in the child, and loses its sys.exit: see tests/facts/test_cpython.py",
)


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("child_ends", [pytest.param("sys.exit(0)", marks=LOST_FROM_3_14), "os._exit(0)", "another loop"])
@pytest.mark.parametrize("moment", ["enter", "exit"])
def test_a_fork_in_the_middle_of_an_enter_and_of_an_exit(loop_kind: str, child_ends: str, moment: str) -> None:
    """A child that is forked by the code of an enter or exit ends nothing of its parent's; the parent goes on, once each."""
    lines, stderr, status = program(
        """
        class Forks(Resource):
            async def during(self, what):
                await asyncio.sleep(0)
                if what == sys.argv[1]:
                    if pid := os.fork():
                        note("child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    elif sys.argv[2] == "os._exit(0)":
                        os._exit(0)
                    elif sys.argv[2] == "sys.exit(0)":
                        sys.exit(0)
                    else:
                        thread = threading.Thread(target=lambda: asyncio.run(other()))
                        thread.start()
                        thread.join()
                        os._exit(0)

        async def other():
            await enter(Resource("other"))

        async def main():
            await enter(Resource("older"))
            await enter(Forks("forks"))
            await enter(Resource("newer"))

        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
        moment,
        child_ends,
        loop_kind,
    )
    assert (status, stderr) == (0, "")
    child = ["child entered other", "child exited other"] if child_ends == "another loop" else []
    assert [line for line in lines if line.startswith("child")] == child
    parent = ["entered older", "entered forks", "entered newer", "exited newer", "exited forks", "exited older"]
    parent.insert(parent.index("entered forks" if moment == "enter" else "exited forks"), "child ended 0")
    assert [line.removeprefix("parent ") for line in lines if line.startswith("parent")] == parent


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_interpreter_exit_with_open_loops_in_several_threads(loop_kind: str) -> None:
    """Loops left open by main and by threads that have ended, and one that a daemon thread runs, are all ended, and named."""
    lines, stderr, status = program(
        """
        async def use(name):
            await enter(Resource(name))

        async def for_ever():
            await use("running")
            running.set()
            await asyncio.Event().wait()

        async def half():
            asyncio.create_task(enter(Stuck("half entered")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        class Stuck(Resource):
            async def during(self, what):
                await asyncio.Event().wait()

        def leave_open(main):
            loop = new_loop()
            loops.append(loop)
            try:
                loop.run_until_complete(main)
            except asyncio.CancelledError:
                note("cancelled")

        loops, running = [], threading.Event()
        leave_open(use("main's"))
        leave_open(half())
        threads = [threading.Thread(target=leave_open, args=(use(f"thread {n}'s"),)) for n in range(3)]
        for thread in threads:
            thread.start()
            thread.join()
        threading.Thread(target=leave_open, args=(for_ever(),), daemon=True).start()
        running.wait()
        """,
        loop_kind,
    )
    names = ["main's", "running", "thread 0's", "thread 1's", "thread 2's"]
    assert status == 0
    for what in ("entered", "exited"):
        assert sorted(line for line in lines if what in line) == [f"parent {what} {name}" for name in names]
    assert stderr.count("was still open when the interpreter exited") == len(names) + 1
    assert not re.search("Traceback|never awaited", stderr)


@pytest.mark.parametrize("moment", ["enter", "held", "exit"])
def test_a_loop_dropped_in_the_middle_says_so_once(moment: str) -> None:
    """A loop that is dropped while something is entered, held or exited on it warns once, names it, and does nothing else."""
    lines, stderr, status = program(
        """
        class Slow(Resource):
            async def during(self, what):
                if what == sys.argv[1]:
                    await asyncio.Event().wait()

        make = sticky_singleton_acm(Slow)

        async def use():
            async with make():
                pass

        async def main():
            for call in (use, aclose) if sys.argv[1] == "exit" else (use,):
                task = asyncio.create_task(call())
                task._log_destroy_pending = False  # what asyncio says of a task of the program's own is not what is asked here
                for _ in range(3):
                    await asyncio.sleep(0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        del loop
        gc.collect()
        asyncio.run(use()) if sys.argv[1] == "held" else None
        print("over")
        """,
        moment,
    )
    assert (status, lines[-1]) == (0, "over")
    assert stderr.count("was dropped without being closed") == 1
    assert "Slow()" in stderr
    assert not re.search("Traceback|destroyed|never awaited", stderr)


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("ended_by", ["aclose", "release", "interpreter"])
def test_ctrl_c_ends_an_exit_that_hangs(ended_by: str, loop_kind: str) -> None:
    """Ctrl-C, perhaps a second one, ends an exit that hangs in `aclose`, `release` or at interpreter exit; the others exit."""
    lines, stderr, status = program(
        """
        class Hangs(Resource):
            async def __aexit__(self, *exc):
                note("hangs")
                try:
                    threading.Thread(target=strike, daemon=True).start()
                    await asyncio.Event().wait()
                finally:
                    note("exited", self.name)
                    ended.set()

        def strike():
            while not ended.wait(0.05):
                os.kill(os.getpid(), signal.SIGINT)

        ended = threading.Event()
        make = sticky_singleton_acm(Hangs)

        async def main():
            await enter(Resource("older"))
            async with make("hangs"):
                pass
            if sys.argv[1] == "aclose":
                await aclose()
            if sys.argv[1] == "release":
                await release(make, "hangs")

        try:
            if sys.argv[1] == "interpreter":
                loop = new_loop()
                loop.run_until_complete(main())
            else:
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    runner.run(main())
        except KeyboardInterrupt:
            note("interrupted")
        """,
        ended_by,
        loop_kind,
    )
    assert lines[:3] == ["parent entered older", "parent entered hangs", "parent hangs"]
    exits = ["parent exited older", "parent exited hangs"]
    assert sorted(lines[3:]) == sorted(exits + ["parent interrupted"] * (ended_by != "interpreter"))
    assert not re.search("destroyed|never awaited", stderr)
    assert status == 0


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("next_one", ["callback", "resource"])
def test_ctrl_c_just_before_an_exit_begins(new_loop: NewLoop, next_one: str, end: str) -> None:
    """Ctrl-C that comes as one exit gives way to the next cancels that one, the others run, and KeyboardInterrupt is raised."""
    plan = Plan("none", KeyboardInterrupt())
    cancelled: list[str] = []

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(next_one)
            raise

    async def main() -> None:
        await enter(Sound(plan, "older"))
        if next_one == "callback":
            atexit.register(wait_for_ever)
        else:
            await enter(Sound(plan, "waits", on_exit=wait_for_ever))
        await enter(Sound(plan, "interrupts", on_exit=interrupt, waits=False))

    with pytest.raises(KeyboardInterrupt):
        ENDS[end](new_loop(), main())
    assert cancelled == [next_one]
    plan.assert_all_exited()


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("way", list(WAYS))
def test_an_error_is_not_lost_with_the_caller_that_is_cancelled_meanwhile(any_loop: NewLoop, way: str, turns: int) -> None:
    """Whenever its only caller is cancelled, the error of an enter reaches the caller or else the exception handler."""
    plan = Plan("enter after await", ValueError("not to be lost"))

    def cancel_later(caller: asyncio.Future[None], turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(cancel_later, caller, turns - 1)
        else:
            caller.cancel()

    async def main() -> None:
        plan.listen()

        async def fail() -> None:
            cancel_later(caller, turns)
            raise plan.error

        caller = asyncio.ensure_future(plan.catch(WAYS[way](lambda: Sound(plan, "fails", on_enter=fail))))
        await asyncio.wait([caller])

    end_by_run(any_loop(), main())
    gc.collect()
    assert set(plan.surfaced) in ({"caller"}, {"handler"})
    assert set(plan.others) <= {"CancelledError()"}
    assert not plan.exited
