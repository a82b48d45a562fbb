"""`LoopVar(close=…)`: each value is closed once, on its own loop, with that loop or with the variable, whichever ends first."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import collector
from asyncio_loop_local import LoopVar, aclose, enter, resources, singleton, storage
from closing import USER, Client, closes, takes_on_request
from conftest import LOOPS, Run
from loop_programs import each_kind_of_loop, run_script, without_asyncios_own
from recording import Recorded, begin, cancel, enters, exits, keep, on_each_loop, reports_of_this_loop, turns

LONGEST_WAIT = 30.0  # seconds; only for what would otherwise hang


class Sdk:
    """An object of an SDK, with a client for each loop, which is closed by a method of the object."""

    def __init__(self, log: list[str], name: str = "0") -> None:
        self.log = log
        self.name = name
        self.client = LoopVar[Client]("client", factory=self.connect, close=self.close)

    def connect(self) -> Client:
        return Client(self.log, self.name)

    async def close(self, client: Client) -> None:
        await client.aclose()


def new_variable(log: list[str], close: Callable[[Client], object] = Client.aclose, name: str = "0") -> LoopVar[Client]:
    return LoopVar("v", factory=lambda: Client(log, name), close=close)


class OtherLoop:
    """A loop that runs in a thread of its own, until its block is left."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self.reports: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=lambda: run(self._main()))

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.reports.append(context))
        self._started.set_result(loop)
        await self._stop.wait()

    def call(self, function: Callable[[], Any]) -> Any:
        """What a function returns there, or what it gives when it is awaited."""

        async def call() -> Any:
            result = function()
            return await result if inspect.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._started.result(LONGEST_WAIT)).result(LONGEST_WAIT)

    def stop(self) -> None:
        loop = self._started.result(LONGEST_WAIT)
        with suppress(RuntimeError):  # it has been closed
            loop.call_soon_threadsafe(self._stop.set)

    def __enter__(self) -> OtherLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(LONGEST_WAIT)
        assert not self._thread.is_alive()


# With its loop.


@on_each_loop
async def test_a_value_is_closed_when_its_loop_ends(log: list[str]) -> list[str]:
    """A value that the factory made, or that was set, is closed once when the loop ends, newest first; a default never is."""
    made, set_ = new_variable(log, name="made"), LoopVar[Client]("v", close=Client.aclose)
    default = LoopVar("v", default=Client(log, "default"), close=Client.aclose)
    storage()["variables"] = [made, set_, default]
    assert made.get() is made.get()
    set_.set(Client(log, "set"))
    assert default.get().name == "default"
    return closes("set", "made")


@on_each_loop
async def test_aclose_of_the_loop_closes_it(log: list[str]) -> list[str]:
    """`aclose` closes the value, and the next `get` makes another one."""
    var = storage()["var"] = new_variable(log)
    first = var.get()
    await aclose()
    assert log == closes("0")
    storage()["var"] = var
    assert var.get() is not first
    return closes("0", "0")


def test_each_loop_closes_its_own(run: Run) -> None:
    """A variable has a value on each loop, and each loop closes its own."""
    log: list[str] = []
    var = new_variable(log)

    async def main() -> Client:
        return var.get()

    assert run(main()) is not run(main())
    assert log == closes("0", "0")


def test_closing_a_loop_by_hand_closes_it(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """`loop.close()` closes the value of a loop that is driven by hand, also if the variable is gone by then."""
    log: list[str] = []
    variables = [new_variable(log, name="a"), new_variable(log, name="b")]

    async def main() -> list[Client]:
        return [each.get() for each in variables]

    loop = new_loop()
    assert loop.run_until_complete(main()) == loop.run_until_complete(main())
    del variables[0]
    assert log == []
    loop.close()
    assert sorted(log) == sorted(closes("a", "b"))


@on_each_loop
async def test_it_is_a_resource_like_any_other(log: list[str]) -> list[str]:
    """The value is listed, closed in a task of its own and in the order of exits, with the tasks that the factory started."""
    tasks: list[asyncio.Task[Any]] = []

    async def close(client: Client) -> None:
        await client.aclose()
        log.append(f"its task {'has ended' if tasks[0].done() else 'goes on'}")

    def factory() -> Client:
        tasks.append(asyncio.create_task(asyncio.Event().wait()))
        return Client(log)

    await enter(Recorded(log, "before"))
    var = storage()["var"] = LoopVar("of client", factory=factory, close=close)
    client = var.get()
    await enter(Recorded(log, "after"))
    (info,) = [info for info in resources() if info.name == "LoopVar 'of client'"]
    assert info.state == "open"
    assert info.since is not None
    assert info.tasks == (tasks[0],)
    await aclose()
    assert client.closed_in not in (None, asyncio.current_task())
    assert tasks[0].cancelled()
    return [*enters("before", "after"), *exits("after"), *closes("0"), "its task goes on", *exits("before")]


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("take", ["get", "get with a default"])
@on_each_loop
async def test_a_value_outlives_a_resource_whose_task_has_taken_it(log: list[str], take: str, is_warm: bool) -> list[str]:
    """A `get` in a task of a resource, though the value is newer, makes that value outlive the resource."""
    var = storage()["var"] = new_variable(log)
    ask = await enter(takes_on_request(log, var.get if take == "get" else lambda: var.get(None)))
    if is_warm or take != "get":
        var.get()
    await ask()
    assert resources()[0].uses == ("LoopVar 'v'",)
    return [*USER, *closes("0")]


@pytest.mark.parametrize("ended_by", ["another value", "reset", "the end of the variable"])
@on_each_loop
async def test_a_value_that_a_resource_uses_is_closed_after_it(log: list[str], ended_by: str) -> list[str]:
    """A value that is replaced, reset or freed while a resource still uses it is closed after that resource."""
    variables = [new_variable(log)]
    token = variables[0].set(Client(log))
    await (await enter(takes_on_request(log, variables[0].get)))()
    if ended_by == "another value":
        variables[0].set(Client(log, "1"))
    elif ended_by == "reset":
        variables[0].reset(token)
    else:
        del token, variables[0]
    await turns()
    assert log == []
    has_another = ended_by == "another value"
    assert len(resources()) == 2 + has_another
    await aclose()
    return [*closes("1") * has_another, *USER, *closes("0")]


@on_each_loop
async def test_a_factory_that_gets_its_own_variable_closes_what_nobody_gets(log: list[str]) -> list[str]:
    """What the factory itself has made or set meanwhile is the value; its own result is closed at once, and each once."""
    names = ["outer"]

    def factory() -> Client:
        if not names:
            return Client(log, "inner")
        name = names.pop()
        assert var.get().name == "inner"
        return Client(log, name)

    var = storage()["var"] = LoopVar("v", factory=factory, close=Client.aclose)
    assert var.get() is var.get()
    assert var.get().name == "inner"
    await turns()
    assert log == closes("outer")
    return closes("outer", "inner")


@on_each_loop
async def test_a_factory_that_fails_leaves_nothing_to_close(log: list[str]) -> list[str]:
    """An error of the factory is raised and not remembered, and what the factory had used can be closed again."""
    used = storage()["used"] = new_variable(log, name="used")
    errors = [OSError("of the factory")]

    def factory() -> Client:
        used.get()
        if errors:
            raise errors.pop()
        return Client(log)

    var = storage()["var"] = LoopVar("v", factory=factory, close=Client.aclose)
    with pytest.raises(OSError, match="of the factory"):
        var.get()
    assert [info.name for info in resources()] == ["LoopVar 'v'"]
    await used.aclose()
    assert var.get().name == "0"
    return [*closes("used"), *closes("0", "used")]


@pytest.mark.parametrize("value", [None, 0, ()], ids=repr)
@on_each_loop
async def test_a_false_value_is_closed_too(log: list[Any], value: Any) -> list[Any]:
    """None, or anything else that is false, is a value, and is closed."""
    var = storage()["var"] = LoopVar[Any]("v", factory=lambda: value, close=log.append)
    assert var.get() is var.get() is value
    return [value]


# Another value.


@on_each_loop
async def test_another_value_closes_the_one_before(log: list[str]) -> list[str]:
    """`set` closes the value from before at the loop's next turn; to set the same value again changes nothing."""
    var = storage()["var"] = LoopVar[Client]("v", close=Client.aclose)
    first, second = Client(log, "1"), Client(log, "2")
    var.set(first)
    token = var.set(second)
    assert token.old_value is first
    assert log == []
    await turns()
    assert log == closes("1")
    same = var.set(second)
    await turns()
    var.reset(same)
    assert var.get() is second
    return closes("1", "2")


@on_each_loop
async def test_reset_closes_the_value(log: list[str]) -> list[str]:
    """`reset` closes the present value, and leaves none, since the one from before has been closed."""
    var = LoopVar[Client]("v", close=Client.aclose)
    var.set(Client(log, "1"))
    token = var.set(Client(log, "2"))
    var.reset(token)
    assert var.get(None) is None
    await turns()
    assert sorted(log) == sorted(closes("1", "2"))
    log.clear()
    first = var.set(Client(log, "3"))
    var.reset(first)
    with pytest.raises(LookupError):
        var.get()
    await turns()
    return closes("3")


@on_each_loop
async def test_a_closing_that_fails_later_is_reported_once(log: list[str]) -> list[str]:
    """An error of ``close`` for which no task waits is reported once, with the name of the variable."""
    reports = reports_of_this_loop()
    var = new_variable(log)
    var.get().close_error = error = OSError()
    var.set(Client(log, "1"))
    await turns()
    assert [(report["message"], report["exception"]) for report in reports] == [("the exit of LoopVar 'v' failed", error)]
    await var.aclose()
    return ["closing 0", *closes("1")]


# With its variable, which belongs to an object.


@pytest.fixture
def no_collector() -> Generator[None]:
    """Leaves all to reference counting, but for collections that the test makes."""
    with collector.disabled():
        yield


@pytest.mark.usefixtures("no_collector")
@on_each_loop
async def test_nothing_keeps_the_variable_alive(log: list[str]) -> list[str]:
    """A variable whose last reference goes is freed at once, and its value is closed at the loop's next turn, once."""
    var = new_variable(log)
    gone = weakref.ref(var)
    client = weakref.ref(var.get())
    del var
    assert gone() is None
    assert log == []
    await turns()
    assert log == closes("0")
    assert client() is None
    return closes("0")


@pytest.mark.usefixtures("no_collector")
@on_each_loop
async def test_an_object_in_a_cycle_is_collected_and_its_value_closed(log: list[str]) -> list[str]:
    """An object to which its variable's factory, ``close`` and value refer is garbage like any: its ``close`` is called once."""
    sdk = Sdk(log)
    sdk.client.get().sdk = sdk  # type: ignore[attr-defined]  # as many a client knows its owner
    gone = weakref.ref(sdk)
    del sdk
    assert gone() is not None
    gc.collect()
    await turns()
    assert log == closes("0")
    gc.collect()
    assert gone() is None
    return closes("0")


@pytest.mark.usefixtures("no_collector")
@on_each_loop
async def test_a_collection_while_its_value_is_closed_changes_nothing(log: list[str]) -> list[str]:
    """What is in the middle of being closed is closed once, however often the collector runs meanwhile."""
    sdk = Sdk(log)
    client = sdk.client.get()
    client.sdk = sdk  # type: ignore[attr-defined]  # as many a client knows its owner
    closing, may_close = client.closing, client.may_close
    may_close.clear()
    del sdk, client
    gc.collect()
    await closing.wait()
    gc.collect()
    may_close.set()
    await turns()
    gc.collect()
    return closes("0")


@pytest.mark.parametrize("is_garbage", [False, True], ids=["by its last reference", "by the collector"])
@on_each_loop
async def test_it_is_freed_in_another_thread(log: list[str], is_garbage: bool) -> list[str]:
    """An object may be freed in any thread, by its last reference or by the collector: its value is closed on its own loop."""
    objects = [Sdk(log) if is_garbage else new_variable(log)]
    client = objects[0].client.get() if isinstance(objects[0], Sdk) else objects[0].get()

    def drop() -> None:
        objects.clear()
        gc.collect()

    await asyncio.to_thread(drop if is_garbage else objects.clear)
    await client.closing.wait()
    return closes("0")


def test_an_object_used_on_two_loops_is_closed_on_both(run: Run) -> None:
    """A dropped object's values are closed on the loops that made them, each at its next turn."""
    closed: dict[asyncio.AbstractEventLoop, threading.Event] = {}

    def factory() -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        closed[loop] = threading.Event()
        return loop

    async def close(loop: asyncio.AbstractEventLoop) -> None:
        assert asyncio.get_running_loop() is loop
        closed[loop].set()

    variables = [LoopVar("v", factory=factory, close=close)]

    async def main() -> None:
        variables[0].get()
        variables.clear()
        for each in closed.values():
            assert await asyncio.to_thread(each.wait, LONGEST_WAIT)

    with OtherLoop(run) as other:
        other.call(variables[0].get)
        run(main())
    assert len(closed) == 2


@pytest.mark.parametrize("when", ["in a task's finally", "in an exit", "in its own close"])
@on_each_loop
async def test_it_is_dropped_while_its_loop_ends(log: list[str], when: str) -> list[str]:
    """An object that goes while its loop ends has its value closed once."""

    async def close(client: Client) -> None:
        variables.clear()
        await client.aclose()

    variables = [new_variable(log, close if when == "in its own close" else Client.aclose)]
    variables[0].get()

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            variables.clear()

    if when == "in an exit":
        singleton(lambda: 1, close=lambda _: variables.clear())()
    elif when == "in a task's finally":
        keep(linger())
        await asyncio.sleep(0)
    else:
        storage()["variables"] = variables
    return closes("0")


def test_it_is_dropped_after_its_loop_has_ended(run: Run) -> None:
    """A variable that goes after its loops have closed their values closes nothing once more."""
    log: list[str] = []
    variables = [new_variable(log)]

    async def main() -> None:
        variables[0].get()

    run(main())
    variables.clear()
    gc.collect()
    assert log == closes("0")


def test_many_threads_drop_objects_while_loops_end(run: Run) -> None:
    """Whatever is dropped while its loop ends, by whichever thread, is closed, and closed once."""
    closed: list[int] = []
    rounds, made_per_round = 20, 20

    async def close(number: int) -> None:
        closed.append(number)
        await asyncio.sleep(0)

    def make(number: int) -> LoopVar[int]:
        var = LoopVar[int]("v", close=close)
        var.set(number)
        return var

    async def main(first: int) -> tuple[list[LoopVar[int]], Future[None]]:
        variables = [make(number) for number in range(first, first + made_per_round)]
        return variables, threads.submit(variables.clear)

    with ThreadPoolExecutor(2) as threads:
        for number in range(rounds):
            variables, dropping = run(main(number * made_per_round))
            dropping.result(LONGEST_WAIT)
            assert variables == []
    assert sorted(closed) == list(range(rounds * made_per_round))


# The process ends, or a loop is dropped.

PROGRAM = """
from asyncio_loop_local import LoopVar

class Sdk:
    def __init__(self, name):
        self.name = name
        self.client = LoopVar("client", factory=self.connect, close=self.close)
    def connect(self):
        return [self]
    async def close(self, client):
        assert client == [self]
        await asyncio.sleep(0)
        note("closed", self.name)

async def main():
    kept.client.get()
    Sdk("dropped").client.get()

kept = Sdk("kept")
"""


IN_MAIN_THREAD = "loop = new_loop()\nloop.run_until_complete(main())\nnote('end of program')"
IN_DAEMON_THREAD = """
loop = new_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(main(), loop).result()
note('end of program')
"""


@pytest.mark.parametrize("program", [IN_MAIN_THREAD, IN_DAEMON_THREAD], ids=["main thread", "daemon thread"])
@each_kind_of_loop
def test_it_is_closed_at_the_interpreters_exit(loop_kind: str, program: str) -> None:
    """A loop that is still open when the interpreter exits closes its values then, also those of objects that are garbage."""
    printed, stderr = run_script(loop_kind, PROGRAM + program)
    assert printed[0] == "end of program"
    assert sorted(printed[1:]) == ["closed dropped", "closed kept"]
    if program is IN_MAIN_THREAD:
        (warning,) = without_asyncios_own(stderr)
        assert "It held LoopVar 'client', LoopVar 'client'" in warning


@each_kind_of_loop
def test_an_object_dropped_at_the_interpreters_exit_is_silent(loop_kind: str) -> None:
    """An object that lives to the end of the interpreter, and whose loops have ended, is closed once and says nothing."""
    printed, stderr = run_script(
        loop_kind,
        PROGRAM + "with asyncio.Runner(loop_factory=new_loop) as runner:\n    runner.run(main())\nnote('end of program')",
    )
    assert sorted(printed[:-1]) == ["closed dropped", "closed kept"]
    assert stderr == ""


@pytest.mark.usefixtures("no_collector")
def test_an_object_collected_with_its_loop_says_what_was_not_closed() -> None:
    """Where one collection frees an object and the loop that its ``__del__`` closes, the value is closed, or it is said."""
    log: list[str] = []

    class SyncSdk(Sdk):
        def __init__(self) -> None:
            super().__init__(log)
            self.loop = asyncio.new_event_loop()
            self.loop.run_until_complete(self.use())

        async def use(self) -> None:
            self.client.get()

        def __del__(self) -> None:
            self.loop.close()

    SyncSdk()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    messages = [str(warning.message).partition(":")[0] for warning in caught]
    was_never_closed = "the loop of a value ended while the variable of that value was being collected, so it was never closed"
    assert (log, messages) in ((closes("0"), []), ([], [was_never_closed]))


# `aclose` of the variable.


@on_each_loop
async def test_aclose_closes_the_value_here(log: list[str]) -> list[str]:
    """`LoopVar.aclose` closes this loop's value before it returns; the variable can be used afterwards, and closed again."""
    var = new_variable(log)
    first = var.get()
    await var.aclose()
    assert log == closes("0")
    assert resources() == ()
    await var.aclose()
    assert var.get() is not first
    await var.aclose()
    return closes("0", "0")


@on_each_loop
async def test_aclose_waits_for_what_was_set_before(log: list[str]) -> list[str]:
    """`LoopVar.aclose` closes, and waits for, values too that other values have replaced and that are not closed yet."""
    var = LoopVar[Client]("v", close=Client.aclose)
    var.set(Client(log, "1"))
    var.set(Client(log, "2"))
    await var.aclose()
    assert sorted(log) == sorted(closes("1", "2"))
    return log.copy()


@on_each_loop
async def test_aclose_where_nothing_is_to_be_closed(log: list[str]) -> list[str]:
    """Without a value, and without ``close``, `LoopVar.aclose` does nothing."""
    await new_variable(log).aclose()
    plain = LoopVar("v", default=1)
    plain.set(2)
    await plain.aclose()
    assert plain.get() == 2
    return []


@on_each_loop
async def test_two_acloses_wait_for_the_same_exit() -> None:
    """Of two tasks that close a variable, the second too waits until its value is closed, whenever it comes."""
    log: list[str] = []
    var = new_variable(log)
    client = var.get()
    client.may_close.clear()
    closing = [await begin(var.aclose()) for _ in range(3)]
    client.may_close.set()
    await asyncio.gather(*closing)
    assert log == closes("0")


@on_each_loop
async def test_errors_of_close_are_raised_by_aclose() -> None:
    """`LoopVar.aclose` raises a group with the errors of ``close`` in each task that waits; it has notes, a repr and a pickle."""
    reports = reports_of_this_loop()
    var = new_variable([])
    var.get().close_error = error = OSError("of close")
    groups: list[Any] = [*await asyncio.gather(var.aclose(), var.aclose(), return_exceptions=True)]
    for group in groups:
        assert group.exceptions == (error,)
        assert group.message == "errors at the exits of what LoopVar 'v' held"
        assert "[OSError('of close')]" in repr(group)
        assert [*map(str, pickle.loads(pickle.dumps(group)).exceptions)] == ["of close"]
    assert error.__notes__[0] == "raised by the exit of LoopVar 'v'"
    assert reports == []


@pytest.mark.parametrize("is_begun", [True, False])
@on_each_loop
async def test_aclose_that_is_cancelled_lets_the_exit_go_on(log: list[str], is_begun: bool) -> list[str]:
    """`LoopVar.aclose` may be cancelled, at once too: the value is closed all the same, and what ``close`` raises is reported."""
    reports = reports_of_this_loop()
    var = new_variable(log)
    client = var.get()
    client.close_error = error = OSError()
    if is_begun:
        client.may_close.clear()
        await cancel(await begin(var.aclose()))
        client.may_close.set()
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await var.aclose()
    await turns()
    assert [report["exception"] for report in reports] == [error]
    return ["closing 0"]


@on_each_loop
async def test_aclose_from_inside_its_own_close_is_refused() -> None:
    """``close`` itself cannot close the variable: that is a `RuntimeError`, and no deadlock."""
    refused: list[str] = []

    async def close(_: object) -> None:
        with pytest.raises(RuntimeError, match="this would wait for ever") as caught:
            await var.aclose()
        refused.append(str(caught.value))

    var = LoopVar[Any]("v", factory=object, close=close)
    var.get()
    await var.aclose()
    assert len(refused) == 1


@pytest.mark.parametrize("where", ["in its task", "in its exit"])
@on_each_loop
async def test_aclose_from_inside_a_resource(log: list[str], where: str) -> list[str]:
    """Code of a resource may close a variable that it has used, as an SDK's `aclose` does in an exit."""
    var = storage()["var"] = new_variable(log)

    @asynccontextmanager
    async def user() -> AsyncGenerator[None]:
        var.get()
        if where == "in its task":
            await asyncio.create_task(var.aclose())
        yield
        if where == "in its exit":
            await var.aclose()
        log.append("exited the user")

    await enter(user())
    return [*closes("0"), "exited the user"]


def test_aclose_without_a_loop_is_refused() -> None:
    """`LoopVar.aclose` where no loop runs is a `RuntimeError`."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        new_variable([]).aclose().send(None)


def test_aclose_closes_on_loops_in_other_threads(run: Run) -> None:
    """`LoopVar.aclose` closes the values of loops that run in other threads on those, and waits for that."""
    log: list[str] = []
    var = new_variable(log)

    async def main() -> None:
        here = var.get()
        await var.aclose()
        assert log.count("closed 0") == 4
        assert here.closed_in is not None
        assert var.get() is not here

    with OtherLoop(run) as one, OtherLoop(run) as two, OtherLoop(run) as three:
        others = [other.call(var.get) for other in (one, two, three)]
        run(main())
        assert [other.call(lambda: var.get(None)) for other in (one, two, three)] == [None] * 3
    assert len(set(others)) == 3
    assert len(log) == len(closes("0")) * 5


def test_two_loops_close_a_variable_at_the_same_time(run: Run) -> None:
    """Loops in several threads may close one variable everywhere at the same time: each value is closed once."""
    closed: list[object] = []
    together = threading.Barrier(3, timeout=LONGEST_WAIT)
    var = LoopVar[object]("v", factory=object, close=closed.append)

    async def main() -> None:
        for _ in range(20):
            var.get()
            await asyncio.to_thread(together.wait)
            await var.aclose()

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(run, main()) for _ in range(3)]:
            done.result(LONGEST_WAIT)
    assert len(set(map(id, closed))) == len(closed) == 60


def test_errors_on_other_loops_are_raised_by_aclose(run: Run) -> None:
    """Errors of ``close`` on loops that run elsewhere are raised by `LoopVar.aclose`, and reported nowhere besides."""
    var = new_variable([])

    async def main() -> None:
        var.get().close_error = here = OSError("here")
        with pytest.raises(ExceptionGroup) as caught:
            await var.aclose()
        assert caught.value.exceptions == (here, there)

    with OtherLoop(run) as other:
        there = other.call(var.get).close_error = OSError("there")
        run(main())
    assert other.reports == []


@pytest.mark.parametrize("at_once", [True, False])
def test_no_error_of_another_loop_is_lost_when_aclose_is_cancelled(run: Run, at_once: bool) -> None:
    """If the task that calls it is cancelled, at once or later, other loops still close their values, and report errors."""
    var = new_variable([])

    async def main() -> None:
        if at_once:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await var.aclose()
        else:
            closing = asyncio.create_task(var.aclose())
            await asyncio.to_thread(other.call, client.closing.wait)
            await cancel(closing)

    with OtherLoop(run) as other:
        client = other.call(var.get)
        client.close_error = error = OSError("there")
        client.may_close.clear()
        run(main())
        other.call(client.may_close.set)
        other.call(turns)
    assert [(report["message"], report["exception"]) for report in other.reports] == [("the exit of LoopVar 'v' failed", error)]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_loops_that_do_not_run_close_at_their_end(kind: str, run: Run) -> None:
    """`LoopVar.aclose` does not wait for loops that do not run: these close their values themselves, at their end."""
    log: list[str] = []
    var = new_variable(log)

    async def get() -> Client:
        return var.get()

    async def main() -> None:
        await var.aclose()
        assert log == []

    loop = LOOPS[kind]()
    loop.run_until_complete(get())
    run(main())
    loop.close()
    assert log == closes("0")


def test_a_loop_that_ends_while_aclose_waits_for_it(run: Run) -> None:
    """If another thread's loop ends while `LoopVar.aclose` waits for it, the value is closed once, and the wait ends."""
    closed: list[object] = []

    async def close(value: object) -> None:
        other.stop()  # its loop goes on to its end
        await turns()
        closed.append(value)

    var = LoopVar[object]("v", factory=object, close=close)

    async def main() -> None:
        await var.aclose()

    with OtherLoop(run) as other:
        there = other.call(var.get)
        run(main())
    assert closed == [there]
    assert other.reports == []


def test_closing_everywhere_while_loops_begin_and_end(run: Run) -> None:
    """A variable may be closed everywhere while loops of other threads begin and end: nothing hangs, each is closed once."""
    made: list[object] = []
    closed: list[object] = []
    is_over = threading.Event()

    def factory() -> object:
        made.append(value := object())
        return value

    async def get() -> None:
        var.get()
        await asyncio.sleep(0)

    def run_loops() -> None:
        while not is_over.is_set():
            run(get())

    async def main() -> None:
        for _ in range(50):
            var.get()
            await var.aclose()

    var = LoopVar[object]("v", factory=factory, close=closed.append)
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(run_loops) for _ in range(2)]
        try:
            run(main())
        finally:
            is_over.set()
        for each in running:
            each.result(LONGEST_WAIT)
    assert sorted(map(id, made)) == sorted(map(id, closed))


# What is pickled.


def close_of_module(_: object) -> None:
    """Closes."""


@on_each_loop
async def test_it_is_pickled_without_its_values() -> None:
    """A variable with ``close`` is itself where it comes back; none of its values go with a pickle of it."""
    var = LoopVar[Any]("v", close=close_of_module)

    var.set(threading.Lock())  # which cannot be pickled
    assert pickle.loads(pickle.dumps(var)) is var


@on_each_loop
async def test_a_task_of_a_resource_that_sets_one_after_the_other(log: list[str]) -> list[str]:
    """Each value is closed at the next turn after another one was set, also by code of a resource; the last one after it."""
    var = LoopVar[Client]("v", close=Client.aclose)

    @asynccontextmanager
    async def refreshing() -> AsyncGenerator[None]:
        for name in "012":
            var.set(Client(log, name))
            await turns()
        assert log == closes("0", "1")
        yield
        log.append("exited")

    await enter(refreshing())
    return [*closes("0", "1"), "exited", *closes("2")]


@on_each_loop
async def test_a_value_that_another_resource_uses_outlives_it_when_another_is_set(log: list[str]) -> list[str]:
    """A value that a resource has got is closed after that resource, although other code has set another value."""
    var = new_variable(log)

    @asynccontextmanager
    async def user() -> AsyncGenerator[None]:
        var.get()
        yield
        log.append("exited")

    await enter(user())
    var.set(Client(log, "1"))
    await turns()
    assert log == []
    return [*closes("1"), "exited", *closes("0")]
