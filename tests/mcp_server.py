"""A small MCP server on standard input and output, for the suite: it tells its process id, and adds up."""

from __future__ import annotations

import os

from mcp.server import MCPServer

server = MCPServer("small")


@server.tool()
def process_id() -> str:
    """Tell the id of the process that serves."""
    return str(os.getpid())


@server.tool()
def add(first: int, second: int) -> str:
    """Add two numbers."""
    return str(first + second)


if __name__ == "__main__":
    server.run()
