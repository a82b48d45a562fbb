"""The mypy plugin reports what fails at run time, names the mend, and says nothing where it does not know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from mypy_runs import ROOT, mypy_version, run, write

pytestmark = [
    pytest.mark.skipif(mypy_version() < (1, 15), reason="no mypy of 1.15 or later is installed"),
    pytest.mark.timeout(300),
]

PRELUDE = """\
from __future__ import annotations

import array
import asyncio
import functools
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar, cast, overload

from asyncio_loop_local import singleton, sticky_singleton_acm

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


make = sticky_singleton_acm(Session)


@singleton
def value(*args: object, **kwargs: object) -> int:
    return 1


@overload
def convert(x: int) -> int: ...
@overload
def convert(x: str, y: object = None) -> str: ...
def convert(x: Any, y: object = None) -> Any: ...


"""
FIRST_LINE = PRELUDE.count("\n") + 1


def key(argument: int | str, name: str, typ: str, *, holds: str | None = None) -> str:
    which = f'"{argument}"' if isinstance(argument, str) else argument
    what = "which" if holds is None else f'which holds "{holds}", which'
    return (
        f'Argument {which} to {name} has type "{typ}", {what} is neither hashable nor compared by value, so it cannot be part of '
        f"a key: pass something hashable, or use key=... to say which calls are the same  [loop-local-key]"
    )


def fresh(argument: int | str, name: str, new: str, *, verb: str = "is") -> str:
    which = f'"{argument}"' if isinstance(argument, str) else argument
    return (
        f"Argument {which} to {name} {verb} a new {new} at every call, equal to no other, so each call makes a value of its own: "
        f"create it once and pass that one, create it inside the factory, or use key=... to say which calls are the same"
        f"  [loop-local-fresh-key]"
    )


def no_loop(name: str) -> str:
    return (
        f"{name} is called while the module is imported, when no event loop is running: call it in a coroutine, or in a "
        f"function that a coroutine calls  [loop-local-no-loop]"
    )


def decorator(name: str, cls: str) -> str:
    return (
        f'"{name}" replaces the class "{cls}" with a function, but mypy still treats it as a class: leave the class '
        f"undecorated and wrap it under another name, as in get_{cls.lower()} = {name}({cls})  [loop-local-decorator]"
    )


def single_use(name: str, what: str) -> str:
    return f"A singleton of {name} gives every caller the same {what}  [loop-local-single-use]"


STICKY = "sticky_singleton_acm, which enters it once and gives its value to every block"
ENTERED_ONCE = f"asynchronous context manager, which can be entered only once: use {STICKY}"
RUN_ONCE = f"asynchronous generator, which can be run only once: add @contextlib.asynccontextmanager and use {STICKY}"
SYNC_ENTERED_ONCE = (
    "context manager, which can be entered only once: return its value, or use sticky_singleton_acm with an "
    "@contextlib.asynccontextmanager function"
)
GENERATOR = (
    "generator, which can be run only once: return a list or a tuple, or use sticky_singleton_acm with an "
    "@contextlib.asynccontextmanager function"
)


@dataclass
class Case:
    """Code in which each line that ends in ``# wrong`` is reported, in this order, and no other."""

    promise: str
    code: str
    reported: tuple[str, ...] = ()

    def expected(self) -> list[str]:
        """Each as a line number of the file and a message."""
        lines = dedent(self.code).splitlines()
        wrong = [number for number, line in enumerate(lines, FIRST_LINE) if line.endswith("# wrong")]
        assert len(wrong) == len(self.reported), "as many lines are marked as messages are given"
        return sorted(f"{number}: error: {message}" for number, message in zip(wrong, self.reported, strict=True))


CASES = {
    "key": Case(
        "An argument that neither hashes nor counts by value is reported, by keyword and by position.",
        """
        async def main(numbers: Array) -> None:
            make("u", data=numbers)  # wrong
            value(1, numbers)  # wrong
            value(numbers.tolist(), numbers.tobytes(), (1, 2))
        """,
        (key("data", '"Session"', "array[int]"), key(2, '"value"', "array[int]")),
    ),
    "key_nested": Case(
        "It is found in containers, unions, tuples, typed dicts, bounds, new types and recursive types.",
        """
        class Record(TypedDict):
            numbers: Array

        class Pair(NamedTuple):
            numbers: Array

        class Arrays(list[Array]):
            pass

        Numbers = NewType("Numbers", Array)
        Tree = dict[str, "Tree"] | Array
        Bound = TypeVar("Bound", bound=Array)

        async def main(
            maybe: Array | None, rows: list[tuple[frozenset[Array], int]], tree: Tree, numbers: Numbers, record: Record,
            pair: Pair, arrays: Arrays, any_bound: Callable[[Bound], None], unbound: T,
        ) -> None:
            value(maybe)  # wrong
            value(rows)  # wrong
            value(numbers)  # wrong
            value(record)  # wrong
            value(pair)  # wrong
            value(arrays)  # wrong
            value(any_bound, unbound)

        async def generic(bound: Bound) -> Bound:
            value(bound)  # wrong
            return bound
        """,
        (
            key(1, '"value"', "array[int] | None", holds="array[int]"),
            key(1, '"value"', "list[tuple[frozenset[array[int]], int]]", holds="array[int]"),
            key(1, '"value"', "Numbers"),
            key(1, '"value"', "Record", holds="array[int]"),
            key(1, '"value"', "Pair", holds="array[int]"),
            key(1, '"value"', "Arrays", holds="array[int]"),
            key(1, '"value"', "Bound", holds="array[int]"),
        ),
    ),
    "key_starred": Case(
        "The items of starred arguments are looked at.",
        """
        async def main(rows: list[Array], named: dict[str, Array], one: tuple[int, Array], fine: dict[str, int]) -> None:
            value(*rows)  # wrong
            value(**named)  # wrong
            value(*one)  # wrong
            value(*fine, **fine)
        """,
        (
            key(1, '"value"', "list[array[int]]", holds="array[int]"),
            key(1, '"value"', "dict[str, array[int]]", holds="array[int]"),
            key(1, '"value"', "tuple[int, array[int]]", holds="array[int]"),
        ),
    ),
    "key_own": Case(
        "Where key= is given, arguments may be what they will, however the decorator is written.",
        """
        def by_url(url: str, *, connector: object = None, data: object = None) -> str:
            return url

        keyed = sticky_singleton_acm(key=by_url)(Session)
        keyed_in_one = sticky_singleton_acm(Session, key=by_url)
        no_key = sticky_singleton_acm(key=None)(Session)
        once_by_first = singleton(key=lambda first, *rest: first)

        @singleton(key=lambda x: 1)
        def keyed_value(x: object) -> int:
            return 1

        @once_by_first
        def keyed_later(x: int, y: object) -> int:
            return 1

        async def main(numbers: Array) -> None:
            keyed("u", data=numbers, connector=Connector())
            keyed_in_one("u", data=numbers, connector=Connector())
            no_key("u", data=numbers)  # wrong
            keyed_value(numbers)
            keyed_value(Connector())
            keyed_later(1, numbers)
            singleton(key=lambda x: 1)(keyed_value)(numbers)
        """,
        (key("data", '"Session"', "array[int]"),),
    ),
    "key_known": Case(
        "What hashes, and what counts by value, is never reported.",
        """
        @dataclass
        class Settings:
            numbers: list[int]

        @dataclass(frozen=True)
        class Frozen:
            number: int

        class Equal:
            def __eq__(self, other: object) -> bool:
                return True

        class HashedArrays(list[Array]):
            def __hash__(self) -> int:  # type: ignore[override]
                return 1

        class EqualArray(Array):
            def __eq__(self, other: object) -> bool:
                return True

        class Colour(Enum):
            RED = 1

        async def main(settings: Settings, frozen: Frozen, equal: Equal, hashed: HashedArrays, array_: EqualArray) -> None:
            value(settings, frozen, equal, hashed, array_, Colour.RED, Colour("red"), Session, make, main, None, ...)
            value([], {}, set(), bytearray(b""), (), {"a": [1, {2}]}, b"", 1j, frozenset({1}), deque([1]))
            value(ChainMap({1: 2}), Counter("aa"), OrderedDict({1: 2}), defaultdict(int))
        """,
    ),
    "key_unknown": Case(
        "Of what is not known nothing is said: Any, object, protocols, abstract types, untyped factories.",
        """
        from nowhere import Mystery  # type: ignore[import-not-found]

        class Shape(Protocol):
            numbers: Array

        anything: Any = None
        unknown = singleton(anything)
        mystery = singleton(Mystery)

        class Odd(Mystery):  # type: ignore[misc]
            pass

        async def main(
            a: object, b: Any, c: Shape, d: Mapping[str, Array], e: Sequence[Array], f: type[Array], g: Callable[[], Array]
        ) -> None:
            value(a, b, c, d, e, f, g, *b, **b)
            value(Mystery(), Odd())
            unknown(a, b)
            mystery(a, b)
            undefined(b)  # type: ignore[name-defined]
        """,
    ),
    "fresh": Case(
        "A new object that equals no other is reported: an instance, a lambda, a generator.",
        """
        class Box(Generic[T]):
            pass

        async def main() -> None:
            make("u", connector=Connector())  # wrong
            value(lambda: 1)  # wrong
            value(1, asyncio.Lock())  # wrong
            value(Box[int]())  # wrong
            value(n for n in range(3))  # wrong
            value(object())  # wrong
            value(functools.partial(print))  # wrong
            connector = Connector()
            make("u", connector=connector)
        """,
        (
            fresh("connector", '"Session"', '"Connector"'),
            fresh(1, '"value"', "lambda"),
            fresh(2, '"value"', '"Lock"'),
            fresh(1, '"value"', '"Box"'),
            fresh(1, '"value"', "generator"),
            fresh(1, '"value"', '"object"'),
            fresh(1, '"value"', '"partial"'),
        ),
    ),
    "fresh_nested": Case(
        "It is found in displays, conditionals, casts, stars and new types.",
        """
        Guard = NewType("Guard", asyncio.Lock)

        async def main(flag: bool, other: Connector | None) -> None:
            value((1, [Connector()]))  # wrong
            value({"a": Connector()})  # wrong
            value(other if flag else Connector())  # wrong
            value(other or Connector())  # wrong
            value(cast(object, Connector()))  # wrong
            value(named := Connector())  # wrong
            value(*[Connector()])  # wrong
            value(Guard(asyncio.Lock()))  # wrong
            lock = asyncio.Lock()
            value(Guard(lock), named)
        """,
        (
            fresh(1, '"value"', '"Connector"', verb="holds"),
            fresh(1, '"value"', '"Connector"', verb="holds"),
            fresh(1, '"value"', '"Connector"'),
            fresh(1, '"value"', '"Connector"'),
            fresh(1, '"value"', '"Connector"'),
            fresh(1, '"value"', '"Connector"'),
            fresh(1, '"value"', '"Connector"', verb="holds"),
            fresh(1, '"value"', '"Lock"'),
        ),
    ),
    "fresh_not": Case(
        "What is equal to another one, or may be what there was, is not reported.",
        """
        class Named:
            def __init__(self, name: str) -> None:
                self.name = name

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Named) and self.name == other.name

            def __hash__(self) -> int:
                return hash(self.name)

        @dataclass
        class Point:
            x: int

        class Cached:
            def __new__(cls) -> Cached:
                return super().__new__(cls)

        class Meta(type):
            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                return 1

        class Made(metaclass=Meta):
            pass

        def connector() -> Connector:
            return Connector()

        async def main(kind: type[Connector]) -> None:
            value(Named("a"), Point(1), Cached(), Made(), kind(), connector(), type(kind), str(1), int("1"))
            value(*(n for n in range(3)), *map(str, [1]), **dict(a=1))
        """,
    ),
    "no_loop": Case(
        "A call at module level, in a class body, in a default or a decorator is reported.",
        """
        value(1)  # wrong

        def decorate(x: object) -> Callable[[T], T]:
            return lambda function: function

        class Holder:
            number = value(2)  # wrong

            def method(self, x: int = value(3)) -> None:  # wrong
                value(4)

        @decorate(value(5))  # wrong
        def function(x: int = value(6)) -> None:  # wrong
            value(7)

        if __name__ == "__main__":
            value(8)  # wrong
        numbers = [value(9) for _ in range(2)]  # wrong
        later = (n for n in range(value(10)))  # wrong
        session = make("u")  # wrong
        """,
        (*[no_loop('"value"')] * 8, no_loop('"Session"')),
    ),
    "no_loop_later": Case(
        "What runs later, or only in a checker, is not reported.",
        """
        later = (value(n) for n in range(2))
        function = lambda: value(1)  # noqa: E731

        if TYPE_CHECKING:
            value(2)

        async def main(x: int = 1) -> None:
            value(3)

            class Local:
                number = value(4)

            def inner(y: int = value(5)) -> None: ...
        """,
    ),
    "decorated_class": Case(
        "A decorated class is reported, and its type left as it is.",
        """
        @singleton  # wrong
        class Settings:
            number = 1

        @sticky_singleton_acm()  # wrong
        class Pool(Session):
            pass

        class Plain:
            pass

        get_plain = singleton(Plain)

        async def main() -> Plain:
            return get_plain()
        """,
        (decorator("singleton", "Settings"), decorator("sticky_singleton_acm", "Pool")),
    ),
    "single_use": Case(
        "A singleton of what can be used only once is reported.",
        """
        @asynccontextmanager
        async def connection() -> AsyncIterator[int]:
            yield 1

        @contextmanager
        def opened() -> Iterator[int]:
            yield 1

        def numbers() -> Iterator[int]:
            yield 1

        async def async_numbers() -> AsyncIterator[int]:
            yield 1

        get_connection = singleton(connection)  # wrong
        get_opened = singleton(key=lambda: 1)(opened)  # wrong
        get_numbers = singleton(numbers)  # wrong
        get_async_numbers = singleton(async_numbers, key=None)  # wrong
        right = sticky_singleton_acm(connection)

        @singleton  # wrong
        @asynccontextmanager
        async def decorated() -> AsyncIterator[int]:
            yield 1

        @singleton  # wrong
        def more() -> Iterator[int]:
            yield 1
        """,
        (
            single_use('"connection"', ENTERED_ONCE),
            single_use('"opened"', SYNC_ENTERED_ONCE),
            single_use('"numbers"', GENERATOR),
            single_use('"async_numbers"', RUN_ONCE),
            single_use('"decorated"', ENTERED_ONCE),
            single_use('"more"', GENERATOR),
        ),
    ),
    "single_use_not": Case(
        "What can be used again is not reported.",
        """
        def numbers() -> Iterator[int]:
            return iter([1])

        def listed(function: Callable[[], Iterator[int]]) -> Callable[[], list[int]]:
            return lambda: list(function())

        @singleton
        @listed
        def all_numbers() -> Iterator[int]:
            yield 1

        @singleton
        async def fetched() -> int:
            return 1

        unknown = singleton(numbers)
        session = singleton(Session)
        """,
    ),
    "reached": Case(
        "A call is known by whatever name it is reached.",
        """
        alias = make
        keyless = singleton(convert)

        class Holder:
            open_class = staticmethod(sticky_singleton_acm(Session))

            def __init__(self) -> None:
                self.open = sticky_singleton_acm(Session)

            @singleton
            def get(self, x: object) -> int:
                return 1

            @staticmethod
            @singleton
            def static(x: object) -> int:
                return 1

            @classmethod
            @singleton
            def of_class(cls, x: object) -> int:
                return 1

        class Sub(Holder):
            async def method(self, numbers: Array) -> None:
                super().get(numbers)  # wrong

        table = {"a": singleton(value)}

        @overload
        def chosen(x: int) -> int: ...
        @overload
        def chosen(x: str, y: object = None) -> str: ...
        @singleton
        def chosen(x: Any, y: object = None) -> Any: ...

        async def main(holder: Holder, sub: Sub, either: Holder | Sub, kind: type[Sub], a: Array) -> None:
            alias("u", data=a)  # wrong
            keyless("x", a)  # wrong
            holder.open("u", data=a)  # wrong
            sub.open("u", data=a)  # wrong
            sub.get(a)  # wrong
            sub.static(a)  # wrong
            sub.of_class(a)  # wrong
            Holder.open_class("u", data=a)  # wrong
            Holder.static(a)  # wrong
            Sub.of_class(a)  # wrong
            kind.of_class(a)  # wrong
            either.get(a)  # wrong
            local = make
            local("u", data=a)  # wrong
            table["a"](a)  # wrong
            singleton(value)(a)  # wrong
            chosen("x", a)  # wrong
            async with make("u", data=a) as session:  # wrong
                session.url.upper()

            def inner() -> None:
                local("u", data=a)  # wrong
        """,
        (
            key(1, '"get" of "Holder"', "array[int]"),
            key("data", '"Session"', "array[int]"),
            key(2, '"convert"', "array[int]"),
            *[key("data", '"Session"', "array[int]")] * 2,
            key(1, '"get" of "Holder"', "array[int]"),
            key(1, '"static" of "Holder"', "array[int]"),
            key(1, '"of_class" of "Holder"', "array[int]"),
            key("data", '"Session"', "array[int]"),
            key(1, '"static" of "Holder"', "array[int]"),
            *[key(1, '"of_class" of "Holder"', "array[int]")] * 2,
            key(1, '"get" of "Holder"', "array[int]"),
            key("data", '"Session"', "array[int]"),
            *[key(1, '"value"', "array[int]")] * 2,
            key(2, '"chosen"', "array[int]"),
            *[key("data", '"Session"', "array[int]")] * 2,
        ),
    ),
    "inside_overloads": Case(
        "A finding inside the arguments of an overloaded call is told once, and the overload still matches.",
        """
        async def main(a: Array) -> None:
            x: int = max(value(a), 2)  # wrong
            y: str = convert("x", value(a))  # wrong
            z: list[int] = sorted([value(a)], key=lambda n: n)  # wrong
            print(x, y, z, [make("u", data=a) for _ in range(2)])  # wrong
        """,
        (*[key(1, '"value"', "array[int]")] * 3, key("data", '"Session"', "array[int]")),
    ),
    "overload_chosen": Case(
        "A finding in a call of an overloaded factory leaves mypy's choice of the overload alone.",
        """
        @overload
        def total(x: list[int], data: object = None) -> int: ...
        @overload
        def total(x: list[str], data: object = None) -> str: ...
        def total(x: Any, data: object = None) -> Any: ...

        get_total = singleton(total)

        async def main(a: Array, words: list[str]) -> None:
            x: str = get_total(words, data=a)  # wrong
            y: str = get_total(words, data=a)  # type: ignore[loop-local-key]
            print(x, y)
        """,
        (key("data", '"total"', "array[int]"),),
    ),
    "overload_of_lambda": Case(
        "What a lambda's parameter is while mypy tries an overload that it does not choose is not reported.",
        """
        @overload
        def each(function: Callable[[Array], object], kind: int) -> None: ...
        @overload
        def each(function: Callable[[str], object], kind: str) -> None: ...
        def each(function: Any, kind: object) -> None: ...

        async def main() -> None:
            each(lambda x: value(x), "kind")
        """,
    ),
    "named": Case(
        "Errors name the callable, as on the bare factory.",
        """
        class Holder:
            make = staticmethod(sticky_singleton_acm(Session))

        async def main(holder: Holder) -> None:
            make("u", nope=1)  # wrong
            make(1)  # wrong
            holder.make()  # wrong
            local = make
            local("u", more=1)  # wrong
        """,
        (
            'Unexpected keyword argument "nope" for "Session"  [call-arg]',
            'Argument 1 to "Session" has incompatible type "int"; expected "str"  [arg-type]',
            'Missing positional argument "url" in call to "Session"  [call-arg]',
            'Unexpected keyword argument "more" for "Session"  [call-arg]',
        ),
    ),
    "partial": Case(
        "functools.partial objects keep exactly what they still take, generic ones too.",
        """
        class Box(Generic[T]):
            def __init__(self, item: T, size: int = 1) -> None:
                self.item = item

            async def __aenter__(self) -> T:
                return self.item

            async def __aexit__(self, *args: object) -> None:
                pass

        def pair(first: T, second: int) -> tuple[T, int]:
            return first, second

        make_partial = sticky_singleton_acm(functools.partial(Session, "u"))
        make_box = sticky_singleton_acm(functools.partial(Box, size=3))
        get_pair = singleton(functools.partial(pair, second=3))
        keyed = singleton(functools.partial(pair, second=3), key=None)

        async def main() -> None:
            make_partial(nope=1)  # wrong
            make_partial(connector=Connector())  # wrong
            async with make_partial(data=1) as session, make_box("a") as text:
                session.url.upper()
                text.upper()
            make_box()  # wrong
            get_pair("a")[0].upper()
            get_pair("a", third=4)  # wrong
            keyed(1)[0].bit_length()
        """,
        (
            'Unexpected keyword argument "nope" for "Session"  [call-arg]',
            fresh("connector", '"Session"', '"Connector"'),
            'Missing positional argument "item" in call to "Box"  [call-arg]',
            'Unexpected keyword argument "third" for "pair"  [call-arg]',
        ),
    ),
    "ignored": Case(
        "Codes are silenced as mypy's own are, and a comment that silences nothing is reported.",
        """
        async def main(numbers: Array) -> None:
            value(numbers)  # type: ignore[loop-local-key]
            value(1)  # type: ignore[loop-local-key]  # wrong
            value(Connector())  # type: ignore[loop-local-fresh-key]
        """,
        ('Unused "type: ignore" comment  [unused-ignore]',),
    ),
    "switched_off": Case(
        "A code can be switched off in a file.",
        """
        # mypy: disable-error-code="loop-local-key, loop-local-no-loop"

        async def main(numbers: Array) -> None:
            value(numbers)
            value(Connector())  # wrong

        value(1)
        """,
        (fresh(1, '"value"', '"Connector"'),),
    ),
    "odd": Case(
        "Code that the plugin does not understand is left to mypy.",
        """
        bound = functools.partial(value, 1)
        both = [make, make]

        class Descriptor:
            def __get__(self, instance: object, owner: object) -> Callable[..., int]:
                return value

        class Holder:
            described = Descriptor()

            def method(self: T) -> T:
                return self

        class HolderSub(Holder):
            pass

        async def main(holder: Holder, flag: bool) -> None:
            holder.described(1)
            bound(2)
            chosen = value if flag else print
            chosen(3)
            for item in both:
                item("u")
            getattr(holder, "x")(1)
            (lambda: value(4))()
            map(lambda x: value(x), [1])
            value.__wrapped__  # type: ignore[attr-defined]
            value.__name__.upper()
            while flag:
                again = value
                again(5)

        def untyped(x):  # type: ignore[no-untyped-def]
            return value(x)
        """,
    ),
}


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each case and each example of the documentation, from one run over all of them."""
    directory = tmp_path_factory.mktemp("cases")
    files = {f"case_{name}.py": PRELUDE + dedent(case.code) for name, case in CASES.items()}
    files |= {f"page_{name}.py": code for name, code in examples().items()}
    write(directory, files)
    lines: dict[str, list[str]] = {Path(name).stem: [] for name in files}
    for line in run(directory, "mypy", "--cache-dir=cache", *files):
        file, _, rest = line.partition(".py:")
        if ": note:" not in rest:
            lines.setdefault(file, []).append(rest)
    return lines


@pytest.mark.parametrize("name", CASES)
def test_each_case_gives_its_messages_and_no_other(name: str, output: dict[str, list[str]]) -> None:
    """Each case, whose promise is written beside it, gives the messages that are written there and no other."""
    assert sorted(output[f"case_{name}"]) == CASES[name].expected(), CASES[name].promise


OTHER_PLUGIN = """\
from mypy.plugin import Plugin

NAMES = {
    "value", "local", "builtins.staticmethod", "asyncio_loop_local._singleton.singleton",
    "code.make", "code.value", "code.Holder.open", "code.Holder.get",
}


def seen(name, ctx, default):
    ctx.api.fail(f"seen by the other: {name}", getattr(ctx, "context", None) or ctx.reason)
    return default


class Other(Plugin):
    def get_function_hook(self, fullname):
        if fullname in NAMES:
            return lambda ctx: seen(f"function {fullname}", ctx, ctx.default_return_type)

    def get_method_hook(self, fullname):
        if fullname in NAMES:
            return lambda ctx: seen(f"method {fullname}", ctx, ctx.default_return_type)

    def get_function_signature_hook(self, fullname):
        if fullname in NAMES:
            return lambda ctx: seen(f"function signature {fullname}", ctx, ctx.default_signature)

    def get_method_signature_hook(self, fullname):
        if fullname in NAMES:
            return lambda ctx: seen(f"method signature {fullname}", ctx, ctx.default_signature)

    def get_class_decorator_hook_2(self, fullname):
        if fullname in NAMES:
            return lambda ctx: seen(f"class {fullname}", ctx, True)


def plugin(version):
    return Other
"""

SEEN_BY_OTHERS = PRELUDE + dedent("""
    class Holder:
        make = staticmethod(make)

        def __init__(self) -> None:
            self.open = sticky_singleton_acm(Session)

        @singleton
        def get(self, x: object) -> int:
            return 1

    @singleton
    class Decorated:
        pass

    async def main(holder: Holder, a: Array) -> None:
        make("u", data=a)
        local = make
        local("u", data=a)
        holder.open("u", data=a)
        holder.get(a)
        value(a)
    """)


def with_plugins(directory: Path, plugins: str, code: str, **files: str) -> list[str]:
    """What mypy says of the code with these plugins, the files among them."""
    write(directory, {"code.py": code} | {f"{name}.py": text for name, text in files.items()})
    configuration = directory / "mypy.ini"
    configuration.write_text(
        configuration.read_text().replace("plugins = asyncio_loop_local_mypy", f"plugins = {plugins}" if plugins else "")
    )
    return run(directory, "mypy", "--cache-dir=cache", "code.py")


def test_no_hook_of_another_plugin_is_masked(tmp_path: Path) -> None:
    """A plugin that comes after this one sees all that it sees without it, and this one's findings are told too."""
    alone = with_plugins(tmp_path / "alone", "other.py", SEEN_BY_OTHERS, other=OTHER_PLUGIN)
    both = with_plugins(tmp_path / "both", "asyncio_loop_local_mypy, other.py", SEEN_BY_OTHERS, other=OTHER_PLUGIN)
    seen = [line for line in alone if "seen by the other" in line]
    kinds = {line.partition("seen by the other: ")[2].split(" code.")[0].split(" builtins")[0] for line in seen}
    assert len(kinds) >= 5
    assert [line for line in seen if line not in both] == []
    assert sum("[loop-local-key]" in line for line in both) == 5
    assert sum("[loop-local-decorator]" in line for line in both) == 1


def test_a_plugin_that_comes_first_has_its_names(tmp_path: Path) -> None:
    """For the names that a plugin before this one answers, mypy asks nobody else; the others are looked at as ever."""
    first = with_plugins(tmp_path, "other.py, asyncio_loop_local_mypy", SEEN_BY_OTHERS, other=OTHER_PLUGIN)
    assert any("seen by the other: function code.make" in line for line in first)
    assert not any("code.make" in line and "[loop-local" in line for line in first)
    assert sum("[loop-local-decorator]" in line for line in first) == 0  # the other one has this name too


BROKEN_PLUGIN = """\
import asyncio_loop_local_mypy._plugin as ours


def broken(*args, **kwargs):
    raise RuntimeError("broken")


for name in BROKEN:
    assert hasattr(ours, name)
    setattr(ours, name, broken)
ours._decorated_class.report = broken


def plugin(version):
    return ours.LoopLocalPlugin
"""


@pytest.mark.parametrize("broken", [["find"], ["check_call", "named"], ["type_of_wrapped", "marked_staticmethod"], ["marker_of"]])
def test_a_failure_inside_the_plugin_is_silence(tmp_path: Path, broken: list[str]) -> None:
    """Where the plugin itself fails, mypy goes on, and says what it says without it."""
    text = BROKEN_PLUGIN.replace("BROKEN", repr(broken))
    without = with_plugins(tmp_path / "without", "", SEEN_BY_OTHERS.replace("data=a", "nope=a"))
    write(tmp_path / "with", {})
    write(tmp_path / "with", {"code.py": SEEN_BY_OTHERS.replace("data=a", "nope=a"), "broken.py": text})
    configuration = tmp_path / "with" / "mypy.ini"
    configuration.write_text(
        configuration.read_text().replace("= asyncio_loop_local_mypy", "= broken.py").replace("show_traceback = true", "")
    )
    told = run(tmp_path / "with", "mypy", "--cache-dir=cache", "code.py")
    assert [re.sub(r' for ".*?"', "", line) for line in told if "[loop-local-" not in line] == without


PAGES = ROOT / "docs" / "mypy"
CODES = ["loop-local-key", "loop-local-fresh-key", "loop-local-no-loop", "loop-local-decorator", "loop-local-single-use"]


def examples() -> dict[str, str]:
    """The wrong and the right example of each page, by the code and which it is."""
    found: dict[str, str] = {}
    for code in CODES:
        page = (PAGES / f"{code}.md").read_text()
        for which in ("wrong", "right"):
            blocks = re.findall(rf"<!-- {which} -->\n```python\n(.*?)```", page, re.DOTALL)
            assert len(blocks) == 1, f"{code}.md has one {which} example"
            found[f"{code}_{which}".replace("-", "_")] = blocks[0]
    return found


@pytest.mark.parametrize("code", CODES)
def test_each_page_shows_what_its_code_reports_and_the_mend(code: str, output: dict[str, list[str]]) -> None:
    """The wrong example of each code's page gives that code and no other; the right one gives nothing."""
    name = f"page_{code}".replace("-", "_")
    wrong = {line.rpartition("  ")[2] for line in output[f"{name}_wrong"]}
    assert wrong == {f"[{code}]"}
    assert output[f"{name}_right"] == []


def test_the_index_names_every_code() -> None:
    """The index of the pages links each of them."""
    index = (PAGES / "index.md").read_text()
    assert [code for code in CODES if f"({code}.md)" not in index] == []
