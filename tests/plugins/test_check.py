"""`loop-local-check` reports the plugin's findings, and nothing else, whatever checker and settings a project has."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from asyncio_loop_local_mypy import _check
from asyncio_loop_local_mypy._mypy_run import Message, Report
from mypy_runs import ROOT, environment, mypy_version, plugin_sources, run

pytestmark = [
    pytest.mark.skipif(mypy_version() < (1, 15), reason="no mypy of 1.15 or later is installed"),
    pytest.mark.timeout(300),
]
COMMAND = ("-P", "-m", "asyncio_loop_local_mypy._check")  # what the console script calls

APP = """\
import asyncio

from asyncio_loop_local import singleton


@singleton
def connection(lock: asyncio.Lock) -> str:
    return "connection"


number: int = "not the plugin's affair"
connection(LOCK)


def unannotated():
    async def inner():
        connection(asyncio.Lock())
        connection(asyncio.Lock())  # type: ignore[loop-local-fresh-key]
"""
NO_LOOP = (
    'error: "connection" is called while the module is imported, when no event loop is running: '
    "call it in a coroutine, or in a function that a coroutine calls  [loop-local-no-loop]"
)
FRESH_KEY = (
    'error: Argument 1 to "connection" is a new "Lock" at every call, equal to no other, so each call makes a value of its own: '
    "create it once and pass that one, create it inside the factory, or use key=... to say which calls are the same  "
    "[loop-local-fresh-key]"
)
IN_APP = [f"app.py:12: {NO_LOOP}", f"app.py:17: {FRESH_KEY}"]
CALL = "import asyncio\nfrom app import connection\n\n\nasync def main() -> None:\n    connection(asyncio.Lock())\n"
CLEAN = "x: str = 1\n"


def project(directory: Path, **files: str) -> Path:
    """A directory with these files: `__` in a name stands for a slash, and .py need not be said."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path = path if "." in path.name else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory


def check(
    directory: Path, *arguments: str | Path, python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory, with the installed library, or that of the checkout."""
    command = [python, *COMMAND, *map(str, arguments)]
    variables = environment() | {"PYTHONIOENCODING": "utf-8"} | variables
    return subprocess.run(command, cwd=directory, env=variables, capture_output=True, encoding="utf-8", timeout=120, check=False)


def findings(directory: Path, *arguments: str | Path) -> list[str]:
    """The findings in a directory, without the line that counts them, which has to be right."""
    done = check(directory, *arguments)
    *found, summary = done.stdout.splitlines()
    assert done.stderr == ""
    assert done.returncode == (1 if found else 0)
    files = len({line.partition(":")[0] for line in found})
    counted = f"Found {len(found)} error{'s'[len(found) == 1 :]} in {files} file{'s'[files == 1 :]} (checked "
    assert summary.startswith(counted if found else "Success: no issues found in "), done.stdout
    return found


def places(lines: list[str]) -> list[str]:
    return sorted(re.sub(r": error: .*  ", ": ", line) for line in lines)


def files_in(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"  # Python may write one beside a plugin of the project
    }


PYRIGHT = '[tool.pyright]\ntypeCheckingMode = "strict"\n'


def test_a_project_that_uses_pyright_alone_has_the_findings_and_no_other_error(tmp_path: Path) -> None:
    """Without settings of mypy and without annotations, the current directory is checked; type errors are not reported."""
    directory = project(tmp_path / "of pyright, ä", app=APP, **{"pyproject.toml": PYRIGHT})
    assert findings(directory) == IN_APP


def test_the_pages_example_is_right_for_pyright(tmp_path: Path) -> None:
    """pyright in strict mode, as the page says, finds nothing wrong in the module in which there are findings."""
    pytest.importorskip("pyright", reason="pyright is not in an environment that has only a version of mypy")
    page = (ROOT / "docs" / "mypy" / "loop-local-check.md").read_text(encoding="utf-8")
    (example,) = re.findall(r'```python title="app.py"\n(.*?)```', page, re.DOTALL)
    directory = project(tmp_path, app=example, **{"pyproject.toml": PYRIGHT})
    paths = [path for name, path in environment().items() if name == "MYPYPATH"]
    (directory / "pyproject.toml").write_text(f"{PYRIGHT}extraPaths = {paths}\n")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=directory, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "0 errors, 0 warnings, 0 informations\n")
    assert len(findings(directory)) == 2


def test_without_findings_it_succeeds(tmp_path: Path) -> None:
    """The exit status is 0 and the output is mypy's own, although there is a type error."""
    done = check(project(tmp_path, app=CLEAN), "app.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Success: no issues found in 1 source file\n", "")


def test_imports_are_followed(tmp_path: Path) -> None:
    """Findings in a module that a given file imports are reported too; those in files that nobody imports are not."""
    directory = project(tmp_path, app=APP, main=CALL, other=CALL)
    assert places(findings(directory, "main.py")) == [
        "app.py:12: [loop-local-no-loop]",
        "app.py:17: [loop-local-fresh-key]",
        "main.py:6: [loop-local-fresh-key]",
    ]


def test_its_formats_are_those_of_mypy(tmp_path: Path) -> None:
    """As text with columns and as JSON, the findings are just the lines that mypy with the plugin prints of them."""
    settings = "[mypy]\nplugins = asyncio_loop_local_mypy\ncheck_untyped_defs = true\nshow_column_numbers = true\n"
    directory = project(tmp_path, app=APP, main=CALL, **{"mypy.ini": settings})
    for arguments in ((), ("--output", "json")):
        expected = [line for line in run(directory, "mypy", *arguments, ".") if "loop-local-" in line]
        lines = check(directory, *arguments, ".").stdout.splitlines()
        assert sorted(line for line in lines if not line.startswith("Found ")) == expected
        assert len(expected) == 3


def test_json_has_one_object_a_line_and_nothing_else(tmp_path: Path) -> None:
    """Each line says where the finding is, what it is, and its code."""
    done = check(project(tmp_path, app=APP), "--output=json")
    read = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["file"], each["line"], each["column"], each["code"]) for each in read] == [
        ("app.py", 12, 0, "loop-local-no-loop"),
        ("app.py", 17, 19, "loop-local-fresh-key"),
    ]
    assert (done.returncode, done.stderr) == (1, "")
    done = check(project(tmp_path, app=CLEAN), "--output=json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_github_shows_each_finding_at_its_place(tmp_path: Path) -> None:
    """Each finding is one command of a GitHub workflow, with columns from 1."""
    done = check(project(tmp_path, app=APP), "--output=github")
    assert done.stdout.splitlines() == [
        f"::error file=app.py,line={line},col={column},title={code}::{text}"
        for line, column, finding in ((12, 1, NO_LOOP), (17, 20, FRESH_KEY))
        for text, code in re.findall(r"^error: (.*)  \[(.*)\]$", finding)
    ]
    assert (done.returncode, done.stderr) == (1, "")


def test_what_means_something_to_github_is_escaped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent signs and ends of lines are written as GitHub wants them, colons and commas too in names of files."""
    message = Message("{}", "a,b:100%.py", 3, 4, "error", "100%, or: less", ["a note\r", "another"], "loop-local-key")

    def check(paths: object, arguments: object) -> Report:
        return Report([message], 1, show_columns=False, show_summary=True)

    monkeypatch.setattr("asyncio_loop_local_mypy._mypy_run.check", check)
    assert _check.run(["--output=github"]) == 1
    assert capsys.readouterr().out == (
        "::error file=a%2Cb%3A100%25.py,line=3,col=5,title=loop-local-key::100%25, or: less%0Aa note%0D%0Aanother\n"
    )
    assert _check.run([]) == 1
    assert capsys.readouterr().out == (
        "a,b:100%.py:3: error: 100%, or: less  [loop-local-key]\n"
        "a,b:100%.py:3: note: a note\r\na,b:100%.py:3: note: another\nFound 1 error in 1 file (checked 1 source file)\n"
    )


OTHER_PLUGIN = """\
from mypy.plugin import Plugin


class Other(Plugin):
    def get_function_hook(self, fullname):
        def seen(ctx):
            with open("seen", "a") as file:
                print(fullname, file=file)
            return ctx.default_return_type

        return seen if "connection" in fullname else None


def plugin(version):
    print("this is no finding")
    return Other
"""
INI = (
    "mypy_path = $MYPY_CONFIG_FILE_DIR/lib\nfiles = main.py\nplugins = tools/other.py\n"
    "disable_error_code = loop-local-no-loop\ncheck_untyped_defs = false\nlinecount_report = reports\n"
    "[mypy-silent]\nignore_errors = true\n[mypy-app]\ncheck_untyped_defs = false\n"
)
SETTINGS = {
    "mypy.ini": f"[mypy]\n{INI}",
    ".mypy.ini": f"[mypy]\n{INI}",
    "setup.cfg": f"[metadata]\nname = theirs\n[mypy]\n{INI}",
    "pyproject.toml": (
        '[tool.mypy]\nmypy_path = "$MYPY_CONFIG_FILE_DIR/lib"\nfiles = ["main.py"]\nplugins = ["tools/other.py"]\n'
        'disable_error_code = ["loop-local-no-loop"]\ncheck_untyped_defs = false\nlinecount_report = "reports"\n'
        '[[tool.mypy.overrides]]\nmodule = "silent"\nignore_errors = true\n'
        '[[tool.mypy.overrides]]\nmodule = "app"\ncheck_untyped_defs = false\n'
    ),
    "tools/config/mypy.ini": f"[mypy]\n{INI.replace('tools/other', '../other').replace('DIR/lib', 'DIR/../../lib')}",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_projects_own_settings_are_in_force(name: str, tmp_path: Path) -> None:
    """Its paths, its other plugins, what it silences; but functions without annotations are checked, and no report is written."""
    files = {"lib/app.py": APP, "silent.py": CALL, "main.py": f"import silent\n{CALL}", "tools/other.py": OTHER_PLUGIN}
    directory = project(tmp_path, **files, **{name: SETTINGS[name]})
    before = files_in(directory)
    done = check(directory, *(["--config-file", name] if "/" in name else []))
    assert places(done.stdout.splitlines()[:-1]) == ["lib/app.py:17: [loop-local-fresh-key]", "main.py:7: [loop-local-fresh-key]"]
    assert (done.returncode, done.stderr) == (1, "this is no finding\n")
    assert "app.connection" in (directory / "seen").read_text().split()
    after = files_in(directory)
    assert {path: after[path] for path in before} == before
    assert {path.partition("/")[0] for path in after.keys() - before.keys()} == {"seen", ".mypy_cache"}


@pytest.mark.parametrize("setting", ["skip", "error", "silent"])
def test_the_library_is_always_followed(setting: str, tmp_path: Path) -> None:
    """Where the project's settings follow no imports, the factories that a given file itself wraps are known all the same."""
    for text in (f"[mypy]\nfollow_imports = {setting}\n", f"[mypy]\n[mypy-asyncio_loop_local.*]\nfollow_imports = {setting}\n"):
        assert findings(project(tmp_path, app=APP, **{"mypy.ini": text}), "app.py") == IN_APP


def test_a_project_may_have_the_plugin_already(tmp_path: Path) -> None:
    """It is not asked twice, and not moved before what the project puts first."""
    settings = "[mypy]\nplugins = tools/other.py, asyncio_loop_local_mypy:plugin\n"
    directory = project(tmp_path, app=APP, **{"mypy.ini": settings, "tools/other.py": OTHER_PLUGIN.replace("connection", "CONN")})
    done = check(directory, "app.py")
    assert done.stdout.splitlines()[:-1] == IN_APP


def test_mypys_own_cache_is_left_alone(tmp_path: Path) -> None:
    """Run between two runs of mypy, it changes nothing that mypy has cached; and a warm run finds what a cold one did."""
    directory = project(tmp_path, app=APP, main=CALL)
    run(directory, "mypy", "main.py")
    before = files_in(directory / ".mypy_cache")
    cold = findings(directory)
    after = files_in(directory / ".mypy_cache")
    own = {name for name in after if name.startswith("loop-local-check/")}
    assert own
    assert {name: after[name] for name in after.keys() - own} == before
    assert findings(directory) == cold
    assert findings(directory, "main.py", "app.py") == cold
    project(directory, app=APP.replace("@singleton", "@singleton(key=id)"))
    assert places(findings(directory)) == ["app.py:12: [loop-local-no-loop]"]


def test_without_a_cache_nothing_is_written(tmp_path: Path) -> None:
    """If the settings switch mypy's cache off, this one has none either."""
    directory = project(tmp_path, app=APP, **{"mypy.ini": f"[mypy]\ncache_dir = {os.devnull}\n"})
    before = files_in(directory)
    assert findings(directory, "app.py") == IN_APP
    assert files_in(directory) == before


def test_where_no_cache_can_be_written_there_is_none(tmp_path: Path) -> None:
    """In a read-only checkout, the findings are those of a cold run; mypy itself crashes there."""
    directory = project(tmp_path, app=APP)
    (directory / ".mypy_cache").touch()  # a directory cannot be made there, even by root
    before = files_in(directory)
    assert findings(directory) == IN_APP
    assert files_in(directory) == before


def test_two_files_of_one_name_are_no_obstacle_to_a_project_without_settings(tmp_path: Path) -> None:
    """mypy alone refuses two conftest.py without __init__.py, and a package without it in src; here both are checked."""
    directory = project(
        tmp_path,
        src__package__app=APP,
        src__package__main=CALL.replace("app", "package.app"),
        tests__one__conftest=CALL.replace("app", "package.app"),
        tests__two__conftest=CLEAN,
    )
    assert places(findings(directory)) == [
        "src/package/app.py:12: [loop-local-no-loop]",
        "src/package/app.py:17: [loop-local-fresh-key]",
        "src/package/main.py:6: [loop-local-fresh-key]",
        "tests/one/conftest.py:6: [loop-local-fresh-key]",
    ]
    project(directory, **{"mypy.ini": "[mypy]\n"})
    done = check(directory, ".")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'Duplicate module named "conftest"' in done.stderr


def test_paths_can_be_left_out(tmp_path: Path) -> None:
    """A template that is no Python can be excluded, by mypy's setting or by the option."""
    directory = project(tmp_path, app=APP, templates__view="def {{ name }}(: pass\n", templates__other=CALL)
    assert findings(directory, "--exclude", "^templates/") == IN_APP
    assert places(findings(directory, "--exclude=view", "--exclude=^app", ".")) == [
        *places(IN_APP),  # it is imported
        "templates/other.py:6: [loop-local-fresh-key]",
    ]


def test_files_that_cannot_be_checked_are_no_success(tmp_path: Path) -> None:
    """A syntax error, no such file, a directory without Python files: exit status 2, and why; no half of the findings."""
    directory = project(tmp_path, app=APP, bad="import app\ndef f(:\n", empty__note="")
    (directory / "empty" / "note.py").unlink()
    for path, reason in {
        "bad.py": "bad.py:2: error: ",
        "nope.py": "No such file or directory",
        "empty": "There are no .py[i] files in directory 'empty'",
        "": "syntax",
    }.items():
        done = check(directory, *([path] if path else []))
        assert (done.returncode, done.stdout) == (2, ""), path
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stderr.startswith("{")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config-file", "nope.ini"], "Cannot find config file 'nope.ini'"),
        (["--python-executable", "nope"], "nope"),
        (["--output", "xml"], "invalid choice: 'xml'"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--config-file", "missing_plugin.ini"], 'Error importing plugin "nope"'),
        (["--config-file", "broken_plugin.ini"], "ZeroDivisionError"),
        (["--exclude", "("], "unterminated subpattern"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options_and_settings_are_told(arguments: list[str], reason: str, tmp_path: Path) -> None:
    """What cannot be is exit status 2, with the reason; nothing is taken for a finding."""
    directory = project(
        tmp_path,
        app=APP,
        broken="def plugin(version): 1 / 0\n",
        **{
            "missing_plugin.ini": "[mypy]\nplugins = nope\n",
            "broken_plugin.ini": "[mypy]\nplugins = broken.py\n",
        },
    )
    done = check(directory, *arguments, ".")
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def bare_python(directory: Path) -> str:
    """A Python with no package at all."""
    venv.create(directory, symlinks=os.name != "nt")
    return str(directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def test_a_python_without_the_library_finds_nothing_and_says_so(tmp_path: Path) -> None:
    """Where the library is not found there would be no finding, whatever the code: that is exit status 2."""
    directory = project(tmp_path / "project", app=APP, main=CALL)
    python = bare_python(tmp_path / "venv")
    for settings in ("[mypy]\n", "[mypy]\nignore_missing_imports = true\n"):
        project(directory, **{"mypy.ini": settings})
        done = check(directory, "--python-executable", python, "main.py", MYPYPATH="")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "asyncio_loop_local is imported, but mypy does not find it: install it where this program is, "
            "or name the Python that has it with --python-executable\n"
            "loop-local-check: error: the files could not be checked\n"
        )


def test_without_mypy_it_says_what_to_install(tmp_path: Path) -> None:
    """Installed without its extra, the command names it, and has help and version all the same."""
    python = bare_python(tmp_path / "venv")
    shutil.copytree(plugin_sources(), tmp_path / "installed" / "asyncio_loop_local_mypy")
    path = str(tmp_path / "installed")
    done = check(project(tmp_path, app=APP), python=python, PYTHONPATH=path)
    expected = 'loop-local-check: error: it needs mypy: install "asyncio-loop-local[check]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    done = check(tmp_path, "--version", python=python, PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (0, f"loop-local-check {version()}, without mypy\n")


def version() -> str:
    from asyncio_loop_local_mypy import __version__

    return __version__


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what a closed pipe or descriptor is to a process differs on Windows")
def test_output_that_nobody_reads_is_no_finding(tmp_path: Path) -> None:
    """If the findings cannot be written, the exit status is 2, without a traceback; if there is no stdout, it is as ever."""
    command = shlex.join([sys.executable, *COMMAND, "app.py"])
    directory = project(tmp_path, app=APP)
    for shell, status, reason in (
        (f"exec {command} >&-", 1, ""),
        (f"({command}; echo $? >status) | true; exit $(cat status)", 2, "the findings could not be printed"),
    ):
        done = subprocess.run(shell, shell=True, cwd=directory, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (status, ""), shell
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_help_and_version(tmp_path: Path) -> None:
    """The help has each option and the exit statuses; the version is followed by that of mypy."""
    done = check(tmp_path, "--help")
    for option in ("--output", "--config-file", "--python-executable", "--exclude", "--version", "exit status is 0"):
        assert option in done.stdout
    done = check(tmp_path, "--version")
    assert re.fullmatch(rf"loop-local-check {re.escape(version())}, mypy {mypy_version()[0]}\.\d.*\n", done.stdout)


def test_the_hook_for_pre_commit_runs_the_command(tmp_path: Path) -> None:
    """The one hook installs what the extra names, and runs the console script over the whole project, without paths."""
    yaml: Any = import_module("yaml")  # which has no types
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert hook["id"] == hook["entry"] == "loop-local-check"
    assert settings["scripts"][hook["entry"]] == "asyncio_loop_local_mypy._check:main"
    assert hook["language"] == "python"
    assert hook["additional_dependencies"] == settings["optional-dependencies"]["check"]
    assert hook["pass_filenames"] is False
    assert hook["types_or"] == ["python", "pyi"]
    assert findings(project(tmp_path, app=APP)) == IN_APP  # as the hook does: no paths, in the root of the repository
