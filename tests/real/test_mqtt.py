"""aiomqtt's client, on a real MQTT broker: one client per loop, no connection of it left, and not one message lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import aiomqtt
import pytest

import asyncio_loop_local
from lingering import begin_to_linger
from servers import LONGEST_WAIT, running
from servers_mqtt import MqttBroker, Subscriber

if TYPE_CHECKING:
    from conftest import Run

_client = asyncio_loop_local.sticky_singleton_acm(aiomqtt.Client)


class Topic:
    """The broker as one test sees it: all its clients and topics bear the test's own name."""

    def __init__(self, broker: MqttBroker, name: str) -> None:
        self.broker = broker
        self.name = name

    def client(self, identifier: str = "client") -> asyncio_loop_local.StickyACM[aiomqtt.Client]:
        """Asks for the client, as an application would."""
        return _client("127.0.0.1", self.broker.port, identifier=f"{self.name}-{identifier}", timeout=LONGEST_WAIT)

    async def release(self) -> bool:
        """Lets go of the client."""
        return await asyncio_loop_local.release(
            _client, "127.0.0.1", self.broker.port, identifier=f"{self.name}-client", timeout=LONGEST_WAIT
        )

    async def publish(self, message: str, *, identifier: str = "client") -> aiomqtt.Client:
        """Publishes through the client; returns as soon as the broker has acknowledged it."""
        async with self.client(identifier) as client:
            await client.publish(f"{self.name}/notes", message, qos=1)
            return client

    def subscriber(self) -> Subscriber:
        """Counts what arrives, elsewhere."""
        return Subscriber(self.broker.port, f"{self.name}/notes")


@pytest.fixture(scope="module")
def broker() -> Generator[MqttBroker]:
    broker = MqttBroker()
    with running(broker):
        yield broker
        broker.count()
        print(f"\nMQTT: {broker.connections} connections, {broker.messages} messages, {broker.kills} kills")


@pytest.fixture
def topic(broker: MqttBroker, request: pytest.FixtureRequest) -> Generator[Topic]:
    yield Topic(broker, f"test-{abs(hash(request.node.nodeid)):x}")
    if not broker.is_running():  # the test has failed
        broker.start()
    assert broker.wait_for_clients(), "a connection was left on the broker"


class Reports:
    """What the running loop's exception handler is told from now on."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.came = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(self._note)

    def _note(self, _: object, context: dict[str, Any]) -> None:
        self.all.append(context)
        self.came.set()


def test_all_that_the_tasks_of_a_loop_publish_arrives(run: Run, topic: Topic) -> None:
    """All tasks of a loop publish through one client, which is gone from the broker when the loop has ended."""

    async def publish_many(number: int) -> list[aiomqtt.Client]:
        return [await topic.publish(f"{number}: {each}") for each in range(10)]

    async def main() -> list[aiomqtt.Client]:
        clients = await asyncio.gather(*(publish_many(number) for number in range(10)))
        assert sorted(topic.broker.clients()) == [f"{topic.name}-client", f"{topic.name}/notes-subscriber"]
        return [client for each in clients for client in each]

    with topic.subscriber() as subscriber:
        clients = run(main())
        assert subscriber.wait_for(100)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert all(client is clients[0] for client in clients)
    assert sorted(subscriber.messages) == sorted(f"{number}: {each}" for number in range(10) for each in range(10))


def test_all_that_is_published_in_a_finally_at_the_end_arrives(run: Run, topic: Topic) -> None:
    """Tasks that the runner cancels publish while they clean up, and the broker acknowledges it: the client is open for them."""

    async def publish_many() -> None:
        for _ in range(10):
            await topic.publish("in a finally")

    async def main() -> list[asyncio.Task[None]]:
        tasks = await begin_to_linger(10, publish_many)
        await topic.publish("at the beginning")
        return tasks

    with topic.subscriber() as subscriber:
        tasks = run(main())
        assert subscriber.wait_for(101)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert all(task.cancelled() for task in tasks)
    assert subscriber.messages == ["at the beginning"] + ["in a finally"] * 100


def test_a_client_that_is_first_needed_in_a_finally_is_disconnected_too(run: Run, topic: Topic) -> None:
    """A client that first connects while the runner cancels tasks, in the loop's executor, serves them and is disconnected."""

    async def main() -> None:
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, lambda: topic.publish("in a finally"))

    with topic.subscriber() as subscriber:
        run(main())
        assert subscriber.wait_for(3)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert subscriber.messages == ["in a finally"] * 3


@asynccontextmanager
async def _make_device(port: int, name: str) -> AsyncGenerator[aiomqtt.Client]:
    """A device that says when it comes and when it goes."""
    async with _client("127.0.0.1", port, identifier=f"{name}-client", timeout=LONGEST_WAIT) as client:
        await client.publish(f"{name}/notes", "online", qos=1)
        try:
            yield client
        finally:
            await client.publish(f"{name}/notes", "offline", qos=1)


_device = asyncio_loop_local.sticky_singleton_acm(_make_device)


def test_a_device_that_says_goodbye_in_its_exit_is_heard(run: Run, topic: Topic) -> None:
    """What a resource publishes in its exit arrives, after all that tasks have published: its client is disconnected last."""

    async def measure() -> None:
        async with _device(topic.broker.port, topic.name) as client:
            await client.publish(f"{topic.name}/notes", "measured", qos=1)

    async def main() -> None:
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, measure)
        await measure()

    with topic.subscriber() as subscriber:
        run(main())
        assert subscriber.wait_for(6)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert subscriber.messages == ["online"] + ["measured"] * 4 + ["offline"]


@asynccontextmanager
async def _make_listener(port: int, name: str) -> AsyncGenerator[asyncio.Queue[str]]:
    """Hears everything up to its exit, or dies with its connection."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with aiomqtt.Client("127.0.0.1", port, identifier=f"{name}-listener", timeout=LONGEST_WAIT) as client:

        async def listen() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                if message.payload == b"the end":
                    return
                heard.put_nowait(message.payload.decode())

        await client.subscribe(f"{name}/notes", qos=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            yield heard
            await client.publish(f"{name}/notes", "the end", qos=1)


_listener = asyncio_loop_local.sticky_singleton_acm(_make_listener)


def test_a_listener_hears_all_that_is_published_up_to_its_exit(run: Run, topic: Topic) -> None:
    """A listener with a task of its own hears what cancelled tasks publish in their ``finally``, and what a later exit does."""

    async def main() -> asyncio.Queue[str]:
        async with _listener(topic.broker.port, topic.name) as heard:
            pass
        async with _device(topic.broker.port, topic.name):
            pass
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(5, lambda: topic.publish("in a finally"))
        return heard

    heard = run(main())
    assert [heard.get_nowait() for _ in range(heard.qsize())] == ["online"] + ["in a finally"] * 5 + ["offline"]
    assert topic.broker.wait_for_clients()


def test_each_of_several_loops_in_a_row_has_a_client_of_its_own(run: Run, topic: Topic) -> None:
    """What fails with a client in a global variable works: each loop connects its own, under one name, and disconnects it."""
    clients: list[aiomqtt.Client] = []
    with topic.subscriber() as subscriber:
        for number in range(5):
            clients.append(run(topic.publish(str(number))))
            assert topic.broker.wait_for_clients(subscriber.identifier)
        assert subscriber.wait_for(5)
    assert len({id(client) for client in clients}) == 5
    assert subscriber.messages == ["0", "1", "2", "3", "4"]


def test_loops_in_several_threads_have_a_client_each(run: Run, topic: Topic) -> None:
    """Loops that run at the same time in several threads have a client each, and lose nothing of what they publish."""
    all_are_open = threading.Barrier(4, timeout=LONGEST_WAIT)
    all_are_counted = threading.Barrier(4, timeout=LONGEST_WAIT)
    counted: list[list[str]] = []

    async def main(number: int) -> aiomqtt.Client:
        async def publish() -> aiomqtt.Client:
            return await topic.publish(f"from {number}", identifier=str(number))

        client = await publish()
        if await asyncio.to_thread(all_are_open.wait) == 0:
            counted.append(await asyncio.to_thread(topic.broker.clients))
        await asyncio.to_thread(all_are_counted.wait)
        asyncio_loop_local.storage()["tasks"] = await begin_to_linger(3, publish)
        assert await publish() is client
        return client

    def run_in_thread(number: int) -> aiomqtt.Client:
        return run(main(number))

    with topic.subscriber() as subscriber:
        with ThreadPoolExecutor(4) as threads:
            clients = list(threads.map(run_in_thread, range(4)))
        assert subscriber.wait_for(20)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert sorted(counted[0]) == sorted([subscriber.identifier, *(f"{topic.name}-{number}" for number in range(4))])
    assert len({id(client) for client in clients}) == 4
    assert sorted(subscriber.messages) == [f"from {number}" for number in range(4) for _ in range(5)]


def test_a_client_of_a_dead_broker_is_released_and_made_anew(run: Run, topic: Topic) -> None:
    """A client whose broker was killed says so at once; it is released without hanging, and the next one works."""

    async def main() -> None:
        reports = Reports()
        first = await topic.publish("before")
        await asyncio.to_thread(topic.broker.restart)
        with pytest.raises(aiomqtt.MqttError):
            while True:  # it may not have heard yet
                await topic.publish("perhaps")
        assert await topic.release()
        assert not await topic.release()
        assert not asyncio_loop_local.resources()
        with topic.subscriber() as subscriber:
            assert await topic.publish("after") is not first
            assert await asyncio.to_thread(subscriber.wait_for, 1)
            assert subscriber.messages == ["after"]
        assert reports.all == []

    run(main())
    assert topic.broker.wait_for_clients()


def test_an_exit_that_needs_a_dead_broker_raises_from_release(run: Run, topic: Topic) -> None:
    """``release`` raises what an exit raises that cannot say goodbye to its broker; what it used can go too, and be made anew."""

    async def main() -> None:
        async with _device(topic.broker.port, topic.name) as first:
            pass
        await asyncio.to_thread(topic.broker.kill)
        with pytest.raises(aiomqtt.MqttError):
            await asyncio_loop_local.release(_device, topic.broker.port, topic.name)
        assert not await asyncio_loop_local.release(_device, topic.broker.port, topic.name)
        assert await topic.release()
        with pytest.raises(aiomqtt.MqttError):
            await topic.publish("never")
        await asyncio.to_thread(topic.broker.start)
        async with _device(topic.broker.port, topic.name) as second:
            assert second is not first
        assert topic.broker.clients() == [f"{topic.name}-client"]

    run(main())
    assert topic.broker.wait_for_clients()


def test_a_listener_that_dies_with_its_broker_is_reported_and_made_anew(run: Run, topic: Topic) -> None:
    """A resource whose task group fails because its broker was killed is reported once, by name; the next call makes another."""

    async def main() -> list[dict[str, Any]]:
        reports = Reports()
        async with _listener(topic.broker.port, topic.name) as first:
            await topic.publish("before")
            assert await first.get() == "before"
        await asyncio.to_thread(topic.broker.kill)
        await reports.came.wait()
        assert await topic.release()
        await asyncio.to_thread(topic.broker.start)
        async with _listener(topic.broker.port, topic.name) as second:
            await topic.publish("after")
            assert await second.get() == "after"
        assert second is not first
        return reports.all

    reports = [report for report in run(main()) if "_make_listener" in report["message"]]  # aiomqtt loses an error of its own
    assert len(reports) == 1
    assert isinstance(_innermost(reports[0]["exception"]), aiomqtt.MqttError)
    assert topic.broker.wait_for_clients()


def _innermost(error: BaseException) -> BaseException:
    """The one error in a group of one, which may be in such a group itself."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return error


def test_a_loop_whose_broker_is_dead_ends_and_reports_the_exit_that_failed(run: Run, topic: Topic) -> None:
    """A loop ends where its broker is dead: the exit that could not say goodbye is reported, by name."""

    async def main() -> list[dict[str, Any]]:
        reports = Reports()
        async with _device(topic.broker.port, topic.name):
            await topic.publish("before")
        await asyncio.to_thread(topic.broker.kill)
        return reports.all

    reports = run(main())
    topic.broker.start()
    assert [report["message"].split("(")[0] for report in reports] == ["the exit of _make_device"]
    assert isinstance(reports[0]["exception"], aiomqtt.MqttError)
    assert topic.broker.wait_for_clients()


def test_aclose_disconnects_the_client_and_the_next_call_connects_another(run: Run, topic: Topic) -> None:
    """After ``aclose`` nothing is left on the broker; the loop goes on, and who publishes next gets a new client."""

    async def main(subscriber: Subscriber) -> None:
        first = await topic.publish("before")
        await asyncio_loop_local.aclose()
        assert await asyncio.to_thread(topic.broker.wait_for_clients, subscriber.identifier)
        assert await topic.publish("after") is not first

    with topic.subscriber() as subscriber:
        run(main(subscriber))
        assert subscriber.wait_for(2)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert subscriber.messages == ["before", "after"]


def test_closing_a_loop_by_hand_disconnects_its_client(new_loop: Callable[[], asyncio.AbstractEventLoop], topic: Topic) -> None:
    """A loop that is driven with ``run_until_complete`` keeps its client between the runs, and ``close()`` disconnects it."""
    with topic.subscriber() as subscriber:
        loop = new_loop()
        try:
            client = loop.run_until_complete(topic.publish("1"))
            assert loop.run_until_complete(topic.publish("2")) is client
        finally:
            loop.close()
        assert subscriber.wait_for(2)
        assert topic.broker.wait_for_clients(subscriber.identifier)
    assert subscriber.messages == ["1", "2"]
