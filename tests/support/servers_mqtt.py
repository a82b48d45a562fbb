"""A real MQTT broker for the suite, and a subscriber to it in a thread of its own."""

from __future__ import annotations

import json
import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from servers import LONGEST_WAIT, SuiteServer


class MqttBroker(SuiteServer):
    """An MQTT broker that says who is connected."""

    def __init__(self) -> None:
        super().__init__("mqtt_broker.py")

    def clients(self) -> list[str]:
        """The identifiers of the clients that are connected, sorted; and an empty one for each connection of no client."""
        figures = json.loads(self.ask("figures", "figures: ").removeprefix("figures: "))
        clients: list[str] = figures["clients"]
        return sorted([*clients, *[""] * (int(figures["open"]) - len(clients))])


class Subscriber:
    """Gets all messages of a topic and of those below it, in a thread of its own."""

    def __init__(self, port: int, topic: str) -> None:
        self.identifier = f"{topic}-subscriber"
        self.messages: list[str] = []
        self._port = port
        self._topic = topic
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, self.identifier)
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe

    def __enter__(self) -> Subscriber:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        self._client.subscribe(f"{self._topic}/#", qos=1)
        assert self._subscribed.wait(LONGEST_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed.set()

    def _on_message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        self.messages.append(message.payload.decode())
