"""What the library uses that is private to CPython, and what differs from one version of it to the next.

Besides this, `_keys` reads sizes of classes, and eager tasks, which are new in 3.12, are made where they are needed.
Each entry gives the reason. All were checked on CPython 3.11 to 3.15, and ``tests/facts`` has a test of each fact, so that
a new version of Python says at once which one has changed.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
import sys
from asyncio import tasks
from concurrent.futures import thread
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ForwardRef, cast, get_origin

if sys.version_info >= (3, 14):
    import annotationlib

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_FRAMES_NEEDED = 80

# The module under `signal`. The public functions turn every handler into an enum member, which takes longer than all the rest
# of what the end of a loop does about signals.
signal: Any = import_module("_signal")


def lru_cache(function: Callable[..., Any]) -> functools._lru_cache_wrapper[Any]:
    """Return what ``functools.lru_cache(maxsize=None, typed=True)`` makes of a function.

    The public decorator also copies the function's name and documentation, which costs as much again at each first call on a
    loop.
    """
    cache: functools._lru_cache_wrapper[Any] = _make_lru_cache(function, None, True, _cache_info)
    return cache


_make_lru_cache: Any = functools._lru_cache_wrapper
_cache_info: Any = vars(functools)["_CacheInfo"]


def signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a callable, and leave its annotations unevaluated.

    From Python 3.14 on `inspect.signature` evaluates them, which raises for names that are imported ``if TYPE_CHECKING``. As
    strings it tries so too, which loads what is imported lazily. So it gets functions without annotations. Of a class with type
    arguments, as ``Queue[int]``, it reads no parameters, or fails; so it gets the class alone.

    :raises TypeError, ValueError: as `inspect.signature`.
    """
    factory = _without_type_arguments(factory)
    if sys.version_info >= (3, 14):
        found = inspect.signature(_without_annotations(factory), annotation_format=annotationlib.Format.STRING)
    else:
        found = inspect.signature(factory)
    return found


def _without_type_arguments(factory: Any) -> Any:
    while get_origin(factory) is not None:
        factory = factory.__origin__
    if type(factory) is not functools.partial or get_origin(factory.func) is None:
        return cast("Any", factory)
    return functools.partial(_without_type_arguments(factory.func), *factory.args, **factory.keywords)


def _without_annotations(factory: Any) -> Any:
    """Return something with the same parameters and, where they come from a function in Python, without annotations."""
    if isinstance(factory, FunctionType):
        function: Any = inspect.unwrap(factory, stop=_has_own_signature)
        if not isinstance(function, FunctionType) or _has_own_signature(function):
            return function
        bare = FunctionType(function.__code__, {}, function.__name__, function.__defaults__, function.__closure__)
        bare.__kwdefaults__ = function.__kwdefaults__
        return bare
    if isinstance(factory, MethodType):
        return MethodType(_without_annotations(factory.__func__), factory.__self__)
    if type(factory) is functools.partial:
        return functools.partial(_without_annotations(factory.func), *factory.args, **factory.keywords)
    if isinstance(factory, type):
        constructor = None if type(factory).__call__ is not type.__call__ else _constructor_of(factory)
        return factory if constructor is None else MethodType(_without_annotations(constructor), factory)
    kind: Any = factory.__class__
    call = inspect.getattr_static(kind, "__call__", None)  # which may be static
    is_plain = isinstance(call, FunctionType) and not hasattr(factory, "__signature__")
    return MethodType(_without_annotations(call), factory) if is_plain else factory


def _has_own_signature(function: Any) -> bool:
    """Tell whether `inspect.signature` reads the parameters of a function from one of its attributes."""
    return any(hasattr(function, name) for name in ("__signature__", "__partialmethod__", "_partialmethod"))


def _constructor_of(kind: type) -> FunctionType | None:
    """Return the function in Python that takes the arguments of a class, where that is plain to see."""
    if any("__signature__" in vars(base) for base in kind.__mro__):
        return None
    for base in kind.__mro__:
        for name in ("__new__", "__init__"):
            found = vars(base).get(name)
            function = getattr(found, "__func__", found)
            if name == "__new__" and not isinstance(inspect.unwrap(cast("Any", function)), FunctionType):
                continue  # it wraps `object.__new__`, as that of ``@warnings.deprecated`` does
            if function is not None:
                return function if isinstance(function, FunctionType) else None
    return None


def annotate_like(wrapper: Any, factory: Any) -> None:
    """Give a function the annotations of a callable that is not a function, so that `typing.get_type_hints` finds the same.

    It evaluates the strings among a function's annotations where `inspect.unwrap` leads to; a class has no globals there, so
    its strings take the name of its module along.
    """
    if sys.version_info >= (3, 14):

        def annotate(format_: annotationlib.Format) -> dict[str, Any]:
            return _annotations(factory, partial(annotationlib.get_annotations, format=format_))

        wrapper.__annotate__ = annotate
    else:
        wrapper.__annotations__ = _annotations(factory, inspect.get_annotations)


def _annotations(factory: Any, annotations_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    if not isinstance(factory, type):
        function = getattr(factory, "__func__", None)
        return annotations_of(function) if isinstance(function, FunctionType) else {}
    found: dict[str, Any] = {}
    mro: Any = factory.__mro__
    for base in reversed(mro):
        module = getattr(base, "__module__", None)
        for name, annotation in annotations_of(base).items():
            found[name] = ForwardRef(annotation, module=module, is_class=True) if isinstance(annotation, str) else annotation
    return found


frozendict: type[Any] | None = getattr(builtins, "frozendict", None)  # from Python 3.15 on


# From Python 3.14 on asyncio keeps tasks of its C class and of its Python class apart, and so do its C functions and its Python
# functions. nest_asyncio uses the Python class.
_CTask: Any = import_module("_asyncio").Task
_all_in_tasks: Any = tasks
_python_tasks: Any = _all_in_tasks._current_tasks  # the running task by loop; before Python 3.14 of either class


def current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """Return the task that runs on a loop, of whichever class."""
    task: asyncio.Task[Any] | None = _python_tasks.get(loop)
    return asyncio.current_task(loop) if task is None else task


def hide_task(task: asyncio.Task[Any]) -> None:
    """Take a task out of `asyncio.all_tasks`, by which a runner finds the tasks to cancel before it closes the loop.

    ``_unregister_task`` is documented for task implementers. A loop that is dropped unclosed is reported by one warning of
    ours, so asyncio need not report each of its hidden tasks; `asyncio.gather` sets the same private attribute.
    """
    tasks._unregister_task(task)
    if sys.version_info >= (3, 14) and not isinstance(task, _CTask):
        _all_in_tasks._py_unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # private, as the docstring says


def all_tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return the tasks of a loop that are not done, wherever they were made, and of whichever class.

    From Python 3.14 on `asyncio.all_tasks`, asked inside the running loop, sees only tasks that were made in this thread; asked
    where no loop runs, it sees all.
    """
    if sys.version_info >= (3, 14):
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            found = asyncio.all_tasks(loop).union(_all_in_tasks._py_all_tasks(loop))
        finally:
            asyncio._set_running_loop(outer)
    else:
        found = asyncio.all_tasks(loop)
    return found


def hide_creation_frames(task: asyncio.Task[Any], file: str) -> None:
    """Take the frames of a file out of the traceback that debug mode shows as the place at which a task was created.

    asyncio does the same with its own frame.
    """
    frames: Any = getattr(task, "_source_traceback", None)
    if frames:
        frames[:] = [each for each in frames if each.filename != file]


def threads_have_shut_down() -> bool:
    """Tell whether the interpreter's exit has shut all thread pools, so that none takes a new call."""
    return bool(getattr(thread, "_shutdown", False))


def has_unseen_error(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task has failed and nobody has got its error. asyncio uses the same attribute to report such errors."""
    return not task.cancelled() and bool(task._log_traceback)


def wake_at_once(future: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """Set the result of a future, and let the task that waits for it take its next step before this returns.

    Public calls can only schedule that step for the loop's next turn, and a turn for each exit makes the end of a loop
    slower by half. If the future has not exactly one callback, or the running task is not of the C class, the step is
    scheduled as usual.
    """
    waiting: list[tuple[Any, Any]] | None = getattr(future, "_callbacks", None)
    task = asyncio.current_task(loop)
    if not waiting or len(waiting) > 1 or current_task(loop) is not task:
        future.set_result(None)
        return
    [(wake, context)] = waiting
    future.remove_done_callback(wake)
    future.set_result(None)
    if task is not None:
        tasks._leave_task(loop, task)
    try:
        context.run(wake, future)
    finally:
        if task is not None:
            tasks._enter_task(loop, task)


@contextmanager
def no_running_loop() -> Generator[None]:
    """Let another loop run in a thread in which a loop is running already, which goes on afterwards."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            tasks._enter_task(outer, task)


def running_loop_or_none() -> asyncio.AbstractEventLoop | None:
    """Return the running loop, or None where `asyncio.get_running_loop` would raise. Documented for loop implementers."""
    return asyncio._get_running_loop()


def is_eager_task_factory(factory: object) -> bool:
    """Tell whether a task factory is one of those that asyncio makes: `asyncio.eager_task_factory` or one like it."""
    return sys.version_info >= (3, 12) and getattr(factory, "__code__", None) is asyncio.eager_task_factory.__code__


def task_class_of(eager_task_factory: Any) -> Any:
    """Return the class, or function, by which an eager task factory of asyncio's makes its tasks.

    anyio looks there, and then makes tasks by what it finds, past the loop.
    """
    (cell,) = eager_task_factory.__closure__
    return cell.cell_contents


def mark_coroutine_function(function: Any) -> None:
    """Let `inspect.iscoroutinefunction`, or before Python 3.12 that of asyncio, know that calls give coroutines."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # its mark before 3.12


def require_stack() -> None:
    """Raise where too few frames are left: an enter or exit that failed midway could leave a task waiting for ever.

    :raises RecursionError: before anything has begun.
    """
    try:
        sys._getframe(max(sys.getrecursionlimit() - _FRAMES_NEEDED, 0))
    except ValueError:
        return  # the stack is not as deep as that
    raise RecursionError("the stack is too deep for something to be entered or ended safely")
