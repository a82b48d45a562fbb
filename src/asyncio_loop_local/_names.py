"""Names of factories and calls, as people read them in errors, warnings and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncContextDecorator
from functools import partial

from ._secrets import shortened, shown, unless_secret


def name_of(factory: object) -> str:
    """The name that people know a callable by."""
    while isinstance(factory, partial):
        factory = factory.func  # it has no name of its own
    name = getattr(factory, "__qualname__", None)
    return (name if isinstance(name, str) else type(factory).__qualname__).rpartition("<locals>.")[2]


def name_of_acm(acm: object) -> str:
    """The name of an ACM that was handed over as an object: that of its generator function, or of its class."""
    made_by = getattr(acm, "func", None) if isinstance(acm, AsyncContextDecorator) else None
    return name_of(type(acm) if made_by is None else made_by)


def call_name(
    factory: Callable[..., object], parameters: Sequence[str], args: Sequence[object], kwargs: Mapping[str, object]
) -> str:
    """A call as one would write it; ``parameters`` are the names of its positional arguments, as far as known."""
    parts: list[str] = []
    for index, value in enumerate(args):
        parts.append(unless_secret(parameters[index], shown(value)) if index < len(parameters) else shown(value))
    parts += [f"{name}={unless_secret(name, shown(value))}" for name, value in kwargs.items()]
    return shortened(f"{name_of(factory)}({', '.join(parts)})")
