"""The library's own pytest plugin: tests that leave something open past its loop are found, others are left in peace."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

PLUGINS = ("-p", "asyncio_loop_local_pytest", "-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin")

BEGINNING = """
    import asyncio, contextlib, gc, threading
    import anyio, pytest, pytest_asyncio, uvloop
    from asyncio_loop_local import aclose, atexit, sticky_singleton_acm, storage

    @sticky_singleton_acm
    @contextlib.asynccontextmanager
    async def connect(host):
        yield host

    async def use(host="h"):
        async with connect(host) as connection:
            return connection

    def leave(host="h", new_event_loop=asyncio.new_event_loop):
        loop = new_event_loop()
        loop.run_until_complete(use(host))
        return loop

"""


with asyncio.Runner() as runner:
    LOOP_CLASS = type(runner.get_loop()).__qualname__


class Outcome(NamedTuple):
    status: int
    passed: set[str]
    errors: set[str]  # in setting up, or tearing down
    failed: set[str]
    output: str  # without the summary, which repeats errors in whole where a CI is, cut off elsewhere


def run_pytest(directory: Path, tests: str, *options: str, ini: str = "", conftest: str = "") -> Outcome:
    """Runs pytest, in a process of its own, with the library's plugin, and those that keep loops."""
    (directory / "conftest.py").write_text(textwrap.dedent(conftest))
    (directory / "pytest.ini").write_text(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}\n")
    (directory / "test_it.py").write_text(textwrap.dedent(BEGINNING) + textwrap.dedent(tests))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", *PLUGINS, *options],
        cwd=directory,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.stderr == ""
    found = {
        word: {*re.findall(rf"^{word} test_it\.py::(\S+)", result.stdout, re.MULTILINE)} for word in ("PASSED", "ERROR", "FAILED")
    }
    output = result.stdout.partition(" short test summary info ")[0]
    return Outcome(result.returncode, found["PASSED"], found["ERROR"], found["FAILED"], output)


LEFT = """
    def test_loop_in_a_variable():
        loop = leave()

    def test_loop_in_a_module_variable():
        global kept
        kept = leave()

    def test_loop_that_is_set():
        asyncio.set_event_loop(leave())

    def test_loop_of_uvloop():
        leave(new_event_loop=uvloop.new_event_loop)

    def test_collected_within_the_test():
        leave()
        gc.collect()

    def test_callback():
        async def main():
            atexit.register(print, "never")

        asyncio.new_event_loop().run_until_complete(main())

    def test_in_a_thread():
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()

    def test_runner():
        asyncio.Runner().run(use())

    @pytest.fixture
    def own():
        return leave()

    def test_own_fixture(own):
        pass
"""

IN_ORDER = """
    def test_run():
        assert asyncio.run(use()) == "h"

    def test_uvloop():
        uvloop.run(use())

    def test_anyio():
        anyio.run(use)

    def test_runner():
        with asyncio.Runner() as runner:
            runner.run(use())

    def test_closed():
        leave().close()

    @pytest.mark.asyncio
    async def test_of_pytest_asyncio():
        await use()

    @pytest.mark.anyio
    async def test_of_anyio(anyio_backend_name):
        await use()

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture
    def own():
        loop = leave()
        yield loop
        loop.close()

    def test_own_fixture(own):
        own.run_until_complete(use())

    def test_without_a_loop():
        pass
"""


def names(tests: str) -> set[str]:
    return {*re.findall(r"def (test_\w+)", tests)}


def test_a_test_that_leaves_a_resource_open_fails(tmp_path: Path) -> None:
    """With --loop-local=fail, a test whose loop nobody closed ends with an error that names the test and what is open."""
    outcome = run_pytest(tmp_path, LEFT, "--loop-local=fail", "-W", "ignore::ResourceWarning")
    assert outcome.errors == outcome.passed == names(LEFT)
    assert outcome.status == 1
    for name in names(LEFT) - {"test_callback", "test_loop_of_uvloop"}:
        assert re.search(
            rf"^test_it\.py::{name} left connect\('h'\) open on an event loop that nobody has closed, "
            rf"of class {LOOP_CLASS}$",
            outcome.output,
            re.MULTILINE,
        )
    assert "test_loop_of_uvloop left connect('h') open on an event loop that nobody has closed, of class Loop\n" in outcome.output
    assert "test_callback left atexit callback print('never') open on " in outcome.output
    assert outcome.output.count("Close the loop, or run the code with asyncio.run(): both exit what the loop holds.") == len(
        names(LEFT)
    )


def test_a_test_that_leaves_nothing_open_passes(tmp_path: Path) -> None:
    """With --loop-local=fail, tests whose loops are closed pass, whoever runs them, with warnings as errors too."""
    outcome = run_pytest(tmp_path, IN_ORDER, "--loop-local=fail", "-W", "error")
    assert outcome.passed == names(IN_ORDER)
    assert (outcome.status, outcome.errors, outcome.failed) == (0, set(), set())


def test_a_leak_is_told_once_and_of_the_test_that_left_it(tmp_path: Path) -> None:
    """What one test has left fails none of the tests after it, not even where warnings are errors."""
    tests = """
        kept = []

        def test_one():
            kept.append(leave())

        def test_two():
            leave("other")

        def test_three():
            gc.collect()

        def test_four():
            asyncio.run(use())
            kept[0].close()
    """
    outcome = run_pytest(tmp_path, tests, "--loop-local=fail", "-W", "error")
    assert outcome.passed == names(tests)
    assert outcome.errors == {"test_one", "test_two"}
    assert outcome.output.count(" left connect('h') open ") == outcome.output.count(" left connect('other') open ") == 1


def test_it_can_be_listed(tmp_path: Path) -> None:
    """With --loop-local=list, the tests pass, and what they have left stands at the end."""
    outcome = run_pytest(tmp_path, LEFT, "--loop-local=list", "-W", "ignore::ResourceWarning")
    assert outcome.passed == names(LEFT)
    assert (outcome.status, outcome.errors) == (0, set())
    assert "= left open past its event loop =" in outcome.output
    assert {*re.findall(r"^test_it\.py::(\w+) left .+ open on an event loop", outcome.output, re.MULTILINE)} == names(LEFT)


def test_a_loop_that_holds_nothing_may_stay_open(tmp_path: Path) -> None:
    """A loop that is not closed but holds no resource is none of the plugin's business."""
    tests = """
        def test_only_storage():
            async def main():
                storage()["a"] = 1

            asyncio.new_event_loop().run_until_complete(main())

        def test_ended():
            async def main():
                await use()
                await aclose()

            asyncio.new_event_loop().run_until_complete(main())
    """
    outcome = run_pytest(tmp_path, tests, "--loop-local=fail")
    assert (outcome.passed, outcome.errors) == (names(tests), set())


@pytest.mark.parametrize("mode", ["fail", "list"])
def test_nothing_is_listed_where_nothing_is_left(mode: str, tmp_path: Path) -> None:
    """The list is not there if it would be empty."""
    outcome = run_pytest(tmp_path, IN_ORDER, f"--loop-local={mode}")
    assert outcome.status == 0
    assert "left open" not in outcome.output


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    """Without the option, tests pass as if the plugin were not there, and it does not even import the library."""
    outcome = run_pytest(tmp_path, LEFT, "-W", "ignore::ResourceWarning")
    assert outcome.passed == names(LEFT)
    assert (outcome.status, outcome.errors) == (0, set())
    assert "left open" not in outcome.output
    (tmp_path / "test_it.py").unlink()
    (tmp_path / "test_import.py").write_text(
        "import sys\n\n\ndef test_import():\n    assert 'asyncio_loop_local_pytest' in sys.modules\n"
        "    assert 'asyncio_loop_local' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout


ONE = """
    def test_one():
        leave()
"""


@pytest.mark.parametrize(
    ("ini", "options", "errors"),
    [
        ("loop_local = fail", (), {"test_one"}),
        ("loop_local = list", (), set[str]()),
        ("loop_local = off", (), set[str]()),
        ("loop_local = fail", ("--loop-local=off",), set[str]()),
        ("loop_local = off", ("--loop-local=fail",), {"test_one"}),
    ],
)
def test_it_can_be_configured(ini: str, options: tuple[str, ...], errors: set[str], tmp_path: Path) -> None:
    """loop_local in pytest's configuration says the same as the option, which wins over it."""
    outcome = run_pytest(tmp_path, ONE, "-W", "ignore::ResourceWarning", *options, ini=ini)
    assert outcome.errors == errors
    assert ("nobody has closed" in outcome.output) == (bool(errors) or "list" in ini)


def test_a_wrong_mode_is_refused(tmp_path: Path) -> None:
    """A mode that does not exist is a usage error that says which there are."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nloop_local = yes\n")
    done = subprocess.run([sys.executable, "-m", "pytest"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "loop_local = yes: write fail, list or off" in done.stderr


WIDER = """
    @pytest.fixture(scope="module", params=["one", "two"])
    def loop(request):
        loop = leave(request.param)
        yield loop
        loop.close()

    @pytest.fixture(scope="session")
    def runner():
        with asyncio.Runner() as runner:
            yield runner

    @pytest.fixture(scope="module")
    def lazy_runner():
        runner = asyncio.Runner()
        yield runner
        runner.close()

    @pytest.fixture(scope="module")
    def first_used_in_a_test():
        loop = asyncio.new_event_loop()
        yield loop.run_until_complete
        loop.close()

    @pytest.fixture(scope="class")
    def thread():
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield lambda main: asyncio.run_coroutine_threadsafe(main, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def of_pytest_asyncio():
        return await use()

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="module")
    async def of_anyio(anyio_backend):
        yield await use()

    @pytest.mark.parametrize("number", range(2))
    class TestThem:
        def test_loop(self, number, loop):
            loop.run_until_complete(use(f"h{number}"))

        def test_runner(self, number, runner, lazy_runner):
            runner.run(use(f"h{number}"))
            lazy_runner.run(use(f"h{number}"))

        def test_first_used_in_a_test(self, number, first_used_in_a_test):
            first_used_in_a_test(use(f"h{number}"))

        def test_thread(self, number, thread):
            thread(use(f"h{number}"))

        @pytest.mark.asyncio(loop_scope="module")
        async def test_pytest_asyncio(self, number, of_pytest_asyncio):
            await use(f"h{number}")

        @pytest.mark.asyncio(loop_scope="module")
        async def test_pytest_asyncio_without_a_fixture(self, number):
            await use(f"h{number}")

    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(2))
    class TestAnyio:
        async def test_anyio(self, number, of_anyio):
            await use(f"h{number}")

    class TestUnittest(__import__("unittest").TestCase):
        @classmethod
        def setUpClass(cls):
            cls.loop = leave()

        @classmethod
        def tearDownClass(cls):
            cls.loop.close()

        def test_one(self):
            self.loop.run_until_complete(use("one"))

        def test_two(self):
            self.loop.run_until_complete(use("two"))
"""


def test_loops_that_tests_share_are_blamed_on_none(tmp_path: Path) -> None:
    """A loop of a fixture of wider scope may hold what it likes from test to test, until its fixture is torn down."""

    outcome = run_pytest(tmp_path, WIDER, "--loop-local=fail", "-W", "error")
    assert (outcome.status, outcome.errors, outcome.failed) == (0, set(), set())
    assert len(outcome.passed) == 18


FIXTURES_THAT_LEAVE = """
    @pytest.fixture(scope="module", params=["one", "two"])
    def kept(request):
        request.module.keep = leave(request.param)
        return request.module.keep

    @pytest.fixture(scope="class")
    def dropped():
        yield leave("dropped")

    def test_before(kept):
        pass

    class TestIt:
        def test_one(self, kept, dropped):
            pass

        def test_two(self, kept, dropped):
            leave("own").close()

        def test_three(self, kept, dropped):
            leave("own")
"""


def test_a_fixture_that_leaves_a_resource_open_is_named(tmp_path: Path) -> None:
    """What a fixture of wider scope leaves open is told when it is torn down, as the fixture's doing."""
    outcome = run_pytest(tmp_path, FIXTURES_THAT_LEAVE, "--loop-local=fail", "-W", "ignore::ResourceWarning")
    assert outcome.failed == set()
    told = re.findall(r"^(\S.*) left connect\('(\w+)'\) open on", outcome.output, re.MULTILINE)
    assert sorted(told) == [
        ("fixture 'dropped', of scope 'class',", "dropped"),
        ("fixture 'dropped', of scope 'class',", "dropped"),
        ("fixture 'kept', of scope 'module',", "one"),
        ("fixture 'kept', of scope 'module',", "two"),
        ("test_it.py::TestIt::test_three[one]", "own"),
        ("test_it.py::TestIt::test_three[two]", "own"),
    ]


def test_loops_that_were_there_before_are_blamed_on_no_test(tmp_path: Path) -> None:
    """A loop that was made when a module was imported is no test's, nor is one that still runs in a thread."""
    tests = """
        LOOP = asyncio.new_event_loop()
        IN_BACKGROUND = asyncio.new_event_loop()

        def test_one():
            LOOP.run_until_complete(use())

        def test_two():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, daemon=True).start()
            asyncio.run_coroutine_threadsafe(use(), loop).result()

        def test_three():
            LOOP.close()
    """
    outcome = run_pytest(tmp_path, tests, "--loop-local=fail")
    assert (outcome.passed, outcome.errors) == (names(tests), set())


def test_an_error_of_the_teardown_is_kept(tmp_path: Path) -> None:
    """Where a fixture fails at its end too, its error is reported, with a note of what the test has left."""
    tests = """
        @pytest.fixture
        def fails():
            yield
            raise ZeroDivisionError("first")

        def test_one(fails):
            leave()
    """
    outcome = run_pytest(tmp_path, tests, "--loop-local=fail", "-W", "ignore::ResourceWarning")
    assert outcome.errors == {"test_one"}
    assert "ZeroDivisionError: first" in outcome.output
    assert "test_it.py::test_one left connect('h') open on" in outcome.output
