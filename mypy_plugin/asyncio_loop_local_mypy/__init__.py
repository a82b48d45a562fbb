"""The mypy plugin of asyncio-loop-local: ``plugins = ["asyncio_loop_local_mypy"]``.

The map of the house. Each floor imports only from those below it.

====  ===================================================================================================
4     ``__init__``: what mypy asks for
3     ``_plugin``: which of mypy's questions are ours to answer, and who answers
2     ``_wrapping``: the type of what the library's decorators return; ``_calls``: what is looked at in a
      call of it; ``_decorated_class``: a class that is decorated
1     one finding each: ``_keys`` and ``_hashability``, ``_fresh_keys``, ``_no_loop``, ``_single_use``
0     ``_marker``: how a function is known again; ``_symbols``: what a name stands for; ``_reporting``: the
      codes, and how a finding is told
====  ===================================================================================================

What a decorator returns is marked by a literal in its fallback type. That survives every cache, and tells a call of it
from all others, by whatever name it is reached.

Nothing of what is known is remembered between two hooks: with a warm cache, or in a parallel worker, it would not be there.
"""

from typing import TYPE_CHECKING

from ._plugin import LoopLocalPlugin

if TYPE_CHECKING:
    from mypy.plugin import Plugin

__all__ = ["plugin"]
__version__ = "1.0.0"


def plugin(version: str) -> "type[Plugin]":  # noqa: ARG001  # mypy passes its own
    """Return the plugin, which is the same for every version of mypy."""
    return LoopLocalPlugin
