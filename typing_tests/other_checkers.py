"""What each checker makes of the files here: on which lines it differs from what mypy and pyright agree on.

A line with an ignored error in it is one that must be refused, every other one must be accepted. Where a checker differs is
written down in `other_checkers.txt`, by this script:

    python typing_tests/other_checkers.py --write

The newest release of each checker is tried by this one, in an environment of their own, and what has changed is printed. The exit
status is 1 if something has; that is what `make checkers` does:

    python typing_tests/other_checkers.py --newest .venv-checkers

Then raise the versions in pyproject.toml, write the differences down, and make the tables of docs/checkers.md anew with
`typing_tests/factories/compare.py --write`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PATHS = [str(ROOT / "src"), str(ROOT)]
EXPECTED = HERE / "other_checkers.txt"
IGNORED = re.compile(r"\s*# (type|pyright): ignore.*")
COMMANDS = {
    "mypy": ("--strict", "--warn-unreachable", "--no-pretty", "--python-executable", sys.executable),
    "pyright": ("--pythonpath", sys.executable),
    "basedpyright": ("--level", "error", "--pythonpath", sys.executable),
    "pyrefly": (
        *("check", "--output-format", "min-text", "--python-interpreter-path", sys.executable),
        *("--search-path", PATHS[0], "--search-path", PATHS[1]),
    ),
    "zuban": ("mypy", "--strict", "--no-pretty", "--python-executable", sys.executable),
    "ty": (
        *("check", "--output-format", "concise", "--python", sys.executable),
        *("--extra-search-path", PATHS[0], "--extra-search-path", PATHS[1]),
    ),
}
FOUND = re.compile(
    r"^(?:ERROR |\s+\S*/)?(\w+\.py):(\d+)(?::\d+)?(?:-[\d:]+)?:?(?: (?:- )?error\b|[^\n]*\[[\w-]+\]$)", re.MULTILINE
)


def find(checker: str) -> str | None:
    """The checker beside this interpreter, or on the PATH."""
    return shutil.which(checker, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def files() -> list[Path]:
    """The files with both right and wrong uses."""
    apart = {"test_checkers.py", "test_factories.py", "test_editor.py"}
    return sorted(path for path in HERE.glob("test_*.py") if path.name not in apart)


def differences(checker: str, executable: str) -> Iterator[str]:
    """Each line that the checker accepts and should not, or refuses and should not, with its file."""
    with tempfile.TemporaryDirectory() as temporary:
        for path in files():
            text = "\n".join(IGNORED.sub("", line) for line in path.read_text().splitlines())
            Path(temporary, path.name).write_text(text)
        Path(temporary, "pyrefly.toml").write_text("")  # without it, a preset that says less
        config = json.loads((HERE / "pyrightconfig.json").read_text())
        config |= {"extraPaths": PATHS, "reportUnnecessaryTypeIgnoreComment": "none"}
        Path(temporary, "pyrightconfig.json").write_text(json.dumps(config))
        environment = os.environ | dict.fromkeys(("MYPYPATH", "PYTHONPATH"), os.pathsep.join(PATHS))
        command = [executable, *COMMANDS[checker], *(path.name for path in files())]
        done = subprocess.run(command, cwd=temporary, env=environment, capture_output=True, text=True, check=False)
    found = {(match[1], int(match[2])) for match in FOUND.finditer(done.stdout)}
    if not found:
        raise RuntimeError(f"{checker} found nothing: {done.stdout}{done.stderr}")
    for path in files():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            refused, wrong = (path.name, number) in found, IGNORED.search(line) is not None
            if refused is not wrong:
                yield f"{checker} {'refuses' if refused else 'accepts'} in {path.name}: {IGNORED.sub('', line).strip()}"


def expected(checker: str) -> list[str]:
    """The differences that are written down."""
    return [line for line in EXPECTED.read_text().splitlines() if line.startswith(f"{checker} ")]


def version_of(executable: str) -> str:
    """What a checker says of its version."""
    said = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+(\.\d+)+", said)
    return match[0] if match else said.strip()


def try_newest(environment: Path) -> bool:
    """Install the newest release of each checker, print how it differs from what is written down, and tell whether it does."""
    venv.create(environment, with_pip=True)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    packages = ["pyright[nodejs]" if checker == "pyright" else checker for checker in COMMANDS]
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", "--upgrade", *packages], check=True)
    changed = False
    for checker in COMMANDS:
        newest = str(programs / checker)
        before, now = expected(checker), list(differences(checker, newest))
        lines = [f"  - {line}" for line in before if line not in now] + [f"  + {line}" for line in now if line not in before]
        used = find(checker)
        print(checker, "not installed" if used is None else version_of(used), "->", version_of(newest))
        print("\n".join(lines) if lines else "  nothing has changed", flush=True)
        changed = changed or bool(lines)
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write down the differences")
    parser.add_argument("--newest", type=Path, metavar="ENVIRONMENT", help="try the newest releases, in this environment")
    given = parser.parse_args()
    if given.newest is not None:
        return int(try_newest(given.newest.resolve()))
    lines: list[str] = []
    for checker in COMMANDS:
        executable = find(checker)
        lines += expected(checker) if executable is None else differences(checker, executable)
    if given.write:
        EXPECTED.write_text("".join(f"{line}\n" for line in lines))
    else:
        print(json.dumps(lines, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
