"""Who waits for whom to be entered or computed: so that a wait that could never end is refused before it begins."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

    from ._scope import Scope

N = TypeVar("N")

# Whose code it is that runs: set in the contexts of resources, callbacks and runs, and in all that are copied from them.
current_asker: ContextVar[Asker | None] = ContextVar("asyncio_loop_local.current_asker", default=None)
running_asker = current_asker.get  # bound once: looking the method up costs more than calling it


class Asker:
    """What others wait for, and whose own code waits for others; on one loop."""

    __slots__ = ("awaiting",)

    def __init__(self) -> None:
        self.awaiting: list[Asker] = []

    @property
    def name(self) -> str:
        """How errors call it."""
        raise NotImplementedError

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop on which it is waited for."""
        raise NotImplementedError

    @property
    def scope(self) -> Scope | None:
        """What ends with the loop, and whose code it is; None for the user's own."""
        raise NotImplementedError

    @property
    def is_pending(self) -> bool:
        """Whether others may be waiting for it."""
        raise NotImplementedError

    @property
    def waits_for(self) -> Iterable[Asker]:
        """What must be over before it can go on."""
        return self.awaiting


def ask_for(target: Asker) -> Iterable[Asker]:
    """Notes that the code that runs is about to wait for ``target``.

    :returns: from whose ``awaiting`` the target is to be removed after the wait: the run, and the scope whose task it is.
    :raises RuntimeError: if the target waits, through whatever others, for what this code belongs to.
    """
    asker = running_asker()
    if asker is None or asker.loop is not target.loop:
        return ()
    askers = [each for each in dict.fromkeys((asker, asker.scope)) if each is not None and each.is_pending]
    for each in askers:
        if (path := find_path(target, each, _awaited_by)) is not None:
            circle = " -> ".join(one.name for one in (each, *path))
            raise RuntimeError(
                f"this would wait for ever, since each of these needs the next one first: {circle}. "
                f"Let one of them ask for the next one later"
            )
    for each in askers:
        each.awaiting.append(target)
    return askers


def _awaited_by(asker: Asker) -> Iterable[Asker]:
    return asker.waits_for


def find_path(start: N, goal: N, steps_from: Callable[[N], Iterable[N]]) -> list[N] | None:
    """The nodes on a way from ``start`` to ``goal``, both included; None if there is none."""
    came_from: dict[N, N | None] = {start: None}
    to_visit = [start]
    while to_visit:
        at = to_visit.pop()
        if at is goal:
            path = [goal]
            while (previous := came_from[path[-1]]) is not None:
                path.append(previous)
            return path[::-1]
        for step in steps_from(at):
            if step not in came_from:
                came_from[step] = at
                to_visit.append(step)
    return None
