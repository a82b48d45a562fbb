"""Objects that count by value, and how they and their classes change, are generated: which calls are one is what it was before.

The reference is the slow way to make a key that the library had before it remembered anything of a class.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import FunctionType, MemberDescriptorType
from typing import Any, Generic, TypeVar

import attrs
import pydantic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncio_loop_local import singleton
from asyncio_loop_local._keys import state_is_in_attributes
from key_counts import on_a_loop

generated = settings(deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
T = TypeVar("T")
IGNORED = {"__dict__", "__weakref__", "__pydantic_fields_set__"}


class Refused(Exception):
    """The reference finds that the argument cannot be part of a key."""


def reference(value: object) -> Hashable:
    """Return the key of an argument. Nothing is remembered: the class is looked at each time."""
    kind = type(value)
    contents: Hashable = ()
    container = next((base for base in CONTENTS if base in kind.__mro__), None)
    own_hash: Any = kind.__hash__
    has_own_hash = container is not None and own_hash not in (None, container.__hash__)
    if container is None or has_own_hash:
        try:
            hash(value)
        except TypeError:
            if type(kind.__eq__) is not FunctionType or not state_is_in_attributes(kind):
                raise Refused from None
        else:
            return kind, value
    else:
        contents = CONTENTS[container](value)
    return kind, contents, None if kind in CONTENTS else attributes(value)


CONTENTS: dict[type, Callable[[Any], Hashable]] = {
    OrderedDict: lambda it: tuple((reference(key), reference(value)) for key, value in it.items()),
    dict: lambda it: frozenset((reference(key), reference(value)) for key, value in it.items()),
    tuple: lambda it: tuple(map(reference, it)),
    list: lambda it: tuple(map(reference, it)),
    frozenset: lambda it: frozenset(map(reference, it)),
    set: lambda it: frozenset(map(reference, it)),
    deque: lambda it: tuple(map(reference, it)),
}


def attributes(value: object) -> Hashable:
    kind = type(value)
    found: list[tuple[int, str, Any]] = [(-1, name, item) for name, item in getattr(value, "__dict__", {}).items()]
    for place, base in enumerate(kind.__mro__):
        for name, slot in vars(base).items():
            if type(slot) is MemberDescriptorType and name not in IGNORED:
                with suppress(AttributeError):
                    found.append((place, name, slot.__get__(value, kind)))
    return frozenset(
        (place, name, reference(item))
        for place, name, item in found
        if not isinstance(inspect.getattr_static(kind, name, None), cached_property)
    )


# Kinds of objects: each function makes a new class, so that what one example does to it is not seen by the next.


def new_by(decorator: Callable[[type], Any]) -> Any:
    class Kind:
        a: Any
        b: Any = 0

    return decorator(Kind)


def new_dataclass_with_cached_property() -> Any:
    @dataclass
    class Kind:
        a: Any
        b: Any = 0

        @cached_property
        def both(self) -> Any:
            return (self.a, 0)

    return Kind


def new_model() -> Any:
    class Kind(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        a: Any
        b: Any = 0
        _hidden: Any = pydantic.PrivateAttr(default=0)

    def made(a: Any, b: Any = 0) -> Kind:
        return Kind(a=a, b=b)

    return made


def new_subclass() -> Any:
    class Kind(new_by(dataclass(slots=True))):  # type: ignore[misc]  # a class that has just been made
        """Has a `__dict__` besides the slots that it inherits."""

    return Kind


def new_generic() -> Any:
    class Kind(Generic[T]):
        def __init__(self, a: Any, b: Any = 0) -> None:
            self.a = a
            if b:
                self.b = b

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Kind) and vars(self) == vars(other)  # pyright: ignore[reportUnknownArgumentType]

        __hash__ = None  # type: ignore[assignment]  # as a class body with __eq__ alone has it

    return Kind


def new_half_set() -> Any:
    class Kind:
        __slots__ = ("a", "b")

        def __init__(self, a: Any, b: Any = 0) -> None:
            self.a = a
            if b:
                self.b = b

        def __getattr__(self, name: str) -> Any:
            if name == "b":
                return 1
            raise AttributeError(name)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Kind) and (self.a, self.b) == (other.a, other.b)

        __hash__ = None  # type: ignore[assignment]  # as above

    return Kind


def new_container() -> Any:
    class Kind(dict[str, Any]):
        def __init__(self, a: Any, b: Any = 0) -> None:
            super().__init__(a=a)
            self.b = b

    return Kind


NEW: list[Callable[[], Any]] = [
    new_dataclass_with_cached_property,
    partial(new_by, dataclass(slots=True)),
    partial(new_by, dataclass(frozen=True)),
    partial(new_by, attrs.define),
    partial(new_by, attrs.define(slots=False)),
    *(new_model, new_subclass, new_generic, new_half_set, new_container),
]

# What happens to an object, or to its class, between two calls.


def reorder(it: Any, _value: Any) -> None:
    value = it.a
    del it.a
    it.a = value


def read(it: Any, _value: Any) -> None:
    for name in ("both", "late", "more", "b"):
        with suppress(AttributeError):
            getattr(it, name)


def class_of(it: object) -> Any:
    return type(it)


def class_gets_cached_property(it: object, _value: Any) -> None:
    made = cached_property(lambda _self: "cached")
    kind = class_of(it)
    made.__set_name__(kind, "late")  # a name that no instance has for an attribute of its own
    kind.late = made


def identical(one: object, other: object) -> bool:
    return one is other


def class_gets_hash(it: object, _value: Any) -> None:
    kind = class_of(it)
    kind.__hash__, kind.__eq__ = object.__hash__, identical


CHANGES: list[Callable[[Any, Any], object]] = [
    lambda it, value: setattr(it, "b", value),
    lambda it, value: setattr(it, "more", value),
    lambda it, _: delattr(it, "b"),
    lambda it, value: setattr(it, "_hidden", value),
    reorder,
    lambda it, value: it.a.append(value),
    read,
    class_gets_cached_property,
    lambda it, _: delattr(class_of(it), "late"),
    lambda it, value: setattr(class_of(it), "more", value),
    lambda it, _: delattr(class_of(it), "more"),
    class_gets_hash,
    lambda it, _: setattr(class_of(it), "__hash__", None),
]

ATOMS: list[Any] = [0, 1, True, 1.0, "1", b"1", None, int]
values = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(["k", "l"]), inner, max_size=2)
        | st.dictionaries(st.sampled_from(["k", "l"]), inner, max_size=2).map(lambda it: defaultdict(int, it))
        | st.sampled_from([frozenset({1}), frozenset({True})])
    ),
    max_leaves=3,
)


@dataclass
class Program:
    """Makes some objects, then changes and gives them in turn."""

    kinds: list[int]
    arguments: list[tuple[int, Any, Any]]
    steps: list[tuple[int, int | None, Any]] = field(default_factory=list[tuple[int, int | None, Any]])


programs = st.builds(
    Program,
    st.lists(st.integers(0, len(NEW) - 1), min_size=1, max_size=2),
    st.lists(st.tuples(st.integers(0, 1), values, values), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, len(CHANGES) - 1), values), min_size=3, max_size=20),
)
AROUND: list[Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]] = [
    lambda it: ((it,), {}),
    lambda it: ((), {"it": it}),
    lambda it: ((1, it), {}),
    lambda it: ((it,), {"more": [it]}),
    lambda it: (([it],), {}),
    lambda it: (((it, 1),), {}),
]


@generated
@given(programs, st.sampled_from(AROUND))
def test_calls_are_one_exactly_if_they_were_without_anything_remembered(
    program: Program, around: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    """Whatever happens to the arguments and to their classes between two calls: equal ones find one value, all others others."""
    kinds = [NEW[number]() for number in program.kinds]
    objects: list[Any] = [kinds[number % len(kinds)](a, b) for number, a, b in program.arguments]

    def check() -> None:
        make = singleton(lambda *args, **kwargs: object())  # pyright: ignore[reportUnknownLambdaType]
        by_reference: dict[Hashable, object] = {}
        for number, change, value in program.steps:
            it = objects[number % len(objects)]
            if change is not None:
                with suppress(AttributeError, TypeError, KeyError):
                    CHANGES[change](it, value)
            args, kwargs = around(it)
            try:
                key = reference([args, kwargs])
            except Refused:
                try:
                    make(*args, **kwargs)
                except TypeError:
                    continue
                raise AssertionError("not refused") from None
            assert make(*args, **kwargs) is by_reference.setdefault(key, make(*args, **kwargs))
        assert len({id(value) for value in by_reference.values()}) == len(by_reference)

    on_a_loop(check)
