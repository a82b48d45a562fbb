"""The Python blocks of the pages in docs run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))  # those in docs/mypy are for a checker: see test_mypy_plugin.py


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


BLOCKS = [(f"{page.stem} {at}", block) for page in PAGES for at, block in enumerate(blocks(page), 1)]


def test_there_are_blocks() -> None:
    """The pages are found, and so are their blocks."""
    assert BLOCKS


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_each_block_runs(block: str) -> None:
    """Copied into a file and run, it ends without an error, and without a warning."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", block]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (result.stderr, result.returncode) == ("", 0)
