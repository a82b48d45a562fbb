"""Factories that people have are typed alike, bare and wrapped: by mypy and by pyright, call by call of `factories/table.py`."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typing_tests.factories.compare import FORMS, ROOT, Difference, Outcome, compare, generate, select

pytestmark = pytest.mark.timeout(600)

# What mypy makes of any `Callable[P, T]` decorator, by the name that `docs/checkers.md` gives to it.
LIMITS_OF_MYPY = {
    "the arguments of a partial object are not checked": r": shapes\.partial_",
    "of an object with an overloaded __call__, the first overload is seen": r": shapes\.callable_with_overloads:",
    "a union of context managers gives what they have in common": r"^sticky_.*: shapes\.returns_union: .*`object` wrapped$",
    "a type parameter that no argument decides must be given": r": contextlib\.AsyncExitStack:",
    "of an overloaded factory with key= beside it, the first overload is seen": r"\(f, [^(]*=…\): .* bare, refused .* wrapped$",
    "an overloaded factory that takes Any, after close=, gives Any": r"\(close=…, valid=…\)\(f\): .* bare, `Any` wrapped$",
    "of a generic factory with close= beside it, the parameter of close is seen": (
        r"\(f, close=…, valid=…\): shapes\.plain_(constrained|calls): "
    ),
}
LIMITS_OF_MYPY_WITH_THE_PLUGIN = {
    name: limit for name, limit in LIMITS_OF_MYPY.items() if name == "a type parameter that no argument decides must be given"
} | {"what is given close= or valid= is as without the plugin": r"(close|valid)=…"}
LIMITS_OF_PYRIGHT = {
    "of a generic factory with close= or valid= beside it, the parameter of that is seen": (
        r"\(f, (close=…, )?valid=…\): .* wrapped$"
    ),
}
# Calls that are right, but that mypy refuses bare: it wants an annotation where pymongo leaves the type of documents open.
REFUSED_BARE = r"pymongo\.AsyncMongoClient"


def outcome_of(checker: str) -> Outcome:
    name = checker.split("+", maxsplit=1)[0]
    executable = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if executable is None:
        pytest.skip(f"{name} is not installed")
    acms, plain, _ = select(sys.executable)
    assert len(acms) > 50
    module, places = generate(acms, plain)
    outcome = compare(checker, executable, sys.executable, module, places)
    assert all(outcome.calls[form] > 200 for form in FORMS)
    return outcome


def unexpected(differences: Sequence[Difference], limits: dict[str, str]) -> list[str]:
    return [each for each in map(str, differences) if not any(re.search(limit, each) for limit in limits.values())]


def test_pyright_types_every_call_alike() -> None:
    """In all forms of the two decorators but those in which close= and valid= stand beside a generic factory."""
    outcome = outcome_of("pyright")
    assert unexpected(outcome.differences, LIMITS_OF_PYRIGHT) == []
    assert outcome.surprises == []
    assert [form for form in FORMS if outcome.alike[form] != outcome.calls[form]] == [
        "sticky_singleton_acm(f, valid=…)",
        "singleton(f, close=…, valid=…)",
    ]


def test_mypy_types_every_call_alike() -> None:
    """But for the limits that it has with any decorator of this kind, each by its name."""
    outcome = outcome_of("mypy")
    assert unexpected(outcome.differences, LIMITS_OF_MYPY) == []
    assert [each for each in outcome.surprises if not re.search(REFUSED_BARE, each)] == []
    for name, limit in LIMITS_OF_MYPY.items():
        assert any(re.search(limit, str(each)) for each in outcome.differences), f"no limit any more: {name}"


def test_mypy_with_the_plugin_types_every_call_alike() -> None:
    """Partial objects, overloads of objects and beside key=, and unions too, but for its limits."""
    if not (ROOT / "mypy_plugin").is_dir():
        pytest.skip("the plugin is not here")
    outcome = outcome_of("mypy+plugin")
    assert unexpected(outcome.differences, LIMITS_OF_MYPY_WITH_THE_PLUGIN) == []
    for name, limit in LIMITS_OF_MYPY_WITH_THE_PLUGIN.items():
        assert any(re.search(limit, str(each)) for each in outcome.differences), f"no limit any more: {name}"
