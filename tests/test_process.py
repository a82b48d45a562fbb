"""What becomes of a loop that nobody closes, of a process that forks, and of a loop that can hold nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from asyncio_loop_local import atexit, enter, enter_once, singleton, sticky_singleton_acm, storage

PRELUDE = """
import asyncio, gc, os, sys, threading
from contextlib import asynccontextmanager
import anyio, uvloop
from asyncio_loop_local import atexit, enter, enter_once, sticky_singleton_acm, storage

new_loop = {new_loop}

def note(*words):
    print(*words, flush=True)

class Plain:
    def __init__(self, name="plain"):
        self.name = name
    async def __aenter__(self):
        await asyncio.sleep(0)
        note("enter", self.name)
        return self
    async def __aexit__(self, *exc):
        await asyncio.sleep(0)
        note("exit", self.name)

@asynccontextmanager
async def generator():
    note("enter generator")
    try:
        yield
    finally:
        await asyncio.sleep(0)
        note("exit generator")

@asynccontextmanager
async def threaded():
    note("enter threaded")
    yield
    note(await asyncio.to_thread(lambda: "exit threaded"))

async def work():
    while True:
        await asyncio.sleep(3600)

@asynccontextmanager
async def task_group():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        note("enter task_group")
        yield
        task.cancel()
    note("exit task_group")

@asynccontextmanager
async def anyio_group():
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        note("enter anyio_group")
        yield
        group.cancel_scope.cancel()
    note("exit anyio_group")

make = sticky_singleton_acm(Plain)
gc.collect()  # so that none comes between a loop and its sockets, which it then finalizes in an order that asyncio does not bear
"""

LOOPS = {"asyncio": "asyncio.new_event_loop", "uvloop": "uvloop.new_event_loop"}


@pytest.fixture(params=list(LOOPS))
def loop_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_script(loop_kind: str, script: str, *options: str) -> tuple[list[str], str]:
    """Runs a program in a process of its own, in which warnings are shown; what it prints, and its stderr."""
    source = PRELUDE.format(new_loop=LOOPS[loop_kind]) + textwrap.dedent(script)
    command = [sys.executable, *(options or ("-W", "always::ResourceWarning")), "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), done.stderr


def without_asyncios_own(stderr: str) -> list[str]:
    """The lines of stderr, without what asyncio and uvloop say of any loop that is dropped."""
    own = ("unclosed event loop", "unclosed resource <TCP", "unclosed transport")
    lines = [line for line in stderr.splitlines() if line.strip() and not any(word in line for word in own)]
    return [
        line for line in lines if not line.startswith("  ") and "Object allocated at" not in line and "tracemalloc" not in line
    ]


RESOURCES = ["Plain()", "generator()", "task_group()", "anyio_group()"]


# The interpreter exits


def test_interpreter_exit_ends_an_open_loop(loop_kind: str) -> None:
    """A loop still open when the interpreter exits is ended then, threads and all, and a warning names what it held."""
    printed, stderr = run_script(
        loop_kind,
        """
        async def main():
            await enter(Plain())
            atexit.register(note, "callback")
            for acm in (generator(), threaded(), task_group(), anyio_group()):
                await enter(acm)

        loop = new_loop()
        loop.run_until_complete(main())
        note("end of program")
        """,
    )
    names = ["plain", "generator", "threaded", "task_group", "anyio_group"]
    assert printed == [
        *(f"enter {name}" for name in names),
        "end of program",
        *("exit anyio_group", "exit task_group", "exit threaded", "exit generator", "callback", "exit plain"),
    ]
    (warning,) = without_asyncios_own(stderr)
    assert "ResourceWarning" in warning
    assert "was still open when the interpreter exited" in warning
    for name in ("Plain", "callback", "generator", "threaded", "task_group", "anyio_group"):
        assert name in warning.partition("It held ")[2]


def test_interpreter_exit_cancels_tasks_first(loop_kind: str) -> None:
    """The user's tasks on such a loop are cancelled with their resources open."""
    printed, stderr = run_script(
        loop_kind,
        """
        async def use():
            async with make() as plain:
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    note("task ends")

        async def main():
            async with make():
                storage()["task"] = asyncio.create_task(use())
                await asyncio.sleep(0)

        loop = new_loop()
        loop.run_until_complete(main())
        """,
    )
    assert printed == ["enter plain", "task ends", "exit plain"]
    (warning,) = without_asyncios_own(stderr)
    assert "Plain()" in warning


def test_interpreter_exit_after_an_error(loop_kind: str) -> None:
    """An error of an exit at the interpreter's exit is reported, and keeps no other exit from running."""
    printed, stderr = run_script(
        loop_kind,
        """
        def fail():
            raise LookupError("of the callback")

        async def main():
            await enter(Plain())
            atexit.register(fail)

        loop = new_loop()
        loop.run_until_complete(main())
        """,
    )
    assert printed == ["enter plain", "exit plain"]
    assert "LookupError: of the callback" in stderr
    assert "ResourceWarning" in stderr


def test_interpreter_exit_with_several_loops(loop_kind: str) -> None:
    """Each loop that is open when the interpreter exits is ended, with a warning of its own."""
    printed, stderr = run_script(
        loop_kind,
        """
        loops = [new_loop() for _ in range(3)]
        for number, loop in enumerate(loops):
            loop.run_until_complete(enter(Plain(number)))
        """,
    )
    assert sorted(printed) == sorted(f"{what} {number}" for what in ("enter", "exit") for number in range(3))
    assert stderr.count("was still open when the interpreter exited") == 3


def test_interpreter_exit_with_a_loop_in_a_daemon_thread(loop_kind: str) -> None:
    """A loop that runs in a daemon thread is ended there, with all that it needs."""
    printed, stderr = run_script(
        loop_kind,
        """
        async def use():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                note("task ends")

        async def main():
            for acm in (Plain(), generator(), threaded(), task_group(), anyio_group()):
                await enter(acm)
            storage()["task"] = asyncio.create_task(use())
            await asyncio.sleep(0)

        loop = new_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(main(), loop).result()
        note("end of program")
        """,
    )
    names = ["plain", "generator", "threaded", "task_group", "anyio_group"]
    assert printed == [
        *(f"enter {name}" for name in names),
        "end of program",
        "task ends",
        *(f"exit {name}" for name in reversed(names)),
    ]
    (warning,) = without_asyncios_own(stderr)
    assert "was still open when the interpreter exited" in warning
    for name in ("Plain", "generator", "threaded", "task_group", "anyio_group"):
        assert name in warning.partition("It held ")[2]


def test_interpreter_exit_with_a_loop_that_held_nothing(loop_kind: str) -> None:
    """A loop that held nothing, or was closed, is no reason to warn when the interpreter exits."""
    printed, stderr = run_script(
        loop_kind,
        """
        async def main():
            storage()["loop"] = asyncio.get_running_loop()

        held_nothing, closed = new_loop(), new_loop()
        held_nothing.run_until_complete(main())
        closed.run_until_complete(enter(Plain()))
        closed.close()
        note("end of program")
        """,
    )
    assert printed == ["enter plain", "exit plain", "end of program"]
    assert without_asyncios_own(stderr) == []


def test_sys_exit_and_errors_end_the_loop(loop_kind: str) -> None:
    """A program that leaves a runner by `SystemExit` has its resources exited by the runner, and nothing to be said."""
    printed, stderr = run_script(
        loop_kind,
        """
        async def main():
            await enter(Plain())
            sys.exit(0)

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        """,
    )
    assert printed == ["enter plain", "exit plain"]
    assert stderr == ""


# A loop is dropped unclosed


@pytest.mark.parametrize("acm", ["Plain()", "generator()", "threaded()", "task_group()"])
def test_dropped_loop_warns_and_does_nothing_else(acm: str) -> None:
    """A loop that is dropped unclosed gives one warning that names what it held, and nothing else is said or run."""
    printed, stderr = run_script(
        "asyncio",
        f"""
        loop = new_loop()
        loop.run_until_complete(enter({acm}))
        del loop
        gc.collect()
        note("dropped")
        """,
    )
    name = acm.removesuffix("()")
    assert printed == [f"enter {name.lower()}", "dropped"]
    (warning,) = without_asyncios_own(stderr)
    assert "ResourceWarning" in warning
    assert "was dropped without being closed, so what it held was never exited" in warning
    assert name in warning.partition("never exited")[2]


def test_dropped_loop_with_a_task_of_the_users_says_what_asyncio_says() -> None:
    """A user's pending task on a dropped loop is destroyed with asyncio's own message, once, as it is without the library."""
    printed, stderr = run_script(
        "asyncio",
        """
        async def main():
            await enter(task_group())
            storage()["task"] = asyncio.create_task(work())
            await asyncio.sleep(0)

        loop = new_loop()
        loop.run_until_complete(main())
        del loop
        gc.collect()
        note("dropped")
        """,
    )
    assert printed == ["enter task_group", "dropped"]
    assert stderr.count("Task was destroyed but it is pending!") == 1
    assert stderr.count("was dropped without being closed") == 1
    assert "Exception ignored" not in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("kind", "acm"), [*(("uvloop", acm) for acm in RESOURCES), ("asyncio", "anyio_group()")])
def test_dropped_loop_that_something_keeps_alive(kind: str, acm: str) -> None:
    """A loop that is dropped but kept alive, as uvloop and anyio's task groups keep one, ends when the interpreter exits."""
    printed, stderr = run_script(
        kind,
        f"""
        loop = new_loop()
        loop.run_until_complete(enter({acm}))
        del loop
        gc.collect()
        note("dropped")
        """,
    )
    name = acm.removesuffix("()")
    assert printed == [f"enter {name.lower()}", "dropped", f"exit {name.lower()}"]
    (warning,) = without_asyncios_own(stderr)
    assert "was still open when the interpreter exited" in warning
    assert name in warning.partition("It held ")[2]


def test_dropped_loop_that_held_nothing_says_nothing(loop_kind: str) -> None:
    """A loop that is dropped when all has been ended on it gives no warning of the library's."""
    printed, stderr = run_script(
        loop_kind,
        """
        from asyncio_loop_local import aclose

        async def main():
            async with make():
                pass
            await aclose()

        loop = new_loop()
        loop.run_until_complete(main())
        del loop
        gc.collect()
        note("dropped")
        """,
    )
    assert printed == ["enter plain", "exit plain", "dropped"]
    assert without_asyncios_own(stderr) == []


def test_dropped_loop_whose_sockets_the_collector_would_finalize_first_says_nothing_else() -> None:
    """Also where the collector ran while the loop was made, and finalizes younger objects first, no error is shown."""
    printed, stderr = run_script(
        "asyncio",
        """
        import socket

        make_pair = socket.socketpair

        def make_pair_after_collection():
            gc.collect(0)
            return make_pair()

        socket.socketpair = make_pair_after_collection
        loop = new_loop()
        loop.run_until_complete(enter(Plain()))
        del loop
        gc.collect()
        note("dropped")
        """,
    )
    assert printed == ["enter plain", "dropped"]
    (warning,) = [line for line in without_asyncios_own(stderr) if "unclosed <socket" not in line]
    assert "was dropped without being closed" in warning


def test_dropped_loop_with_warnings_as_errors_leaves_the_process_well() -> None:
    """Where warnings are errors, a dropped loop's is told as one that cannot be raised, and the next loop works."""
    printed, stderr = run_script(
        "asyncio",
        """
        loop = new_loop()
        loop.run_until_complete(enter(Plain("dropped")))
        del loop
        gc.collect()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(enter(Plain("closed")))
        """,
        "-W",
        "error::ResourceWarning",
    )
    assert printed == ["enter dropped", "enter closed", "exit closed"]
    assert "was dropped without being closed" in stderr


# A process forks

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which the tests of loops may have

def in_child(leave):
    # Forks; the child leaves at once, in the given way, and the parent waits for it.
    note("fork")
    pid = os.fork()
    if pid == 0:
        leave()
        return True
    _, status = os.waitpid(pid, 0)
    note("child left with", os.waitstatus_to_exitcode(status))
    return False

"""

LEAVE = {
    "os._exit": "lambda: os._exit(3)",
    "sys.exit": "lambda: sys.exit(3)",
    "falls off the end": "lambda: None",
}


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="there is no fork here")
@pytest.mark.parametrize("way", list(LEAVE))
@pytest.mark.parametrize("acm", RESOURCES)
def test_child_of_a_fork_exits_nothing_of_its_parents(loop_kind: str, way: str, acm: str) -> None:
    """A child that is forked on a running loop exits nothing of its parent's, however it ends; the parent exits its own, once."""
    if sys.version_info >= (3, 14) and way != "os._exit":
        pytest.skip("from Python 3.14 on asyncio finds no running loop in the child's task, and a bare child fails or hangs too")
    printed, stderr = run_script(
        loop_kind,
        FORK
        + f"""
async def main():
    await enter({acm})
    await asyncio.sleep(0)  # its task begins; one that began in the child would find no running loop there
    atexit.register(note, "callback")
    child = in_child({LEAVE[way]})
    note("main ends in the", "child" if child else "parent")

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
""",
    )
    name = acm.removesuffix("()").lower()
    of_child = ["main ends in the child"] if way == "falls off the end" else []
    status = 0 if way == "falls off the end" else 3
    assert printed == [
        f"enter {name}",
        "fork",
        *of_child,
        f"child left with {status}",
        "main ends in the parent",
        *("callback", f"exit {name}"),
    ]
    assert without_asyncios_own(stderr) == []


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="there is no fork here")
@pytest.mark.parametrize("way", list(LEAVE))
def test_child_of_a_fork_beside_an_open_loop(loop_kind: str, way: str) -> None:
    """A child that is forked while a loop is open, and not running, leaves all that it holds to the parent."""
    printed, stderr = run_script(
        loop_kind,
        FORK
        + f"""
async def main():
    for acm in (Plain(), generator(), task_group(), anyio_group()):
        await enter(acm)

loop = new_loop()
loop.run_until_complete(main())
if not in_child({LEAVE[way]}):
    loop.close()
""",
    )
    names = ["plain", "generator", "task_group", "anyio_group"]
    assert printed == [
        *(f"enter {name}" for name in names),
        "fork",
        f"child left with {0 if way == 'falls off the end' else 3}",
        *(f"exit {name}" for name in reversed(names)),
    ]
    assert without_asyncios_own(stderr) == []


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="there is no fork here")
def test_child_of_a_fork_has_its_own(loop_kind: str) -> None:
    """A child starts with nothing: the same call makes it a resource of its own, on a loop of its own, which it exits."""
    printed, stderr = run_script(
        loop_kind,
        FORK
        + """
async def use(who):
    async with make(who) as plain:
        note("used", plain.name, "by", who)
    async with make("shared") as plain:
        note("used", plain.name, "by", who)

def child():
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(use("child"))
    sys.stdout.flush()
    os._exit(0)

async def main():
    await use("parent")
    in_child(child)
    await use("parent")

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
""",
    )
    assert printed == [
        *("enter parent", "used parent by parent", "enter shared", "used shared by parent", "fork"),
        *("enter child", "used child by child", "enter shared", "used shared by child", "exit shared", "exit child"),
        *("child left with 0", "used parent by parent", "used shared by parent", "exit shared", "exit parent"),
    ]
    assert without_asyncios_own(stderr) == []


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="there is no fork here")
def test_child_of_a_fork_inside_a_resource(loop_kind: str) -> None:
    """A child forked by the code of a resource itself has a loop of its own, too, and the parent's goes on."""
    printed, stderr = run_script(
        loop_kind,
        FORK
        + """
async def use():
    async with make("of child"):
        storage()["value"] = 1

def child():
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(use())
    sys.stdout.flush()
    os._exit(0)

@asynccontextmanager
async def forking():
    in_child(child)
    yield
    note("exit forking")

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(enter(forking()))
""",
    )
    assert printed == ["fork", "enter of child", "exit of child", "child left with 0", "exit forking"]
    assert without_asyncios_own(stderr) == []


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="there is no fork here")
def test_worker_processes_of_multiprocessing_have_their_own(loop_kind: str) -> None:
    """The workers of a forking `multiprocessing` pool have resources of their own, and exit nothing of the parent's."""
    printed, stderr = run_script(
        loop_kind,
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        async def use(who):
            async with make(who) as plain:
                return plain.name

        def work(who):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(use(who))

        async def main():
            await use("parent")
            process = multiprocessing.get_context("fork").Process(target=work, args=("child",))
            process.start()
            process.join()
            note("child left with", process.exitcode)

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        """,
    )
    assert printed == ["enter parent", "enter child", "exit child", "child left with 0", "exit parent"]
    assert without_asyncios_own(stderr) == []


# A loop that can hold nothing


class SlottedLoop:
    """Has no place for attributes; it would run what another loop runs."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


class SealedLoop(asyncio.SelectorEventLoop):
    """Takes no attributes that it does not know."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_asyncio_loop_local":
            raise AttributeError(name)
        super().__setattr__(name, value)


class Plain:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_exc: object) -> None:
        pass


make = sticky_singleton_acm(Plain)


@pytest.mark.parametrize(
    "use",
    [
        storage,
        singleton(str),
        make,
        lambda: atexit.register(print),
        lambda: enter(Plain()).send(None),
    ],
    ids=["storage", "singleton", "sticky_singleton_acm", "atexit", "enter"],
)
def test_loop_class_whose_instances_take_no_attributes(use: Callable[[], object]) -> None:
    """The first use on a loop that can hold nothing is a `TypeError` that names the loop's class and says what to do."""
    inner = asyncio.new_event_loop()

    def first_use() -> None:
        asyncio._set_running_loop(SlottedLoop(inner))  # type: ignore[arg-type]  # a loop of a class of its own
        try:
            use()
        finally:
            asyncio._set_running_loop(inner)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"SlottedLoop.*nothing can be set on its instances: use a loop class"):
            first_use()

    inner.run_until_complete(main())
    inner.close()


def test_loop_class_whose_instances_take_no_attributes_stays_as_it_was() -> None:
    """A loop on which nothing could be set works as before: its own methods are still its class's."""

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(TypeError, match=r"SealedLoop"):
                await enter_once(Plain())
        await asyncio.create_task(asyncio.sleep(0))

    loop = SealedLoop()
    loop.run_until_complete(main())
    assert not {"close", "create_task", "shutdown_asyncgens"} & vars(loop).keys()
    loop.close()
    assert loop.is_closed()


def test_every_open_loop_is_ended_though_warnings_are_errors() -> None:
    """Where the warning of one open loop is raised as an error at interpreter exit, the others are still ended."""
    script = """
        import asyncio
        from asyncio_loop_local import enter

        class Plain:
            def __init__(self, number):
                self.number = number
            async def __aenter__(self):
                return self
            async def __aexit__(self, *exc_info):
                print("exit", self.number, flush=True)

        loops = [asyncio.new_event_loop() for _ in range(3)]
        for number, loop in enumerate(loops):
            loop.run_until_complete(enter(Plain(number)))
    """
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert sorted(done.stdout.splitlines()) == ["exit 0", "exit 1", "exit 2"]
    assert "was still open when the interpreter exited" in done.stderr
