"""Runs the test suites of other projects bare, on attached loops, and on loops with an open resource, and prints what differs.

`make foreign` runs all of them, `make foreign ARGS='anyio uvloop'` some. Each suite has a virtual environment of its own in
`.venv-foreign`, and its tests from the project's source distribution; `test_asyncio` is that of the Python that runs this. A test
that differs is run three times more, bare and not, and counts if it differs each time. `foreign_suites/differences.toml` has the
differences that are meant, with the reason of each: the script exits with 1 if there is another one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HELPERS = Path(__file__).parent / "foreign_suites"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
FOLDER = ROOT / ".venv-foreign" / MINOR
MODES = ("attached", "resource")
SECONDS_FOR_A_TEST = 120
REPEATS = 3

Outcomes = dict[str, str]  # of each test, by its id in pytest: passed, skipped, failed, or how it ended the process


@dataclass(frozen=True)
class Suite:
    """The tests of one project."""

    name: str
    needs: list[str] = field(default_factory=list[str])  # beside pytest
    options: list[str] = field(default_factory=list[str])  # of pytest
    package: str = ""  # the folder of the source distribution that the wheel has already

    @property
    def venv(self) -> Path:
        return FOLDER / self.name

    def python(self, *arguments: str) -> None:
        subprocess.run([self.venv / "bin" / "python", *arguments], check=True)

    def tests(self) -> Path:
        """The folder in which its tests are run."""
        if not self.package:
            return Path(sysconfig.get_path("stdlib"))
        return next(path for path in (self.venv / "sdist").iterdir() if path.is_dir())

    def set_up(self) -> None:
        """Make its virtual environment, with its tests in it, unless it is there."""
        if (self.venv / "ready").exists():
            return
        shutil.rmtree(self.venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", self.venv], check=True)
        pip = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
        needs = ["pytest", *self.needs]
        if self.package:
            sdist = self.venv / "sdist"
            self.python(*pip, "download", "--no-deps", "--no-binary", self.name, "--dest", str(sdist), self.name)
            (archive,) = sdist.iterdir()
            with tarfile.open(archive) as files:
                files.extractall(sdist, filter="data")
            shutil.rmtree(self.tests() / self.package)
            needs.append(archive.name.removesuffix(".tar.gz").replace("-", "=="))
        self.python(*pip, "install", *needs)
        library = Path(sysconfig.get_path("purelib", "venv", {"base": str(self.venv), "platbase": str(self.venv)}))
        (library / "foreign_loops.pth").write_text(f"{ROOT / 'src'}\n{HELPERS}\nimport foreign_loops\n", encoding="utf-8")
        (self.venv / "ready").touch()


SUITES = [
    Suite("test_asyncio", [], ["--rootdir=.", "-c", os.devnull, "test/test_asyncio"]),
    Suite("uvloop", ["aiohttp", "psutil", "pyopenssl"], ["tests", "--ignore=tests/test_sourcecode.py"], "uvloop"),
    Suite(
        "anyio",
        ["blockbuster", "hypothesis", "psutil", "pytest-mock", "pytest-timeout", "trustme", "truststore", "uvloop"],
        ["tests", "-m", "not network"],
        "src",
    ),
    Suite("asgiref", ["packaging", "pytest-asyncio"], ["tests"], "asgiref"),
    Suite(
        "aiohttp",
        [
            "aiodns",
            "blockbuster",
            "brotli",
            "coverage",
            "freezegun",
            "gunicorn",
            "isal",
            "pkgconfig",
            "proxy.py>=2.4.4rc5",
            "pytest-mock",
            "pytest-timeout",
            "python-on-whales",
            "trustme",
            "uvloop",
            "zlib_ng",
        ],
        # Not its own options, for coverage and several processes. What only its own CI runs, and its benchmarks, are left out.
        ["tests", "-o", "addopts=", "-m", "not dev_mode and not autobahn and not internal"]
        + [f"--ignore-glob=tests/{each}" for each in ("test_benchmarks_*", "autobahn/*", "isolated/*")],
        "aiohttp",
    ),
]


def run(suite: Suite, mode: str, only: list[str] | None = None) -> Outcomes:
    """Run tests of a suite, again in a new process where one of them ends the process or does not end."""
    outcomes: Outcomes = {}
    folder = suite.venv / "run"
    loops: Counter[str] = Counter()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "selection").write_text(json.dumps({"only": only, "without": [*outcomes]}), encoding="utf-8")
        (folder / "outcomes").touch()
        ended = run_process(suite, mode, folder)
        before = len(outcomes)
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in (folder / "outcomes").read_text(encoding="utf-8").splitlines()
        ]
        running = None
        finished = False
        for line in lines:
            if "finished" in line:
                finished = True
                loops.update(line["finished"])
            elif line["outcome"] == "started":
                running = line["test"]
            elif line["outcome"] == "ended":
                running = None
            elif outcomes.get(line["test"]) != "failed":
                outcomes[line["test"]] = line["outcome"]
        if finished:
            break
        if running is not None:
            outcomes[running] = ended
        elif len(outcomes) == before:
            sys.exit(f"{suite.name} does not run: see {folder / 'output'}")
    if only is None:
        print(f"{suite.name} {mode}: {figures(outcomes)}; loops: {dict(loops)}", flush=True)
    return outcomes


def run_process(suite: Suite, mode: str, folder: Path) -> str:
    """Run pytest until it ends, or until one test takes too long; return how it ended."""
    command: list[str | Path] = [
        suite.venv / "bin" / "python",
        "-m",
        "pytest",
        "-p",
        "foreign_outcomes",
        "-p",
        "no:cacheprovider",
    ]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [*command, *suite.options],
            cwd=suite.tests(),
            env=os.environ | {"FOREIGN_LOOPS": mode, "FOREIGN_FOLDER": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            size, since = 0, time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return f"ended the process with {process.wait(1)}"
                if (grown := (folder / "outcomes").stat().st_size) != size:
                    size, since = grown, time.monotonic()
                elif time.monotonic() - since > SECONDS_FOR_A_TEST:
                    return "did not end"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what the tests have started, too
            process.wait()


def figures(outcomes: Outcomes) -> str:
    counted = Counter(outcome if outcome in {"passed", "skipped"} else "failed" for outcome in outcomes.values())
    return (
        f"{counted.total():,} tests, {counted['passed']:,} passed, {counted['failed']:,} failed, {counted['skipped']:,} skipped"
    )


def differing(bare: Outcomes, other: Outcomes) -> list[str]:
    """The tests that pass in one of them and do not in the other."""
    return sorted(test for test in {**bare, **other} if (bare.get(test) == "passed") != (other.get(test) == "passed"))


@dataclass
class Reason:
    """An entry of the list of differences: tests of a suite, in some modes and on some Pythons, and why they differ."""

    suite: str
    tests: list[str]  # ids, in which * stands for anything
    reason: str
    modes: list[str] = field(default_factory=lambda: [*MODES])
    pythons: list[str] = field(default_factory=lambda: [MINOR])
    used: set[str] = field(default_factory=set[str])

    def explains(self, suite: str, mode: str, test: str) -> bool:
        if self.suite != suite or mode not in self.modes or MINOR not in self.pythons:
            return False
        matching = {each for each in self.tests if re.fullmatch(".*".join(map(re.escape, each.split("*"))), test)}
        self.used |= matching
        return bool(matching)


def read_reasons() -> list[Reason]:
    text = (HELPERS / "differences.toml").read_text(encoding="utf-8")
    return [Reason(**each) for each in tomllib.loads(text).get("difference", [])]


def compare(suite: Suite, reasons: list[Reason]) -> int:
    """Run a suite in each mode; return how many differences the list does not explain."""
    suite.set_up()
    bare = run(suite, "bare")
    unexplained = 0
    for mode in MODES:
        other = run(suite, mode)
        differ = differing(bare, other)
        repeats = [(run(suite, "bare", differ), run(suite, mode, differ)) for _ in range(REPEATS if differ else 0)]
        for test in differ:
            all_bare, all_other = ({pair[i].get(test, "not run") for pair in repeats} for i in range(2))
            both = f"bare {bare.get(test, 'not run')}, {mode} {other.get(test, 'not run')}"
            if not ({"passed"} in (all_bare, all_other) and not all_bare & all_other):
                print(f"  unstable: {test}: {both}; repeated: {', '.join(all_bare)}, {', '.join(all_other)}")
            elif found := next((each for each in reasons if each.explains(suite.name, mode, test)), None):
                print(f"  meant: {test}: {both}: {found.reason}")
            else:
                print(f"  DIFFERS: {test}: {both}")
                unexplained += 1
    return unexplained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(each.name for each in SUITES)}; all if none is given")
    names: list[str] = parser.parse_args().suites
    reasons = read_reasons()
    unexplained = 0
    for suite in SUITES:
        if names and suite.name not in names:
            continue
        if not suite.package and not (suite.tests() / "test" / "test_asyncio").exists():
            print(f"this Python has no test.{suite.name}: {sys.executable}")
            continue
        unexplained += compare(suite, reasons)
        for each in reasons:
            if each.suite == suite.name and MINOR in each.pythons and (unused := {*each.tests} - each.used):
                print(f"  in the list, but no longer different: {', '.join(sorted(unused))}")
    print(f"{unexplained} differences that differences.toml does not explain")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
