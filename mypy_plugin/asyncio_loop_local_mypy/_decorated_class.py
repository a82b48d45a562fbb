"""``loop-local-decorator``: a decorated class, whose name then refers to a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._reporting import DECORATOR

if TYPE_CHECKING:
    from mypy.plugin import ClassDefContext


def report(ctx: ClassDefContext, decorator: str) -> None:
    """Report the decorator. The class keeps its type: mypy crashes with a warm cache if a plugin replaces it."""
    name = ctx.cls.name
    ctx.api.fail(
        f'"{decorator}" replaces the class "{name}" with a function, but mypy still treats it as a class: '
        f"leave the class undecorated and wrap it under another name, as in get_{name.lower()} = {decorator}({name})",
        ctx.reason,
        code=DECORATOR,
    )
