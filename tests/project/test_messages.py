"""What the library says to its users: each error, warning, report and log line in full, and how one gets it."""

from __future__ import annotations

import ast
import asyncio
import gc
import io
import logging
import re
import subprocess
import sys
import textwrap
import warnings
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import walk_stack
from typing import Any

import pytest

import asyncio_loop_local
from asyncio_loop_local import (
    LockingDict,
    LoopVar,
    Token,
    _atexit,
    aclose,
    atexit,
    enter,
    release,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
    storage,
)
from asyncio_loop_local._waiters import Waiters

# Most of it is wrong on purpose, so the checkers are not asked.
any_enter: Callable[..., Awaitable[Any]] = enter
any_release: Callable[..., Awaitable[bool]] = release
any_singleton: Callable[..., Any] = singleton
any_sticky: Callable[..., Any] = sticky_singleton_acm
any_sticky_acm: Callable[..., Any] = sticky_acm
any_register: Callable[..., Any] = atexit.register
any_register_awaitable: Callable[..., Any] = _atexit._register


def any_reset(var: LoopVar[Any]) -> Callable[..., None]:
    return var.reset


any_var: Callable[..., LoopVar[Any]] = LoopVar


def normalized(text: str) -> str:
    """Without what is different each time."""
    return re.sub(r"0x[0-9a-f]+", "0x…", re.sub(r"<(\w+EventLoop|uvloop\.Loop) [^<>]*>", "<loop>", text))


# What the calls below are about.


@asynccontextmanager
async def database(host: str) -> AsyncGenerator[str]:
    yield host


connect = sticky_singleton_acm(database)


@asynccontextmanager
async def failing(host: str) -> AsyncGenerator[str]:
    yield host
    raise OSError(f"{host} does not answer")


failing_connect = sticky_singleton_acm(failing)


@asynccontextmanager
async def session(host: str) -> AsyncGenerator[str]:
    async with connect(host) as value:
        yield value


make_session = sticky_singleton_acm(session)


@singleton
async def token(user: str) -> str:
    await asyncio.Event().wait()
    return user


async def coroutine_function() -> str:
    return "value"


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


class Plain:
    pass


class HoldsItself(list[Any]):
    def __init__(self) -> None:
        self.append(self)


# The errors: how each is provoked, on a running loop, and what it says.

Provoke = Callable[[], Awaitable[object]]
ERRORS: list[tuple[Provoke, type[BaseException], str]] = []


def error(kind: type[BaseException], text: str) -> Callable[[Provoke], Provoke]:
    """The decorated function gets this error."""

    def add(provoke: Provoke) -> Provoke:
        ERRORS.append((provoke, kind, text))
        return provoke

    return add


def errors_of_calls(kind: type[BaseException], *calls: tuple[Callable[[], object], str]) -> None:
    """Each of these calls, awaited if it can be, gets an error of this kind."""

    def one(call: Callable[[], object], text: str) -> None:
        @error(kind, text)
        async def provoke() -> None:
            result = call()
            if isinstance(result, Awaitable):
                await result

        provoke.__name__ = text[:40]

    for call, text in calls:
        one(call, text)


errors_of_calls(
    TypeError,
    (
        lambda: any_singleton(3),
        (
            "argument 'factory' of singleton() must be callable, not int: pass a class or a function, and decorate under "
            "@classmethod and @property, not over them"
        ),
    ),
    (
        lambda: any_sticky(database, key="host"),
        (
            "argument 'key' of sticky_singleton_acm() must be callable, not str: pass a function of the call's arguments, "
            "which returns what makes two calls the same"
        ),
    ),
    (
        lambda: any_sticky(async_generator_function),
        (
            "sticky_singleton_acm() got async_generator_function(), an async generator function, which makes no asynchronous "
            "context manager: decorate it with @contextlib.asynccontextmanager first"
        ),
    ),
    (
        lambda: any_sticky(coroutine_function),
        (
            "sticky_singleton_acm() got coroutine_function(), a coroutine function, which makes no asynchronous context "
            "manager: let it yield its value, once, and decorate it with @contextlib.asynccontextmanager first"
        ),
    ),
    (
        lambda: any_enter(coroutine_function()),
        (
            "enter() got a coroutine, of coroutine_function(), which is no asynchronous context manager: let the function "
            "yield its value, once, and decorate it with @contextlib.asynccontextmanager"
        ),
    ),
    (
        lambda: any_enter(async_generator_function()),
        (
            "enter() got an async generator, of async_generator_function(), which is no asynchronous context manager: "
            "decorate the function with @contextlib.asynccontextmanager"
        ),
    ),
    (
        lambda: any_enter(generator_function()),
        (
            "enter() got a generator, of generator_function(), which is no asynchronous context manager: make the function "
            "async and decorate it with @contextlib.asynccontextmanager"
        ),
    ),
    (
        lambda: any_enter(asyncio.get_running_loop().create_future()),
        (
            "enter() got an awaitable, of class Future, which is no asynchronous context manager: await it in a function that"
            " yields its value and is decorated with @contextlib.asynccontextmanager"
        ),
    ),
    (
        lambda: any_enter(Client),
        "enter() got the class Client, which is no asynchronous context manager: an instance is needed: call the class",
    ),
    (
        lambda: any_sticky_acm(sync_manager()),
        (
            "sticky_acm() got a synchronous context manager, of class _GeneratorContextManager, which is no asynchronous "
            "context manager: enter it in a function decorated with @contextlib.asynccontextmanager"
        ),
    ),
    (
        lambda: any_sticky_acm(database),
        "sticky_acm() got a callable, database, which is no asynchronous context manager: what it returns is needed: call it",
    ),
    (
        lambda: any_sticky(Client)(),
        (
            "sticky_singleton_acm() got an object of class Client, which is no asynchronous context manager: wrap it in "
            "contextlib.aclosing()"
        ),
    ),
    (
        lambda: any_enter(None),
        (
            "enter() got an object of class NoneType, which is no asynchronous context manager: an object with __aenter__ and"
            " __aexit__ is needed"
        ),
    ),
    (
        lambda: any_singleton(numbers_of)(array("i")),
        (
            "argument 'ports' of numbers_of() is of type array.array, which is unhashable and cannot be compared by "
            "value, so it cannot be part of the key of a call: pass something hashable, or give the factory a key=… function "
            "that returns something hashable"
        ),
    ),
    (
        lambda: connect([{"port": array("i")}]),  # type: ignore[arg-type, loop-local-key]  # wrong on purpose
        (
            "argument 'host' of database() holds an object of type array.array, which is unhashable and cannot be compared"
            " by value, so it cannot be part of the key of a call: pass something hashable, or give the factory a key=… "
            "function that returns something hashable"
        ),
    ),
    (
        lambda: any_singleton(database)(host=HoldsItself()),
        (
            f"argument 'host' of database() is of type {__name__}.HoldsItself, which contains itself, so it cannot be part of"
            " the key of a call: pass something hashable, or give the factory a key=… function that returns something hashable"
        ),
    ),
    (
        lambda: any_sticky(database, key=numbers_of)("h"),
        (
            "key=… of database() returned an object of type array.array, which is unhashable and cannot be compared by "
            "value: return something hashable"
        ),
    ),
    (
        lambda: any_sticky(database, key=lists_of_numbers)("h"),
        (
            "key=… of database() returned something that holds an object of type array.array, which is unhashable and "
            "cannot be compared by value: return something hashable"
        ),
    ),
    (
        lambda: any_release(print),
        (
            "argument 'factory' of release() must be what singleton() or sticky_singleton_acm() has returned, not <built-in "
            "function print>"
        ),
    ),
    (
        lambda: any_release(partial(print, "a")),
        (
            "argument 'factory' of release() must be what singleton() or sticky_singleton_acm() has returned, not "
            "functools.partial of print"
        ),
    ),
    (
        lambda: any_register(3),
        "argument 'function' of atexit.register() must be callable, not int: pass a function",
    ),
    (
        lambda: any_register(coroutine_function()),
        "argument 'function' of atexit.register() must be callable, not coroutine: pass the function, and its arguments after it",
    ),
    (
        lambda: any_register_awaitable(print),
        (
            "argument 'awaitable' of _register() must be awaitable, not builtin_function_or_method: for a function there is "
            "atexit.register()"
        ),
    ),
    (lambda: any_var(3), "argument 'name' of LoopVar() must be a str, not int"),
    (
        lambda: any_var("v", default=1, factory=list),
        "LoopVar() takes 'default' or 'factory', not both",
    ),
    (
        lambda: any_var("v", factory=[]),
        "argument 'factory' of LoopVar() must be callable, not list: to give a value, pass 'default'",
    ),
    (
        lambda: any_reset(any_var("v"))(ContextVar("v", default=1)),
        "expected an instance of Token, got <ContextVar name='v' default=1 at 0x…>",
    ),
    (lambda: token("me").send(3), "can't send non-None value to a just-started coroutine"),
)
errors_of_calls(LookupError, (lambda: any_var("v").get(), "<LoopVar name='v' at 0x…>"))


@error(RuntimeError, "<Token used var=<LoopVar name='v' at 0x…> at 0x…> has already been used once")
async def token_twice() -> None:
    var = any_var("v")
    given = var.set(1)
    var.reset(given)
    var.reset(given)


@error(ValueError, "<Token var=<LoopVar name='v' at 0x…> at 0x…> was created by a different LoopVar")
async def token_of_another() -> None:
    any_var("w").reset(any_var("v").set(1))


@error(ValueError, "<Token var=<LoopVar name='v' at 0x…> at 0x…> was created in a different event loop")
async def token_of_another_loop() -> None:
    var = any_var("v")

    async def main() -> Token[Any]:
        return var.set(1)

    var.reset(await asyncio.to_thread(asyncio.run, main()))


class Sealed(asyncio.SelectorEventLoop):
    def __setattr__(self, name: str, value: object) -> None:
        if name == "_asyncio_loop_local":
            raise AttributeError(name)
        super().__setattr__(name, value)


@error(
    TypeError,
    (
        f"an event loop of class {__name__}.Sealed can hold nothing of its own, since nothing can be set on its instances: use"
        " a loop class, or a subclass of this one, whose instances take attributes"
    ),
)
async def loop_that_takes_nothing() -> None:
    async def main() -> None:
        storage()

    def run() -> None:
        with asyncio.Runner(loop_factory=Sealed) as runner:
            runner.run(main())

    await asyncio.to_thread(run)


@error(
    RuntimeError,
    (
        "this would wait for ever, since each of these needs the next one first: disk('a') -> cache('a') -> disk('a'). Let "
        "one of them ask for the next one later"
    ),
)
async def circle() -> None:
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

    async with cache("a"):
        raise AssertionError


@error(
    RuntimeError,
    "aclose() was called from inside atexit callback aclose(), and would have to end it first: call it "
    "from code that is not its own",
)
async def aclose_from_inside() -> None:
    atexit.register(aclose)
    await first_error_of(aclose)


@error(
    RuntimeError,
    "release() was called from inside releases_itself('h'), which it would have to wait for: call it "
    "from code that is not its own",
)
async def release_from_inside() -> None:
    @sticky_singleton_acm
    @asynccontextmanager
    async def releases_itself(host: str) -> AsyncGenerator[str]:
        await release(releases_itself, host)
        yield host

    async with releases_itself("h"):
        raise AssertionError


@error(RuntimeError, "database('h') cannot be released while it is in use by session('h'): release what uses it first")
async def release_of_what_is_used() -> None:
    async with make_session("h"):
        await release(connect, "h")


@error(RecursionError, "the stack is too deep for something to be entered or ended safely")
async def recursion() -> None:
    async def use(depth: int) -> None:
        if depth:
            await use(depth - 1)
        else:
            async with connect("h"):
                raise AssertionError

    await use(sys.getrecursionlimit() - sum(1 for _ in walk_stack(None)) - 60)


@error(
    RuntimeError,
    "token() was cancelled 10 times while it was awaited, by others than those who had awaited it",
)
async def run_that_others_cancel() -> None:
    @singleton
    async def token() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    await token()


@error(ExceptionGroup, "errors at the exits of what the loop held (2 sub-exceptions)")
async def aclose_with_errors() -> None:
    async with failing_connect("a"), failing_connect("b"):
        pass
    await aclose()


async def first_error_of(function: Callable[[], Awaitable[object]]) -> None:
    """Raises the first of the errors in the group that this raises."""
    try:
        await function()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.mark.parametrize(("provoke", "kind", "text"), ERRORS, ids=[provoke.__name__ for provoke, _, _ in ERRORS])
def test_errors(provoke: Provoke, kind: type[BaseException], text: str) -> None:
    """Each error says what happened, where, and what to do."""

    async def main() -> None:
        with pytest.raises(kind) as caught:
            await provoke()
        assert type(caught.value) is kind
        assert normalized(str(caught.value)) == text

    asyncio.run(main())


def test_notes() -> None:
    """Each error in the group that aclose() raises has a note that says which exit has raised it."""

    async def main() -> None:
        async with failing_connect("h"):
            pass
        with pytest.raises(ExceptionGroup) as caught:
            await aclose()
        assert [each.__notes__ for each in caught.value.exceptions] == [NOTES]

    asyncio.run(main())


NOTES = ["raised by the exit of failing('h')"]


def test_without_a_loop() -> None:
    """What needs a loop says what asyncio itself says."""
    with pytest.raises(RuntimeError) as caught:
        resources()
    assert str(caught.value) == "no running event loop"


# The reports, to the loop's exception handler: what was provoked, and what was said.

REPORTS: list[tuple[Provoke, list[tuple[str, str]]]] = []


def reports(*said: tuple[str, str]) -> Callable[[Provoke], Provoke]:
    """The decorated function, and the end of the loop after it, lead to these reports, each with its error."""

    def add(provoke: Provoke) -> Provoke:
        REPORTS.append((provoke, list(said)))
        return provoke

    return add


@reports(("the exit of failing('h') failed", "OSError: h does not answer"))
async def exit_fails() -> None:
    async with failing_connect("h"):
        pass


@reports(("the exit of atexit callback say('goodbye') failed", "OSError: goodbye"))
async def callback_fails() -> None:
    def say(word: str) -> None:
        raise OSError(word)

    atexit.register(say, "goodbye")


@reports(
    (
        "the exit of gives_up() failed",
        "RuntimeError: the exit of gives_up() raised CancelledError, though nobody had cancelled it",
    )
)
async def exit_raises_cancelled_error() -> None:
    @sticky_singleton_acm
    @asynccontextmanager
    async def gives_up() -> AsyncGenerator[None]:
        yield
        raise asyncio.CancelledError

    async with gives_up():
        pass


@reports(("polls() died while it was held", "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"))
async def dies() -> None:
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


@reports(("a task left behind by leaves_a_task() failed", "OSError: while it was being cancelled"))
async def task_left_behind_fails() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("while it was being cancelled")

    @sticky_singleton_acm
    @asynccontextmanager
    async def leaves_a_task() -> AsyncGenerator[asyncio.Task[None]]:
        yield asyncio.create_task(fails())

    async with leaves_a_task():
        await asyncio.sleep(0)


@reports(("entering Late('h') failed when nobody waited for it any more", "OSError: h does not answer"))
async def enter_fails_late() -> None:
    class Late:
        def __init__(self, host: str) -> None:
            self.host = host

        async def __aenter__(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError(f"{self.host} does not answer")

        async def __aexit__(self, *exc_info: object) -> None: ...

    await cancelled(sticky_singleton_acm(Late)("h").__aenter__())


@reports(("late() failed when nobody waited for it any more", "OSError: no answer"))
async def run_fails_late() -> None:
    @singleton
    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("no answer")

    await cancelled(late())


async def cancelled(awaitable: Awaitable[object]) -> None:
    """Awaits it in a task that is cancelled when all have come to wait."""

    async def wait() -> None:
        await awaitable

    task = asyncio.create_task(wait())
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@reports(("the exit of a callback whose name cannot be shown failed", "OSError: no answer"))
async def callback_without_a_name_fails() -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise asyncio.CancelledError  # which, as Ctrl-C, is no mere Exception

    def say(word: object) -> None:
        raise OSError("no answer")

    atexit.register(say, Nameless())


@reports(*[("the log of database('h') failed", "OSError: the disk is full")] * 3)
async def log_fails() -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    logger, handler = logging.getLogger("asyncio_loop_local"), Full()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with connect("h"):
            pass
        await aclose()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@reports(("a task that waits could not be woken", "MemoryError: "))
async def nobody_is_woken() -> None:
    class Full(asyncio.Future[None]):
        def set_result(self, result: None, /) -> None:
            raise MemoryError

    waiters = Waiters[None]()
    waiters[Full()] = None
    waiters.tell(None)


@pytest.mark.parametrize(("provoke", "said"), REPORTS, ids=[provoke.__name__ for provoke, _ in REPORTS])
def test_reports(provoke: Provoke, said: list[tuple[str, str]]) -> None:
    """What nobody can be told by an exception is reported to the loop, with the resource's name and the error."""
    told: list[tuple[str, str]] = []

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append((normalized(context["message"]), f"{type(context['exception']).__name__}: {context['exception']}"))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(report)
        await provoke()

    asyncio.run(main())
    assert told == said


def test_report_of_a_task_that_fails_when_the_loop_is_closed() -> None:
    """A user's task that fails while a loop is closed by hand is reported as asyncio.run() would."""
    told: list[tuple[str, str]] = []

    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("while it was being cancelled")

    async def main() -> None:
        async with connect("h"):
            tasks.append(asyncio.create_task(fails()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told.append((context["message"], str(context["exception"]))))
    loop.run_until_complete(main())
    loop.close()
    assert told == [(CLOSING, "while it was being cancelled")]


CLOSING = "unhandled exception while the loop was being closed"


# The warnings.

with asyncio.Runner() as runner:
    LOOP_CLASS = type(runner.get_loop()).__qualname__

DROPPED = (
    f"an event loop of class {LOOP_CLASS} was dropped without being closed, so what it held was never exited: database('h'), "
    "atexit callback print('bye'). Close it, or use asyncio.run()"
)
MANY_KEYS = (
    "greeting() has been called with 2,001 different keys on one event loop, the last two of which differ in the value of "
    "'user': such calls never find their value again, and all values live until the loop ends. Pass what stays the same, or "
    "say with key=… what makes two calls the same"
)
STILL_OPEN = (
    "<loop> was still open when the interpreter exited: close it, or use asyncio.run(). It held database('h'), atexit "
    "callback print('bye')"
)


async def hold() -> None:
    async with connect("h"):
        atexit.register(print, "bye")


def test_warning_of_a_loop_that_was_dropped() -> None:
    """A loop that is dropped unclosed gives a warning that names what it held."""
    asyncio.new_event_loop().run_until_complete(hold())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert [normalized(str(each.message)) for each in caught if "unclosed" not in str(each.message)] == [DROPPED]


def test_warning_of_many_keys() -> None:
    """A factory that never finds its key again is named, with the parameter in which its calls differ."""

    def greeting(user: int, language: str) -> str:
        return f"{language} {user}"

    async def main() -> None:
        greet = singleton(greeting)
        for user in range(2_001):
            greet(user, "en")

    with pytest.warns(ResourceWarning) as caught:
        asyncio.run(main())
    assert [str(each.message) for each in caught] == [MANY_KEYS]
    assert caught[0].filename == __file__


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
            async with database("h"):
                atexit.register(print, "bye")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(hold())
    """
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "bye\n"
    (line,) = [line for line in normalized(done.stderr).splitlines() if "still open" in line]
    assert line.partition("ResourceWarning: ")[2] == STILL_OPEN


# The log, and the views of what is open.

LOGGED = ["entered database('h')", "exiting database('h')", "exited database('h')"]


def test_log() -> None:
    """At DEBUG, the logger tells when each resource is entered, and when its exit begins and ends."""
    logger, stream = logging.getLogger("asyncio_loop_local"), io.StringIO()
    handler, level = logging.StreamHandler(stream), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:

        async def main() -> None:
            async with connect("h"):
                pass

        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert stream.getvalue().splitlines() == LOGGED


@dataclass
class Shown:
    """What a public object says of itself."""

    make: Callable[[], object]
    text: str


SHOWN = [
    Shown(lambda: sticky_acm(database("h")), "<StickyACM of _AsyncGeneratorContextManager>"),
    Shown(lambda: connect("h"), "<StickyACM of database('h'), made>"),
    Shown(lambda: token("me"), "<shared coroutine token, not started>"),
    Shown(lambda: LoopVar("v", default=1), "<LoopVar name='v' default=1 at 0x…>"),
    Shown(lambda: any_var("v", factory=list), "<LoopVar name='v' factory=<class 'list'> at 0x…>"),
    Shown(lambda: any_var("v").set(1), "<Token var=<LoopVar name='v' at 0x…> at 0x…>"),
    Shown(lambda: Token.MISSING, "<Token.MISSING>"),
    Shown(lambda: LockingDict(count=0), "<LockingDict {'count': 0} [unlocked]>"),
]


@pytest.mark.parametrize("shown", SHOWN, ids=[shown.text[:20] for shown in SHOWN])
def test_reprs(shown: Shown) -> None:
    """What a public object says of itself is what it is, and the state that it is in."""

    async def main() -> None:
        assert normalized(repr(shown.make())) == shown.text

    asyncio.run(main())


def texts_in_the_source() -> Iterator[tuple[str, str]]:
    """Each piece of text in the library's modules that reads as one of more than two words, and where it is."""
    (directory,) = map(Path, asyncio_loop_local.__path__)
    for path in sorted(directory.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        alone = {each.value for each in ast.walk(tree) if isinstance(each, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node not in alone and isinstance(node.value, str):
                if len(re.findall(r"\b[a-z]{2,}\b", node.value)) > 2 and not re.search(r"[\\|\[^]", node.value):
                    yield node.value, f"{path.name}, line {node.lineno}"


def test_no_message_is_left_out() -> None:
    """Whatever the library can say stands in this file, in full: a new message needs its place in these tables."""
    told = [text for _, _, text in ERRORS] + [text for _, said in REPORTS for each in said for text in each]
    told += [*NOTES, CLOSING, DROPPED, MANY_KEYS, STILL_OPEN, *LOGGED, *(shown.text for shown in SHOWN)]
    pieces = [
        (piece, where)
        for text, where in texts_in_the_source()
        for piece in re.split(r"\{\}|%s", text)
        if len(re.findall(r"\b[a-z]{2,}\b", piece)) > 2
    ]
    assert len(pieces) > 40
    assert [(piece, where) for piece, where in pieces if not any(piece in text for text in told)] == []
