"""An editor sees of a wrapped factory what it sees of the bare one: basedpyright's language server is asked as an editor asks."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from typing_tests import tutorial_in_an_editor as tutorial
from typing_tests.language_server import LanguageServer, basedpyright

from asyncio_loop_local import __all__ as PUBLIC

pytestmark = pytest.mark.timeout(300)

FACTORIES = '''\
from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Generic, TypeVar, overload

import aiohttp
import httpx

import asyncio_loop_local
from asyncio_loop_local import LoopVar, singleton, sticky_singleton_acm

T = TypeVar("T")


@contextlib.asynccontextmanager
async def connect(host: str, port: int = 80, *, value: T) -> AsyncGenerator[list[T]]:
    """Connect to a host.

    :param host: its name
    """
    yield [value]


class Client:
    """Speaks to a host."""

    def __init__(self, host: str, *, retries: int = 3) -> None:
        """Take the host's name."""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *args: object) -> None: ...

    def fetch(self, path: str) -> bytes:
        """Fetch what is there."""
        return b""


@overload
def either(kind: int) -> Client: ...
@overload
def either(kind: str, host: str) -> httpx.AsyncClient: ...
def either(kind: Any, host: str = "") -> Any:
    """Make one or the other."""
'''
BARE = {
    "aiohttp.ClientSession": "",
    "httpx.AsyncClient": "",
    "Client": "'h'",
    "connect": "'h', value=1",
    "either": "'k', 'h'",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[LanguageServer]:
    with basedpyright(tmp_path_factory.mktemp("workspace")) as server:
        yield server


def ask(server: LanguageServer, method: str, text: str) -> Any:
    """The answer about the place at the end of a document."""
    document = f"{FACTORIES}\n\n{text}"
    server.open(document)
    lines = document.splitlines()
    return server.at(method, len(lines) - 1, len(lines[-1]))


def both(factory: str, arguments: str, template: str) -> Iterator[str]:
    """A text with the bare factory in it, and with each way to wrap it."""
    for wrapped in (factory, f"sticky_singleton_acm({factory})", f"sticky_singleton_acm()({factory})"):
        yield f"make = {wrapped}\n\n\n{template.format(factory if wrapped == factory else 'make', arguments)}"


def labels(completion: Any) -> set[str]:
    return {item["label"] for item in completion["items"]}


@pytest.mark.parametrize("factory", BARE)
def test_after_the_value_of_a_block_the_same_names_are_offered(server: LanguageServer, factory: str) -> None:
    """Completion after ``value.`` offers what it offers in the bare factory's block."""
    template = "async def main() -> None:\n    async with {}({}) as value:\n        value."
    bare, *wrapped = (labels(ask(server, "completion", text)) for text in both(factory, BARE[factory], template))
    assert bare & {"get", "fetch", "append"}
    assert wrapped == [bare, bare]


@pytest.mark.parametrize("factory", BARE)
def test_in_the_call_the_same_parameters_are_shown(server: LanguageServer, factory: str) -> None:
    """Signature help shows the parameters of each overload, with their documentation, and the factory's docstring."""

    def shown(text: str) -> list[tuple[list[str], str]]:
        return [
            ([each["label"] for each in signature["parameters"]], signature.get("documentation", {}).get("value", ""))
            for signature in ask(server, "signatureHelp", text)["signatures"]
        ]

    bare, *wrapped = (shown(text) for text in both(factory, "", "async def main() -> None:\n    {}("))
    assert bare
    assert all(parameters for parameters, _ in bare)
    assert wrapped == [bare, bare]


@pytest.mark.parametrize("factory", BARE)
def test_what_the_block_gives_is_shown_alike(server: LanguageServer, factory: str) -> None:
    """Hovering over ``value`` shows the same type, bare and wrapped."""
    template = "async def main() -> None:\n    async with {}({}) as value"
    bare, *wrapped = (ask(server, "hover", text)["contents"]["value"] for text in both(factory, BARE[factory], template))
    assert "value: " in bare
    assert "Unknown" not in bare
    assert wrapped == [bare, bare]


@pytest.mark.parametrize("factory", ["Client", "connect"])
def test_the_wrapped_name_shows_parameters_and_documentation(server: LanguageServer, factory: str) -> None:
    """Hovering over the wrapped factory shows the bare one's parameters, what its block gives, and its docstring."""
    bare = ask(server, "hover", f"{factory}")["contents"]["value"]
    for wrapped in both(factory, "", "{}"):
        hover = ask(server, "hover", wrapped)["contents"]["value"]
        parameters = re.search(r"\(\n.*?\n\)", bare, re.DOTALL)
        assert parameters is not None
        assert parameters[0] in hover
        assert "host" in hover


@pytest.mark.parametrize("name", [*sorted({*PUBLIC} - {"atexit"}), "atexit.register", "atexit.unregister"])
def test_each_public_name_is_documented_where_it_is_used(server: LanguageServer, name: str) -> None:
    """Hovering over it shows a sentence at least."""
    hover = ask(server, "hover", f"asyncio_loop_local.{name}")["contents"]["value"]
    prose = hover.rpartition("\n\n\n")[2] if "\n\n\n" in hover else hover
    assert re.search(r"^[A-Z][^\n]+", prose, re.MULTILINE), hover
    assert ". " in hover or hover.rstrip().endswith(".")


def test_the_signature_of_a_method_is_shown_without_its_object(server: LanguageServer) -> None:
    """In the call of a wrapped method, its own parameters are shown, and its docstring."""
    text = '''class Service:
    @singleton
    def client(self, name: str, *, size: int = 1) -> list[str]:
        """Make a client."""
        return [name]


Service().client('''
    (signature,) = ask(server, "signatureHelp", text)["signatures"]
    assert [each["label"] for each in signature["parameters"]] == ["name: str", "*", "size: int = 1"]
    assert signature["documentation"]["value"] == "Make a client."


def test_the_value_of_a_variable_is_known(server: LanguageServer) -> None:
    """After ``get().`` of a `LoopVar`, the names of its value are offered."""
    text = "names = LoopVar('names', factory=list[str])\nnames.get()."
    assert {"append", "extend"} <= labels(ask(server, "completion", text))


def test_the_tutorial_shows_what_the_language_server_answers(server: LanguageServer) -> None:
    """Each answer in the tutorial's chapter about editors is the language server's own, about the tutorial's own code."""
    page = tutorial.PAGE.read_text(encoding="utf-8")
    table = tutorial.table(server, page)
    assert table.count("\n") == len(tutorial.QUESTIONS) + 1
    assert tutorial.ANSWERS.put(table, page) == page, "run python -m typing_tests.tutorial_in_an_editor"
