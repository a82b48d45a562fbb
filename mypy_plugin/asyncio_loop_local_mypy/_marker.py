"""How a function of the library is known again: by a literal in its fallback type, which every cache keeps."""

from __future__ import annotations

from typing import NamedTuple

from mypy.types import CallableType, FunctionLike, Instance, LiteralType, Overloaded, Type, get_proper_type

FACTORY = "factory"
DECORATOR = "decorator"
BY_ARGUMENTS = "by-arguments"
BY_OWN_KEY = "by-own-key"

_OURS = "asyncio_loop_local"
_CARRIED = "__asyncio_loop_local__"


class Known(NamedTuple):
    """What is known of a function of the library."""

    role: str
    keys: str
    name: str

    @property
    def is_decorator(self) -> bool:
        """What ``singleton()`` returns, which takes the factory; else it is a wrapped factory."""
        return self.role == DECORATOR


def known(typ: Type | None) -> Known | None:
    """What the plugin knows of a callable; None if it is none of the library's."""
    if typ is None:
        return None
    function: Type | None = get_proper_type(typ)
    if isinstance(function, Instance) and function.extra_attrs is not None:
        function = get_proper_type(function.extra_attrs.attrs.get(_CARRIED))
    if not isinstance(function, FunctionLike):
        return None
    literal = function.items[0].fallback.last_known_value
    if literal is None or not isinstance(literal.value, str):
        return None
    ours, *what = literal.value.split(" ", 3)  # a name may hold spaces: "get of Pool"
    return Known(*what) if ours == _OURS and len(what) == 3 else None


def marked(typ: FunctionLike, what: Known, strings: Instance) -> FunctionLike:
    """The same signature, known again from now on.

    The literal stands where mypy keeps that of a string: a plain function type has nothing there, and no use for it. A class
    of our own in place of the fallback's would be seen in joins and in attributes. The definition is left out, since no
    cache keeps that.
    """
    items: list[CallableType] = []
    for item in typ.items:
        literal = LiteralType(" ".join([_OURS, *what]), strings)
        fallback = item.fallback.copy_modified(last_known_value=literal)  # pyright: ignore[reportUnknownMemberType]
        new = item.copy_modified(fallback=fallback, name=what.name)  # pyright: ignore[reportUnknownMemberType]
        new.definition = None
        items.append(new)
    return items[0] if len(items) == 1 else Overloaded(items)


def carried(carrier: Type, function: Type) -> Type:
    """A ``staticmethod`` object that is known for the function in it, of which its own type tells only the signature."""
    instance = get_proper_type(carrier)
    if not isinstance(instance, Instance) or known(function) is None:
        return carrier
    return instance.copy_with_extra_attr(_CARRIED, function)


def named(item: CallableType, name: str) -> CallableType:
    """A signature with its name put back, as mypy drops it where a variable's type is inferred."""
    if item.definition is None and item.name:
        return item
    new = item.copy_modified(name=item.name or name)  # pyright: ignore[reportUnknownMemberType]
    new.definition = None
    return new


def shown(name: str) -> str:
    """A callable's name as mypy writes it in an error."""
    return name if name.startswith("<") else f'"{name}"'.replace(" of ", '" of "')
