"""How the site renders drawings and docstrings.

As a hook of mkdocs, it inlines the drawings into the pages, so that they have the page's colours. As an extension of griffe,
it converts the docstrings to what mkdocstrings understands.
"""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from typing import Any

import griffe

import asyncio_loop_local

_DOCS = Path(__file__).parent
_DRAWING = re.compile(r'<img alt="(?P<alt>[^"]*)" src="(?:\.\./)*(?P<file>assets/[\w-]+\.svg)" ?/?>')
_EXAMPLE = re.compile(r"^>>> .*(?:\n(?:>>>|\.\.\.).*)*$", re.MULTILINE)
_NAME = re.compile(rf"(?<![`\[])`({'|'.join(name for name in asyncio_loop_local.__all__ if name != 'atexit')})`(?!`)")
_FIELD = re.compile(r":(?:param|raises|returns)\b")


def on_page_content(html: str, **_: Any) -> str:
    """Replace each image in docs/assets by the SVG itself."""

    def inlined(image: re.Match[str]) -> str:
        drawing = (_DOCS / image["file"]).read_text(encoding="utf-8")
        label = escape(unescape(image["alt"]), quote=True)
        drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        return f'<span class="drawing-box">{drawing}</span>'

    return _DRAWING.sub(inlined, html)


class Docstrings(griffe.Extension):
    """Show examples as code, link public names, and move text below the fields above them."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Leave out the overloads for a single checker: they name private types."""
        if func.overloads:
            func.overloads = [each for each in func.overloads if re.search(r"\b_[A-Z]", str(each.returns)) is None]

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Convert the docstring of a function, class or attribute."""
        if obj.docstring is None:
            return
        text = _EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", obj.docstring.value)
        text = _NAME.sub(r"[`\1`][asyncio_loop_local.\1]", text)
        paragraphs = text.split("\n\n")
        # The sort is stable: paragraphs that begin with a field move to the end, in their order.
        obj.docstring.value = "\n\n".join(sorted(paragraphs, key=lambda each: _FIELD.match(each) is not None))
