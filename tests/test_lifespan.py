"""`lifespan`: everything of the loop ends when its block is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from asyncio_loop_local import atexit, lifespan, resources, sticky_singleton_acm, storage
from conftest import Run
from recording import Factory, begin, cancel, enters, exits, on_each_loop, reports_of_this_loop, turns

ONE_LIFE = [*enters("0"), *exits("0")]


@on_each_loop
async def test_everything_ends_with_the_block(log: list[str]) -> list[str]:
    """What was opened before it and in it ends newest first; callbacks run; the loop, and another lifespan, can be used then."""
    factory = Factory(log)
    await factory.use("before")
    async with lifespan():
        await factory.use("in it")
        atexit.register(log.append, "callback")
        storage()["key"] = "value"
        assert len(resources()) == 2
    assert log == [*enters("0", "1"), "callback", *exits("1", "0")]
    assert (resources(), storage()) == ((), {})
    del log[:]
    async with lifespan():
        await factory.use("afterwards")
    assert log == [*enters("2"), *exits("2")]
    await factory.use("at the end")
    return [*enters("2"), *exits("2"), *enters("3"), *exits("3")]


@on_each_loop
async def test_it_takes_an_application_and_gives_nothing() -> None:
    """Frameworks call it with the application; its value is None, which is no state."""
    async with lifespan("an application") as value, lifespan() as other:
        assert [value, other] == [None, None]


@on_each_loop
async def test_it_begins_nothing() -> None:
    """On a loop on which nothing is used, it changes nothing."""
    before = dict(vars(asyncio.get_running_loop()))
    async with lifespan():
        pass
    assert vars(asyncio.get_running_loop()).keys() <= before.keys()


@on_each_loop
async def test_in_a_lifespan_of_ones_own() -> None:
    """Code after its ``yield``, in the block, still finds what is open; code after the block finds it closed."""
    factory = Factory()

    @asynccontextmanager
    async def own(app: str) -> AsyncGenerator[str]:
        async with lifespan():
            resource = await factory.use()
            yield app
            assert await factory.use() is resource
            factory.log.append("in the block")
        factory.log.append("after it")

    async with own("app") as state:
        assert state == "app"
    assert factory.log == [*enters("0"), "in the block", *exits("0"), "after it"]


@on_each_loop
async def test_an_error_of_the_block_passes() -> None:
    """Everything ends, then the error is raised unchanged."""
    factory = Factory()
    error = ValueError("of the block")
    with pytest.raises(ValueError) as caught:
        async with lifespan():
            await factory.use()
            raise error
    assert caught.value is error
    assert factory.log == ONE_LIFE


@on_each_loop
async def test_errors_of_exits_are_raised_when_the_block_is_left() -> None:
    """In one group, after the last exit, with an error of the block as their context; nothing is reported besides."""
    reports = reports_of_this_loop()
    for of_block in (None, ValueError("of the block")):
        factory = Factory()
        with pytest.raises(ExceptionGroup, match="errors at the exits") as caught:
            async with lifespan():
                (await factory.use("a")).exit_error = OSError("no answer")
                await factory.use("b")
                if of_block is not None:
                    raise of_block
        assert caught.value.exceptions == (factory.made[0].exit_error,)
        assert caught.value.__context__ is of_block
        assert factory.log == [*enters("0", "1"), *exits("1"), "exiting 0"]
    assert reports == []


@on_each_loop
async def test_everything_ends_if_the_block_is_cancelled() -> None:
    """A server that cancels its lifespan gets it cancelled, when everything has ended."""
    factory = Factory()

    async def serve() -> None:
        async with lifespan():
            await factory.use()
            await asyncio.Event().wait()

    await cancel(await begin(serve()))
    assert factory.log == ONE_LIFE


@on_each_loop
async def test_a_second_cancellation_leaves_the_rest_to_the_end_of_the_loop(log: list[str]) -> list[str]:
    """The exit in progress still finishes; exits that had not begun run at the end of the loop."""
    factory = Factory(log)

    async def serve() -> None:
        async with lifespan():
            await factory.use("a")
            (await factory.use("b")).may_exit.clear()
            await asyncio.Event().wait()

    serving = await begin(serve())
    serving.cancel()
    await factory.made[1].exiting.wait()
    await cancel(serving)
    await turns()
    assert factory.log == [*enters("0", "1"), "exiting 1"]
    factory.made[1].may_exit.set()
    return [*enters("0", "1"), "exiting 1", "exited 1", *exits("0")]


@on_each_loop
async def test_two_on_one_loop() -> None:
    """The first block that ends also ends everything that is open; what is opened afterwards ends with the second."""
    factory = Factory()
    first, second = lifespan(), lifespan()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first)
        async with second:
            await factory.use()
        assert factory.log == ONE_LIFE
        await factory.use()
    assert factory.log == [*ONE_LIFE, *enters("1"), *exits("1")]


@on_each_loop
async def test_two_that_are_left_at_once() -> None:
    """Both wait for the same exits, and both get their errors."""
    factory = Factory()
    may_leave = asyncio.Event()

    async def serve() -> None:
        async with lifespan():
            await may_leave.wait()

    serving = [asyncio.create_task(serve()) for _ in range(2)]
    (await factory.use()).exit_error = error = OSError("no answer")
    may_leave.set()
    results: list[Any] = await asyncio.gather(*serving, return_exceptions=True)
    assert [result.exceptions for result in results] == [(error,), (error,)]
    assert factory.log == [*enters("0"), "exiting 0"]


@on_each_loop
async def test_from_inside_a_resource_it_is_refused() -> None:
    """A resource that would end everything with its own enter gets a `RuntimeError`, and nothing hangs."""

    @sticky_singleton_acm
    @asynccontextmanager
    async def make() -> AsyncGenerator[None]:
        async with lifespan():
            pass
        yield

    with pytest.raises(RuntimeError, match=r"aclose\(\) was called from inside .*make\(\)"):
        await make()


def test_each_loop_has_its_own(run: Run) -> None:
    """A lifespan ends what its own loop holds, while another loop goes on with its own."""
    factory = Factory()

    async def other() -> None:
        async with lifespan():
            await factory.use()

    async def main() -> None:
        resource = await factory.use()
        await asyncio.to_thread(run, other())
        assert factory.made[1].is_open is False
        assert resource.is_open

    run(main())
    assert factory.log == [*enters("0", "1"), *exits("1", "0")]
