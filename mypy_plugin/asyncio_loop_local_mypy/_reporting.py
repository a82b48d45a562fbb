"""The error codes, and how a hook reports a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.errorcodes import ErrorCode
from mypy.nodes import LambdaExpr

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.errors import ErrorWatcher
    from mypy.nodes import Context

_CATEGORY = "asyncio-loop-local"

KEY = ErrorCode("loop-local-key", "An argument that cannot be part of a key", _CATEGORY)
FRESH_KEY = ErrorCode("loop-local-fresh-key", "An argument that is a new object at every call", _CATEGORY)
NO_LOOP = ErrorCode("loop-local-no-loop", "A call where no event loop can be running", _CATEGORY)
DECORATOR = ErrorCode("loop-local-decorator", "A class that is decorated instead of wrapped", _CATEGORY)
SINGLE_USE = ErrorCode("loop-local-single-use", "A singleton of something that can be used only once", _CATEGORY)
KEY_FUNCTION = ErrorCode("loop-local-key-function", "A key function that does not take what its factory takes", _CATEGORY)
ESCAPE = ErrorCode("loop-local-escape", "A value that is used after its loop has closed it", _CATEGORY)
CLOSED = ErrorCode("loop-local-closed", "A shared value that is closed for all who use it", _CATEGORY)


def report(api: TypeChecker, message: str, context: Context, code: ErrorCode) -> None:
    """Report a finding, also while mypy tries the overloads of a call around it.

    A plain ``api.fail`` would make the overload under trial fail, and then be discarded (mypy issue 7367).
    """
    watchers = _discarding_watchers(api)
    if watchers is None:
        api.fail(message, context, code=code)
    elif not any(isinstance(item, LambdaExpr) for item in api.scope.stack):  # its parameters may not have their final types yet
        kept = watchers[:]
        watchers.clear()
        try:
            api.fail(message, context, code=code)
        finally:
            watchers.extend(kept)


def _discarding_watchers(api: TypeChecker) -> list[ErrorWatcher] | None:
    """Return mypy's stack of error watchers if one of them discards errors; the stack is private, so it may be missing."""
    watchers: list[ErrorWatcher] | None = getattr(api.msg.errors, "_watchers", None)
    if not isinstance(watchers, list):
        return None
    for watcher in watchers:
        if getattr(watcher, "_filter", False) and getattr(watcher, "_filtered", ()) is None:
            return watchers
    return None
