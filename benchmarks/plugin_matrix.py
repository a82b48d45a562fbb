"""The plugin's tests on several versions of mypy, each in a virtual environment of its own.

    python benchmarks/plugin_matrix.py [--environments DIRECTORY] [VERSION ...]

The environments are made where they are missing, and kept. The exit status is 1 if a test failed on any version.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ["1.15", "1.19", "2.4"]
TESTS = [f"tests/plugins/test_{name}.py" for name in ("mypy_plugin", "mypy_plugin_staged", "check")]
NEEDED = ["pytest>=8.3", "pyyaml>=6", "pytest-asyncio>=0.25", "pytest-timeout>=2.3", "uvloop>=0.21; sys_platform != 'win32'"]


def python_with(mypy: str, environments: Path) -> Path:
    """The interpreter of an environment with this version of mypy."""
    directory = environments / mypy
    python = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (directory / "installed").exists():
        venv.create(directory, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"mypy=={mypy}.*", *NEEDED], check=True)
        (directory / "installed").touch()
    return python


def main() -> int:
    """Run the tests on each version, and tell how they went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv-mypy")
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    options = parser.parse_args()
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "mypy_plugin"), str(ROOT / "src")])}
    failed = False
    for version in options.versions:
        python = python_with(version, options.environments.resolve())
        command = [str(python), "-m", "pytest", "-q", *TESTS]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
        print(f"mypy {version}: {lines[-1]}")
        if done.returncode != 0:
            failed = True
            print(done.stdout, done.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
