"""With ``key=``, what that returns says which calls are the same, and the arguments are not kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asyncio_loop_local import release, resources, singleton, sticky_singleton_acm
from recording import on_each_loop, turns


class User:
    def __init__(self, number: int) -> None:
        self.number = number


class Session:
    def __init__(self, user: User) -> None:
        self.number = user.number
        self.is_open = False
        self.is_good = True

    async def __aenter__(self) -> Session:
        self.is_open = True
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.is_open = False


def close(session: Session) -> None:
    session.is_open = False


async def connect(user: User) -> Session:
    await asyncio.sleep(0)
    return Session(user)


def number_of(user: User) -> int:
    return user.number


def is_good(session: Session) -> bool:
    return session.is_good


Get = Callable[[Any], Awaitable[Session]]


def plain(make: Callable[[User], Session]) -> Get:
    async def get(user: User) -> Session:
        return make(user)

    return get


FORMS: dict[str, tuple[Callable[..., Any], Callable[[Any], Get]]] = {
    "singleton": (singleton(Session, key=number_of), plain),
    "close=": (singleton(Session, key=number_of, close=close), plain),
    "valid=": (singleton(Session, key=number_of, close=close, valid=is_good), plain),
    "coroutine function": (singleton(connect, key=number_of), lambda make: make),
    "coroutine function, close=": (singleton(connect, key=number_of, close=close), lambda make: make),
    "coroutine function, valid=": (singleton(connect, key=number_of, valid=is_good), lambda make: make),
    "sticky": (sticky_singleton_acm(Session, key=number_of), lambda make: make),
    "sticky, valid=": (sticky_singleton_acm(Session, key=number_of, valid=is_good), lambda make: make),
}


@pytest.fixture(params=FORMS.values(), ids=list(FORMS))
def form(request: pytest.FixtureRequest) -> tuple[Callable[..., Any], Get]:
    make, get = request.param
    return make, get(make)


@on_each_loop
async def test_an_argument_is_not_kept_alive(form: tuple[Callable[..., Any], Get]) -> None:
    """An argument is freed with its caller's last reference, although the value that was made of it is still found by its key."""
    make, get = form
    users = [User(1)]
    alive = weakref.ref(users[0])
    session = await get(users[0])
    assert make(users[0]) is make(users[0])
    users.clear()
    await turns()
    gc.collect()
    assert alive() is None
    assert await get(User(1)) is session
    assert await get(User(2)) is not session


@on_each_loop
async def test_what_is_open_keeps_the_name_of_its_call(form: tuple[Callable[..., Any], Get]) -> None:
    """A resource is listed with the arguments that its first call had, though they are gone."""
    _, get = form
    await get(User(1))
    assert [each.name.startswith(("Session(<", "connect(<")) for each in resources()] == [True] * len(resources())


@on_each_loop
async def test_release_finds_it_by_its_key(form: tuple[Callable[..., Any], Get]) -> None:
    """Another object with the same key releases the value; one with another key finds nothing."""
    make, get = form
    session = await get(User(1))
    assert [await release(make, User(2)), await release(make, User(1)), await release(make, User(1))] == [False, True, False]
    assert not session.is_open
    assert await get(User(1)) is not session


@pytest.mark.parametrize("name", ["coroutine function, close=", "sticky", "sticky, valid="])
def test_what_a_call_gave_makes_the_call_again_where_it_is_spent(name: str) -> None:
    """What a call gave, and its caller has kept, acts as a fresh call after a release, and on another loop."""
    make, _ = FORMS[name]
    kept: list[Any] = []

    async def main() -> Session:
        if not kept:
            kept.append(make(User(1)))
        first = await kept[0]
        assert first is await make(User(1))
        assert await release(make, User(1))
        second = await kept[0]
        assert second is await make(User(1))
        assert second is not first
        assert second.number == 1
        return second  # type: ignore[no-any-return]  # as the factories are wrapped

    assert asyncio.run(main()) is not asyncio.run(main())


@on_each_loop
async def test_a_name_that_cannot_be_made_does_no_harm() -> None:
    """An argument whose ``__repr__`` fails has no name, and the value is made all the same."""

    class Silent(User):
        def __repr__(self) -> str:
            raise OSError("no name")

    assert (await FORMS["close="][1](FORMS["close="][0])(Silent(3))).number == 3
    assert len(resources()) == 1
