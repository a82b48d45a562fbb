"""``loop-local-single-use``: a singleton of a function whose result can be used only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.types import CallableType, Instance, Overloaded, ProperType, get_proper_type

if TYPE_CHECKING:
    from mypy.nodes import FuncDef

_STICKY = "sticky_singleton_acm, which enters it once and gives its value to every block"
_KINDS = {
    "contextlib._AsyncGeneratorContextManager": (f"asynchronous context manager, which can be entered only once: use {_STICKY}"),
    "typing.AsyncGenerator": (
        f"asynchronous generator, which can be run only once: add @contextlib.asynccontextmanager and use {_STICKY}"
    ),
    "contextlib._GeneratorContextManager": (
        "context manager, which can be entered only once: return its value, or use sticky_singleton_acm with an "
        "@contextlib.asynccontextmanager function"
    ),
    "typing.Generator": (
        "generator, which can be run only once: return a list or a tuple, or use sticky_singleton_acm with an "
        "@contextlib.asynccontextmanager function"
    ),
}


def finding(factory: ProperType, function: FuncDef | None) -> str | None:
    """Return the end of an error message that begins with the singleton; None if the result can be used again."""
    kind = _kind_of_result(factory)
    if kind is None and function is not None:  # a generator function can be annotated as Iterator
        if function.is_async_generator:
            kind = "typing.AsyncGenerator"
        elif function.is_generator:
            kind = "typing.Generator"
    return None if kind is None else f"gives every caller the same {_KINDS[kind]}"


def _kind_of_result(factory: ProperType) -> str | None:
    if isinstance(factory, Overloaded):
        factory = factory.items[0]
    if not isinstance(factory, CallableType) or factory.is_type_obj():
        return None
    result = get_proper_type(factory.ret_type)
    if not isinstance(result, Instance):
        return None
    return next((base.fullname for base in result.type.mro if base.fullname in _KINDS), None)
