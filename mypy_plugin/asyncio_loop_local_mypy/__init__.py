"""The mypy plugin of asyncio-loop-local: ``plugins = ["asyncio_loop_local_mypy"]``.

The modules form layers. Each imports only from the layers below its own.

=====  ==================================================================================================
layer  modules
=====  ==================================================================================================
9      ``__init__``: the entry point of mypy
8      ``_check``: the command ``loop-local-check``
7      ``_mypy_run``: a run of mypy for it
6      ``_plugin``: mypy's hooks
5      ``_wrapping``: the type of what the library's decorators return; ``_calls``: the checks of a call of
       a wrapped factory; ``_decorated_class``: the report of a decorated class; ``_displays``: the type of a
       list of them
4      one finding each: ``_keys``, ``_fresh_keys``, ``_no_loop``, ``_single_use``, ``_key_function``,
       ``_escape``, ``_closed``
3      ``_freshness``: which classes make new objects; ``_call_site``: where a call stands;
       ``_shared_values``: what gives a value that is shared
2      ``_hashability``: which types can be part of a key
1      ``_class_statement``: the notes on classes; ``_bindings``: the places that set a variable
0      ``_marker``: the mark on the types of the library's functions; ``_symbols``: look-up of names;
       ``_tree``: parts of a syntax tree; ``_reporting``: the error codes
=====  ==================================================================================================

The plugin marks the type of what a decorator returns, with a literal in the type's fallback. Every cache of mypy keeps it. So
the plugin recognises a call of a wrapped factory under any name.

The plugin keeps no state between two hooks: with a warm cache, or in a parallel worker, the first hook may never have run.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy.plugin import Plugin

__all__ = ["plugin"]
__version__ = "1.0.0"


def plugin(version: str) -> "type[Plugin]":  # noqa: ARG001  # mypy passes its own
    """Return the plugin's class, the same for every version of mypy."""
    from ._plugin import LoopLocalPlugin  # noqa: PLC0415  # `loop-local-check` says what to install where mypy is not

    return LoopLocalPlugin
