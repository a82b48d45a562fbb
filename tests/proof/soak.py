"""A soak, by hand: eight threads run one loop after the other, a thousand tasks each, on resources that fail at random.

``python tests/proof/soak.py --seconds 600 [--loop asyncio|uvloop] [--debug] [--eager] [--threads 8] [--tasks 1000] [--seed 1]``

It ends with status 1 if one resource was entered and not exited, or exited twice or in another task; if one error was
reported to nobody; if a loop or a resource is left; or if the memory that is used has grown.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from asyncio_loop_local import aclose, atexit, enter, enter_once, release, resources, singleton, sticky_acm, sticky_singleton_acm

KEYS = 40
MEGABYTE = 1 << 20


class Planned(Exception):
    """A failure that the soak has asked for; each has to be reported."""


class Book:
    """What one loop has seen: kept by the thread that runs it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.raised: dict[int, Planned] = {}
        self.reported: set[int] = set()

    def fail(self, what: str) -> Planned:
        """An error to be raised, which then has to be reported."""
        error = Planned(what)
        self.raised[id(error)] = error
        self.counts[f"{what} failed"] += 1
        return error

    def hear(self, error: Any, where: str) -> None:
        """Takes note of an error that came to light."""
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            for each in group.exceptions:
                self.hear(each, where)
        elif isinstance(error, Planned) and id(error) in self.raised:
            self.reported.add(id(error))
        elif error is not None and not _is_refusal(error):
            self.violations.append(f"an error that nobody has planned, at {where}: {error!r}")

    def close(self) -> None:
        """Checks, when the loop has ended, that every error was reported, and everything exited."""
        for number, error in self.raised.items():
            if number not in self.reported:
                self.violations.append(f"an error was reported to nobody: {error}")
        if self.counts["entered"] != self.counts["exited"]:
            self.violations.append(f"{self.counts['entered']} were entered, {self.counts['exited']} exited")
        if self.counts["registered"] != self.counts["called"]:
            self.violations.append(f"{self.counts['registered']} callbacks registered, {self.counts['called']} called")
        self.raised.clear()


def _is_refusal(error: BaseException) -> bool:
    """An answer that the library gives to what a soak at random asks for."""
    return isinstance(error, RuntimeError) and ("in use by" in str(error) or "from inside" in str(error))


_current = threading.local()


def book() -> Book:
    found: Book = _current.book
    return found


class Connection:
    """Fails at random: as it is entered, held, or exited."""

    alive: weakref.WeakSet[Connection] = weakref.WeakSet()
    lock = threading.Lock()

    def __init__(self, key: object = None) -> None:
        self.key = key
        self.state = "made"
        self.uses = 0
        with Connection.lock:
            Connection.alive.add(self)

    async def __aenter__(self) -> Connection:
        page = book()
        self.task = asyncio.current_task()
        await asyncio.sleep(page.rng.choice((0, 0, 0.0005)))
        if page.rng.random() < 0.05:
            raise page.fail("an enter")
        if page.rng.random() < 0.2:
            await asyncio.sleep(0)
        if page.rng.random() < 0.1 and isinstance(self.key, int) and self.key > 0:
            async with connect(self.key - 1) as other:  # keys only go down, so there is no circle
                other.use()
        self.group: asyncio.TaskGroup | None = None
        if page.rng.random() < 0.2:
            self.group = asyncio.TaskGroup()
            await self.group.__aenter__()
            self.worker = self.group.create_task(self._work())
        if self.state != "made":
            page.violations.append(f"entered while {self.state}")
        self.state = "open"
        page.counts["entered"] += 1
        return self

    async def _work(self) -> None:
        page = book()
        while True:
            await asyncio.sleep(0.002)
            if page.rng.random() < 0.02:
                raise page.fail("what was held")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        page = book()
        if self.state != "open":
            page.violations.append(f"exited while {self.state}")
        if asyncio.current_task() is not self.task:
            page.violations.append("exited in another task")
        self.state = "exited"
        page.counts["exited"] += 1
        group, self.group, self.task = self.group, None, None
        if group is not None:
            self.worker.cancel()
            await group.__aexit__(kind, error, trace)
        await asyncio.sleep(0)
        if page.rng.random() < 0.03:
            raise page.fail("an exit")

    def use(self) -> None:
        """Is only done by those for whom it is open, or who came as it died."""
        self.uses += 1


connect = sticky_singleton_acm(Connection)


@singleton
async def settings(key: int) -> int:
    page = book()
    await asyncio.sleep(0)
    if page.rng.random() < 0.1:
        raise page.fail("a shared coroutine")
    return key


def _callback() -> None:
    page = book()
    page.counts["called"] += 1
    if page.rng.random() < 0.03:
        raise page.fail("a callback")


async def _async_callback() -> None:
    await asyncio.sleep(0)
    _callback()


async def _one_step(page: Book, objects: Sequence[Connection], handles: Sequence[Any]) -> None:
    key = page.rng.randrange(KEYS)
    choice = page.rng.random()
    if choice < 0.55:
        async with connect(key) as connection:
            connection.use()
            await asyncio.sleep(0)
    elif choice < 0.65:
        (await enter_once(page.rng.choice(objects))).use()
    elif choice < 0.75:
        async with page.rng.choice(handles) as connection:
            connection.use()
    elif choice < 0.80:
        (await enter(Connection())).use()
    elif choice < 0.90:
        await settings(key)
    elif choice < 0.95:
        page.counts["released"] += await release(connect, key)
    elif choice < 0.97:
        resources()
    else:
        atexit.register(page.rng.choice((_callback, _async_callback)))
        page.counts["registered"] += 1


async def _step(page: Book, objects: Sequence[Connection], handles: Sequence[Any]) -> None:
    """Hears its errors itself: asyncio forgets those of a task that fails as the one that awaits it is cancelled."""
    try:
        await _one_step(page, objects, handles)
    except Exception as error:
        page.hear(error, "a caller")


async def _task(page: Book, objects: Sequence[Connection], handles: Sequence[Any]) -> None:
    for _ in range(page.rng.randrange(1, 5)):
        step = asyncio.ensure_future(_step(page, objects, handles))
        cancels = page.rng.random() < 0.1
        if cancels:
            for _ in range(page.rng.randrange(3)):
                await asyncio.sleep(0)
            step.cancel()
        try:
            await step
        except asyncio.CancelledError:
            if not cancels:
                raise
            page.counts["callers cancelled"] += 1
        page.counts["steps"] += 1


async def _main(page: Book, tasks: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: page.hear(context.get("exception"), str(context.get("message"))))
    objects = [Reentered() for _ in range(10)]
    handles = [sticky_acm(Reentered()) for _ in range(10)]
    running = [asyncio.create_task(_task(page, objects, handles)) for _ in range(tasks)]
    if page.rng.random() < 0.3:
        await asyncio.sleep(0.005)
        try:
            await aclose()
        except BaseExceptionGroup as error:
            page.hear(error, "aclose()")
        page.counts["acloses"] += 1
    if page.rng.random() < 0.8:
        await asyncio.wait(running)
        for task in running:
            task.result()
    else:
        await asyncio.sleep(0.01)  # the loop ends while the tasks run
        page.counts["loops ended in mid-flight"] += 1


class Reentered(Connection):
    """An object that is entered again after it has failed, died, or ended, each time as if it were new."""

    async def __aenter__(self) -> Connection:
        inner = Connection()
        await inner.__aenter__()
        self.inner = inner
        return inner

    async def __aexit__(self, *exc: Any) -> None:
        await self.inner.__aexit__(*exc)


def _run_loops(
    new_loop: Callable[[], asyncio.AbstractEventLoop], debug: bool, tasks: int, seed: int, until: float, total: Totals
) -> None:
    rng = random.Random(seed)
    _current.book = Book(rng)
    while time.monotonic() < until and not total.violations:
        page = _current.book = Book(rng)
        loop = new_loop()
        ref = weakref.ref(loop)
        loop.set_debug(debug)
        loop.slow_callback_duration = sys.maxsize  # eight threads share what time there is
        try:
            if rng.random() < 0.7:
                with asyncio.Runner(loop_factory=lambda loop=loop: loop, debug=debug) as runner:  # type: ignore[misc]  # a default
                    runner.run(_main(page, tasks))
            else:
                with closing(loop):
                    loop.run_until_complete(_main(page, tasks))
        except BaseException as error:
            page.violations.append(f"the loop's run raised {error!r}")
        del loop
        page.close()
        total.add(page, ref)
    del _current.book


class Totals:
    """The figures of all threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
        self._lock = threading.Lock()

    def add(self, page: Book, loop: weakref.ref[asyncio.AbstractEventLoop]) -> None:
        with self._lock:
            self.counts += page.counts
            self.counts["loops"] += 1
            self.violations += page.violations
            self.loops = [ref for ref in self.loops if ref() is not None]
            self.loops.append(loop)


def _resident() -> int:
    """The memory of this process that is in use, in bytes."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.Process().memory_info().rss)


def _phase(options: argparse.Namespace, new_loop: Callable[[], asyncio.AbstractEventLoop], seconds: float, total: Totals) -> int:
    until = time.monotonic() + seconds
    seed = options.seed + total.counts["loops"] * 1000
    threads = [
        threading.Thread(target=_run_loops, args=(new_loop, options.debug, options.tasks, seed + number, until, total))
        for number in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    return _resident()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--debug", action="store_true", help="run the loops in asyncio's debug mode")
    parser.add_argument("--eager", action="store_true", help="start tasks eagerly (Python 3.12)")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=1000, help="of each loop")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.eager and not hasattr(asyncio, "eager_task_factory"):
        parser.error("--eager needs Python 3.12")
    if options.eager and options.loop == "uvloop":
        parser.error("--eager is for asyncio: uvloop calls the factory as Python 3.14 does")

    def new_loop() -> asyncio.AbstractEventLoop:
        if options.loop == "uvloop":
            import uvloop

            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        if sys.version_info >= (3, 12) and options.eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    total = Totals()
    warm, middle, end = (_phase(options, new_loop, options.seconds / 3, total) for _ in range(3))
    left = [ref for ref in total.loops if ref() is not None]
    if left:
        total.violations.append(f"{len(left)} loops are left")
    if len(Connection.alive):
        total.violations.append(f"{len(Connection.alive)} resources are left: {list(Connection.alive)[:3]!r}")
    allowed = max(16 * MEGABYTE, warm // 10)
    if end - warm > allowed and end - middle > allowed // 4:  # a leak grows in each third, a high tide in one
        total.violations.append(f"the memory in use has grown by {(end - warm) / MEGABYTE:.1f} MB since the first third")
    print(f"Python {sys.version.split()[0]}, {options.loop}{', debug' * options.debug}{', eager' * options.eager}, ", end="")
    print(f"{options.threads} threads, {options.tasks:,} tasks a loop, {options.seconds:g} seconds, seed {options.seed}")
    for what, count in sorted(total.counts.items()):
        print(f"  {what:<28}{count:>12,}")
    used = " MB, ".join(f"{size / MEGABYTE:.1f}" for size in (warm, middle, end))
    print(f"  memory in use after each third: {used} MB")
    for violation, count in Counter(total.violations).most_common(20):
        print(f"VIOLATION ({count}): {violation}")
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
