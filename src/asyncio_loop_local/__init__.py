"""Resources that live exactly as long as their event loop: made once per loop, shared by its tasks, closed at its end.

The modules, in layers. Each imports only from the layers below its own; `make check` keeps that (import-linter).

=====================================  ===================================================================================
``_sticky``, ``_singleton``, ``_var``  public functions and classes that build on other public ones; ``_atexit``: the older
                                       private forms of ``atexit``
``_closing``, ``_closing_variable``,   values that a function closes, of a wrapped factory and of a variable; one public concept
``_override``, ``_lifespan``           each
``_sticky_acm``                        what a call of a sticky factory gives, which any number of blocks may enter
``_enter``, ``_shared_coroutine``,     one public concept each (``_shared_coroutine``: what `singleton` makes of a coroutine
``_storage``, ``atexit``, ``_aclose``  function)
``_release``, ``_resources``
``_wrapped_factory``                   a wrapped factory: how its calls find their value on the running loop
``_loop_state``                        everything that the library holds for one loop, and the loop's methods that it replaces
``_loop_cache``                        what one wrapped factory has made on one loop
``_resource``                          one asynchronous context manager: its own task enters it, holds it and exits it
``_loop_bound``                        anything that ends with its loop: its states, its task and context, its tasks
``_exit_order``                        the order in which all that ends
``_flat_form``, ``_wait_graph``,       what the C-level cache is asked for where arguments count by value; waits that would
``_waiters``, ``_interrupt``,          never end; tasks that wait for one event; Ctrl-C while a loop ends; the interpreter's
``_process``                           exit, and a fork
``_keys``                              what makes two calls the same call
``_names``                             how calls are named in errors and logs
``_secrets``, ``_pickling``,           values without their secrets; objects that keep their identity when pickled;
``_cpython``, ``_typing``              everything private to CPython; the structural types
=====================================  ===================================================================================

A call: the function that ``_wrapped_factory.wrapped`` has made looks the value up in the running loop's ``LoopState``, first
by the arguments as they are, then by the key that ``_keys`` makes of them. If it is not there, the factory is called.
``_singleton`` keeps the result itself, or has ``_closing`` make a ``Resource`` of it that is open at once. ``_sticky`` makes a
``Resource`` of it, and the block waits in ``Resource.acquire`` until the resource's task has entered it.

The end of a loop: ``LoopState.shutdown_asyncgens``, ``LoopState.close``, ``LoopState.interpreter_exits`` or `aclose` calls
``ExitOrder.end_all``. That begins the exit of the newest ``LoopBound`` which nothing open uses; each exit begins the next.
"""

from . import atexit
from ._aclose import aclose
from ._enter import enter, enter_once
from ._lifespan import lifespan
from ._loop_state import LoopLocalStorage
from ._override import override
from ._release import release, release_all
from ._resources import ResourceInfo, format_resources, resources
from ._singleton import singleton
from ._sticky import sticky_acm, sticky_singleton_acm
from ._sticky_acm import StickyACM
from ._storage import LockingDict, storage
from ._var import LoopVar, Token

__all__ = [
    "LockingDict",
    "LoopLocalStorage",
    "LoopVar",
    "ResourceInfo",
    "StickyACM",
    "Token",
    "aclose",
    "atexit",
    "enter",
    "enter_once",
    "format_resources",
    "lifespan",
    "override",
    "release",
    "release_all",
    "resources",
    "singleton",
    "sticky_acm",
    "sticky_singleton_acm",
    "storage",
]
