"""What `singleton` wraps keeps its whole signature, and returns what it is typed to return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, NotRequired, ParamSpec, TypedDict, TypeVar, assert_type, overload

import pytest
from typing_extensions import Unpack

from asyncio_loop_local import singleton

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", int, str)


class Client:
    def __init__(self, host: str, port: int = 80, *, retries: int = 3) -> None:
        self.address = host, port, retries


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


class Options(TypedDict):
    url: str
    timeout: NotRequired[float]


@singleton
def plain(name: str, size: int = 1, *rest: bytes, flag: bool = False, **extra: float) -> list[object]:
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


@overload
def by_type(value: int) -> str: ...
@overload
def by_type(value: str, size: int = ...) -> bytes: ...
def by_type(value: Any, size: int = 0) -> object:
    return str(value) if isinstance(value, int) else value.encode()


overloaded = singleton(by_type)


def repeat(name: str, times: int) -> str:
    return name * times


def test_a_function_is_called_as_it_was() -> None:
    """Defaults, further positional and further keyword arguments are what they were, and so is the result."""

    async def main() -> None:
        assert assert_type(plain("n"), list[object]) == ["n", 1, False, {}]
        assert assert_type(plain("n", 2, b"r", flag=True, x=1.5), list[object]) == ["n", 2, b"r", True, {"x": 1.5}]
        with pytest.raises(TypeError):
            plain()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        plain(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        plain("n", 1, 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        plain("n", x="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    asyncio.run(main())


def test_parameters_are_passed_by_position_or_by_name_as_they_were() -> None:
    """A positional-only parameter has no name outside, and a keyword-only one no place."""

    async def main() -> None:
        assert assert_type(positional_only("n"), tuple[str, int]) == ("n", 1)
        with pytest.raises(TypeError):
            positional_only(name="n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert assert_type(keyword_only(name="n"), tuple[str, int]) == ("n", 1)
        with pytest.raises(TypeError):
            keyword_only("n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        with pytest.raises(TypeError):
            keyword_only(name="n", sizes=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    asyncio.run(main())


def test_type_variables_stay_variable() -> None:
    """A generic function is generic still, with its constraints; each call finds its own types."""

    async def main() -> None:
        assert assert_type(generic(1), dict[str, int]) == {"value": 1}
        assert assert_type(generic("v", ["w"]), dict[str, str]) == {"value": "v"}
        assert assert_type(constrained("v"), str) == "v"
        assert constrained(b"v") == b"v"  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]

    asyncio.run(main())


def test_overloads_stay_overloads() -> None:
    """Each overload gives what it gave, and what none of them takes is refused."""

    async def main() -> None:
        assert assert_type(overloaded(1), str) == "1"
        assert assert_type(overloaded("1"), bytes) == b"1"
        assert assert_type(overloaded("1", size=2), bytes) == b"1"
        with pytest.raises(AttributeError):
            overloaded(None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

    asyncio.run(main())


def test_keywords_typed_by_a_typed_dict_stay_typed() -> None:
    """Keys that a `TypedDict` has are taken, those that it may have may be left out, others are refused."""

    async def main() -> None:
        assert assert_type(with_options(url="u"), str) == "u"
        assert assert_type(with_options(url="u", timeout=1.5), str) == "u"
        with pytest.raises(KeyError):
            with_options(timeout=1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        with_options(url="u", timeuot=1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    asyncio.run(main())


def test_a_parameter_specification_of_its_own_goes_on_working() -> None:
    """A function that takes a function and its arguments has these arguments checked still."""

    async def main() -> None:
        assert assert_type(call(repeat, "n", times=2), str) == "nn"
        assert assert_type(call(int, "7"), int) == 7
        with pytest.raises(TypeError):
            call(repeat, "n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        with pytest.raises(TypeError):
            call(repeat, 1, "n", 2)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]

    asyncio.run(main())


def test_a_class_becomes_the_function_that_its_constructor_is() -> None:
    """Classes, generic ones, dataclasses and named tuples are called as they were, and give their instances."""
    client, settings, row, box = singleton(Client), singleton(Settings), singleton(Row), singleton(Box[int])

    async def main() -> None:
        assert assert_type(client("h"), Client).address == ("h", 80, 3)
        assert client("h", retries=3) is client("h", 80)
        with pytest.raises(TypeError):
            client("h", 80, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert assert_type(settings("n", debug=True), Settings) == Settings("n", debug=True)
        with pytest.raises(TypeError):
            settings(nmae="n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert assert_type(row("n"), Row) == Row("n", 0)
        assert assert_type(box(1), Box[int]).value == 1
        box("v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    asyncio.run(main())


def test_a_generic_class_gives_what_its_arguments_say() -> None:
    """Of a generic class that is not subscripted, each call finds its own parameter."""
    box = singleton(Box)

    async def main() -> None:
        assert assert_type(box(1), Box[int]).value == 1
        assert assert_type(box([b""]), Box[list[bytes]]).value == [b""]

    asyncio.run(main())


def test_the_decorator_with_empty_parentheses_is_the_decorator() -> None:
    """`@singleton()` keeps what `@singleton` keeps."""

    @singleton()
    def narrow(value: Literal[1, 2], size: int = 0) -> Literal["a", "b"]:
        return "a" if value == 1 else "b"

    async def main() -> None:
        assert assert_type(narrow(1), Literal["a", "b"]) == "a"
        assert narrow(3) == "b"  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    asyncio.run(main())


def test_what_cannot_be_called_is_no_factory() -> None:
    """A value in the place of the function is refused by checkers and at run time."""
    with pytest.raises(TypeError, match="must be callable"):
        singleton(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        singleton(factory=repeat)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
