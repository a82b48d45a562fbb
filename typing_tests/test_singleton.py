"""What `singleton` wraps keeps its whole signature, and returns what it is typed to return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, NamedTuple, ParamSpec, TypeVar, assert_type

import pytest
from typing_extensions import Unpack
from typing_tests.shapes import Client, Gives, Options, by_type, plain, refused, repeat

from asyncio_loop_local import singleton, sticky_singleton_acm

pytestmark = pytest.mark.asyncio
P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", int, str)


@dataclass
class Settings:
    name: str
    debug: bool = False


class Row(NamedTuple):
    name: str
    size: int = 0


class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class Maker(Generic[T]):
    """Can be called."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __call__(self, name: str, *, size: int = 1) -> Gives[tuple[str, int, T]]:
        return Gives((name, size, self._value))


@singleton
def every_kind(name: str, size: int = 1, *rest: bytes, flag: bool = False, **extra: float) -> list[object]:
    return [name, size, *rest, flag, extra]


@singleton
def positional_only(name: str, size: int = 1, /) -> tuple[str, int]:
    return name, size


@singleton
def keyword_only(*, name: str, size: int = 1) -> tuple[str, int]:
    return name, size


@singleton
def generic(value: T, more: list[T] | None = None) -> dict[str, T]:
    return {"value": value}


@singleton
def constrained(value: N) -> N:
    return value


@singleton
def with_options(**options: Unpack[Options]) -> str:
    return options["url"]


@singleton
def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


@singleton()
def narrow(value: Literal[1, 2], size: int = 0) -> Literal["a", "b"]:
    return "a" if value == 1 else "b"


def typed(function: Callable[[int], T]) -> Callable[[int], T]:
    return singleton(function)


overloaded = singleton(by_type)


async def test_a_function_is_called_as_it_was() -> None:
    """Defaults, further positional and further keyword arguments are what they were, and so is the result."""
    assert assert_type(every_kind("n"), list[object]) == ["n", 1, False, {}]
    assert assert_type(every_kind("n", 2, b"r", flag=True, x=1.5), list[object]) == ["n", 2, b"r", True, {"x": 1.5}]
    refused(lambda: every_kind())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    every_kind(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    every_kind("n", 1, 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    every_kind("n", x="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_parameters_are_passed_by_position_or_by_name_as_they_were() -> None:
    """A positional-only parameter has no name outside, and a keyword-only one no place."""
    assert assert_type(positional_only("n"), tuple[str, int]) == ("n", 1)
    refused(lambda: positional_only(name="n"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert assert_type(keyword_only(name="n"), tuple[str, int]) == ("n", 1)
    refused(lambda: keyword_only("n"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    refused(lambda: keyword_only(name="n", sizes=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_type_variables_stay_variable() -> None:
    """A generic function is generic still, with its constraints; each call finds its own types."""
    assert assert_type(generic(1), dict[str, int]) == {"value": 1}
    assert assert_type(generic("v", ["w"]), dict[str, str]) == {"value": "v"}
    assert assert_type(constrained("v"), str) == "v"
    assert constrained(b"v") == b"v"  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


async def test_overloads_stay_overloads() -> None:
    """Each overload gives what it gave, and what none of them takes is refused."""
    assert assert_type(overloaded(1), str) == "1"
    assert assert_type(overloaded("1"), bytes) == b"1"
    assert assert_type(overloaded("1", size=2), bytes) == b"1"
    with pytest.raises(AttributeError):
        overloaded(None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_keywords_typed_by_a_typed_dict_stay_typed() -> None:
    """Keys that a `TypedDict` has are taken, those that it may have may be left out, others are refused."""
    assert assert_type(with_options(url="u"), str) == "u"
    assert assert_type(with_options(url="u", timeout=1.5), str) == "u"
    with pytest.raises(KeyError):
        with_options(timeout=1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_options(url="u", timeuot=1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_parameter_specification_of_its_own_goes_on_working() -> None:
    """A function that takes a function and its arguments has these arguments checked still."""
    assert assert_type(call(repeat, "n", times=2), str) == "nn"
    assert assert_type(call(int, "7"), int) == 7
    refused(lambda: call(repeat, "n"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    refused(lambda: call(repeat, 1, "n", 2))  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


async def test_a_class_becomes_the_function_that_its_constructor_is() -> None:
    """Classes, generic ones, dataclasses and named tuples are called as they were, and give their instances."""
    client, settings, row, box = singleton(Client), singleton(Settings), singleton(Row), singleton(Box[int])
    assert assert_type(client("h"), Client).address == ("h", 80, 3)
    assert client("h", retries=3) is client("h", 80)
    refused(lambda: client("h", 80, 3))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert assert_type(settings("n", debug=True), Settings) == Settings("n", debug=True)
    refused(lambda: settings(nmae="n"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert assert_type(row("n"), Row) == Row("n", 0)
    assert assert_type(box(1), Box[int]).value == 1
    box("v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_generic_class_gives_what_its_arguments_say() -> None:
    """Of a generic class that is not subscripted, each call finds its own parameter."""
    box = singleton(Box)
    assert assert_type(box(1), Box[int]).value == 1
    assert assert_type(box([b""]), Box[list[bytes]]).value == [b""]


async def test_the_decorator_with_empty_parentheses_is_the_decorator() -> None:
    """`@singleton()` keeps what `@singleton` keeps."""
    assert assert_type(narrow(1), Literal["a", "b"]) == "a"
    assert narrow(3) == "b"  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_what_cannot_be_called_is_no_factory() -> None:
    """A value in the place of the function is refused by checkers and at run time."""
    with pytest.raises(TypeError, match="must be callable"):
        singleton(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    refused(lambda: singleton(factory=repeat))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def test_an_object_that_can_be_called_has_the_signature_of_its_call() -> None:
    """Its type parameter is known, its arguments are checked."""
    make = sticky_singleton_acm(Maker(b"m"))
    async with make("n", size=2) as value:
        assert assert_type(value, tuple[str, int, bytes]) == ("n", 2, b"m")
    refused(lambda: make("n", 2))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_lambda_has_the_type_of_what_it_returns() -> None:
    """A lambda without parameters needs no annotation."""
    make = singleton(lambda: [1])
    assert assert_type(make(), list[int]) == [1]
    refused(lambda: make(1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_partial_call_gives_what_its_function_gives() -> None:
    """What a partial call takes is known to pyright, and to mypy with the plugin; what it gives, to every checker."""
    make = singleton(partial(plain, "n", flag=True))
    assert assert_type(make(), list[object]) == ["n", 1, True]
    assert assert_type(make(2), list[object]) == ["n", 2, True]
    refused(lambda: make(nope=1))  # pyright: ignore[reportCallIssue]


async def test_a_variable_of_a_callable_type_is_a_factory() -> None:
    """A function that takes a function can give back the singleton of it, with the type that it has."""

    def double(number: int) -> list[int]:
        return [number, number]

    make = typed(double)
    assert assert_type(make(1), list[int]) == [1, 1]
    assert make(1) is make(1)
    make("s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
