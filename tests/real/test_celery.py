"""Celery: a real prefork worker, which has its work from a real Redis, and whose tasks run a loop each, or one loop a process."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from programs import run_python
from server_process import notes_of, server_process, write_app
from servers import HttpServer, running
from servers_redis import RedisServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork there")

TASKS = 100
PROCESSES = 2

APP = """
    import asyncio
    from contextlib import asynccontextmanager

    from aiohttp import ClientSession
    from celery import Celery
    from celery.exceptions import SoftTimeLimitExceeded
    from celery.signals import worker_init, worker_process_init, worker_process_shutdown, worker_shutdown

    from asyncio_loop_local import resources, sticky_singleton_acm

    app = Celery("app", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
    app.conf.update(worker_hijack_root_logger=False)

    @sticky_singleton_acm
    @asynccontextmanager
    async def make_session(owner):
        note(f"{owner}: opened")
        async with ClientSession(os.environ["UPSTREAM"]) as session:
            yield session
        note(await asyncio.to_thread(lambda: f"{owner}: closed"))

    async def fetch(owner, path):
        async with make_session(owner) as session, session.get(path) as answer:
            return await answer.text()

    async def fetch_both(owner, number):
        there_before = len(resources())
        return there_before, await fetch(owner, f"/{number}"), await fetch(owner, f"/{number}")

    # One asyncio.run a task.

    @app.task
    def one_run(number):
        return os.getpid(), asyncio.run(fetch_both("task", number))

    @app.task
    def failing_run(number):
        async def fail():
            await fetch("failing", f"/{number}")
            raise LookupError("of the task")

        asyncio.run(fail())

    @app.task(soft_time_limit=1)
    def too_long_run():
        async def never():
            await fetch("too long", "/never")

        try:
            asyncio.run(never())
        except SoftTimeLimitExceeded:
            return os.getpid(), "too long"

    # One loop a process, which a Runner keeps from task to task.

    @worker_process_init.connect
    def start_loop(**_):
        global runner
        runner = asyncio.Runner()

    @worker_process_shutdown.connect
    def end_loop(**_):
        runner.close()

    @app.task
    def kept_loop(number):
        return os.getpid(), runner.run(fetch_both("process", number))

    # A loop that the worker's main process has when it forks the others.

    @worker_init.connect
    def start_loop_before_the_fork(**_):
        global runner_of_main
        runner_of_main = asyncio.Runner()
        runner_of_main.run(fetch("main", "/main"))

    @worker_shutdown.connect
    def end_loop_of_main(**_):
        runner_of_main.run(fetch("main", "/main"))
        runner_of_main.close()
"""

CLIENT = """
import json, sys
from app import failing_run, kept_loop, one_run, too_long_run

def all_of(results):
    return [result.get(timeout=40, interval=0.02) for result in results]

tasks = range(int(sys.argv[1]))
too_long = too_long_run.delay()
runs = all_of([one_run.delay(number) for number in tasks])
kept = all_of([kept_loop.delay(number) for number in tasks])
failed = failing_run.delay(0)
error = failed.get(timeout=40, interval=0.02, propagate=False)
print(json.dumps({"runs": runs, "kept": kept, "error": repr(error), "too long": all_of([too_long])}))
"""


@dataclass
class Work:
    """What a worker has done."""

    answers: dict[str, Any]
    notes: dict[int, list[str]]
    status: int
    complaints: list[str]

    def notes_by(self, owner: str) -> dict[int, list[str]]:
        """What the processes have noted of the sessions of this owner."""
        begin = f"{owner}: "
        notes = {pid: [each.removeprefix(begin) for each in notes if each.startswith(begin)] for pid, notes in self.notes.items()}
        return {pid: of_owner for pid, of_owner in notes.items() if of_owner}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Generator[Work]:
    """All tasks, on one worker with two processes, which is then stopped: that alone takes it five seconds."""
    directory = tmp_path_factory.mktemp("celery")
    write_app(directory, APP)
    (directory / "client.py").write_text(CLIENT)
    command = ("-m", "celery", "--app=app", "worker", "--pool=prefork", f"--concurrency={PROCESSES}", "--loglevel=critical")
    redis = RedisServer()
    with (
        running(redis),
        HttpServer() as upstream,
        server_process(directory, *command, UPSTREAM=upstream.url, REDIS=redis.url) as worker,
    ):
        client = run_python("client.py", str(TASKS), cwd=directory, env={**os.environ, "REDIS": redis.url})
        assert (client.returncode, client.stderr) == (0, "")
        status = worker.stop(signal.SIGTERM)
        assert upstream.wait_until_all_closed()
    yield Work(json.loads(client.stdout), notes_of(directory), status, worker.complaints)


def answers_expected(answers: list[Any], *, fresh: bool) -> bool:
    return all(
        texts == [f"/{number}"] * 2 and (there_before == 0 or not fresh)
        for number, (_, (there_before, *texts)) in enumerate(answers)
    )


def test_one_run_a_task(work: Work) -> None:
    """Each task's `asyncio.run`, in whatever process, opens one session for all that the task does, and closes it."""
    runs = work.answers["runs"]
    assert len(runs) == TASKS
    assert answers_expected(runs, fresh=True)
    notes = work.notes_by("task")
    assert notes.keys() == {pid for pid, _ in runs}
    assert {tuple(noted) for noted in notes.values()} <= {("opened", "closed") * tasks for tasks in range(TASKS + 1)}
    assert sum(map(len, notes.values())) == 2 * TASKS


def test_one_loop_a_process(work: Work) -> None:
    """Tasks that share a process's loop share one session, which is closed when that process ends."""
    kept = work.answers["kept"]
    assert len(kept) == TASKS
    assert answers_expected(kept, fresh=False)
    processes = {pid for pid, _ in kept}
    assert work.notes_by("process") == {pid: ["opened", "closed"] for pid in processes}
    assert sum(there_before == 0 for _, (there_before, *_) in kept) == len(processes) <= PROCESSES


def test_a_loop_that_was_there_before_the_fork(work: Work) -> None:
    """What the worker's main process has opened before it forks is closed by it alone, once."""
    notes = work.notes_by("main")
    assert list(notes.values()) == [["opened", "closed"]]
    children = {pid for pid, _ in work.answers["runs"] + work.answers["kept"]}
    assert not notes.keys() & children


def test_a_task_that_fails(work: Work) -> None:
    """A task that raises has closed its session, and Celery reports its error."""
    assert work.answers["error"] == "LookupError('of the task')"
    assert list(work.notes_by("failing").values()) == [["opened", "closed"]]


def test_a_task_that_takes_too_long(work: Work) -> None:
    """A task that gets to its soft time limit closes its session; its process goes on."""
    ((pid, said),) = work.answers["too long"]
    assert said == "too long"
    assert work.notes_by("too long") == {pid: ["opened", "closed"]}


def test_the_worker_ends_well(work: Work) -> None:
    """The worker itself has nothing to complain about."""
    assert (work.status, work.complaints) == (0, [])
