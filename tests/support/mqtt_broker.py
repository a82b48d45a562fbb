"""An MQTT broker as a program: amqtt's, on a port of 127.0.0.1, which answers each line of its input with its figures."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from amqtt.broker import Broker  # type: ignore[import-untyped]  # amqtt has no types
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler  # type: ignore[import-untyped]  # amqtt has no types

_handle_disconnect: Any = BrokerProtocolHandler.handle_disconnect


async def handle_disconnect(self: Any, disconnect: Any) -> None:
    """Heeds the end of a client only when all that it has published has been passed on.

    Left alone, amqtt 0.12 forgets at a client's end what it has acknowledged and not passed on yet, against MQTT's QoS 1.
    """
    turns = 0
    while self.session is not None and turns < 10:  # the last one needs some to get from the queue to the broker
        turns = turns + 1 if self.session.delivered_message_queue.empty() else 0
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass  # its callers know of nothing in here that waits, and would never end
    await _handle_disconnect(self, disconnect)


setattr(BrokerProtocolHandler, "handle_disconnect", handle_disconnect)


async def main(port: int) -> None:
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    print(port, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        sessions = [session for session, _ in broker.sessions.values()]
        figures = {
            "clients": [session.client_id for session in sessions if session.transitions.state == "connected"],
            "open": broker._servers["default"].conn_count,
        }
        print("figures:", json.dumps(figures), flush=True)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
