"""The pytest plugin of asyncio-loop-local: a test that leaves a loop-local resource open fails, or is listed.

pytest loads it by its entry point. It is off by default, and then does not even import the library. ``--loop-local``, or
``loop_local`` in the configuration, switches it on. ``_watch`` has the checks.
"""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption", "pytest_configure"]

_MODES = ("fail", "list", "off")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line option and the configuration option."""
    text = "what to do with a test that leaves a loop-local resource open on its event loop: fail it, list it, or nothing"
    parser.getgroup("loop-local").addoption("--loop-local", choices=_MODES, default=None, help=text)
    parser.addini("loop_local", f"{text} (fail, list or off; default: off)", default="off")


def pytest_configure(config: pytest.Config) -> None:
    """Register the checks if they are switched on."""
    mode = config.getoption("--loop-local") or config.getini("loop_local")
    if mode not in _MODES:
        raise pytest.UsageError(f"loop_local = {mode}: write fail, list or off")
    if mode != "off":
        from ._watch import Watch  # noqa: PLC0415  # it imports the library, which must not happen while the plugin is off

        config.pluginmanager.register(Watch(fails=mode == "fail"), "asyncio_loop_local_watch")
