"""Every block of every page in docs is run, prints what the page says that it prints, and is type-checked.

What a page may hold (those of the plugin's codes, and the README, have forms of their own: test_mypy_plugin.py, test_readme.py):

- ````` ```python ````` is **run**. All blocks of a page run in one process, in a directory of the page's own. A block that begins
  with an import is a program of its own, and knows nothing of the blocks before it, so that readers can copy it; one that begins
  with anything else goes on with what they have defined. ``<!-- goes on -->`` above a block that begins with an import lets
  it go on all the same.
- ````` ```text ````` directly below a block is **what it prints**, errors and logs included; a block without one prints nothing.
  ``...`` stands for any text, lines or a part of one.
- ``<!-- raises -->`` above: the block ends with an error, and the text below is the end of what Python says of it,
  ``RuntimeError: no running event loop``.
- All of these are **type-checked**, by mypy, strict and with the plugin, and by pyright, strict; blocks that go on as one
  module with those before them. A line that is wrong ends with the code that mypy gives to it: ``# error: [arg-type]``.
  There, and nowhere else, pyright may find an error too. ``<!-- typed -->`` above: the block is not run, and is a module of its
  own. ``<!-- untyped: reason -->`` above: it is run, and no checker could read it.
- ````` ```python title="service.py" `````, or ``ini`` and the like, is **a file**, with that name in the page's directory. It is
  not run, but compiled; blocks after it can import it, and commands can run it. A later one of the same name takes its place.
- ````` ```console ````` holds commands, ``$ python service.py``, which are run in that directory, and their output, in which
  ``...`` stands for any text: ``python``, ``pytest``, ``mypy`` and ``loop-local-check``, those of the suite.
  ``<!-- raises -->`` above: one of them fails. ``<!-- not run: reason -->`` above: they are only shown.
- ``<!-- with NAME as TEXT -->`` anywhere in the page: a real server, of those in page_servers.py. TEXT, in all code, files and
  commands of the page, is replaced by where the server is, and in what is printed it is put back. So a page can say
  ``https://example.org`` and get a server of the suite's.
- ``<!-- run``, lines of Python, ``-->``: run as a block that goes on, and readers do not see it.
- Fences of configuration and the like (``toml``, ``ini``, ``yaml``, ``bash`` …: SHOWN below) are only shown. Any other is an
  error, a bare one too, so that no block is left out by mistake.

Warnings are errors in all of it, but for those of deprecations, which are other people's.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import pytest
from benchmarks import comparison

import asyncio_loop_local
import mypy_runs
from page_process import Outcome, Step
from page_servers import SERVERS
from programs import run_python
from servers import running

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODES = {page for page in DOCS.glob("mypy/loop-local-*.md") if page.stem != "loop-local-check"}
PAGES = sorted({*DOCS.rglob("*.md")} - CODES)
NAMES = [page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES]
SHOWN = {"toml", "ini", "yaml", "bash", "json", "html"}
MARK = re.compile(r"<!-- (goes on|raises|typed|untyped: [^>]+|not run: [^>]+|run|with (\w+) as ([^>]+?))(?: -->)?")

OTHERS = re.compile(r"<!-- (begin|end|Written by)\b")  # marks of what scripts write into pages


class Block(NamedTuple):
    """A fence of a page, and the marks above it; of what readers do not see, the language is ``run``."""

    line: int
    language: str
    title: str
    marks: frozenset[str]
    text: str


class Page(NamedTuple):
    blocks: list[Block]
    servers: dict[str, str]
    """The text that stands for a server, by its name."""


def read(text: str) -> Page:
    """Finds the blocks of a page.

    :raises ValueError: if something looks like a block or a mark and is none.
    """
    blocks: list[Block] = []
    servers: dict[str, str] = {}
    marks: list[str] = []
    lines = deque(enumerate(text.splitlines(), 1))

    def until(end: str) -> str:
        taken: list[str] = []
        while lines:
            _, line = lines.popleft()
            if line.strip() == end:
                return textwrap.dedent("\n".join(taken) + "\n")
            taken.append(line)
        raise ValueError(f"nothing ends with {end}")

    while lines:
        number, line = lines.popleft()
        line = line.strip()
        if fence := re.fullmatch(r"(`{3,})(.*)", line):
            said = re.fullmatch(r"([a-z]+)(?: title=\"([\w./-]+)\")?", fence[2])
            if said is None:
                raise ValueError(f"line {number}: a fence of no language, or with what is not known: {line}")
            blocks.append(Block(number + 1, said[1], said[2] or "", frozenset(marks), until(fence[1])))
            marks = []
        elif line == "<!-- run":
            blocks.append(Block(number + 1, "run", "", frozenset({"goes on"}), until("-->")))
        elif mark := MARK.fullmatch(line):
            if mark[2] is None:
                marks.append(mark[1])
            else:
                servers[mark[2]] = mark[3]
        elif line and marks:
            raise ValueError(f"line {number}: {marks} stands above no block")
    return Page(blocks, servers)


class Task(NamedTuple):
    """What is to be done with a block, and what is to be printed then; None if that is nothing that can be compared."""

    block: Block
    step: Step
    printed: str


def tasks_of(name: str, page: Page) -> Iterator[Task]:
    """What is to be done with a page, in order.

    :raises ValueError: if a fence is of a kind that is not known, or an output stands below nothing.
    """
    blocks = deque(page.blocks)
    while blocks:
        block = blocks.popleft()
        if block.language in SHOWN and not block.title:
            continue
        step = Step(kind="run", text=block.text, page=str(DOCS / f"{name}.md"), line=block.line, name=block.title, goes_on=True)
        if block.language == "console":
            step["kind"] = "console"
            if not any(mark.startswith("not run") for mark in block.marks):
                yield Task(block, step, block.text)
        elif block.title:
            step["kind"] = "file"
            yield Task(block, step, "")
        elif block.language in {"python", "run"}:
            if "typed" in block.marks:
                continue
            step["goes_on"] = "goes on" in block.marks or re.match(r"(import|from) ", block.text) is None
            yield Task(block, step, blocks.popleft().text if blocks and blocks[0].language == "text" else "")
        else:
            raise ValueError(f"line {block.line}: nobody knows what to do with {block.language!r} there")


def says(printed: str, expected: str) -> bool:
    """Whether the one is the other, where ``...`` stands for anything."""
    lines = [line.rstrip() for line in expected.strip().splitlines()]
    pattern = ".*".join(map(re.escape, "\n".join(lines).split("...")))
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed.strip().splitlines()), re.DOTALL) is not None


Servers = Callable[[str], str]


@pytest.fixture(scope="module")
def server() -> Generator[Servers]:
    """Starts a server when it is first asked for, and says where it is."""
    with ExitStack() as started:
        places: dict[str, str] = {}

        def place_of(name: str) -> str:
            if name not in places:
                places[name] = started.enter_context(running(SERVERS[name]()))
            return places[name]

        yield place_of


def run(tasks: list[Task], places: dict[str, str], directory: Path) -> list[Outcome]:
    """What becomes of the blocks of one page, in a process of its own.

    :param places: what stands for each text of the page.
    """
    steps = json.dumps([task.step for task in tasks])
    for text, place in places.items():
        steps = steps.replace(json.dumps(text)[1:-1], json.dumps(place)[1:-1])
    program = Path(__file__).parents[1] / "support" / "page_process.py"
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "COLUMNS": "100"}
    done = run_python("-W", "error", "-W", "ignore::DeprecationWarning", program, cwd=directory, env=env, stdin=steps)
    assert (done.stderr, done.returncode) == ("", 0), "the page's process ends as quietly as it should"
    printed = done.stdout
    for text, place in places.items():
        printed = printed.replace(json.dumps(place)[1:-1], json.dumps(text)[1:-1])
    outcomes: list[Outcome] = json.loads(printed)
    return outcomes


@pytest.mark.parametrize("name", NAMES)
def test_each_block_runs_and_prints_what_the_page_says(name: str, tmp_path: Path, server: Servers) -> None:
    """Gone through from top to bottom, a page's blocks, files and commands do what the page says."""
    page = read((DOCS / f"{name}.md").read_text(encoding="utf-8"))
    tasks = list(tasks_of(name, page))
    if not tasks:
        return
    outcomes = run(tasks, {text: server(each) for each, text in page.servers.items()}, tmp_path)
    for task, outcome in zip(tasks, outcomes, strict=True):
        at = f"{name}.md, line {task.block.line}"
        printed = outcome["printed"]
        if "raises" in task.block.marks:
            assert outcome["error"], f"{at}: it fails"
            printed += outcome["error"] if task.step["kind"] == "run" else ""
        else:
            assert not outcome["error"], f"{at}: {outcome['traceback']}"
        assert says(printed, task.printed), f"{at}: prints\n{printed}"


def test_no_block_is_left_out() -> None:
    """There are pages, blocks that run, blocks that are only typed, and none of them is marked in a way that nobody reads."""
    languages: dict[str, int] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        comments = [line.strip() for line in text.splitlines() if line.strip().startswith("<!-- ")]
        assert [line for line in comments if not (MARK.fullmatch(line) or line == "<!-- run" or OTHERS.match(line))] == [], page
        for block in read(text).blocks:
            languages[block.language] = languages.get(block.language, 0) + 1
    assert languages["python"] > 50


@pytest.mark.parametrize(
    "page",
    [
        "```\nprint()\n```",
        "```python linenums\nprint()\n```",
        "```rust\nprint()\n```",
        "```text\nprinted by nothing\n```",
        "<!-- typed -->\nText.\n```python\nprint()\n```",
        "```python\nprint()\n",
    ],
)
def test_what_nobody_would_run_is_an_error(page: str) -> None:
    """A fence without a language, one of a language that nobody knows, a mark above no block: none is passed over in silence."""
    with pytest.raises(ValueError, match=r"line|ends"):
        list(tasks_of("page", read(page)))


def test_three_dots_stand_for_anything_and_nothing_else_does() -> None:
    """What is printed is compared line by line, and ``...`` may be as much as it will."""
    assert says("a\nb 3\nc\n", "a\nb ...\nc")
    assert says("one\ntwo\nthree", "one\n...\nthree")
    assert not says("a\nb", "a")
    assert not says("a.c", "abc")


def test_a_block_that_begins_with_an_import_knows_nothing_of_those_before_it(tmp_path: Path) -> None:
    """Each block of one page: what it prints and the error that ends it, located by its line; a copied block runs by itself."""
    page = "```python\nname = 1\n```\n```python\nprint(name)\n```\n```python\nimport sys\nprint(name)\n```"
    outcomes = run(list(tasks_of("page", read(page))), {}, tmp_path)
    assert [outcome["printed"] for outcome in outcomes] == ["", "1\n", ""]
    assert [outcome["error"] for outcome in outcomes] == ["", "", "NameError: name 'name' is not defined\n"]
    assert 'page.md", line 9' in outcomes[2]["traceback"]


UNKNOWN_PARTS = "# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false\n"

# What checkers are to ignore, since it is not the page's own: celery, Django and asgiref's WsgiToAsgi have no types, and
# the annotations of nats and redis leave parts out. Code written for the older package uses private names.
TOLD: dict[str, str] = {
    "how-to/celery": '# mypy: disable-error-code="import-untyped, untyped-decorator"\n'
    "# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUntypedFunctionDecorator=false\n",
    "how-to/clients-that-close": UNKNOWN_PARTS,
    "how-to/flask-and-django": '# mypy: disable-error-code="import-untyped, no-untyped-call"\n'
    "# pyright: reportMissingTypeStubs=false\n",
    "how-to/nats": "# mypy: disable-error-code=no-untyped-call\n" + UNKNOWN_PARTS,
    "how-to/redis": UNKNOWN_PARTS,
    "from-the-older-package": "# pyright: reportPrivateUsage=false\n",
}


def modules_of(name: str, page: Page) -> Iterator[tuple[str, str]]:
    """The modules that a page's blocks are for a checker, and their names; lines have the numbers that they have in the page.

    A file is a module too. It may be shown several times: the blocks that import it mean the last one above them.
    """
    prefix = re.sub(r"\W", "_", name)
    files: dict[str, str] = {}
    module = text = ""

    def padded(text: str, block: Block) -> str:
        code = block.text
        for file, known in files.items():
            code = re.sub(rf"^from {file} import ", f"from {known} import ", code, flags=re.MULTILINE)
            code = re.sub(rf"^import {file}$", f"import {known} as {file}", code, flags=re.MULTILINE)
        return text + "\n" * (block.line - 1 - text.count("\n")) + code

    for block in page.blocks:
        if block.language != "python" or any(mark.startswith("untyped") for mark in block.marks):
            continue
        if block.title or "typed" in block.marks:
            alone = f"{prefix}_{block.line}"
            yield alone, padded(TOLD.get(name, ""), block)
            files[block.title.removesuffix(".py") or alone] = alone
        else:
            if "goes on" not in block.marks and re.match(r"(import|from) ", block.text):
                if text:
                    yield module, text
                module, text = f"{prefix}_{block.line}", TOLD.get(name, "")
            text = padded(text, block)
            module = module or f"{prefix}_{block.line}"
    if text:
        yield module, text


def test_blocks_are_checked_with_those_that_they_go_on_with() -> None:
    """A block that begins with an import is a module; what is shown later as the same file is what blocks below import."""
    file = '```python title="a.py"\nx = {}\n```\n'
    code = "```python\nimport a\n```\n```python\nfrom a import x\n```\n```python\nprint(x)\n```\n"
    modules = dict(modules_of("the-page", read("#\n\n" + file.format(1) + code + file.format(2) + code)))
    assert [(name, text.strip()) for name, text in modules.items()] == [
        ("the_page_4", "x = 1"),
        ("the_page_7", "import the_page_4 as a"),
        ("the_page_16", "x = 2"),
        ("the_page_10", "from the_page_4 import x\n\n\nprint(x)"),
        ("the_page_19", "import the_page_16 as a"),
        ("the_page_22", "from the_page_16 import x\n\n\nprint(x)"),
    ]
    assert modules["the_page_10"].splitlines()[12] == "print(x)", "at its line of the page"


def checked_modules() -> dict[str, str]:
    """Those of all pages, by the name of the file that each becomes."""
    return {
        f"{module}.py": text
        for name, path in zip(NAMES, PAGES, strict=True)
        for module, text in modules_of(name, read(path.read_text(encoding="utf-8")))
    }


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_each_block_is_found_right_or_wrong_as_it_says(checker: str, tmp_path: Path) -> None:
    """mypy, strict and with the plugin, finds just what the comments of a page say; pyright, strict, nothing in other lines."""
    modules = checked_modules()
    assert modules
    mypy_runs.write(tmp_path, modules)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    expected = {
        (name, number): set(re.findall(r"\[[\w-]+\]", line.partition("# error: ")[2]))
        for name, text in modules.items()
        for number, line in enumerate(text.splitlines(), 1)
        if "# error: " in line
    }
    found: dict[tuple[str, int], set[str]] = {}
    if checker == "mypy":
        for line in mypy_runs.run(tmp_path, "mypy", "."):
            if error := re.match(r"(\S+):(\d+): error: .*(\[[\w-]+\])$", line):
                found.setdefault((error[1], int(error[2])), set()).add(error[3])
        assert found == expected
    else:
        done = run_python("-m", "pyright", "--pythonpath", sys.executable, cwd=tmp_path, env=mypy_runs.environment())
        for line in done.stdout.splitlines():
            if error := re.match(r".*/(\S+):(\d+):\d+ - error: (.*)", line):
                found.setdefault((error[1], int(error[2])), set()).add(error[3])
        assert found, done.stdout
        assert {at: errors for at, errors in found.items() if at not in expected} == {}


MODULES = [f"asyncio_loop_local.{module.name}" for module in iter_modules(asyncio_loop_local.__path__)]


def test_the_examples_in_docstrings_run() -> None:
    """The examples in the docstrings of public names run, and give what they show."""
    results = [
        doctest.testmod(import_module(module), extraglobs=dict(vars(asyncio_loop_local)), raise_on_error=True)
        for module in MODULES
    ]
    assert sum(result.attempted for result in results) >= 3


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Every link, heading, name and page is found; no page asks another server for a script, a style or a picture."""
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = run_python("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path, cwd=ROOT, env=env)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.html")}
    assert set(NAMES) <= pages
    loads = re.compile(r"""<(?:script|img|iframe|source)[^>]* src="https?:|<link[^>]* href="https?:|url\(['"]?https?:""")
    found = {path.name: loads.findall(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html")}
    assert {name: loaded for name, loaded in found.items() if loaded} == {}


def test_the_comparison_is_what_the_programs_do() -> None:
    """Each cell of the table in the comparison is found again, in this version of Python too."""
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    assert comparison.TABLE.put(comparison.table(), page) == page
