"""Changes one small thing in the library at a time (a mutant), and prints the changes that the core's tests do not notice.

`make mutants` tries a sample of 200, always the same one. `make mutants ARGS='--sample 50 --seed 7 _keys _waiters'` tries another
one, of these modules. The changes are cosmic-ray's. Each process works on a copy of the checkout. A module's own tests run first.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).parents[1]
LIBRARY = Path("src", "asyncio_loop_local")
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "docs")


@dataclass(frozen=True)
class Mutant:
    """One change: the so many-th place in a module where an operator of cosmic-ray applies."""

    module: str
    operator: str
    occurrence: int
    line: int

    def code(self) -> tuple[str, str]:
        """The module before and after."""
        before = (ROOT / LIBRARY / self.module).read_text(encoding="utf-8")
        after: str | None = mutate_code(before, operator(self.operator), self.occurrence)
        assert after is not None
        return before, after

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.operator.removeprefix('core/')}"


def operator(name: str) -> Any:
    return plugins.get_operator(name)()


def places_without_effect(code: str) -> set[tuple[int, int]]:
    """The places, line and column, of annotations, which nothing evaluates, and of what only type checkers read."""
    unread: list[ast.AST] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            unread += [each.annotation for each in given if each is not None and each.annotation is not None]
            unread += [] if node.returns is None else [node.returns]
            if any(ast.unparse(each) == "overload" for each in node.decorator_list):
                unread += [node, *node.decorator_list]
        elif isinstance(node, ast.AnnAssign):
            unread.append(node.annotation)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            unread += [node.test, *node.body]
    lines = code.splitlines()
    places: set[tuple[int, int]] = set()
    for each in unread:
        assert isinstance(each, ast.expr | ast.stmt)
        for line in range(each.lineno, (each.end_lineno or each.lineno) + 1):
            first = each.col_offset - 1 if line == each.lineno else 0  # with the @ of a decorator
            last = each.end_col_offset or 0 if line == each.end_lineno else len(lines[line - 1])
            places |= {(line, column) for column in range(first, last)}
    return places


def mutants(path: Path) -> list[Mutant]:
    """Every change of a module that can have an effect."""
    code = path.read_text(encoding="utf-8")
    without_effect = places_without_effect(code)
    found: list[Mutant] = []
    nodes = list(ast_nodes(get_ast(code)))
    for name in sorted(plugins.operator_names()):
        if plugins.get_operator(name).arguments():
            continue
        places = (start for node in nodes for start, _ in operator(name).mutation_positions(node))
        for occurrence, (line, column) in enumerate(places):
            if (line, column) not in without_effect:
                found.append(Mutant(path.name, name, occurrence, line))
    return found


def survives(checkout: Path, module: str, limit: float) -> bool:
    """Whether the core's tests pass in the checkout; a run that takes too long has noticed the change."""
    own = checkout / "tests" / f"test_{module.removesuffix('.py').lstrip('_')}.py"
    tests = sorted(checkout.glob("tests/test_*.py"), key=lambda path: (path != own, path.name))
    library = [str(checkout / part) for part in ("src", "mypy_plugin", "pytest_plugin")]
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, tests)],
        cwd=checkout,
        # A change within one second that leaves the size as it is would not outdate the bytecode.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(library), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return running.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # what the tests have started, too
        running.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules by name, `_keys` say; all if none is given")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()

    paths = sorted((ROOT / LIBRARY).glob("*.py"))
    possible = [each for path in paths if path.stem in arguments.modules or not arguments.modules for each in mutants(path)]
    chosen = random.Random(arguments.seed).sample(possible, min(arguments.sample, len(possible)))
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as directory:
        checkouts: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            checkouts.put(Path(shutil.copytree(ROOT, Path(directory, str(number)), ignore=NOT_COPIED)))

        checkout = checkouts.get()
        begun = time.monotonic()
        if not survives(checkout, "", 1800):
            sys.exit("the core's tests fail without any change: see make quick")
        limit = 60 + 3 * (time.monotonic() - begun)
        checkouts.put(checkout)

        def is_unnoticed(mutant: Mutant) -> bool:
            checkout = checkouts.get()
            before, after = mutant.code()
            path = checkout / LIBRARY / mutant.module
            path.write_text(after, encoding="utf-8")
            try:
                return survives(checkout, mutant.module, limit)
            finally:
                path.write_text(before, encoding="utf-8")
                checkouts.put(checkout)

        with ThreadPoolExecutor(arguments.jobs) as threads:
            running = {threads.submit(is_unnoticed, mutant): mutant for mutant in chosen}
            for number, each in enumerate(as_completed(running), 1):
                mutant = running[each]
                print(f"{number:4}/{len(chosen)} {'SURVIVES' if each.result() else 'noticed '} {mutant}", flush=True)
                if each.result():
                    survivors.append(mutant)
                    before, after = (code.splitlines() for code in mutant.code())
                    print("\n".join(difflib.unified_diff(before, after, lineterm="", n=1)), flush=True)
    noticed = len(chosen) - len(survivors)
    print(f"{noticed} noticed, {len(survivors)} survive, of {len(chosen)} mutants of {len(possible)} (seed {arguments.seed})")
    for mutant in survivors:
        print(f"  {mutant}")


if __name__ == "__main__":
    main()
