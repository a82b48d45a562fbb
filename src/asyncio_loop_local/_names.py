"""Names of factories and calls, as people read them in errors, warnings and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncContextDecorator
from functools import partial
from typing import cast

from ._secrets import shortened, shown, unless_secret

_NONE: Mapping[str, str] = {}


def name_of(factory: object) -> str:
    """The name that people know a callable by."""
    while isinstance(factory, partial):
        factory = factory.func  # it has no name of its own
    name = getattr(factory, "__qualname__", None)
    return (name if isinstance(name, str) else type(factory).__qualname__).rpartition("<locals>.")[2]


def shown_unwrapped(factory: object) -> str:
    """What is shown of something that may be a callable: a partial's arguments have no names here, and may be secrets."""
    if type(factory) is partial:
        return f"functools.partial of {name_of(cast('Callable[..., object]', factory))}"
    return shown(factory)


def name_of_acm(acm: object) -> str:
    """The name of an ACM that was handed over as an object: that of its generator function, or of its class."""
    made_by = getattr(acm, "func", None) if isinstance(acm, AsyncContextDecorator) else None
    return name_of(type(acm) if made_by is None else made_by)


def call_name(
    factory: Callable[..., object],
    parameters: Sequence[str],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    more: str = "",
    more_by_name: Mapping[str, str] = _NONE,
) -> str:
    """A call as one would write it.

    ``parameters`` are the names of its positional arguments, as far as known, ``more`` that of all further ones, and
    ``more_by_name`` that of the parameter to which a keyword goes, where that is another one.
    """
    parts: list[str] = []
    for index, value in enumerate(args):
        parts.append(unless_secret(parameters[index] if index < len(parameters) else more, shown(value)))
    for name, value in kwargs.items():
        parts.append(f"{name}={unless_secret(more_by_name.get(name, ''), unless_secret(name, shown(value)))}")
    return shortened(f"{name_of(factory)}({', '.join(parts)})")
