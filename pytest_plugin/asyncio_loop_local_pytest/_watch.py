"""What a test has left open when it, and the fixtures that are its own, have been torn down; and whose doing it was."""

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

_ATTRIBUTE = "_asyncio_loop_local_owner"  # of a loop that is not the test's own
_REPORTED = "loop_local"  # the name of a report's list
_ADVICE = "Close the loop, or run what needs one with asyncio.run(), and what it holds is exited."

_left = pytest.StashKey[list[str]]()


class _Owner:
    """Whose a loop is: that of a fixture which several tests share, if it is not the test's own."""

    def __init__(self, fixture: pytest.FixtureDef[Any] | None = None) -> None:
        self._fixture = fixture
        self.has_ended = False

    def end(self) -> None:
        """Its fixture has been torn down."""
        self.has_ended = True

    @property
    def name(self) -> str:
        return "" if self._fixture is None else f"fixture {self._fixture.argname!r}, of scope {self._fixture.scope!r},"

    def leads_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether its value is the loop, or has it, or has something that has it, as a runner that makes one at its first use."""
        if self._fixture is None or self._fixture.cached_result is None:
            return False
        first = [self._fixture.cached_result[0]]
        second = gc.get_referents(*first)
        return any(each is loop for each in (*first, *second, *gc.get_referents(*second)))


_NOBODY = _Owner()  # of loops that were there before the tests, or of which all is said


class Watch:
    """Looks after each test at the loops that are still open."""

    def __init__(self, *, fails: bool) -> None:
        """``fails``: the test; else it is listed."""
        self._fails = fails
        self._owners: list[_Owner] = []
        self._dropped: list[tuple[_Owner | None, str]] = []

    def pytest_configure(self) -> None:
        """Hear of loops that are dropped unclosed, which may happen within a test."""
        _process.when_dropped.append(self._note_dropped)

    def pytest_unconfigure(self) -> None:
        """Hear of them no longer."""
        _process.when_dropped.remove(self._note_dropped)

    def _note_dropped(self, loop: asyncio.AbstractEventLoop, held: str) -> None:
        self._dropped.append((_owner(loop), _told(loop, held)))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Loops that were made before are no test's."""
        for loop in _loops():
            _own(loop, _NOBODY)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Loops that are made by a fixture which several tests share are its own."""
        if fixturedef.scope == "function":
            return (yield)
        owner = _Owner(fixturedef)
        self._owners.append(owner)
        fixturedef.addfinalizer(owner.end)  # the first to be added is the last to be called
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
        """Say what is left when all that belongs to the test has been torn down."""
        try:
            yield
        except Exception as error:
            if said := self._what_is_left(item.nodeid):
                error.add_note("\n".join(said))
            raise
        said = self._what_is_left(item.nodeid)
        if said and self._fails:
            with warnings.catch_warnings():  # what is said here need not be said again, in the midst of another test
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
            pytest.fail("\n".join([*said, _ADVICE]), pytrace=False)
        if said:
            item.stash[_left] = said

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the report carry the list, from another process too."""
        report = yield
        if _left in item.stash:
            vars(report)[_REPORTED] = item.stash[_left]
            del item.stash[_left]
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the list."""
        lists: list[list[str]] = [
            getattr(report, _REPORTED, []) for reports in terminalreporter.stats.values() for report in reports
        ]
        if any(lists):
            terminalreporter.section("left open past its event loop")
            for line in (line for each in lists for line in each):
                terminalreporter.line(line)
            terminalreporter.line(_ADVICE)

    def _what_is_left(self, test: str) -> list[str]:
        said = [f"{test if owner is None else owner.name} {told}" for owner, told in self._dropped if owner is not _NOBODY]
        self._dropped.clear()
        for loop, held in _holding():
            owner = _owner(loop) or next((each for each in self._owners if each.leads_to(loop)), None)
            if owner is None or owner.has_ended:
                said.append(f"{test if owner is None else owner.name} {_told(loop, held)}")
                setattr(loop, _ATTRIBUTE, _NOBODY)
            else:
                _own(loop, owner)
        self._owners = [owner for owner in self._owners if not owner.has_ended]
        return said


def _loops() -> list[asyncio.AbstractEventLoop]:
    # By type, and not with isinstance, which asks objects that stand for others what they are.
    return [each for each in gc.get_objects() if issubclass(type(each), asyncio.AbstractEventLoop)]


def _holding() -> Iterator[tuple[asyncio.AbstractEventLoop, str]]:
    """The loops that have come to an end, or to a halt, without being closed, and what they hold; not those of other threads."""
    for attached in _process._all_attached():
        state = cast("LoopState", attached)
        if not state.loop.is_closed() and not state.loop.is_running() and (held := state._held()):
            yield state.loop, held


def _owner(loop: asyncio.AbstractEventLoop) -> _Owner | None:
    return getattr(loop, _ATTRIBUTE, None)


def _own(loop: asyncio.AbstractEventLoop, owner: _Owner) -> None:
    if _owner(loop) is None:
        with suppress(AttributeError, TypeError):  # the library cannot set anything on it either
            setattr(loop, _ATTRIBUTE, owner)


def _told(loop: asyncio.AbstractEventLoop, held: str) -> str:
    return f"left {held} open on an event loop that nobody has closed, of class {type(loop).__qualname__}"
