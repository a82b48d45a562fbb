"""`key=…`: a user's own word on what makes two calls the same."""

from __future__ import annotations

import array
import inspect
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from asyncio_loop_local import singleton, sticky_singleton_acm
from conftest import Run


class Decorator(Protocol):
    """Either of the two decorators, in either form, made into one that returns an async function for the value."""

    def __call__(self, factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]: ...


def _awaitable(factory: Callable[..., object]) -> Callable[..., Coroutine[Any, Any, object]]:
    async def get(*args: Any, **kwargs: Any) -> object:
        return factory(*args, **kwargs)

    return get


def _entered(factory: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, object]]:
    async def get(*args: Any, **kwargs: Any) -> object:
        async with factory(*args, **kwargs) as value:
            return value

    return get


class Acm:
    """Gives what the factory has returned."""

    def __init__(self, value: object) -> None:
        self.value = value

    async def __aenter__(self) -> object:
        return self.value

    async def __aexit__(self, *exc_info: object) -> None: ...


def _singleton_decorator(factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]:
    return _awaitable(singleton(key=key)(factory))


def _singleton_direct(factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]:
    return _awaitable(singleton(factory, key=key))


def _acm_of(factory: Callable[..., object]) -> Callable[..., Acm]:
    return lambda *args, **kwargs: Acm(factory(*args, **kwargs))


def _sticky_decorator(factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]:
    return _entered(sticky_singleton_acm(key=key)(_acm_of(factory)))


def _sticky_direct(factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]:
    return _entered(sticky_singleton_acm(_acm_of(factory), key=key))


def _coroutine_decorator(factory: Callable[..., object], key: Any, /) -> Callable[..., Coroutine[Any, Any, object]]:
    async def function(*args: Any, **kwargs: Any) -> object:
        return factory(*args, **kwargs)

    return singleton(key=key)(function)


DECORATORS: list[Decorator] = [_singleton_decorator, _singleton_direct, _sticky_decorator, _sticky_direct, _coroutine_decorator]


@pytest.fixture(params=DECORATORS, ids=lambda param: param.__name__.removeprefix("_"))
def decorated(request: pytest.FixtureRequest) -> Decorator:
    """Each decorator in each form."""
    decorator: Decorator = request.param
    return decorator


def itself(value: object) -> object:
    return value


class Made:
    """Counts what was made, and with which arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.calls.append((args, kwargs))
        return object()


# What it says.


def test_the_key_says_what_makes_two_calls_the_same(run: Run, decorated: Decorator) -> None:
    """Calls with one key get what the first of them made; calls with another key do not."""
    made = Made()

    def key(user: str, trace: int) -> str:
        return user

    get = decorated(made, key)

    async def main() -> None:
        first = await get("u", 1)
        assert await get("u", 2) is await get("u", trace=3) is await get(user="u", trace=1) is first
        assert await get("v", 1) is not first
        assert made.calls == [(("u", 1), {}), (("v", 1), {})]

    run(main())


def test_it_is_called_with_the_calls_arguments(run: Run, decorated: Decorator) -> None:
    """At every call it gets the arguments as they were written, the very objects, without defaults."""
    seen: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def key(*args: object, **kwargs: object) -> str:
        seen.append((args, kwargs))
        return "always"

    get = decorated(Made(), key)
    mutable: list[int] = []

    async def main() -> None:
        assert await get(mutable, 2, c=3) is await get(b=2) is await get()

    run(main())
    assert seen == [(([], 2), {"c": 3}), ((), {"b": 2}), ((), {})]
    assert seen[0][0][0] is mutable


def test_what_could_be_no_part_of_a_key_may_be_an_argument(run: Run, decorated: Decorator) -> None:
    """With a key of one's own the arguments need not be hashable."""

    def content(numbers: array.array[int]) -> bytes:
        return numbers.tobytes()

    get = decorated(Made(), content)

    async def main() -> None:
        one = await get(array.array("i", [1, 2]))
        assert await get(array.array("i", [1, 2])) is one
        assert await get(array.array("i", [1, 3])) is not one

    run(main())


def test_a_key_of_none_for_all_is_a_key(run: Run, decorated: Decorator) -> None:
    """A key function may return None, and always the same: one value for the whole loop."""
    made = Made()

    def key(*args: object) -> None: ...

    get = decorated(made, key)

    async def main() -> None:
        assert await get(1) is await get(2) is await get()

    run(main())
    assert len(made.calls) == 1


def test_keys_count_as_arguments_do(run: Run, decorated: Decorator) -> None:
    """What the key function returns counts as an argument would: types told apart, dicts and lists by value at that time."""
    get = decorated(Made(), itself)

    async def main() -> None:
        assert len({id(await get(value)) for value in (1, True, 1.0, "1", (1,), (True,), [1], [1.0])}) == 8
        changing = {"a": [1]}
        first = await get(changing)
        assert await get({"a": [1]}) is first
        changing["a"].append(2)
        assert await get(changing) is not first
        assert await get({"a": [1]}) is first

    run(main())


def test_key_none_means_none_of_ones_own(run: Run, decorated: Decorator) -> None:
    """`key=None` is as if it were not given."""
    get = decorated(Made(), None)

    async def main() -> None:
        first = await get("u", 1)
        assert await get("u", 1) is first
        assert await get("u", 2) is not first

    run(main())


def test_each_loop_has_its_own(run: Run, decorated: Decorator) -> None:
    """The same key on a second loop makes anew."""
    made = Made()

    def key(*args: object) -> str:
        return "k"

    get = decorated(made, key)

    async def main() -> None:
        assert await get(1) is await get(2)

    run(main())
    run(main())
    assert [args for args, _ in made.calls] == [(1,), (1,)]


def test_two_factories_with_one_key_function_do_not_share(run: Run, decorated: Decorator) -> None:
    """A key is a key of its own factory alone."""

    def key(*args: object) -> str:
        return "k"

    one, other = decorated(Made(), key), decorated(Made(), key)

    async def main() -> None:
        assert await one(1) is not await other(1)

    run(main())


# What goes wrong.


@pytest.mark.parametrize("key", ["name", 1, ["a"], ()])
def test_what_cannot_be_called_is_refused(decorated: Decorator, key: object) -> None:
    """A key that cannot be called is a `TypeError` at decoration, which says what is needed."""
    with pytest.raises(
        TypeError, match=r"argument 'key' of (sticky_)?singleton(_acm)?\(\) must be callable, not \w+: pass a func"
    ):
        decorated(Made(), key)


def test_an_error_of_the_key_function_passes_through(run: Run, decorated: Decorator) -> None:
    """It is raised by the call as it is, the factory does not run, and the next call asks again."""
    made = Made()
    errors: list[Exception] = [KeyError("no"), TypeError("not this"), AttributeError("nor that")]

    def key(value: int) -> int:
        if value < len(errors):
            raise errors[value]
        return value

    get = decorated(made, key)

    async def main() -> None:
        for value, error in enumerate(errors):
            with pytest.raises(type(error)) as caught:
                await get(value)
            assert caught.value is error
        assert made.calls == []
        assert await get(7) is await get(7)

    run(main())
    assert len(made.calls) == 1


def test_arguments_that_the_key_function_does_not_take(run: Run, decorated: Decorator) -> None:
    """Its own `TypeError` says which one."""

    def key(user: str) -> str:
        return user

    get = decorated(Made(), key)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"key\(\) got an unexpected keyword argument 'trace'"):
            await get("u", trace=1)

    run(main())


def test_an_unhashable_key_is_refused(run: Run, decorated: Decorator) -> None:
    """A key that neither hashes nor counts by value is a `TypeError` that names its type and its mend; nothing is made."""
    made = Made()
    get = decorated(made, itself)

    async def main() -> None:
        for value in array.array("i"), [array.array("i")]:
            with pytest.raises(TypeError, match=r"key=… of .*\(\) returned .* of type array.*return something hashable$"):
                await get(value)

    run(main())
    assert made.calls == []


def test_a_factorys_own_type_error_passes_through(run: Run, decorated: Decorator) -> None:
    """A `TypeError` of the factory comes out untouched, and it has run once."""
    calls: list[int] = []
    error = TypeError("the factory's own")

    def factory(value: int) -> object:
        calls.append(value)
        raise error

    get = decorated(factory, itself)

    async def main() -> None:
        with pytest.raises(TypeError) as caught:
            await get(1)
        assert caught.value is error

    run(main())
    assert calls == [1]


def test_a_factory_that_raises_is_not_remembered(run: Run, decorated: Decorator) -> None:
    """The next call with the same key asks the factory again, with its own arguments: those of the first may have been wrong."""
    calls: list[int] = []

    def factory(value: int) -> object:
        calls.append(value)
        if len(calls) == 1:
            raise ValueError
        return object()

    def key(value: int) -> str:
        return "k"

    get = decorated(factory, key)

    async def main() -> None:
        with pytest.raises(ValueError):
            await get(1)
        assert await get(2) is await get(3)

    run(main())
    assert calls == [1, 2]


def test_without_a_loop_the_key_is_not_asked() -> None:
    """A call where no loop runs is a `RuntimeError`, as without a key."""
    asked: list[object] = []

    def key(value: int) -> int:
        asked.append(value)
        return value

    @singleton(key=key)
    def token(value: int) -> object:
        return object()

    @sticky_singleton_acm(key=key)
    def session(value: int) -> Acm:
        return Acm(value)

    for call in (token, session):
        with pytest.raises(RuntimeError, match=r"^no running event loop$"):
            call(1)
    assert asked == []


# How it is given.


def test_the_wrapper_looks_like_the_factory(run: Run) -> None:
    """With a key too, name, documentation and signature are the factory's."""

    def by_user(user: str, trace: int = 0) -> Hashable:
        return user

    @singleton(key=by_user)
    def token(user: str, trace: int = 0) -> str:
        """Make a token."""
        return user

    @sticky_singleton_acm(key=by_user)
    @asynccontextmanager
    async def session(user: str, trace: int = 0) -> AsyncGenerator[str]:
        """Open a session."""
        yield user

    async def main() -> None:
        assert (token.__name__, token.__doc__) == ("token", "Make a token.")
        assert (session.__name__, session.__doc__) == ("session", "Open a session.")
        assert list(inspect.signature(token).parameters) == list(inspect.signature(session).parameters) == ["user", "trace"]
        assert token("u") == token("u", 5) == "u"
        async with session("u") as value, session("u", trace=3) as again:
            assert value == again == "u"

    run(main())


def test_key_is_given_by_name_alone() -> None:
    """A key cannot be given by position."""
    for decorator in singleton, sticky_singleton_acm:
        wrong: Any = decorator
        with pytest.raises(TypeError, match="positional argument"):
            wrong(object, lambda: 1)


def whose(owner: object, user: str, trace: int = 0) -> Hashable:
    return owner, user


def user_of(owner: object, user: str, trace: int = 0) -> str:
    return user


def name_and_user(client: Client, user: str, trace: int = 0) -> Hashable:
    return client.name, user


def only_user(user: str, trace: int = 0) -> str:
    return user


class Client:
    """Has methods with keys of their own."""

    def __init__(self, name: str) -> None:
        self.name = name

    @singleton(key=whose)
    def token(self, user: str, trace: int = 0) -> object:
        return object()

    @singleton(key=user_of)
    def for_all(self, user: str, trace: int = 0) -> str:
        return f"{self.name}/{user}"

    @singleton(key=name_and_user)
    async def shared(self, user: str, trace: int = 0) -> object:
        return object()

    @sticky_singleton_acm(key=whose)
    @asynccontextmanager
    async def session(self, user: str, trace: int = 0) -> AsyncGenerator[object]:
        yield object()

    @classmethod
    @singleton(key=whose)
    def of_class(cls, user: str, trace: int = 0) -> object:
        return object()

    @staticmethod
    @singleton(key=only_user)
    def static(user: str, trace: int = 0) -> object:
        return object()


class SubClient(Client):
    """Inherits them."""


def test_methods(run: Run) -> None:
    """The key of a method gets the instance or class first, and may leave it out: then all instances share."""

    async def main() -> None:
        one, other, twin = Client("1"), Client("2"), Client("1")
        assert one.token("u") is one.token("u", trace=2) is Client.token(one, "u", 3)
        assert one.token("u") is not other.token("u")
        assert one.for_all("u") == other.for_all("u", 5) == "1/u"
        assert await one.shared("u") is await twin.shared("u", 2)
        assert await one.shared("u") is not await other.shared("u")
        async with one.session("u") as value, one.session("u", 2) as again, other.session("u") as others:
            assert value is again
            assert value is not others
        assert Client.of_class("u") is Client.of_class("u", 2)
        assert Client.of_class("u") is not SubClient.of_class("u")
        assert Client.static("u") is one.static("u", 2)

    run(main())


def test_a_kept_object_uses_the_key_on_a_second_loop(run: Run) -> None:
    """What was kept from one loop finds, on another, what a call with its key has made there."""

    def key(user: str, trace: int) -> str:
        return user

    @sticky_singleton_acm(key=key)
    @asynccontextmanager
    async def session(user: str, trace: int) -> AsyncGenerator[object]:
        yield object()

    async def first() -> Any:
        return session("u", 1)

    async def second(kept: Any) -> None:
        async with session("u", 2) as value, kept as of_kept:
            assert of_kept is value

    run(second(run(first())))


def test_too_many_keys_of_ones_own_are_reported_once_a_loop(run: Run) -> None:
    """A key that is never found again is reported like any other, once, at the line of the call."""

    @singleton(key=int)
    def token(value: int) -> object:
        return object()

    async def main() -> None:
        for number in range(5_000):
            token(number)

    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(main())
        (warning,) = (each for each in caught if each.category is ResourceWarning)
        assert "token() has been called with 2,001 different keys on one event loop" in str(warning.message)
        assert warning.filename == __file__
