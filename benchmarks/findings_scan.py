"""What the mypy plugin reports in real code: typed packages whose cached functions and context managers this script wraps.

    python benchmarks/findings_scan.py [PACKAGE ...]

In a copy of a package's sources, ``singleton`` takes the place of ``functools.lru_cache`` and ``functools.cache``, and
``sticky_singleton_acm`` wraps what ``contextlib.asynccontextmanager`` decorates. mypy then checks the copy. The plugin's findings
are printed, to be judged by a reader. The packages have to be installed where mypy is.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = [
    *["aiohttp", "anyio", "attr", "celery", "click", "dishka", "distributed", "fastapi", "httpx", "hypothesis", "mcp", "openai"],
    *["psycopg", "pydantic", "pymongo", "redis", "rich", "sqlalchemy", "starlette", "svcs", "typer", "uvicorn", "websockets"],
]
CACHED = re.compile(r"^(\s*)@(?:_?functools\.)?(?:lru_cache|cache)(?:\(.*\))?\s*(?:#.*)?$")
MANAGER = re.compile(r"^(\s*)@(?:_?contextlib\.)?_?asynccontextmanager\s*(?:#.*)?$")
IMPORT = "import asyncio_loop_local as _loop_local"


def wrapped(source: str) -> tuple[str, int]:
    """The source with its cached functions and context managers wrapped, and their number."""
    count, lines = 0, source.splitlines()
    for number, line in enumerate(lines):
        if match := CACHED.match(line):
            lines[number] = f"{match[1]}@_loop_local.singleton"
        elif match := MANAGER.match(line):
            lines[number] = f"{match[1]}@_loop_local.sticky_singleton_acm\n{line}"
        else:
            continue
        count += 1
    if count == 0:
        return source, 0
    place = 0
    for statement in ast.parse(source).body:
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_docstring and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            break
        place = statement.end_lineno or 0
    lines.insert(place, IMPORT)
    return "\n".join(lines) + "\n", count


def scan(package: str, directory: Path) -> tuple[int, list[str]]:
    """How much was wrapped in a copy of the package, and what the plugin reports there."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed")
    copy = directory / package
    shutil.copytree(Path(spec.origin).parent, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.pyc"))
    count = 0
    for file in copy.rglob("*.py"):
        text, added = wrapped(file.read_text(encoding="utf-8"))
        if added:
            file.write_text(text, encoding="utf-8")
            count += added
    (directory / "mypy.ini").write_text("[mypy]\nplugins = asyncio_loop_local_mypy\nshow_traceback = true\n")
    path = os.pathsep.join([str(directory), str(ROOT / "src")])
    variables = os.environ | {"MYPYPATH": path, "PYTHONPATH": str(ROOT / "mypy_plugin")}
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(directory / ".cache"), "-p", package]
    done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
    return count, [line for line in done.stdout.splitlines() if "[loop-local-" in line]


def main() -> int:
    """Scan the packages and print the findings."""
    total = 0
    for package in sys.argv[1:] or PACKAGES:
        with tempfile.TemporaryDirectory() as directory:
            count, found = scan(package, Path(directory))
        total += len(found)
        print(f"{package}: {count} wrapped, {len(found)} findings", *found, sep="\n  ", flush=True)
    print(f"{total} findings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
