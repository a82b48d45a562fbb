"""The part of a page that a script writes, between two markers."""

from __future__ import annotations

from typing import NamedTuple


class WrittenPart(NamedTuple):
    """The markers of the part."""

    begin: str
    end: str = "<!-- end of it -->"

    def put(self, text: str, page: str) -> str:
        """Return the page with the text between the markers."""
        before, _, rest = page.partition(self.begin)
        _, _, after = rest.partition(self.end)
        return f"{before}{self.begin}\n\n{text}\n\n{self.end}{after}"
