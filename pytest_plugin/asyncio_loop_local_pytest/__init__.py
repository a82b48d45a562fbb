"""The pytest plugin of asyncio-loop-local: a test that leaves a loop-local resource open fails, or is listed.

pytest finds it by its entry point wherever the library is installed. Unless it is asked for, by ``--loop-local`` or by
``loop_local`` in the configuration, it does nothing, and imports nothing of the library.

``_watch`` is what watches the tests.
"""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption", "pytest_configure"]

_MODES = ("fail", "list", "off")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, and its name in the configuration."""
    text = "what to do about a test that leaves a loop-local resource open past its event loop: fail it, list it, or nothing"
    parser.getgroup("loop-local").addoption("--loop-local", choices=_MODES, default=None, help=text)
    parser.addini("loop_local", f"{text} (fail, list or off; default: off)", default="off")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the tests, if that is wished."""
    mode = config.getoption("--loop-local") or config.getini("loop_local")
    if mode not in _MODES:
        raise pytest.UsageError(f"loop_local = {mode}: write fail, list or off")
    if mode != "off":
        from ._watch import Watch  # noqa: PLC0415  # it needs the library, which others shall not load

        config.pluginmanager.register(Watch(fails=mode == "fail"), "asyncio_loop_local_watch")
