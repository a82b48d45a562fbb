"""Resources that live exactly as long as their event loop: made once per loop, shared by its tasks, closed at its end.

The map of the house. Each floor imports only from those below it.

====  ===================================================================================================
4     ``__init__``: the public names
3     one public concept each: ``_storage``, ``_var``, ``_singleton`` (and ``_shared_coroutine``, what
      it makes of coroutine functions), ``_enter``, ``_sticky``, ``atexit`` (and ``_atexit``, its older
      private forms), ``_aclose``, ``_release``, ``_resources``
2     ``_calls``: what a wrapped factory has made on one loop; ``_loop_state``: all that one loop holds,
      and the doors by which it ends
1     ``_resource``: one ACM, entered, held and exited by its own task; ``_scope``: anything that ends with
      its loop; ``_exit_order``: the order in which all that ends;
      ``_cycles``: who waits for whom; ``_interrupt``: Ctrl-C meanwhile;
      ``_process``: the interpreter's exit, and a fork
0     ``_keys``: what makes two calls the same call; ``_pickling``: objects that keep their identity;
      ``_names`` and ``_secrets``: how calls are shown; ``_waiters``; ``_typing``
====  ===================================================================================================

A call goes down once and comes up once: the wrapped factory (``_calls.wrapped``) asks the running loop's state for what
it has made; on a miss ``_keys`` makes the key, ``_sticky`` a ``Resource`` from the factory, and the block waits in
``Resource.acquire`` until the resource's task has entered it.

The end of a loop goes down once: a door (``LoopState.shutdown_asyncgens``, ``close``, ``interpreter_exits``, or
``_aclose``) asks ``ExitOrder.end_all``, which has the newest ``Scope`` begin its exit; each has the next one begin.
"""

from . import atexit
from ._aclose import aclose
from ._enter import enter, enter_once
from ._loop_state import LoopLocalStorage
from ._release import release
from ._resources import ResourceInfo, format_resources, resources
from ._singleton import singleton
from ._sticky import StickyACM, sticky_acm, sticky_singleton_acm
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
    "release",
    "resources",
    "singleton",
    "sticky_acm",
    "sticky_singleton_acm",
    "storage",
]
