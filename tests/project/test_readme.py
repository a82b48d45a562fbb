"""Every Python block of the README runs as it stands, and prints what the README says it prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

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
    assert set(opening) == {"python", "text"}
    assert opening.count("python") == len(blocks())
    assert opening.count("text") == len([block for block in blocks() if block.output is not None])


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{at} {block.heading}") for at, block in enumerate(blocks(), 1)])
def test_each_block_runs(block: Block) -> None:
    """Copied into a file and run, it prints what stands below it, and nothing else."""
    with HttpServer() as server:
        result = run_python("-W", "error", "-X", "dev", "-c", block.code.replace(SITE, server.url))
    told = re.sub(r"^Executing <.*> took \S+ seconds\n", "", result.stderr, flags=re.MULTILINE)  # by a busy machine
    assert (told, result.returncode) == ("", 0)
    assert result.stdout == block.output
    assert bool(server.requests) is (SITE in block.code)


def test_nothing_but_that_site_is_asked() -> None:
    """The blocks reach no other server than the one that stands in for their site."""
    assert {site for block in blocks() for site in re.findall(r"https?://[\w.:-]+", block.code)} == {SITE}


def test_the_package_is_never_installed_by_name() -> None:
    """No line tells anyone to install the other package that bears this name on the index."""
    assert not re.findall(r"install\s+(?:-\S+\s+)*[\"']?asyncio[-_]loop[-_]local", README.read_text(encoding="utf-8"))
