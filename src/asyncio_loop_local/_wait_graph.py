"""The wait-for graph of a loop: a wait that could never end is refused before it begins."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable

# The node whose code runs now. It is set in the contexts of resources, of callbacks and of runs of shared coroutines, and so in
# all copies of these.
current_node: ContextVar[WaitNode | None] = ContextVar("asyncio_loop_local.current_node", default=None)
running_node = current_node.get  # bound once: looking the method up costs more than calling it


class WaitNode:
    """A node of the wait-for graph of one loop: tasks wait for it, and its own code waits for other nodes."""

    __slots__ = ("awaiting",)

    def __init__(self) -> None:
        self.awaiting: list[WaitNode] = []

    @property
    def name(self) -> str:
        """The name in error messages."""
        raise NotImplementedError

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop on which tasks wait for it."""
        raise NotImplementedError

    @property
    def owner(self) -> WaitNode | None:
        """The object that ends with the loop and to which the node's code belongs; None for code of the user's own tasks."""
        raise NotImplementedError

    @property
    def is_pending(self) -> bool:
        """Whether tasks may be waiting for it."""
        raise NotImplementedError

    @property
    def waits_for(self) -> Iterable[WaitNode]:
        """The nodes that have to finish before it can go on."""
        return self.awaiting


def register_wait(target: WaitNode) -> Iterable[WaitNode]:
    """Note that the code that runs now is about to wait for ``target``.

    :returns: the nodes from whose ``awaiting`` the target is to be removed after the wait: the run, and its owner.
    :raises RuntimeError: if ``target`` waits, perhaps through others, for the code that runs now.
    """
    running = running_node()
    if running is None or running.loop is not target.loop:
        return ()
    nodes = [node for node in dict.fromkeys((running, running.owner)) if node is not None and node.is_pending]
    for node in nodes:
        if (path := _find_path(target, node)) is not None:
            circle = " -> ".join(each.name for each in (node, *path))
            raise RuntimeError(
                f"this would wait for ever, since each of these needs the next one first: {circle}. "
                f"Let one of them ask for the next one later"
            )
    for node in nodes:
        node.awaiting.append(target)
    return nodes


def _find_path(start: WaitNode, goal: WaitNode) -> list[WaitNode] | None:
    """Return the nodes on a way along ``waits_for`` from ``start`` to ``goal``, both included; None if there is none."""
    came_from: dict[WaitNode, WaitNode | None] = {start: None}
    to_visit = [start]
    while to_visit:
        at = to_visit.pop()
        if at is goal:
            path = [goal]
            while (previous := came_from[path[-1]]) is not None:
                path.append(previous)
            return path[::-1]
        for step in at.waits_for:
            if step not in came_from:
                came_from[step] = at
                to_visit.append(step)
    return None
