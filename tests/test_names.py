"""How factories and calls are named: short, recognisable, and without secrets."""

from __future__ import annotations

import asyncio
import functools
import json
import string
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock, Mock
from urllib.parse import quote

import attrs
import httpx
import pydantic
import pytest
import yarl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asyncio_loop_local import atexit, singleton, sticky_singleton_acm
from asyncio_loop_local._names import call_name, name_of, name_of_acm
from asyncio_loop_local._secrets import mask_secrets, safe_repr

SECRET = "hunter2correcthorse"


def connect(host: str = "h", *more: object, **options: object) -> nullcontext[None]:
    return nullcontext()


class Client:
    def __init__(self, func: object = None) -> None:
        self.func = func

    def session(self) -> None: ...

    @classmethod
    def made(cls) -> None: ...

    def __call__(self) -> None: ...


def a_local_one() -> Callable[[], None]:
    def local() -> None: ...

    return local


NAMES: list[tuple[object, str]] = [
    (connect, "connect"),
    (Client, "Client"),
    (Client.session, "Client.session"),
    (Client().session, "Client.session"),
    (Client.made, "Client.made"),
    (Client(), "Client"),
    (Client(func=1), "Client"),
    (functools.partial(connect, "h"), "connect"),
    (functools.partial(functools.partial(Client().session)), "Client.session"),
    (functools.partial(Client()), "Client"),
    (functools.lru_cache(connect), "connect"),
    (a_local_one(), "local"),
    (dict, "dict"),
    (len, "len"),
    (Mock(), "Mock"),
    (MagicMock(), "MagicMock"),
    (Mock(__qualname__=3), "Mock"),
    (3, "int"),
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("factory", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_factory_is_known_by_its_name(factory: object, name: str) -> None:
    """Functions, classes and methods have their qualified name, partials that of what they call, objects that of their class."""
    assert name_of(factory) == name


@pytest.mark.timeout(10)
def test_an_object_that_calls_itself_by_another_name_is_named() -> None:
    """An object that refers to itself as what it wraps has a name, as every other has."""
    client = Client()
    client.func = client
    assert name_of(client) == "Client"


@pytest.mark.timeout(10)
def test_a_mock_may_be_a_factory() -> None:
    """A unittest.mock.Mock, which has every attribute that one asks for, can be wrapped and called."""
    factory = Mock(return_value=3)

    async def main() -> None:
        make = singleton(factory)
        assert make() == 3
        assert make() == 3

    asyncio.run(main())
    factory.assert_called_once_with()


def test_an_acm_is_known_by_its_generator_function_or_its_class() -> None:
    """What an async generator function has made has that function's name, any other ACM that of its class."""

    @asynccontextmanager
    async def pool() -> AsyncGenerator[None]:
        yield

    assert name_of_acm(pool()) == "pool"
    assert name_of_acm(nullcontext()) == "nullcontext"
    assert name_of_acm(MagicMock()) == "MagicMock"


def test_a_call_is_named_as_it_is_written() -> None:
    """Arguments stand in the name as the caller wrote them."""
    assert call_name(connect, (), (), {}) == "connect()"
    empty: list[object] = [(), [], {}, set(), frozenset({1}), (1, 2)]
    assert call_name(connect, (), empty, {}) == "connect((), [], {}, set(), frozenset({1}), (1, 2))"
    assert call_name(connect, ("host",), ("h", 80), {"tls": True, "path": None}) == "connect('h', 80, tls=True, path=None)"
    assert call_name(connect, (), ({"a": [1, (2,)], "b": {3}}, b"x"), {}) == "connect({'a': [1, (2,)], 'b': {3}}, b'x')"


@dataclass
class Settings:
    password: object
    host: str = "h"


@attrs.define
class Attrs:
    api_key: object
    host: str = "h"


class Model(pydantic.BaseModel):
    client_secret: object
    host: str = "h"


class Said:
    """Has the repr that it is told."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


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
]


@pytest.mark.parametrize(("value", "text"), NOT_SECRET, ids=[text for _, text in NOT_SECRET])
def test_what_is_no_secret_is_shown(value: object, text: str) -> None:
    """Hosts, ports, user names, limits, paths and what is left empty stand in a name as they are."""
    assert safe_repr(value) == text


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "passwd",
            "db_password",
            "PGPASSWORD",
            "dbPassword",
            "pwd",
            "PWD",
            "passphrase",
            "passcode",
            "smtp_pass",
            "pw",
        ),
        *("token", "access_token", "accessToken", "token_secret", "X-Auth-Token", "csrf-token", "tokens", "id_token"),
        *(
            "secret",
            "client_secret",
            "clientSecret",
            "secret_key",
            "SECRET_KEY",
            "aws_secret_access_key",
            "secrets",
            "otp",
            "pin",
        ),
        *(
            "api_key",
            "apikey",
            "apiKey",
            "API_KEY",
            "APIKey",
            "X-Api-Key",
            "access_key",
            "AccountKey",
            "SharedAccessKey",
            "ssh_key",
        ),
        *(
            "private_key",
            "signing_key",
            "encryption_key",
            "master_key",
            "session_key",
            "license_key",
            "Ocp-Apim-Subscription-Key",
        ),
        *("auth", "basic_auth", "proxy_auth", "Authorization", "proxy-authorization", "authorization_header", "bearer"),
        *("cookie", "Set-Cookie", "cookies", "credentials", "creds", "jwt", "session_id", "signature", "sas"),
    ],
)
def test_what_has_the_name_of_a_secret_is_masked(name: str) -> None:
    """A secret is masked where its keyword, parameter, key, header or attribute says that it is one."""
    places: list[str] = [
        call_name(connect, (), (), {"host": "h", name: SECRET}),
        call_name(connect, ("host", name), ("h", SECRET), {}),
        call_name(connect, (), ("h",), {"kwargs": {name: SECRET}}),
        call_name(connect, (), ("h",), {"headers": [(name, SECRET)]}),
        call_name(connect, (), ("h",), {"headers": [(name.encode(), SECRET.encode())]}),
        call_name(connect, (), ("h",), {name: [SECRET, {"a": SECRET}]}),
        call_name(connect, (), ("h",), {"more": {name: {"a": [SECRET]}}}),
        call_name(connect, (), ("h", OrderedDict([(name, SECRET)])), {}),
        call_name(connect, (), ("h", Said(f"Client({name}={SECRET!r}, port=80)")), {}),
        call_name(connect, (), ("h", Said(f"Client({name}={SECRET}, port=80)")), {}),
        call_name(connect, (), ("h", Said(f"<Client {name}: {SECRET}>")), {}),
        call_name(connect, (), ("h", json.dumps({name: SECRET})), {}),
        call_name(connect, (), ("h", f"{name}: {SECRET}"), {}),
        call_name(connect, (), ("h", f"{name}={SECRET}"), {}),
    ]
    for place in places:
        assert SECRET not in place
        assert "***" in place
        assert "'h'" in place


LEAKS: list[tuple[str, Callable[[str], object]]] = [
    ("url", lambda s: f"postgresql://app:{s}@db.example.org/app"),
    ("url with a query", lambda s: f"postgresql://app:{s}@db.example.org/app?mail=a@b"),
    ("url without user", lambda s: f"redis://:{s}@db.example.org:6379/0"),
    ("url with a token as user", lambda s: f"https://{s}@db.example.org/x"),
    ("url with a token as user and password", lambda s: f"https://{s}:x-oauth-basic@db.example.org/x"),
    ("url in a list", lambda s: [f"amqp://app:{s}@db.example.org"]),
    ("urls in a text", lambda s: f"amqp://app:{s}@db.example.org, amqp://app:{s}@db2"),
    ("yarl url", lambda s: yarl.URL(f"http://app:{quote(s, safe='')}@db.example.org")),
    ("httpx url", lambda s: httpx.URL(f"http://app:{quote(s, safe='')}@db.example.org")),
    ("url with a slash in the password", lambda s: f"postgresql://app:{s[:6]}/{s[6:]}@db.example.org"),
    ("url with an @ in the password", lambda s: f"postgresql://app:{s[:6]}@{s[6:]}@db.example.org"),
    ("url with an @ and a slash in the password", lambda s: f"postgresql://app:{s[:6]}@/{s[6:]}@db.example.org"),
    ("url with a quote in the password", lambda s: f"postgresql://app:{s[:6]}'{s[6:]}@db.example.org"),
    ("url with a hash in the password", lambda s: f"postgresql://app:{s[:6]}#{s[6:]}@db.example.org"),
    ("query", lambda s: f"https://db.example.org/?a=1&access_token={s}&b=2"),
    ("query key", lambda s: f"https://db.example.org/?key={s}&b=2"),
    ("signed url", lambda s: f"https://db.example.org/x?X-Amz-Signature={s}&sig={s}"),
    ("login without scheme", lambda s: f"app:{s}@db.example.org/x"),
    ("dsn", lambda s: f"host=db.example.org password={s} user=app"),
    ("dsn with quotes", lambda s: f"host=db.example.org password='{s} {s}' user=app"),
    ("dsn with both quotes", lambda s: f"host=\"db.example.org\" password='{s} {s}' user=app"),
    ("dsn with spaces around", lambda s: f"host = db.example.org password = {s}"),
    ("dsn with punctuation", lambda s: f"host=db.example.org password={s[:6]}&{s[6:]} user=app"),
    ("dsn with a comma", lambda s: f"host=db.example.org password={s[:6]},{s[6:]} user=app"),
    ("dsn with a bracket", lambda s: f"host=db.example.org password={s[:6]}){s[6:]} user=app"),
    ("dsn with a quote", lambda s: f"host=db.example.org password={s[:6]}'{s[6:]} user=app"),
    ("odbc", lambda s: f"Server=db.example.org;Uid=app;Pwd={s};Encrypt=yes"),
    ("odbc with braces", lambda s: f"Server=db.example.org;Pwd={{{s[:6]};{s[6:]}}};Encrypt=yes"),
    ("azure", lambda s: f"Endpoint=sb://db.example.org/;SharedAccessKey={s}="),
    ("bearer header", lambda s: {"Authorization": f"Bearer {s}", "host": "db.example.org"}),
    ("bearer in a text", lambda s: f"db.example.org: Bearer {s}"),
    ("basic in a text", lambda s: f"db.example.org: Basic A1{s}=="),
    ("header lines", lambda s: f"Host: db.example.org\r\nAuthorization: Token {s}\r\nAccept: */*"),
    ("cookie line", lambda s: f"Host: db.example.org\nCookie: a={s}; b={s}"),
    ("header bytes", lambda s: b"Host: db.example.org\r\nAuthorization: Token " + s.encode() + b"\r\n"),
    ("header pairs", lambda s: [("host", "db.example.org"), (b"authorization", b"Digest " + s.encode())]),
    ("aiohttp auth", lambda s: ("db.example.org", {"auth": ("app", s)})),
    ("json", lambda s: json.dumps({"host": "db.example.org", "password": f'{s[:6]}"{s[6:]}'})),
    ("json of json", lambda s: json.dumps({"host": "db.example.org", "x": json.dumps({"password": f"{s[:6]}'{s[6:]}"})})),
    ("json in bytes", lambda s: json.dumps({"host": "db.example.org", "password": s}).encode()),
    ("dataclass", lambda s: Settings(s, "db.example.org")),
    ("dataclass with a list", lambda s: Settings([s, {"a": (s, s)}], "db.example.org")),
    ("dataclass with a dataclass", lambda s: Settings(Settings(s), "db.example.org")),
    ("dataclass with bytes", lambda s: Settings(bytearray(s.encode()), "db.example.org")),
    ("dataclass with quotes", lambda s: Settings(f"{s[:6]}'\"{s[6:]}", "db.example.org")),
    ("dataclass with brackets", lambda s: Settings([f"{s[:6]}]){s[6:]}"], "db.example.org")),
    ("attrs", lambda s: Attrs(s, "db.example.org")),
    ("pydantic", lambda s: Model(client_secret=s, host="db.example.org")),
    ("pydantic with a dict", lambda s: Model(client_secret={"a": s}, host="db.example.org")),
    ("object in a repr", lambda s: Said(f"<Client host='db.example.org' token=<Token {s}>>")),
    ("call in a repr", lambda s: Said(f"Client(host='db.example.org', token=Token({s!r}, 3))")),
    ("pair in a repr", lambda s: Said(f"Headers([('host', 'db.example.org'), ('x-api-key', '{s}')])")),
    ("url in a repr", lambda s: Said(f"<Pool db.example.org 'mysql://app:{s}@db'>")),
    ("deep", lambda s: [[[[[[{"host": "db.example.org", "password": [s]}]]]]]]),
    ("known token", lambda s: f"db.example.org ghp_{s}{s}"),
    ("private key", lambda s: f"db.example.org -----BEGIN RSA PRIVATE KEY-----\n{s}\n{s}\n-----END RSA PRIVATE KEY-----"),
    ("private key cut short", lambda s: f"db.example.org -----BEGIN PRIVATE KEY-----\n{s}\n{s}"),
]
secrets = st.text(string.ascii_letters + string.digits, min_size=12, max_size=20)
generated = settings(deadline=None, derandomize=True, max_examples=50)


@pytest.mark.parametrize("leak", [leak for _, leak in LEAKS], ids=[name for name, _ in LEAKS])
@generated
@given(secret=secrets)
def test_no_secret_is_ever_shown(leak: Callable[[str], object], secret: str) -> None:
    """Neither a password nor a part of it stands in a name, wherever it came from; what else is there does."""
    value = leak(secret)
    around = f"connect(host=, options={{'it': {leak('#' * 12)!r}}})"
    assume(not any(secret[at : at + 4] in around for at in range(len(secret) - 3)))
    for text in (
        safe_repr(value),
        call_name(connect, ("host",), (value,), {}),
        call_name(connect, (), (), {"options": {"it": value}}),
    ):
        assert not [secret[at : at + 4] for at in range(len(secret) - 3) if secret[at : at + 4] in text]
        assert "***" in text or "[secure]" in text
        assert "db.example.org" in text


@generated
@given(st.text(min_size=8).filter(lambda secret: repr(secret)[1:-1] not in "connect(host='h', ***" * 3))
def test_a_secret_of_any_characters_is_masked_where_its_name_is_known(secret: str) -> None:
    """Quotes, brackets, separators and line ends in a password do not let a part of it out."""
    expected = ["connect('h', password=***)", "connect('h', {'password': ***})", "connect('h', [('password', ***)])"]
    assert call_name(connect, (), ("h",), {"password": secret}) == expected[0]
    assert call_name(connect, (), ("h", {"password": secret}), {}) == expected[1]
    assert call_name(connect, (), ("h", [("password", secret)]), {}) == expected[2]
    assert safe_repr(Settings(secret)) == "Settings(password=***, host='h')"
    assert safe_repr(Settings([secret, {"a": secret}])) == "Settings(password=***, host='h')"


@generated
@given(st.recursive(st.text() | st.binary() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_anything_can_be_shown(value: object) -> None:
    """A name is a short text, whatever the arguments."""
    assert 0 < len(safe_repr(value)) <= 200
    assert len(call_name(connect, (), (value, value), {"a": value})) <= 200


def test_a_broken_repr_does_not_break_a_name() -> None:
    """An argument whose repr fails is shown by its class, inside containers too."""

    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    broken = Broken()
    name = Broken.__qualname__
    assert safe_repr(broken) == f"<{name} object>"
    assert f"<{name} object>" in call_name(connect, (), ([broken], 1), {"options": {"a": broken}})
    assert call_name(connect, (), ([broken], 1), {}).endswith(", 1)")


def test_a_structure_that_holds_itself_can_be_shown() -> None:
    """A list that holds itself has a finite name."""
    inner: list[object] = []
    inner.append({"a": inner})
    assert "..." in safe_repr(inner)


def test_a_long_value_is_shortened() -> None:
    """Of a long name, the beginning is kept, and that something was left out is said."""
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
    """A name takes no longer than its length asks for: a text of a million characters holds nothing up."""
    text = piece * (1_000_000 // len(piece))
    for value in (text, text.encode(), Said(text), [text], Settings(text)):
        assert len(call_name(connect, (), (value,), {})) <= 200
    assert len(mask_secrets(text[:10_000])) <= 20_000


def test_of_a_very_large_container_only_the_first_items_are_looked_at() -> None:
    """Naming a call with a list of a hundred thousand items does not show each of them."""
    shown_items: list[int] = []

    class Item:
        def __repr__(self) -> str:
            shown_items.append(1)
            return "item"

    for container in ([Item()] * 100_000, (Item(),) * 100_000, dict.fromkeys(range(100_000), Item())):
        text = call_name(connect, (), (container,), {"port": 80})
        assert "item, " in text or "0: item" in text
        assert text.endswith("port=80)")
    assert len(shown_items) < 1_000


def test_a_resource_is_shown_without_its_secrets() -> None:
    """What stands for a call of a sticky factory has the call's name, masked."""

    @asynccontextmanager
    async def pool(dsn: str, password: str) -> AsyncGenerator[None]:
        yield

    async def main() -> str:
        return repr(sticky_singleton_acm(pool)(f"postgresql://app:{SECRET}@db", SECRET))

    text = asyncio.run(main())
    assert SECRET not in text
    assert "pool('postgresql://app:***@db', ***)" in text


def test_a_callback_is_shown_without_its_secrets() -> None:
    """A callback that fails at the end is named with its arguments, masked where the parameter is a secret's."""
    messages: list[str] = []

    def log_out(user: str, token: str, **more: object) -> None:
        raise ZeroDivisionError

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        messages.append(context["message"])

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(report)
        atexit.register(log_out, "me", SECRET, password=SECRET)

    asyncio.run(main())
    (message,) = messages
    assert SECRET not in message
    assert "log_out('me', ***, password=***)" in message
