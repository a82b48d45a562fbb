"""Every text that the library shows is short, never fails, and has its secrets masked."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import string
import traceback
import warnings
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import httpx
import pydantic
import pytest
import yarl
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mcp import StdioServerParameters
from werkzeug.datastructures import MultiDict

from asyncio_loop_local import (
    LockingDict,
    LoopVar,
    aclose,
    atexit,
    format_resources,
    release,
    resources,
    singleton,
    sticky_acm,
    sticky_singleton_acm,
)
from asyncio_loop_local._names import call_name
from asyncio_loop_local._secrets import mask_secrets, safe_repr
from recording import on_one_loop

generated = settings(deadline=None, derandomize=True, max_examples=50)
SECRET = "hunterGoZzYwMnQpLrStV"


def connect(host: str = "h", *more: object, **options: object) -> nullcontext[None]:
    return nullcontext()


@dataclass
class Settings:
    password: object
    host: str = "h"


@attrs.define
class Attrs:
    api_key: object
    host: str = "h"


@attrs.define
class Value:
    value: object


class Model(pydantic.BaseModel):
    client_secret: object
    host: str = "h"


class Said:
    """Has the repr that it was given."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Hidden(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"Hidden({len(self)} characters)"


class Color(StrEnum):
    RED = "red"


class BrokenRepr:
    def __repr__(self) -> str:
        raise ZeroDivisionError


# What is not secret.


NOT_SECRET: list[tuple[object, str]] = [
    ("http://127.0.0.1:8080/@user/x?page=2", "'http://127.0.0.1:8080/@user/x?page=2'"),
    ("http://token-service:8080/", "'http://token-service:8080/'"),
    ("postgresql://reader@db/app", "'postgresql://reader@db/app'"),
    ("ssh://git@github.com/a/b", "'ssh://git@github.com/a/b'"),
    ("12:30:00", "'12:30:00'"),
    ("me@example.org", "'me@example.org'"),
    ("the basic idea", "'the basic idea'"),
    ("host=db port=5432 dbname=app", "'host=db port=5432 dbname=app'"),
    (["token-a", "b"], "['token-a', 'b']"),
    ({"max_tokens": 100, "tokenizer": "cl100k"}, "{'max_tokens': 100, 'tokenizer': 'cl100k'}"),
    ({"password": None, "auth": False, "token": ""}, "{'password': None, 'auth': False, 'token': ''}"),
    (
        {"author": "me", "compass": "n", "monkey": "m", "passage": 3},
        "{'author': 'me', 'compass': 'n', 'monkey': 'm', 'passage': 3}",
    ),
    ({"cache_key": "users", "key": "k", "primary_key": "id"}, "{'cache_key': 'users', 'key': 'k', 'primary_key': 'id'}"),
    ({"token_url": "https://h/t", "password_file": "/run/p"}, "{'token_url': 'https://h/t', 'password_file': '/run/p'}"),
    (Said("Options(max_tokens=100, host='h')"), "Options(max_tokens=100, host='h')"),
    (Said("Options(password=None, host='h')"), "Options(password=None, host='h')"),
    (httpx.Timeout(3), "Timeout(timeout=3)"),
    ("token-service:8080", "'token-service:8080'"),
    ("auth:8080/x", "'auth:8080/x'"),
    (["serve", "--port", "80", "--token-file", "/run/t"], "['serve', '--port', '80', '--token-file', '/run/t']"),
    ([["host", "db"], ["port", "80"]], "[['host', 'db'], ['port', '80']]"),
    ("serve --port 80 --max-tokens 100", "'serve --port 80 --max-tokens 100'"),
    ("postgresql://db1:5432,db2:5432/app", "'postgresql://db1:5432,db2:5432/app'"),
    ("npm_config_registry_of_all hf_transformers_cache_folder", "'npm_config_registry_of_all hf_transformers_cache_folder'"),
    ("at 12:30 to me@example.org", "'at 12:30 to me@example.org'"),
    (Hidden("hunter2"), "Hidden(7 characters)"),
    (Color.RED, "<Color.RED: 'red'>"),
    ([Hidden("a"), {Color.RED: Hidden("b")}], "[Hidden(1 characters), {<Color.RED: 'red'>: Hidden(1 characters)}]"),
    ((1, (2,), [], (), {}, set(), frozenset({1})), "(1, (2,), [], (), {}, set(), frozenset({1}))"),
]


@pytest.mark.parametrize(("value", "text"), NOT_SECRET, ids=[text for _, text in NOT_SECRET])
def test_what_is_not_secret_is_shown(value: object, text: str) -> None:
    """Hosts, ports, users, limits, paths, empty values and an object's own repr are shown unchanged, also of a `str` subclass."""
    assert safe_repr(value) == text


# What is.

NAMES = """
    password passwd db_password PGPASSWORD dbPassword pwd PWD passphrase passcode smtp_pass pw token access_token accessToken
    token_secret X-Auth-Token csrf-token tokens id_token secret client_secret clientSecret secret_key SECRET_KEY
    aws_secret_access_key secrets otp pin api_key apikey apiKey API_KEY APIKey X-Api-Key access_key AccountKey
    SharedAccessKey ssh_key private_key signing_key encryption_key master_key session_key license_key
    Ocp-Apim-Subscription-Key auth basic_auth proxy_auth Authorization proxy-authorization authorization_header bearer cookie
    Set-Cookie cookies credentials creds jwt session_id signature sas supabase_key hmac_key FERNET_KEY mnemonic nkeys_seed
    nkeys_seed_str api_hash
"""


TOKENS = """
    github_pat_ glpat- sk-proj- xoxb- xapp-1- sk_live_ rk_test_ hf_ gsk_ npm_ whsec_ sb_secret_ dop_v1_ pypi-AgEI AIza ya29. SG.
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_a_value_with_the_name_of_a_secret_is_masked(name: str) -> None:
    """A secret is masked where its keyword, parameter, key, header or attribute has the name of one."""
    values: list[object] = [
        *({name: SECRET}, {"more": {name: {"a": [SECRET]}}}, OrderedDict([(name, SECRET)])),
        *([(name, SECRET)], [(name.encode(), SECRET.encode())]),
        *(
            Said(f"Client({name}={SECRET!r}, port=80)"),
            Said(f"Client({name}={SECRET}, port=80)"),
            Said(f"<Client {name}: {SECRET}>"),
        ),
        *(json.dumps({name: SECRET}), f"{name}: {SECRET}", f"{name}={SECRET}"),
    ]
    places = [call_name(connect, (), ("h",), {"options": value}) for value in values]
    places += [call_name(connect, ("host", name), ("h", SECRET), {})]
    places += [call_name(connect, (), (), {"host": "h", name: value}) for value in (SECRET, [SECRET, {"a": SECRET}])]
    for place in places:
        assert SECRET not in place
        assert "***" in place
        assert "'h'" in place


LEAKS: dict[str, Callable[[str], object]] = {
    "url": lambda s: f"postgresql://app:{s}@db.example.org/app",
    "url with a query": lambda s: f"postgresql://app:{s}@db.example.org/app?mail=a@b",
    "url without user": lambda s: f"redis://:{s}@db.example.org:6379/0",
    "url with a token as user": lambda s: f"https://{s}@db.example.org/x",
    "url with a token as user and password": lambda s: f"https://{s}:x-oauth-basic@db.example.org/x",
    "url in a list": lambda s: [f"amqp://app:{s}@db.example.org"],
    "urls in a text": lambda s: f"amqp://app:{s}@db.example.org, amqp://app:{s}@db2",
    "yarl url": lambda s: yarl.URL(f"http://app:{quote(s, safe='')}@db.example.org"),
    "httpx url": lambda s: httpx.URL(f"http://app:{quote(s, safe='')}@db.example.org"),
    "url with a slash in the password": lambda s: f"postgresql://app:{s[:6]}/{s[6:]}@db.example.org",
    "url with an @ in the password": lambda s: f"postgresql://app:{s[:6]}@{s[6:]}@db.example.org",
    "url with an @ and a slash in the password": lambda s: f"postgresql://app:{s[:6]}@/{s[6:]}@db.example.org",
    "url with a quote in the password": lambda s: f"postgresql://app:{s[:6]}'{s[6:]}@db.example.org",
    "url with a hash in the password": lambda s: f"postgresql://app:{s[:6]}#{s[6:]}@db.example.org",
    "query": lambda s: f"https://db.example.org/?a=1&access_token={s}&b=2",
    "query key": lambda s: f"https://db.example.org/?key={s}&b=2",
    "signed url": lambda s: f"https://db.example.org/x?X-Amz-Signature={s}&sig={s}",
    "login without scheme": lambda s: f"app:{s}@db.example.org/x",
    "dsn": lambda s: f"host=db.example.org password={s} user=app",
    "dsn with quotes": lambda s: f"host=db.example.org password='{s} {s}' user=app",
    "dsn with both quotes": lambda s: f"host=\"db.example.org\" password='{s} {s}' user=app",
    "dsn with spaces around": lambda s: f"host = db.example.org password = {s}",
    "dsn with punctuation": lambda s: f"host=db.example.org password={s[:6]}&{s[6:]} user=app",
    "dsn with a comma": lambda s: f"host=db.example.org password={s[:6]},{s[6:]} user=app",
    "dsn with a bracket": lambda s: f"host=db.example.org password={s[:6]}){s[6:]} user=app",
    "dsn with a quote": lambda s: f"host=db.example.org password={s[:6]}'{s[6:]} user=app",
    "odbc": lambda s: f"Server=db.example.org;Uid=app;Pwd={s};Encrypt=yes",
    "odbc with braces": lambda s: f"Server=db.example.org;Pwd={{{s[:6]};{s[6:]}}};Encrypt=yes",
    "azure": lambda s: f"Endpoint=sb://db.example.org/;SharedAccessKey={s}=",
    "bearer header": lambda s: {"Authorization": f"Bearer {s}", "host": "db.example.org"},
    "bearer in a text": lambda s: f"db.example.org: Bearer {s}",
    "basic in a text": lambda s: f"db.example.org: Basic A1{s}==",
    "header lines": lambda s: f"Host: db.example.org\r\nAuthorization: Token {s}\r\nAccept: */*",
    "cookie line": lambda s: f"Host: db.example.org\nCookie: a={s}; b={s}",
    "header bytes": lambda s: b"Host: db.example.org\r\nAuthorization: Token " + s.encode() + b"\r\n",
    "header pairs": lambda s: [("host", "db.example.org"), (b"authorization", b"Digest " + s.encode())],
    "aiohttp auth": lambda s: ("db.example.org", {"auth": ("app", s)}),
    "json": lambda s: json.dumps({"host": "db.example.org", "password": f'{s[:6]}"{s[6:]}'}),
    "json of json": lambda s: json.dumps({"host": "db.example.org", "x": json.dumps({"password": f"{s[:6]}'{s[6:]}"})}),
    "json in bytes": lambda s: json.dumps({"host": "db.example.org", "password": s}).encode(),
    "dataclass": lambda s: Settings(s, "db.example.org"),
    "dataclass with a list": lambda s: Settings([s, {"a": (s, s)}], "db.example.org"),
    "dataclass with a dataclass": lambda s: Settings(Settings(s), "db.example.org"),
    "dataclass with bytes": lambda s: Settings(bytearray(s.encode()), "db.example.org"),
    "dataclass with quotes": lambda s: Settings(f"{s[:6]}'\"{s[6:]}", "db.example.org"),
    "dataclass with brackets": lambda s: Settings([f"{s[:6]}]){s[6:]}"], "db.example.org"),
    "attrs": lambda s: Attrs(s, "db.example.org"),
    "pydantic": lambda s: Model(client_secret=s, host="db.example.org"),
    "pydantic with a dict": lambda s: Model(client_secret={"a": s}, host="db.example.org"),
    "object in a repr": lambda s: Said(f"<Client host='db.example.org' token=<Token {s}>>"),
    "call in a repr": lambda s: Said(f"Client(host='db.example.org', token=Token({s!r}, 3))"),
    "pair in a repr": lambda s: Said(f"Headers([('host', 'db.example.org'), ('x-api-key', '{s}')])"),
    "url in a repr": lambda s: Said(f"<Pool db.example.org 'mysql://app:{s}@db'>"),
    "deep": lambda s: [[[[[[{"host": "db.example.org", "password": [s]}]]]]]],
    "known token": lambda s: f"db.example.org ghp_{s}{s}",
    "known tokens": lambda s: [f"db.example.org {start}{s}{s}7" for start in TOKENS.split()],
    "url that was split": lambda s: urlsplit(f"redis://:{s}@db.example.org"),
    "private key": lambda s: f"db.example.org -----BEGIN RSA PRIVATE KEY-----\n{s}\n{s}\n-----END RSA PRIVATE KEY-----",
    "private key cut short": lambda s: f"db.example.org -----BEGIN PRIVATE KEY-----\n{s}\n{s}",
    "url with quotes and brackets": lambda s: f"postgresql://app:{s}'),{s}@db.example.org/app",
    "long url": lambda s: f"postgresql://app:{s * 200}@db.example.org/app",
    "long login": lambda s: f"app:{s * 20}@db.example.org",
    "git url with a token as user": lambda s: f"git+https://{s}@db.example.org/x",
    "authorization header with quotes": lambda s: f'Host: db.example.org\nAuthorization: Token token="{s}", user="{s}"',
    "header pairs as lists": lambda s: [["host", "db.example.org"], ["authorization", f"T {s}"], [b"x-api-key", s.encode()]],
    "header without a space": lambda s: f"Host:db.example.org\nX-Api-Key:{s}",
    "aligned dsn": lambda s: f"host         = db.example.org\npassword     = {s}\n",
    "yaml without a space": lambda s: f"host:db.example.org\npassword:{s}\n",
    "json without spaces": lambda s: json.dumps({"host": "db.example.org", "password": s}, separators=(",", ":")),
    "dataclass in containers": lambda s: {"all": [{"it": (Settings([s], "db.example.org"),)}]},
    "attrs of a dict": lambda s: Value({"host": "db.example.org", "client_secret": s}),
    "many values a key": lambda s: MultiDict([("host", "db.example.org"), ("password", s), ("password", s)]),
    "command line": lambda s: ["serve", "--host", "db.example.org", "--api-key", s, "--port", "80"],
    "command line as text": lambda s: f"serve --host db.example.org --password {s} --port 80",
    "mcp server": lambda s: StdioServerParameters(command="db.example.org", args=["--token", s], env={"API_KEY": s}),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=list(LEAKS))
@generated
@given(secret=st.text(string.ascii_letters + string.digits, min_size=12, max_size=20))
def test_no_part_of_a_secret_is_shown(leak: Callable[[str], object], secret: str) -> None:
    """No part of a password or token is shown, whatever text, URL or object contains it; the host beside it is."""
    value = leak(secret)
    around = f"connect(host=, options={{'it': {leak('#' * 12)!r}}})"
    pieces = [secret[at : at + 4] for at in range(len(secret) - 3)]
    assume(not any(piece in around for piece in pieces))
    for text in (
        safe_repr(value),
        call_name(connect, ("host",), (value,), {}),
        call_name(connect, (), (), {"options": {"it": value}}),
    ):
        assert not [piece for piece in pieces if piece in text]
        assert "***" in text
        assert "db.example.org" in text


@generated
@given(st.text(min_size=8).filter(lambda secret: repr(secret)[1:-1] not in "connect(host='h', ***" * 3))
def test_a_secret_of_any_characters_is_masked_where_its_name_is_known(secret: str) -> None:
    """Quotes, brackets, separators and line ends in a password do not let a part of it out."""
    assert call_name(connect, (), ("h",), {"password": secret}) == "connect('h', password=***)"
    assert call_name(connect, (), ("h", {"password": secret}), {}) == "connect('h', {'password': ***})"
    assert call_name(connect, (), ("h", [("password", secret)]), {}) == "connect('h', [('password', ***)])"
    assert safe_repr(Settings(secret)) == "Settings(password=***, host='h')"
    assert safe_repr(Settings([secret, {"a": secret}])) == "Settings(password=***, host='h')"


# Always short, and never an error.


@generated
@given(st.recursive(st.text() | st.binary() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_anything_can_be_shown(value: object) -> None:
    """A repr or name is a short text, whatever the values."""
    assert 0 < len(safe_repr(value)) <= 200
    assert len(call_name(connect, (), (value, value), {"a": value})) <= 200


class Changing:
    hashed = 1

    def __hash__(self) -> int:
        return self.hashed


@pytest.mark.timeout(20)
def test_values_that_cannot_be_shown_break_nothing() -> None:
    """A repr that fails is replaced by the class, inside containers too; a list may contain itself, a key change its hash."""
    broken = BrokenRepr()
    assert safe_repr(broken) == "<BrokenRepr object>"
    shown = "connect([<BrokenRepr object>], 1, options={'a': <BrokenRepr object>})"
    assert call_name(connect, (), ([broken], 1), {"options": {"a": broken}}) == shown
    inner: list[object] = []
    inner.append({"a": inner})
    assert "..." in safe_repr(inner)
    twice: list[object] = []
    twice.extend([twice, twice])
    assert "..." in safe_repr(twice)
    key = Changing()
    changed = {key: "value"}
    key.hashed = 2
    assert safe_repr(changed).endswith(": 'value'}")


def test_a_repr_may_change_the_container_that_it_is_in() -> None:
    """Items that come or go while their container is shown are no error."""

    class Emptying:
        def __repr__(self) -> str:
            for container in (items, numbers, names):
                container.clear()
            return "item"

    items, numbers, names = list[object](), set[object](), dict[object, object]()
    for container in (items, numbers, names):
        items[:] = [Emptying(), 2]
        numbers.update((Emptying(), 2))
        names.update({"a": Emptying(), "b": 2})
        assert "item" in safe_repr(container)


def test_a_long_value_is_shortened() -> None:
    """A long name keeps its beginning and its end."""
    text = call_name(connect, (), ("h" * 500,), {"port": 80})
    assert len(text) <= 200
    assert text.startswith("connect('hhh")
    assert "..." in text
    assert text.endswith("port=80)")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["a", "token", "a://", "a:", "a=", "'", "\\'", "password=", "password='", "://a:", "(", "x y ", "token: "]
)
def test_a_very_long_value_is_named_at_once(piece: str) -> None:
    """A text of a million characters is named without delay."""
    text = piece * (1_000_000 // len(piece))
    for value in (text, text.encode(), Said(text), [text], Settings(text)):
        assert len(call_name(connect, (), (value,), {})) <= 200
    assert len(mask_secrets(text[:10_000])) <= 20_000


def test_only_the_first_items_of_a_large_container_are_looked_at() -> None:
    """Naming a call with a container of a hundred thousand items does not ask each for its repr."""
    shown: list[int] = []

    class Item:
        def __repr__(self) -> str:
            shown.append(1)
            return "item"

    for container in ([Item()] * 100_000, (Item(),) * 100_000, dict.fromkeys(range(100_000), Item())):
        text = call_name(connect, (), (container,), {"port": 80})
        assert "item, " in text or "0: item" in text
        assert text.endswith("port=80)")
    assert len(shown) < 1_000


# Secrets in everything that the library says.


@dataclass
class Heard:
    """All names, logs, errors, warnings, reprs and reports to the loop's exception handler."""

    said: list[str] = field(default_factory=lambda: list[str]())

    def note(self, *things: object) -> None:
        for thing in things:
            self.said += [str(thing), repr(thing)]
            if isinstance(thing, BaseException):
                self.said += traceback.format_exception(thing)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.note(context)
        for thing in context.values():
            self.note(thing)
        loop.default_exception_handler(context)

    def look(self) -> None:
        self.note(format_resources(), *resources())
        for each in resources():
            self.note(each.name, each.uses, each.tasks)


async def every_occasion_to_speak(heard: Heard, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(heard.handle)
    loop.set_debug(True)
    loop.slow_callback_duration = 0  # so that asyncio logs the repr of everything it runs

    def sticky(function: Any) -> Callable[..., Any]:
        @asynccontextmanager
        async def call(
            host: object = None, password: object = None, *tokens: object, options: object = None, **credentials: object
        ) -> AsyncGenerator[object]:
            async for value in function():
                yield value

        call.__qualname__ = function.__qualname__
        return sticky_singleton_acm(call)

    async def raises_in(what: Coroutine[Any, Any, Any] | asyncio.Task[Any], kind: type[BaseException]) -> None:
        with pytest.raises(kind) as caught:
            await what
        heard.note(caught.value)

    async def enter_it(make: Callable[..., Any]) -> Any:
        async with make(*args, **kwargs) as value:
            heard.look()
            return value

    async def base() -> AsyncGenerator[object]:
        yield object()

    async def user() -> AsyncGenerator[object]:
        await enter_it(get_base)
        await raises_in(release(get_user, *args, **kwargs), RuntimeError)  # it would wait for itself
        await raises_in(aclose(), RuntimeError)
        yield object()

    async def one() -> AsyncGenerator[object]:
        await enter_it(get_other)
        yield None

    async def other() -> AsyncGenerator[object]:
        await enter_it(get_one)
        yield None

    async def dying() -> AsyncGenerator[object]:
        yield asyncio.current_task()
        raise ZeroDivisionError

    async def failing() -> AsyncGenerator[object]:
        yield None
        asyncio.create_task(fail())
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def cancelling() -> AsyncGenerator[object]:
        yield None
        raise asyncio.CancelledError

    async def slow() -> AsyncGenerator[object]:
        entering.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.look()
            raise ZeroDivisionError from None
        yield None

    async def fail() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    entering = asyncio.Event()
    get_base, get_user, get_one, get_other = sticky(base), sticky(user), sticky(one), sticky(other)
    await enter_it(get_user)
    await raises_in(release(get_base, *args, **kwargs), RuntimeError)  # it is in use
    await raises_in(enter_it(get_one), RuntimeError)  # they need each other
    await raises_in(release(functools.partial(get_base, **{"password": "x", **kwargs})), TypeError)
    heard.note(get_base(*args, **kwargs), sticky_acm(get_base(*args, **kwargs)))

    task: asyncio.Task[Any] = await enter_it(sticky(dying))
    task.cancel()
    await asyncio.wait([task])
    waiting = asyncio.create_task(enter_it(sticky(slow)))
    await entering.wait()
    heard.look()
    waiting.cancel()
    await raises_in(waiting, asyncio.CancelledError)

    async def compute(
        host: object = None, password: object = None, *tokens: object, options: object = None, **credentials: object
    ) -> None:
        raise ZeroDivisionError

    shared = singleton(compute)(*args, **kwargs)
    heard.note(shared)
    await raises_in(shared, ZeroDivisionError)

    def call_back(
        host: object = None, password: object = None, *tokens: object, options: object = None, **credentials: object
    ) -> None:
        heard.look()
        raise ZeroDivisionError

    for end in (aclose, None):  # the second time, at the end of the loop
        atexit.register(call_back, *args, **kwargs)
        await enter_it(sticky(failing))
        await enter_it(sticky(cancelling))
        await enter_it(sticky(base))
        with pytest.raises(TypeError) as refused:
            _ = singleton(compute)(*args, **{**kwargs, "other": memoryview(bytearray(b"x"))})
        heard.note(refused.value)
        if end is not None:
            await raises_in(end(), ExceptionGroup)


class Listening(logging.Handler):
    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.said.append(self.format(record))


def all_that_is_said(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    heard = Heard()
    handler, root = Listening(heard), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        asyncio.run(every_occasion_to_speak(heard, args, kwargs))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return "\n".join(heard.said)


OCCASIONS = [
    *("needs the next one first", "in use by", "called from inside", "died while it was held", "the exit of", "nobody waited"),
    *("though nobody had cancelled it", "entering", "a task left behind", "must be what"),
    *("is unhashable and cannot be compared", "raised by the exit of", "atexit callback", "exited", "Executing"),
]


def test_every_kind_of_message_is_listened_to() -> None:
    """The scenario below provokes each kind of error, report and log line; without a secret, calls are shown in full."""
    said = all_that_is_said(("localhost",), {"options": {"port": 80}})
    assert not [each for each in OCCASIONS if each not in said]
    assert said.count("base('localhost', options={'port': 80})") > 5


Given = tuple[tuple[Any, ...], dict[str, Any]]
CALLS: dict[str, Given] = {
    "password, by position": (("host", SECRET), {}),
    "password, by name": ((), {"password": SECRET}),
    "password, in a list": ((), {"password": [SECRET, {"x": SECRET}]}),
    "more tokens, by position": (("host", None, SECRET, SECRET), {}),
    "credentials, by name": (("host",), {"user": SECRET}),
}
CALLS.update({name: ((), {"options": leak(SECRET)}) for name, leak in LEAKS.items()})


@pytest.mark.parametrize("written", CALLS.values(), ids=list(CALLS))
def test_no_message_contains_a_secret(written: Given) -> None:
    """A password is in no name, log line, error, note, exception group, report or repr, however it was passed."""
    said = all_that_is_said(*written)
    assert "***" in said
    assert not [piece for piece in (SECRET[:6], SECRET[-6:]) if piece in said]


def test_no_secret_is_in_a_warning() -> None:
    """The warnings of a dropped loop, and of a factory with thousands of keys, contain no password."""

    @asynccontextmanager
    async def pool(url: str, password: object, *tokens: object, number: int = 0) -> AsyncGenerator[None]:
        yield

    get_one = sticky_singleton_acm(pool)

    async def main() -> None:
        async with get_one(f"postgresql://app:{SECRET}@db", SECRET, SECRET):
            pass
        many = singleton(nullcontext[object])
        for number in range(2_002):
            many((f"https://{SECRET}@db", {"token": SECRET, "number": number}))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        del loop
        gc.collect()
    ours = [str(each.message) for each in caught if "pool(" in str(each.message) or "different keys" in str(each.message)]
    assert len(ours) == 2
    assert not [each for each in caught if SECRET[:6] in str(each.message)]


def test_variables_and_locking_dicts_show_no_secret() -> None:
    """The repr of a variable and of a locked dict, and the errors that contain it, show no password."""
    said: list[str] = []
    variables: list[LoopVar[Any]] = [
        LoopVar("api_token", default=SECRET),
        LoopVar("dsn", default=f"postgresql://app:{SECRET}@db"),
        LoopVar("options", default={"password": SECRET}),
        LoopVar("client", factory=functools.partial(dict[str, str], user=SECRET)),
    ]
    locking = LockingDict[str, Any](host="db", password=SECRET, url=f"postgresql://app:{SECRET}@db")

    async def main() -> None:
        for var in variables:
            token = var.set(1)
            var.reset(token)
            for wrong in (var, LoopVar[Any]("other")):
                with pytest.raises((RuntimeError, ValueError)) as caught:
                    wrong.reset(token)
                said.extend([str(caught.value), repr(var), repr(token)])

    async def wait_for_it() -> None:
        waiting = [asyncio.create_task(locking.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        try:
            await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
        finally:
            for task in waiting:
                task.cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            said.extend(map(repr, results))

    asyncio.run(main())
    said.append(repr(locking))
    asyncio.run(wait_for_it())
    asyncio.run(wait_for_it())
    text = "\n".join(said)
    assert "is bound to a different event loop" in text
    assert "'host': 'db'" in text
    assert "postgresql://app:***@db" in text
    assert not [piece for piece in (SECRET[:6], SECRET[-6:]) if piece in text]


@on_one_loop
async def test_an_error_of_release_shows_no_secret() -> None:
    """`release` of anything but a wrapped factory says what it got, without the password in it."""
    make = sticky_singleton_acm(nullcontext[object])
    wrong: list[Any] = [functools.partial(make, SECRET), f"postgresql://app:{SECRET}@db", Settings(SECRET), {"token": SECRET}]

    for each in wrong:
        with pytest.raises(TypeError, match=r"argument 'factory' of release\(\) must be") as caught:
            await release(each)
        assert SECRET not in str(caught.value)
        assert ("***" in str(caught.value)) != ("partial" in str(caught.value))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("(password=abc) rest", "(password=***) rest"),
        ("(password=abc)x rest", "(password=*** rest"),
        ("(password=abc)_x rest", "(password=*** rest"),
        ("{password=abc}", "{password=***}"),
        ("'password=abc' rest", "'password=***' rest"),
        ("password=a'_b rest", "password=*** rest"),
    ],
)
def test_a_value_ends_at_a_bracket_or_quote_that_no_word_follows(text: str, masked: str) -> None:
    """A bracket or quote in the middle of a password does not end it, so nothing of it is shown; one at its end stays."""
    assert mask_secrets(text) == masked
