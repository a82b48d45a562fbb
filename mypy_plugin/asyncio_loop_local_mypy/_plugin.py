"""The hooks that mypy asks for, and the choice of what each one does."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mypy.checker import TypeChecker
from mypy.nodes import CallExpr, Decorator, RefExpr
from mypy.plugin import ClassDefContext, FunctionContext, FunctionSigContext, MethodContext, MethodSigContext, Plugin

from . import _class_statement, _closed, _decorated_class, _escape
from ._calls import check_call
from ._displays import DISPLAYS, type_of_display
from ._marker import BY_ARGUMENTS, DECORATOR, NOTHING, Marker, marked_staticmethod, marker_of, named
from ._reporting import CLOSED, ESCAPE, report
from ._symbols import find, variable
from ._wrapping import CALLS_OF_WAITING, DECORATORS, type_of_wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy.errorcodes import ErrorCode
    from mypy.nodes import Context, Expression, MypyFile
    from mypy.options import Options
    from mypy.plugin import ReportConfigContext
    from mypy.types import FunctionLike, Type

C = TypeVar("C", FunctionContext, MethodContext, FunctionSigContext, MethodSigContext, ClassDefContext)
F = TypeVar("F", bound=FunctionContext | MethodContext)
R = TypeVar("R")

_STATICMETHOD = "builtins.staticmethod"
_KNOWN_NAMES = {*DECORATORS, *_escape.RUN, *CALLS_OF_WAITING, _STATICMETHOD}


class LoopLocalPlugin(Plugin):
    """Checks the wrapped factories of asyncio-loop-local. mypy makes one for each run; its daemon keeps one."""

    def __init__(self, options: Options) -> None:
        """Take mypy's options."""
        super().__init__(options)
        self._names_of_others: set[str] = set()  # a cache: most calls in a program are none of the library's

    def report_config_data(self, ctx: ReportConfigContext) -> object:
        """Return a hash of the plugin's sources, so that mypy discards what another version of it has cached."""
        return _HASH_OF_SOURCES

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        """Check a call of a decorator or of a wrapped factory, known by its full name or by a bare local name."""
        return self._hook("get_function_hook", fullname, self._check_call)

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """Check a call of a wrapped factory that is an attribute or a method, or one that closes an object."""
        if fullname.rpartition(".")[2] in _closed.METHODS:
            return self._chain("get_method_hook", fullname, self._check_closing)
        return self._hook("get_method_hook", fullname, self._check_call)

    def get_function_signature_hook(self, fullname: str) -> Callable[[FunctionSigContext], FunctionLike] | None:
        """Restore the callable's name, so that errors in a call of a wrapped factory show it."""
        return None if fullname in _KNOWN_NAMES else self._hook("get_function_signature_hook", fullname, self._restore_name)

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        """Restore the callable's name, where it is an attribute or a method."""
        return self._hook("get_method_signature_hook", fullname, self._restore_name)

    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        """Report a decorated class."""
        return self._hook("get_class_decorator_hook_2", fullname, self._report_class) if fullname in DECORATORS else None

    def get_customize_class_mro_hook(self, fullname: str) -> Callable[[ClassDefContext], None] | None:
        """Note what a class statement says. mypy asks this of each class, so it must cost next to nothing."""
        return self._note_class

    def _note_class(self, ctx: ClassDefContext) -> None:
        statement = ctx.cls
        module: MypyFile | None = getattr(ctx.api, "cur_mod_node", None)  # it is private, so it may be missing
        _guarded(ctx.api, partial(_class_statement.note, statement, module, self.options), None)
        for other in _plugins_after(self, ctx.api):
            next_hook = other.get_customize_class_mro_hook(statement.fullname)
            if next_hook is not None:
                next_hook(ctx)
                return  # as mypy, which asks only the first plugin that has a hook for a name

    def _hook(self, asked: str, fullname: str, work: Callable[[str, C], R]) -> Callable[[C], R] | None:
        return self._chain(asked, fullname, work) if self._is_ours(fullname) else None

    def _chain(self, asked: str, fullname: str, work: Callable[[str, C], R]) -> Callable[[C], R]:
        """Return a hook that does our work, then asks the other plugins.

        mypy asks only the first plugin that has a hook for a name. So ours asks those after it: the first of them that has
        one gets our result as its default.
        """

        def hook(ctx: C) -> R:
            values: dict[str, Any] = {name: getattr(ctx, name) for name in ctx._fields if name.startswith("default_")}
            default: Any = next(iter(values.values()), True)  # only the hook of a class decorator has none: it returns True
            result: R = _guarded(ctx.api, partial(work, fullname, ctx), default)
            values = dict.fromkeys(values, result)
            ctx = ctx._replace(**values)
            for other in _plugins_after(self, ctx.api):
                next_hook: Callable[[C], R] | None = getattr(other, asked)(fullname)
                if next_hook is not None:
                    return next_hook(ctx)
            return result

        return hook

    def _is_ours(self, fullname: str) -> bool:
        if fullname in self._names_of_others:
            return False
        if "." not in fullname or fullname in _KNOWN_NAMES:  # any local variable can have a bare name: the hook finds its type
            return True
        return _guarded(self, partial(self._refers_to_ours, fullname), default=False)

    def _refers_to_ours(self, fullname: str) -> bool:
        node = find(self.lookup_fully_qualified, fullname)
        var = variable(node)
        if var is not None:
            return marker_of(var.type) is not None
        if node is not None and not self.options.fine_grained_incremental:  # under the daemon, a name can change its meaning
            self._names_of_others.add(fullname)
        return False

    def _marker_by_name(self, fullname: str) -> Marker | None:
        var = variable(find(self.lookup_fully_qualified, fullname))
        return None if var is None else marker_of(var.type)

    def _restore_name(self, fullname: str, ctx: FunctionSigContext | MethodSigContext) -> FunctionLike:
        signature = ctx.default_signature
        function = marker_of(signature) or self._marker_by_name(fullname)
        return signature if function is None else named(signature, function.name)

    def _report_class(self, fullname: str, ctx: ClassDefContext) -> bool:
        _decorated_class.report(ctx, DECORATORS[fullname])
        return True

    def _check_call(self, fullname: str, ctx: FunctionContext | MethodContext) -> Type:
        if fullname == _STATICMETHOD and ctx.arg_types[0]:
            return marked_staticmethod(ctx.default_return_type, ctx.arg_types[0][0])
        if fullname in DISPLAYS:
            return type_of_display(ctx)
        if fullname in _escape.RUN:
            _report(partial(_escape.finding, fullname), ESCAPE, ctx)
            return ctx.default_return_type
        api = ctx.api
        if not isinstance(api, TypeChecker) or (function := self._callee_marker(fullname, ctx.context, api)) is None:
            return ctx.default_return_type
        if function.is_decorator:
            return type_of_wrapped(function, ctx, api, self.lookup_fully_qualified)
        check_call(function, ctx, api)
        return ctx.default_return_type

    def _check_closing(self, fullname: str, ctx: MethodContext) -> Type:
        _report(_closed.finding, CLOSED, ctx)
        return self._check_call(fullname, ctx)

    def _callee_marker(self, fullname: str, context: Context, api: TypeChecker) -> Marker | None:
        if fullname in DECORATORS:
            return Marker(DECORATOR, BY_ARGUMENTS, NOTHING, DECORATORS[fullname])
        for callee in _callees(context):
            if isinstance(callee, RefExpr) and callee.fullname in DECORATORS:
                # mypy checks each overload of a factory against the decorator's parameter, and passes only this bare name.
                if fullname == DECORATORS[callee.fullname]:
                    return Marker(DECORATOR, BY_ARGUMENTS, NOTHING, fullname)
                continue
            function = marker_of(api.lookup_type(callee)) if api.has_type(callee) else None
            if function is not None and (not function.is_decorator or _is_called_as(fullname, function)):
                return function
        return self._marker_by_name(fullname)


def _report(finding: Callable[[F, TypeChecker], str | None], code: ErrorCode, ctx: F) -> None:
    api = ctx.api
    message = finding(ctx, api) if isinstance(api, TypeChecker) else None
    if message is not None and isinstance(api, TypeChecker):
        report(api, message, ctx.context, code)


def _is_called_as(fullname: str, decorator: Marker) -> bool:
    """Tell whether the name is that of a decorator's own call. For each overload of a factory, mypy passes a bare one."""
    return "." in fullname or fullname == decorator.name or fullname.startswith("__call__")


def _callees(context: Context) -> list[Expression]:
    if isinstance(context, CallExpr):
        return [context.callee]
    return context.decorators if isinstance(context, Decorator) else []


def _plugins_after(plugin: Plugin, api: object) -> list[Plugin]:
    """The plugins that mypy would ask if this one had no hook. mypy's list is private: without it, none."""
    chain: list[Plugin] | None = getattr(getattr(api, "plugin", None), "_plugins", None)
    return chain[chain.index(plugin) + 1 :] if chain is not None and plugin in chain else []


def _guarded(api: object, work: Callable[[], R], default: R) -> R:
    """Return the result of our work, or the default if it fails: code that the plugin does not understand must not stop mypy."""
    try:
        return work()
    except Exception:
        if getattr(getattr(api, "options", None), "show_traceback", False):
            raise
        return default


def _hash_of_sources() -> str:
    here = Path(__file__).parent
    sources = sorted(here.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


_HASH_OF_SOURCES = _hash_of_sources()
