"""`singleton(close=…)`: values that a function closes, in the order of exits, like any resource."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import pickle
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from asyncio_loop_local import (
    LoopVar,
    aclose,
    atexit,
    enter,
    format_resources,
    release,
    resources,
    singleton,
    sticky_singleton_acm,
    storage,
)
from closing import COROUTINE_KINDS, KINDS, PLAIN_KINDS, USER, Client, Clients, closes, takes_on_request
from conftest import Run
from loop_programs import each_kind_of_loop, run_script, without_asyncios_own
from recording import Recorded, begin, cancel, enters, exits, keep, on_each_loop, reports_of_this_loop, turns, use

each_kind = pytest.mark.parametrize("kind", KINDS)
each_plain_kind = pytest.mark.parametrize("kind", PLAIN_KINDS)
each_function = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "class"])  # whose code is the test's
each_coroutine_kind = pytest.mark.parametrize("kind", COROUTINE_KINDS)


# Closed once.


@each_kind
@on_each_loop
async def test_a_value_is_closed_when_its_loop_ends(log: list[str], kind: str) -> list[str]:
    """All calls give the same value, which is closed once, when the loop ends."""
    clients = Clients(log, kind)
    client = await clients.get()
    assert await clients.get() is client
    assert log == []
    return closes("0")


@each_kind
@on_each_loop
async def test_aclose_closes_it(log: list[str], kind: str) -> list[str]:
    """`aclose` closes each value, in a task of its own; the next call makes another one, which is closed when the loop ends."""
    clients = Clients(log, kind)
    a, b = await clients.get("a"), await clients.get("b")
    await aclose()
    assert log == closes("b", "a")
    assert resources() == ()
    assert len({a.closed_in, b.closed_in, asyncio.current_task(), None}) == 4
    assert a.closed_in is not None
    assert a.closed_in.done()
    assert await clients.get("a") is not a
    return closes("b", "a", "a")


@each_kind
@on_each_loop
async def test_release_closes_it(log: list[str], kind: str) -> list[str]:
    """`release` closes the value of these arguments alone, once; the next call makes another one."""
    clients = Clients(log, kind)
    first, other = await clients.get("a"), await clients.get("b")
    assert await clients.release("a") is True
    assert log == closes("a")
    assert await clients.release("a") is False
    assert await clients.get("b") is other
    assert await clients.get("a") is not first
    return closes("a", "a", "b")


@each_kind
@on_each_loop
async def test_two_releases_wait_for_one_closing(log: list[str], kind: str) -> list[str]:
    """Two tasks that release a value at the same time wait for the same closing; meanwhile a call makes a new value."""
    clients = Clients(log, kind)
    client = await clients.get()
    client.may_close.clear()
    releasing = [await begin(clients.release()) for _ in range(2)]
    assert await clients.get() is not client
    assert [info.state for info in resources()] == ["exiting", "open"]
    assert not any(task.done() for task in releasing)
    client.may_close.set()
    assert await asyncio.gather(*releasing) == [True, True]
    return closes("0", "0")


@each_kind
def test_closing_a_loop_by_hand_closes_it(new_loop: Callable[[], asyncio.AbstractEventLoop], kind: str) -> None:
    """A loop that is driven by hand keeps the value between its runs; `loop.close()` closes it."""
    log: list[str] = []

    async def main() -> tuple[Clients, Client]:
        clients = Clients(log, kind)
        return clients, await clients.get()

    loop = new_loop()
    clients, client = loop.run_until_complete(main())
    assert loop.run_until_complete(clients.get()) is client
    loop.close()
    assert log == closes("0")


@each_kind
def test_a_second_loop_has_a_value_of_its_own(run: Run, kind: str) -> None:
    """Each loop makes a value, and closes it itself; a call's coroutine that was carried over gives that of the loop it is on."""
    log: list[str] = []
    carried: list[tuple[Clients, Any]] = []

    async def main() -> Client:
        if not carried:
            clients = Clients(log, kind)
            carried.append((clients, clients.make()))
        [(clients, made)] = carried
        client = await clients.get()
        if clients.is_awaited:
            assert await made is client
        return client

    assert run(main()) is not run(main())
    assert log == closes("0", "0")


@pytest.mark.parametrize("value", [None, 0, "", ()], ids=repr)
@on_each_loop
async def test_a_false_value_is_closed_too(log: list[Any], value: object) -> list[Any]:
    """A factory may return None, or anything else that is false: it is remembered, and closed."""
    make = singleton(lambda: value, close=log.append)
    assert make() is make() is value
    return [value]


def close_at_once(client: Client) -> int:
    client.log.append("closed")
    return 3


CLOSE: dict[str, Callable[[Client], Any]] = {
    "sync": close_at_once,
    "a coroutine function": Client.aclose,
    "returns a coroutine": lambda client: client.aclose(),
    "returns a task": lambda client: asyncio.create_task(client.aclose()),
    "returns an awaitable": lambda client: asyncio.ensure_future(client.aclose()),
    "partial": functools.partial(Client.aclose),
}


@pytest.mark.parametrize("close", CLOSE.values(), ids=list(CLOSE))
@pytest.mark.parametrize("kind", ["function", "coroutine function"])
@on_each_loop
async def test_close_is_sync_or_async(log: list[str], kind: str, close: Callable[[Client], Any]) -> list[str]:
    """``close`` may be a plain function or a coroutine function, or return anything that can be awaited."""
    await Clients(log, kind, close).get()
    return ["closed"] if close is close_at_once else closes("0")


@on_each_loop
async def test_a_property_is_closed(log: list[str]) -> list[str]:
    """The value of a property is closed, for each instance its own."""

    class Service:
        def __init__(self, name: str) -> None:
            self.name = name

        @property
        @singleton(close=Client.aclose)
        def client(self) -> Client:
            return Client(log, self.name)

    one, other = Service("one"), Service("other")
    assert one.client is one.client is not other.client
    return closes("other", "one")


@on_each_loop
async def test_unhashable_arguments_find_it(log: list[str]) -> list[str]:
    """Arguments that count by value find the same value, each time anew, and release it."""

    @singleton(close=Client.aclose)
    def make(options: dict[str, list[int]]) -> Client:
        return Client(log, str(options))

    assert make({"a": [1]}) is make({"a": [1]}) is make(options={"a": [1]}) is make({"a": [1]})
    assert make({"a": [2]}) is not make({"a": [1]})
    assert await release(make, {"a": [1]})
    return closes("{'a': [1]}", "{'a': [2]}")


# In the order of exits.


@each_kind
@on_each_loop
async def test_values_are_closed_newest_first(log: list[str], kind: str) -> list[str]:
    """Values, resources and `atexit` callbacks end in one order, newest first."""
    clients = Clients(log, kind)
    await clients.get("1")
    await enter(Recorded(log, "2"))
    await clients.get("3")
    atexit.register(log.append, "callback 4")
    await clients.get("5")
    await clients.get("1")
    return [*enters("2"), *closes("5"), "callback 4", *closes("3"), *exits("2"), *closes("1")]


@each_kind
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@on_each_loop
async def test_a_value_outlives_a_resource_whose_task_has_taken_it(log: list[str], kind: str, is_warm: bool) -> list[str]:
    """A call in a task of a resource, though it only finds a newer value, makes that value outlive the resource."""
    clients = Clients(log, kind)
    ask = await enter(takes_on_request(log, clients.get))
    if is_warm:
        await clients.get()
    await ask()
    user, client = resources()
    assert user.uses == (client.name,)
    with pytest.raises(RuntimeError, match="while it is in use by"):
        await clients.release()
    return [*USER, *closes("0")]


@each_kind
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@on_each_loop
async def test_a_value_is_used_by_what_takes_it_in_its_enter(log: list[str], kind: str, is_warm: bool) -> list[str]:
    """A resource that takes a value in its enter uses it: the value cannot be released before the resource."""
    clients = Clients(log, kind)

    @sticky_singleton_acm
    @asynccontextmanager
    async def user() -> AsyncGenerator[None]:
        await clients.get()
        yield
        log.extend(USER)

    if is_warm:
        await clients.get()
    await use(user())
    assert {info.uses for info in resources()} == {(), (resources()[0].name,)}
    with pytest.raises(RuntimeError, match=r"cannot be released while it is in use by .*user\(\)"):
        await clients.release()
    assert await release(user)
    assert await clients.release()
    return [*USER, *closes("0")]


def made_by(kind: str, factory: Callable[[], Client]) -> Callable[[], Client]:
    """What makes a value by this factory, and closes it: a wrapped function, or a variable."""
    if kind == "function":
        return singleton(factory, close=Client.aclose)
    var = storage()["variable"] = LoopVar("value", factory=factory, close=Client.aclose)
    return var.get


@each_plain_kind
@pytest.mark.parametrize("outer", ["function", "coroutine function", "variable"])
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@on_each_loop
async def test_a_value_outlives_another_one_whose_factory_has_taken_it(
    log: list[str], kind: str, outer: str, is_warm: bool
) -> list[str]:
    """What the factory of another value has taken is closed after that one; so it is for a coroutine function, and a variable."""
    clients = Clients(log, kind)

    def of_function() -> Client:
        clients.make()
        return Client(log, "outer")

    async def of_coroutine() -> Client:
        return of_function()

    if is_warm:
        await clients.get()
    if outer == "coroutine function":
        await singleton(of_coroutine, close=Client.aclose)()
    else:
        made_by(outer, of_function)()
    assert {info.uses for info in resources()} == {(), (next(info.name for info in resources() if not info.uses),)}
    with pytest.raises(RuntimeError, match="while it is in use by"):
        await clients.release()
    return closes("outer", "0")


@each_kind
@on_each_loop
async def test_a_value_outlives_another_one_whose_closing_has_taken_it(log: list[str], kind: str) -> list[str]:
    """A value that another one's ``close`` asks for is closed after that has gone on to its end."""
    clients = Clients(log, kind)

    async def close(_: object) -> None:
        await clients.get()
        await turns()
        log.append("closed the one that asked")

    await clients.get()
    singleton(lambda: 1, close=close)()
    return ["closed the one that asked", *closes("0")]


@pytest.mark.parametrize("is_in_task", [False, True])
@pytest.mark.parametrize("kind", ["function", "variable"])
@on_each_loop
async def test_a_value_made_during_the_end_outlives_what_has_taken_it(log: list[str], kind: str, is_in_task: bool) -> list[str]:
    """A value that a resource takes, in its enter or a task, while it is entered during `aclose` is closed after the resource."""
    make = made_by(kind, lambda: Client(log, "value"))
    gate = asyncio.Event()

    async def take() -> None:
        make()

    @asynccontextmanager
    async def slow() -> AsyncGenerator[None]:
        await gate.wait()
        await (asyncio.create_task(take()) if is_in_task else take())
        await turns()
        log.append("entered the user")
        yield
        log.extend(USER)

    entering, ending = await begin(enter(slow())), await begin(aclose())
    gate.set()
    await asyncio.gather(entering, ending)
    assert log == ["entered the user", *USER, *closes("value")]
    return [*log]


@pytest.mark.parametrize("factory", ["starts a task", "takes another value"])
@pytest.mark.parametrize("kind", ["function", "variable"])
@on_each_loop
async def test_a_value_made_while_everything_ends_is_closed(factory: str, kind: str) -> None:
    """A task may make a value while `aclose` waits for an enter, whatever its factory starts or takes: it is closed, in order."""
    log: list[str] = []
    tasks: list[asyncio.Task[Any]] = []
    used = singleton(lambda: Client(log, "used"), close=Client.aclose)

    def make() -> Client:
        if factory == "starts a task":
            tasks.append(asyncio.create_task(asyncio.Event().wait()))
        else:
            used()
        return Client(log, "value")

    slow = Recorded()
    slow.may_enter.clear()
    entering, ending = await begin(enter(slow)), await begin(aclose())
    if kind == "function":
        singleton(make, close=Client.aclose)()
    else:
        LoopVar("value", factory=make, close=Client.aclose).get()  # the variable is gone at once
    await turns()
    assert log == closes("value", *["used"] * (factory == "takes another value"))
    assert all(task.cancelled() for task in tasks)
    slow.may_enter.set()
    await asyncio.gather(entering, ending)


@each_function
@on_each_loop
async def test_tasks_of_the_factory_live_until_the_value_is_closed(log: list[str], kind: str) -> list[str]:
    """A task that the factory, or the coroutine function, starts is alive when the value is closed, and cancelled after that."""
    tasks: list[asyncio.Task[Any]] = []

    async def close(client: Client) -> None:
        await client.aclose()
        log.append(f"its task {'has ended' if tasks[0].done() else 'goes on'}")

    class ClientsWithTasks(Clients):
        def new(self, name: str) -> Client:
            tasks.append(asyncio.create_task(asyncio.Event().wait()))
            return super().new(name)

    await ClientsWithTasks(log, kind, close).get()
    assert [len(info.tasks) for info in resources() if info.tasks] == [1]
    await turns()
    assert not tasks[0].done()
    await aclose()
    assert tasks[0].cancelled()
    return [*closes("0"), "its task goes on"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@on_each_loop
async def test_the_value_is_made_and_closed_in_one_context(log: list[str]) -> list[str]:
    """A context variable that the factory sets is seen, and can be reset, by ``close``; no other code sees the change."""
    tokens: list[contextvars.Token[str]] = []

    def factory() -> str:
        tokens.append(variable.set("by the factory"))
        return variable.get()

    def close(_: object) -> None:
        log.append(variable.get())
        variable.reset(tokens.pop())
        log.append(variable.get())

    variable.set("by the caller")
    singleton(factory, close=close)()
    assert variable.get() == "by the caller"
    return ["by the factory", "by the caller"]


# What is seen of it.


@each_kind
@on_each_loop
async def test_it_is_listed(kind: str) -> None:
    """`resources` lists the value by its call, as open since it was made; `format_resources` too."""
    clients = Clients([], kind)
    before = asyncio.get_running_loop().time()
    await clients.get("a")
    (info,) = [info for info in resources() if not info.uses]
    assert info.state == "open"
    assert info.since is not None
    assert before <= info.since <= asyncio.get_running_loop().time()
    assert re.search(r"^(make|Own|Service\.\w+|connect)\(.*'a'\)$", info.name)
    assert info.name in format_resources()


@each_kind
@on_each_loop
async def test_its_steps_are_logged(caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """The log says when the value was made, and when its closing began and ended."""
    clients = Clients([], kind)
    with caplog.at_level(logging.DEBUG, "asyncio_loop_local"):
        await clients.get()
        name = resources()[0].name
        await aclose()
    assert [record.getMessage() for record in caplog.records] == [f"{step} {name}" for step in ("entered", "exiting", "exited")]


@on_each_loop
async def test_a_wrapped_function_pickled_by_value_finds_the_same_values(log: list[str]) -> list[str]:
    """cloudpickle's copy of a function that no module has finds what the function has made, which is closed once."""
    cloudpickle = pytest.importorskip("cloudpickle")

    def factory(name: str) -> Client:
        return Client(storage()["log"], name)

    storage()["log"] = log
    make: Any = singleton(factory, close=Client.aclose)
    client = make("0")
    copied = pickle.loads(cloudpickle.dumps(make))
    assert copied is not make
    assert copied("0") is client
    return closes("0")


# When something goes wrong.


class OwnError(Exception):
    """An error of a test's own."""


@each_kind
@on_each_loop
async def test_a_factory_that_fails_leaves_nothing_to_close(log: list[str], kind: str) -> list[str]:
    """An error of the factory, or of the run, is raised to its caller and not remembered; nothing is closed for it."""
    clients = Clients(log, kind)
    clients.error = OwnError("of the factory")
    for _ in range(2):
        with pytest.raises(OwnError, match="of the factory"):
            await clients.get()
    assert resources() == ()
    assert await clients.release() is False
    clients.error = None
    assert await clients.get() is await clients.get()
    return closes("0")


@on_each_loop
async def test_a_factory_that_fails_lets_go_of_what_it_has_taken(log: list[str]) -> list[str]:
    """What a factory has taken before it failed can be released."""
    used = Clients(log, "function")

    def factory() -> None:
        used.make()
        raise OwnError

    with pytest.raises(OwnError):
        singleton(factory, close=print)()
    assert await used.release()
    return closes("0")


@each_kind
@on_each_loop
async def test_a_closing_that_fails_at_the_end_is_reported_once(log: list[str], kind: str) -> list[str]:
    """An error of ``close`` at the end of the loop is reported once, by the name of the call; the others are closed."""
    clients = Clients(log, kind)
    await clients.get("other")
    (await clients.get("bad")).close_error = error = OwnError("of close")
    name = next(info.name for info in resources() if "bad" in info.name)

    def report(_: object, context: dict[str, Any]) -> None:
        assert context["exception"] is error
        log.append(context["message"])

    asyncio.get_running_loop().set_exception_handler(report)
    return ["closing bad", f"the exit of {name} failed", *closes("other")]


@each_kind
@on_each_loop
async def test_a_closing_that_fails_in_aclose_is_raised(log: list[str], kind: str) -> list[str]:
    """`aclose` raises the errors of ``close`` as one group after the last; each has a note that names the call."""
    reports = reports_of_this_loop()
    clients = Clients(log, kind)
    for name in ("a", "b"):
        (await clients.get(name)).close_error = OwnError(name)
    names = {name: next(info.name for info in resources() if f"'{name}'" in info.name) for name in ("a", "b")}
    await clients.get("good")
    with pytest.raises(ExceptionGroup) as caught:
        await aclose()
    assert [str(error) for error in caught.value.exceptions] == ["b", "a"]
    for error in caught.value.exceptions:
        assert error.__notes__ == [f"raised by the exit of {names[str(error)]}"]
    assert reports == []
    return [*closes("good"), "closing b", "closing a"]


@each_kind
@on_each_loop
async def test_a_closing_that_fails_in_release_is_raised(log: list[str], kind: str) -> list[str]:
    """`release` raises the error of ``close`` as it is; the value is forgotten all the same."""
    reports = reports_of_this_loop()
    clients = Clients(log, kind)
    first = await clients.get()
    first.close_error = error = OwnError()
    with pytest.raises(OwnError) as caught:
        await clients.release()
    assert caught.value is error
    assert await clients.get() is not first
    assert reports == []
    return ["closing 0", *closes("0")]


@each_kind
@on_each_loop
async def test_a_release_that_is_cancelled_leaves_the_closing_to_go_on(log: list[str], kind: str) -> list[str]:
    """If the task that waits for a closing is cancelled, the closing still finishes, and its error is reported."""
    reports = reports_of_this_loop()
    clients = Clients(log, kind)
    client = await clients.get()
    client.may_close.clear()
    client.close_error = error = OwnError()
    await cancel(await begin(clients.release()))
    client.may_close.set()
    await turns()
    assert [report["exception"] for report in reports] == [error]
    assert await clients.release() is False
    return ["closing 0"]


@each_kind
@on_each_loop
async def test_close_cannot_release_what_it_closes(kind: str) -> None:
    """`release` and `aclose` of a value from inside its own ``close`` are a `RuntimeError`, and no deadlock."""
    refused: list[str] = []

    async def close(_: object) -> None:
        for call in (clients.release(), aclose()):
            try:
                await call
            except RuntimeError as error:
                refused.append(str(error))

    clients = Clients([], kind, close)
    await clients.get()
    assert await clients.release()
    assert [message.partition(" was called from inside ")[0] for message in refused] == ["release()", "aclose()"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_in_a_sync_close_is_raised_after_the_others(run: Run, error: type[BaseException]) -> None:
    """Ctrl-C, or `SystemExit`, in a ``close`` that blocks is raised at the end of the loop, after the others are closed."""
    log: list[str] = []

    def close(_: object) -> None:
        log.append("closing")
        raise error("in close")

    async def main() -> None:
        for name in ("1", "2"):
            await Clients(log, "function").get(name)
        singleton(lambda: 1, close=close)()

    with pytest.raises(error, match="in close"):
        run(main())
    assert log == ["closing", *closes("2", "1")]


# The process ends, or forks; a loop is dropped.

CLIENTS = """
from asyncio_loop_local import LoopVar, singleton
program = os.getpid()

class Client:
    def __init__(self, name):
        self.name = name
    async def aclose(self):
        await asyncio.sleep(0)
        note("closed", self.name, "in", "program" if os.getpid() == program else "child")

async def connect(name):
    return Client(name)

function, coroutine_function = singleton(Client, close=Client.aclose), singleton(connect, close=Client.aclose)
variable = LoopVar("variable", factory=lambda: Client("of variable"), close=Client.aclose)

async def main():
    function("of function")
    await coroutine_function("of coroutine")
    variable.get()
"""
CLOSED = [f"closed {name} in program" for name in ("of variable", "of coroutine", "of function")]
NAMES = ("LoopVar 'variable'", "connect('of coroutine')", "Client('of function')")


@each_kind_of_loop
def test_they_are_closed_at_the_interpreters_exit(loop_kind: str) -> None:
    """A loop that is still open when the interpreter exits closes its values then; the warning names them."""
    printed, stderr = run_script(
        loop_kind, CLIENTS + "loop = new_loop()\nloop.run_until_complete(main())\nnote('end of program')"
    )
    assert printed == ["end of program", *CLOSED]
    (warning,) = without_asyncios_own(stderr)
    assert "was still open when the interpreter exited" in warning
    assert all(name in warning for name in NAMES)


def test_a_dropped_loop_closes_nothing_and_says_so() -> None:
    """A loop that is dropped unclosed cannot close its values: it gives one warning, which names them, and nothing else."""
    printed, stderr = run_script(
        "asyncio", CLIENTS + "loop = new_loop()\nloop.run_until_complete(main())\ndel loop\ngc.collect()\nnote('dropped')"
    )
    assert printed == ["dropped"]
    (warning,) = without_asyncios_own(stderr)
    assert "was dropped without being closed, so what it held was never exited" in warning
    assert all(name in warning for name in NAMES)


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which the tests of loops may have

def fork(in_child):
    pid = os.fork()
    if not pid:
        in_child()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def run(main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)

async def close_variable():
    await variable.aclose()
    await main()

"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@forks
@each_kind_of_loop
def test_a_child_of_a_fork_closes_only_its_own(loop_kind: str) -> None:
    """A child closes nothing of its parent's, though it closes the variable everywhere; it makes and closes its own."""
    printed, stderr = run_script(
        loop_kind,
        CLIENTS
        + FORK
        + """
async def in_parent():
    await main()
    fork(lambda: run(close_variable()))
    await main()

run(in_parent())
""",
    )
    assert printed == [*(line.replace("program", "child") for line in CLOSED), *CLOSED]
    assert without_asyncios_own(stderr) == []


@forks
@each_kind_of_loop
@pytest.mark.parametrize(
    "make", ["singleton(factory, close=Client.aclose)", "LoopVar('v', factory=factory, close=Client.aclose).get"]
)
def test_a_child_forked_by_a_factory_goes_on(loop_kind: str, make: str) -> None:
    """A factory that forks has its value in the child too, where nothing closes it, though it has started a task before."""
    printed, stderr = run_script(
        loop_kind,
        CLIENTS
        + FORK
        + f"""
def factory():
    client = Client("forking")
    client.task = asyncio.create_task(asyncio.sleep(3600))
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return client

async def in_parent():
    global make
    make = {make}
    note("made", make().name, "in", "program" if os.getpid() == program else "child")
    if os.getpid() != program:
        os._exit(0)

run(in_parent())
""",
    )
    assert printed == ["made forking in child", "made forking in program", "closed forking in program"]
    assert without_asyncios_own(stderr) == []


# A function that makes its own call.


@pytest.mark.parametrize("kind", [kind for kind in PLAIN_KINDS if kind != "class"])
@on_each_loop
async def test_a_factory_that_makes_its_own_call_closes_what_nobody_gets(log: list[str], kind: str) -> list[str]:
    """If the factory makes the same call, the inner call's value is kept, and the other one is closed at once."""

    class ClientsInClients(Clients):
        def new(self, name: str) -> Client:
            if not names:
                return super().new("inner")
            names.clear()
            inner.append(self.make())
            return super().new("outer")

    names, inner = ["outer"], list[Client]()
    clients = ClientsInClients(log, kind)
    assert clients.make() is clients.make() is inner[0]
    await turns()
    assert log == closes("outer")
    return closes("outer", "inner")


# Coroutine functions.


@each_coroutine_kind
@on_each_loop
async def test_tasks_that_ask_at_once_share_one_run(log: list[str], kind: str) -> list[str]:
    """The function runs once for all tasks that ask while it runs, and what it gives is closed once."""
    clients = Clients(log, kind)
    clients.run_waits = True
    asking = [await begin(clients.get()) for _ in range(5)]
    clients.may_run.set()
    assert len(set(await asyncio.gather(*asking))) == len(clients.made) == 1
    return closes("0")


@each_coroutine_kind
@on_each_loop
async def test_a_call_that_is_never_awaited_leaves_nothing_to_close(log: list[str], kind: str) -> list[str]:
    """A coroutine that is never awaited neither runs nor warns, and nothing is closed for it; release and aclose forget it."""
    clients = Clients(log, kind)
    coroutine = clients.make("a")
    assert clients.make("a") is coroutine
    clients.make("b")
    clients.make("c")
    assert await clients.release("a") is True
    assert resources() == ()
    assert clients.made == []
    await aclose()
    clients.make("d")
    return []


@each_coroutine_kind
@on_each_loop
async def test_a_run_that_was_cancelled_leaves_nothing_to_close(log: list[str], kind: str) -> list[str]:
    """An awaiter is cancelled alone; the last one cancels the run, nothing is closed, and the next call begins anew at once."""
    clients = Clients(log, kind)
    clients.run_waits = True
    asking = [await begin(clients.get()) for _ in range(2)]
    await cancel(asking[0])
    assert not asking[1].done()
    await cancel(asking[1])
    clients.run_waits = False
    await clients.get()
    assert len(clients.made) == 1
    return closes("0")


@each_coroutine_kind
@on_each_loop
async def test_what_a_cancelled_run_gives_all_the_same_is_closed(log: list[str], kind: str) -> list[str]:
    """If a run suppresses its cancellation and returns a value for which no task waits any more, the value is closed at once."""

    class Stubborn(Clients):
        async def connect(self, name: str) -> Client:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return self.new(name)

    await cancel(await begin(Stubborn(log, kind).get()))
    await turns()
    assert log == closes("0")
    return closes("0")


@each_coroutine_kind
@on_each_loop
async def test_a_release_during_the_run_closes_what_it_gives(log: list[str], kind: str) -> list[str]:
    """`release` waits for a run that has begun, whose awaiters get the value, and then closes it; a later call makes another."""
    clients = Clients(log, kind)
    clients.run_waits = True
    asking, releasing = await begin(clients.get()), await begin(clients.release())
    clients.may_run.set()
    assert await releasing is True
    assert log == closes("0")
    assert await asking is clients.made[0]
    assert await clients.get() is not clients.made[0]
    return closes("0", "0")


@each_coroutine_kind
@on_each_loop
async def test_a_coroutine_is_one_to_all_that_take_one(log: list[str], kind: str) -> list[str]:
    """What a call gives may be awaited again and again, and given to `create_task`, `gather`, `wait_for` and task groups."""
    clients = Clients(log, kind)
    coroutine = clients.make()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
    client = await coroutine
    assert task.result() is client
    assert [*await asyncio.gather(coroutine)] == [client]
    assert await asyncio.wait_for(coroutine, 10) is await clients.make() is client
    return closes("0")


@pytest.mark.parametrize("kind", ["coroutine function", "coroutine method", "coroutine function with key="])
def test_a_call_where_no_loop_runs_is_one_of_the_loop_that_awaits_it(run: Run, kind: str) -> None:
    """A coroutine function can be called where no loop runs: what it gives is closed on the loop that awaits it."""
    log: list[str] = []

    async def main() -> Clients:
        return Clients(log, kind)

    clients = run(main())
    assert run(clients.make()) is clients.made[0]
    assert log == closes("0")


@each_coroutine_kind
@on_each_loop
async def test_a_coroutine_whose_value_was_closed_makes_another(log: list[str], kind: str) -> list[str]:
    """A coroutine that is awaited after the value was released gives what a new call gives."""
    clients = Clients(log, kind)
    coroutine = clients.make()
    first = await coroutine
    await clients.release()
    assert await coroutine is await clients.get() is not first
    return closes("0", "0")


@on_each_loop
async def test_a_run_that_waits_for_itself_is_refused() -> None:
    """A coroutine function that awaits its own call gets a `RuntimeError` that says so, and does not hang."""

    @singleton(close=print)
    async def connect() -> object:
        return await connect()

    with pytest.raises(RuntimeError, match="this would wait for ever"):
        await connect()


@on_each_loop
async def test_what_a_run_has_taken_outlives_what_it_gives(log: list[str]) -> list[str]:
    """A coroutine function may take sticky resources, and values with ``close``: they end after what it gives."""
    clients = Clients(log, "function")

    @sticky_singleton_acm
    def sticky() -> Recorded:
        return Recorded(log, "sticky")

    @singleton(close=Client.aclose)
    async def connect() -> Client:
        await use(sticky())
        clients.make()
        return Client(log, "connected")

    keep(connect())
    await connect()
    return [*enters("sticky"), *closes("connected", "0"), *exits("sticky")]


@on_each_loop
async def test_close_takes_what_a_wrapped_coroutine_function_gives(log: list[str]) -> list[str]:
    """``close`` takes what is awaited, also of a coroutine function that `singleton` has wrapped already."""

    @singleton
    async def connect() -> Client:
        return Client(log)

    assert await singleton(connect, close=Client.aclose)() is await connect()
    return closes("0")


@on_each_loop
async def test_a_factory_that_makes_its_own_call_in_a_resources_code(log: list[str]) -> list[str]:
    """The value that a resource gets from such a factory is closed after that resource, as any other that it gets."""
    names = iter(["outer", "inner"])

    def factory() -> Client:
        name = next(names)
        if name == "outer":
            get()
        return Client(log, name)

    get = singleton(factory, close=Client.aclose)
    ask = await enter(takes_on_request(log, get))
    await ask()
    await turns()
    return [*closes("outer"), *USER, *closes("inner")]


class Connecting(Coroutine[Any, Any, str]):
    """What some libraries return from connect(): a coroutine to be awaited once, or to be entered."""

    def __init__(self) -> None:
        self.is_closed = False

    def send(self, value: object) -> object:
        raise StopIteration("connection")

    def throw(self, *_error: object) -> object:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True

    def __await__(self) -> Generator[Any, Any, str]:
        yield from ()
        return "connection"

    async def __aenter__(self) -> str:
        return await self

    async def __aexit__(self, *_error: object) -> None:
        """Closes the connection."""


@on_each_loop
async def test_what_is_to_be_awaited_once_or_entered_is_refused(log: list[str]) -> list[str]:
    """The value that it gives would not be what is closed, so the error says what to write; that works."""
    made: list[Connecting] = []

    def connect() -> Connecting:
        made.append(Connecting())
        return made[-1]

    async def connected() -> str:
        return await connect()

    with pytest.raises(TypeError, match=r"wrap .*connect with sticky_singleton_acm\(\), or a coroutine function that awaits"):
        singleton(connect, close=log.append)()
    assert made.pop().is_closed
    assert resources() == ()
    assert await singleton(connected, close=log.append)() == "connection"
    return ["connection"]
