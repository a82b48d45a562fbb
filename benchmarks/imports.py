"""What importing the library costs, once what it imports of the standard library has been imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import LENIENCY, Row, Size, Subject, clock, interleave

PROGRAM = """
import asyncio, contextlib, inspect, sys, time, typing
sys.path.insert(0, {directory!r})
start = time.{clock}()
import {module}
print(time.{clock}() - start)
"""


def rows(size: Size) -> list[Row]:
    """The import beside that of an empty module, each in fresh interpreters."""
    with TemporaryDirectory() as directory:
        (Path(directory) / "empty_module.py").write_text("", encoding="utf-8")

        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": directory}

        def subject(module: str) -> Subject:
            command = [sys.executable, "-c", PROGRAM.format(clock=clock.__name__, directory=directory, module=module)]
            return lambda: (
                float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout) / 1_000
            )

        subjects = {name: subject(name) for name in ("empty_module", "asyncio_loop_local")}
        for each in subjects.values():
            each()  # which writes the byte code
        costs = interleave(subjects, size.at_most(20))
    empty, ours = (min(costs[name]) for name in subjects)
    path = "`import asyncio_loop_local`, after asyncio, contextlib, inspect and typing (floor: an empty module)"
    return [Row(path, empty, ours, 8_000 * LENIENCY, unit="µs", absolute=True)]
