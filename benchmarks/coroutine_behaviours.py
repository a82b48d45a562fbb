"""Holds shared coroutines against three caches of coroutine functions: each cell of the table is what a small program did.

    python -m benchmarks.coroutine_behaviours            prints the table
    python -m benchmarks.coroutine_behaviours --write    puts it into docs/coroutines.md
    python -m benchmarks.coroutine_behaviours --check    fails if docs/coroutines.md holds another one

Needs async-lru, anyio and asyncstdlib: pip install 'asyncio-loop-local[bench]'.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import anyio.functools
import async_lru
import asyncstdlib
from benchmarks.written_part import WrittenPart

import asyncio_loop_local

T = TypeVar("T")
Function = Callable[..., Awaitable[Any]]
Decorator = Callable[[Any], Any]

PAGE = Path(__file__).parent.parent / "docs" / "coroutines.md"
TABLE = WrittenPart("<!-- begin of what benchmarks/coroutine_behaviours.py --write has written -->")

# Each as its documentation writes it, with its own defaults.
LIBRARIES: dict[str, tuple[str, Decorator]] = {
    "asyncio_loop_local.singleton": ("asyncio-loop-local", asyncio_loop_local.singleton),
    "async_lru.alru_cache": ("async-lru", async_lru.alru_cache),
    "anyio.functools.cache": ("anyio", anyio.functools.cache),
    "asyncstdlib.cache": ("asyncstdlib", asyncstdlib.cache),
}

CASES: dict[str, Callable[[Decorator], str]] = {}
HANGS_AFTER = 2.0
"""How long a program may wait for what should be there at once, in seconds, before the table says that it hangs."""


def case(title: str) -> Callable[[Callable[[Decorator], str]], Callable[[Decorator], str]]:
    def add(program: Callable[[Decorator], str]) -> Callable[[Decorator], str]:
        CASES[title] = program
        return program

    return add


class Work:
    """A function that waits until it is let go, and knows how often it ran and how each run ended."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_unwind = asyncio.Event()
        self.may_unwind.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        self.began.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await self.may_unwind.wait()
            raise
        if self.error is not None:
            raise self.error
        return number

    def wrapped_by(self, decorate: Decorator) -> Function:
        async def function() -> int:
            return await self()

        wrapped: Function = decorate(function)
        return wrapped


async def awaited(make: Callable[[], Awaitable[T]]) -> T:
    """Makes the call and awaits it, in whatever task this runs."""
    return await make()


async def turns() -> None:
    """Lets everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


def outcome(result: object) -> str:
    if isinstance(result, asyncio.CancelledError):
        return "is cancelled, too"
    return f"gets {type(result).__name__}" if isinstance(result, BaseException) else "gets the result"


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


@case("Ten tasks make the first call at once: the function runs")
def concurrent_first_calls(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        function = work.wrapped_by(decorate)
        tasks = [asyncio.create_task(awaited(function)) for _ in range(10)]
        await turns()
        work.may_end.set()
        results = await asyncio.gather(*tasks)
        return times(work.runs) if len(set(results)) == 1 else f"{times(work.runs)}, with different results"

    return asyncio.run(main())


@case("What one call gave is awaited twice: the second await")
def awaited_twice(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        work.may_end.set()
        call = work.wrapped_by(decorate)()
        await call
        try:
            return outcome(await call)
        except RuntimeError as error:
            return outcome(error)

    return asyncio.run(main())


@case("What one call gave is made into two tasks: the second task")
def two_tasks_of_one_call(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        call: Any = work.wrapped_by(decorate)()
        tasks = [asyncio.create_task(call) for _ in range(2)]
        await turns()
        work.may_end.set()
        return outcome((await asyncio.gather(*tasks, return_exceptions=True))[1])

    return asyncio.run(main())


@case("The function runs in")
def where_it_runs(decorate: Decorator) -> str:
    async def main() -> str:
        @decorate
        async def function() -> asyncio.Task[Any] | None:
            return asyncio.current_task()

        own = await function() is not asyncio.current_task()
        return "a task of its own" if own else "the first caller's task"

    return asyncio.run(main())


def _one_is_cancelled(decorate: Decorator, which: int) -> str:
    async def main() -> str:
        work = Work()
        function = work.wrapped_by(decorate)
        tasks = [asyncio.create_task(awaited(function)) for _ in range(2)]
        await turns()
        tasks[which].cancel()
        await asyncio.wait([tasks[which]])
        await turns()
        work.may_end.set()
        other = (await asyncio.gather(tasks[1 - which], return_exceptions=True))[0]
        return f"{outcome(other)}; {work.runs} {'run' if work.runs == 1 else 'runs'}, {work.cancelled} cancelled"

    return asyncio.run(main())


@case("Of two that wait, the first is cancelled: the other")
def the_first_is_cancelled(decorate: Decorator) -> str:
    return _one_is_cancelled(decorate, 0)


@case("Of two that wait, the second is cancelled: the other")
def the_second_is_cancelled(decorate: Decorator) -> str:
    return _one_is_cancelled(decorate, 1)


@case("All that wait are cancelled: the run")
def all_are_cancelled(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        function = work.wrapped_by(decorate)
        tasks = [asyncio.create_task(awaited(function)) for _ in range(2)]
        await turns()
        for task in tasks:
            task.cancel()
        await turns()
        return "is cancelled" if work.cancelled == work.runs else "goes on for nobody"

    return asyncio.run(main())


@case("A call while a cancelled run still unwinds")
def a_call_while_it_unwinds(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        work.may_unwind.clear()
        function = work.wrapped_by(decorate)
        cancelled = asyncio.create_task(awaited(function))
        await turns()
        cancelled.cancel()
        await turns()
        work.may_end.set()
        new = asyncio.create_task(awaited(function))
        await turns()
        at_once = new.done() and not new.cancelled() and new.exception() is None
        work.may_unwind.set()
        result = (await asyncio.gather(new, return_exceptions=True))[0]
        return f"{outcome(result)}, {'at once' if at_once else 'after the unwinding'}"

    return asyncio.run(main())


@case("The function fails while ten wait: it runs")
def failing_while_ten_wait(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        work.error = ValueError("failed")
        function = work.wrapped_by(decorate)
        tasks = [asyncio.create_task(awaited(function)) for _ in range(10)]
        await turns()
        work.may_end.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return times(work.runs) if all(result is work.error for result in results) else f"{times(work.runs)}, with other errors"

    return asyncio.run(main())


@case("The call after a failure")
def after_a_failure(decorate: Decorator) -> str:
    async def main() -> str:
        work = Work()
        work.may_end.set()
        work.error = ValueError("failed")
        function = work.wrapped_by(decorate)
        await asyncio.gather(awaited(function), return_exceptions=True)
        await turns()
        work.error = None
        result = (await asyncio.gather(awaited(function), return_exceptions=True))[0]
        return outcome(result)

    return asyncio.run(main())


@case("A second loop, after the first has ended")
def a_second_loop(decorate: Decorator) -> str:
    @decorate
    async def function() -> int:
        return id(asyncio.get_running_loop())

    async def main() -> bool:
        result: int = await function()
        return result == id(asyncio.get_running_loop())

    loops = [asyncio.new_event_loop() for _ in range(2)]  # both kept, so that their ids differ
    try:
        own = [loop.run_until_complete(main()) for loop in loops]
    finally:
        for loop in loops:
            loop.close()
    return "has its own result" if all(own) else "gets the first one's result"


@case("A second loop, in a thread, while the first goes on: the first then")
def a_second_loop_at_once(decorate: Decorator) -> str:
    runs: list[int] = []

    @decorate
    async def function() -> int:
        runs.append(id(asyncio.get_running_loop()))
        return runs[-1]

    async def main() -> str:
        await function()
        thread = threading.Thread(target=lambda: asyncio.run(awaited(function)))
        thread.start()
        await asyncio.to_thread(thread.join)
        mine = id(asyncio.get_running_loop())
        result = await function()
        return (
            "has its own result still"
            if result == mine and runs.count(mine) == 1
            else ("computes its own again" if result == mine else "gets the second one's result")
        )

    return asyncio.run(main())


@case("What the first loop's call gave, awaited on a second one")
def kept_for_a_second_loop(decorate: Decorator) -> str:
    @decorate
    async def function() -> int:
        return id(asyncio.get_running_loop())

    async def first() -> Any:
        call = function()
        await call
        return call

    async def second(call: Awaitable[int]) -> str:
        try:
            result = await call
        except RuntimeError as error:
            return outcome(error)
        return "is a call there" if result == id(asyncio.get_running_loop()) else "gets the first one's result"

    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        return loops[1].run_until_complete(second(loops[0].run_until_complete(first())))
    finally:
        for loop in loops:
            loop.close()


class _Counted:
    """What a method counts its runs on."""

    def __init__(self) -> None:
        self.runs = 0


def _with_method(decorate: Decorator) -> type[Any]:
    class Client(_Counted):
        @decorate
        async def method(self, number: int = 0) -> int:
            self.runs += 1
            return number

    return Client


@case("A method, called twice on each of two instances: runs for each")
def methods(decorate: Decorator) -> str:
    async def main() -> str:
        kind = _with_method(decorate)
        one, other = kind(), kind()
        for client in (one, other, one, other):
            await client.method()
        return f"{one.runs} and {other.runs}"

    return asyncio.run(main())


@case("The same method called as `Client.method(client)`")
def methods_by_class(decorate: Decorator) -> str:
    async def main() -> str:
        kind = _with_method(decorate)
        client = kind()
        await client.method()
        try:
            await kind.method(client)
        except (TypeError, AttributeError) as error:
            return f"raises {type(error).__name__}"
        return "finds it" if client.runs == 1 else "runs again"

    return asyncio.run(main())


@case("The instance of a method, when the loop has ended")
def methods_and_memory(decorate: Decorator) -> str:
    kind = _with_method(decorate)

    async def main() -> weakref.ref[Any]:
        client = kind()
        await client.method()
        return weakref.ref(client)

    ref = asyncio.run(main())
    at_once = ref() is None
    gc.collect()
    return "is freed at once" if at_once else "is freed by the garbage collector" if ref() is None else "is kept alive"


@case("`f(1)`, `f(x=1)`, and `f(1, y=2)` where that is the default: runs")
def forms_of_a_call(decorate: Decorator) -> str:
    runs: list[int] = []

    @decorate
    async def function(x: int, y: int = 2) -> None:
        runs.append(x + y)

    async def main() -> str:
        await function(1)
        await function(x=1)
        await function(1, y=2)
        return str(len(runs))

    return asyncio.run(main())


@case('`f(1, "a")` and `f(True, "a")`')
def types_of_arguments(decorate: Decorator) -> str:
    @decorate
    async def function(x: object, _name: str) -> str:
        return repr(x)

    async def main() -> str:
        return "are different" if await function(1, "a") != await function(True, "a") else "are one call"

    return asyncio.run(main())


@case("A dict as an argument, twice the same content")
def a_dict_as_an_argument(decorate: Decorator) -> str:
    runs: list[int] = []

    @decorate
    async def function(headers: dict[str, str]) -> None:
        runs.append(len(headers))

    async def main() -> str:
        for _ in range(2):
            await function({"a": "b"})
        return f"runs {times(len(runs))}"

    try:
        return asyncio.run(main())
    except TypeError as error:
        return f"raises {type(error).__name__}"


@case("A wrong argument raises")
def a_wrong_argument(decorate: Decorator) -> str:
    @decorate
    async def function() -> None: ...

    async def main() -> str:
        try:
            call = function(1)
        except TypeError:
            return "at the call"
        try:
            await call
        except TypeError:
            return "at the await"
        return "nowhere"

    return asyncio.run(main())


@case("A call that is never awaited")
def never_awaited(decorate: Decorator) -> str:
    @decorate
    async def function() -> None: ...

    async def main() -> None:
        function()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    return "warns" if caught else "is no mistake"


@case("A function that awaits its own result")
def a_function_that_awaits_itself(decorate: Decorator) -> str:
    @decorate
    async def function() -> None:
        await function()

    async def main() -> str:
        task = asyncio.create_task(awaited(function))
        await asyncio.wait([task], timeout=HANGS_AFTER)
        if not task.done():
            task.cancel()
            return "hangs"
        return outcome((await asyncio.gather(task, return_exceptions=True))[0])

    return asyncio.run(main())


@case("`inspect.iscoroutinefunction` (asyncio's before Python 3.12)")
def is_coroutine_function(decorate: Decorator) -> str:
    @decorate
    async def function() -> None: ...

    test = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    return "true" if test(function) else "false"


def cell(program: Callable[[Decorator], str], decorate: Decorator) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = program(decorate)
        gc.collect()
    told = sorted({each.category.__name__ for each in caught} - {"RuntimeWarning", "ResourceWarning"})
    return "; ".join([text, *(f"warns: {name}" for name in told)])


def table() -> str:
    lines = [
        "| | " + " | ".join(f"`{name}`" for name in LIBRARIES) + " |",
        "| --- |" + " --- |" * len(LIBRARIES),
    ]
    for title, program in CASES.items():
        lines.append(f"| {title} | " + " | ".join(cell(program, decorate) for _, decorate in LIBRARIES.values()) + " |")
    others = ", ".join(f"{package} {version(package)}" for package, _ in list(LIBRARIES.values())[1:])
    return "\n".join([*lines, "", f"Run with {others}."])


def main() -> int:
    text = table()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(TABLE.put(text, PAGE.read_text("utf-8")), "utf-8")
    elif "--check" in sys.argv[1:]:
        if PAGE.read_text("utf-8") != TABLE.put(text, PAGE.read_text("utf-8")):
            print(f"{PAGE.name} holds another table than this: run with --write", text, sep="\n\n")
            return 1
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
