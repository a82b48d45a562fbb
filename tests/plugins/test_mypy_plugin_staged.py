"""mypy says the same with the plugin cold, warm, after any change, under its daemon, and with parallel workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from mypy_cases import FILES, MODULES
from mypy_runs import environment, mypy_version, plugin_sources, run, write

pytestmark = [
    pytest.mark.skipif(mypy_version() < (1, 15), reason="no mypy of 1.15 or later is installed"),
    pytest.mark.timeout(300),
]

START = dict(FILES)


def edited(file: str, old: str, new: str) -> dict[str, str]:
    """The files of all cases, with one edit."""
    assert old in START[file]
    return START | {file: START[file].replace(old, new)}


MAKE = "make = sticky_singleton_acm(factories.Session)"
STAGES = {
    "cold": START,
    "unchanged": START,
    "importer changed": edited("use_named.py", "    local = make", "    make('v', retries=1, data=holder)\n    local = make"),
    "wrapping module changed": edited("wrapping.py", "    return 1", "    return 2"),
    "module between them changed": edited("case_reached.py", "table = {", "import array\ntable = {"),
    "factory changed": edited("factories.py", "url: str, *, connector", "url: str, retries: int = 3, *, connector"),
    "back": START,
    "key given": edited("wrapping.py", MAKE, MAKE.replace(")", ", key=lambda url, **rest: url)")),
    "wrapped otherwise": edited("wrapping.py", MAKE, "make = singleton(factories.convert)"),
    "back again": START,
}
# The daemon compares signatures without the plugin's mark, which is all that differs here: a limit in the documentation.
NOT_SEEN_BY_THE_DAEMON = {"key given"}
# It forgets the first, which are mypy's own, in modules that it does not check again. The second is about the code of a function
# that is called there: the daemon checks a caller anew only if the function's signature has changed, another limit in the
# documentation.
FORGOTTEN_BY_THE_DAEMON = ("[unused-ignore]", "[loop-local-escape]")
TARGETS = tuple(MODULES)


@cache
def flags() -> str:
    """The options of the installed mypy."""
    return subprocess.run([sys.executable, "-m", "mypy", "--help"], capture_output=True, text=True, check=True).stdout


CACHES: dict[str, tuple[str, ...]] = {
    "as this mypy has it": (),
    "one file a module": ("--no-sqlite-cache",),
    "sqlite": ("--sqlite-cache",),
    "fixed format": ("--fixed-format-cache",),
    "JSON": ("--no-fixed-format-cache",),
}


def cache_options(kind: str) -> tuple[str, ...]:
    options = CACHES[kind]
    if not all(re.search(rf"(^|\s|: ){option}\b", flags()) for option in options):
        pytest.skip(f"this mypy has no {options[0]}")
    return options


@pytest.fixture(scope="session")
def cold(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """mypy's output at each stage, with an empty cache."""
    output: dict[str, list[str]] = {}
    for number, (stage, files) in enumerate(STAGES.items()):
        same = next((done for done in output if STAGES[done] == files), None)
        write(directory := tmp_path_factory.mktemp(f"cold{number}"), files)
        output[stage] = output[same] if same else run(directory, "mypy", "--cache-dir=cache", *TARGETS)
    return output


def check_stages(directory: Path, cold: dict[str, list[str]], *command: str, is_daemon: bool = False) -> None:
    """At each stage, the command in this directory says what mypy says with an empty cache."""
    for stage, files in STAGES.items():
        if is_daemon and stage in NOT_SEEN_BY_THE_DAEMON:
            continue
        write(directory, files)
        output, expected = run(directory, *command, *TARGETS), cold[stage]
        if is_daemon:
            output, expected = (
                [line for line in each if not line.endswith(FORGOTTEN_BY_THE_DAEMON)] for each in (output, expected)
            )
        assert output == expected, stage


def test_the_stages_differ(cold: dict[str, list[str]]) -> None:
    """The compared output has every code and every revealed type, and differs from stage to stage where it should."""
    text = "\n".join(cold["cold"])
    for code in ("key", "fresh-key", "no-loop", "decorator", "single-use", "key-function", "escape", "closed"):
        assert f"[loop-local-{code}]" in text
    assert text.count("note: Revealed type is") == 15
    assert not any("note: " in line and "defined " in line for line in cold["cold"])
    for stage in ("importer changed", "factory changed", "key given", "wrapped otherwise"):
        assert cold[stage] != cold["cold"], stage


@pytest.mark.parametrize("kind", CACHES)
def test_warm_runs_say_what_a_cold_one_says(kind: str, tmp_path: Path, cold: dict[str, list[str]]) -> None:
    """After each change, with the rest from a cache of each format, mypy says what it says without a cache."""
    check_stages(tmp_path, cold, "mypy", "--cache-dir=cache", *cache_options(kind))


def test_only_the_importer_is_checked_anew(tmp_path: Path, cold: dict[str, list[str]]) -> None:
    """If the wrapped factories are known from the cache alone, the findings in the importer are those of a cold run."""
    importers = [file for file in TARGETS if file.startswith("use_")]
    write(tmp_path, START)
    run(tmp_path, "mypy", "--cache-dir=cache", *(file for file in TARGETS if file not in importers))
    output = run(tmp_path, "mypy", "--cache-dir=cache", *importers)
    assert [line for line in output if line.startswith("use_")] == [line for line in cold["cold"] if line.startswith("use_")]


def test_the_daemon_says_what_a_cold_run_says(tmp_path: Path, cold: dict[str, list[str]]) -> None:
    """After each change that dmypy can see, it says what a cold run says."""
    daemon = ("mypy.dmypy", "--status-file", str(tmp_path / "status.json"))
    write(tmp_path, START)
    try:
        run(tmp_path, *daemon, "start", "--", "--cache-dir=cache")
        check_stages(tmp_path, cold, *daemon, "check", is_daemon=True)
    finally:
        subprocess.run([sys.executable, "-m", *daemon, "stop"], cwd=tmp_path, env=environment(), capture_output=True, check=False)


def test_parallel_workers_say_what_one_says(tmp_path: Path, cold: dict[str, list[str]]) -> None:
    """With two workers, cold and after each change, mypy says what it says alone."""
    if "--num-workers" not in flags():
        pytest.skip("this mypy has no parallel workers")
    check_stages(tmp_path, cold, "mypy", "-n", "2", "--cache-dir=cache")


def test_a_changed_plugin_leaves_nothing_stale(tmp_path: Path) -> None:
    """When a module of the plugin itself has changed, mypy discards what the plugin said before."""
    copy = tmp_path / "plugin"
    shutil.copytree(plugin_sources(), copy / "asyncio_loop_local_mypy")
    project = tmp_path / "project"
    write(project, START)
    variables = environment() | {"PYTHONPATH": str(copy)}

    def output() -> str:
        command = [sys.executable, "-m", "mypy", "--cache-dir=cache", "case_no_loop.py"]
        return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False).stdout

    assert "when no event loop is running" in output()
    module = copy / "asyncio_loop_local_mypy" / "_no_loop.py"
    module.write_text(module.read_text().replace("when no event loop is running", "without any loop"))
    assert "without any loop" in output()
