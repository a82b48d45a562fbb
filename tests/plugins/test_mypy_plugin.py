"""The mypy plugin reports what fails at run time and how to fix it, and reports nothing where it does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mypy_cases import BEGINNING, CASES, FILES, MODULES
from mypy_runs import ROOT, mypy_version, run, write

pytestmark = [
    pytest.mark.skipif(mypy_version() < (1, 15), reason="no mypy of 1.15 or later is installed"),
    pytest.mark.timeout(300),
]
PAGES = ROOT / "docs" / "mypy"
CODES = [
    f"loop-local-{code}"
    for code in ("key", "fresh-key", "no-loop", "decorator", "single-use", "key-function", "escape", "closed")
]


def examples() -> dict[str, str]:
    """The wrong and the right example of each page of the documentation, by file name."""
    found: dict[str, str] = {}
    for code in CODES:
        for which in ("wrong", "right"):
            blocks = re.findall(rf"<!-- {which} -->\n```python\n(.*?)```", (PAGES / f"{code}.md").read_text(), re.DOTALL)
            assert len(blocks) == 1, f"{code}.md has one {which} example"
            found[f"{code}-{which}.py".replace("-", "_")] = blocks[0]
    return found


@pytest.fixture(scope="session")
def errors(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """mypy's errors in all cases and examples, from one run."""
    directory = tmp_path_factory.mktemp("cases")
    write(directory, FILES | examples())
    return [line for line in run(directory, "mypy", "--cache-dir=cache", *MODULES, *examples()) if ": note:" not in line]


@pytest.mark.parametrize("name", CASES)
def test_each_case_gives_its_errors_and_no_other(name: str, errors: list[str]) -> None:
    """Each case, with its promise beside it in `mypy_plugin.test`, gives the errors that are noted there and no other."""
    case = CASES[name]
    assert [line for line in errors if line.partition(":")[0] in case.files] == sorted(case.errors), case.promise


@pytest.mark.parametrize("code", CODES)
def test_each_page_shows_what_its_code_reports_and_the_fix(code: str, errors: list[str]) -> None:
    """The wrong example of each code's page gives just that code, the right one gives nothing, and the index links the page."""
    file = code.replace("-", "_")
    assert {line.rpartition("  ")[2] for line in errors if line.startswith(f"{file}_wrong.py")} == {f"[{code}]"}
    assert [line for line in errors if line.startswith(f"{file}_right.py")] == []
    assert f"({code}.md)" in (PAGES / "index.md").read_text()


PROXY = f"""{BEGINNING}
from types import MappingProxyType

async def main(proxy: MappingProxyType[str, int]) -> None:
    value(proxy)
"""


@pytest.mark.parametrize(("python", "findings"), [("3.11", 1), ("3.12", 0)])
def test_what_a_later_python_can_hash_is_reported_for_older_ones(python: str, findings: int, tmp_path: Path) -> None:
    """The Python that mypy checks for decides whether a type that became hashable is reported."""
    write(tmp_path, {file: FILES[file] for file in ("factories.py", "wrapping.py")} | {"code.py": PROXY})
    output = run(tmp_path, "mypy", "--cache-dir=cache", f"--python-version={python}", "code.py")
    assert sum("[loop-local-key]" in line for line in output) == len(output) == findings


OTHER_PLUGIN = """\
from mypy.plugin import Plugin

NAMES = {
    "value", "local", "builtins.staticmethod", "asyncio_loop_local._singleton.singleton",
    "wrapping.make", "wrapping.value", "code.Holder.open", "code.Holder.get",
}


def hook(kind, field=""):
    def get(self, fullname):
        def seen(ctx):
            ctx.api.fail(f"seen by the other: {kind} {fullname}", getattr(ctx, "context", None) or ctx.reason)
            return getattr(ctx, field, True)

        return seen if fullname in NAMES else None

    return get


class Other(Plugin):
    get_function_hook = hook("function", "default_return_type")
    get_method_hook = hook("method", "default_return_type")
    get_function_signature_hook = hook("function signature", "default_signature")
    get_method_signature_hook = hook("method signature", "default_signature")
    get_class_decorator_hook_2 = hook("class")


def plugin(version):
    return Other
"""

CODE = f"""{BEGINNING}
class Holder:
    make = staticmethod(make)

    def __init__(self) -> None:
        self.open = sticky_singleton_acm(Session)

    @singleton
    def get(self, x: object) -> int:
        return 1

@singleton
class Decorated:
    pass

async def main(holder: Holder, a: Array) -> None:
    make("u", data=a)
    local = make
    local("u", data=a)
    holder.open("u", data=a)
    holder.get(a)
    value(a)
"""


def with_plugins(directory: Path, plugins: str, code: str = CODE, *, traceback: bool = True, **files: str) -> list[str]:
    """mypy's output for the code with these plugins, which may be among the files."""
    modules = {file: FILES[file] for file in ("factories.py", "wrapping.py")}
    write(directory, modules | {"code.py": code} | {f"{name}.py": text for name, text in files.items()})
    configuration = directory / "mypy.ini"
    text = configuration.read_text().replace("plugins = asyncio_loop_local_mypy", f"plugins = {plugins}" if plugins else "")
    configuration.write_text(text if traceback else text.replace("show_traceback = true", ""))
    return run(directory, "mypy", "--cache-dir=cache", "code.py")


def test_no_hook_of_another_plugin_is_masked(tmp_path: Path) -> None:
    """A plugin that comes after this one sees what it sees without this one, and this one's findings are reported too."""
    alone = with_plugins(tmp_path / "alone", "other.py", other=OTHER_PLUGIN)
    both = with_plugins(tmp_path / "both", "asyncio_loop_local_mypy, other.py", other=OTHER_PLUGIN)
    seen = [line for line in alone if "seen by the other" in line]
    kinds = {re.split(r" (?=\S+$)", line.partition("seen by the other: ")[2].removesuffix("  [misc]"))[0] for line in seen}
    assert kinds == {"function", "method", "function signature", "method signature", "class"}
    assert [line for line in seen if line not in both] == []
    assert sum("[loop-local-key]" in line for line in both) == 5
    assert sum("[loop-local-decorator]" in line for line in both) == 1


def test_a_plugin_that_comes_first_has_its_names(tmp_path: Path) -> None:
    """mypy asks only the first plugin that has a hook for a name; this one gets the other names."""
    code = CODE.replace("async def", "free = sticky_singleton_acm(Session)\n\nasync def") + '    free("u", data=a)\n'
    first = with_plugins(tmp_path, "other.py, asyncio_loop_local_mypy", code, other=OTHER_PLUGIN)
    assert any("seen by the other: function wrapping.make" in line for line in first)
    assert [line.partition(":")[2].partition(":")[0] for line in first if "[loop-local" in line] == [str(code.count("\n"))]


BROKEN_PLUGIN = """\
import asyncio_loop_local_mypy._plugin as ours


def broken(*args, **kwargs):
    raise RuntimeError("broken")


for name in BROKEN:
    assert hasattr(ours, name)
    setattr(ours, name, broken)
ours._decorated_class.report = broken


def plugin(version):
    return ours.LoopLocalPlugin
"""


@pytest.mark.parametrize("broken", [["find"], ["check_call", "named"], ["type_of_wrapped", "marked_staticmethod"], ["marker_of"]])
def test_a_failure_inside_the_plugin_is_silence(tmp_path: Path, broken: list[str]) -> None:
    """If the plugin itself fails, mypy continues, and reports what it reports without the plugin."""
    code, text = CODE.replace("data=a", "nope=a"), BROKEN_PLUGIN.replace("BROKEN", repr(broken))
    without = with_plugins(tmp_path / "without", "", code)
    reported = with_plugins(tmp_path / "with", "broken.py", code, traceback=False, broken=text)
    assert [re.sub(r' for ".*?"', "", line) for line in reported if "[loop-local-" not in line] == without
