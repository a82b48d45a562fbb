"""`lifespan` is what frameworks take, as it is, and a plain asynchronous context manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, assert_type

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from starlette.applications import Starlette
from starlette.routing import Router

from asyncio_loop_local import lifespan, sticky_singleton_acm

pytestmark = pytest.mark.asyncio


@sticky_singleton_acm
@asynccontextmanager
async def connect() -> AsyncGenerator[list[str]]:
    log = ["opened"]
    yield log
    log.append("closed")


async def test_asgi_frameworks_take_it() -> None:
    """FastAPI, Starlette and their routers take the function itself, Litestar a list of such."""
    for app in (FastAPI(lifespan=lifespan), Starlette(lifespan=lifespan)):
        async with app.router.lifespan_context(app):
            log = await connect()
            assert log == ["opened"]
        assert log == ["opened", "closed"]
    assert_type(Litestar(lifespan=[lifespan]), Litestar)
    assert_type(APIRouter(lifespan=lifespan), APIRouter)
    assert_type(Router(lifespan=lifespan), Router)


async def test_servers_of_mcp_take_it() -> None:
    """So do both servers of MCP, whose requests then have None for the lifespan's value."""
    high = MCPServer("high", lifespan=lifespan)
    low = Server("low", lifespan=lifespan)
    assert_type(high, MCPServer[None])
    assert_type(low, Server[None])
    async with low.lifespan(low) as value:
        assert_type(value, None)
        assert value is None


async def test_it_is_an_asynchronous_context_manager() -> None:
    """Without an application too; its value is None, and it lets every exception pass."""
    block: AbstractAsyncContextManager[None] = lifespan()
    async with block as value:
        assert_type(value, None)
    async with lifespan("an application"):
        assert value is None


async def test_what_is_no_lifespan_is_refused() -> None:
    """A framework needs the function, not what a call of it gives; and it takes nothing by name."""
    called: Any = FastAPI(lifespan=lifespan())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        async with called.router.lifespan_context(called):
            raise AssertionError
    with pytest.raises(TypeError):
        lifespan(app=called)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
