"""What `loop-local-check` costs beside a run of mypy: on large packages, with an empty cache, and with nothing changed since.

    python benchmarks/check_cost.py [--runs 3] [PACKAGE ...]

The packages, which have to be installed, are copied into a folder, as a project without settings of mypy. Each run is a process
of its own, and its processor time is measured; the least of the runs counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ["aiohttp", "anyio", "hypothesis", "psycopg", "pydantic"]
COMMANDS = {"mypy": "mypy", "loop-local-check": "asyncio_loop_local_mypy._check"}


def seconds(module: str, directory: Path) -> float:
    """The processor time of one run of a command in a directory."""
    variables = os.environ | {"PYTHONPATH": str(ROOT / "mypy_plugin"), "MYPYPATH": str(ROOT / "src")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-P", "-m", module, "."]
    done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise SystemExit(f"{module} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    options = parser.parse_args()
    least: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for package in options.packages:
            found = find_spec(package)
            if found is None or found.origin is None:
                raise SystemExit(f"{package} is not installed")
            shutil.copytree(Path(found.origin).parent, Path(temporary, package))
        lines = sum(path.read_bytes().count(b"\n") for path in Path(temporary).rglob("*.py"))
        for _ in range(options.runs):
            for name, module in COMMANDS.items():
                shutil.rmtree(Path(temporary, ".mypy_cache"), ignore_errors=True)
                for cache in ("empty cache", "nothing changed"):
                    took = seconds(module, Path(temporary))
                    least[name, cache] = min(least.get((name, cache), took), took)
    print(f"{', '.join(options.packages)}: {lines:,} lines; processor time, least of {options.runs} runs")
    for (name, cache), took in least.items():
        print(f"{name:18} {cache:16} {took:7.2f} s")


if __name__ == "__main__":
    main()
