"""docs/architecture names what exists: tests, and modules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "architecture"


def functions_of(file: str) -> set[str]:
    """The names of the test functions of a file, those in classes too."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_test_that_the_contract_names_exists() -> None:
    """The contract names the test that keeps each promise, and that test is in that file."""
    contract = (PAGES / "contract.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", contract))
    existing = {(file, test) for file in {file for file, _ in named} for test in functions_of(file)}
    assert named
    assert sorted(named - existing) == []
    assert contract.count("::") == len(re.findall(r"`tests/[\w/]+\.py::test_\w+`", contract)), "each is written in that form"


def test_each_line_of_the_contract_names_a_test() -> None:
    """Each row of the contract's tables, but for those that explain words, names a test that keeps it."""
    contract = (PAGES / "contract.md").read_text(encoding="utf-8").partition("## Public names")[2]
    rows = [line for line in contract.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    unkept = [row for row in rows if "::test_" not in row and not row.endswith("| test |")]
    assert rows
    assert unkept == []


def test_the_overview_names_each_module() -> None:
    """The table of layers has each module of the library, and no other."""
    overview = (PAGES / "overview.md").read_text(encoding="utf-8").partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", overview)) - {"__all__"}
    modules = {path.stem for path in (ROOT / "src" / "asyncio_loop_local").glob("*.py")}
    assert named == modules
