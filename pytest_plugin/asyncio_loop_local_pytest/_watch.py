"""The checks after each test: which resources are still open, and which test or fixture left them open."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncio_loop_local import _process

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from asyncio_loop_local._loop_state import LoopState

_ATTRIBUTE = "_asyncio_loop_local_owner"  # set on a loop that no single test owns
_REPORTED = "loop_local"  # the attribute of a report with the list
_ADVICE = "Close the loop, or run the code with asyncio.run(): both exit what the loop holds."

_left_open = pytest.StashKey[list[str]]()


class _Owner:
    """The owner of a loop that is not a single test's: a fixture that several tests share."""

    def __init__(self, fixture: pytest.FixtureDef[Any] | None = None) -> None:
        self._fixture = fixture
        self.has_ended = False

    def end(self) -> None:
        """Note that the fixture has been torn down."""
        self.has_ended = True

    @property
    def name(self) -> str:
        return "" if self._fixture is None else f"fixture {self._fixture.argname!r}, of scope {self._fixture.scope!r},"

    def leads_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether the fixture's value is the loop, or refers to it in at most two steps, as an ``asyncio.Runner`` does."""
        if self._fixture is None or self._fixture.cached_result is None:
            return False
        first = [self._fixture.cached_result[0]]
        second = gc.get_referents(*first)
        return any(each is loop for each in (*first, *second, *gc.get_referents(*second)))


_NOBODY = _Owner()  # of loops made before the tests, and of loops already reported


class Watch:
    """Checks after each test which loops are still open."""

    def __init__(self, *, fails: bool) -> None:
        """``fails``: whether a test that leaves a resource open fails; else it is listed."""
        self._fails = fails
        self._owners: list[_Owner] = []
        self._dropped: list[tuple[_Owner | None, str]] = []

    def pytest_configure(self) -> None:
        """Register for loops that are garbage-collected unclosed, which can happen during a test."""
        _process.when_dropped.append(self._note_dropped)

    def pytest_unconfigure(self) -> None:
        """Undo the registration."""
        _process.when_dropped.remove(self._note_dropped)

    def _note_dropped(self, loop: asyncio.AbstractEventLoop, held: str) -> None:
        self._dropped.append((_owner(loop), _description(loop, held)))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Ignore the loops that were made before the first test."""
        for loop in _loops():
            _own(loop, _NOBODY)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Note the loops that a fixture of wider scope makes: they belong to it, not to a test."""
        if fixturedef.scope == "function":
            return (yield)
        owner = _Owner(fixturedef)
        self._owners.append(owner)
        fixturedef.addfinalizer(owner.end)  # added first, so it is called last
        before = _loops()
        try:
            return (yield)
        finally:
            for loop in _loops():
                if not any(each is loop for each in before):
                    _own(loop, owner)
            del before

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Report what is still open once the test's own fixtures are torn down."""
        try:
            yield
        except Exception as error:
            if lines := self._report(item.nodeid):
                error.add_note("\n".join(lines))
            raise
        lines = self._report(item.nodeid)
        if lines and self._fails:
            with warnings.catch_warnings():  # reported here, so it must not appear again during another test
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
            pytest.fail("\n".join([*lines, _ADVICE]), pytrace=False)
        if lines:
            item.stash[_left_open] = lines

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the list into the report, which pytest-xdist sends from its workers to the main process."""
        report = yield
        if _left_open in item.stash:
            vars(report)[_REPORTED] = item.stash[_left_open]
            del item.stash[_left_open]
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the list."""
        lists: list[list[str]] = [
            getattr(report, _REPORTED, []) for reports in terminalreporter.stats.values() for report in reports
        ]
        if any(lists):
            terminalreporter.section("left open past its event loop")
            for line in (line for each in lists for line in each):
                terminalreporter.line(line)
            terminalreporter.line(_ADVICE)

    def _report(self, test: str) -> list[str]:
        lines = [f"{test if owner is None else owner.name} {text}" for owner, text in self._dropped if owner is not _NOBODY]
        self._dropped.clear()
        for loop, held in _holding():
            owner = _owner(loop) or next((each for each in self._owners if each.leads_to(loop)), None)
            if owner is None or owner.has_ended:
                lines.append(f"{test if owner is None else owner.name} {_description(loop, held)}")
                setattr(loop, _ATTRIBUTE, _NOBODY)
            else:
                _own(loop, owner)
        self._owners = [owner for owner in self._owners if not owner.has_ended]
        return lines


def _loops() -> list[asyncio.AbstractEventLoop]:
    # By type: isinstance would run the code of proxy objects.
    return [each for each in gc.get_objects() if issubclass(type(each), asyncio.AbstractEventLoop)]


def _holding() -> Iterator[tuple[asyncio.AbstractEventLoop, str]]:
    """Yield each loop that is neither closed nor running, with a description of what it holds."""
    for attached in _process.all_attached():
        state = cast("LoopState", attached)
        if not state.loop.is_closed() and not state.loop.is_running() and (held := state._held()):
            yield state.loop, held


def _owner(loop: asyncio.AbstractEventLoop) -> _Owner | None:
    return getattr(loop, _ATTRIBUTE, None)


def _own(loop: asyncio.AbstractEventLoop, owner: _Owner) -> None:
    if _owner(loop) is None:
        with suppress(AttributeError, TypeError):  # a loop that takes no attributes: the library cannot use it either
            setattr(loop, _ATTRIBUTE, owner)


def _description(loop: asyncio.AbstractEventLoop, held: str) -> str:
    return f"left {held} open on an event loop that nobody has closed, of class {type(loop).__qualname__}"
