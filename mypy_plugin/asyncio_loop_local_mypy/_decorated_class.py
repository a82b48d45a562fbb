"""``loop-local-decorator``: a class that is decorated, whose name then stands for a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._reporting import DECORATOR

if TYPE_CHECKING:
    from mypy.plugin import ClassDefContext


def report(ctx: ClassDefContext, decorator: str) -> None:
    """Report the decorator. The type of the class stays as it is: to replace it fails with a warm cache."""
    name = ctx.cls.name
    ctx.api.fail(
        f'"{decorator}" makes a function of the class "{name}", which mypy goes on taking for a class: '
        f"leave the class as it is, and wrap it under another name, as in get_{name.lower()} = {decorator}({name})",
        ctx.reason,
        code=DECORATOR,
    )
