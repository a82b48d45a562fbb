"""Dask: several worker processes, each with one loop, and on it one of each resource."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from programs import run_python
from server_process import NOTE, notes_of, write_app

EXAMPLE = Path(__file__).parents[2] / "examples" / "dask_pool.py"

POOL = """
    import asyncio
    from contextlib import asynccontextmanager

    import asyncio_loop_local
    from asyncio_loop_local import LoopVar, sticky_singleton_acm

    tasks_run = LoopVar("tasks_run", default=0)

    @sticky_singleton_acm
    @asynccontextmanager
    async def make_pool():
        note("opened")
        yield object()
        note(await asyncio.to_thread(lambda: "closed"))

    async def seen():
        tasks_run.set(tasks_run.get() + 1)
        async with make_pool() as pool:
            return os.getpid(), id(asyncio.get_running_loop()), id(pool)

    async def fetch(number):
        return await seen()

    async def store(number):
        return await seen()

    async def how_many():
        return tasks_run.get()
"""

CLUSTER = """
    import json

    from distributed import Client, LocalCluster

    TASKS = 100

    def run_tasks(client):
        return client.gather(client.map(fetch, range(TASKS), pure=False) + client.map(store, range(TASKS), pure=False))

    def new_cluster():
        return LocalCluster(n_workers=2, threads_per_worker=4, host="127.0.0.1", dashboard_address=None)

    if __name__ == "__main__":
        with new_cluster() as cluster, Client(cluster) as client:
            results = run_tasks(client)
            THEN
            counted = list(client.run(how_many).values())
        print(json.dumps([results, counted]))
"""


def assert_ended_well(result: subprocess.CompletedProcess[str]) -> None:
    """Dask itself may log how slow the machine is, and with a traceback that a heartbeat met a cluster that is closing."""
    assert result.returncode == 0, result.stderr
    assert "asyncio_loop_local" not in result.stderr
    assert "ResourceWarning" not in result.stderr


def run_script(directory: Path, script: str, *, then: str = "pass") -> tuple[list[tuple[int, int, int]], list[int]]:
    """Runs a script with a cluster.

    :returns: for each task, the worker's process, loop and pool; and how many tasks each worker has counted.
    """
    (directory / "script.py").write_text(textwrap.dedent(script).replace("THEN", then))
    result = run_python("-W", "error", "script.py", cwd=directory)
    assert_ended_well(result)
    results, counted = json.loads(result.stdout)
    return [tuple(each) for each in results], counted


@pytest.mark.parametrize("where", ["in a module", "in the main module"])
def test_one_pool_per_worker(where: str, tmp_path: Path) -> None:
    """All tasks of a worker share its pool and variables, wherever these are defined: opened once, closed at the worker's end."""
    if where == "in a module":
        write_app(tmp_path, POOL)
        script = "from app import *" + CLUSTER.replace("\n    ", "\n")
    else:
        script = textwrap.indent(NOTE, "    ") + POOL + CLUSTER
    results, counted = run_script(tmp_path, script)
    assert len(results) == 200
    workers = {worker for worker, _, _ in results}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert len(set(results)) == 2  # each worker has one loop, and on it one pool
    assert notes_of(tmp_path) == {worker: ["opened", "closed"] for worker in workers}
    assert sorted(counted) == sorted(Counter(worker for worker, _, _ in results).values())


def test_aclose_on_every_worker(tmp_path: Path) -> None:
    """`client.run(aclose)` ends what all workers hold while the cluster is still up; the next tasks open it anew."""
    write_app(tmp_path, POOL)
    then = "client.run(asyncio_loop_local.aclose); client.run(note, 'between'); results += run_tasks(client)"
    results, _ = run_script(tmp_path, "from app import *" + CLUSTER.replace("\n    ", "\n"), then=then)
    assert len(results) == 400
    noted = notes_of(tmp_path)
    assert len(noted) == 2
    assert set(map(tuple, noted.values())) == {("opened", "closed", "between", "opened", "closed")}


def test_the_example_shows_one_pool_per_worker() -> None:
    """The example ends well: on each worker one pool was opened, shared by hundreds of tasks, and closed with its connections."""
    result = run_python("-W", "error", EXAMPLE)
    assert_ended_well(result)
    line = r"^worker (\d+): opened 1 pool, shared by (\d+) tasks, over (\d+) connections; closed 1 pool and (\d+) connections$"
    rows = re.findall(line, result.stdout, re.MULTILINE)
    assert len({worker for worker, *_ in rows}) == len(rows) == 3
    assert sum(int(tasks) for _, tasks, _, _ in rows) == 600
    assert all(opened == closed for *_, opened, closed in rows)


def test_the_example_fails_where_its_claims_do_not_hold(tmp_path: Path) -> None:
    """With an unwrapped pool, the same program says what does not hold, and ends with 1."""
    source = EXAMPLE.read_text(encoding="utf-8")
    decorator = "@asyncio_loop_local.sticky_singleton_acm\n"
    assert source.count(decorator) == 1
    unwrapped = tmp_path / "unwrapped.py"
    unwrapped.write_text(source.replace(decorator, ""), encoding="utf-8")
    result = run_python(unwrapped)
    assert result.returncode == 1
    assert "it is not so that its pool was opened once, and closed once" in result.stdout
    assert "Each worker opened one pool" not in result.stdout
