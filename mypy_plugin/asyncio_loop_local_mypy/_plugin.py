"""Which of mypy's questions are this plugin's to answer, and who answers them."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mypy.checker import TypeChecker
from mypy.nodes import CallExpr, Decorator, RefExpr
from mypy.plugin import Plugin

from . import _decorated_class
from ._calls import look_at
from ._chain import plugins_after
from ._marker import BY_ARGUMENTS, DECORATOR, Known, carried, known, named
from ._symbols import find, variable
from ._wrapping import DECORATORS, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy.nodes import Context, Expression
    from mypy.options import Options
    from mypy.plugin import (
        ClassDefContext,
        FunctionContext,
        FunctionSigContext,
        MethodContext,
        MethodSigContext,
        ReportConfigContext,
    )
    from mypy.types import CallableType, FunctionLike, Type

T = TypeVar("T")

_STATICMETHOD = "builtins.staticmethod"


class LoopLocalPlugin(Plugin):
    """Knows the wrapped factories of asyncio-loop-local; lives as long as one run of mypy, or its daemon."""

    def __init__(self, options: Options) -> None:
        """Take mypy's options."""
        super().__init__(options)
        self._names_of_others: set[str] = set()  # most calls in a program are of these

    def report_config_data(self, ctx: ReportConfigContext) -> object:
        """A hash of all of the plugin: results of another version of it are of no use."""
        return _HASH_OF_SOURCES

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        """For calls of decorators and of wrapped factories by their full names, and for all bare names."""
        if fullname == _STATICMETHOD:
            return self._staticmethod_called
        return partial(self._called, fullname) if self._is_ours(fullname) else None

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """For calls of attributes and methods that are wrapped factories."""
        return partial(self._method_called, fullname) if self._is_ours(fullname) else None

    def get_function_signature_hook(self, fullname: str) -> Callable[[FunctionSigContext], FunctionLike] | None:
        """For the names in the errors of calls of wrapped factories."""
        return partial(self._signature, fullname) if fullname not in DECORATORS and self._is_ours(fullname) else None

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        """For the names in the errors of calls of attributes and methods that are wrapped factories."""
        return partial(self._method_signature, fullname) if self._is_ours(fullname) else None

    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        """For classes that are decorated."""
        return partial(self._class_decorated, fullname) if fullname in DECORATORS else None

    def _is_ours(self, fullname: str) -> bool:
        """A bare name may be that of any local variable: what it stands for is known only in the hook."""
        if fullname in self._names_of_others:
            return False
        if "." not in fullname or fullname in DECORATORS:
            return True
        return _guarded(self, partial(self._stands_for_ours, fullname), otherwise=False)

    def _stands_for_ours(self, fullname: str) -> bool:
        node = find(self.lookup_fully_qualified, fullname)
        var = variable(node)
        if var is not None:
            return known(var.type) is not None
        if node is not None and not self.options.fine_grained_incremental:  # in the daemon a name comes to mean something else
            self._names_of_others.add(fullname)
        return False

    def _known_by_name(self, fullname: str) -> Known | None:
        var = variable(find(self.lookup_fully_qualified, fullname))
        return None if var is None else known(var.type)

    def _named_again(self, fullname: str, signature: CallableType) -> CallableType:
        function = known(signature) or self._known_by_name(fullname)
        return signature if function is None else named(signature, function.name)

    def _called(self, fullname: str, ctx: FunctionContext) -> Type:
        result = _guarded(ctx.api, partial(self._look_at_call, fullname, ctx), ctx.default_return_type)
        return self._others_called(fullname, ctx._replace(default_return_type=result))

    def _staticmethod_called(self, ctx: FunctionContext) -> Type:
        result = _guarded(ctx.api, lambda: carried(ctx.default_return_type, ctx.arg_types[0][0]), ctx.default_return_type)
        return self._others_called(_STATICMETHOD, ctx._replace(default_return_type=result))

    def _others_called(self, fullname: str, ctx: FunctionContext) -> Type:
        for other in plugins_after(self, ctx.api):
            hook = other.get_function_hook(fullname)
            if hook is not None:
                return hook(ctx)
        return ctx.default_return_type

    def _method_called(self, fullname: str, ctx: MethodContext) -> Type:
        result = _guarded(ctx.api, partial(self._look_at_call, fullname, ctx), ctx.default_return_type)
        ctx = ctx._replace(default_return_type=result)
        for other in plugins_after(self, ctx.api):
            hook = other.get_method_hook(fullname)
            if hook is not None:
                return hook(ctx)
        return result

    def _signature(self, fullname: str, ctx: FunctionSigContext) -> FunctionLike:
        result = _guarded(ctx.api, partial(self._named_again, fullname, ctx.default_signature), ctx.default_signature)
        ctx = ctx._replace(default_signature=result)
        for other in plugins_after(self, ctx.api):
            hook = other.get_function_signature_hook(fullname)
            if hook is not None:
                return hook(ctx)
        return result

    def _method_signature(self, fullname: str, ctx: MethodSigContext) -> FunctionLike:
        result = _guarded(ctx.api, partial(self._named_again, fullname, ctx.default_signature), ctx.default_signature)
        ctx = ctx._replace(default_signature=result)
        for other in plugins_after(self, ctx.api):
            hook = other.get_method_signature_hook(fullname)
            if hook is not None:
                return hook(ctx)
        return result

    def _class_decorated(self, fullname: str, ctx: ClassDefContext) -> bool:
        _guarded(ctx.api, partial(_decorated_class.report, ctx, DECORATORS[fullname]), None)
        for other in plugins_after(self, ctx.api):
            hook = other.get_class_decorator_hook_2(fullname)
            if hook is not None:
                return hook(ctx)
        return True

    def _look_at_call(self, fullname: str, ctx: FunctionContext | MethodContext) -> Type:
        api = ctx.api
        if not isinstance(api, TypeChecker):
            return ctx.default_return_type
        function = self._known_callee(fullname, ctx.context, api)
        if function is None:
            return ctx.default_return_type
        if function.is_decorator:
            return wrapped(function, ctx, api, self.lookup_fully_qualified)
        look_at(function, ctx, api)
        return ctx.default_return_type

    def _known_callee(self, fullname: str, context: Context, api: TypeChecker) -> Known | None:
        if fullname in DECORATORS:
            return Known(DECORATOR, BY_ARGUMENTS, DECORATORS[fullname])
        for callee in _callees(context):
            if isinstance(callee, RefExpr) and callee.fullname in DECORATORS:
                # An item of an overloaded factory that is given to it: mypy then tells no more than this bare name.
                if fullname == DECORATORS[callee.fullname]:
                    return Known(DECORATOR, BY_ARGUMENTS, fullname)
                continue
            function = known(api.lookup_type(callee)) if api.has_type(callee) else None
            if function is not None and (not function.is_decorator or "." in fullname or fullname == function.name):
                return function
        return self._known_by_name(fullname)


def _callees(context: Context) -> list[Expression]:
    if isinstance(context, CallExpr):
        return [context.callee]
    return context.decorators if isinstance(context, Decorator) else []


def _guarded(api: object, work: Callable[[], T], otherwise: T) -> T:
    """What the work returns; of code that it does not understand the plugin says nothing, unless mypy is to show tracebacks."""
    try:
        return work()
    except Exception:
        if getattr(getattr(api, "options", None), "show_traceback", False):
            raise
        return otherwise


def _hash_of_sources() -> str:
    here = Path(__file__).parent
    sources = sorted(here.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


_HASH_OF_SOURCES = _hash_of_sources()
