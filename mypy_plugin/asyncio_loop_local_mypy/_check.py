"""``loop-local-check``: the plugin's findings and no other errors, for projects that have another type checker."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NoReturn

from . import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._mypy_run import Message, Report

_PROGRAM = "loop-local-check"
_DESCRIPTION = """\
Reports what the mypy plugin of asyncio-loop-local finds, and no other errors: for projects that have another type checker.
If the project has settings for mypy, they are in force. They need not name the plugin.
"""
_EXIT_STATUS = "The exit status is 0 without findings, 1 with findings, and 2 if the files could not be checked."


def main() -> NoReturn:
    """Run the command and end the process at once, as mypy does: to free its objects would take half as long again."""
    try:
        status = run(sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it was closed before the process began
                stream.flush()
    except OSError as error:  # nobody reads the output, say; the exit status of an uncaught error is that of findings
        status = _fail(f"the findings could not be printed: {error}")
    os._exit(status)


def run(arguments: Sequence[str]) -> int:
    """Check the files, print the findings, and return the exit status.

    :raises SystemExit: if the arguments are wrong, or ask for help.
    """
    given = _parser().parse_args(arguments)
    try:
        from ._mypy_run import NotCheckedError, check  # noqa: PLC0415  # mypy may not be installed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mypy":
            raise
        return _fail('it needs mypy: install "asyncio-loop-local[check]"')
    try:
        report = check(given.paths, _for_mypy(given))
    except NotCheckedError as error:
        print(error, file=sys.stderr)
        return _fail("the files could not be checked")
    except Exception:  # the exit status of an uncaught one would be that of findings
        traceback.print_exc()
        return _fail("mypy or one of its plugins has failed")
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # as mypy does
    for line in _FORMATS[given.output](report):
        print(line)
    return int(bool(report.findings))


def _fail(message: str) -> int:
    print(f"{_PROGRAM}: error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=_DESCRIPTION,
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", help="files and folders; else those of mypy's settings, else all")
    parser.add_argument(
        "--output", choices=list(_FORMATS), default="text", help="mypy's text, mypy's JSON, or GitHub annotations"
    )
    parser.add_argument("--config-file", metavar="FILE", help="the settings for mypy, if they are not where mypy looks for them")
    parser.add_argument("--python-executable", metavar="PYTHON", help="the Python that has the packages which the files import")
    parser.add_argument(
        "--exclude", metavar="REGEX", action="append", default=[], help="paths to leave out below a folder, as for mypy"
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}, {_mypy_version()}")
    return parser


def _mypy_version() -> str:
    try:
        return f"mypy {version('mypy')}"
    except PackageNotFoundError:
        return "without mypy"


def _for_mypy(given: argparse.Namespace) -> list[str]:
    options = {"--config-file": given.config_file, "--python-executable": given.python_executable}
    chosen = [f"{option}={value}" for option, value in options.items() if value is not None]
    return [*chosen, *(f"--exclude={regex}" for regex in given.exclude)]


def _as_text(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield finding.as_text(column=report.show_columns)
    if report.show_summary:
        yield _summary(report.findings, _number(report.sources, "source file"))


def _summary(findings: list[Message], sources: str) -> str:
    if not findings:
        return f"Success: no issues found in {sources}"
    files = {finding.file for finding in findings}
    return f"Found {_number(len(findings), 'error')} in {_number(len(files), 'file')} (checked {sources})"


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_json(report: Report) -> Iterator[str]:
    return (finding.json for finding in report.findings)


def _for_github(report: Report) -> Iterator[str]:
    for finding in report.findings:
        place = {"file": finding.file, "line": finding.line, "col": finding.column + 1, "title": finding.code}
        properties = (f"{name}={_escaped(str(value), _IN_PROPERTIES)}" for name, value in place.items())
        text = "\n".join([finding.text, *finding.notes])
        yield f"::error {','.join(properties)}::{_escaped(text, _IN_TEXT)}"


_IN_TEXT = "%\r\n"
_IN_PROPERTIES = "%\r\n:,"


def _escaped(text: str, special: str) -> str:
    """Return the text with these characters written as GitHub's commands want them."""
    return "".join(f"%{ord(character):02X}" if character in special else character for character in text)


_FORMATS = {"text": _as_text, "json": _as_json, "github": _for_github}


if __name__ == "__main__":
    main()
