"""Names of factories and calls for errors, warnings and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncContextDecorator
from functools import partial
from typing import cast

from ._secrets import mask_if_secret, safe_repr, shorten

_NONE: Mapping[str, str] = {}


def name_of(factory: object) -> str:
    """Return the qualified name of a callable, without the functions that it is nested in."""
    while isinstance(factory, partial):
        factory = factory.func  # a partial has no name
    name = getattr(factory, "__qualname__", None)
    return (name if isinstance(name, str) else type(factory).__qualname__).rpartition("<locals>.")[2]


def describe_factory(factory: object) -> str:
    """Return `safe_repr`, but of a partial only the function: its positional arguments have no names, and may be secrets.

    Of a property, say how to get its function.
    """
    if isinstance(factory, property):
        return "a property: pass its getter, as in Service.client.fget"
    if type(factory) is partial:
        return f"functools.partial of {name_of(cast('Callable[..., object]', factory))}"
    return safe_repr(factory)


def qualified_name(kind: type) -> str:
    """Return the name of a class with that of its module, which a class made without ``__module__`` does not have."""
    return f"{getattr(kind, '__module__', None) or 'builtins'}.{kind.__qualname__}"


def name_of_acm(acm: object) -> str:
    """Return the name of an asynchronous context manager: that of its generator function, else that of its class."""
    made_by = getattr(acm, "func", None) if isinstance(acm, AsyncContextDecorator) else None
    return name_of(type(acm) if made_by is None else made_by)


def call_name(
    factory: Callable[..., object],
    parameters: Sequence[str],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    var_positional: str = "",
    var_keyword: Mapping[str, str] = _NONE,
) -> str:
    """Return a call as it would be written in code, with secrets masked.

    :param parameters: the names of the positional parameters, as far as they are known.
    :param var_positional: the name of the ``*args`` parameter, which takes all further arguments.
    :param var_keyword: for each keyword that goes to the ``**kwargs`` parameter, that parameter's name.
    """
    parts: list[str] = []
    for index, value in enumerate(args):
        parts.append(mask_if_secret(parameters[index] if index < len(parameters) else var_positional, safe_repr(value)))
    for name, value in kwargs.items():
        parts.append(f"{name}={mask_if_secret(var_keyword.get(name, ''), mask_if_secret(name, safe_repr(value)))}")
    return shorten(f"{name_of(factory)}({', '.join(parts)})")
