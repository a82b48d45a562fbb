"""What CONTRIBUTING.md, SECURITY.md and the hooks of pre-commit name exists, and CI runs the commands that contributors run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI = ROOT / ".ci" / "run"


def code(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def targets(text: str) -> set[str]:
    """The targets of the commands of make that are named."""
    return {*re.findall(r"\bmake ([a-z][a-z-]*)", text)}


def test_the_targets_of_make_exist() -> None:
    """Each command of make that is named is one that `make help` knows, or clean."""
    known = {*re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)}
    named = targets("\n".join([*code(CONTRIBUTING), *code(SECURITY)]))
    assert {"test", "quick", "coverage", "check", "test-all", "format", "develop", "public-api"} <= named <= known
    helped = targets("\n".join(line for line in MAKEFILE.splitlines() if "@echo" in line))
    assert helped >= known - {"help", "clean"}


def test_the_files_exist() -> None:
    """Each path that is named is there."""
    paths = {each for each in code(CONTRIBUTING) + code(SECURITY) if re.fullmatch(r"[\w./-]+", each) and re.search(r"[/.]", each)}
    paths = {each for each in paths if not each.startswith("__")}
    assert {
        ".pre-commit-config.yaml",
        "docs/architecture/overview.md",
        "tests/project/test_messages.py",
        "tests/project/public_api.txt",
    } <= paths
    assert {each for each in paths if not (ROOT / each).exists()} == set()
    for test in re.findall(r"ARGS='(\S+)", CONTRIBUTING):
        assert (ROOT / test).exists()


def test_ci_runs_what_contributors_are_told_to_run() -> None:
    """The one command is the one of CI, and runs just what is said."""
    assert "\n    .ci/run\n" in CONTRIBUTING
    runs = re.findall(r"^part (make .*)$", CI.read_text(encoding="utf-8"), re.MULTILINE)
    assert runs == ["make test", "make check", "make test-all OTHERS=1"]
    assert CONTRIBUTING.count("`make test`, `make check` and `make test-all OTHERS=1`") == 1
    if sys.platform != "win32":
        assert os.access(CI, os.X_OK)


def test_the_hooks_run_tools_that_are_there() -> None:
    """Each hook is local, and runs a tool that the project itself asks for."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (.*)", text) == ["local"]
    entries = re.findall(r"entry: (.*)", text)
    assert len(entries) == text.count("language: system") == text.count("- id: ") > 0
    needed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for entry in entries:
        program = entry.split()[0]
        assert program.startswith(".venv/bin/")
        assert re.search(rf'^  "{program.removeprefix(".venv/bin/")}>=', needed, re.MULTILINE), program


@pytest.mark.parametrize("name", ["asyncio_loop_local", "asyncio_loop_local_mypy", "asyncio_loop_local_pytest"])
def test_the_packages_are_named(name: str) -> None:
    """Each package that is shipped has its line there."""
    assert re.search(rf"^\| `\w+/{name}` \|", CONTRIBUTING, re.MULTILINE)
