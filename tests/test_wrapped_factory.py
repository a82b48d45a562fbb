"""A wrapped factory looks like the factory, and nothing evaluates the factory's annotations."""

from __future__ import annotations

import collections
import contextlib
import enum
import functools
import inspect
import sys
import typing
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from asyncio_loop_local import _cpython, singleton
from programs import run_python
from recording import on_one_loop


@dataclass
class Settings:
    host: str
    port: int = 80

    def with_port(self, port: int) -> Settings:
        return Settings(self.host, port)

    def __call__(self, scheme: str) -> str:
        return f"{scheme}://{self.host}:{self.port}"


def url(scheme: str, host: str = "h") -> bytes:
    return f"{scheme}://{host}".encode()


class Child(Settings):
    path: bytes


@pytest.mark.parametrize("factory", [url, Settings, Child, Settings("h").with_port, len, int])
def test_get_type_hints_gives_what_it_gives_on_the_factory(factory: Callable[..., Any]) -> None:
    """Frameworks that read the hints of a wrapped function, class, method or built-in find those of the factory."""
    assert typing.get_type_hints(singleton(factory)) == typing.get_type_hints(factory)


@pytest.mark.parametrize("factory", [Settings("h"), functools.partial(url, "http")])
def test_get_type_hints_gives_nothing_where_it_refuses_the_factory(factory: Callable[..., Any]) -> None:
    """A callable object, or a partial, has no hints of its own; Python before 3.14 refuses it."""
    assert typing.get_type_hints(singleton(factory)) == {}


UNIMPORTED = """
import asyncio, inspect, sys
from typing import TYPE_CHECKING
import asyncio_loop_local
from asyncio_loop_local import atexit, override, release, singleton

if TYPE_CHECKING:
    from nowhere import Config

def plain(config: Config) -> Config:
    return config

class Client:
    config: Config
    def __init__(self, config: Config) -> None:
        self.config = config
    def method(self, config: Config) -> Config:
        return config
    @classmethod
    @singleton
    def made(cls, config: Config) -> Config:
        return config

async def main():
    with override(Client.made, plain):
        assert Client.made(1) is Client.made(config=1)
    for factory in (plain, Client, Client(1).method):
        wrapped = singleton(factory)
        assert wrapped(1) is wrapped(config=1)
        assert await release(wrapped, 1)
        atexit.register(factory, 1)
    held = [each.name for each in asyncio.get_running_loop()._asyncio_loop_local.exits]
    assert held[0] == "atexit callback plain(1)", held
    await asyncio_loop_local.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated when they are defined")
def test_names_that_only_a_checker_imports_are_never_evaluated() -> None:
    """A factory whose annotations name what is imported `if TYPE_CHECKING` works, and so do its names in messages."""
    done = run_python("-c", UNIMPORTED)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports are new in 3.15")
def test_a_lazy_import_that_only_annotations_name_stays_lazy() -> None:
    """Wrapping and calling a factory does not load the module that its annotations name."""
    program = UNIMPORTED.replace("if TYPE_CHECKING:\n    from nowhere import Config", "lazy from wave import Wave_read as Config")
    program += "assert 'wave' not in sys.modules\n"
    done = run_python("-c", program)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@on_one_loop
async def test_a_class_without_a_module_is_named_in_the_error() -> None:
    """The error of an argument that cannot be part of a key names its class, also if that has no `__module__`."""
    bare: Any = type("Bare", (), {"__slots__": (), "__hash__": None, "__module__": None})

    with pytest.raises(TypeError, match=r"argument 'scheme' of url\(\) is of type Bare, which"):
        singleton(url)(bare())


@pytest.mark.skipif(sys.version_info < (3, 15), reason="frozendict is new in 3.15")
@on_one_loop
async def test_a_frozendict_counts_by_value() -> None:
    """In a frozendict, too, 1 and True are different, and a list counts by its content."""
    frozendict: Any = getattr(typing, "frozendict", None) or vars(sys.modules["builtins"])["frozendict"]

    @singleton
    def make(_argument: object) -> object:
        return object()

    assert make(frozendict(a=1)) is make(frozendict(a=1))
    assert make(frozendict(a=1)) is not make(frozendict(a=True))
    assert make(frozendict(a=1)) is not make({"a": 1})
    assert make(frozendict(a=[1])) is make(frozendict(a=[1]))
    assert make(frozendict(a=[1])) is not make(frozendict(a=[2]))


class Made:
    def __new__(cls, _host: str, *_more: int) -> Made:
        return super().__new__(cls)


class Metaclass(type):
    def __call__(cls, host: str) -> Any:
        return super().__call__()


class ByMetaclass(metaclass=Metaclass):
    pass


class WithSignature:
    __signature__ = inspect.Signature([inspect.Parameter("given", inspect.Parameter.KEYWORD_ONLY)])


class Preset(Settings):
    on_default_port = functools.partialmethod(Settings.with_port, 80)


@contextlib.asynccontextmanager
async def decorated(host: str, *, port: int = 80) -> AsyncGenerator[None]:
    yield


@functools.wraps(decorated)
def decorated_twice(*args: Any, **kwargs: Any) -> Any:
    return decorated(*args, **kwargs)


@pytest.mark.parametrize(
    "factory",
    [
        *(url, Settings, Child, Settings("h").with_port, Settings("h"), Made, ByMetaclass, WithSignature, decorated, dict, len),
        *(functools.partial(url, host="x"), functools.partial(Settings("h").with_port, 1), functools.partial(Made, "h")),
        *(Preset.on_default_port, Preset("h").on_default_port, decorated_twice),
        *(Settings.with_port, enum.Enum, typing.NamedTuple("Pair", [("one", int), ("two", str)]), collections.OrderedDict),
    ],
)
def test_the_parameters_are_read_as_inspect_reads_them(factory: Callable[..., Any]) -> None:
    """Leaving annotations alone changes no parameter: neither its name, nor its kind, nor its default."""

    def parameters(read: Callable[[Callable[..., Any]], inspect.Signature]) -> object:
        try:
            return [(each.name, each.kind, each.default) for each in read(factory).parameters.values()]
        except (TypeError, ValueError) as error:
            return type(error)

    assert parameters(_cpython.signature) == parameters(inspect.signature)
