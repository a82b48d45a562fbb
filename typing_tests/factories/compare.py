"""Compares what type checkers make of factories, bare and wrapped, call by call.

Each call of each line of the table is checked of the bare factory and of the wrapped one: it must be accepted or refused
alike, and what the block gives, or the call returns, must be revealed as the same type.

    python typing_tests/factories/compare.py --python .venv/bin/python mypy=.venv/bin/mypy pyright=.venv/bin/pyright
    python typing_tests/factories/compare.py --write docs/checkers.md …
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.written_part import WrittenPart  # noqa: E402  # a script finds only what stands beside it
from typing_tests.factories.table import ACMS, PLAIN, Factory  # noqa: E402
from typing_tests.other_checkers import version_of  # noqa: E402

TABLES = WrittenPart("<!-- begin: made by typing_tests/factories/compare.py -->", "<!-- end -->")

BLOCKS = {  # each way to wrap a factory of asynchronous context managers
    "sticky_singleton_acm(f)": "sticky_singleton_acm({})",
    "sticky_singleton_acm(key=…)(f)": "sticky_singleton_acm(key=shapes.any_key)({})",
    "sticky_singleton_acm(f, key=…)": "sticky_singleton_acm({}, key=shapes.any_key)",
    "sticky_singleton_acm(valid=…)(f)": "sticky_singleton_acm(valid=shapes.any_value)({})",
    "sticky_singleton_acm(f, valid=…)": "sticky_singleton_acm({}, valid=shapes.any_value)",
}
RESULTS = {  # each way to wrap any factory
    "singleton(f)": "singleton({})",
    "singleton(key=…)(f)": "singleton(key=shapes.any_key)({})",
    "singleton(f, key=…)": "singleton({}, key=shapes.any_key)",
    "singleton(close=…, valid=…)(f)": "singleton(close=shapes.any_value, valid=shapes.any_value)({})",
    "singleton(f, close=…, valid=…)": "singleton({}, close=shapes.any_value, valid=shapes.any_value)",
}
FORMS = (*BLOCKS, *RESULTS)


class Place(NamedTuple):
    """Lines of the generated module: one call, bare or wrapped in one form, or the wrapping itself (with no call)."""

    form: str
    factory: str
    call: str | None
    right: bool
    lines: range


@dataclass(frozen=True)
class Found:
    """What a checker said of one call."""

    refused: str  # why
    revealed: str

    def __str__(self) -> str:
        return f"refused ({self.refused})" if self.refused else f"`{self.revealed}`"


class Difference(NamedTuple):
    """Where a checker makes something else of a wrapped factory than of the bare one."""

    form: str
    factory: str
    said: str

    def __str__(self) -> str:
        return f"{self.form}: {self.factory}: {self.said}"


@dataclass
class Outcome:
    """What a checker said of all of them."""

    checker: str
    alike: dict[str, int] = field(default_factory=dict[str, int])
    calls: dict[str, int] = field(default_factory=dict[str, int])
    differences: list[Difference] = field(default_factory=list["Difference"])
    surprises: list[str] = field(default_factory=list[str])


def names_of_modules(factory: Factory) -> set[str]:
    """The top-level modules that a line of the table imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(factory.imports)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names - {"shapes"}


def installed(python: str, names: Iterable[str]) -> set[str]:
    """Which of these modules an interpreter has."""
    script = "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    return set(subprocess.run([python, "-c", script, *names], check=True, capture_output=True, text=True).stdout.split())


def generate(acms: Sequence[Factory], plain: Sequence[Factory]) -> tuple[str, list[Place]]:
    """The module with every call, bare and in each form, and which of its lines are which."""
    lines = [
        "from __future__ import annotations",
        "from typing_extensions import reveal_type",
        "from asyncio_loop_local import singleton, sticky_singleton_acm",
        "import shapes",
    ]
    for imports in dict.fromkeys(factory.imports for factory in (*acms, *plain)):
        lines += imports.splitlines()
    places: list[Place] = []

    def add(form: str, factory: Factory, callee: str, *, block: bool) -> None:
        for call, right in [(call, True) for call in factory.right] + [(call, False) for call in factory.wrong]:
            begin = len(lines) + 1
            lines.append(f"async def call_{begin}() -> None:")
            if block:
                lines.append(f"    async with {callee}{call} as value:")
                lines.append("        revealed = reveal_type(value)")
            else:
                lines.append(f"    value = {callee}{call}")
                lines.append("    revealed = reveal_type(value)")
            places.append(Place(form, _title(factory), call, right, range(begin, len(lines) + 1)))

    for number, factory in enumerate((*acms, *plain)):
        kinds = [("a call", RESULTS, False)]
        if number < len(acms):
            kinds.insert(0, ("a block", BLOCKS, True))
        for bare, forms, block in kinds:
            add(bare, factory, factory.factory, block=block)
            for form_number, (form, wrapping) in enumerate(forms.items()):
                name = f"wrapped_{number}_{form_number}_{'block' if block else 'call'}"
                lines.append(f"{name} = {wrapping.format(factory.factory)}")
                places.append(Place(form, _title(factory), None, True, range(len(lines), len(lines) + 1)))
                add(form, factory, name, block=block)
    return "\n".join(lines) + "\n", places


def _title(factory: Factory) -> str:
    return factory.factory if "class " not in factory.imports else f"{factory.factory}, with a class of one's own"


# What checkers say: each reader yields a line with the error in it, or with the revealed type.
Said = Iterator[tuple[int, str, str]]


def read_mypy(output: str) -> Said:
    for match in re.finditer(r"^generated\.py:(\d+)(?::\d+)*: (error|note): (.*)$", output, re.MULTILINE):
        revealed = re.match(r'Revealed type is "(.*)"', match[3])
        if (match[2] == "error" and "[loop-local-" not in match[3]) or revealed:  # the plugin's findings are no types
            yield int(match[1]), "" if revealed else match[3], revealed[1] if revealed else ""


def read_pyright(output: str) -> Said:
    for each in json.loads(output)["generalDiagnostics"]:
        if Path(each["file"]).name == "generated.py" and each["severity"] in ("error", "information"):
            revealed = re.match(r'Type of ".*" is "(.*)"$', each["message"], re.DOTALL)
            yield each["range"]["start"]["line"] + 1, "" if revealed else each["message"], revealed[1] if revealed else ""


def read_pyrefly(output: str) -> Said:
    for each in json.loads(output)["errors"]:
        if Path(each["path"]).name == "generated.py":
            revealed = re.match(r"revealed type: (.*)$", each["description"], re.DOTALL)
            if revealed or each["severity"] == "error":
                yield each["line"], "" if revealed else each["description"], revealed[1] if revealed else ""


def read_ty(output: str) -> Said:
    for match in re.finditer(r"^\S*generated\.py:(\d+):\d+: (\w+)\[([\w-]+)\] (.*)$", output, re.MULTILINE):
        revealed = re.match(r"Revealed type: `(.*)`", match[4])
        if match[2] == "error" or revealed:
            yield int(match[1]), "" if revealed else f"{match[4]}", revealed[1] if revealed else ""


class Kind(NamedTuple):
    """How a checker is run and read: its configuration, of which {paths} are where modules are, and its arguments."""

    configuration: tuple[str, str]
    arguments: tuple[str, ...]
    read: Callable[[str], Said]


MYPY_SETTINGS = "[mypy]\nstrict = True\n{}\n[mypy-asyncio_loop_local.*]\nfollow_imports = silent\n"
MYPY_OUTPUT = ("--no-error-summary", "--no-pretty", "--hide-error-context", "--no-color-output")
MYPY = Kind(
    ("mypy.ini", MYPY_SETTINGS.format("")),
    (
        "--no-error-summary",
        "--no-pretty",
        "--hide-error-context",
        "--no-color-output",
        "--python-executable",
        "{python}",
        "generated.py",
    ),
    read_mypy,
)
PYRIGHT = Kind(
    ("pyrightconfig.json", '{{"include": ["generated.py"], "extraPaths": {paths}, "reportUnusedCoroutine": false}}'),
    ("--pythonpath", "{python}", "--outputjson"),
    read_pyright,
)
KINDS = {
    "mypy": MYPY,
    "mypy+plugin": MYPY._replace(configuration=("mypy.ini", MYPY_SETTINGS.format("plugins = asyncio_loop_local_mypy"))),
    "pyright": PYRIGHT,
    "basedpyright": PYRIGHT,
    "pyrefly": Kind(
        ("pyrefly.toml", "search-path = {paths}\n"),
        ("check", "--output-format", "json", "--python-interpreter-path", "{python}", "generated.py"),
        read_pyrefly,
    ),
    "zuban": Kind(
        MYPY.configuration,
        ("mypy", "--no-pretty", "--python-executable", "{python}", "generated.py"),
        read_mypy,
    ),
    "ty": Kind(
        ("ty.toml", "[environment]\nextra-paths = {paths}\n"),
        ("check", "--output-format", "concise", "--python", "{python}", "generated.py"),
        read_ty,
    ),
}


def run(kind: Kind, executable: str, python: str, module: str) -> tuple[dict[int, str], dict[int, str]]:
    """What a checker says of the generated module: the lines with errors, and what is revealed in which line."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        directory.joinpath("generated.py").write_text(module)
        shutil.copy(Path(__file__).parent / "shapes.py", directory)
        name, text = kind.configuration
        directory.joinpath(name).write_text(text.format(paths=json.dumps([str(ROOT / "src")])))
        environment = os.environ | {"MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "mypy_plugin")}
        environment["PATH"] = os.pathsep.join([str(Path(executable).parent), os.environ.get("PATH", "")])
        command = [executable, *(argument.format(python=python) for argument in kind.arguments)]
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    errors: dict[int, str] = {}
    revealed: dict[int, str] = {}
    for line, error, type_ in kind.read(done.stdout):
        if error:
            errors.setdefault(line, error.splitlines()[0])
        else:  # mypy numbers type variables, and a TypedDict that a type variable stood for is known by its items alone
            revealed[line] = re.sub(r"`-?\d+|(?<=TypedDict\()['\w.]+, |\bbuiltins\.", "", type_)
    if not revealed:
        raise RuntimeError(f"{executable} revealed nothing: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return errors, revealed


def compare(checker: str, executable: str, python: str, module: str, places: Sequence[Place]) -> Outcome:
    """Runs one checker, and compares what it says of the bare and of the wrapped calls."""
    errors, revealed = run(KINDS[checker], executable, python, module)
    outcome = Outcome(
        f"{checker.split('+', maxsplit=1)[0]} {version_of(executable)}{' with the plugin' if '+' in checker else ''}"
    )
    bare: dict[tuple[bool, str, str], Found] = {}
    for place in places:
        refused = next((errors[line] for line in place.lines if line in errors), "")
        found = Found(refused, "" if refused else revealed.get(place.lines[-1], "nothing"))
        if place.form.startswith("a "):
            bare[place.form == "a block", place.factory, str(place.call)] = found
            if bool(refused) is place.right:
                outcome.surprises.append(f"{place.form} of {place.factory}{place.call}: {found}")
            continue
        if place.call is None:
            if refused:
                outcome.differences.append(Difference(place.form, place.factory, f"the wrapping is {found}"))
            continue
        expected = bare[place.form in BLOCKS, place.factory, place.call]
        outcome.calls[place.form] = outcome.calls.get(place.form, 0) + 1
        if bool(found.refused) is bool(expected.refused) and found.revealed == expected.revealed:
            outcome.alike[place.form] = outcome.alike.get(place.form, 0) + 1
        else:
            said = f"`{place.call}` is {expected} bare, {found} wrapped"
            outcome.differences.append(Difference(place.form, place.factory, said))
    return outcome


def select(python: str) -> tuple[list[Factory], list[Factory], list[str]]:
    """The lines of the table whose modules are installed, and the modules that are not."""
    wanted = {name for factory in (*ACMS, *PLAIN) for name in names_of_modules(factory)}
    there = installed(python, sorted(wanted))
    acms, plain = ([each for each in table if names_of_modules(each) <= there] for table in (ACMS, PLAIN))
    return acms, plain, sorted(wanted - there)


def to_markdown(outcomes: Sequence[Outcome], factories: int) -> str:
    """The table of checkers and forms, and the list of differences."""
    lines = [
        f"{factories} factories. In each field: the calls that are typed alike, bare and wrapped, of all calls.",
        "Below: the factories of which some calls, or the wrapping itself, are typed otherwise, and how many.",
        "",
        f"| checker | {' | '.join(f'`{form}`' for form in FORMS)} |",
        f"| --- |{' --- |' * len(FORMS)}",
    ]
    for outcome in outcomes:
        counts = (f"{outcome.alike.get(form, 0)} / {outcome.calls[form]}" for form in FORMS)
        lines.append(f"| {outcome.checker} | {' | '.join(counts)} |")
    same: dict[tuple[str, ...], list[str]] = {}
    for outcome in outcomes:
        same.setdefault(tuple(_summary(outcome)), []).append(outcome.checker)
    for summary, checkers in same.items():
        lines += ["", f"### {', '.join(checkers)}", "", *(summary or ["No difference."])]
    return "\n".join(lines)


def _summary(outcome: Outcome) -> Iterator[str]:
    """A line for each set of forms: the factories with differences in just these, each with the number of them."""
    forms_of: dict[str, dict[str, None]] = {}
    for each in outcome.differences:
        forms_of.setdefault(each.factory, {})[each.form] = None
    factories_with: dict[tuple[str, ...], list[str]] = {}
    for factory, forms in forms_of.items():
        factories_with.setdefault(tuple(forms), []).append(factory)
    for shared, factories in factories_with.items():
        counts = (sum(each.factory == factory for each in outcome.differences) for factory in factories)
        listed = ", ".join(f"`{factory}` {count}" for factory, count in zip(factories, counts, strict=True))
        yield f"- {'every form' if len(shared) == len(FORMS) else ', '.join(f'`{form}`' for form in shared)}: {listed}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkers", nargs="+", help=f"KIND=PATH, of {', '.join(KINDS)}")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the factories' packages")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--write", type=Path, help="the page in which to put the table, between its markers")
    given = parser.parse_args()
    acms, plain, missing = select(given.python)
    module, places = generate(acms, plain)
    ast.parse(module)
    outcomes: list[Outcome] = []
    for checker in given.checkers:
        kind, _, executable = checker.partition("=")
        outcomes.append(compare(kind, executable or kind, given.python, module, places))
    if given.json:
        print(json.dumps([vars(outcome) for outcome in outcomes]))
    elif given.write:
        given.write.write_text(TABLES.put(to_markdown(outcomes, len({*acms, *plain})), given.write.read_text()))
    else:
        print(to_markdown(outcomes, len({*acms, *plain})))
        for outcome in outcomes:
            print(f"\n{outcome.checker}: the table is wrong, or the checker:", *outcome.surprises, sep="\n- ")
    if missing:
        print(f"not installed, so not compared: {', '.join(missing)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
