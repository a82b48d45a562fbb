"""The cases of the mypy plugin in `tests/plugins/mypy_plugin.test`, as modules to check and the errors that mypy must give.

A case starts with ``[case name] promise``. A line that must give an error ends in ``# E:`` and the error: mypy's text, or a key
of `MESSAGES` and its parts. What follows ``# importer:`` is a module of its own, which imports all names of the first part.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mypy_runs import ROOT

FACTORIES = """\
from __future__ import annotations

import array
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
Array = array.array[int]


class Connector:
    pass


class Session:
    def __init__(self, url: str, *, connector: object = None, data: object = None) -> None:
        self.url = url

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    async def close(self) -> None:
        pass


class Box(Generic[T]):
    def __init__(self, item: T, size: int = 1, data: object = None) -> None:
        self.item = item

    async def __aenter__(self) -> T:
        return self.item

    async def __aexit__(self, *args: object) -> None:
        pass


@overload
def convert(x: int) -> int: ...
@overload
def convert(x: str, y: object = None) -> str: ...
def convert(x: Any, y: object = None) -> Any: ...
"""

WRAPPING = """\
from asyncio_loop_local import singleton, sticky_singleton_acm

import factories

make = sticky_singleton_acm(factories.Session)


@singleton
def value(*args: object, **kwargs: object) -> int:
    return 1
"""

# Of packages that are imported, not checked. Of those with names of real ones, it is what matters here.
STUBS = {
    "stubs.pyi": """\
class Date:  # it compares by value, and its stub does not say so
    def __init__(self) -> None: ...
""",
    "multidict/__init__.py": """\
from ._multidict_py import CIMultiDict as CIMultiDict
""",
    "multidict/_multidict_py.py": """\
class MultiDict:
    def __eq__(self, other: object) -> bool: return True

class CIMultiDict(MultiDict): ...
""",
    "google/protobuf/message.pyi": """\
class Message:
    def __eq__(self, other: object) -> bool: ...
""",
    "anyio/__init__.py": """\
from ._core._eventloop import run as run
""",
    "anyio/_core/_eventloop.py": """\
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

def run(func: Callable[[Unpack[Ts]], Awaitable[T]], *args: Unpack[Ts], backend: str = "asyncio") -> T:
    raise NotImplementedError
""",
    "uvloop.pyi": """\
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T: ...
""",
    "attr/__init__.pyi": """\
from collections.abc import Callable
from typing import TypeVar, overload

T = TypeVar("T")

@overload
def frozen(kind: type[T], /) -> type[T]: ...
@overload
def frozen(*, eq: bool = True) -> Callable[[type[T]], type[T]]: ...
@overload
def define(kind: type[T], /) -> type[T]: ...
@overload
def define(*, eq: bool = True) -> Callable[[type[T]], type[T]]: ...
""",
    "attrs.pyi": "from attr import define as define, frozen as frozen",
    "pydantic_core/__init__.pyi": "from ._pydantic_core import ArgsKwargs as ArgsKwargs",
    "pydantic_core/_pydantic_core.pyi": """\
class ArgsKwargs:
    def __init__(self, args: tuple[object, ...]) -> None: ...
""",
    "msgspec/__init__.pyi": """\
from typing import dataclass_transform

class StructMeta(type):
    def __init__(cls, *args: object) -> None: ...

class Raw(bytes): ...  # it is none

@dataclass_transform()
class Struct(metaclass=StructMeta):
    def __init_subclass__(cls, frozen: bool = False, eq: bool = True) -> None: ...
""",
}

BEGINNING = """\
from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib.machinery
import io
import logging
import sys
import zoneinfo
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar
from typing import assert_never, cast, final, overload

from typing_extensions import TypeVar as TypeVarWithDefault, deprecated

from asyncio_loop_local import enter, enter_once, release, singleton, sticky_acm, sticky_singleton_acm

import wrapping
from factories import Array, Box, Connector, Session, T, convert
from wrapping import make, value

"""

KEY = (
    "is neither hashable nor compared by value, so it cannot be part of a key: pass something hashable, or use key=... to say "
    "which calls are the same  [loop-local-key]"
)
FRESH = (
    "at every call, equal to no other, so each call makes a value of its own: create it once and pass that one, create it inside "
    "the factory, or use key=... to say which calls are the same  [loop-local-fresh-key]"
)
STICKY = "use sticky_singleton_acm, which enters it once and gives its value to every block"
ACM_FUNCTION = "use sticky_singleton_acm with an @contextlib.asynccontextmanager function"
MESSAGES = {
    "key": f'Argument {{}} to {{}} has type "{{}}", which {KEY}',
    "key inside": f'Argument {{}} to {{}} has type "{{}}", which holds "{{}}", which {KEY}',
    "fresh": f"Argument {{}} to {{}} is a new {{}} {FRESH}",
    "fresh inside": f"Argument {{}} to {{}} holds a new {{}} {FRESH}",
    "no-loop": "{} is called while the module is imported, when no event loop is running: call it in a coroutine, or in a "
    "function that a coroutine calls  [loop-local-no-loop]",
    "key function": "The key function of {} does not accept all arguments that the factory accepts: give it the same parameters, "
    "or *args and **kwargs for those that it does not use  [loop-local-key-function]",
    "escape": "{}() returns the value of {}, which is closed with its loop: use the value inside the coroutine, and "
    "return what you need of it  [loop-local-escape]",
    "closed": '"{}" closes the value of {} for all others that use it: leave that to the end of the loop or to release(), or use '
    "valid=... to say when a new one is made  [loop-local-closed]",
    "decorator": '{0} replaces the class "{1}" with a function, but mypy still treats it as a class: leave the class undecorated '
    "and wrap it under another name, as in get_{2} = {3}({1})  [loop-local-decorator]",
    "entered once": "asynchronous context manager, which can be entered only once: " + STICKY,
    "entered once, sync": f"context manager, which can be entered only once: return its value, or {ACM_FUNCTION}",
    "run once": f"asynchronous generator, which can be run only once: add @contextlib.asynccontextmanager and {STICKY}",
    "run once, sync": f"generator, which can be run only once: return a list or a tuple, or {ACM_FUNCTION}",
}
for kind in ("entered once", "entered once, sync", "run once", "run once, sync"):
    MESSAGES[kind] = f"A singleton of {{}} gives every caller the same {MESSAGES[kind]}  [loop-local-single-use]"


class Case(NamedTuple):
    """The modules of one case by their file names, and the errors of mypy in them."""

    promise: str
    files: dict[str, str]
    errors: list[str]


def _read() -> dict[str, Case]:
    text = (ROOT / "tests" / "plugins" / "mypy_plugin.test").read_text()
    cases: dict[str, Case] = {}
    for name, promise, code in re.findall(r"^\[case (\w+)\] (.*)\n((?:(?!\[case ).*\n)*)", text, re.MULTILINE):
        first, *second = code.split("# importer:\n")
        case = cases[name] = Case(promise, {f"case_{name}.py": BEGINNING + first}, [])
        if second:
            case.files[f"use_{name}.py"] = f"{BEGINNING}from case_{name} import *\n{second[0]}"
        for file, module in case.files.items():
            for number, line in enumerate(module.splitlines(), 1):
                for error in line.split("  # E: ")[1:]:
                    kind, *parts = re.split(r" \| (?!None)", error)
                    case.errors.append(f"{file}:{number}: error: {MESSAGES[kind].format(*parts) if parts else kind}")
    return cases


CASES = _read()
MODULES = {"factories.py": FACTORIES, "wrapping.py": WRAPPING} | {
    file: text for case in CASES.values() for file, text in case.files.items()
}
FILES = MODULES | STUBS
