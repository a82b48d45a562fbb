"""``loop-local-key-function``: a ``key=`` function that does not take what the factory takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import ArgKind
from mypy.subtypes import find_member, is_callable_compatible, is_subtype
from mypy.types import CallableType, FunctionLike, Instance, get_proper_type

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.types import Type

_BY_NAME = {ArgKind.ARG_POS: ArgKind.ARG_NAMED, ArgKind.ARG_OPT: ArgKind.ARG_NAMED_OPT}


def finding(key: Type, factory: Type, api: TypeChecker) -> str | None:
    """Return the end of an error message that begins with the key function; None if it fits, or that is not known."""
    takes, given = _signatures(key, api), _signatures(factory, api)
    if not takes or all(not _is_known(call) or any(_accepts(each, call) for each in takes) for call in given):
        return None
    return (
        "does not accept all arguments that the factory accepts: give it the same parameters, "
        "or *args and **kwargs for those that it does not use"
    )


def _signatures(typ: Type, api: TypeChecker) -> list[CallableType]:
    called: Type | None = get_proper_type(typ)
    if isinstance(called, Instance):
        called = find_member("__call__", called, called)
    called = get_proper_type(called)
    if not isinstance(called, FunctionLike):
        return []
    function = api.named_type("builtins.function")  # of a class too: mypy takes no function for one
    return [each.copy_modified(fallback=function) for each in called.items]  # pyright: ignore[reportUnknownMemberType]


def _is_known(factory: CallableType) -> bool:
    """Tell whether the factory's parameters say what calls it takes. With ``*args``, a key function can know more."""
    return not (factory.implicit or factory.is_ellipsis_args or factory.is_var_arg or factory.is_kw_arg or factory.param_spec())


def _accepts(key: CallableType, factory: CallableType) -> bool:
    """Tell whether a key function takes the arguments of a factory, either all by position or all by name."""
    kinds = [_BY_NAME.get(kind, kind) for kind in factory.arg_kinds]
    by_name = factory.copy_modified(arg_kinds=kinds)  # pyright: ignore[reportUnknownMemberType]
    return any(
        is_callable_compatible(
            key, each, is_compat=is_subtype, is_proper_subtype=False, ignore_return=True, ignore_pos_arg_names=True
        )
        for each in (factory, by_name)
        if each is factory or None not in factory.arg_names
    )
