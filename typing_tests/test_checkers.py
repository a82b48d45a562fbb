"""Type checkers agree with what these tests assert: each file here is checked as it is run.

pyrightconfig.json lets mypy's comments hide nothing from pyright, and reports those of its own that hide nothing. A wrong call
inside ``refused(lambda: …)`` has no type: so lambdas of unknown type are no errors there.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typing_tests.other_checkers import COMMANDS, differences, expected, find

HERE = Path(__file__).parent
ROOT = HERE.parent
STRICT_USER = HERE / "clean_for_strict_users.py"
pytestmark = pytest.mark.timeout(600)


def tool(name: str) -> str:
    """The path of a checker: beside this interpreter, or on the PATH."""
    found = find(name)
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
    """mypy's output, with the given settings and an empty cache."""
    config = directory / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = True\nwarn_unreachable = True\nexplicit_package_bases = True\n{settings}\n")
    cache = ("--cache-dir", directory / "cache")
    done = run("mypy", "--config-file", config, *cache, "--python-executable", sys.executable, *arguments)
    return done.stdout + done.stderr


PLUGIN_CODES = ("key", "key-function", "fresh-key", "no-loop", "decorator", "single-use", "escape", "closed")


def test_mypy_strict_agrees(tmp_path: Path) -> None:
    """Without the plugin: no type is other than asserted, no ignored error is missing."""
    output = mypy(tmp_path, "exclude = factories/", ROOT / "src", HERE)
    assert output.startswith("Success: "), output


def test_mypy_with_the_plugin_agrees(tmp_path: Path) -> None:
    """With the plugin, one more wrong call is refused, that of a partial; and its own findings are no errors here."""
    if not (ROOT / "mypy_plugin").is_dir():
        pytest.skip("the plugin is not here")
    codes = ", ".join(f"loop-local-{code}" for code in PLUGIN_CODES)
    output = mypy(tmp_path, f"exclude = factories/\nplugins = asyncio_loop_local_mypy\ndisable_error_code = {codes}", HERE)
    errors = re.findall(r"^typing_tests/(\w+\.py):\d+: error: (.*)$", output, re.MULTILINE)
    assert errors == [("test_singleton.py", 'Unexpected keyword argument "nope" for "plain"  [call-arg]')], output


def test_pyright_strict_agrees() -> None:
    """pyright finds no error but those that the comments expect, and each of those; `make check` runs it on the sources."""
    done = run("pyright", "--project", HERE, "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout


def test_basedpyright_agrees(tmp_path: Path) -> None:
    """basedpyright, where it is installed, finds what pyright finds."""
    config = json.loads((HERE / "pyrightconfig.json").read_text())
    config |= {"include": [str(HERE)], "extraPaths": [str(ROOT / path) for path in ("src", "tests", ".")]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    done = run("basedpyright", "--project", tmp_path, "--pythonpath", sys.executable, "--level", "error")
    assert "\n0 errors" in f"\n{done.stdout}", done.stdout


def test_every_public_type_is_known() -> None:
    """`pyright --verifytypes` finds every public symbol's type complete."""
    arguments = ("--pythonpath", sys.executable, "--verifytypes", "asyncio_loop_local", "--ignoreexternal", "--outputjson")
    report = json.loads(run("pyright", *arguments).stdout)["typeCompleteness"]
    incomplete = [symbol["name"] for symbol in report["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert report["completenessScore"] == 1, incomplete


def test_a_user_who_allows_no_any_has_no_complaint(tmp_path: Path) -> None:
    """Under `disallow_any_expr` and `disallow_any_decorated`, all public names can be used."""
    settings = "disallow_any_expr = True\ndisallow_any_decorated = True\ndisallow_any_explicit = True\nfollow_imports = silent"
    output = mypy(tmp_path, settings, STRICT_USER)
    assert output.startswith("Success: "), output
    runpy.run_path(str(STRICT_USER), run_name="__main__")


@pytest.mark.parametrize("checker", COMMANDS)
def test_the_limits_of_other_checkers_are_known(checker: str) -> None:
    """If they have changed, `python typing_tests/other_checkers.py --write` writes them down anew."""
    assert list(differences(checker, tool(checker))) == expected(checker)
