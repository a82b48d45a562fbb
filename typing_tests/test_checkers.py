"""Type checkers agree with what these tests assert: each file here is checked as it is run."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent
STRICT_USER = HERE / "clean_for_strict_users.py"
pytestmark = pytest.mark.timeout(600)


def tool(name: str) -> str:
    """The path of a checker: beside this interpreter, or on the PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'mypy_plugin'}:{ROOT / 'src'}",
        "MYPYPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
    }
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def mypy(directory: Path, settings: str, *arguments: str | Path) -> str:
    """What mypy says, under settings of its own and with a cache of its own."""
    config = directory / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = True\nwarn_unreachable = True\nexplicit_package_bases = True\n{settings}\n")
    cache = ("--cache-dir", directory / "cache")
    done = run("mypy", "--config-file", config, *cache, "--python-executable", sys.executable, *arguments)
    return done.stdout + done.stderr


def test_mypy_strict_agrees(tmp_path: Path) -> None:
    """Without the plugin: no type is other than asserted, no ignored error is missing."""
    said = mypy(tmp_path, "exclude = factories/", ROOT / "src", HERE)
    assert said.startswith("Success: "), said


def test_mypy_with_the_plugin_agrees(tmp_path: Path) -> None:
    """With the plugin, one more wrong call is refused, that of a partial; and its own findings are no errors here."""
    if not (ROOT / "mypy_plugin").is_dir():
        pytest.skip("the plugin is not here")
    codes = ", ".join(f"loop-local-{code}" for code in ("key", "fresh-key", "no-loop", "decorator", "single-use"))
    said = mypy(tmp_path, f"exclude = factories/\nplugins = asyncio_loop_local_mypy\ndisable_error_code = {codes}", HERE)
    errors = re.findall(r"^typing_tests/(\w+\.py):\d+: error: (.*)$", said, re.MULTILINE)
    assert errors == [("test_factories_that_are_objects.py", 'Unexpected keyword argument "nope" for "plain"  [call-arg]')], said


def test_pyright_strict_agrees() -> None:
    """Its configuration here lets mypy's comments hide nothing from it, and lets none of its own stand that hides nothing."""
    done = run("pyright", "--project", HERE, "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout


def test_pyright_strict_finds_nothing_in_the_sources() -> None:
    done = run("pyright", "--pythonpath", sys.executable, ROOT / "src")
    assert done.returncode == 0, done.stdout


def test_every_public_type_is_known() -> None:
    """`pyright --verifytypes` finds every public symbol's type complete."""
    done = run(
        "pyright", "--pythonpath", sys.executable, "--verifytypes", "asyncio_loop_local", "--ignoreexternal", "--outputjson"
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    incomplete = [symbol["name"] for symbol in report["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert report["completenessScore"] == 1, incomplete


def test_a_user_who_allows_no_any_has_no_complaint(tmp_path: Path) -> None:
    """Under `disallow_any_expr` and `disallow_any_decorated`, all public names can be used."""
    settings = "disallow_any_expr = True\ndisallow_any_decorated = True\ndisallow_any_explicit = True\nfollow_imports = silent"
    said = mypy(tmp_path, settings, STRICT_USER)
    assert said.startswith("Success: "), said
    runpy.run_path(str(STRICT_USER), run_name="__main__")


class Difference(NamedTuple):
    """What a checker says that the comments in a file do not expect."""

    file: str
    line: str
    rule: str


# What other checkers make of these files beyond what the comments say: their limits, each with its line.
EXPECTED: dict[str, set[Difference]] = {"basedpyright": set()}


def test_basedpyright_agrees(tmp_path: Path) -> None:
    """basedpyright, where it is installed, finds what pyright finds."""
    config = json.loads((HERE / "pyrightconfig.json").read_text())
    config |= {"include": [str(HERE)], "extraPaths": [str(ROOT / path) for path in ("src", "tests", ".")]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    arguments = ("--project", tmp_path, "--pythonpath", sys.executable, "--level", "error", "--outputjson")
    diagnostics = json.loads(run("basedpyright", *arguments).stdout)["generalDiagnostics"]
    found: set[Difference] = set()
    for each in diagnostics:
        path, line = Path(each["file"]), each["range"]["start"]["line"]
        if each["severity"] == "error":
            found.add(Difference(path.name, path.read_text().splitlines()[int(line)].strip(), each["rule"]))
    assert found == EXPECTED["basedpyright"]
