"""The factories whose calls are compared, bare and wrapped: adding a factory is adding a line.

Each line: what to import, the factory, calls that are right, calls that are wrong. A call is written without the factory:
its arguments in parentheses.
"""

from __future__ import annotations

# ruff: noqa: E501  # a factory is a line
# fmt: off
from typing import NamedTuple


class Factory(NamedTuple):
    """One line of the table."""

    imports: str
    factory: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()


ACMS = (  # what `sticky_singleton_acm` wraps, and `singleton` too
    Factory("import aiohttp", "aiohttp.ClientSession", ("()", "('http://h')", "(timeout=aiohttp.ClientTimeout(1))", "(headers={'a': 'b'})"), ("(1)", "(nope=1)", "('http://h', None)")),
    Factory("import aiohttp", "aiohttp.TCPConnector", ("()", "(limit=1)"), ("(limit='1')", "(1)")),
    Factory("import aiohttp", "aiohttp.request", ("('GET', 'http://h')", "('GET', 'http://h', params={'a': 'b'})"), ("('GET')", "(1, 'http://h')", "('GET', 'http://h', nope=1)")),
    Factory("import httpx", "httpx.AsyncClient", ("()", "(base_url='http://h', timeout=3)", "(http2=True)", "(timeout=httpx.Timeout(3))"), ("('http://h')", "(nope=1)", "(http2='yes')")),
    Factory("import psycopg_pool", "psycopg_pool.AsyncConnectionPool", ("()", "('host=h')", "('host=h', min_size=1, open=False)"), ("(1)", "('host=h', nope=1)", "('host=h', min_size='1')")),
    Factory("import psycopg, psycopg_pool\nclass OwnConnection(psycopg.AsyncConnection[dict[str, int]]): ...", "psycopg_pool.AsyncConnectionPool", ("('host=h', connection_class=OwnConnection)", "('host=h', connection_class=psycopg.AsyncConnection[dict[str, int]])"), ("('host=h', connection_class=int)",)),
    Factory("import psycopg_pool", "psycopg_pool.AsyncNullConnectionPool", ("('host=h')",), ("('host=h', nope=1)",)),
    Factory("import asyncpg", "asyncpg.create_pool", ("()", "('postgres://h')", "('postgres://h', min_size=1)"), ("(1, 2)",)),
    Factory("import redis.asyncio", "redis.asyncio.Redis", ("()", "(host='h', port=1)", "(decode_responses=True)"), ("(port='x')", "(nope=1)")),
    Factory("import redis.asyncio", "redis.asyncio.Redis.from_url", ("('redis://h')", "('redis://h', decode_responses=True)"), ("()", "(1)")),
    Factory("import redis.asyncio", "redis.asyncio.from_url", ("('redis://h')",), ("()", "(1)")),
    Factory("import aiosqlite", "aiosqlite.connect", ("(':memory:')", "(':memory:', iter_chunk_size=1)", "(':memory:', cached_statements=1)"), ("()", "(1)")),
    Factory("from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine", "AsyncSession", ("()", "(create_async_engine('sqlite+aiosqlite://'))", "(expire_on_commit=False)"), ("(1)", "(sync_session_class=1)")),
    Factory("from sqlalchemy.ext.asyncio import async_sessionmaker, AsyncSession", "async_sessionmaker(expire_on_commit=False)", ("()", "(autoflush=False)"), ("(1)",)),
    Factory("import sqlalchemy.ext.asyncio as sa", "sa.create_async_engine('sqlite+aiosqlite://').connect", ("()",), ("(1)",)),
    Factory("import sqlalchemy.ext.asyncio as sa", "sa.create_async_engine('sqlite+aiosqlite://').begin", ("()",), ("(1)",)),
    Factory("import aiofiles", "aiofiles.open", ("('f')", "('f', 'r')", "('f', 'rb')", "('f', 'wb')", "('f', 'rb', 0)", "('f', 'r+b')", "(file='f', mode='w', encoding='utf-8')"), ("()", "('f', 1)", "('f', 'rb', 'x')", "('f', nope=1)", "('f', 'zzz', 0, 1)")),
    Factory("import aiofiles.tempfile", "aiofiles.tempfile.TemporaryDirectory", ("()", "(prefix='p')"), ("(prefix=1)",)),
    Factory("import aiofiles.tempfile", "aiofiles.tempfile.NamedTemporaryFile", ("()", "('w')", "('wb')", "(delete=False)"), ("(nope=1)",)),
    Factory("import mcp, mcp.client.stdio", "mcp.client.stdio.stdio_client", ("(mcp.StdioServerParameters(command='c'))",), ("()", "('c')", "(mcp.StdioServerParameters(command='c'), nope=1)")),
    Factory("import mcp, shapes", "mcp.ClientSession", ("(shapes.anything, shapes.anything)", "(shapes.anything, shapes.anything, client_info=None)"), ("(shapes.anything, shapes.anything, nope=1)", "(shapes.anything, shapes.anything, 'x')")),
    Factory("import openai", "openai.AsyncOpenAI", ("()", "(api_key='k')", "(api_key='k', max_retries=1, timeout=3.0)"), ("('k')", "(api_key=1)", "(nope=1)")),
    Factory("import websockets", "websockets.connect", ("('ws://h')", "('ws://h', open_timeout=1)", "('ws://h', max_size=None)"), ("()", "(1)", "('ws://h', open_timeout='x')")),
    Factory("import websockets.asyncio.server as ws\nasync def ws_handler(connection: ws.ServerConnection) -> None: ...", "ws.serve", ("(ws_handler, 'h', 1)",), ("('x')", "(ws_handler, 'h', 'p')")),
    Factory("import asyncssh", "asyncssh.connect", ("('h')", "('h', 22)", "('h', username='u', known_hosts=None)")),
    Factory("import pymongo", "pymongo.AsyncMongoClient", ("()", "('mongodb://h')", "('h', 27017, tz_aware=True)"), ("(1.5)", "('h', 'p')")),
    Factory("import pymongo\nclass Document(dict[str, int]): ...", "pymongo.AsyncMongoClient", ("(document_class=Document)",), ("(document_class=1)",)),
    Factory("import anyio", "anyio.create_task_group", ("()",), ("(1)",)),
    Factory("import anyio", "anyio.NamedTemporaryFile", ("()", "('w')", "('wb')"), ("(nope=1)",)),
    Factory("import asyncio", "asyncio.timeout", ("(1)", "(None)", "(1.5)"), ("()", "('1')", "(1, 2)")),
    Factory("import asyncio", "asyncio.TaskGroup", ("()",), ("(1)",)),
    Factory("import asyncio", "asyncio.Lock", ("()",), ("(1)",)),
    Factory("import asyncio", "asyncio.Semaphore", ("()", "(2)", "(value=2)"), ("('2')", "(nope=1)")),
    Factory("import contextlib", "contextlib.AsyncExitStack", ("()",), ("(1)",)),
    Factory("import contextlib, shapes", "contextlib.aclosing", ("(shapes.agen())",), ("()", "(1)")),
    Factory("import contextlib", "contextlib.nullcontext", ("()", "(1)", "('')"), ("(1, 2)",)),
    Factory("import shapes", "shapes.NoParameters", ("()",), ("(1)", "(nope=1)")),
    Factory("import shapes", "shapes.Sized", ("('h')", "('h', 1, 2, 3, timeout=1.0, a=b'')", "(host='h', port=1)"), ("()", "(1)", "('h', '1')", "('h', 1, '2')", "('h', a=1)", "('h', host='h')")),
    Factory("import shapes", "shapes.KeywordOnly", ("(name='n')", "(name='n', size=2)"), ("()", "('n')", "(name=1)", "(name='n', nope=1)")),
    Factory("import shapes", "shapes.PositionalOnly", ("('n')", "('n', 2)"), ("()", "(name='n')", "('n', size=2)", "('n', 's')")),
    Factory("import shapes", "shapes.Narrower", ("(80)", "(port=443)"), ("(81)", "('80')")),
    Factory("import shapes", "shapes.ByNew", ("('n')", "(name='n')"), ("()", "(1)")),
    Factory("import shapes", "shapes.AwaitableEnter", ("('n')",), ("()", "(1)")),
    Factory("import shapes", "shapes.OwnAwaitableEnter", ("()",), ("(1)",)),
    Factory("import shapes", "shapes.Swallows", ("()", "(ValueError)"), ("(1)", "(int)")),
    Factory("import shapes", "shapes.NoAexitParameters", ("()",), ("(1)",)),
    Factory("import shapes", "shapes.Gives", ("(1)", "('')", "([b''])"), ("()", "(value=1)")),
    Factory("import shapes", "shapes.Gives[int]", ("(1)",), ("('')",)),
    Factory("import shapes", "shapes.Pool", ("('u')", "('u', row=int)", "('u', row=lambda: [''])"), ("()", "(1)", "('u', int)", "('u', row=1)")),
    Factory("import shapes", "shapes.Closing", ("(shapes.sized)", "(shapes.Narrower(80))"), ("(1)", "()")),
    Factory("import shapes", "shapes.Settings", ("('h')", "('h', 1)", "('h', tags=['t'], retries=1)"), ("()", "('h', '1')", "('h', 1, ['t'])", "('h', nope=1)")),
    Factory("import shapes", "shapes.FrozenPair", ("(first=1, second=2)", "(first='', second='')"), ("()", "(1, 2)", "(first=1)")),
    Factory("import shapes", "shapes.simple", ("('n')", "('n', 2, flag=True)", "(name='n')"), ("()", "(1)", "('n', flag=1)", "('n', 2, True)", "('n', nope=1)")),
    Factory("import shapes", "shapes.generic", ("(1)", "('', '')", "([1], [2])"), ("()",)),
    Factory("import shapes", "shapes.constrained", ("(1)", "('')"), ("(b'')", "()")),
    Factory("import shapes", "shapes.bounded", ("(shapes.sized)",), ("(1)",)),
    Factory("import shapes", "shapes.with_options", ("(url='u')", "(url='u', timeout=1.0)"), ("()", "('u')", "(url=1)", "(url='u', timeuot=1.0)")),
    Factory("import shapes", "shapes.with_more_options", ("('n', url='u', retries=1)",), ("('n')", "('n', url='u', retries='1')", "(name='n', url='u')", "('n', url='u', nope=1)")),
    Factory("import shapes", "shapes.calls", ("(int, '1')", "(shapes.plain, 'n', flag=True)", "(shapes.plain_generic, 1)"), ("()", "(shapes.plain)", "(shapes.plain, 1)", "(shapes.plain, 'n', flag='x')")),
    Factory("import shapes", "shapes.calls_with", ("(shapes.takes_int, 'n')",), ("(shapes.takes_int)", "(shapes.takes_int, 1)", "(shapes.plain, 'n')")),
    Factory("import shapes", "shapes.nothing", ("()",), ("(1)",)),
    Factory("import shapes", "shapes.maybe", ("()", "('n')", "(None)"), ("(1)",)),
    Factory("import shapes", "shapes.returns_union", ("(True)",), ("('x')",)),
    Factory("import shapes", "shapes.returns_abstract", ("('n')",), ("(1)",)),
    Factory("import shapes", "shapes.by_kind", ("('text')", "('binary')", "('binary', size=1)", "(1)"), ("('other')", "('text', size=1)", "()")),
    Factory("import shapes", "shapes.generic_overloads", ("([1])", "({'a': b''}, b'')"), ("({'a': b''})", "(1)")),
    Factory("import shapes", "shapes.callable_object", ("('n')", "('n', size=2)"), ("()", "('n', 2)")),
    Factory("import shapes", "shapes.callable_with_overloads", ("('n')", "(b'', 1)"), ("(b'')", "(1)")),
    Factory("import shapes", "shapes.service.connect", ("('h')", "('h', port=1)"), ("()", "('h', 'p')")),
    Factory("import shapes", "shapes.Service.create", ("('h')",), ("()", "(1)")),
    Factory("import shapes", "shapes.SubService.create", ("('h')",), ("(host=1)",)),
    Factory("import shapes", "shapes.Service.static", ("(1)",), ("('x')",)),
    Factory("import shapes", "shapes.service.either", ("('')", "(1)"), ("(b'')",)),
    Factory("import shapes", "shapes.Service.connect", ("(shapes.service, 'h')",), ("('h')", "(shapes.service)")),
    Factory("import shapes", "shapes.service.session", ("(1)", "('', user='u')"), ("()", "(1, 'u')")),
    Factory("import shapes", "shapes.partial_call", ("()", "(1)", "(1, timeout=2.0)"), ("('x')", "(nope=1)")),
    Factory("import shapes", "shapes.partial_keyword", ("('n')", "('n', flag=True)"), ("()", "(1)", "('n', nope=1)")),
)

PLAIN = (  # what `singleton` alone wraps
    Factory("import shapes", "shapes.plain", ("('n')", "('n', 1, b'', flag=True, a=1.0)"), ("()", "(1)", "('n', 1, 2)", "('n', flag='x')", "('n', a='x')")),
    Factory("import shapes", "shapes.plain_generic", ("(1)", "('', [''])", "([1])"), ("()", "(1, 2)")),
    Factory("import shapes", "shapes.plain_overloads", ("(1)", "('')", "('', 1)", "('', size=1)"), ("(b'')", "(1, 1)", "()")),
    Factory("import shapes", "shapes.plain_constrained", ("(1)", "('')"), ("(b'')",)),
    Factory("import shapes", "shapes.plain_options", ("(url='u')", "(url='u', retries=1)"), ("()", "(url='u', nope=1)")),
    Factory("import shapes", "shapes.plain_calls", ("(int, '1')", "(shapes.plain, 'n', flag=True)"), ("(shapes.plain)", "(shapes.plain, 1)")),
    Factory("import shapes", "shapes.plain_narrows", ("(1)",), ("()",)),
    Factory("import shapes", "shapes.coroutine", ("('n')", "('n', size=2)"), ("()", "('n', 's')")),
    Factory("import shapes", "shapes.coroutine_generic", ("(1)", "([''])"), ("()", "(1, 2)")),
    Factory("import shapes", "shapes.coroutine_overloads", ("(1)", "('')"), ("(b'')",)),
    Factory("import shapes", "shapes.returns_awaitable", ("('n')",), ("(1)",)),
    Factory("import shapes", "shapes.Row", ("('n')", "('n', 1)", "(name='n')"), ("()", "(1)")),
    Factory("import shapes", "shapes.partial_plain", ("()", "(1)"), ("('x')",)),
    Factory("import sqlalchemy.ext.asyncio", "sqlalchemy.ext.asyncio.create_async_engine", ("('sqlite+aiosqlite://')", "('sqlite+aiosqlite://', echo=True)"), ("(1)", "()")),
    Factory("import sqlalchemy", "sqlalchemy.create_engine", ("('sqlite://')", "('sqlite://', echo=True)"), ("(1)", "()")),
    Factory("import asyncio", "asyncio.Queue[int]", ("()", "(1)"), ("('x')",)),
    Factory("import asyncio", "asyncio.Event", ("()",), ("(1)",)),
    Factory("import asyncio", "asyncio.open_connection", ("('h', 1)", "(host='h', port=1, limit=2)"), ("('h', 1, 'x')", "(1.5)")),
    Factory("import asyncio", "asyncio.create_subprocess_exec", ("('p', 'a')",), ("()", "(1)")),
    Factory("import itertools", "itertools.chain", ("([1])", "([''], [''])"), ("(1)",)),
    Factory("import pathlib", "pathlib.Path", ("()", "('p')", "('p', 'q')"), ("(1)",)),
    Factory("import datetime", "datetime.timedelta", ("()", "(1)", "(seconds=1)"), ("('x')", "(nope=1)")),
    Factory("", "dict[str, int]", ("()", "({'a': 1})", "(a=1)"), ("(1)",)),
    Factory("", "int", ("()", "('1')", "('1', 16)"), ("([])", "(1, 2)")),
    Factory("", "open", ("('f')", "('f', 'rb')", "('f', 'rb', 0)"), ("()", "('f', 1)")),
)
