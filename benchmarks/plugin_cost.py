"""What the mypy plugin costs: mypy's time on a large package without it, with it, and what of that is spent inside it.

    python benchmarks/plugin_cost.py [--runs 5] [PACKAGE ...]

Each run is cold, in a process of its own, and its processor time is measured; the least of the runs counts. A third kind of run
has a clock around each of the plugin's methods. The packages have to be installed where mypy is.
The exit status is 1 if the plugin costs 2 % or more, by that clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 0.02
PACKAGES = ["aiohttp", "anyio", "hypothesis", "psycopg", "pydantic"]

CLOCKED = """
import atexit, json, os, time
from asyncio_loop_local_mypy._plugin import LoopLocalPlugin

spent = [0.0, 0]
depth = [0]


def clocked(function):
    def inner(*args):
        depth[0] += 1
        begin = time.perf_counter()
        try:
            result = function(*args)
        finally:
            depth[0] -= 1
            if not depth[0]:
                spent[0] += time.perf_counter() - begin
                spent[1] += 1
        return clocked(result) if callable(result) else result
    return inner


class Clocked(LoopLocalPlugin):
    pass


for name in dir(LoopLocalPlugin):
    if name.startswith("get_") and name in LoopLocalPlugin.__dict__ or name == "report_config_data":
        setattr(Clocked, name, clocked(getattr(LoopLocalPlugin, name)))


@atexit.register
def tell():
    with open(os.environ["CLOCKED_RESULT"], "w") as file:
        json.dump(spent, file)


def plugin(version):
    return Clocked
"""


def run(packages: list[str], directory: Path, plugin: str | None) -> tuple[float, list[float]]:
    """The processor time of one cold run, and what the clock said: the seconds inside the plugin, and the calls of it."""
    (directory / "clocked.py").write_text(CLOCKED)
    (directory / "mypy.ini").write_text("[mypy]\n" + (f"plugins = {plugin}\n" if plugin else ""))
    result = directory / "clocked.json"
    variables = os.environ | {
        "PYTHONPATH": str(ROOT / "mypy_plugin"),
        "MYPYPATH": str(ROOT / "src"),
        "CLOCKED_RESULT": str(result),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from mypy.main import main; main(clean_exit=True)"]
    options = ["--cache-dir", os.devnull, *(word for package in packages for word in ("-p", package))]
    done = subprocess.run([*command, *options], cwd=directory, env=variables, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1} or "prevented further checking" in done.stdout:
        raise SystemExit(f"mypy failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(result.read_text()) if result.exists() and plugin == "clocked.py" else [0.0, 0]


def main() -> int:
    """Measure, print, and tell if it is little enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        kinds: dict[str, str | None] = {"without": None, "with": "asyncio_loop_local_mypy"}
        least = dict.fromkeys(kinds, float("inf"))
        for _ in range(options.runs):
            for kind, plugin in kinds.items():
                least[kind] = min(least[kind], run(options.packages, directory, plugin)[0])
        total, (inside, calls) = run(options.packages, directory, "clocked.py")
    share = inside / total
    print(f"mypy of {', '.join(options.packages)}; cold, processor time, least of {options.runs} runs")
    print(f"without the plugin   {least['without']:7.2f} s")
    print(f"with the plugin      {least['with']:7.2f} s  ({least['with'] / least['without'] - 1:+.1%})")
    print(f"inside the plugin    {inside:7.2f} s  of {total:.2f} s in {calls:,.0f} calls, clock included ({share:.2%})")
    return int(share >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
