"""mypy says the same with the plugin cold, warm, after any change, under its daemon, and with parallel workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from mypy_runs import environment, mypy_version, plugin_sources, run, write

pytestmark = [
    pytest.mark.skipif(mypy_version() < (1, 15), reason="no mypy of 1.15 or later is installed"),
    pytest.mark.timeout(300),
]

FACTORIES = """\
from __future__ import annotations

import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
Array = array.array[int]


class Connector:
    pass


class Session:
    def __init__(self, url: str, *, connector: object = None, data: object = None) -> None:
        self.url = url

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass


class Box(Generic[T]):
    def __init__(self, item: T, size: int = 1, *, data: object = None) -> None:
        self.item = item

    async def __aenter__(self) -> T:
        return self.item

    async def __aexit__(self, *args: object) -> None:
        pass


@asynccontextmanager
async def connection(url: str, data: object = None) -> AsyncIterator[int]:
    yield 1


@overload
def convert(x: int) -> int: ...
@overload
def convert(x: str, data: object = None) -> str: ...
def convert(x: Any, data: object = None) -> Any: ...
"""

WRAPPING = """\
import functools
from collections.abc import Iterator
from typing import Any, overload

from asyncio_loop_local import singleton, sticky_singleton_acm

import factories

make = sticky_singleton_acm(factories.Session)
keyed = sticky_singleton_acm(factories.Session, key=lambda url, **rest: url)
make_box = sticky_singleton_acm(factories.Box)
make_partial = sticky_singleton_acm(functools.partial(factories.Box, size=3))
connection = sticky_singleton_acm(factories.connection)
convert = singleton(factories.convert)
cached = singleton(key=lambda *args: None)
table = {"convert": singleton(factories.convert)}


@singleton
def value(x: int, data: object = None) -> int:
    return x


@cached
def keyed_value(x: int, data: object = None) -> int:
    return x


@overload
def chosen(x: int) -> int: ...
@overload
def chosen(x: str, data: object = None) -> str: ...
@singleton
def chosen(x: Any, data: object = None) -> Any: ...


class Pool:
    open_class = staticmethod(sticky_singleton_acm(factories.Session))

    def __init__(self) -> None:
        self.open = sticky_singleton_acm(factories.Session)

    @singleton
    def get(self, x: int, data: object = None) -> int:
        return x


@singleton
class Decorated:
    pass


@singleton
def numbers() -> Iterator[int]:
    yield 1


value(1)
"""

ALIASES = """\
from wrapping import Pool, make, value

alias = make
again = alias


class SubPool(Pool):
    value = staticmethod(value)
"""

CALLING = """\
import wrapping
from aliases import SubPool, again
from factories import Array, Connector
from wrapping import chosen, connection, convert, keyed, keyed_value, make, make_box, make_partial, table, value


async def main(pool: SubPool, numbers: Array) -> None:
    reveal_type(make)
    reveal_type(make_box)
    reveal_type(make_partial)
    reveal_type(convert)
    reveal_type(pool.get)
    make("u", data=numbers, connector=Connector(), nope=1)
    wrapping.make("u", data=numbers)
    again("u", data=numbers, nope=1)
    keyed("u", data=numbers, nope=1)
    make_box(1, data=numbers, nope=1)
    make_partial("a", data=numbers, nope=1)
    make_partial(data=numbers)
    connection("u", data=numbers, nope=1)
    convert("u", data=numbers)
    convert("u", nope=1)
    value(1, data=numbers, nope=1)
    keyed_value(1, data=numbers, nope=1)
    chosen("u", data=numbers)
    chosen("u", nope=1)
    table["convert"]("u", numbers)
    pool.get(1, data=numbers, nope=1)
    pool.open("u", data=numbers, nope=1)
    pool.open_class("u", data=numbers, nope=1)
    pool.value(1, data=numbers, nope=1)
    SubPool.open_class("u", data=numbers)
    local = make
    local("u", data=numbers, nope=1)
    value(max(value(1, data=numbers), 1))


make("u")
"""

Files = dict[str, str]
START: Files = {"factories.py": FACTORIES, "wrapping.py": WRAPPING, "aliases.py": ALIASES, "calling.py": CALLING}


def edited(file: str, old: str, new: str) -> Files:
    """The files at the start, but for one edit."""
    assert old in START[file]
    return START | {file: START[file].replace(old, new)}


STAGES: dict[str, Files] = {
    "cold": START,
    "unchanged": START,
    "importer changed": START
    | {"calling.py": CALLING + "\n\nasync def more(a: Array) -> None:\n    make('v', data=a, nope=1)\n"},
    "wrapping module changed": START | {"wrapping.py": "import asyncio\n" + WRAPPING},
    "factory changed": edited("factories.py", "url: str, *, connector", "url: str, retries: int = 3, *, connector"),
    "back": START,
    "alias changed": START | {"aliases.py": "import asyncio\n" + ALIASES},
    "key given": edited("wrapping.py", "(factories.Session)\nkeyed", "(factories.Session, key=lambda url, **rest: url)\nkeyed"),
    "wrapped otherwise": edited(
        "wrapping.py", "make = sticky_singleton_acm(factories.Session)", "make = singleton(factories.Box)"
    ),
    "back again": START,
}
# The daemon compares signatures, and this one differs in nothing that it looks at: a limit that the documentation tells.
NOT_SEEN_BY_THE_DAEMON = {"key given"}
TARGETS = ("factories.py", "wrapping.py", "aliases.py", "calling.py")


@cache
def flags() -> str:
    """The options of this mypy."""
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
def told_cold(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each stage, with nothing of it in any cache."""
    told: dict[str, list[str]] = {}
    for number, (stage, files) in enumerate(STAGES.items()):
        directory = tmp_path_factory.mktemp(f"cold{number}")
        write(directory, files)
        told[stage] = run(directory, "mypy", "--cache-dir=cache", *TARGETS)
    return told


def test_the_stages_tell_findings_apart(told_cold: dict[str, list[str]]) -> None:
    """What is compared holds every code, and differs from stage to stage where it should."""
    text = "\n".join(told_cold["cold"])
    for code in ("key", "fresh-key", "no-loop", "decorator", "single-use"):
        assert f"[loop-local-{code}]" in text
    assert sum("[loop-local-key]" in line for line in told_cold["cold"]) == 18
    assert not any("note: " in line and "defined " in line for line in told_cold["cold"])
    assert told_cold["back"] == told_cold["cold"]
    for stage in ("importer changed", "factory changed", "key given", "wrapped otherwise"):
        assert told_cold[stage] != told_cold["cold"], stage


@pytest.mark.parametrize("kind", CACHES)
def test_warm_runs_say_what_a_cold_one_says(kind: str, tmp_path: Path, told_cold: dict[str, list[str]]) -> None:
    """After each change, with what the cache of either format holds of the rest, mypy says what it says with no cache."""
    options = cache_options(kind)
    for stage, files in STAGES.items():
        write(tmp_path, files)
        assert run(tmp_path, "mypy", "--cache-dir=cache", *options, *TARGETS) == told_cold[stage], stage


def test_only_the_importer_is_checked_anew(tmp_path: Path, told_cold: dict[str, list[str]]) -> None:
    """With the wrapped factories known from the cache alone, the importer's own findings are as in a cold run."""
    write(tmp_path, START)
    run(tmp_path, "mypy", "--cache-dir=cache", "wrapping.py", "aliases.py")
    told = run(tmp_path, "mypy", "--cache-dir=cache", "calling.py")
    assert [line for line in told if line.startswith("calling")] == [
        line for line in told_cold["cold"] if line.startswith("calling")
    ]


def test_the_daemon_says_what_a_cold_run_says(tmp_path: Path, told_cold: dict[str, list[str]]) -> None:
    """dmypy says after each change what a cold run says, where it can see the change."""
    daemon = ("mypy.dmypy", "--status-file", str(tmp_path / "status.json"))
    write(tmp_path, START)
    try:
        run(tmp_path, *daemon, "start", "--", "--cache-dir=cache")
        for stage, files in STAGES.items():
            if stage not in NOT_SEEN_BY_THE_DAEMON:
                write(tmp_path, files)
                assert run(tmp_path, *daemon, "check", *TARGETS) == told_cold[stage], stage
    finally:
        subprocess.run([sys.executable, "-m", *daemon, "stop"], cwd=tmp_path, env=environment(), capture_output=True, check=False)


def test_parallel_workers_say_what_one_says(tmp_path: Path, told_cold: dict[str, list[str]]) -> None:
    """With two workers, cold and after each change, mypy says what it says alone."""
    if "--num-workers" not in flags():
        pytest.skip("this mypy has no parallel workers")
    for stage, files in STAGES.items():
        write(tmp_path, files)
        assert run(tmp_path, "mypy", "-n", "2", "--cache-dir=cache", *TARGETS) == told_cold[stage], stage


def test_a_changed_plugin_leaves_nothing_stale(tmp_path: Path) -> None:
    """When a module of the plugin itself has changed, what it said before is said anew."""
    copy = tmp_path / "plugin"
    shutil.copytree(plugin_sources(), copy / "asyncio_loop_local_mypy")
    project = tmp_path / "project"
    write(project, START)
    variables = environment() | {"PYTHONPATH": str(copy)}

    def told() -> str:
        command = [sys.executable, "-m", "mypy", "--cache-dir=cache", *TARGETS]
        return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False).stdout

    assert "when no event loop is running" in told()
    module = copy / "asyncio_loop_local_mypy" / "_no_loop.py"
    module.write_text(module.read_text().replace("when no event loop is running", "when no loop is there"))
    assert "when no loop is there" in told()
