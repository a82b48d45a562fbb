"""The public API as text: every public name with its signatures, members, values and bases, as its source has them.

``python tests/public_api.py`` writes it into public_api.txt, with which test_public_api.py compares it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import griffe

FROZEN = Path(__file__).with_suffix(".txt")
PACKAGES = ("asyncio_loop_local", "asyncio_loop_local_mypy", "asyncio_loop_local_pytest")
# What is promised without being in an __all__: what older code uses, what signatures name, and the codes of findings.
ALSO = {
    "asyncio_loop_local._atexit": ("_fire", "_register"),
    "asyncio_loop_local._storage": ("storage",),
    "asyncio_loop_local._typing": ("ACM", "Key"),
    "asyncio_loop_local_mypy._reporting": ("DECORATOR", "FRESH_KEY", "KEY", "NO_LOOP", "SINGLE_USE"),
}
# Python's own names for what people call by other means; a class that has one of them has promised it.
SPECIAL = {"__init__", "__aenter__", "__aexit__", "__enter__", "__exit__", "__call__"}


def public_api(where: Path | None = None) -> str:
    """One line a name, overload or member; members are indented.

    :param where: the directory of the packages; else they are those that are installed.
    """
    loader = griffe.GriffeLoader(search_paths=None if where is None else [where])
    lines: list[str] = []
    for package in PACKAGES:
        module = loader.load(package)
        assert isinstance(module, griffe.Module)
        assert module.exports is not None
        lines += [f"{package}:", *_members(module, [str(each) for each in module.exports])]
    for name, names in ALSO.items():
        lines += [f"{name}:", *_members(loader.modules_collection[name], names)]
    return "\n".join([*lines, ""])


def _members(module: griffe.Module, names: Iterable[str]) -> Iterator[str]:
    yield from (f"    {line}" for name in sorted(names) for line in _member(module, name))


def _member(module: griffe.Module, name: str) -> Iterator[str]:
    member = module[name]
    what = member.final_target if isinstance(member, griffe.Alias) else member
    if isinstance(what, griffe.Module):
        assert what.exports is not None
        yield f"{name}:"
        yield from _members(what, [str(each) for each in what.exports])
    else:
        yield from _lines(name, what)


def _lines(name: str, what: griffe.Object) -> Iterator[str]:
    if isinstance(what, griffe.Class):
        bases = ", ".join(str(base) for base in what.bases)
        for decorator in what.decorators:
            yield f"@{decorator.value}"
        yield f"class {name}({bases}):"
        for member in what.members.values():
            if (member.name in SPECIAL or not member.name.startswith("_")) and not isinstance(member, griffe.Alias):
                yield from (f"    {line}" for line in _lines(member.name, member))
    elif isinstance(what, griffe.Function):
        for decorator in what.decorators:
            yield f"@{decorator.value}"
        for each in what.overloads or [what]:
            start = "async def" if "async" in each.labels else "def"
            yield f"{'@overload ' if what.overloads else ''}{start} {name}{_signature(each)}"
    else:
        assert isinstance(what, griffe.Attribute)
        start = "property " if "property" in what.labels else ""
        annotation = "" if what.annotation is None else f": {what.annotation}"
        value = "" if what.value is None else f" = {what.value}"
        yield f"{start}{name}{annotation}{value}"


def _signature(function: griffe.Function) -> str:
    parts: list[str] = []
    kinds = griffe.ParameterKind
    before: griffe.ParameterKind | None = None
    for each in function.parameters:
        if before is kinds.positional_only and each.kind is not kinds.positional_only:
            parts.append("/")
        if each.kind is kinds.keyword_only and before not in {kinds.keyword_only, kinds.var_positional}:
            parts.append("*")
        before = each.kind
        stars = "*" if each.kind is kinds.var_positional else "**" if each.kind is kinds.var_keyword else ""
        annotation = "" if each.annotation is None else f": {each.annotation}"
        default = "" if each.default is None or stars else f" = {each.default}"
        parts.append(f"{stars}{each.name}{annotation}{default}")
    if before is kinds.positional_only:
        parts.append("/")
    return f"({', '.join(parts)}) -> {function.returns}"


if __name__ == "__main__":
    FROZEN.write_text(public_api(), encoding="utf-8")
