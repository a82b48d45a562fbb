"""Reruns the benchmarks.

    python -m benchmarks                 all of them, in some minutes
    python -m benchmarks floors          the library beside the least that pure Python can do
    python -m benchmarks peers           beside its peers
    python -m benchmarks growth          how its costs grow

    --quick            few rounds and small numbers: do they run?
    --write-docs       write docs/benchmarks.md and its plots (all of them)
    --also PYTHON      measure the floors with this interpreter too, for a column of its own on the page; more than once
    --without-older    leave out the older package of this name, which is installed into an environment of its own to be timed

Needs 'asyncio-loop-local[bench]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import growth, report, timing

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Reruns the benchmarks.")
    parser.add_argument("part", nargs="?", choices=["all", "floors", "peers", "growth"], default="all")
    parser.add_argument("--quick", action="store_true", help="few rounds and small numbers: do they run?")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md and its plots")
    parser.add_argument("--without-older", action="store_true", help="leave out the older package of this name")
    parser.add_argument("--also", metavar="PYTHON", action="append", default=[], help="measure the floors with this one too")
    parser.add_argument("--json", action="store_true", help="print the floors alone, for --also to read")
    options = parser.parse_args()
    if options.write_docs and options.part != "all":
        parser.error("the page tells of all parts")

    size, reach = (timing.QUICK, growth.QUICK) if options.quick else (timing.FULL, growth.FULL)
    run, with_older = report.in_a_fresh_interpreter, not options.without_older
    found = report.Report([])
    if options.part in {"all", "floors"}:
        found.floors = report.floors(size, run)
    if options.json:
        print(report.as_json(found.floors))
        return
    found.other_pythons = dict(report.floors_on(python, quick=options.quick) for python in options.also)
    if options.part in {"all", "peers"}:
        report.beside_peers(found, size, run, with_older=with_older)
    if options.part in {"all", "growth"}:
        report.growing(found, reach, run)
    print(report.text(found))
    if options.write_docs:
        (DOCS / "benchmarks.md").write_text(report.page(found), encoding="utf-8")
        folder = DOCS / report.PLOTS_FOLDER
        folder.mkdir(exist_ok=True)
        for name, plot in report.plot_files(found).items():
            (folder / name).write_text(plot, encoding="utf-8")


if __name__ == "__main__":
    main()
