"""What a language server answers about the tutorial's code, for the tutorial's chapter about editors.

    python -m typing_tests.tutorial_in_an_editor

writes the table of that chapter anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.written_part import WrittenPart
from typing_tests.language_server import ROOT, LanguageServer, basedpyright

PAGE = ROOT / "docs" / "tutorial.md"
ANSWERS = WrittenPart("<!-- begin of what typing_tests/tutorial_in_an_editor.py has written -->")
FILE = re.compile(r"```python title=\"(?P<name>[\w.]+)\"\n(?P<text>.*?)```", re.DOTALL)
SHOWN = 5
"""How many parameters and names are shown of many."""


class Question(NamedTuple):
    doing: str
    """What one does, in words that go on with the code in which one does it."""
    method: str
    code: str
    """The cursor is at its end."""

    @property
    def place(self) -> str:
        return self.code.splitlines()[-1].strip().removeprefix("async with ")


SESSION = 'async def page() -> None:\n    async with session_for("https://example.org") as session'
STORE = 'async def page() -> None:\n    async with store("pages") as pages'
QUESTIONS = [
    Question("Hover over the last name of", "hover", SESSION),
    Question("In that block, type", "completion", f"{SESSION}:\n        session."),
    Question("Type", "signatureHelp", "async def page() -> None:\n    async with session_for("),
    Question("Hover over", "hover", "store"),
    Question("Type", "signatureHelp", "async def page() -> None:\n    async with store("),
    Question("Hover over the last name of", "hover", STORE),
    Question("In that block, type", "completion", f"{STORE}:\n        pages."),
]


def table(server: LanguageServer, page: str) -> str:
    """What is answered to each question about the tutorial's code."""
    code = _code(page)
    rows = [(f"{each.doing} `{each.place}`", _answer(server, each, code)) for each in QUESTIONS]
    return "\n".join(["| You do | The editor shows |", "| --- | --- |", *(f"| {doing} | {shown} |" for doing, shown in rows)])


def _code(page: str) -> str:
    """The store, and the wrapped class beside it, as one file."""
    texts: dict[str, str] = {}
    for file in FILE.finditer(page):
        texts.setdefault(file["name"], file["text"])
        if "session_for = " in file["text"]:
            texts["service.py"] = file["text"].partition("async def ")[0].replace("from store import store\n", "")
    return texts["store.py"] + "\n" + texts["service.py"]


def _answer(server: LanguageServer, question: Question, code: str) -> str:
    document = f"{code}\n\n{question.code}"
    server.open(document)
    lines = document.splitlines()
    answer: Any = server.at(question.method, len(lines) - 1, len(lines[-1]))
    if question.method == "hover":
        return f"`{answer['contents']['value']}`"
    if question.method == "completion":
        return _some([item["label"] for item in answer["items"] if not item["label"].startswith("_")])
    (signature,) = answer["signatures"]
    return _some([parameter["label"] for parameter in signature["parameters"]])


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`".replace("|", r"\|") for name in names[:SHOWN])
    return f"{shown}, …" if len(names) > SHOWN else shown


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    with TemporaryDirectory() as workspace, basedpyright(Path(workspace)) as server:
        PAGE.write_text(ANSWERS.put(table(server, page), page), encoding="utf-8")


if __name__ == "__main__":
    main()
