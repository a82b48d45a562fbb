"""Compare what the mypy plugin reads in stubs with what is true at run time: which classes give new objects that equal no other.

    python -m benchmarks.fresh_key_scan [PACKAGE…]

Without packages: the standard library. Prints each class whose new instances the plugin would report as ``loop-local-fresh-key``
although at run time they are equal by value, unhashable, or not new; and exits with 1 if there is any.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import itertools
import os
import pkgutil
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mypy import build
from mypy.modulefinder import BuildSource
from mypy.nodes import TypeInfo
from mypy.options import Options
from mypy.version import __version__ as mypy_version

from asyncio_loop_local_mypy._freshness import makes_fresh_instances

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy.nodes import MypyFile, SymbolTable

# Importing these starts or prints something.
_NOT_IMPORTED = ("__main__", "antigravity", "this", "idlelib", "test", "turtledemo", "lib2to3.pgen2.conv", "tkinter", "turtle")
# Calling these starts a program, opens a window or a connection, or waits.
_NOT_CALLED = ("subprocess", "_multiprocessing", "_io", "_socket", "_ssl", "mmap", "select")
_SAMPLES: tuple[tuple[Any, ...], ...] = (
    (),
    ("a",),
    (99_999,),
    (b"a",),
    ([],),
    (len,),
    ("a", "b"),
    (99_999, 2),
    ("a", ()),
    ((1, 2),),
)


def stdlib_modules() -> list[str]:
    """The names of all modules of typeshed's standard library, from the copy that mypy has."""
    here = Path(build.__file__).parent / "typeshed" / "stdlib"
    names = (".".join(file.relative_to(here).with_suffix("").parts).removesuffix(".__init__") for file in here.rglob("*.pyi"))
    return sorted(name for name in names if name.partition(".")[0] in sys.stdlib_module_names)


def package_modules(package: str) -> list[str]:
    """The names of a package and of all its modules."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    where = spec.submodule_search_locations
    return [package, *(each.name for each in pkgutil.walk_packages(where, package + ".", onerror=lambda _: None) if where)]


def run_time_module(name: str) -> Any:
    """The module, or None if it cannot be imported here."""
    if name.startswith(_NOT_IMPORTED) or any(part in {"tests", "__main__"} for part in name.split(".")):
        return None
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except BaseException:  # what a module does when it is imported is its own affair
        return None


def read_types(modules: list[str]) -> Mapping[str, MypyFile]:
    """What mypy knows of the modules."""
    options = Options()
    options.incremental = False
    options.ignore_errors = True
    options.plugins = ["asyncio_loop_local_mypy"]  # notes what class statements say
    options.config_file = os.devnull  # without one, mypy loads no plugins
    options.python_version = sys.version_info[:2]
    options.python_executable = sys.executable
    options.namespace_packages = True
    program = "\n".join(f"import {name}" for name in modules if all(map(str.isidentifier, name.split("."))))
    return build.build([BuildSource(None, "scan", program)], options).files


def classes(names: SymbolTable, module: str) -> Iterator[TypeInfo]:
    """The classes that a module defines, with those inside classes."""
    for symbol in names.values():
        info = symbol.node
        if isinstance(info, TypeInfo) and info.module_name == module and info.fullname.startswith(module):
            yield info
            yield from classes(info.names, module)


def difference(kind: type[Any]) -> str | None:
    """What is true of the class at run time although the plugin reports its new instances; None if it is right."""
    plain: Any = object
    if kind.__eq__ is not plain.__eq__:
        return "compares by value"
    if kind.__hash__ is not plain.__hash__:
        return "is unhashable or has a hash of its own"
    if type(kind).__call__ is not type.__call__:
        return f"is called by its metaclass, {type(kind).__qualname__}"
    if inspect.isfunction(kind.__new__) and "__deprecated__" not in vars(kind):
        return "has a __new__ in Python"
    if kind.__new__ is plain.__new__ or kind.__module__.startswith(_NOT_CALLED):
        return None
    return _old_instance(kind)


def _old_instance(kind: type[Any]) -> str | None:
    for sample in _SAMPLES:
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                one, other = kind(*sample), kind(*sample)
        except BaseException:  # it does not take this sample
            continue
        if one is other:
            return f"gives the same object twice, for {sample}"
        if type(one) is not kind:
            return f"gives a {type(one).__qualname__}, for {sample}"
    return None


def run_time_class(info: TypeInfo) -> Any:
    """The class at run time, None if there is none, or another one of a package has its name."""
    found = run_time_module(info.module_name)
    try:
        for part in info.fullname.removeprefix(info.module_name + ".").split("."):
            found = getattr(found, part, None)
    except Exception:  # a module can import on demand what is not installed
        return None
    is_same = isinstance(found, type) and (found.__module__, found.__name__) == (info.module_name, info.name)
    is_of_stdlib = info.module_name.partition(".")[0] in sys.stdlib_module_names
    return found if is_same or (is_of_stdlib and isinstance(found, type)) else None


def main(packages: list[str]) -> int:
    """Print what differs."""
    modules = list(itertools.chain.from_iterable(map(package_modules, packages))) if packages else stdlib_modules()
    files = read_types(modules)
    fresh, checked, differing = 0, 0, 0
    for name in sorted(files.keys() & set(modules)):
        for info in classes(files[name].names, name):
            kind = run_time_class(info)
            checked += kind is not None
            if kind is None or not makes_fresh_instances(info, files):
                continue
            fresh += 1
            found = difference(kind)
            if found is not None:
                differing += 1
                print(f"{info.fullname}{' (stub)' if files[name].is_stub else ''}: {found}")
    print(f"mypy {mypy_version}: {checked} classes, {fresh} of them reported as fresh, {differing} of those wrongly")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
