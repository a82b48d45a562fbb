"""A small gRPC server for the suite, in a process of its own: it says on standard output what happens to it, a line each.

Its one argument is the port, or 0 for a free one; the first line is the port that it got. It ends with its input, if not before.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


def say(what: str) -> None:
    print(what, flush=True)


async def echo(request: bytes, context: Context) -> bytes:
    say(f"echo {request.decode()}")
    return request


async def count(request: bytes, context: Context) -> AsyncIterator[bytes]:
    """As many answers as are asked for."""
    for number in range(int(request)):
        yield str(number).encode()


async def add(requests: AsyncIterator[bytes], context: Context) -> bytes:
    return str(sum([int(request) async for request in requests])).encode()


async def talk(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    """An answer to each request, for as long as somebody talks."""
    async for request in requests:
        yield request.upper()
    say("talk ended")


async def never(request: bytes, context: Context) -> bytes:
    await wait_for_ever("never")
    return b""


async def endless(request: bytes, context: Context) -> AsyncIterator[bytes]:
    """One answer, and never the next."""
    yield b"one"
    await wait_for_ever("endless")


async def wait_for_ever(name: str) -> None:
    say(f"{name} begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say(f"{name} cancelled")
        raise


async def main(port: int) -> None:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Add": grpc.stream_unary_rpc_method_handler(add),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Never": grpc.unary_unary_rpc_method_handler(never),
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Small", handlers),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    say(str(port))
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
