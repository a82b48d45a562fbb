"""The older package of this name, in an environment of its own, only timed: the same program under it and under ours, in turns.

Run as a module, this is that program: it imports whichever package its interpreter has, and nothing of ours but the harness.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import venv
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.timing import Size, clock, in_loop, no_garbage_collection, own_garbage_only, statement

ROOT = Path(__file__).parents[1]
REQUIREMENT = "asyncio-loop-local<1"

# The tasks by the titles that they have beside the other peers.
STATEMENTS = {
    "A plain value, warm": "single()",
    "What a coroutine function returns, warm": "await shared_token()",
    "A resource, warm": "async with make(): pass",
}
COLD = "A loop that opens one resource and closes it, by `asyncio.run`"

Costs = dict[str, list[float]]
"""By task; empty where it cannot be done."""


class OlderPackageError(Exception):
    """It cannot be installed here."""


@contextmanager
def installed() -> Generator[str]:
    """The interpreter of a new environment, in a temporary directory, that holds the older package alone.

    :raises OlderPackageError: if it cannot be installed.
    """
    with TemporaryDirectory(prefix="older-package-") as directory:
        venv.create(directory, with_pip=True)
        python = Path(directory) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        if result.returncode:
            raise OlderPackageError((result.stderr.strip().splitlines() or ["pip failed"])[-1])
        yield str(python)


def costs(size: Size) -> tuple[str, Costs, Costs]:
    """The older package's version, what it has cost in each round, and what ours has in the same.

    :raises OlderPackageError: if it cannot be installed.
    """
    older: Costs = {}
    ours: Costs = {}
    version = ""
    with installed() as python:
        for number in range(size.at_most(15)):
            for interpreter, into in ((python, older), (sys.executable, ours))[:: 1 if number % 2 else -1]:
                environment = _environment() if into is older else None
                command = [interpreter, "-m", "benchmarks.older", str(size.calls)]
                run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
                answer = json.loads(run.stdout)
                if into is older:
                    version = answer["version"]
                for task, cost in answer["costs"].items():
                    into.setdefault(task, []).extend([cost] if cost is not None else [])
    return version, older, ours


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def program(calls: int) -> dict[str, Any]:
    """Times each task with the package that there is."""
    from importlib.metadata import version  # noqa: PLC0415

    names: Mapping[str, Any] = {"singleton": None, "sticky_singleton_acm": None, **vars(import_module("asyncio_loop_local"))}

    class Resource:
        async def __aenter__(self) -> Resource:
            return self

        async def __aexit__(self, *_exception: object) -> None:
            pass

    async def token() -> object:
        return object()

    costs: dict[str, float | None] = {}
    subjects: dict[str, Any] = {}
    for name, maker, argument in (
        ("single", "singleton", object),
        ("shared_token", "singleton", token),
        ("make", "sticky_singleton_acm", Resource),
    ):
        subjects[name] = names[maker](argument)
    with asyncio.Runner() as runner, no_garbage_collection():
        for task, source in STATEMENTS.items():
            subject = in_loop(runner, statement(source, subjects), calls)
            try:
                subject()
                costs[task] = min(subject() for _ in range(5))
            except Exception:  # whatever: it cannot be done
                costs[task] = None

    async def main() -> None:
        async with subjects["make"]():
            pass

    with own_garbage_only():
        number = max(1, calls // 200)

        def loops() -> float:
            start = clock()
            for _ in range(number):
                asyncio.run(main())
            return (clock() - start) / number

        costs[COLD] = min(loops() for _ in range(5))
    return {"version": version("asyncio-loop-local"), "costs": costs}


if __name__ == "__main__":
    print(json.dumps(program(int(sys.argv[1]))))
