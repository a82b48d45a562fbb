"""How the tests run mypy with the plugin: in processes of their own, on files of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFIGURATION = """\
[mypy]
strict = true
plugins = asyncio_loop_local_mypy
show_traceback = true
show_error_codes = true

[mypy-asyncio_loop_local.*]
ignore_errors = true
"""


def mypy_version() -> tuple[int, ...]:
    """Of the mypy that is installed beside the tests; (0,) if there is none."""
    try:
        return tuple(int(part) for part in version("mypy").split("+")[0].split(".")[:2])
    except PackageNotFoundError:
        return (0,)


def plugin_sources() -> Path:
    """Where the plugin's modules are: installed, or in the checkout where nothing is installed but mypy."""
    found = find_spec("asyncio_loop_local_mypy")
    if found is None:
        return ROOT / "mypy_plugin" / "asyncio_loop_local_mypy"
    assert found.origin is not None
    return Path(found.origin).parent


def environment() -> dict[str, str]:
    """The variables with which mypy finds the same library and plugin as the tests: installed ones, or those of the checkout."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MYPY", "PYTHONPATH"))}
    directory = plugin_sources().parent
    if directory.name != "site-packages":
        variables |= {"PYTHONPATH": str(directory), "MYPYPATH": str(ROOT / "src")}
    return variables


def run(directory: Path, *command: str) -> list[str]:
    """The lines that a module of mypy prints for the files in a directory, sorted, without the one that counts them."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if done.returncode not in {0, 1} or done.stderr:
        raise RuntimeError(f"mypy failed:\n{done.stdout}\n{done.stderr}")
    lines = (re.sub(r"`-?\d+", "", line) for line in done.stdout.splitlines())  # the number of a type variable
    return sorted(line for line in lines if not line.startswith(("Found ", "Success: ", "Daemon ")))


def write(directory: Path, files: dict[str, str]) -> None:
    """Write the files, and the configuration that switches the plugin on."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "mypy.ini").write_text(CONFIGURATION)
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
