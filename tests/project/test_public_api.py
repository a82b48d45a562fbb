"""The public API is frozen: a change of it is a change of public_api.txt, and so is seen in review."""

from __future__ import annotations

import difflib
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

import asyncio_loop_local
from public_api import FROZEN, PACKAGES, public_api

COMMAND = "python tests/public_api.py"


def test_the_public_api_is_the_frozen_one() -> None:
    """Every public name has the signatures, members, values and bases that were agreed upon."""
    frozen, found = FROZEN.read_text(encoding="utf-8"), public_api()
    difference = "\n".join(difflib.unified_diff(frozen.splitlines(), found.splitlines(), "frozen", "found", lineterm=""))
    assert not difference, f"if this is meant, say so in CHANGELOG.md and run {COMMAND}\n{difference}"


def test_every_public_name_is_in_it() -> None:
    """What can be imported with * is what is frozen."""
    frozen = FROZEN.read_text(encoding="utf-8")
    for name in asyncio_loop_local.__all__:
        assert re.search(rf"^    (?:(?:@overload )?(?:async )?(?:def|class) )?{name}\b", frozen, re.MULTILINE), name


# One change of each kind: the file, the text before, and the text after.
CHANGES: dict[str, tuple[str, str, str]] = {
    "a default": ("_singleton.py", "/, *, key: Key | None) ->", "/, *, key: Key | None = None) ->"),
    "a parameter's name": ("_enter.py", "def enter(acm:", "def enter(manager:"),
    "a parameter's kind": ("_enter.py", "enter(acm: ACM[T])", "enter(acm: ACM[T], /)"),
    "a parameter's type": ("_release.py", "factory: Callable[P, object]", "factory: Callable[P, int]"),
    "a parameter more": ("_storage.py", "def storage()", "def storage(name: str)"),
    "a result": ("_release.py", ") -> bool:", ") -> None:"),
    "async": ("_aclose.py", "async def aclose", "def aclose"),
    "an overload": ("_var.py", "    @overload\n    def get(self, /) -> T: ...\n", ""),
    "a base": ("_storage.py", "(dict[K, V], asyncio.Lock)", "(dict[K, V])"),
    "a method": ("_var.py", "    def reset(", "    def _reset("),
    "a field": ("_resources.py", "    since: float | None\n", ""),
    "a decorator": ("_resources.py", "@dataclass(frozen=True, ", "@dataclass("),
    "a name": ("__init__.py", '    "release",\n', ""),
    "a name of a module": ("atexit.py", '["register", "unregister"]', '["register"]'),
    "what older code uses": ("_atexit.py", "async def _fire()", "def _fire()"),
    "a type that signatures name": ("_typing.py", "-> Awaitable[T_co]", "-> Awaitable[Any]"),
    "for one checker alone": ("_sticky.py", "-> Callable[P, _StickyACMOf[A]]: ...", "-> Callable[P, StickyACM[A]]: ..."),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_change_is_seen(change: tuple[str, str, str], tmp_path: Path) -> None:
    """Each kind of change to a public name changes the frozen text."""
    for package in PACKAGES:
        (source,) = import_module(package).__path__
        shutil.copytree(source, tmp_path / package)
    file, before, after = change
    path = tmp_path / "asyncio_loop_local" / file
    source = path.read_text(encoding="utf-8")
    assert before in source
    path.write_text(source.replace(before, after), encoding="utf-8")
    assert public_api(tmp_path) != FROZEN.read_text(encoding="utf-8")
