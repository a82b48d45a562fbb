"""A small client of a language server, which speaks with it over its standard input and output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]


class LanguageServer:
    """A language server that runs as long as the block; it knows one document at a time."""

    def __init__(self, command: Sequence[str], root: Path, settings: Mapping[str, Any]) -> None:
        self._command = list(command)
        self._root = root
        self._settings = settings
        self._last_id = 0
        self._path = root / "document.py"

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, cwd=self._root, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        text = {"contentFormat": ["plaintext"], "documentationFormat": ["plaintext"]}
        capabilities = {
            "workspace": {"configuration": True},
            "textDocument": {
                "hover": text,
                "completion": {"completionItem": text},
                "signatureHelp": {"signatureInformation": text | {"parameterInformation": {"labelOffsetSupport": False}}},
            },
        }
        folders = [{"uri": self._root.as_uri(), "name": "root"}]
        self.request(
            "initialize",
            {"processId": None, "rootUri": self._root.as_uri(), "capabilities": capabilities, "workspaceFolders": folders},
        )
        self._notify("initialized", {})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is None:
                self.request("shutdown", None)
                self._notify("exit", None)
        finally:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            if error is not None:
                self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def open(self, text: str) -> None:
        """Show it a document."""
        self._path.write_text(text)
        document = {"uri": self._path.as_uri(), "languageId": "python", "version": 1, "text": text}
        self._notify("textDocument/didOpen", {"textDocument": document})

    def at(self, method: str, line: int, character: int) -> Any:
        """What it answers to a request about a place in the document; lines count from zero."""
        place = {"textDocument": {"uri": self._path.as_uri()}, "position": {"line": line, "character": character}}
        return self.request(f"textDocument/{method}", place)

    def request(self, method: str, params: object) -> Any:
        """Ask, and wait for the answer; what it asks meanwhile is answered."""
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        while True:
            message = self._receive()
            if "method" in message:
                if "id" in message:
                    self._send({"id": message["id"], "result": self._answer(message["method"], message.get("params"))})
            elif message.get("id") == self._last_id:
                assert "error" not in message, message["error"]
                return message["result"]

    def _answer(self, method: str, params: Any) -> object:
        if method == "workspace/configuration":
            return [self._settings.get(item.get("section", "")) for item in params["items"]]
        return None

    def _notify(self, method: str, params: object) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while header := self._process.stdout.readline().strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            raise EOFError(f"{self._command[0]} has ended")
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        return message


def basedpyright(workspace: Path) -> LanguageServer:
    """Return basedpyright's language server, with the settings of an editor that knows the source tree.

    :raises FileNotFoundError: if it is not installed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = shutil.which("basedpyright-langserver", path=path)
    if command is None:
        raise FileNotFoundError("basedpyright is not installed")
    analysis = {"extraPaths": [str(ROOT / "src")], "diagnosticMode": "openFilesOnly"}
    settings = {"python": {"pythonPath": sys.executable}, "basedpyright": {"analysis": analysis}}
    return LanguageServer([command, "--stdio"], workspace, settings)
