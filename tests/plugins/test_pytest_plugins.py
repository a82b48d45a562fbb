"""pytest-asyncio and anyio's plugin for pytest: one of each resource per loop, at whatever scope they keep a loop."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from server_process import NOTE, notes_of

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop there")

POOL = """
    import asyncio
    from contextlib import asynccontextmanager
    import pytest
    from asyncio_loop_local import sticky_singleton_acm

    @sticky_singleton_acm
    @asynccontextmanager
    async def make_pool():
        note("opened")
        yield object()
        note(await asyncio.to_thread(lambda: "closed"))

    @pytest.fixture
    def name(request):
        return request.node.nodeid
"""

TESTS = """
    import asyncio
    import pytest
    from conftest import make_pool, note

    pytestmark = MARK

    class Tests:
        @pytest.mark.parametrize("number", range(5))
        async def test_one(self, number, name):
            async with make_pool() as first:
                pass
            async with make_pool() as second:
                assert second is first
            note(name)

        async def test_two(self, name):
            async def use():
                async with make_pool() as pool:
                    return pool

            assert len(set(await asyncio.gather(*(use() for _ in range(100))))) == 1
            note(name)

    class TestsOfAnother(Tests):
        pass
"""

FILES = ("one/test_a.py", "one/test_b.py", "two/test_c.py")
CLASSES = ("Tests", "TestsOfAnother")
FUNCTIONS = (*(f"test_one[{number}]" for number in range(5)), "test_two")
ALL_TESTS = tuple("::".join(parts) for parts in itertools.product(FILES, CLASSES, FUNCTIONS))

# What tests of one scope have in common.
SCOPES: dict[str, Callable[[str], str]] = {
    "function": lambda test: test,
    "class": lambda test: test.rsplit("::", 1)[0],
    "module": lambda test: test.split("::", 1)[0],
    "package": lambda test: test.split("/", 1)[0],
    "session": lambda _: "",
}


OPTIONS = {"pytest_asyncio.plugin": "asyncio_default_fixture_loop_scope = function", "anyio.pytest_plugin": ""}


def notes_expected(scope: str) -> list[str]:
    """What is noted where each loop lives as long as its scope: it opens at the first test, and closes after the last."""
    groups = itertools.groupby(ALL_TESTS, SCOPES[scope])
    return [note for _, tests in groups for note in ("opened", *tests, "closed")]


def notes_of_pytest(directory: Path, plugin: str, tests: str, *, conftest: str = "", files: tuple[str, ...] = FILES) -> list[str]:
    """Runs pytest, in a process of its own and with one plugin, on files that are all the same, as are the packages' conftests.

    :returns: what they have noted.
    """
    (directory / "conftest.py").write_text(NOTE + textwrap.dedent(POOL))
    (directory / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{OPTIONS[plugin]}\n")
    for each in files:
        path = directory / each
        if path.parent != directory:
            path.parent.mkdir(exist_ok=True)
            (path.parent / "__init__.py").touch()
            (path.parent / "conftest.py").write_text(textwrap.dedent(conftest))
        path.write_text(textwrap.dedent(tests))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", plugin],
        cwd=directory,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (notes,) = notes_of(directory).values()
    return notes


@pytest.mark.parametrize("scope", list(SCOPES))
def test_pytest_asyncio(scope: str, tmp_path: Path) -> None:
    """At each loop scope of pytest-asyncio, tests share what was opened at the first of them, which is closed after the last."""
    tests = TESTS.replace("MARK", f"pytest.mark.asyncio(loop_scope='{scope}')")
    notes = notes_of_pytest(tmp_path, "pytest_asyncio.plugin", tests)
    if scope == "package" and notes != notes_expected(scope):
        scope = "session"  # to pytest 9, the package of what a plugin defines is the whole session
    assert notes == notes_expected(scope)


def test_pytest_asyncio_fixtures_on_another_loop(tmp_path: Path) -> None:
    """A fixture with a wider loop scope has its own resource, which is still open when the fixture is torn down."""
    tests = """
        import pytest, pytest_asyncio
        from conftest import make_pool, note

        @pytest_asyncio.fixture(loop_scope="module", scope="module")
        async def of_module():
            async with make_pool() as pool:
                yield pool
            async with make_pool() as again:
                assert again is pool
            note("fixture ends")

        @pytest.mark.asyncio
        @pytest.mark.parametrize("number", range(3))
        async def test_one(number, of_module):
            async with make_pool() as pool:
                assert pool is not of_module
            note("test")
    """
    notes = notes_of_pytest(tmp_path, "pytest_asyncio.plugin", tests, files=("test_a.py",))
    assert notes == ["opened", *["opened", "test", "closed"] * 3, "fixture ends", "closed"]


KEEP_A_LOOP = """
    import pytest
    from conftest import make_pool

    @pytest.fixture(scope="session")
    def anyio_backend():
        return "asyncio", {"use_uvloop": UVLOOP}

    @pytest.fixture(scope="SCOPE", autouse=True)
    async def keeps_the_loop(anyio_backend):
        yield
        async with make_pool():
            pass  # still there
"""


@pytest.mark.parametrize(
    ("scope", "uvloop"), [*((scope, "False") for scope in SCOPES), pytest.param("module", "True", marks=not_on_windows)]
)
def test_anyio(scope: str, uvloop: str, tmp_path: Path) -> None:
    """anyio's plugin keeps a loop for as long as an async fixture needs it, and all its tests share what was opened on it."""
    tests = TESTS.replace("MARK", "pytest.mark.anyio")
    conftest = KEEP_A_LOOP.replace("SCOPE", scope).replace("UVLOOP", uvloop)
    assert notes_of_pytest(tmp_path, "anyio.pytest_plugin", tests, conftest=conftest) == notes_expected(scope)


def test_anyio_without_fixtures(tmp_path: Path) -> None:
    """Where no async fixture keeps a loop, each test of anyio's plugin has one, which closes what it has opened."""
    tests = TESTS.replace("MARK", "pytest.mark.anyio")
    conftest = KEEP_A_LOOP.replace("autouse=True", "autouse=False").replace("SCOPE", "session").replace("UVLOOP", "False")
    assert notes_of_pytest(tmp_path, "anyio.pytest_plugin", tests, conftest=conftest) == notes_expected("function")
