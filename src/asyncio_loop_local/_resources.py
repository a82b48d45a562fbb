"""A view of what is open on the running loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ._loop_bound import ENTER_INTERRUPTED, ENTERING, MADE, OPEN, RELEASED, RETIRED, STARTED
from ._loop_state import attached_state
from ._resource import Resource

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Iterator

    from ._exit_order import Exitable


@dataclass(frozen=True, slots=True)
class ResourceInfo:
    """What one resource was at the moment at which `resources` was called; it does not change with the resource."""

    name: str
    """The call that made it, or the name of its asynchronous context manager; passwords and tokens are masked."""
    state: Literal["entering", "open", "exiting"]
    """Whether it is on its way in, open, or on its way out."""
    since: float | None
    """When it was entered, in seconds on the loop's clock (``loop.time()``); None if it has not been entered, or could not be."""
    uses: tuple[str, ...]
    """The names of the resources that it has acquired, which will outlive it."""
    tasks: tuple[Task[Any], ...]
    """The tasks that it has started and that have not ended; no runner cancels them before it has ended."""

    def __repr__(self) -> str:
        """Return all of it in one line."""
        parts = [self.state if self.since is None else f"{self.state} since {self.since:.3f} s"]
        if self.uses:
            parts.append(f"uses {', '.join(self.uses)}")
        if self.tasks:
            parts.append(f"{len(self.tasks)} task{'s' if len(self.tasks) > 1 else ''}")
        return f"<{self.name}: {'; '.join(parts)}>"


def resources() -> tuple[ResourceInfo, ...]:
    """Return what is open on the running loop, in the order of entering; what is still being entered comes last.

    The result is a snapshot: it stays as it is, and keeps no resource open.

    :raises RuntimeError: if no event loop is running.
    """
    return tuple(_info(resource) for resource in _visible())


def format_resources() -> str:
    """Return what is open on the running loop as text: a line each, and below it, indented, what it uses.

    What is used by several stands below each, in full below the first alone. An empty string if nothing is open.

    :raises RuntimeError: if no event loop is running.
    """
    visible = list(_visible())
    used = {each for resource in visible for each in resource.uses}
    by_itself: dict[Exitable, Resource[Any]] = {resource: resource for resource in visible}
    shown: set[Exitable] = set()
    lines: list[str] = []
    for root in [each for each in visible if each not in used] + visible:
        to_show = [] if root in shown else [(root, 0)]
        while to_show:  # without recursion: a chain of resources has no limit
            resource, depth = to_show.pop()
            line = f"{'    ' * depth}{resource.name} ({_state_of(resource)}"
            if resource in shown:
                lines.append(f"{line}, see above)")
                continue
            shown.add(resource)
            lines.append(f"{line}{'' if resource.since is None else f' since {resource.since:.3f} s'})")
            to_show += [(by_itself[each], depth + 1) for each in reversed(resource.uses) if each in by_itself]
    return "\n".join(lines)


def _visible() -> Iterator[Resource[Any]]:
    state = attached_state()
    for bound in () if state is None else state.exits:
        if isinstance(bound, Resource) and bound.state not in (MADE, STARTED):
            yield bound


def _state_of(resource: Resource[Any]) -> Literal["entering", "open", "exiting"]:
    if resource.state in (OPEN, RETIRED):
        return "open"
    return "entering" if resource.state in (ENTERING, RELEASED, ENTER_INTERRUPTED) else "exiting"


def _info(resource: Resource[Any]) -> ResourceInfo:
    uses = tuple(used.name for used in resource.uses)
    return ResourceInfo(resource.name, _state_of(resource), resource.since, uses, tuple(resource.tasks))
