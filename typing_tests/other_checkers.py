"""What pyrefly, zuban and ty make of the files here: on which lines they differ from what mypy and pyright agree on.

A line with an ignored error in it is one that must be refused, every other one must be accepted. Where a checker differs is
written down in `other_checkers.txt`, by this script:

    python typing_tests/other_checkers.py --write
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PATHS = [str(ROOT / "src"), str(ROOT)]
EXPECTED = HERE / "other_checkers.txt"
IGNORED = re.compile(r"\s*# (type|pyright): ignore.*")
COMMANDS = {
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
FOUND = re.compile(r"^(?:ERROR )?(\w+\.py):(\d+)(?::\d+)?(?:-[\d:]+)?:?(?: error\b|[^\n]*\[[\w-]+\]$)", re.MULTILINE)


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


def main() -> None:
    lines: list[str] = []
    for checker in COMMANDS:
        executable = find(checker)
        lines += expected(checker) if executable is None else differences(checker, executable)
    if "--write" in sys.argv:
        EXPECTED.write_text("".join(f"{line}\n" for line in lines))
    else:
        print(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
