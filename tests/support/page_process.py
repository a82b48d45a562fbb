"""Goes through the blocks of one page of the documentation, in the order in which the page has them: see test_docs.py.

Reads the steps from standard input as JSON, and writes for each what became of it. Runs in the page's own directory.
"""

from __future__ import annotations

import importlib
import io
import json
import shlex
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Literal, TypedDict

OF_THE_SUITE = {
    "python": [],
    "pytest": ["-m", "pytest"],
    "mypy": ["-m", "mypy"],
    "loop-local-check": ["-P", "-m", "asyncio_loop_local_mypy._check"],
}


class Step(TypedDict):
    """A block, or a file, or commands; a block that does not go on with what those before it have defined is a new module."""

    kind: Literal["run", "file", "console"]
    text: str
    page: str
    line: int
    name: str
    goes_on: bool


class Outcome(TypedDict):
    """What was printed, and the last words of Python, or of a command, that failed; with the whole traceback."""

    printed: str
    error: str
    traceback: str


class Page:
    def __init__(self) -> None:
        self._module = ModuleType("__main__")

    def outcome(self, step: Step) -> Outcome:
        if step["kind"] == "run":
            return self._run(step)
        if step["kind"] == "console":
            return self._commands(step)
        if step["name"].endswith(".py"):
            compile(step["text"], step["name"], "exec", dont_inherit=True)
        path = Path(step["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step["text"], encoding="utf-8")
        importlib.invalidate_caches()
        return {"printed": "", "error": "", "traceback": ""}

    def _run(self, step: Step) -> Outcome:
        if not step["goes_on"]:
            self._module = ModuleType("__main__")
            self._forget_own_modules()
        sys.modules["__main__"] = self._module  # where pickles and annotations look
        printed, error, told = io.StringIO(), "", ""
        try:
            # Compiled at its place in the page, which a traceback then shows.
            code = compile("\n" * (step["line"] - 1) + step["text"], step["page"], "exec", dont_inherit=True)
            with redirect_stdout(printed), redirect_stderr(printed):
                exec(code, vars(self._module))
        except BaseException as raised:
            lines = traceback.format_exception(raised, limit=0, chain=False)
            error = "".join(lines).removeprefix("Traceback (most recent call last):\n")
            told = traceback.format_exc()
        return {"printed": printed.getvalue(), "error": error, "traceback": told}

    def _forget_own_modules(self) -> None:
        here = Path.cwd()
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and here in Path(file).absolute().parents:
                del sys.modules[name]

    def _commands(self, step: Step) -> Outcome:
        printed, error = "", ""
        for line in step["text"].splitlines():
            if not line.startswith("$ "):
                continue
            program, *arguments = shlex.split(line[2:])
            if program not in OF_THE_SUITE:
                raise ValueError(f"nothing runs {program} here: mark the commands as not run, and say why")
            command = [sys.executable, *OF_THE_SUITE[program], *arguments]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=50, check=False
            )
            printed += f"{line}\n{done.stdout}"
            if done.returncode:
                error = f"{program} ended with exit status {done.returncode}"
        return {"printed": printed, "error": error, "traceback": printed if error else ""}


def main() -> None:
    sys.path[0] = ""  # the page's own directory, and not the suite's
    steps: list[Step] = json.load(sys.stdin)
    page = Page()
    outcomes = [page.outcome(step) for step in steps]
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
