"""What the library says to its users: each error, warning, report and log line in full (`messages.txt`), and how one gets it."""

from __future__ import annotations

import ast
import asyncio
import gc
import logging
import re
import sys
import textwrap
import warnings
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from traceback import walk_stack
from typing import Any, cast

import pytest

import asyncio_loop_local
from asyncio_loop_local import (
    LockingDict,
    LoopVar,
    Token,
    _atexit,
    aclose,
    atexit,
    release,
    release_all,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)
from asyncio_loop_local._loop_state import loop_state
from asyncio_loop_local._waiters import Waiters
from programs import run_python

wrong: Any = asyncio_loop_local  # most of the calls below are wrong on purpose, so checkers do not see their types

# The table, and the cases that it names.

Provoke = Callable[[], object]
CASES: dict[str, Provoke] = {}


def case(provoke: Provoke) -> Provoke:
    """Adds a case with the function's name: called on a running loop, and awaited if that is possible."""
    CASES[provoke.__name__.replace("_", " ")] = provoke
    return provoke


def read_table() -> dict[str, list[str]]:
    """Each case, at the left, with its messages, indented below it."""
    table: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("messages.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            table[list(table)[-1]].append(line.strip())
        elif line and not line.startswith("#"):
            table[line] = []
    return table


MESSAGES = read_table()

with asyncio.Runner() as runner:
    LOOP_CLASS = type(runner.get_loop()).__qualname__


def normalized(text: str) -> str:
    """Without what differs from run to run, or between platforms."""
    text = re.sub(r"<(\w+EventLoop|uvloop\.Loop) [^<>]*>", "<loop>", re.sub(r"0x[0-9a-f]+", "0x…", text))
    return text.replace(f"{__name__}.", "<module>.").replace(f"class {LOOP_CLASS} ", "class <loop class> ")


def named(error: BaseException) -> str:
    return normalized(f"{type(error).__name__}: {error}".removesuffix(": "))


def run(provoke: Provoke) -> list[str]:
    """Runs the case to the end of its loop; the error that it raises, or all that is reported, logged or returned."""
    said: list[str] = []

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        said.append(f"{normalized(context['message'])}: {named(context['exception'])}")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(report)
        try:
            result = provoke()
            if isinstance(result, Awaitable):
                result = await cast("Awaitable[object]", result)
        except Exception as error:
            said.extend([named(error), *getattr(error, "__notes__", ())])
        else:
            said.extend([] if result is None else [normalized(str(result))])

    logger = logging.getLogger("asyncio_loop_local")
    logger.addHandler(Log())
    try:
        asyncio.run(main())
    finally:
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
    return said


# The calls below are of these.


@asynccontextmanager
async def database(host: str) -> AsyncGenerator[str]:
    yield host


@asynccontextmanager
async def failing(host: str) -> AsyncGenerator[str]:
    yield host
    raise OSError(f"{host} does not answer")


@asynccontextmanager
async def session(host: str) -> AsyncGenerator[str]:
    async with connect(host) as value:
        yield value


connect = sticky_singleton_acm(database)
failing_connect = sticky_singleton_acm(failing)
make_session = sticky_singleton_acm(session)


@singleton
async def token(user: str) -> str:
    await asyncio.Event().wait()
    return user


async def coroutine_function() -> str:
    return "value"


async def database_later(host: str) -> str:
    return host


async def async_generator_function() -> AsyncGenerator[str]:
    yield "value"


def generator_function() -> Generator[str]:
    yield "value"


@contextmanager
def sync_manager() -> Generator[str]:
    yield "value"


def numbers_of(ports: object) -> array[int]:
    return array("i")


def lists_of_numbers(ports: object) -> list[array[int]]:
    return [array("i")]


class Client:
    async def aclose(self) -> None: ...


class HoldsItself(list[Any]):
    def __init__(self) -> None:
        self.append(self)


async def fail_when_cancelled(error: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise OSError(error)


async def cancelled(awaitable: Awaitable[object]) -> None:
    """Awaits it in a task that is cancelled once it waits."""

    async def wait() -> None:
        await awaitable

    task = asyncio.create_task(wait())
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class OnlyEnters:
    async def __aenter__(self) -> None:
        pass


class Service:
    @singleton
    def client(self) -> str:
        return "a client"

    @property
    @singleton
    def address(self) -> str:
        return "an address"

    def __repr__(self) -> str:
        return "<Service>"


# Errors of single calls.

CASES.update(
    {
        "singleton of a number": lambda: wrong.singleton(3),
        "key is a string": lambda: wrong.sticky_singleton_acm(database, key="host"),
        "sticky_singleton_acm of an async generator function": lambda: wrong.sticky_singleton_acm(async_generator_function),
        "sticky_singleton_acm of a coroutine function": lambda: wrong.sticky_singleton_acm(coroutine_function),
        "enter a coroutine": lambda: wrong.enter(coroutine_function()),
        "enter an async generator": lambda: wrong.enter(async_generator_function()),
        "enter a generator": lambda: wrong.enter(generator_function()),
        "enter a future": lambda: wrong.enter(asyncio.get_running_loop().create_future()),
        "enter a class": lambda: wrong.enter(Client),
        "enter nothing": lambda: wrong.enter(None),
        "sticky_acm of a synchronous context manager": lambda: wrong.sticky_acm(sync_manager()),
        "sticky_acm of a function": lambda: wrong.sticky_acm(database),
        "a factory that makes a closable object": lambda: wrong.sticky_singleton_acm(Client)(),
        "an unhashable argument": lambda: wrong.singleton(numbers_of)(array("i")),
        "an argument that holds an unhashable object": lambda: wrong.sticky_singleton_acm(database)([{"port": array("i")}]),
        "an argument that contains itself": lambda: wrong.singleton(database)(host=HoldsItself()),
        "an unhashable key": lambda: wrong.sticky_singleton_acm(database, key=numbers_of)("h"),
        "a key that holds an unhashable object": lambda: wrong.sticky_singleton_acm(database, key=lists_of_numbers)("h"),
        "release of a function": lambda: wrong.release(print),
        "release of a partial": lambda: wrong.release(partial(print, "a")),
        "register a number": lambda: wrong.atexit.register(3),
        "register a coroutine": lambda: wrong.atexit.register(coroutine_function()),
        "register a function as an awaitable": lambda: cast("Any", _atexit)._register(print),
        "the name of a LoopVar is a number": lambda: wrong.LoopVar(3),
        "a LoopVar with default and factory": lambda: wrong.LoopVar("v", default=1, factory=list),
        "the factory of a LoopVar is a list": lambda: wrong.LoopVar("v", factory=[]),
        "a LoopVar without a value": lambda: wrong.LoopVar("v").get(),
        "reset by an object that is no token": lambda: wrong.LoopVar("v").reset(ContextVar("v", default=1)),
        "reset by a token of another LoopVar": lambda: wrong.LoopVar("w").reset(wrong.LoopVar("v").set(1)),
        "an object without __aexit__": lambda: wrong.enter(OnlyEnters()),
        "an attribute of the value": lambda: wrong.sticky_singleton_acm(database)("h").execute,
        "a private attribute": lambda: wrong.sticky_singleton_acm(database)("h")._execute,
        "send a value to a shared coroutine": lambda: token("me").send(3),
        "close is a string": lambda: wrong.singleton(database, close="aclose"),
        "close is an async generator function": lambda: wrong.singleton(database, close=async_generator_function),
        "key is a coroutine function": lambda: wrong.sticky_singleton_acm(database, key=coroutine_function),
        "register an async generator function": lambda: wrong.atexit.register(async_generator_function),
        "valid is a string": lambda: wrong.sticky_singleton_acm(database, valid="is_open"),
        "valid is a coroutine function": lambda: wrong.singleton(database, valid=coroutine_function),
        "release_all of a function": lambda: wrong.release_all(print),
        "release_all of an instance's method": lambda: wrong.release_all(Service().client),
        "override of a function": lambda: wrong.override(print, print),
        "override of a property": lambda: wrong.override(Service.address, print),
        "override of a method": lambda: wrong.override(Service().client, database),
        "override by a value": lambda: wrong.override(wrong.singleton(database), 3),
        "override as a decorator": lambda: wrong.override(wrong.singleton(database), database)(print),
    }
)


# Errors that need more than one call.


def fail(_: object) -> None:
    raise OSError("no answer")


@case
def valid_returns_an_awaitable() -> None:
    make = wrong.singleton(lambda: "a value", valid=lambda _: coroutine_function())  # pyright: ignore[reportUnknownLambdaType]
    make()
    make()


@case
def close_of_what_is_to_be_awaited_or_entered() -> None:
    class Connecting(Coroutine[Any, Any, None]):
        send = throw = __await__ = __aenter__ = database  # type: ignore[assignment]  # none is called

        def close(self) -> None:
            """Is called, or it would warn."""

    def connect() -> Connecting:
        return Connecting()

    wrong.singleton(connect, close=len)()


@case
async def override_of_a_coroutine_function_by_a_plain_one() -> None:
    make = wrong.singleton(coroutine_function)
    with wrong.override(make, Client):
        await make()


@case
def release_all_of_what_is_in_use() -> Awaitable[object]:
    @singleton(close=len)
    def engine() -> str:
        return "an engine"

    @singleton(close=len)
    def pool() -> str:
        return f"a pool of {engine()}"

    pool()
    return release_all(engine)


@case
async def release_all_whose_exits_fail() -> None:
    @singleton(close=fail)
    def engine(name: str) -> str:
        return f"an engine of {name}"

    engine("a")
    engine("b")
    await release_all(engine)


@case
async def a_variable_whose_exit_fails() -> None:
    var = LoopVar("client", factory=list[int], close=fail)
    var.get()
    await var.aclose()


@case
def reset_twice() -> None:
    var = wrong.LoopVar("v")
    given = var.set(1)
    var.reset(given)
    var.reset(given)


@case
async def reset_by_a_token_of_another_loop() -> None:
    var = LoopVar[int]("v")

    async def main() -> Token[int]:
        return var.set(1)

    var.reset(await asyncio.to_thread(asyncio.run, main()))


class Sealed(asyncio.SelectorEventLoop):
    def __setattr__(self, name: str, value: object) -> None:
        if name == "_asyncio_loop_local":
            raise AttributeError(name)
        super().__setattr__(name, value)


@case
async def a_loop_that_takes_no_attributes() -> None:
    async def main() -> None:
        storage()

    def run() -> None:
        with asyncio.Runner(loop_factory=Sealed) as runner:
            runner.run(main())

    await asyncio.to_thread(run)


@case
async def two_resources_that_need_each_other() -> None:
    @sticky_singleton_acm
    @asynccontextmanager
    async def cache(name: str) -> AsyncGenerator[None]:
        async with disk(name):
            yield

    @sticky_singleton_acm
    @asynccontextmanager
    async def disk(name: str) -> AsyncGenerator[None]:
        async with cache(name):
            yield

    await cache("a")


async def aclose_with_one_error() -> None:
    try:
        await aclose()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


@case
async def aclose_from_a_callback() -> None:
    atexit.register(aclose)
    await aclose_with_one_error()


@case
async def exits_that_each_open_the_next_one() -> None:
    def close(_: list[int]) -> None:
        make()

    make = wrong.singleton(list, close=close)
    make()
    await aclose_with_one_error()


@case
async def an_exit_that_opens_something_after_ctrl_c() -> None:
    def second() -> None:
        loop_state().exits.interrupt()  # as Ctrl-C does
        atexit.register(print)

    atexit.register(atexit.register, second)
    await aclose_with_one_error()


@case
async def release_from_inside() -> None:
    @sticky_singleton_acm
    @asynccontextmanager
    async def releases_itself(host: str) -> AsyncGenerator[str]:
        await release(releases_itself, host)
        yield host

    await releases_itself("h")


@case
async def release_of_a_resource_in_use() -> None:
    async with make_session("h"):
        await release(connect, "h")


@case
async def a_stack_that_is_too_deep() -> None:
    async def use(depth: int) -> None:
        if depth:
            await use(depth - 1)
        else:
            await connect("h")

    await use(sys.getrecursionlimit() - sum(1 for _ in walk_stack(None)) - 60)


@case
async def a_shared_coroutine_that_others_cancel() -> None:
    @singleton
    async def token() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    await token()


@case
async def several_exits_fail_in_aclose() -> None:
    await failing_connect("a")
    await failing_connect("b")
    await aclose()


@case
async def the_note_of_an_error_in_aclose() -> None:
    await failing_connect("h")
    await aclose_with_one_error()


# Reports to the loop's exception handler, with the error of each.


@case
async def an_exit_fails() -> None:
    await failing_connect("h")


@case
def a_callback_fails() -> None:
    def say(word: str) -> None:
        raise OSError(word)

    atexit.register(say, "goodbye")


@case
def a_callback_that_cannot_be_named_fails() -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise asyncio.CancelledError  # like Ctrl-C, not an Exception

    def say(word: object) -> None:
        raise OSError("no answer")

    atexit.register(say, Nameless())


@case
async def an_exit_raises_cancelled_error() -> None:
    @sticky_singleton_acm
    @asynccontextmanager
    async def gives_up() -> AsyncGenerator[None]:
        yield
        raise asyncio.CancelledError

    await gives_up()


@case
async def a_resource_dies() -> None:
    died = asyncio.Event()

    async def poll() -> None:
        died.set()
        raise OSError

    @sticky_singleton_acm
    @asynccontextmanager
    async def polls() -> AsyncGenerator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group

    async with polls() as group:
        group.create_task(poll())
        await died.wait()
        while resources():
            await asyncio.sleep(0)


@case
async def a_task_left_behind_fails() -> None:
    @sticky_singleton_acm
    @asynccontextmanager
    async def leaves_a_task() -> AsyncGenerator[asyncio.Task[None]]:
        yield asyncio.create_task(fail_when_cancelled("while it was being cancelled"))

    await leaves_a_task()
    await asyncio.sleep(0)


@case
async def an_enter_fails_after_its_caller_was_cancelled() -> None:
    class Late:
        def __init__(self, host: str) -> None:
            self.host = host

        async def __aenter__(self) -> None:
            await fail_when_cancelled(f"{self.host} does not answer")

        async def __aexit__(self, *exc_info: object) -> None: ...

    await cancelled(sticky_singleton_acm(Late)("h").__aenter__())


@case
async def a_shared_coroutine_fails_after_its_caller_was_cancelled() -> None:
    @singleton
    async def late() -> None:
        await fail_when_cancelled("no answer")

    await cancelled(late())


@case
async def the_log_fails() -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    logger = logging.getLogger("asyncio_loop_local")
    logger.handlers[:] = [Full()]
    logger.setLevel(logging.DEBUG)
    await connect("h")
    await aclose()


@case
def a_waiting_task_cannot_be_woken() -> None:
    class Full(asyncio.Future[None]):
        def set_result(self, result: None, /) -> None:
            raise MemoryError

    waiters = Waiters[None]()
    waiters[Full()] = None
    waiters.notify(None)


# The log, at DEBUG; and what public objects say of themselves.


@case
async def the_log_of_a_resource() -> None:
    logging.getLogger("asyncio_loop_local").setLevel(logging.DEBUG)
    await connect("h")


CASES.update(
    {
        "repr of a sticky_acm": lambda: repr(sticky_acm(database("h"))),
        "repr of the result of a sticky factory": lambda: repr(connect("h")),
        "repr of a shared coroutine": lambda: repr(token("me")),
        "repr of a shared coroutine whose result is closed": lambda: repr(wrong.singleton(database_later, close=len)("h")),
        "repr of a LoopVar": lambda: repr(LoopVar("v", default=1)),
        "repr of a LoopVar with a factory": lambda: repr(wrong.LoopVar("v", factory=list)),
        "repr of a Token": lambda: repr(wrong.LoopVar("v").set(1)),
        "repr of Token.MISSING": lambda: repr(Token.MISSING),
        "repr of a LockingDict": lambda: repr(LockingDict(count=0)),
    }
)


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_said(name: str) -> None:
    """Each message says what happened, where, and what to do; each public object says what it is, and in which state."""
    assert run(CASES[name]) == MESSAGES[name]


# What takes more than a coroutine on a loop.


async def hold() -> None:
    await connect("h")
    atexit.register(print, "bye")


def assert_warned(name: str, run: Callable[[], object], *, here: bool = True) -> None:
    """That it gives the warning of this name; ``here``: with this file's line."""
    with pytest.warns(ResourceWarning) as caught:
        run()
    assert [str(each.message) for each in caught] == MESSAGES[name]
    assert not here or caught[0].filename == __file__


OTHERS = [
    "no loop runs",
    "a task fails while the loop is closed",
    "a loop is dropped",
    "a loop is closed by a method looked up before",
    "many keys",
    "a loop ends while a variable is being collected",
    "values that are never valid",
    "a loop is open at the interpreter's exit",
]


def test_without_a_loop() -> None:
    """What needs a loop says what asyncio itself says."""
    with pytest.raises(RuntimeError) as caught:
        resources()
    assert [named(caught.value)] == MESSAGES["no loop runs"]


def test_report_of_a_task_that_fails_when_the_loop_is_closed() -> None:
    """A user's task that fails while a loop is closed by hand is reported as asyncio.run() would."""
    said: list[str] = []

    async def main() -> None:
        await connect("h")
        tasks.append(asyncio.create_task(fail_when_cancelled("while it was being cancelled")))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: said.append(f"{context['message']}: {named(context['exception'])}"))
    loop.run_until_complete(main())
    loop.close()
    assert said == MESSAGES["a task fails while the loop is closed"]


@pytest.mark.parametrize("case", ["a loop is dropped", "a loop is closed by a method looked up before"])
def test_warning_of_a_loop_that_could_not_be_ended(case: str) -> None:
    """A loop that is dropped unclosed, or is closed past the library, gives a warning that names what it held."""
    loop = asyncio.new_event_loop()
    close = loop.close
    loop.run_until_complete(hold())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if case != "a loop is dropped":
            close()
        del loop, close
        gc.collect()
    said = [normalized(str(each.message)) for each in caught if "unclosed" not in str(each.message)]
    assert said == MESSAGES[case]


def test_warning_of_many_keys() -> None:
    """A factory that never finds its key again is named, with the parameter in which its calls differ."""

    def greeting(user: int, language: str) -> str:
        return f"{language} {user}"

    async def main() -> None:
        greet = singleton(greeting)
        for user in range(2_001):
            greet(user, "en")

    assert_warned("many keys", lambda: asyncio.run(main()))


def test_warning_of_values_that_are_never_valid() -> None:
    """A factory whose values are never found valid again is named."""

    def token(user: int) -> str:
        return f"the token of {user}"

    make = singleton(token, valid=lambda _: False)

    async def main() -> None:
        for _ in range(2_003):
            make(1)

    assert_warned("values that are never valid", lambda: asyncio.run(main()))


def test_warning_of_a_value_that_could_not_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that ends just while another thread collects a variable cannot close its value, and a warning says so."""
    variables = [LoopVar("client", factory=list[int], close=len)]

    async def main() -> None:
        variables[0].get()
        (held,) = cast("Any", variables[0])._to_close._by_loop.values()
        for owner, reference in ((held._handover, "held"), (held.resource(), "_values")):
            monkeypatch.setattr(owner, reference, lambda: None)  # as if the collector had cleared it

    def run() -> None:
        asyncio.run(main())
        variables.clear()
        gc.collect()

    assert_warned("a loop ends while a variable is being collected", run, here=False)


def test_warning_of_a_loop_that_is_open_at_the_interpreters_exit() -> None:
    """A loop that is open when the interpreter exits gives a warning that names what it held."""
    script = """
        import asyncio
        from contextlib import asynccontextmanager
        from asyncio_loop_local import atexit, sticky_singleton_acm

        @sticky_singleton_acm
        @asynccontextmanager
        async def database(host):
            yield host

        async def hold():
            await database("h")
            atexit.register(print, "bye")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(hold())
    """
    done = run_python("-W", "always::ResourceWarning", "-c", textwrap.dedent(script))
    assert (done.returncode, done.stdout) == (0, "bye\n")
    lines = [line for line in normalized(done.stderr).splitlines() if "still open" in line]
    assert [line.partition("ResourceWarning: ")[2] for line in lines] == MESSAGES["a loop is open at the interpreter's exit"]


# The table is complete.


def texts_in_the_source() -> Iterator[tuple[str, str]]:
    """Each string literal in the library's modules that reads as text of more than two words, and its place."""
    (directory,) = map(Path, asyncio_loop_local.__path__)
    for path in sorted(directory.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        alone = {each.value for each in ast.walk(tree) if isinstance(each, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node not in alone and isinstance(node.value, str):
                if len(re.findall(r"\b[a-z]{2,}\b", node.value)) > 2 and not re.search(r"[\\|\[^]", node.value):
                    yield node.value, f"{path.name}, line {node.lineno}"


def test_no_message_is_left_out() -> None:
    """Every message of the library is in `messages.txt`, in full, and every case there has a test here."""
    assert MESSAGES.keys() == {*CASES, *OTHERS}
    said = [text for texts in MESSAGES.values() for text in texts]
    pieces = [
        (piece, where)
        for text, where in texts_in_the_source()
        for piece in re.split(r"\{\}|%s", text)
        if len(re.findall(r"\b[a-z]{2,}\b", piece)) > 2
    ]
    assert len(pieces) > 40
    assert [(piece, where) for piece, where in pieces if not any(piece in text for text in said)] == []
