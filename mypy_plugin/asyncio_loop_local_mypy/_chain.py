"""The other plugins: mypy asks only the first one that has a hook for a name, so the hook asks the rest itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.plugin import Plugin


def plugins_after(plugin: Plugin, api: object) -> Iterator[Plugin]:
    """The plugins that mypy would have asked if this one had had no hook. The list is private to mypy, so it may be gone."""
    chain: list[Plugin] | None = getattr(getattr(api, "plugin", None), "_plugins", None)
    if chain is not None and plugin in chain:
        yield from chain[chain.index(plugin) + 1 :]
