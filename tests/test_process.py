"""The interpreter's exit with a loop that is still open, and a process that forks."""

from __future__ import annotations

import os
import sys

import pytest

from loop_programs import each_kind_of_loop, run_script, without_asyncios_own

# The interpreter exits.

NAMES = ["plain", "generator", "threaded", "task_group", "anyio_group"]
ENTERED = [f"enter {name}" for name in NAMES]
EXITED = [f"exit {name}" for name in reversed(NAMES)]


HELD = """
async def use():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        note("task ends")

async def main():
    await enter(Plain())
    atexit.register(note, "callback")
    for acm in (generator(), threaded(), task_group(), anyio_group()):
        await enter(acm)
    storage()["task"] = asyncio.create_task(use())
    await asyncio.sleep(0)

loop = new_loop()
"""
DRIVEN = {
    "by hand": "loop.run_until_complete(main())",
    "in a daemon thread": "threading.Thread(target=loop.run_forever, daemon=True).start()\n"
    "asyncio.run_coroutine_threadsafe(main(), loop).result()",
}


@each_kind_of_loop
@pytest.mark.parametrize("driven", list(DRIVEN))
def test_interpreter_exit_ends_an_open_loop(loop_kind: str, driven: str) -> None:
    """A loop still open when the interpreter exits is ended then: the user's tasks first, with their resources open.

    It is ended in its own thread, with all that it needs, threads too. A warning names what it held.
    """
    printed, stderr = run_script(loop_kind, f"{HELD}{DRIVEN[driven]}\nnote('end of program')")
    assert printed == [*ENTERED, "end of program", "task ends", *EXITED[:-1], "callback", EXITED[-1]]
    (warning,) = without_asyncios_own(stderr)
    assert "ResourceWarning" in warning
    assert "was still open when the interpreter exited" in warning
    for name in ("Plain", "callback", *NAMES[1:]):
        assert name in warning.partition("It held ")[2]


@each_kind_of_loop
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


SEVERAL = """
loops = [new_loop() for _ in range(3)]
for number, loop in enumerate(loops):
    loop.run_until_complete(enter(Plain(number)))
"""


@each_kind_of_loop
@pytest.mark.parametrize("action", ["always", "error"])
def test_interpreter_exit_with_several_loops(loop_kind: str, action: str) -> None:
    """Each loop that is open is ended, with a warning of its own; also where the warning of one is raised as an error."""
    printed, stderr = run_script(loop_kind, SEVERAL, "-W", f"{action}::ResourceWarning")
    assert sorted(printed) == sorted(f"{what} {number}" for what in ("enter", "exit") for number in range(3))
    said = stderr.count("was still open when the interpreter exited")
    assert said == 3 if action == "always" else said > 0


HELD_NOTHING = """
async def main():
    storage()["loop"] = asyncio.get_running_loop()

held_nothing, closed = new_loop(), new_loop()
held_nothing.run_until_complete(main())
closed.run_until_complete(enter(Plain()))
closed.close()
"""
SYSTEM_EXIT = """
async def main():
    await enter(Plain())
    sys.exit(0)

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


@each_kind_of_loop
@pytest.mark.parametrize("program", [HELD_NOTHING, SYSTEM_EXIT], ids=["loops that held nothing or were closed", "sys.exit"])
def test_interpreter_exit_where_nothing_is_open_says_nothing(loop_kind: str, program: str) -> None:
    """A loop that held nothing, or was closed, by a runner that `SystemExit` has left too, is no reason to warn."""
    printed, stderr = run_script(loop_kind, program)
    assert printed == ["enter plain", "exit plain"]
    assert without_asyncios_own(stderr) == []
    assert program is HELD_NOTHING or stderr == ""


# A process forks.

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
ways_to_leave = pytest.mark.parametrize(
    ("leave", "status"),
    [("lambda: os._exit(3)", 3), ("lambda: sys.exit(3)", 3), ("lambda: None", 0)],
    ids=["os._exit", "sys.exit", "falls off the end"],
)

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

def run(main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)

async def use(who):
    for name in (who, "shared"):
        async with make(name) as plain:
            note("used", plain.name, "by", who)

def child():
    run(use("child"))
    sys.stdout.flush()
    os._exit(0)

"""


def run_forking(loop_kind: str, script: str) -> list[str]:
    """What the program prints, which says nothing on stderr."""
    printed, stderr = run_script(loop_kind, FORK + script)
    assert without_asyncios_own(stderr) == []
    return printed


@forks
@each_kind_of_loop
@ways_to_leave
@pytest.mark.parametrize("name", ["Plain", "generator", "task_group", "anyio_group"])
def test_child_of_a_fork_exits_nothing_of_its_parents(loop_kind: str, leave: str, status: int, name: str) -> None:
    """A child that is forked on a running loop exits nothing of its parent's, however it ends; the parent exits its own, once."""
    if sys.version_info >= (3, 14) and "os._exit" not in leave:
        pytest.skip("from Python 3.14 on asyncio finds no running loop in the child's task, and a bare child fails or hangs too")
    printed = run_forking(
        loop_kind,
        f"""
async def main():
    await enter({name}())
    await asyncio.sleep(0)  # its task begins; one that began in the child would find no running loop there
    atexit.register(note, "callback")
    child = in_child({leave})
    note("main ends in the", "child" if child else "parent")

run(main())
""",
    )
    assert printed == [
        *(f"enter {name.lower()}", "fork"),
        *(["main ends in the child"] if status == 0 else []),
        *(f"child left with {status}", "main ends in the parent", "callback", f"exit {name.lower()}"),
    ]


@forks
@each_kind_of_loop
@ways_to_leave
def test_child_of_a_fork_beside_an_open_loop(loop_kind: str, leave: str, status: int) -> None:
    """A child that is forked while a loop is open, and not running, leaves all that it holds to the parent."""
    printed = run_forking(
        loop_kind,
        f"""
async def main():
    for acm in (Plain(), generator(), task_group(), anyio_group()):
        await enter(acm)

loop = new_loop()
loop.run_until_complete(main())
if not in_child({leave}):
    loop.close()
""",
    )
    names = ["plain", "generator", "task_group", "anyio_group"]
    exited = [f"exit {name}" for name in reversed(names)]
    assert printed == [*(f"enter {name}" for name in names), "fork", f"child left with {status}", *exited]


USED_BY_CHILD = [
    *("enter child", "used child by child", "enter shared", "used shared by child"),
    *("exit shared", "exit child", "child left with 0"),
]


@forks
@each_kind_of_loop
def test_child_of_a_fork_has_its_own(loop_kind: str) -> None:
    """A child starts with nothing: the same call makes it a resource of its own, on a loop of its own, which it exits."""
    printed = run_forking(
        loop_kind,
        """
async def main():
    await use("parent")
    in_child(child)
    await use("parent")

run(main())
""",
    )
    assert printed == [
        *("enter parent", "used parent by parent", "enter shared", "used shared by parent", "fork"),
        *USED_BY_CHILD,
        *("used parent by parent", "used shared by parent", "exit shared", "exit parent"),
    ]


@forks
@each_kind_of_loop
def test_child_of_a_fork_inside_a_resource(loop_kind: str) -> None:
    """A child forked by the code of a resource itself has a loop of its own, too, and the parent's goes on."""
    printed = run_forking(
        loop_kind,
        """
@asynccontextmanager
async def forking():
    in_child(child)
    yield
    note("exit forking")

run(enter(forking()))
""",
    )
    assert printed == ["fork", *USED_BY_CHILD, "exit forking"]


@forks
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio finds no running loop in the child's task")
def test_child_of_a_fork_goes_on_with_what_its_parent_was_entering() -> None:
    """A child that a callback forks while a resource is being entered has its value, too; only the parent exits it."""
    printed = run_forking(
        "asyncio",
        """
parent = os.getpid()

def where():
    return "in the parent" if os.getpid() == parent else "in the child"

@asynccontextmanager
async def slow():
    for _ in range(5):
        await asyncio.sleep(0)
    yield
    note("exit", where())

async def main():
    asyncio.get_running_loop().call_soon(in_child, lambda: None)
    await enter(slow())
    note("entered", where())

run(main())
""",
    )
    assert printed == ["fork", "entered in the child", "child left with 0", "entered in the parent", "exit in the parent"]


@forks
@each_kind_of_loop
def test_worker_processes_of_multiprocessing_have_their_own(loop_kind: str) -> None:
    """The workers of a forking `multiprocessing` pool have resources of their own, and exit nothing of the parent's."""
    printed = run_forking(
        loop_kind,
        """
import multiprocessing

async def main():
    async with make("parent"):
        process = multiprocessing.get_context("fork").Process(target=lambda: run(use("child")))
        process.start()
        process.join()
        note("child left with", process.exitcode)

run(main())
""",
    )
    assert printed == ["enter parent", *USED_BY_CHILD, "exit parent"]


@forks
@each_kind_of_loop
def test_child_of_a_fork_keeps_the_methods_of_others(loop_kind: str) -> None:
    """What others have set on a loop, before its first use or after it, is still called by a child that goes on with the loop."""
    printed = run_forking(
        loop_kind,
        """
def noting(method, name):
    def create_task(*args, **kwargs):
        note(name)
        return method(*args, **kwargs)
    return create_task

async def nothing():
    pass

def child():
    loop.run_until_complete(loop.create_task(nothing()))
    sys.stdout.flush()
    os._exit(0)

loop = new_loop()
loop.create_task = noting(loop.create_task, "before")
async def main():
    await enter(Plain())
loop.run_until_complete(main())
loop.create_task = noting(loop.create_task, "after")
in_child(child)
loop.close()
""",
    )
    assert printed == ["before", "enter plain", "fork", "after", "before", "child left with 0", "exit plain"]
