"""The checks of each call of a wrapped factory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mypy.nodes import CallExpr, RefExpr
from mypy.types import Instance, get_proper_type

from . import _fresh_keys, _keys, _no_loop
from ._call_site import is_unreachable, path_of
from ._escape import RUN
from ._marker import BY_OWN_KEY, Marker, quoted
from ._reporting import FRESH_KEY, KEY, NO_LOOP, report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.checker import TypeChecker
    from mypy.errorcodes import ErrorCode
    from mypy.nodes import Expression, Node
    from mypy.plugin import FunctionContext, MethodContext
    from mypy.types import Type


class _Finding(NamedTuple):
    message: str
    where: Expression
    code: ErrorCode


def check_call(factory: Marker, ctx: FunctionContext | MethodContext, api: TypeChecker) -> None:
    """Report the findings in a call of a wrapped factory."""
    call = ctx.context
    if not isinstance(call, CallExpr):
        return
    findings = list(_findings(factory, call, ctx, api))
    if not findings or is_unreachable(path := path_of(call, api), api):
        return
    for message, where, code in findings:
        if code is FRESH_KEY and _has_a_loop_of_its_own(path):
            continue
        if path or code is KEY:  # mypy makes up a call for functools.partial, whose arguments are made once
            report(api, message, where, code)


def _has_a_loop_of_its_own(path: list[Node]) -> bool:
    """Tell whether the call at the end of a path is passed to ``asyncio.run``. No other call is on the same loop."""
    runner = path[-2] if len(path) > 1 else None
    return isinstance(runner, CallExpr) and isinstance(runner.callee, RefExpr) and runner.callee.fullname in RUN


def _findings(factory: Marker, call: CallExpr, ctx: FunctionContext | MethodContext, api: TypeChecker) -> Iterator[_Finding]:
    name = quoted(factory.name)
    reason = None if _is_coroutine(ctx.default_return_type) else _no_loop.finding(call, api)
    if reason is not None:
        yield _Finding(f"{name} {reason}", call, NO_LOOP)
    if factory.keys != BY_OWN_KEY:
        yield from _findings_in_arguments(name, call, _types_by_argument(ctx), api)


def _is_coroutine(result: Type) -> bool:
    """Tell whether a call gives a coroutine, which a wrapped coroutine function gives where no loop runs, too."""
    proper = get_proper_type(result)
    return isinstance(proper, Instance) and proper.type.has_base("typing.Coroutine")


def _types_by_argument(ctx: FunctionContext | MethodContext) -> dict[int, Type]:
    pairs = zip(ctx.args, ctx.arg_types, strict=True)
    return {id(argument): typ for written, types in pairs for argument, typ in zip(written, types, strict=True)}


def _findings_in_arguments(name: str, call: CallExpr, types: dict[int, Type], api: TypeChecker) -> Iterator[_Finding]:
    for number, (argument, kind, keyword) in enumerate(zip(call.args, call.arg_kinds, call.arg_names, strict=True), 1):
        typ = api.lookup_type(argument) if api.has_type(argument) else types.get(id(argument))
        which = f"Argument {number}" if keyword is None else f'Argument "{keyword}"'
        reason = _keys.finding(typ, kind, api) if typ is not None else None
        if reason is not None:
            yield _Finding(f"{which} to {name} {reason}", argument, KEY)
            continue
        reason = _fresh_keys.finding(argument, kind, api)
        if reason is not None:
            yield _Finding(f"{which} to {name} {reason}", argument, FRESH_KEY)
