"""Every Python block of the README runs as it stands, prints what the README says, and is clean under strict checkers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import mypy_runs
from programs import run_python
from servers import HttpServer

README = Path(__file__).parents[2] / "README.md"
SITE = "https://example.org"  # a server of the suite's own stands in for it


class Block(NamedTuple):
    heading: str
    code: str
    output: str | None


def blocks() -> list[Block]:
    text = README.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in re.finditer(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.MULTILINE | re.DOTALL):
        headings = re.findall(r"^#+ (.*)$", text[: match.start()], re.MULTILINE)
        found.append(Block(headings[-1], match[1], match[2]))
    return found


def test_the_blocks_are_found() -> None:
    """No fenced block escapes these tests: each is Python, or what the Python before it prints."""
    fences = re.findall(r"^```(.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    opening = fences[::2]
    assert set(fences[1::2]) == {""}
    assert set(opening) == {"python", "text", 'python title="service.py"', "console"}
    assert opening.count("console") == 1
    assert opening.count("python") == len(blocks())
    assert opening.count("text") == len([block for block in blocks() if block.output is not None])


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{at} {block.heading}") for at, block in enumerate(blocks(), 1)])
def test_each_block_runs(block: Block) -> None:
    """Copied into a file and run, it prints what stands below it, and nothing else."""
    with HttpServer() as server:
        result = run_python("-W", "error", "-X", "dev", "-c", block.code.replace(SITE, server.url))
    stderr = re.sub(r"^Executing <.*> took \S+ seconds\n", "", result.stderr, flags=re.MULTILINE)  # by a busy machine
    assert (stderr, result.returncode) == ("", 0)
    assert result.stdout == block.output
    assert bool(server.requests) is (SITE in block.code)


def checked(directory: Path, *command: str) -> list[str]:
    """What a checker says of the files there, in strict mode."""
    (directory / "mypy.ini").write_text(mypy_runs.CONFIGURATION)
    (directory / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    done = run_python("-m", *command, cwd=directory, env=mypy_runs.environment())
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line.removeprefix(f"{directory}/") for line in lines if re.match(r"\S+\.py:\d+:", line)]


@pytest.mark.parametrize("command", [["mypy"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"])
def test_each_block_is_clean_under_a_strict_checker(command: list[str], tmp_path: Path) -> None:
    """What one copies from the README passes mypy, strict and with the plugin, and pyright, strict."""
    for at, block in enumerate(blocks(), 1):
        (tmp_path / f"block_{at}.py").write_text(block.code)
    assert checked(tmp_path, *command, ".") == []


def test_the_first_screen_shows_what_the_checkers_say(tmp_path: Path) -> None:
    """The file with the mistakes, and below it the checkers' own output for it."""
    text = README.read_text(encoding="utf-8")
    file = re.search(r'^```python title="service.py"\n(.*?)^```\n', text, re.MULTILINE | re.DOTALL)
    console = re.search(r"^```console\n(.*?)^```\n", text, re.MULTILINE | re.DOTALL)
    assert file is not None
    assert console is not None
    (tmp_path / "service.py").write_text(file[1])
    found: list[str] = []
    for command in (["mypy"], ["pyright", "--pythonpath", sys.executable]):
        found += [f"$ {command[0]} service.py", *checked(tmp_path, *command, "service.py")]
    assert found == console[1].splitlines()


def test_nothing_but_that_site_is_asked() -> None:
    """The blocks reach no other server than the one that stands in for their site."""
    assert {site for block in blocks() for site in re.findall(r"https?://[\w.:-]+", block.code)} == {SITE}


def test_the_package_is_never_installed_by_name() -> None:
    """No line says to install the other package that bears this name on the index."""
    assert not re.findall(r"install\s+(?:-\S+\s+)*[\"']?asyncio[-_]loop[-_]local", README.read_text(encoding="utf-8"))
