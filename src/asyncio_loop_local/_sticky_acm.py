"""What a call of a sticky factory gives: an asynchronous context manager that any number of blocks may enter."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from ._cpython import current_task, running_loop_or_none
from ._enter import enter_once
from ._loop_cache import ArgumentsNotKept
from ._resource import EndedMeanwhile, checked_acm
from ._wait_graph import running_node
from ._wrapped_factory import CallResult

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Generator
    from types import TracebackType

    from ._exit_order import Exitable
    from ._loop_cache import CacheEntry
    from ._resource import Resource
    from ._typing import ACM

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class StickyACM(Generic[T_co]):
    """An asynchronous context manager that is entered once per loop, and exited when that loop ends.

    Every block gets the value that the first one got; leaving a block does nothing, and lets every exception pass. Two
    blocks that begin at once wait for the same entering, as with `enter_once`.
    """

    __slots__ = ("_acm",)

    def __init__(self, acm: ACM[T_co]) -> None:
        """Take the asynchronous context manager to enter.

        :raises TypeError: if it is none.
        """
        self._acm = checked_acm(acm, where="StickyACM()")

    async def __aenter__(self) -> T_co:
        """Return what the asynchronous context manager gave when this loop entered it, which it does now if it has not."""
        return await enter_once(self._acm)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Do nothing: it stays entered until its loop ends."""

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Begin a block, leave it at once, and return its value: ``value = await make()``."""
        return self._entered().__await__()

    async def _entered(self) -> T_co:
        async with self as value:
            return value

    if not TYPE_CHECKING:  # or checkers would take every attribute for one of its own

        def __getattr__(self, name: str) -> Any:
            """Say that an attribute of the value was meant."""
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                message += (
                    f": it is the entered value's, as in 'async with make() as value: value.{name}' or '(await make()).{name}'"
                )
            raise AttributeError(message, name=name, obj=self)

    def __repr__(self) -> str:
        """Return what it would enter."""
        return f"<{type(self).__name__} of {type(self._acm).__qualname__}>"


class StickyCall(StickyACM[T_co], CallResult):
    """The result of a call of a sticky factory. On another loop, or after its resource has ended, it acts as a fresh call."""

    __slots__ = ("_entry", "_resource", "_with_arguments", "_wrapper", "open_on", "value")

    def __init__(self, entry: CacheEntry, wrapper: Callable[..., StickyACM[T_co]]) -> None:
        self._entry = entry
        self._wrapper = wrapper
        self._with_arguments: ref[_StickyByKey[T_co]] | None = None
        self._resource: Resource[T_co] | None = None
        self.open_on: AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        return self._entry.name

    @property
    def loop(self) -> AbstractEventLoop:
        return self._entry.exits.loop

    @property
    def is_held(self) -> bool:
        """Blocks are not counted."""
        return False

    def acquired_by(self, user: Exitable, /) -> None:
        self._entry.acquired_by(user)

    def made(self, resource: Resource[T_co]) -> None:
        self._resource = self._entry.resource = resource

    def publish(self, value: Any, loop: AbstractEventLoop, /) -> None:
        if self._resource is not None:
            self.value: T_co = value
            self.open_on = loop

    def invalidate(self) -> None:
        if self.open_on is not None:
            self.open_on = None
            del self.value
        self._resource = None
        self._entry.invalidate()

    async def __aenter__(self) -> T_co:
        loop, resource = get_running_loop(), self._resource
        if self.open_on is loop:
            value = self.value
            node = running_node()
            if node is not None and resource is not None:
                resource.note_user(node)
            return value
        if self.loop is loop:
            if resource is not None:
                try:
                    return await resource.acquire()
                except EndedMeanwhile:
                    pass
            self.invalidate()  # or the call might find this again, and again
        return await self._entry.call_again(self._wrapper).__aenter__()

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self.__aenter__().__await__()  # its blocks are not counted

    def with_arguments(self, call_again: Callable[[], StickyACM[T_co]]) -> StickyACM[T_co]:
        known = None if self._with_arguments is None else self._with_arguments()
        if known is None:
            known = _StickyByKey(self, call_again)
            self._with_arguments = ref(known)
        return known

    def __repr__(self) -> str:
        return f"<StickyACM of {self.name}, {'ended' if self._resource is None else self._resource.state.value}>"


class CheckedStickyCall(StickyCall[T_co]):
    """One with ``valid``, which each block asks that begins. A value that is no longer good is exited after its last block."""

    __slots__ = ("_blocks", "_elsewhere", "_retired")

    def __init__(self, entry: CacheEntry, wrapper: Callable[..., StickyACM[T_co]]) -> None:
        super().__init__(entry, wrapper)
        self._blocks = 0  # how many hold its value, or wait for it
        self._elsewhere: _BlocksElsewhere = _BlocksElsewhere()
        self._retired: Resource[T_co] | None = None

    @property
    def is_held(self) -> bool:
        return self._blocks > 0

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._entered().__await__()

    def invalidate(self) -> None:
        if self._resource is not None and self.is_held:
            self._retired = self._resource
        super().invalidate()

    async def __aenter__(self) -> T_co:
        loop, resource = get_running_loop(), self._resource
        if self.open_on is loop:
            value = self.value
            self._blocks += 1  # before `valid` is asked, which may run any code
            try:
                is_good = self._entry.is_good(value)
                if not is_good:
                    self._entry.retire()
            except BaseException:
                self._leave()
                raise
            if is_good and self.open_on is not None:  # else `valid` itself has had it released
                node = running_node()
                if node is not None and resource is not None:
                    resource.note_user(node)
                return value
            self._leave()
        elif self.loop is loop:
            if resource is not None:
                self._blocks += 1
                try:
                    return await resource.acquire()
                except EndedMeanwhile:
                    self._leave()
                except BaseException:
                    self._leave()
                    raise
            self.invalidate()  # or the call might find this again, and again
        return await self._elsewhere.enter(self._entry.call_again(self._wrapper))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        if self._elsewhere and (later := self._elsewhere.leave(self._blocks, self.loop)) is not None:
            return await later.__aexit__(exc_type, exc_value, traceback)
        self._blocks -= 1
        if self._retired is not None:
            self._exit_if_left()
        return None

    def _leave(self) -> None:
        self._blocks -= 1
        self._exit_if_left()

    def _exit_if_left(self) -> None:
        retired = self._retired
        if retired is not None and not self._blocks:
            self._retired = None
            self._entry.blocks_left(retired)
            retired.exit_if_unused()


class _StickyByKey(StickyACM[T_co]):
    """The result of a call with ``key=``. This object alone keeps the arguments, for when it has to make the call again."""

    __slots__ = ("__weakref__", "_blocks", "_call_again", "_elsewhere", "_sticky")

    def __init__(self, sticky: StickyCall[T_co], call_again: Callable[[], StickyACM[T_co]]) -> None:
        self._sticky = sticky
        self._call_again = call_again
        self._blocks = 0
        self._elsewhere: _BlocksElsewhere = _BlocksElsewhere()

    async def __aenter__(self) -> T_co:
        try:
            value = await self._sticky.__aenter__()
        except ArgumentsNotKept:
            pass  # go on after this block: in it, an error of the enter's own would have this one as its context
        else:
            self._blocks += 1
            return value
        return await self._elsewhere.enter(self._call_again())

    async def __aexit__(self, *error: Any) -> None:
        later = self._elsewhere.leave(self._blocks, self._sticky.loop) if self._elsewhere else None
        if later is None:
            self._blocks -= 1
        await (later or self._sticky).__aexit__(*error)

    def __repr__(self) -> str:
        return repr(self._sticky)


class _BlocksElsewhere(dict["Task[Any] | None", list[StickyACM[Any]]]):
    """By task: the results of later calls that blocks of one object have entered, since its own value had ended."""

    __slots__ = ()

    async def enter(self, later: StickyACM[T]) -> T:
        """Begin the block of the later one."""
        value = await later.__aenter__()
        self.setdefault(current_task(get_running_loop()), []).append(later)
        return value

    def leave(self, own_blocks: int, own_loop: AbstractEventLoop) -> StickyACM[Any] | None:
        """Return the result whose block is left now; None if the block holds the object's own value.

        A task leaves its blocks in the reverse order. But a generator that was dropped may leave its block in another task than
        it has begun it in. Then the block counts as one that holds the object's own value; if there is none such, it is the
        newest other one, of a task that has ended if possible.

        :param own_blocks: how many blocks hold the object's own value.
        """
        loop = running_loop_or_none() or own_loop  # none runs where a task is dropped that was in a block
        task = current_task(loop)
        if task not in self:
            tasks = [each for each in self if each is None or each.get_loop() is loop]
            if not tasks or (own_blocks > 0 and loop is own_loop):
                return None
            task = next((each for each in reversed(tasks) if each is None or each.done()), tasks[-1])
        blocks = self[task]
        later = blocks.pop()
        if not blocks:
            del self[task]
        return later


def sticky_call(entry: CacheEntry, wrapper: Callable[..., StickyACM[Any]]) -> StickyCall[Any]:
    """Return what the call of an entry gives, before its resource is made."""
    return StickyCall(entry, wrapper) if entry.factory.valid is None else CheckedStickyCall(entry, wrapper)
