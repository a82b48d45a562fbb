"""A small MCP server for the suite: it says its process id, adds up (for docs/how-to/mcp.md), and repeats what it hears.

On standard input and output; or, given a port, on HTTP on 127.0.0.1: 0 is a free one, and the port that it got is what it prints.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from mcp.server import MCPServer

server = MCPServer("small", log_level="CRITICAL")
speaks_http = len(sys.argv) > 1


@server.tool()
def process_id() -> str:
    """Tell the id of the process that serves."""
    return str(os.getpid())


@server.tool()
def add(first: int, second: int) -> str:
    """Add two numbers."""
    return str(first + second)


@server.tool()
async def echo(what: str) -> str:
    """Say it again."""
    if speaks_http:
        print(f"echo {what}", flush=True)
    return what


@server.tool()
async def never() -> str:
    """Never answer."""
    if speaks_http:
        print("never begun", flush=True)
    await asyncio.Event().wait()
    raise AssertionError


def serve_http(port: int) -> None:
    import uvicorn

    with socket.create_server(("127.0.0.1", port)) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(server.streamable_http_app(), log_level="critical", timeout_graceful_shutdown=0)
        asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    if speaks_http:
        serve_http(int(sys.argv[1]))
    else:
        server.run()
