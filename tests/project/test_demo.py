"""The demonstration that `make demo` runs: it holds what it claims, and says so if it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from programs import run_python

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
WRAPPED = "_ClientSession = asyncio_loop_local.sticky_singleton_acm(aiohttp.ClientSession)\n"
TREE = (
    r"^_visitors_book\('http://127\.0\.0\.1:\d+', 'thread 3, no\. 2'\) \(open since [\d.]+ s\)\r?\n"
    r"    ClientSession\(\) \(open since [\d.]+ s\)\r?\n"
)
CLAIM = "918 fetches on 9 event loops through 9 sessions"


def run_demo(script: Path) -> subprocess.CompletedProcess[str]:
    return run_python("-W", "error", script)


def changed(directory: Path, before: str, after: str) -> Path:
    """A copy of the demonstration with one change."""
    source = DEMO.read_text(encoding="utf-8")
    assert source.count(before) == 1
    script = directory / "changed.py"
    script.write_text(source.replace(before, after), encoding="utf-8")
    return script


def test_the_demonstration_shows_one_session_per_loop() -> None:
    """The demonstration ends well, with a line for each loop: hundreds of fetches, one session, closed."""
    result = run_demo(DEMO)
    assert (result.returncode, result.stderr) == (0, "")
    rows = re.findall(r"^(.+ no\. \d) +(\d+) +(\d+) +(\d+) +(\d+)  in a finally  closed$", result.stdout, re.MULTILINE)
    assert len(rows) == 9
    assert len({name for name, *_ in rows}) == 9
    for _, tasks, fetches, sessions, connections in rows:
        assert int(sessions) == 1
        assert 1 <= int(connections) < int(tasks) < int(fetches)
    assert sum(int(fetches) for _, _, fetches, _, _ in rows) == 918
    assert CLAIM in result.stdout
    assert re.search(TREE, result.stdout, re.MULTILINE)


def test_where_there_is_no_terminal_it_is_plain_text() -> None:
    """What goes into a pipe or a file has no control characters, and each row once."""
    result = run_demo(DEMO)
    assert re.findall(r"[^\n\x20-\x7e]", result.stdout) == []
    assert result.stdout.count("main thread, no. 1") == 1


def test_the_demonstration_fails_where_its_claims_do_not_hold(tmp_path: Path) -> None:
    """With an unwrapped session class, the same program says what does not hold, and ends with 1."""
    result = run_demo(changed(tmp_path, f"\n{WRAPPED}", "\n_ClientSession = aiohttp.ClientSession\n"))
    assert result.returncode == 1
    assert "it is not so that one session was opened, and all tasks shared it" in result.stdout
    assert "through 9 sessions" not in result.stdout


def run_in_terminal(script: Path, *, columns: int, **environment: str) -> str:
    """What it writes, without escape sequences, to a terminal of so many columns."""
    import fcntl
    import pty
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    hidden = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment
    said = b""
    with subprocess.Popen([sys.executable, "-W", "error", str(script)], stdin=its, stdout=its, stderr=its, env=env) as process:
        os.close(its)
        try:
            while True:
                try:
                    more = os.read(ours, 65_536)
                except OSError:  # how Linux says that the other side is closed
                    break
                if not more:
                    break
                said += more
        finally:
            os.close(ours)
    assert process.returncode == 0, said
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())


in_terminal = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")


@in_terminal
@pytest.mark.parametrize("columns", [60, 120])
def test_in_a_terminal_one_sees_it_happen(columns: int, tmp_path: Path) -> None:
    """In a terminal, wide or narrow, a table shows sessions before they are opened, open and closed, and the tree is below it."""
    said = run_in_terminal(
        changed(tmp_path, "server.seconds_to_answer = 0.12", "server.seconds_to_answer = 0.05"), columns=columns
    )
    frames = [re.findall(r"^ ((?:main )?thread.*?)\s*$", frame, re.MULTILINE) for frame in said.split("event loop  ")[1:]]
    assert {len(frame) for frame in frames} == {9}
    assert all(len(line) < columns for frame in frames for line in frame)
    assert all(line.endswith("not yet opened") for line in frames[0][1:])
    assert any(re.search(r" open, shared \d+ times$", line) for frame in frames for line in frame)
    assert all(re.search(r"no\. \d +━+ +closed, shared 101 times$", line) for line in frames[-1])
    assert CLAIM in said
    assert re.search(TREE if columns > 100 else "ClientSession", said, re.MULTILINE)
    assert "Traceback" not in said


@in_terminal
@pytest.mark.parametrize("why", ["no rich", "dumb terminal"])
def test_a_terminal_that_cannot_show_it_gets_plain_text(why: str, tmp_path: Path) -> None:
    """Without rich, and in a terminal that can do nothing, there is the plain table, when all has happened."""
    environment = {"TERM": "dumb"}
    if why == "no rich":
        (tmp_path / "rich.py").write_text("raise ImportError('it is not installed')\n")
        environment = {"PYTHONPATH": str(tmp_path)}
    said = run_in_terminal(DEMO, columns=100, **environment)
    assert len(re.findall(r"^(?:main )?thread.* closed\r$", said, re.MULTILINE)) == 9
    assert "━" not in said
    assert CLAIM in said
