"""The library's own pytest plugin finds the tests that leave a resource open, and no others; its fixture replaces factories."""

from __future__ import annotations

import asyncio
import os
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from asyncio_loop_local import singleton, sticky_singleton_acm
from asyncio_loop_local_pytest import LoopLocalOverride
from programs import run_python
from recording import Recorded

NO_CACHE = ("-p", "no:cacheprovider")
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

    @pytest.fixture
    def open_loop():
        loop = leave()
        yield loop
        loop.close()

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"

"""


with asyncio.Runner() as runner:
    LOOP_CLASS = type(runner.get_loop()).__qualname__


class Outcome(NamedTuple):
    status: int
    passed: set[str]
    errors: set[str]  # in setting up, or tearing down
    failed: set[str]
    reported: list[str]  # who has left what open, on a loop of which class; sorted
    output: str  # without the summary, which repeats errors: in whole in CI, shortened elsewhere


def run_pytest(directory: Path, tests: str, *options: str, ini: str = "") -> Outcome:
    """Run pytest in a process of its own, with the library's plugin and those that keep loops."""
    (directory / "pytest.ini").write_text(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}\n")
    (directory / "test_it.py").write_text(textwrap.dedent(BEGINNING) + textwrap.dedent(tests))
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = run_python("-m", "pytest", "-q", "-rA", "--tb=short", *NO_CACHE, *PLUGINS, *options, cwd=directory, env=env)
    assert result.stderr == ""
    passed, errors, failed = (
        {*re.findall(rf"^{word} test_it\.py::(\S+)", result.stdout, re.MULTILINE)} for word in ("PASSED", "ERROR", "FAILED")
    )
    output = result.stdout.partition(" short test summary info ")[0]
    reports = re.findall(
        r"^(?:test_it\.py::)?(\S.*) left (.+) open on an event loop that nobody has closed, of class (\w+)$", output, re.MULTILINE
    )
    return Outcome(result.returncode, passed, errors, failed, sorted(" | ".join(each) for each in reports), output)


def names(tests: str) -> set[str]:
    return {*re.findall(r"def (test_\w+)", tests)}


QUIET = ("-W", "ignore::ResourceWarning")  # of the loops that the tests leave open
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

LEFT_REPORTS = {f"{name} | connect('h') | {LOOP_CLASS}" for name in names(LEFT) - {"test_callback", "test_loop_of_uvloop"}} | {
    "test_loop_of_uvloop | connect('h') | Loop",
    f"test_callback | atexit callback print('never') | {LOOP_CLASS}",
}

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

    def test_own_fixture(open_loop):
        open_loop.run_until_complete(use())

    def test_without_a_loop():
        pass
"""


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


HOLDS_NOTHING = """
    async def only_storage():
        storage()["a"] = 1

    async def use_and_end():
        await use()
        await aclose()

    @pytest.mark.parametrize("main", [only_storage, use_and_end])
    def test_it(main):
        asyncio.new_event_loop().run_until_complete(main())
"""

MADE_BEFORE = """
    LOOP = asyncio.new_event_loop()

    def test_one():
        LOOP.run_until_complete(use())

    def test_two():
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(use(), loop).result()

    def test_three():
        LOOP.close()
"""


@pytest.mark.parametrize(
    ("tests", "passed", "options"),
    [
        pytest.param(IN_ORDER, 9, ("-W", "error"), id="their loops are closed, whoever runs them"),
        pytest.param(WIDER, 18, ("-W", "error"), id="the loop of a fixture of wider scope is open until that is torn down"),
        pytest.param(HOLDS_NOTHING, 2, (), id="the open loop holds nothing"),
        pytest.param(MADE_BEFORE, 3, (), id="the loop was made on import, or runs in a thread"),
    ],
)
@pytest.mark.parametrize("mode", ["fail", "list"])
def test_tests_that_leave_nothing_open_pass(tests: str, passed: int, options: tuple[str, ...], mode: str, tmp_path: Path) -> None:
    """Where a loop is closed, empty, or not the test's own, nothing is reported, and no empty list is printed."""
    outcome = run_pytest(tmp_path, tests, f"--loop-local={mode}", *options)
    assert (outcome.status, len(outcome.passed), outcome.errors, outcome.failed) == (0, passed, set(), set())
    assert "left open" not in outcome.output


@pytest.mark.parametrize(
    ("mode", "errors", "title"),
    [("fail", names(LEFT), False), ("list", set[str](), True), (None, set[str](), False)],
)
def test_a_test_that_leaves_a_resource_open_is_reported(mode: str | None, errors: set[str], title: bool, tmp_path: Path) -> None:
    """`fail` reports an error that names test, resource and fix, `list` prints a list, and the default does nothing."""
    outcome = run_pytest(tmp_path, LEFT, *([f"--loop-local={mode}"] if mode else []), *QUIET)
    assert (outcome.status, outcome.passed, outcome.errors) == (bool(errors), names(LEFT), errors)
    assert outcome.reported == (sorted(LEFT_REPORTS) if mode else [])
    assert ("= left open past its event loop =" in outcome.output) is title
    advice = "Close the loop, or run the code with asyncio.run(): both exit what the loop holds."
    assert outcome.output.count(advice) == (len(errors) or title)


def test_it_imports_nothing_of_the_library_unless_it_is_on(tmp_path: Path) -> None:
    """pytest loads the plugin itself, which is off by default and does not import the library."""
    (tmp_path / "test_import.py").write_text(
        "import sys\n\n\ndef test_import():\n    assert 'asyncio_loop_local_pytest' in sys.modules\n"
        "    assert 'asyncio_loop_local' not in sys.modules\n"
    )
    done = run_python("-m", "pytest", "-q", *NO_CACHE, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_leak_is_reported_once_and_of_the_test_that_left_it(tmp_path: Path) -> None:
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
    assert (outcome.passed, outcome.errors) == (names(tests), {"test_one", "test_two"})
    assert outcome.reported == [f"test_one | connect('h') | {LOOP_CLASS}", f"test_two | connect('other') | {LOOP_CLASS}"]


@pytest.mark.parametrize(
    ("ini", "options", "reports", "errors"),
    [
        ("loop_local = fail", (), True, {"test_one"}),
        ("loop_local = list", (), True, set[str]()),
        ("loop_local = off", (), False, set[str]()),
        ("loop_local = fail", ("--loop-local=off",), False, set[str]()),
        ("loop_local = off", ("--loop-local=fail",), True, {"test_one"}),
    ],
)
def test_it_can_be_configured(ini: str, options: tuple[str, ...], reports: bool, errors: set[str], tmp_path: Path) -> None:
    """loop_local in pytest's configuration does the same as the option, which overrides it."""
    outcome = run_pytest(tmp_path, "def test_one():\n    leave()\n", *QUIET, *options, ini=ini)
    assert (outcome.errors, bool(outcome.reported)) == (errors, reports)


def test_a_wrong_mode_is_refused(tmp_path: Path) -> None:
    """A mode that does not exist is a usage error, with the list of modes."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nloop_local = yes\n")
    done = run_python("-m", "pytest", cwd=tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "loop_local = yes: write fail, list or off" in done.stderr


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
    """What a fixture of wider scope leaves open is reported when it is torn down, under the fixture's name."""
    outcome = run_pytest(tmp_path, FIXTURES_THAT_LEAVE, "--loop-local=fail", *QUIET)
    assert outcome.failed == set()
    assert [line.removesuffix(f" | {LOOP_CLASS}") for line in outcome.reported] == [
        "TestIt::test_three[one] | connect('own')",
        "TestIt::test_three[two] | connect('own')",
        *["fixture 'dropped', of scope 'class', | connect('dropped')"] * 2,
        "fixture 'kept', of scope 'module', | connect('one')",
        "fixture 'kept', of scope 'module', | connect('two')",
    ]


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
    outcome = run_pytest(tmp_path, tests, "--loop-local=fail", *QUIET)
    assert outcome.errors == {"test_one"}
    assert "ZeroDivisionError: first" in outcome.output
    assert "test_it.py::test_one left connect('h') open on" in outcome.output


# The fixture.

OVERRIDE = """
    pytestmark = pytest.mark.filterwarnings("error")
    log = []

    @contextlib.asynccontextmanager
    async def fake(host):
        log.append("entered")
        yield f"fake {host}"
        log.append("exited")

    @contextlib.asynccontextmanager
    async def other(host):
        yield f"other {host}"

    @pytest.fixture(autouse=True)
    def undone_by_the_test_before():
        assert asyncio.run(use()) == "h"

    def test_sync(loop_local_override):
        loop_local_override(connect, fake)
        assert asyncio.run(use()) == "fake h"
        assert log == ["entered", "exited"]

    def test_loop_that_is_closed_by_a_fixture(open_loop, loop_local_override):
        assert open_loop.run_until_complete(use()) == "h"
        loop_local_override(connect, fake)
        assert open_loop.run_until_complete(use()) == "fake h"

    @pytest.mark.asyncio
    async def test_pytest_asyncio(loop_local_override):
        assert await use() == "h"
        loop_local_override(connect, fake)
        assert await use() == "fake h"

    @pytest_asyncio.fixture
    async def faked(loop_local_override):
        loop_local_override(connect, fake)
        return await use()

    @pytest.mark.asyncio
    async def test_fixture_of_pytest_asyncio(faked):
        assert faked == await use() == "fake h"

    @pytest.mark.anyio
    async def test_anyio(loop_local_override):
        assert await use() == "h"
        loop_local_override(connect, fake)
        assert await use() == "fake h"

    @pytest.fixture
    async def faked_by_anyio(anyio_backend, loop_local_override):
        loop_local_override(connect, fake)
        yield await use()
        assert await use() == "fake h"

    @pytest.mark.anyio
    async def test_fixture_of_anyio(faked_by_anyio):
        assert faked_by_anyio == await use() == "fake h"

    @pytest.mark.asyncio(loop_scope="module")
    async def test_a_loop_that_goes_on(loop_local_override):
        assert await use() == "h"
        loop_local_override(connect, fake)
        assert await use() == "fake h"

    @pytest.mark.asyncio(loop_scope="module")
    async def test_the_same_loop_afterwards():
        assert await use() == "h"
        await asyncio.sleep(0)
        assert log[-1] == "exited"

    def test_twice(loop_local_override):
        loop_local_override(connect, fake)
        loop_local_override(connect, other)
        assert asyncio.run(use()) == "other h"

    def test_parametrized_by_what_is_wrong(loop_local_override):
        loop_local_override(connect, other)
        with pytest.raises(TypeError, match="override"):
            loop_local_override(print, print)
        assert asyncio.run(use()) == "other h"

    @pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
    def test_that_fails(loop_local_override):
        loop_local_override(connect, fake)
        1 / 0

    def test_last():
        assert log.count("entered") == log.count("exited") == 7
"""


@pytest.mark.parametrize("options", [(), ("--loop-local=fail",)])
def test_the_fixture_replaces_a_factory_until_the_test_ends(options: tuple[str, ...], tmp_path: Path) -> None:
    """In sync and async tests and fixtures, of pytest-asyncio and anyio, on loops that go on too, and if the test fails."""
    outcome = run_pytest(tmp_path, OVERRIDE, *options)
    assert (outcome.status, outcome.errors, outcome.failed) == (0, set(), set()), outcome.output
    assert outcome.passed == names(OVERRIDE) - {"test_that_fails"}
    assert outcome.reported == []


def test_the_fixture_is_there_without_any_option(tmp_path: Path) -> None:
    """`pytest --fixtures` lists it, with what it does; whoever has the package has it."""
    done = run_python("-m", "pytest", "--fixtures", *NO_CACHE, cwd=tmp_path)
    assert re.search(r"^loop_local_override -- .*\n +Have calls of a wrapped factory make from", done.stdout, re.MULTILINE)


@singleton
def text_of(number: int) -> str:
    return str(number)


def number_of(number: int) -> int:
    return number


make_recorded = sticky_singleton_acm(Recorded)


def test_the_fixture_is_typed(loop_local_override: LoopLocalOverride) -> None:
    """Checkers see whether the replacement takes what the factory takes, and makes what it makes, as with `override`."""

    async def main() -> tuple[str, str]:
        return text_of(1), (await make_recorded(name="own")).name

    loop_local_override(text_of, lambda: "")  # type: ignore[arg-type, misc]  # it takes nothing
    loop_local_override(text_of, number_of)  # type: ignore[arg-type]  # it makes a number
    loop_local_override(text_of, lambda number: f"fake {number}")
    loop_local_override(make_recorded, lambda log=None, name="r", *, turns=1: Recorded(log, f"fake {name}"))
    assert asyncio.run(main()) == ("fake 1", "fake own")
