"""Keys of generated calls: arguments that are easily confused, and calls written in all possible ways."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncio_loop_local import singleton
from asyncio_loop_local._keys import Snapshot, freeze
from key_counts import COUNTS, Written, call, on_a_loop

generated = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def make_of(value: Any) -> nullcontext[None]:
    return nullcontext()


def by_place_and_name(*more: Any, **by_name: Any) -> nullcontext[None]:
    return nullcontext()


@dataclass
class Settings:
    value: Any
    more: Any = None


class Pair(NamedTuple):
    one: Any
    two: Any


@attrs.define
class Attrs:
    value: Any


@dataclass(slots=True)
class Slotted:
    value: Any


class EqualToEverything:
    def __eq__(self, _other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("a")


ATOMS: list[Any] = [0, 1, True, False, 0.0, 1.0, 1j, None, "", "a", "1", b"", b"a", b"1", int, bool, str, tuple, dict, frozenset]


def hashable() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.sampled_from(ATOMS) | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | st.builds(Pair, inner, inner),
        max_leaves=3,
    )


def anything() -> st.SearchStrategy[Any]:
    return st.recursive(
        hashable() | st.builds(bytearray, st.binary(max_size=2)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.lists(inner, max_size=3).map(deque)
            | st.sets(hashable(), max_size=3)
            | st.dictionaries(hashable(), inner, max_size=3)
            | st.dictionaries(hashable(), inner, max_size=3).map(OrderedDict)
            | st.builds(Settings, inner, inner)
            | st.builds(Attrs, inner)
            | st.builds(Slotted, inner)
            | st.builds(Pair, inner, inner)
        ),
        max_leaves=4,
    )


def described(value: Any) -> str:
    """Describe an argument's value: the descriptions of two arguments are equal if and only if they are the same argument."""
    kind = type(value).__qualname__
    if isinstance(value, (frozenset, set)):
        return f"{kind}{sorted(described(item) for item in value)}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, OrderedDict):
        return f"{kind}{[(described(key), described(item)) for key, item in value.items()]}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return f"{kind}{sorted((described(key), described(item)) for key, item in value.items())}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (tuple, list, deque)):
        return f"{kind}{[described(item) for item in value]}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Settings):
        return f"{kind}{described(value.value)}{described(value.more)}"
    if isinstance(value, (Attrs, Slotted)):
        return f"{kind}{described(value.value)}"
    return f"{kind} {value + 0.0 if isinstance(value, float) else value!r}"


@generated
@given(st.lists(anything(), min_size=2, max_size=6))
def test_arguments_are_the_same_exactly_if_types_and_contents_are(values: list[Any]) -> None:
    """Arguments of different types or contents are different; arguments of the same types and contents are the same."""
    values = values + copy.deepcopy(values)
    expected = len({described(value) for value in values})
    assert COUNTS["singleton"](make_of, *map(call, values)) == expected
    assert COUNTS["singleton"](by_place_and_name, *map(call, values)) == expected
    assert COUNTS["singleton"](by_place_and_name, *(call(k=value) for value in values)) == expected


@generated
@given(anything())
def test_nothing_is_mistaken_for_the_key_of_something_else(value: Any) -> None:
    """An argument that is built like the inside of a key is not taken for what that key stands for."""
    key = freeze(value)
    form: Any = tuple(key) if isinstance(key, Snapshot) else (type(value), value)
    disguises: list[Any] = [form, (form,), [*form], (form[0], form), frozenset({form})]
    for disguise in disguises:
        assert COUNTS["singleton"](make_of, call(value), call(disguise)) == 2
        assert COUNTS["singleton"](make_of, call([value]), call([disguise])) == 2
        assert COUNTS["singleton"](make_of, call(disguise), call(value)) == 2


@dataclass
class Shape:
    """The parameters of a generated factory."""

    positional_only: list[str]
    positional: list[str]
    keyword_only: list[str]
    takes_more: bool
    takes_more_by_name: bool
    defaults: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def by_position(self) -> list[str]:
        return self.positional_only + self.positional

    def factory(self) -> Callable[..., Any]:
        def written(names: list[str]) -> list[str]:
            return [f"{name}=defaults[{name!r}]" if name in self.defaults else name for name in names]

        parts = written(self.positional_only) + ["/"] * bool(self.positional_only) + written(self.positional)
        parts += ["*more"] if self.takes_more else ["*"] * bool(self.keyword_only)
        parts += written(self.keyword_only) + ["**by_name"] * self.takes_more_by_name
        space: dict[str, Any] = {"defaults": self.defaults}
        exec(f"def made({', '.join(parts)}): return object()", space)
        made: Callable[..., Any] = space["made"]
        return made


@dataclass
class Meaning:
    """What a call gives to each parameter."""

    values: dict[str, Any]
    more: list[Any]
    by_name: dict[str, Any]

    def described(self) -> str:
        return described([self.values, self.more, self.by_name])


# Few, so that two are often the same.
CONFUSABLE: list[Any] = [
    *(0, False, 0.0, "0", None, (), [], {}, set[int](), (0,), [0], [False]),
    *({0: 0}, {0: False}, {"a": 0}, Settings(0), Attrs(0)),
]
confusable = st.sampled_from(CONFUSABLE)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    names = iter("abcdefgh")

    def some() -> list[str]:
        return [next(names) for _ in range(draw(st.integers(0, 2)))]

    shape = Shape(some(), some(), some(), draw(st.booleans()), draw(st.booleans()))
    first_default = draw(st.integers(0, len(shape.by_position)))
    with_default = shape.by_position[first_default:] + [name for name in shape.keyword_only if draw(st.booleans())]
    shape.defaults = {name: draw(confusable) for name in with_default}
    return shape


@st.composite
def meanings(draw: st.DrawFn, shape: Shape) -> Meaning:
    def value(name: str) -> Any:
        default: st.SearchStrategy[Any] = st.just(shape.defaults[name]) if name in shape.defaults else st.nothing()
        return draw(default | confusable)

    names = shape.by_position + shape.keyword_only
    allowed = ["x", "y", *shape.positional_only]
    return Meaning(
        {name: value(name) for name in names},
        draw(st.lists(confusable, max_size=2)) if shape.takes_more else [],
        draw(st.dictionaries(st.sampled_from(allowed), confusable, max_size=2)) if shape.takes_more_by_name else {},
    )


@st.composite
def writings(draw: st.DrawFn, shape: Shape, meaning: Meaning) -> Written:
    """One way to write a call that means this, of new objects where they count by value."""
    meant = copy.deepcopy(meaning)

    def can_be_left(name: str) -> bool:
        return name in shape.defaults and described(meant.values[name]) == described(shape.defaults[name])

    least = len(shape.by_position) if meant.more else len(shape.positional_only)
    while not meant.more and 0 < least <= len(shape.positional_only) and can_be_left(shape.by_position[least - 1]):
        if not draw(st.booleans()):
            break
        least -= 1
    most = len(shape.by_position) if least >= len(shape.positional_only) else least
    places = draw(st.integers(least, most))
    args = [meant.values[name] for name in shape.by_position[:places]] + meant.more
    by_keyword = [name for name in shape.positional + shape.keyword_only if name not in shape.by_position[:places]]
    kwargs = {name: meant.values[name] for name in by_keyword if not (can_be_left(name) and draw(st.booleans()))} | meant.by_name
    return tuple(args), {name: kwargs[name] for name in draw(st.permutations(list(kwargs)))}


@st.composite
def calls_of_one_factory(draw: st.DrawFn) -> tuple[Shape, list[Written], int]:
    shape = draw(shapes())
    meant = [draw(meanings(shape)) for _ in range(draw(st.integers(1, 3)))]
    near = copy.deepcopy(meant[0])
    if near.values:
        near.values[draw(st.sampled_from(sorted(near.values)))] = draw(confusable)
    meant.append(near)
    written = [draw(writings(shape, meaning)) for meaning in meant for _ in range(2)]
    return shape, written, len({meaning.described() for meaning in meant})


@generated
@given(calls_of_one_factory())
def test_calls_are_one_exactly_if_they_give_every_parameter_the_same(drawn: tuple[Shape, list[Written], int]) -> None:
    """For any signature, however a call is written: equal arguments find one value, all others find others."""
    shape, written, expected = drawn
    assert COUNTS["singleton"](shape.factory(), *written) == expected


plain = st.sampled_from([0, 1, True, 1.0, "", "a", "k", b"a", None, int, str, object, (), ("k", "a")])


@generated
@given(st.lists(plain, max_size=3), st.dictionaries(st.sampled_from(["k", "a", "args"]), plain, min_size=1, max_size=2))
def test_positions_are_not_mistaken_for_names(args: list[Any], kwargs: dict[str, Any]) -> None:
    """No call by position is taken for a call by name, though its arguments are laid out as a cache lays out its key."""
    pairs = [part for pair in kwargs.items() for part in pair]
    types: list[Any] = [type(value) for value in (*args, *kwargs.values())]
    mark: Any = vars(functools)["_make_key"].__defaults__[0]  # which separates positions from names
    marks: list[Any] = [*mark, EqualToEverything()]
    forms: list[list[Any]] = [
        [*args, *pairs],
        [*args, *pairs, *types],
        [*args, kwargs],
        [tuple(args), kwargs],
        [*args, *kwargs.items()],
    ]
    forms += [[*args, mark, *pairs, *more] for mark in marks for more in (types, types[:0])]

    def check() -> None:
        make = singleton(by_place_and_name)
        assert make(*args, **kwargs) is make(*args, **kwargs)
        for form in forms:
            assert make(*form) is not make(*args, **kwargs)

    on_a_loop(check)
