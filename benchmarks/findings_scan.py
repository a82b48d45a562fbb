"""What the mypy plugin reports in real code: typed packages whose cached functions and context managers this script wraps.

    python benchmarks/findings_scan.py [--tests] [PACKAGE ...]

In a copy of a package's sources, ``singleton`` takes the place of ``functools.lru_cache`` and ``functools.cache``, and
``sticky_singleton_acm`` wraps what ``contextlib.asynccontextmanager`` decorates. mypy then checks the copy, with what it does not
annotate. The plugin's findings are printed, to be judged by a reader. The packages have to be installed where mypy is.

With ``--tests``, the tests in the package's source distribution are wrapped and checked too. pip downloads that.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = [
    *["aiohttp", "anyio", "attr", "celery", "click", "dishka", "distributed", "fastapi", "httpx", "hypothesis", "mcp", "openai"],
    *["psycopg", "pydantic", "pymongo", "redis", "rich", "sqlalchemy", "starlette", "svcs", "typer", "uvicorn", "websockets"],
]
DISTRIBUTIONS = {"attr": "attrs"}  # of other names than their packages
SETTINGS = """\
[mypy]
plugins = asyncio_loop_local_mypy
show_traceback = true
check_untyped_defs = true
namespace_packages = true
explicit_package_bases = true
"""
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


def tests_of(package: str, directory: Path) -> list[Path]:
    """The folders of tests in the source distribution of a package, as the version that is installed."""
    name = DISTRIBUTIONS.get(package, package)
    downloaded = directory / "sdist"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--no-binary", name]
    subprocess.run([*pip, "--dest", str(downloaded), f"{name}=={version(name)}"], check=True, capture_output=True)
    (archive,) = downloaded.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(downloaded, filter="data")
    (root,) = (path for path in downloaded.iterdir() if path.is_dir())
    found = [path for path in [root, *sorted(root.rglob("*"))] if path.is_dir() and path.name in {"test", "tests"}]
    return [path for path in found if not any(other in path.parents for other in found) and any(path.rglob("test*.py"))]


def copied(package: str, directory: Path, *, with_tests: bool) -> list[str]:
    """Copy a package into a directory, and its tests; return their names."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed")
    shutil.copytree(Path(spec.origin).parent, directory / package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.pyc"))
    copies = [package]
    for number, tests in enumerate(tests_of(package, directory) if with_tests else []):
        name = "tests" if number == 0 else f"tests{number}"
        shutil.copytree(tests, directory / name, ignore=shutil.ignore_patterns("*.pyi"), symlinks=True)
        copies.append(name)
    return copies


def scan(package: str, directory: Path, *, with_tests: bool) -> tuple[int, int, list[str]]:
    """How many files were checked and how much was wrapped in a copy of the package, and what the plugin reports there."""
    copies = copied(package, directory, with_tests=with_tests)
    count, number_of_files = 0, 0
    for file in (file for name in copies for file in (directory / name).rglob("*.py")):
        try:
            text, added = wrapped(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # what a test gives to a parser
            file.unlink()
            continue
        number_of_files += 1
        if added:
            file.write_text(text, encoding="utf-8")
            count += added
    (directory / "mypy.ini").write_text(SETTINGS)
    path = os.pathsep.join([str(directory), str(ROOT / "src")])
    variables = os.environ | {"MYPYPATH": path, "PYTHONPATH": str(ROOT / "mypy_plugin")}
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(directory / ".cache")]
    command += ["-p", package] if copies == [package] else copies
    while True:
        done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
        broken = re.search(r"^(\S+?\.py):\d+: error: .*\[syntax\]$", done.stdout, re.MULTILINE)
        if done.returncode != 2 or broken is None:  # mypy could not go on
            break
        (directory / broken[1]).unlink()
    if done.returncode not in {0, 1}:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
    return number_of_files, count, [line for line in done.stdout.splitlines() if "[loop-local-" in line]


def main() -> int:
    """Scan the packages and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", action="store_true", help="with the tests of the source distributions")
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    options = parser.parse_args()
    total = 0
    for package in options.packages:
        with tempfile.TemporaryDirectory() as directory:
            files, count, found = scan(package, Path(directory), with_tests=options.tests)
        total += len(found)
        print(f"{package}: {files} files, {count} wrapped, {len(found)} findings", *found, sep="\n  ", flush=True)
    print(f"{total} findings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
