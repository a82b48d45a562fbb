"""What people install: the wheel is what the suite tests, it holds what it should, and whoever builds it gets the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from programs import run_python

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "asyncio_loop_local": ROOT / "src",
    "asyncio_loop_local_mypy": ROOT / "mypy_plugin",
    "asyncio_loop_local_pytest": ROOT / "pytest_plugin",
}


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def installed() -> Distribution:
    """What is installed, unless that is the source tree itself, as `make develop` leaves it."""
    found = distribution("asyncio-loop-local")
    if json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("what is installed is the source tree, and not the wheel: make develop has done that, make test undoes it")
    return found


def files_below(directory: Path) -> dict[str, bytes]:
    """What each file holds, without what Python has left there."""
    files = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_suite_tests_the_wheel(package: str) -> None:
    """What the tests import is what was installed from the wheel, and that is what the source tree would give now."""
    found = find_spec(package)
    assert found is not None and found.origin is not None
    where = Path(found.origin).parent
    assert where == Path(str(installed().locate_file(package)))
    assert not where.is_relative_to(PACKAGES[package])
    assert files_below(where) == files_below(PACKAGES[package] / package), "make test installs it anew"


def build(directory: Path, source: Path) -> dict[str, bytes]:
    """The files that the build system makes: an sdist, and a wheel of what is in it."""
    done = run_python("-m", "build", "--no-isolation", "--outdir", directory, source)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the sdist and the wheel."""
    directory = tmp_path_factory.mktemp("dist")
    build(directory, ROOT)
    yield directory


def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


def needs_of(dist: Path) -> list[str]:
    """What the wheel needs, with the marker of each."""
    with wheel(dist) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return re.findall(r"^Requires-Dist: (.*)$", archive.read(name).decode(), re.MULTILINE)


def sdist(dist: Path) -> tarfile.TarFile:
    (path,) = dist.glob("*.tar.gz")
    return tarfile.open(path)


def test_whoever_builds_it_gets_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Built again from the sdist, elsewhere, with other file modes and at another time, both files are the same."""
    with sdist(dist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(tmp_path / "from", filter="data")
        else:  # before Python 3.11.4
            archive.extractall(tmp_path / "from")
    (source,) = (tmp_path / "from").iterdir()
    for path in source.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o700 if os.access(path, os.X_OK) else 0o600)
        os.utime(path, (1e9, 1e9))
    assert build(tmp_path / "dist", source) == {path.name: path.read_bytes() for path in dist.iterdir()}


def test_the_wheel_holds_the_packages_and_nothing_else(dist: Path) -> None:
    """In the wheel there are the three packages, each with its py.typed, as they are in the source tree, and the metadata."""
    expected = {
        f"{package}/{name}": content
        for package, parent in PACKAGES.items()
        for name, content in files_below(parent / package).items()
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= expected.keys()
    with wheel(dist) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    metadata = {name for name in held if ".dist-info/" in name}
    assert {name.partition("/")[2] for name in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert {name: held[name] for name in held.keys() - metadata} == expected


def test_the_wheel_needs_nothing(dist: Path) -> None:
    """Whoever installs the library gets the library alone, on every platform."""
    assert [line for line in needs_of(dist) if "extra ==" not in line] == []
    assert [*dist.glob("*-py3-none-any.whl")] == [*dist.glob("*.whl")]


def test_the_wheel_has_the_command(dist: Path, tmp_path: Path) -> None:
    """Whoever installs the library has loop-local-check, which runs; what it needs is the extra [check]."""
    done = run_python("-m", "pip", "install", "--no-index", "--no-deps", "--target", tmp_path, *dist.glob("*.whl"))
    assert done.returncode == 0, done.stderr
    (script,) = (tmp_path / ("Scripts" if os.name == "nt" else "bin")).iterdir()
    assert script.stem == "loop-local-check"
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([script, "--version"], env=env, capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout.startswith(f"loop-local-check {project()['version']}, mypy ")
    needed = [re.sub(r"\W", "", line) for line in needs_of(dist) if re.search(r"extra == .check.", line)]
    assert needed == ["mypy115extracheck"]


def test_the_sdist_holds_all_that_is_tracked(dist: Path) -> None:
    """Who has the sdist has what the suite, the demonstration and the documentation need: every file of the repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("there is no repository here to compare it with")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    with sdist(dist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in listed if (ROOT / name).exists()} - held == set()
    assert not [name for name in held if "__pycache__" in name or name.startswith((".venv", ".git/", "dist"))]


@pytest.mark.parametrize(
    "command",
    [
        ("check_wheel_contents", "*.whl"),
        ("twine", "check", "--strict", "*"),
        ("validate_pyproject", str(ROOT / "pyproject.toml")),
    ],
    ids=lambda command: command[0],
)
def test_others_find_no_fault_with_it(command: tuple[str, ...], dist: Path) -> None:
    """What the packaging world checks before an upload, check-wheel-contents, twine and validate-pyproject, is in order."""
    tool, *arguments = command
    done = run_python(
        "-m", tool, *(path for each in arguments for path in (dist.glob(each) if "*" in each else [each])), cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_checker_finds_the_types_of_what_is_installed(tmp_path: Path) -> None:
    """mypy, knowing nothing of the source tree, takes types and plugin from where the library is installed."""
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nplugins = asyncio_loop_local_mypy\n")
    (tmp_path / "user.py").write_text(
        "from asyncio_loop_local import singleton\n\n\n@singleton\ndef number(of: list[int]) -> int:\n    return of[0]\n\n\n"
        "async def main() -> None:\n    reveal_type(number([1]))\n    number(1)\n"
    )
    env = {name: value for name, value in os.environ.items() if name not in {"MYPYPATH", "PYTHONPATH"}}
    done = run_python("-m", "mypy", "user.py", cwd=tmp_path, env=env)
    said = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    assert [re.sub(r"builtins\.", "", line.partition(": ")[2]) for line in said] == [
        'note: Revealed type is "int"',
        'error: Argument 1 to "number" has incompatible type "int"; expected "list[int]"  [arg-type]',
    ], done.stdout + done.stderr


def test_one_version_everywhere() -> None:
    """The version of the project is that of its mypy plugin, and of the changelog's first entry."""
    import asyncio_loop_local_mypy

    version = project()["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version == asyncio_loop_local_mypy.__version__
