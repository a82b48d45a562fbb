"""A run of mypy with the plugin, under the project's own settings, and those of its messages that are the plugin's."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mypy.build import build
from mypy.errors import CompileError
from mypy.find_sources import InvalidSourceList, create_source_list
from mypy.fscache import FileSystemCache
from mypy.main import process_options

from ._plugin import LoopLocalPlugin  # with it come its error codes, which mypy has to know when it reads settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy.build import BuildResult
    from mypy.modulefinder import BuildSource
    from mypy.options import Options

_LIBRARY = "asyncio_loop_local"
_PLUGIN = LoopLocalPlugin.__module__.partition(".")[0]
_PROGRAM = "loop-local-check"
_RECURSION_LIMIT = 2**14  # mypy's own


class NotCheckedError(Exception):
    """mypy could not check the files. The text says why."""


class Message(NamedTuple):
    """One message of mypy, with its notes."""

    json: str
    file: str
    line: int
    column: int  # from 0
    severity: str
    text: str
    notes: list[str]
    code: str

    def as_text(self, *, column: bool = False) -> str:
        """Return the lines that mypy prints."""
        place = self.file if self.line < 0 else f"{self.file}:{self.line}"
        if column and self.line >= 0 and self.column >= 0:
            place += f":{self.column + 1}"
        code = f"  [{self.code}]" if self.code else ""
        return "\n".join([f"{place}: {self.severity}: {self.text}{code}", *(f"{place}: note: {note}" for note in self.notes)])


class Report(NamedTuple):
    """The plugin's findings, and what mypy's settings say about how to print them."""

    findings: list[Message]
    sources: int
    show_columns: bool
    show_summary: bool


def check(paths: Sequence[str], arguments: Sequence[str]) -> Report:
    """Run mypy over the paths; without paths, over those of its settings, else over the current directory.

    :param arguments: further ones for mypy.
    :raises NotCheckedError: if mypy cannot check the files. There is a syntax error, say, or no such file.
    :raises SystemExit: if mypy does not take its arguments or settings, or crashes. It has said why on stderr.
    """
    sys.setrecursionlimit(_RECURSION_LIMIT)
    with redirect_stdout(sys.stderr):  # where mypy and its plugins print of their own accord
        sources, options = process_options(
            [*arguments, "--check-untyped-defs", "--output=json", "--", *paths],
            stderr=sys.stderr,
            require_targets=False,
            fscache=FileSystemCache(),
            program=_PROGRAM,
            header=f"{_PROGRAM} --help",
        )
        has_settings = options.config_file is not None
        _adapt(options)
        try:
            return _run(sources or _sources(paths, options), options)
        except NotCheckedError:
            if has_settings:
                raise
        # Nobody has said where packages begin, and by mypy's guess two files can have one name. So each is named by its path.
        options.explicit_package_bases = True
        options.mypy_path = [str(path.absolute()) for path in [Path("src")] if path.is_dir()]
        return _run(_sources(paths, options), options)


def _adapt(options: Options) -> None:
    """Add the plugin to the project's settings, and turn off those that skip code, limit errors or write files."""
    if all(plugin.partition(":")[0] != _PLUGIN for plugin in options.plugins):
        options.plugins.insert(0, _PLUGIN)  # mypy asks the first one, and ours asks the others
    options.config_file = options.config_file or os.devnull  # without a file, mypy loads no plugin
    for section in options.per_module_options.values():
        section.pop("check_untyped_defs", None)
    for module in (_LIBRARY, f"{_LIBRARY}.*"):  # if it is not followed, there is nothing to find
        options.per_module_options.setdefault(module, {})["follow_imports"] = "silent"
    options.many_errors_threshold = -1  # beyond it, mypy drops errors
    options.report_dirs = {}
    if options.cache_dir != os.devnull:
        options.cache_dir = _own_cache(options.cache_dir)
    if getattr(options, "num_workers", 0):  # from mypy 2 on; they take the settings from mypy's own command line
        options.num_workers = 0


def _own_cache(cache_dir: str) -> str:
    """Return the folder of our own cache, in mypy's; no cache if it cannot be written, where mypy would crash."""
    path = Path(cache_dir, _PROGRAM)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return os.devnull
    return str(path) if os.access(path, os.W_OK) else os.devnull


def _sources(paths: Sequence[str], options: Options) -> list[BuildSource]:
    try:
        return create_source_list(paths or ["."], options)
    except InvalidSourceList as error:
        raise NotCheckedError(str(error)) from error


def _run(sources: list[BuildSource], options: Options) -> Report:
    messages: list[str] = []

    def keep(_file: str | None, new: list[str], _is_serious: bool) -> None:
        messages.extend(new)

    try:
        result = build(sources, options, flush_errors=keep, stdout=sys.stderr, stderr=sys.stderr)
    except CompileError as error:
        raise NotCheckedError("\n".join(_as_text(message) for message in messages)) from error
    close = getattr(result.manager.metastore, "close", None)  # mypy 2 has a database
    if close is not None:
        close()
    if _does_not_find_the_library(result):
        raise NotCheckedError(
            f"{_LIBRARY} is imported, but mypy does not find it: install it where this program is, "
            "or name the Python that has it with --python-executable"
        )
    findings = [message for message in map(_parsed, messages) if message is not None and message.code.startswith("loop-local-")]
    return Report(findings, len(sources), options.show_column_numbers, options.error_summary)


def _does_not_find_the_library(result: BuildResult) -> bool:
    """Tell whether one of the project's own modules imports the library in vain. The plugin would have nothing to find."""
    return any(_LIBRARY in state.suppressed for state in result.graph.values() if not state.ignore_all)


def _parsed(message: str) -> Message | None:
    """Read a message, unless it is about no file: those are only printed."""
    if not message.startswith("{"):
        return None
    read = json.loads(message)
    notes: list[str] = read["hint"].splitlines() if read["hint"] else []
    place = (read["file"], read["line"], read["column"])
    return Message(message, *place, read["severity"], read["message"], notes, read["code"] or "")


def _as_text(message: str) -> str:
    parsed = _parsed(message)
    return message if parsed is None else parsed.as_text()
