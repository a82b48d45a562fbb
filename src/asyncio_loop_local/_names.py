"""Names of factories and calls, as people read them in errors, warnings and logs: short, with secrets masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import cast

_MASK = "***"
_LONGEST = 200

_SECRET_WORD = r"(?:passw|pwd|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credential|authorization|cookie)"  # noqa: S105  # the words themselves
_SECRET_NAME = re.compile(_SECRET_WORD, re.IGNORECASE)
_QUOTED = r"""b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*\""""
# What reprs and connection strings write before a secret, then the secret: name=value, 'name': value, scheme://user:value@
_SECRET_IN_TEXT = re.compile(
    rf"(?P<before>[\w-]*{_SECRET_WORD}[\w-]*(?:\s*=\s*|['\"]\s*[:,]\s*))(?P<value>{_QUOTED}|[^\s,;&)\]}}'\"]+)",
    re.IGNORECASE,
)
_SECRET_IN_URL = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:)[^\s/'\"]*(?=@)", re.IGNORECASE)
_BEARER = re.compile(r"(?P<before>\b(?:Bearer|Basic)\s+)[^\s'\",]+", re.IGNORECASE)


def name_of(factory: object) -> str:
    """The name that people know a callable by."""
    while isinstance(factory, partial):
        factory = cast("partial[object]", factory).func
    name: object = getattr(factory, "__qualname__", None)
    if not isinstance(name, str):
        name = type(factory).__qualname__
    return name.rpartition("<locals>.")[2]


def name_of_acm(acm: object) -> str:
    """The name of an ACM that was handed over as an object: that of its generator function, or of its class."""
    function: object = vars(acm).get("func") if hasattr(acm, "__dict__") else None
    return name_of(function if isinstance(function, FunctionType) else type(acm))


def is_secret(name: str) -> bool:
    """Whether what has this name is not to be shown."""
    return _SECRET_NAME.search(name) is not None


def masked(text: str) -> str:
    """The text without the passwords and tokens that stand in it."""
    for pattern in (_SECRET_IN_URL, _SECRET_IN_TEXT, _BEARER):
        text = pattern.sub(rf"\g<before>{_MASK}", text)
    return text


def shown(value: object) -> str:
    """A short repr that never fails and shows no secrets."""
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__qualname__} object>"
    return _shortened(masked(text))


def call_name(
    factory: Callable[..., object], parameters: Sequence[str], args: Sequence[object], kwargs: Mapping[str, object]
) -> str:
    """A call as one would write it; ``parameters`` are the names of its positional arguments, as far as known."""
    parts: list[str] = []
    for index, value in enumerate(args):
        hidden = index < len(parameters) and is_secret(parameters[index])
        parts.append(_MASK if hidden else shown(value))
    parts += [f"{name}={_MASK if is_secret(name) else shown(value)}" for name, value in kwargs.items()]
    return _shortened(f"{name_of(factory)}({', '.join(parts)})")


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
