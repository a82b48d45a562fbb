"""Ending everything of a loop before the loop ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._cpython import require_stack
from ._loop_bound import refuse_inside
from ._loop_state import attached_state
from ._wait_graph import WaitNode, register_wait
from ._waiters import noted

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable

    from ._exit_order import ExitOrder
    from ._waiters import Failure


async def aclose() -> None:
    """End everything of the running loop now, as its end would, and forget what was made; the loop can be used afterwards.

    Exits and `atexit` callbacks run newest first, those of what is opened meanwhile too. Then `storage` is empty, and the
    next call of any wrapped factory makes anew. Two tasks that ask at once wait for the same exits, and both get the errors.
    If it is cancelled, the exit in progress goes on by itself, and what had not begun ends with the loop.

    :raises ExceptionGroup: after the last exit, with all the errors that exits have raised, each with a note of whose it is.
    :raises RuntimeError: if no event loop is running; if code of a resource, of a task that it has started, or of a callback
        calls this; or a shared coroutine for which one of those waits.
    """
    state = attached_state()
    if state is None:
        return
    refuse_inside(state.exits, "aclose()", "end it")
    require_stack()
    failures: list[Failure] = []
    everything = _Everything(state.exits)
    nodes = register_wait(everything)
    try:
        await state.end(failures.append)
        state.storage.clear()
    except BaseException:
        while failures:
            failures.pop(0).missed()
        raise
    finally:
        for node in nodes:
            node.awaiting.remove(everything)
    if failures:
        try:
            raise BaseExceptionGroup(
                "errors at the exits of what the loop held", [noted(each.take(), each.name) for each in failures]
            )
        finally:
            failures.clear()  # the tracebacks of their errors hold this frame


class _Everything(WaitNode):
    """The node of the wait-for graph for which `aclose` waits: everything that the loop holds."""

    __slots__ = ("_exits",)

    def __init__(self, exits: ExitOrder) -> None:
        super().__init__()
        self._exits = exits

    @property
    def name(self) -> str:
        return "aclose()"

    @property
    def loop(self) -> AbstractEventLoop:
        return self._exits.loop

    @property
    def owner(self) -> None:
        return None

    @property
    def is_pending(self) -> bool:
        return True

    @property
    def waits_for(self) -> Iterable[WaitNode]:
        return self._exits
