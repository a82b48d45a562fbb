"""pyrefly, zuban and ty differ from mypy and pyright only where it is written down."""

from __future__ import annotations

import pytest
from typing_tests.other_checkers import COMMANDS, differences, expected, find

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("checker", COMMANDS)
def test_the_limits_of_a_checker_are_known(checker: str) -> None:
    """If they have changed, `python typing_tests/other_checkers.py --write` writes them down anew."""
    executable = find(checker)
    if executable is None:
        pytest.skip(f"{checker} is not installed")
    assert list(differences(checker, executable)) == expected(checker)
