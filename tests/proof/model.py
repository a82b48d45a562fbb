"""What one event loop may go through, written down as data; its reference model; and the run of the one against the other.

A `History` says what resources, coroutine functions and callbacks do, what the program does with them, and how the loop ends. Its
`repr` is the Python code that makes it. `check` runs it on a `DeterministicLoop` with the real library, whose every step the
`Monitor` compares with what the contract promises; it raises `Broken`, with the history as a script and all that happened in it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import types
import warnings
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, TypeVar, cast, dataclass_transform

import asyncio_loop_local
from asyncio_loop_local import enter, enter_once, release, resources, singleton, sticky_acm, sticky_singleton_acm, storage
from deterministic_loop import Deadlock, DeterministicLoop, Livelock

T = TypeVar("T")

# ---------------------------------------------------------------- what can be done


@dataclass_transform(frozen_default=True)
class Op:
    """One thing that a piece of a program does; each subclass is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, repr=False)(cls)

    def __repr__(self) -> str:
        """Return the code that makes it, without what is left at its default."""
        shown: list[str] = []
        for place, each in enumerate(fields(self)):  # type: ignore[arg-type]  # as said above
            value = getattr(self, each.name)
            if value != each.default:
                shown.append(repr(value) if len(shown) == place else f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


Ops = tuple[Op, ...]
Checked = Literal["checked", "closed", "connected"]  # a sticky factory, a plain function and a coroutine function with ``close=``
Door = Literal["factory", "kept", "once", "sticky", "enter"] | Checked


class Turns(Op):
    """Lets the loop turn."""

    count: int


class Sleep(Op):
    """Lets time pass."""

    seconds: float


class Idle(Op):
    """Waits until nothing else can go on."""


class Forever(Op):
    """Waits until it is cancelled."""


class Stubborn(Op):
    """Lets the loop turn, and takes no notice of a cancellation meanwhile."""

    turns: int


class Use(Op):
    """Acquires a resource, if ``kept`` by the object of the first call; the task uses it from then on, after each op."""

    door: Door
    which: int
    kept: int = 0


class Block(Op):
    """Runs these ops in a block of a factory with ``valid=``; if ``kept``, in a block of the object that the first call gave."""

    which: int
    ops: Ops = ()
    kept: int = 0


class Spoil(Op):
    """Makes one of the values that can be found no longer good, the last one first; if it ``fails``, ``valid`` fails, once."""

    which: int
    fails: int = 0


class Call(Op):
    """Calls a plain singleton."""

    which: int


class Await(Op):
    """Awaits a coroutine singleton; the object of the first call, if it is ``kept``."""

    which: int
    kept: int = 0


class Store(Op):
    """Puts something into the storage, or finds it there."""

    which: int


class Release(Op):
    """Releases what a factory has made."""

    what: Literal["resource", "value", "run"] | Checked
    which: int


class Aclose(Op):
    """Ends everything of the loop."""


class Register(Op):
    """Registers a callback."""

    which: int


class Unregister(Op):
    """Takes back all registrations of a callback."""

    which: int


class Spawn(Op):
    """Starts a task and does not wait for it."""

    ops: Ops


class Together(Op):
    """Does several things at the same time, and waits for all."""

    parts: tuple[Ops, ...]


class Guard(Op):
    """``try: ops finally: cleanup``."""

    ops: Ops
    cleanup: Ops


class Cancel(Op):
    """Cancels one of the tasks that the program has spawned, the last one first."""

    which: int


class Kill(Op):
    """Lets an open resource die: its task group fails, or its task is cancelled."""

    which: int


class Fail(Op):
    """Raises an error: at the first ``times`` times that the code around it runs."""

    times: int = 1


class Resource(Op):
    """What a resource does when it is made, entered and exited; ``group`` says whether it holds a task group meanwhile."""

    enter: Ops = ()
    exit: Ops = ()
    make: Ops = ()
    group: int = 0


End = Literal["runner", "run", "close", "aclose", "twice", "shutdown"]


@dataclass(frozen=True)
class History:
    """The life of one loop."""

    main: Ops
    resources: tuple[Resource, ...] = (Resource(),)
    runs: tuple[Ops, ...] = ((),)
    callbacks: tuple[Ops, ...] = ((),)
    end: End = "runner"
    eager: bool = False


class Broken(AssertionError):
    """A promise was not kept."""


class Boom(Exception):
    """An error that the program raises; each is one of a kind."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"#{number} of {where}")
        self.number = number


# ---------------------------------------------------------------- the state of the model


@dataclass(eq=False, repr=False)
class Owner:
    """What ends with the loop, and whose code may acquire, spawn and fail: an instance of a resource, or a callback."""

    name: str
    uses: dict[Slot, bool] = field(default_factory=dict["Slot", bool])  # what it has asked for, and whether it has got it
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    runs: int = 0  # of coroutine singletons, which its code has begun and which go on
    waits: list[Using | Slot | Run] = field(default_factory=list["Using | Slot | Run"])
    over: bool = False  # its exit has returned, or its enter has failed
    begun: bool = False
    last_turn: int = 0
    last_ask: int = 0
    serial: int = 0

    def __repr__(self) -> str:
        """Return its name."""
        return self.name

    def is_alive(self) -> bool:
        """Whether its exit, or a task that it has started, is still to end."""
        return self.begun and (not self.over or self.runs > 0 or any(not task.done() for task in self.tasks))

    def was_alive(self, turn: int) -> bool:
        """Whether it is alive, or was until some turns ago: the library may not know yet that it has ended."""
        return self.begun and (self.is_alive() or turn - self.last_turn < 6)


@dataclass(eq=False)
class Run:
    """The runs of one coroutine function."""

    waits: list[Using | Slot | Run] = field(default_factory=list["Using | Slot | Run"])


@dataclass(eq=False, repr=False)
class Instance(Owner):
    """What one ``__aenter__`` has made."""

    which: int = 0
    slot: Slot | None = None
    phase: Literal["made", "entering", "open", "exiting", "ended", "failed"] = "made"
    opened_turn: int = 0
    task: asyncio.Task[Any] | None = None
    killed: bool = False
    by_end: bool = False
    in_end: bool = False  # it was no longer good, and may have been exited for that or since everything ends
    leaves_by: int | None = None  # the turn in which it must begin to be exited, since another one was made in its place
    kill: Callable[[], object] | None = None
    is_checked: bool = False
    is_good: bool = True
    valid_fails: bool = False  # the next time
    holders: int = 0  # blocks
    free_since: int | None = None  # in which turn it was first seen to be no longer good, and held by nothing
    body: AbstractAsyncContextManager[None] | None = None


@dataclass(eq=False, repr=False)
class Registration(Owner):
    """One registration of a callback."""

    which: int = 0
    opened_turn: int = 0
    unregistered: int | None = None  # in which turn


@dataclass(eq=False)
class Slot:
    """What all callers get who ask for one place, until its instance is about to exit."""

    place: object
    waiters: list[Using] = field(default_factory=list["Using"])
    instance: Instance | None = None
    spent: bool = False
    released: bool = False
    abandoned: bool = False
    retired: bool = False
    serial: int = field(default_factory=itertools.count().__next__)


def _has_newer(owner: Owner, slot: Slot) -> bool:
    """Whether an owner has asked anew for what is no longer good, and so no longer uses the old value."""
    return slot.retired and any(used.place == slot.place and used.serial > slot.serial for used in owner.uses)


@dataclass(eq=False)
class Using:
    """Code that has asked for a resource, and waits for it in a block; no block by contextlib, which would keep the error."""

    monitor: Monitor
    slot: Slot
    when_open: bool  # whether it was open then: code that has to wait all the same was too late, and waits for another one
    has_answer: bool = False

    def __enter__(self) -> Using:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if self.has_answer or not isinstance(error, (asyncio.CancelledError, Exception)):
            return False
        self.monitor.not_got(self, error)
        return not isinstance(error, asyncio.CancelledError)


@dataclass
class Counts:
    """What has happened in all histories so far."""

    histories: int = 0
    operations: int = 0
    opened: int = 0
    closed: int = 0
    errors: int = 0
    cancelled: int = 0
    refused: int = 0
    turns: int = 0
    retired: int = 0

    def __str__(self) -> str:
        return (
            f"{self.histories:,} histories, {self.operations:,} operations in {self.turns:,} turns of the loop; "
            f"{self.opened:,} resources opened, {self.closed:,} closed, {self.retired:,} of them as they were no longer good; "
            f"{self.errors:,} errors raised and reported; "
            f"{self.cancelled:,} tasks cancelled; {self.refused:,} calls refused, as they would have waited for themselves"
        )


counts = Counts()

_owner: ContextVar[Owner | None] = ContextVar("owner", default=None)  # whose code runs
_asker: ContextVar[Owner | Run | None] = ContextVar("asker", default=None)  # what others wait for, whose code runs


def _askers() -> list[Owner | Run]:
    """The nodes of the wait-for graph whose code runs now: a run of a coroutine function, and a resource or callback."""
    return [each for each in dict.fromkeys((_asker.get(), _owner.get())) if each is not None]


@contextmanager
def _waiting_for(target: Using | Slot | Run | None) -> Generator[None]:
    """In the block, whose code runs waits for this, if for anything."""
    askers = [] if target is None else [(each, target) for each in _askers()]
    for asker, awaited in askers:
        asker.waits.append(awaited)
    try:
        yield
    finally:
        for asker, awaited in askers:
            asker.waits.remove(awaited)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(each)
    else:
        yield error


class Monitor:
    """The reference model: the program reports each event to it, and it records each that breaks the contract."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.trace: list[str] = []
        self.turn: Callable[[], int] = lambda: 0
        self.places: dict[object, Slot] = {}
        self.instances: list[Instance] = []
        self.registrations: list[Registration] = []
        self.user_tasks: list[asyncio.Task[None]] = []
        self.raised: dict[int, str] = {}
        self.to_waiters: Counter[int] = Counter()
        self.to_handler: Counter[int] = Counter()
        self.by_runner: Counter[int] = Counter()
        self.values: dict[int, object] = {}
        self.stored: dict[int, object] = {}
        self.run_values: dict[int, dict[str, object]] = {}
        self.runs: dict[int, Run] = {}
        self.leaving: dict[object, Slot] = {}
        self.unborn: dict[object, list[Slot]] = {}  # released before their runs have begun, which they do all the same
        self.serial = 0
        self.acloses = 0
        self.using = 0
        self.main_done = False
        self.tasks_are_left = False

    def note(self, what: str) -> None:
        self.trace.append(f"{self.turn():>4}  {what}")

    def broken(self, what: str) -> None:
        self.note(f"!!!   {what}")
        self.violations.append(what)

    def let_go(self) -> None:
        """Refers to nothing of the loop any more."""
        for owner in (*self.instances, *self.registrations):
            owner.tasks.clear()
        for instance in self.instances:
            instance.task = instance.kill = instance.body = None
        self.user_tasks.clear()
        self.values.clear()
        self.run_values.clear()

    # errors

    def boom(self, where: str) -> Boom:
        number = len(self.raised) + 1
        self.raised[number] = where
        self.note(f"error #{number} is raised in {where}")
        return Boom(number, where)

    def delivered(self, error: BaseException, to: Counter[int]) -> None:
        for each in _leaves(error):
            if isinstance(each, Boom):
                to[each.number] += 1
                self.note(f"error #{each.number} comes to {'a waiter' if to is self.to_waiters else 'the exception handler'}")

    def handle(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        error: BaseException | None = context.get("exception")
        message = str(context.get("message"))
        if error is None:
            self.broken(f"the exception handler got {context!r}")
            return
        is_by_runner = message.startswith("unhandled exception")  # of any task that it has cancelled, whoever else has got it
        self.delivered(error, self.by_runner if is_by_runner else self.to_handler)
        if self.tasks_are_left and "closing of asynchronous generator" in message:
            return  # that of a task which should have ended
        for each in _leaves(error):
            if isinstance(each, asyncio.CancelledError) and "died while it was held" in message:
                continue
            if not isinstance(each, Boom):
                self.broken(f"the exception handler got {each!r}: {message}")

    # acquiring

    def ask(self, place: object, what: str) -> Using:
        """Code asks for what is in a place; in the block of what this returns, it waits for that, and then calls `got`."""
        slot = self.places.get(place)
        if slot is None or slot.spent:
            slot = self.places[place] = Slot(place)
        using = Using(self, slot, slot.instance is not None and slot.instance.phase == "open")
        slot.waiters.append(using)
        self.using += 1
        self.note(f"{self.who()} asks for {what}")
        if (owner := _owner.get()) is not None:
            owner.uses.setdefault(slot, False)
            owner.last_ask = self.turn()
        for asker in _askers():
            asker.waits.append(using)
        return using

    def _answered(self, using: Using) -> None:
        using.has_answer = True
        using.slot.waiters.remove(using)
        self.using -= 1
        for asker in _askers():
            asker.waits.remove(using)

    def got(self, using: Using, value: object) -> Instance | None:
        self._answered(using)
        slot = using.slot
        instance = slot.instance
        if instance is None or value is not instance:
            name = value.name if isinstance(value, Instance) else repr(value)
            self.broken(f"{self.who()} asked for {slot.place} and got {name}, not {instance and instance.name}")
            return None
        self.note(f"{self.who()} gets {instance.name}")
        if instance.phase not in ("open", "exiting", "ended"):
            self.broken(f"{self.who()} got {instance.name}, which is {instance.phase}")
        elif instance.phase != "open" and not slot.spent:
            self.broken(f"{self.who()} got {instance.name} after its exit")
        if (owner := _owner.get()) is not None:
            owner.uses[slot] = True
        return instance

    def not_got(self, using: Using, error: BaseException) -> None:
        self._answered(using)
        if isinstance(error, asyncio.CancelledError):
            slot = using.slot
            instance = slot.instance
            self.note(f"{self.who()} is cancelled while it waits for {slot.place}")
            if not slot.waiters and not slot.spent and (instance is None or instance.phase in ("made", "entering")):
                slot.abandoned = True
                self.spend(slot)
        elif isinstance(error, RuntimeError):
            self.refused(error, using)
        else:
            self.delivered(error, self.to_waiters)

    def _begin_anew(self, slot: Slot) -> Slot:
        """The slot's instance is about to exit: callers that came too late wait for its successor."""
        late = [using for using in slot.waiters if using.when_open]
        self.spend(slot)
        if late:
            anew = self.places.get(slot.place)
            if anew is None or anew.spent:
                anew = self.places[slot.place] = Slot(slot.place)
            for using in late:
                slot.waiters.remove(using)
                anew.waiters.append(using)
                using.slot = anew
                using.when_open = False
            for owner in self._owners():
                if slot in owner.uses:
                    owner.uses.setdefault(anew, False)
            return anew
        return slot

    def spend(self, slot: Slot | None) -> None:
        """Let later calls get another one."""
        if slot is not None:
            slot.spent = True
            if self.places.get(slot.place) is slot:
                del self.places[slot.place]

    def refused(self, error: RuntimeError, target: Using | Slot | Run | None, leaving: Slot | None = None) -> None:
        """Check that a refused call would have waited for itself; a release may also wait for an exit that had begun before."""
        counts.refused += 1
        self.note(f"{self.who()} is refused: {error}")
        owner, message = _owner.get(), str(error)
        if "would wait for ever" in message:
            is_known = target is not None or not self.is_ending()  # else it may be of one that is on its way out
            # A run that calls aclose() waits for everything; a hang would show if too few were refused.
            targets = [each for each in (target, leaving) if each is not None]
            leads = "aclose()" in message or any(_leads_to(each, asker) for each in targets for asker in _askers())
            if not _askers() or (is_known and not leads):
                self.broken(f"{self.who()} was refused, though it would not have waited for itself: {error}")
            if owner is not None and isinstance(target, Using) and not owner.uses.get(target.slot):
                owner.uses.pop(target.slot, None)
        elif "while it is in use by" in message:
            users = [each for each in self._owners() if target in each.uses and each.was_alive(self.turn())]
            if not users:
                self.broken(f"{self.who()} may not release what nobody uses: {error}")
        elif "was called from inside" in message:
            if owner is None:
                self.broken(f"{self.who()}, a task of the user's, was refused: {error}")
        else:
            self.broken(f"{self.who()} got {error!r}")

    # the life of an instance

    def _owners(self) -> Iterable[Instance | Registration]:
        return (*self.instances, *self.registrations)

    def who(self) -> str:
        owner = _owner.get()
        task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
        by = "" if owner is None else f" of {owner.name}"
        return f"{task.get_name() if task is not None else 'a callback'}{by}"

    def made(self, place: object, which: int, name: str) -> Instance:
        """A new instance, for those who asked in that place."""
        unborn = self.unborn.get(place)
        slot = unborn.pop(0) if unborn else self.places.get(place)
        instance = Instance(f"{name}{which}.{len(self.instances)}", which=which, slot=slot)
        instance.is_checked = name == "c" or (name in "st" and which % 2 == 0)
        self.instances.append(instance)
        if slot is None or (slot.spent and not (slot.released and slot.instance is None)):
            self.broken(f"{instance.name} was made, though nobody had asked for it")
        elif slot.instance is not None and slot.instance.phase != "made":
            instance.slot = anew = self._begin_anew(slot)
            slot.instance.leaves_by = self.turn() + 1
            if anew is slot or slot.instance.phase != "open":
                self.broken(f"{instance.name} was made, though there is {slot.instance.name}")
            anew.instance = instance
        else:
            slot.instance = instance
        return instance

    @contextmanager
    def entering(self, instance: Instance) -> Generator[None]:
        """In the block, the enter of an instance runs."""
        counts.opened += 1
        instance.phase, instance.begun, instance.task = "entering", True, asyncio.current_task()
        self.note(f"{instance.name} begins to be entered")
        for other in self.instances:
            if other.task is instance.task and other is not instance:
                self.broken(f"{instance.name} is entered in the task of {other.name}")
        try:
            yield
        except BaseException as error:
            self._enter_failed(instance, error)
            raise
        self.opened(instance)

    def opened(self, instance: Instance) -> None:
        self.serial += 1
        instance.phase, instance.serial, instance.opened_turn = "open", self.serial, self.turn()
        instance.last_turn = self.turn()
        self.note(f"{instance.name} is open")

    def _enter_failed(self, instance: Instance, error: BaseException) -> None:
        slot = instance.slot
        counts.closed += 1
        self.note(f"{instance.name} could not be entered: {error!r}")
        if isinstance(error, asyncio.CancelledError) and slot is not None and slot.waiters:
            self.broken(f"entering {instance.name} was cancelled while {len(slot.waiters)} waited for it")
        instance.phase, instance.over, instance.last_turn = "failed", True, self.turn()
        self.spend(slot)

    @contextmanager
    def exiting(self, instance: Instance) -> Generator[None]:
        """In the block, the exit of an instance runs."""
        self._exit_begins(instance)
        ended = "is exited"
        try:
            yield
        except BaseException as error:
            ended += f", with {error!r}"
            raise
        finally:
            counts.closed += 1
            instance.phase, instance.over, instance.last_turn = "ended", True, self.turn()
            self.note(f"{instance.name} {ended}")

    def _exit_begins(self, instance: Instance) -> None:
        self.note(f"{instance.name} begins to be exited")
        slot = instance.slot
        if instance.phase != "open":
            self.broken(f"{instance.name} was exited while it was {instance.phase}")
        if instance.task is not None and instance.task is not asyncio.current_task():
            self.broken(f"{instance.name} was not exited in its own task")
        if instance.leaves_by is not None and instance.leaves_by < self.turn():
            self.broken(f"another one was made in the place of {instance.name}, which was open")
        if slot is not None:
            self._begin_anew(slot)
        if slot is not None and slot.retired and not (instance.killed or slot.released):
            instance.in_end = self.is_ending()
            self._retires(instance, slot)
        elif not (instance.killed or (slot is not None and (slot.released or slot.abandoned))):
            instance.by_end = True
            self._ends(instance, slot)
        instance.phase = "exiting"

    # what is no longer good

    def judge(self, instance: Instance) -> bool:
        """The library asks whether a value is still good."""
        slot = instance.slot
        self.note(f"{self.who()} asks whether {instance.name} is good, which is {instance.is_good}")
        if slot is None or slot.spent or instance.phase != "open":
            self.broken(f"{self.who()} asks whether {instance.name} is good, which nobody may find any more")
        elif instance.valid_fails:
            instance.valid_fails = False
            raise self.boom(f"valid of {instance.name}")
        elif not instance.is_good:
            counts.retired += 1
            slot.retired = True
            self._begin_anew(slot)
        return instance.is_good

    def _retires(self, instance: Instance, slot: Slot) -> None:
        """Check that nothing holds an instance that exits because it is no longer good."""
        if instance.holders and not instance.in_end:
            self.broken(f"{instance.name} is exited while {instance.holders} blocks hold it")
        for other in self._owners():
            is_user = other is not instance and other.uses.get(slot) and other.is_alive() and not _has_newer(other, slot)
            if is_user and not (instance.in_end and self._circle(instance, other)):
                self.broken(f"{instance.name} is exited before {other.name}, which has acquired it")

    def look_for_forgotten(self) -> None:
        """What is no longer good, and held by nothing, must not stay open."""
        turn = self.turn()
        for instance in self.instances:
            slot = instance.slot
            if slot is None or not slot.retired or instance.phase != "open":
                continue
            if instance.holders or slot.waiters or self._is_used(instance):
                instance.free_since = None
            elif instance.free_since is None:
                instance.free_since = turn
            elif turn - instance.free_since > 3:
                self.broken(f"{instance.name} stays open, though it is no longer good, and nothing holds it")

    @contextmanager
    def calling(self, registration: Registration) -> Generator[None]:
        """In the block, a callback runs."""
        self.note(f"{registration.name} begins")
        if registration.begun:
            self.broken(f"{registration.name} is called again")
        if registration.unregistered is not None and registration.unregistered < self.turn() - 1:
            self.broken(f"{registration.name} is called, though it was unregistered")
        self._ends(registration, None)
        registration.begun = True
        try:
            yield
        finally:
            registration.over, registration.last_turn = True, self.turn()
            self.note(f"{registration.name} ends")

    def is_ending(self) -> bool:
        """Whether everything is to end now."""
        return self.acloses > 0 or (self.main_done and (self.tasks_are_left or all(task.done() for task in self.user_tasks)))

    def _ends(self, ending: Instance | Registration, slot: Slot | None) -> None:
        """Check that this may end now, as part of the end of everything."""
        name, turn = ending.name, self.turn()
        if not self.is_ending():
            self.broken(f"{name} ends though the loop does not")
        for other in self._owners():
            if other is ending or not other.begun:
                continue
            exiting = isinstance(other, Registration) or (other.phase in ("exiting", "ended") and other.by_end)
            if exiting and not other.over:
                self.broken(f"{name} ends while {other.name} does")
            elif exiting and other.is_alive():
                self.broken(f"{name} ends though {other.name} has left a task behind")
            is_user = slot is not None and other.uses.get(slot) and other.is_alive() and not _has_newer(other, slot)
            if is_user and not self._circle(ending, other):
                self.broken(f"{name} ends before {other.name}, which has acquired it")
            if slot is not None and slot in other.uses and self._is_older_of_two(ending, slot, other):
                self.broken(f"{name} ends before {other.name}, which it uses as it is used by it, and which is newer")
        for newer in self._owners():
            if newer.serial <= ending.serial or newer.opened_turn >= turn - 1:
                continue
            if isinstance(newer, Registration):
                waits = not newer.begun and newer.unregistered is None
            else:
                waits = newer.phase == "open" and not newer.killed and newer.slot is not None and not newer.slot.spent
            if waits and not (isinstance(newer, Instance) and self._is_used(newer)):
                self.broken(f"{name} ends before {newer.name}, which is newer")

    def _is_used(self, instance: Instance) -> bool:
        turn = self.turn()
        return any(instance.slot in other.uses and other.was_alive(turn) for other in self._owners() if other is not instance)

    def _circle(self, start: Owner, goal: Owner) -> bool:
        """Whether ``start`` has come to use ``goal``, through whatever others: then newest first is right."""
        return _reaches(start, goal, lambda owner: [used.instance for used in owner.uses if used.instance is not None])

    def _is_older_of_two(self, ending: Instance | Registration, slot: Slot, other: Instance | Registration) -> bool:
        """Whether ``other`` is newer, and used by nobody but ``ending``, which it uses too; for some turns already."""
        if not isinstance(other, Instance) or other.phase != "open" or other.serial < ending.serial or other.slot is None:
            return False
        users = [each for each in self._owners() if each is not other and other.slot in each.uses and each.was_alive(self.turn())]
        recently = self.turn() - 2
        is_settled = max(ending.last_ask, other.last_ask, other.opened_turn) < recently
        return users == [ending] and ending.uses[other.slot] and other.uses[slot] and is_settled and not other.killed

    def touch(self, held: list[Instance]) -> None:
        """Check that a task can use what it has acquired."""
        owner = _owner.get()
        for instance in held:
            if instance.phase == "open" or instance.killed or self.tasks_are_left:
                continue
            if instance.slot is not None and (instance.slot.released or (owner is not None and _has_newer(owner, instance.slot))):
                continue
            if (instance.by_end or instance.in_end) and (
                (owner is None and self.acloses_ever) or (owner is not None and self._circle(instance, owner))
            ):
                continue
            self.broken(f"{self.who()} uses {instance.name}, which is {instance.phase}")

    acloses_ever = False

    # the end

    def expect_all_ended(self, when: str = "") -> None:
        for instance in self.instances:
            if instance.phase in ("entering", "open", "exiting"):
                self.broken(f"{when}{instance.name} is still {instance.phase}")
        for registration in self.registrations:
            if not registration.over and registration.unregistered is None:
                self.broken(f"{when}{registration.name} was not called, or has not ended")

    def finish(self) -> None:
        """Check, when the loop is closed, that nothing is left."""
        self.expect_all_ended()
        for task in (*self.user_tasks, *(task for owner in self._owners() for task in owner.tasks)):
            if not task.done() and not self.tasks_are_left:
                self.broken(f"{task.get_name()} has not ended")
        if self.using and not self.tasks_are_left:
            self.broken(f"{self.using} are still waiting")

    def finish_errors(self) -> None:
        """Check, when nothing can be reported any more, that every error was reported, and once."""
        for number, where in self.raised.items():
            awaited, handled = self.to_waiters[number], self.to_handler[number]
            twice = handled and awaited and not self.tasks_are_left  # else a task has waited for the very end of the loop
            if handled > 1 or twice or not (handled or awaited or number in self.by_runner):
                self.broken(f"error #{number} of {where} came to {awaited} waiters, and {handled} times to the exception handler")
        counts.errors += len(self.raised)


def _leads_to(start: Using | Slot | Run, goal: Owner | Run) -> bool:
    """Whether what is waited for waits for ``goal``, through whatever others."""

    def next_of(node: Any) -> Iterable[object]:
        if isinstance(node, Using):
            return [node.slot]
        return node.waits if isinstance(node, Owner | Run) else [] if node.instance is None else [node.instance]

    return _reaches(start, goal, next_of)


def _reaches(start: object, goal: object, next_of: Callable[[Any], Iterable[object]]) -> bool:
    """Whether a path leads from one node of a graph to another."""
    seen: set[object] = set()
    to_visit = [start]
    while to_visit:
        at = to_visit.pop()
        if at is goal:
            return True
        if at not in seen:
            seen.add(at)
            to_visit.extend(next_of(at))
    return False


# ---------------------------------------------------------------- the program


class Entered:
    """The ACM of a resource; it can be entered again, and several times at once."""

    def __init__(self, program: Program, which: int, place: object, made: Instance | None = None) -> None:
        self._program = program
        self._which = which
        self._place = place
        self._made = made
        self._by_task: dict[asyncio.Task[Any] | None, Instance] = {}

    async def __aenter__(self) -> Instance:
        program, monitor = self._program, self._program.monitor
        instance, self._made = self._made or monitor.made(self._place, self._which, "r"), None
        self._by_task[asyncio.current_task()] = instance
        _owner.set(instance)
        _asker.set(instance)
        with monitor.entering(instance):
            instance.body = program.life_of(instance)
            await instance.body.__aenter__()
        return instance

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        monitor = self._program.monitor
        instance = self._by_task.pop(asyncio.current_task(), None)
        if instance is None or instance.body is None:
            monitor.broken(f"r{self._which} is exited in a task in which it was not entered")
            return None
        with monitor.exiting(instance):
            return await instance.body.__aexit__(*exc_info)


@dataclass
class _Life:
    """What a resource without a task group does."""

    program: Program
    instance: Instance
    held: list[Instance] = field(default_factory=list[Instance])

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.instance.kill = task.cancel
        await self.program.do_step(self.instance, "enter", self.held)

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.program.do_step(self.instance, "exit", self.held)


class Program:
    """Runs one history, and reports every step to the monitor."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.monitor = Monitor()
        self.budget = 300
        self._attempts: dict[object, int] = {}
        self._made: dict[object, Any] = {}
        self._started = 0
        self.has_cancelled = False

    def let_go(self) -> None:
        """Refers to nothing of the loop any more; an object that a call has given refers to the loop of that call."""
        self.monitor.let_go()
        self._made.clear()

    def _once(self, what: str, which: int, make: Callable[[int], T]) -> T:
        """What the first call of this has made, which is kept."""
        if (what, which) not in self._made:
            self._made[what, which] = make(which)
        made: T = self._made[what, which]
        return made

    def attempt(self, *what: object) -> int:
        """How often this is done now."""
        self._attempts[what] = attempt = self._attempts.get(what, 0) + 1
        return attempt

    async def do_step(self, instance: Instance, step: Literal["enter", "exit"], held: list[Instance]) -> None:
        """Does what the resource does as it is entered or exited."""
        ops: Ops = getattr(self.history.resources[instance.which], step)
        await self.do(ops, held, instance.name, self.attempt(instance.which, step))

    def life_of(self, instance: Instance) -> AbstractAsyncContextManager[None]:
        return self._group_life(instance) if self.history.resources[instance.which].group else _Life(self, instance)

    @asynccontextmanager
    async def _group_life(self, instance: Instance) -> AsyncGenerator[None]:
        held, leave = list[Instance](), asyncio.get_running_loop().create_future()

        async def member() -> None:
            try:
                await leave
            except asyncio.CancelledError:
                if not leave.cancelled() and (error := leave.exception()) is not None:
                    raise error from None  # which came first, and would be lost
                raise

        def die() -> None:
            if not leave.done():
                leave.set_exception(self.monitor.boom(f"the task group of {instance.name}"))

        async with asyncio.TaskGroup() as group:
            group.create_task(member())
            await self.do_step(instance, "enter", held)
            instance.kill = die
            try:
                yield
            finally:
                await self.do_step(instance, "exit", held)
                if not leave.done():
                    leave.set_result(None)

    # the factories, which the wrapped ones of this module call

    def make(self, which: int, door: Literal["factory", "checked"] = "factory") -> Entered:
        place = (door, which)
        return Entered(self, which, place, self._made_by_function(place, which, door[0]))

    def make_closed(self, which: int) -> Instance:
        instance = self._made_by_function(("closed", which), which, "s")
        _asker.set(instance)
        counts.opened += 1
        instance.begun = True
        self.monitor.opened(instance)
        return instance

    def _made_by_function(self, place: object, which: int, name: str) -> Instance:
        instance = self.monitor.made(place, which, name)
        _owner.set(instance)
        for op in self.history.resources[which].make:
            instance.begun = True
            self.do_now(op, instance.name, self.attempt("make", which))
        return instance

    async def connect(self, which: int) -> Instance:
        monitor = self.monitor
        instance = monitor.made(("connected", which), which, "t")
        _owner.set(instance)
        _asker.set(instance)
        with monitor.entering(instance):
            await self.do_step(instance, "enter", [])
            if instance.task is not None:
                instance.kill = instance.task.cancel
        return instance

    async def close(self, instance: Instance) -> None:
        with self.monitor.exiting(instance):
            await self.do_step(instance, "exit", [])

    async def run(self, which: int) -> object:
        _asker.set(self.monitor.runs[which])
        self.monitor.note(f"run{which} begins")
        owner = _owner.get()
        if owner is not None:
            owner.runs += 1
        try:
            await self.do(self.history.runs[which], [], f"run{which}", self.attempt("run", which))
        finally:
            if owner is not None:
                owner.runs -= 1
                owner.last_turn = self.monitor.turn()
        self.monitor.note(f"run{which} ends")
        return object()

    # the ops

    def _has_budget(self) -> bool:
        self.budget -= 1
        counts.operations += 1
        return self.budget > 0

    async def do(self, ops: Ops, held: list[Instance], where: str, attempt: int) -> None:
        """Does them one after the other."""
        for op in ops:
            if not self._has_budget():
                return
            match op:
                case Turns(count):
                    for _ in range(count):
                        await asyncio.sleep(0)
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Idle():
                    loop = asyncio.get_running_loop()
                    assert isinstance(loop, DeterministicLoop)
                    await loop.idle()
                case Forever():
                    if _was_cancelled():
                        raise asyncio.CancelledError  # which a stubborn op has kept for itself
                    await asyncio.get_running_loop().create_future()
                case Stubborn(turns):
                    for _ in range(turns):
                        try:
                            await asyncio.sleep(0)
                        except asyncio.CancelledError:
                            continue
                case Use(door, which, kept):
                    await self._use(door, which % len(self.history.resources), kept, held)
                case Block(which, body, kept):
                    await self._block(which % len(self.history.resources), kept, body, held, where, attempt)
                case Await(which, kept):
                    if self.monitor.main_done and _owner.get() is None and self.history.end != "close":
                        return  # as what is spawned then, below
                    await self._await(which % len(self.history.runs), kept)
                case Release(what, which):
                    await self._release(what, which)
                case Aclose():
                    await self.aclose()
                case Together(parts):
                    self.has_cancelled = True  # a task that is cancelled while it knows a task group is a circle
                    async with asyncio.TaskGroup() as group:
                        for part in parts:
                            self.start(part, group)
                case Guard(body, cleanup):
                    try:
                        await self.do(body, held, where, attempt)
                    except Exception as error:
                        self.monitor.delivered(error, self.monitor.to_waiters)
                    except asyncio.CancelledError:
                        await self.do(cleanup, held, where, attempt)
                        raise
                    await self.do(cleanup, held, where, attempt)
                case _:
                    self.do_now(op, where, attempt)
            self.monitor.touch(held)
            self.monitor.look_for_forgotten()

    def do_now(self, op: Op, where: str, attempt: int) -> None:
        """Does what need not wait."""
        monitor = self.monitor
        match op:
            case Spawn(ops):
                if monitor.main_done and _owner.get() is None and self.history.end != "close":
                    return  # runners leave alone what is started by what they cancel
                self.start(ops)
            case Call(which):
                value = call(which)
                if (
                    monitor.values.setdefault(which, value) is not value and not monitor.tasks_are_left
                ):  # else it may be forgotten
                    monitor.broken(f"singleton {which} was made again")
            case Store(which):
                if storage().get(which) is not monitor.stored.get(which):
                    monitor.broken(f"the storage has {storage()}, not {monitor.stored}")
                storage()[which] = monitor.stored.setdefault(which, object())
            case Register(which):
                self._register(which % len(self.history.callbacks))
            case Unregister(which):
                which %= len(self.history.callbacks)
                monitor.note(f"unregister c{which}")
                for registration in monitor.registrations:
                    if registration.which == which and not registration.begun and registration.unregistered is None:
                        registration.unregistered = monitor.turn()
                asyncio_loop_local.atexit.unregister(self._callback(which))
            case Spoil(which, fails):
                found = [slot.instance for slot in monitor.places.values() if slot.instance is not None]
                found = [each for each in found if each.phase == "open" and each.is_checked]
                if found:
                    instance = found[-1 - which % len(found)]
                    monitor.note(f"{instance.name} is {'hard to judge' if fails else 'no longer good'}")
                    if fails:
                        instance.valid_fails = True
                    else:
                        instance.is_good = False
            case Cancel(which):
                tasks = [task for task in monitor.user_tasks if not task.done()]
                if tasks:
                    task = tasks[-1 - which % len(tasks)]
                    counts.cancelled += 1
                    self.has_cancelled = True
                    monitor.note(f"{task.get_name()} is cancelled")
                    task.cancel()
            case Kill(which):
                which %= len(self.history.resources)
                for instance in monitor.instances:
                    if instance.which == which and instance.phase == "open" and not instance.killed and instance.kill is not None:
                        instance.killed = self.has_cancelled = True
                        monitor.note(f"{instance.name} is killed")
                        instance.kill()
                        break
            case Fail(times):
                if attempt <= times:
                    raise monitor.boom(where)
            case _:
                raise TypeError(op)

    def start(self, ops: Ops, group: asyncio.TaskGroup | None = None) -> asyncio.Task[None]:
        """Starts a task of the program's."""
        owner = _owner.get()
        self._started += 1
        name = f"task{self._started}"
        self.monitor.note(f"{name} is started{'' if owner is None else f' by {owner.name}'}")
        coroutine = self._task(ops, name, owner, child=group is not None)
        task = asyncio.create_task(coroutine, name=name) if group is None else group.create_task(coroutine, name=name)
        if owner is not None:
            owner.tasks.append(task)
        else:
            self.monitor.user_tasks.append(task)
        return task

    async def _task(self, ops: Ops, name: str, owner: Owner | None, *, child: bool) -> None:
        monitor = self.monitor
        try:
            await self.do(ops, [], name, 1)
        except asyncio.CancelledError:
            monitor.note(f"{name} ends cancelled")
            if sys.version_info >= (3, 12):
                self.has_cancelled = True  # there, a task that is cancelled and its loop are a circle in asyncio itself
            if owner is not None and not owner.over and not child:
                monitor.broken(f"{name} was cancelled before the end of {owner.name}, which had started it")
            raise
        except GeneratorExit:
            monitor.broken(f"{name} was dropped")
            raise
        finally:
            if owner is not None:
                owner.last_turn = monitor.turn()

    async def _use(self, door: Door, which: int, kept: int, held: list[Instance]) -> None:
        place: object = (door, which)
        if door == "enter":
            place = ("enter", object())
        elif door not in CHECKED:
            place = ("once" if door in ("once", "sticky") else "factory", which)
        if self._has_enough(door, which):
            return
        with self.monitor.ask(place, f"{door} {which}") as using:
            instance = self.monitor.got(using, await self._value(door, which, kept, place))
            if instance is not None and (door not in CHECKED or _owner.get() not in (None, instance)):
                held.append(instance)  # nothing keeps itself open

    async def _value(self, door: Door, which: int, kept: int, place: object) -> object:
        """What a call gives."""
        match door:
            case "enter":
                return await enter(Entered(self, which, place))
            case "once":
                return await enter_once(self._object(which))
            case "sticky":
                sticky = self._once("sticky", which, lambda which: sticky_acm(self._object(which)))
            case "kept":
                sticky = self._once("kept", which, make)
            case "factory":
                sticky = make(which)
            case "closed":
                return self._checked(door, which, 0)
            case _:
                return await self._checked(door, which, kept)
        async with sticky as value:
            return value

    def _checked(self, door: Checked, which: int, kept: int) -> Any:
        """What a call gives."""
        call = CHECKED[door][which % 2]
        return self._once(door, which, call) if kept else call(which)

    def _has_enough(self, door: Door, which: int) -> bool:
        """Exits that enter what enters them at its exit would never come to an end."""
        instances = self.monitor.instances
        if door in CHECKED:
            return sum(each.slot is not None and each.slot.place == (door, which) for each in instances) > _INSTANCES
        return sum(each.which == which for each in instances) > _INSTANCES

    async def _block(self, which: int, kept: int, body: Ops, held: list[Instance], where: str, attempt: int) -> None:
        monitor = self.monitor
        if self._has_enough("checked", which):
            return
        with monitor.ask(("checked", which), f"a block of checked {which}") as using:
            async with self._checked("checked", which, kept) as value:
                if (instance := monitor.got(using, value)) is None:
                    return
                if _owner.get() not in (None, instance):
                    held.append(instance)
                instance.holders += 1
                try:
                    monitor.touch([instance])
                    await self.do(body, [*held, instance], where, attempt)
                finally:
                    instance.holders -= 1

    def _object(self, which: int) -> Entered:
        return self._once("object", which, lambda which: Entered(self, which, ("once", which)))

    async def _await(self, which: int, kept: int) -> None:
        monitor = self.monitor
        values = monitor.run_values.setdefault(which, {})
        monitor.runs.setdefault(which, Run())
        if self._attempts.get(("run", which), 0) > _INSTANCES:
            return  # nor do runs that release themselves and run themselves again
        monitor.note(f"{monitor.who()} awaits run{which}")
        coroutine = self._once("run", which, call_run) if kept else call_run(which)
        target = monitor.runs[which]
        try:
            with _waiting_for(target):
                value = await coroutine
        except RuntimeError as error:
            monitor.refused(error, target)
        except Exception as error:
            monitor.delivered(error, monitor.to_waiters)
        else:
            if not kept and values.setdefault("value", value) is not value and not monitor.tasks_are_left:  # as with other values
                monitor.broken(f"{monitor.who()} got another result of run{which} than others")

    async def _release(self, what: str, which: int) -> None:
        monitor = self.monitor
        monitor.note(f"{monitor.who()} releases {what} {which}")
        if what == "value":
            there = monitor.values.pop(which, None) is not None
            if await release(call, which) != there and not monitor.tasks_are_left:
                monitor.broken(f"the release of singleton {which} did not return {there}")
            return
        if what == "run":
            which %= len(self.history.runs)
            monitor.run_values.pop(which, None)
            await release(call_run, which)
            return
        which %= len(self.history.resources)
        place = ("factory" if what == "resource" else what, which)
        factory: Callable[[int], object] = make if what == "resource" else CHECKED[what][which % 2]
        slot, leaving = monitor.places.get(place), monitor.leaving.get(place)
        is_ending = monitor.is_ending()  # then it may be on its way out already, and what is found is an older one
        expected = slot is not None and slot.instance is not None
        is_used = slot is not None and slot.instance is not None and self._is_surely_used(slot)

        def accepted(is_done: bool, result: object) -> None:
            if slot is not None and not (is_done and result is False):
                slot.released = True
                monitor.spend(slot)
                monitor.leaving[place] = slot
                if slot.instance is None and what == "connected":
                    monitor.unborn.setdefault(place, []).append(slot)
                if is_used:
                    monitor.broken(f"{monitor.who()} may release {slot.instance and slot.instance.name}, which is in use")

        target = slot or leaving
        try:
            with _waiting_for(target):
                was_there = await _stepped(release(factory, which), accepted)
        except RuntimeError as error:
            monitor.refused(error, target, leaving)
            return
        except Exception as error:
            monitor.delivered(error, monitor.to_waiters)
            was_there = True
        monitor.note(f"{monitor.who()} has released {place}: {was_there}")
        if slot is None and was_there and leaving is None:
            monitor.broken(f"{monitor.who()} has released {place}, where there was nothing")
        if expected and not was_there and not is_ending:
            monitor.broken(f"{monitor.who()} has released nothing, though there was {place}")
        if slot is not None and slot.instance is not None and was_there and not is_ending:
            instance = slot.instance
            if instance.begun and (not instance.over or any(not task.done() for task in instance.tasks)):
                monitor.broken(f"{monitor.who()} has released {instance.name} before that has ended")

    def _is_surely_used(self, slot: Slot) -> bool:
        monitor, instance = self.monitor, slot.instance
        return instance is not None and any(
            each.uses.get(slot) and each.begun and not (each.over or each is instance or monitor._circle(instance, each))
            for each in monitor._owners()
        )

    async def aclose(self) -> None:
        monitor = self.monitor
        monitor.note(f"{monitor.who()} calls aclose()")
        owner = _owner.get()
        counted: list[bool] = []

        def accepted(_is_done: bool, _result: object) -> None:
            monitor.acloses += 1
            monitor.acloses_ever = True
            counted.append(True)
            if owner is not None and not owner.over:
                monitor.broken(f"{monitor.who()} may call aclose()")

        try:
            await _stepped(asyncio_loop_local.aclose(), accepted)
        except RuntimeError as error:
            monitor.refused(error, None)
            return
        except ExceptionGroup as error:
            monitor.delivered(error, monitor.to_waiters)
        finally:
            monitor.acloses -= len(counted)
        monitor.note(f"{monitor.who()} has called aclose()")
        for forgotten in (monitor.values, monitor.stored, monitor.run_values):
            forgotten.clear()
        monitor.expect_all_ended("after aclose(), ")
        if resources() or storage():
            monitor.broken(f"after aclose(), there is still {resources()}, and {storage()} in the storage")

    def _callback(self, which: int) -> Callable[[Registration], Awaitable[None]]:
        async def callback(registration: Registration) -> None:
            _owner.set(registration)
            with self.monitor.calling(registration):
                await self.do(self.history.callbacks[which], [], registration.name, 1)

        return self._once("callback", which, lambda _: callback)

    def _register(self, which: int) -> None:
        monitor = self.monitor
        monitor.serial += 1
        registration = Registration(f"c{which}.{len(monitor.registrations)}", which=which, opened_turn=monitor.turn())
        registration.serial = monitor.serial
        monitor.registrations.append(registration)
        monitor.note(f"register {registration.name}")
        asyncio_loop_local.atexit.register(self._callback(which), registration)

    async def main(self) -> None:
        try:
            await self.do(self.history.main, [], "main", 1)
            if self.history.end == "aclose":
                await self.aclose()
            elif self.history.end == "close":
                self._register(0)  # so that there is something to end
        finally:
            self.monitor.note("main ends")
            if self.history.end in ("runner", "aclose") and not all(task.done() for task in self.monitor.user_tasks):
                self.has_cancelled = True  # by `asyncio.gather`, which makes a circle
            self.monitor.main_done = True


def _was_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


_INSTANCES = 8

_program: list[Program] = []  # the one that runs, if any

# Factories, whose calls make what the program that runs says.


@sticky_singleton_acm
def make(which: int) -> Entered:
    return _program[-1].make(which)


def make_checked(which: int) -> Entered:
    return _program[-1].make(which, "checked")


def make_closed(which: int) -> Instance:
    return _program[-1].make_closed(which)


async def connect(which: int) -> Instance:
    return await _program[-1].connect(which)


async def close(instance: Instance) -> None:
    await _program[-1].close(instance)


def judge(instance: Instance) -> bool:
    return _program[-1].monitor.judge(instance)


def own_key(which: int) -> int:
    return which


# Of each kind one, and another one, which differs: in what is said by ``key=``, and in that nothing is checked.
CHECKED: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "checked": (
        sticky_singleton_acm(make_checked, valid=judge),
        sticky_singleton_acm(make_checked, valid=judge, key=own_key),
    ),
    "closed": (singleton(make_closed, close=close, valid=judge), singleton(make_closed, close=close)),
    "connected": (singleton(connect, close=close, valid=judge, key=own_key), singleton(connect, close=close)),
}


@singleton
def call(which: int) -> object:
    return object()


@singleton
async def call_run(which: int) -> object:
    return await _program[-1].run(which)


@types.coroutine
def _stepped(coroutine: Coroutine[Any, Any, T], accepted: Callable[[bool, object], None]) -> Generator[Any, Any, T]:
    """Awaits the coroutine; says so as soon as it has got as far as to wait, or to return, and not to raise."""
    step = partial(coroutine.send, None)
    is_first = True
    try:
        while True:
            try:
                waits_for = step()
            except StopIteration as stop:
                if is_first:
                    accepted(True, stop.value)
                return stop.value  # type: ignore[no-any-return]  # what the coroutine returned
            if is_first:
                accepted(False, None)
                is_first = False
            try:
                step = partial(coroutine.send, (yield waits_for))
            except BaseException as error:
                step = partial(coroutine.throw, error)
    finally:
        del step  # it may hold an error, whose traceback holds this frame


# ---------------------------------------------------------------- the run


def _cancel_all(program: Program, loop: asyncio.AbstractEventLoop) -> None:
    """Cancels the tasks of a loop and waits for them, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    program.has_cancelled = True  # the loop's own frames are in the tracebacks of what that raises
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            loop.call_exception_handler({"message": "unhandled exception at the end", "exception": error, "task": task})


def _run_to_end(program: Program, loop: DeterministicLoop) -> None:
    end = program.history.end
    if end in ("runner", "aclose"):
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(program.main())
        return
    loop.run_until_complete(program.main())
    if end == "shutdown":
        program.monitor.tasks_are_left = True
        loop.run_until_complete(loop.shutdown_asyncgens())
        program.monitor.values.clear()
        program.monitor.run_values.clear()
        _cancel_all(program, loop)
    if end in ("run", "twice"):
        _cancel_all(program, loop)
        for _ in range(1 + (end == "twice")):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    if end == "close" and not vars(loop)["_asyncio_loop_local"].exits:
        _cancel_all(program, loop)  # closing a loop of which the library holds nothing cancels no task
    for _ in range(1 + (end == "twice")):
        loop.close()


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Closes a loop on which nothing can be run any more; what it held is dropped."""
    state: Any = vars(loop).pop("_asyncio_loop_local", None)
    if state is not None:
        state._detach()
    asyncio.BaseEventLoop.close(loop)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it is one


def new_loop(monitor: Monitor, *, eager: bool) -> DeterministicLoop:
    """A loop that reports its errors to the monitor."""
    loop = DeterministicLoop()
    loop.set_exception_handler(monitor.handle)
    clock = loop.clock
    monitor.turn = lambda: clock.turns
    if eager and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def script(history: History) -> str:
    """The history as a script to be run in the directory of the tests."""
    lines = [f"    {each.name}={getattr(history, each.name)!r}," for each in fields(history)]
    return "\n".join(["from model import *", "", "check(History(", *lines, "), show=True)"])


def check(
    history: History,
    *,
    prepare: Callable[[Program, DeterministicLoop], object] | None = None,
    let_go: Callable[[], object] | None = None,
    show: bool = False,
) -> Program:
    """Run a history, and compare all that happens in it with the contract.

    ``prepare`` is called before it runs, and ``let_go`` after the loop is closed, before it is looked whether the loop is freed.

    :raises Broken: with a script, and with all that happened.
    """
    program = Program(history)
    monitor = program.monitor
    hooked: list[str] = []

    def hook(args: sys.UnraisableHookArgs) -> None:
        hooked.append(f"{args.err_msg}: {args.exc_value!r}")

    unraisable, sys.unraisablehook = sys.unraisablehook, hook
    _program.append(program)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            loop = new_loop(monitor, eager=history.eager)
            alive = weakref.ref(loop)
            if prepare is not None:
                prepare(program, loop)
            try:
                _run_to_end(program, loop)
            except (Deadlock, Livelock) as error:
                monitor.broken(f"{error}")
                _abandon(loop)
            except Exception as error:
                monitor.delivered(error, monitor.to_waiters)
                if not all(isinstance(each, Boom) for each in _leaves(error)):
                    monitor.broken(f"{error!r} came out of the loop")
            warned_of = [str(each.message) for each in warned]
            warned.clear()  # some refer to the loop
            counts.histories += 1
            counts.turns += loop.clock.turns
            turns = loop.clock.turns
            monitor.turn = lambda: turns
            del loop
            monitor.finish()
            if let_go is not None:
                let_go()
            program.let_go()
            if alive() is not None and not monitor.violations:
                gc.collect()
                if alive() is not None:
                    monitor.broken("the loop is still alive")
                elif not (
                    monitor.raised
                    or program.has_cancelled
                    or monitor.tasks_are_left  # beside them, the loop may have closed a generator that was just opened
                    or any(each.phase == "failed" for each in monitor.instances)
                ):
                    monitor.broken("the loop was freed by the cycle collector alone")
            monitor.finish_errors()
            warned_of += [str(each.message) for each in warned]
            if monitor.violations:
                gc.collect()  # or what is left would trouble the next history
            for message in warned_of:
                if not (history.end == "shutdown" and "was scheduled after loop.shutdown_asyncgens() call" in message):
                    monitor.broken(f"warning: {message}")
    finally:
        _program.pop()
        sys.unraisablehook = unraisable
    for each in hooked:
        monitor.broken(f"unraisable: {each}")
    if show:
        print("\n".join(monitor.trace))
    if monitor.violations:
        broken = "\n".join(f"  - {each}" for each in monitor.violations)
        trace = "\n".join(monitor.trace)
        raise Broken(
            f"{monitor.violations[0]}\n\nbroken:\n{broken}\n\nscript:\n\n{script(history)}\n\nturn, and what happened:\n{trace}\n"
        )
    return program
