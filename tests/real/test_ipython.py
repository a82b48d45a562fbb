"""IPython: its cells await at the top level, all on one loop, which nobody closes before the interpreter exits."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from programs import run_python
from server_process import notes_of, write_app

POOL = """
import asyncio
from contextlib import asynccontextmanager
from asyncio_loop_local import aclose, sticky_singleton_acm

@sticky_singleton_acm
@asynccontextmanager
async def make_pool(name):
    note(f"{name} opened")
    yield object()
    note(await asyncio.to_thread(lambda: f"{name} closed"))
"""

USE = "async with make_pool('{}') as pool: note(id(pool))"

INTERACTIVE = ("-m", "IPython", "--simple-prompt", "--no-banner", "--no-confirm-exit", "--HistoryManager.enabled=False")

SHELL = """
    import asyncio, sys
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    RUNNER
    for cell in sys.stdin.read().split("\\n\\n"):
        assert shell.run_cell(cell).success
"""


def run_cells(directory: Path, *cells: str, command: tuple[str, ...] = INTERACTIVE) -> str:
    """Gives cells to an IPython of its own, which then exits.

    :returns: what it has written to stderr.
    """
    env = {**os.environ, "IPYTHONDIR": str(directory / "ipython")}
    result = run_python("-W", "always::ResourceWarning", *command, cwd=directory, env=env, stdin="\n\n".join([*cells, ""]))
    assert result.returncode == 0, result.stderr
    assert "Error" not in result.stdout
    return result.stderr


def the_notes(directory: Path) -> list[str]:
    (notes,) = notes_of(directory).values()
    return notes


def held_at_exit(*names: str) -> str:
    return f"was still open when the interpreter exited: close it, or use asyncio.run(). It held {', '.join(names)}\n"


def assert_all_used_one_pool(directory: Path, said: str, uses: int) -> None:
    """That one pool was opened, used so often, and closed at the interpreter's exit, with a warning that names it."""
    opened, *used, closed = the_notes(directory)
    assert (opened, closed) == ("pool opened", "pool closed")
    assert len(used) == uses
    assert len(set(used)) == 1
    assert held_at_exit("make_pool('pool')") in said
    assert "failed" not in said


def test_cells_share_what_a_module_defines(tmp_path: Path) -> None:
    """All cells share one resource; it is closed when IPython exits, with a warning that names what its loop still held."""
    write_app(tmp_path, POOL)
    said = run_cells(tmp_path, "from app import *", *[USE.format("pool")] * 20)
    assert_all_used_one_pool(tmp_path, said, 20)


def test_aclose_in_a_cell(tmp_path: Path) -> None:
    """`await aclose()` in a cell ends it without a warning, whatever cells have defined; the next cell opens it anew."""
    write_app(tmp_path)
    use = USE.format("pool")
    said = run_cells(tmp_path, "from app import *", POOL, use, use, "await aclose()", use, "await aclose()")
    opened, first, second, closed, *anew = the_notes(tmp_path)
    assert (opened, closed, anew[0], anew[-1]) == ("pool opened", "pool closed") * 2
    assert first == second
    assert len(anew) == 3
    assert said == ""


def test_fact_ipython_clears_names_before_it_exits(tmp_path: Path) -> None:
    """Why cells should `await aclose()`: IPython first deletes what cells have defined; an exit that needs it says so."""
    write_app(tmp_path, POOL)
    cells = ("import app", POOL, USE.format("of the cell"), "async with app.make_pool('of the module'): pass")
    said = run_cells(tmp_path, "from app import note", *cells)
    assert the_notes(tmp_path)[2:] == ["of the module opened", "of the module closed"]
    assert "the exit of make_pool('of the cell') failed" in said
    assert "NameError: name 'note' is not defined" in said
    assert held_at_exit("make_pool('of the cell')", "make_pool('of the module')") in said


def run_shell(directory: Path, cells: int, *, runner: str = "") -> str:
    """Runs so many cells that use the pool in a shell inside a program; what that has written to stderr."""
    write_app(directory)
    (directory / "shell.py").write_text(textwrap.dedent(SHELL).replace("RUNNER", runner))
    return run_cells(directory, "from app import *", POOL, *[USE.format("pool")] * cells, command=("shell.py",))


def test_a_shell_inside_a_program(tmp_path: Path) -> None:
    """Hundreds of cells of a shell in a program share one resource, which is closed, names and all, at the interpreter's exit."""
    assert_all_used_one_pool(tmp_path, run_shell(tmp_path, 200), 200)


def test_a_loop_for_each_cell(tmp_path: Path) -> None:
    """With `asyncio.run` as the shell's loop runner, each cell has its own resource, closed at the cell's end."""
    assert run_shell(tmp_path, 100, runner="shell.loop_runner = asyncio.run") == ""
    assert [note for note in the_notes(tmp_path) if "pool" in note] == ["pool opened", "pool closed"] * 100
