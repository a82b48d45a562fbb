"""The codes, and how a finding is told from within a hook."""

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
DECORATOR = ErrorCode("loop-local-decorator", "A class that is decorated in place of being wrapped", _CATEGORY)
SINGLE_USE = ErrorCode("loop-local-single-use", "A singleton of something that can be used only once", _CATEGORY)


def report(api: TypeChecker, message: str, context: Context, code: ErrorCode) -> None:
    """Report a finding that does not depend on which overload mypy is trying right now.

    Told in the ordinary way while mypy tries one, it would make that overload fail (mypy issue 7367), and be lost.
    """
    watchers = _discarding_watchers(api)
    if watchers is None:
        api.fail(message, context, code=code)
    elif not any(isinstance(item, LambdaExpr) for item in api.scope.stack):  # whose parameters have not their types yet
        kept = watchers[:]
        watchers.clear()
        try:
            api.fail(message, context, code=code)
        finally:
            watchers.extend(kept)


def _discarding_watchers(api: TypeChecker) -> list[ErrorWatcher] | None:
    """The stack of mypy's error watchers, if one of them throws away what it is told; private to mypy, so it may be gone."""
    watchers: list[ErrorWatcher] | None = getattr(api.msg.errors, "_watchers", None)
    if not isinstance(watchers, list):
        return None
    for watcher in watchers:
        if getattr(watcher, "_filter", False) and getattr(watcher, "_filtered", ()) is None:
            return watchers
    return None
