"""The checks of each call of a wrapped factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import CallExpr
from mypy.types import Instance, get_proper_type

from . import _fresh_keys, _keys, _no_loop
from ._marker import BY_OWN_KEY, Marker, quoted
from ._reporting import FRESH_KEY, KEY, NO_LOOP, report

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.plugin import FunctionContext, MethodContext
    from mypy.types import Type


def check_call(factory: Marker, ctx: FunctionContext | MethodContext, api: TypeChecker) -> None:
    """Report the findings in a call of a wrapped factory."""
    call = ctx.context
    if not isinstance(call, CallExpr):
        return
    name = quoted(factory.name)
    reason = None if _is_coroutine(ctx.default_return_type) else _no_loop.finding(call, api)
    if reason is not None:
        report(api, f"{name} {reason}", call, NO_LOOP)
    if factory.keys != BY_OWN_KEY:
        _check_arguments(name, call, _types_by_argument(ctx), api)


def _is_coroutine(result: Type) -> bool:
    """Tell whether a call gives a coroutine, which a wrapped coroutine function gives where no loop runs, too."""
    proper = get_proper_type(result)
    return isinstance(proper, Instance) and proper.type.has_base("typing.Coroutine")


def _types_by_argument(ctx: FunctionContext | MethodContext) -> dict[int, Type]:
    pairs = zip(ctx.args, ctx.arg_types, strict=True)
    return {id(argument): typ for written, types in pairs for argument, typ in zip(written, types, strict=True)}


def _check_arguments(name: str, call: CallExpr, types: dict[int, Type], api: TypeChecker) -> None:
    for number, (argument, kind, keyword) in enumerate(zip(call.args, call.arg_kinds, call.arg_names, strict=True), 1):
        typ = api.lookup_type(argument) if api.has_type(argument) else types.get(id(argument))
        which = f"Argument {number}" if keyword is None else f'Argument "{keyword}"'
        reason = _keys.finding(typ, kind, api) if typ is not None else None
        if reason is not None:
            report(api, f"{which} to {name} {reason}", argument, KEY)
            continue
        reason = _fresh_keys.finding(argument, kind, api)
        if reason is not None:
            report(api, f"{which} to {name} {reason}", argument, FRESH_KEY)
