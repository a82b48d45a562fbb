"""What mypy and pyright do that is private, or surprising, and that the stubs and the mypy plugin need."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from mypy.nodes import (
    AssignmentExpr,
    Block,
    CallExpr,
    ConditionalExpr,
    DictExpr,
    ForStmt,
    GeneratorExpr,
    NameExpr,
    Node,
    OpExpr,
    ReturnStmt,
    WhileStmt,
    WithStmt,
)
from mypy.options import Options
from mypy.reachability import MYPY_TRUE, infer_condition_value

from programs import run_python

Facts = dict[str, dict[str, Any]]


def test_mypy_alone_knows_a_name() -> None:
    """mypy takes the name MYPY for true, whatever is assigned to it, as it does TYPE_CHECKING."""
    options = Options()
    assert infer_condition_value(NameExpr("MYPY"), options) == MYPY_TRUE
    assert infer_condition_value(NameExpr("TYPE_CHECKING"), options) == MYPY_TRUE
    assert infer_condition_value(NameExpr("OTHER"), options) != MYPY_TRUE


def test_pyright_reads_the_branch_that_mypy_is_spared(tmp_path: Path) -> None:
    """pyright counts overloads under `TYPE_CHECKING and not MYPY`, with `MYPY = False` above, among those that come after."""
    (tmp_path / "one.py").write_text(
        textwrap.dedent(
            """
            from typing import TYPE_CHECKING, overload
            MYPY = False
            if TYPE_CHECKING and not MYPY:
                @overload
                def f(a: int) -> int: ...
            @overload
            def f(a: str) -> str: ...
            @overload
            def f(a: bytes) -> bytes: ...
            def f(a): return a
            reveal_type((f(1), f("")))
            """
        )
    )
    done = run_python("-m", "pyright", "--outputjson", tmp_path / "one.py", cwd=tmp_path)
    messages = [each["message"] for each in json.loads(done.stdout)["generalDiagnostics"]]
    assert messages == ['Type of "(f(1), f(""))" is "tuple[int, str]"']


def test_nodes_of_mypy_name_their_parts() -> None:
    """Nodes of mypy's syntax trees name the parts of which they are made by `__match_args__`."""
    name, block = NameExpr("name"), Block([])
    nodes: dict[Node, set[str]] = {
        CallExpr(name, [], [], []): {"callee", "args"},
        OpExpr("or", name, name): {"left", "right"},
        DictExpr([]): {"items"},
        AssignmentExpr(name, name): {"target", "value"},
        ConditionalExpr(name, name, name): {"if_expr", "else_expr"},
        GeneratorExpr(name, [], [], [], []): {"left_expr", "sequences", "condlists", "indices"},
        ForStmt(name, name, block, None): {"expr", "body"},
        WithStmt([name], [None], block): {"expr", "body"},
        WhileStmt(name, block, None): {"expr", "body"},
        ReturnStmt(name): {"expr"},
    }
    for node, parts in nodes.items():
        given: Any = node
        assert parts <= set(given.__match_args__), type(node)


PLUGIN = """
import json, pathlib
from mypy.checker import TypeChecker
from mypy.plugin import Plugin
from mypy.types import CallableType, Instance, LiteralType, get_proper_type

HERE = pathlib.Path(__file__).parent
facts = {"asked": [], "config": 0}

def say(**more):
    facts.update(more)
    (HERE / (HERE / "run").read_text()).write_text(json.dumps(facts))

class Recording(Plugin):
    def report_config_data(self, ctx):
        facts["config"] += 1
        say()
        return (HERE / "config").read_text()

    def get_function_hook(self, fullname):
        if "local_function" in fullname or fullname in ("decorators.mark", "a name"):
            facts["asked"].append(fullname)
            say()
        if fullname == "decorators.mark":
            return self.mark
        if fullname == "decorators.looked_at":
            return self.look
        return None

    def mark(self, ctx):
        function = get_proper_type(ctx.default_return_type)
        assert isinstance(function, CallableType)
        literal = LiteralType("a mark", ctx.api.named_type("builtins.str"))
        new = function.copy_modified(fallback=function.fallback.copy_modified(last_known_value=literal), name="a name")
        new.definition = None
        return new

    def look(self, ctx):
        api = ctx.api
        function = get_proper_type(ctx.arg_types[0][0])
        partial = get_proper_type(ctx.arg_types[1][0])
        literal = function.fallback.last_known_value
        errors = api.msg.errors
        with api.msg.filter_errors():
            (watcher,) = errors._watchers
            discarding = [watcher._filter, watcher._filtered]
        with api.msg.filter_errors(save_filtered_errors=True):
            kept = errors._watchers[-1]._filtered
        say(
            literal=None if literal is None else literal.value,
            is_checker=isinstance(api, TypeChecker),
            plugins=[type(each).__name__ for each in api.plugin._plugins],
            watchers=len(errors._watchers),
            discarding=discarding,
            kept=kept,
            partial=type(get_proper_type(partial.extra_attrs.attrs["__mypy_partial"])).__name__,
            scope=[type(item).__name__ for item in api.scope.stack],
        )
        return ctx.default_return_type

class Second(Plugin):
    def get_function_hook(self, fullname):
        if fullname in ("decorators.mark", "decorators.second"):
            facts.setdefault("second", []).append(fullname)
            say()
        return None

def plugin(version):
    return Recording

def second(version):
    return Second
"""
DECORATORS = """
from collections.abc import Callable
from typing import Any

def mark(f: Callable[[], int]) -> Callable[[], int]: return f
def looked_at(f: Any, p: Any) -> None: ...
def second() -> None: ...
"""
MARKED = """
from decorators import mark
@mark
def marked() -> int: return 1
"""
USER = """
from functools import partial
from decorators import looked_at, mark, second
from marked import marked

def function(local_function: object) -> None:
    def taking(a: int, b: str) -> None: ...
    looked_at(marked, partial(taking, 1))
    second()
    mark(marked)
    local_function_of_ours = mark(marked)
    local_function_of_ours()
"""


@pytest.fixture(scope="module")
def what_mypy_does(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What a recording plugin sees in a cold run of mypy, in one with a warm cache, and after its own data have changed."""
    directory = tmp_path_factory.mktemp("mypy")
    (directory / "recording.py").write_text(PLUGIN)
    (directory / "other.py").write_text("from recording import second as plugin\n")
    (directory / "mypy.ini").write_text("[mypy]\nplugins = recording.py, other.py\nshow_traceback = true\n")
    (directory / "decorators.py").write_text(DECORATORS)
    (directory / "marked.py").write_text(MARKED)
    (directory / "user.py").write_text(USER)
    facts: Facts = {}
    for run, config in (("cold", "1"), ("warm", "1"), ("changed", "2")):
        (directory / "run").write_text(run)
        (directory / "config").write_text(config)
        if run == "warm":
            (directory / "user.py").write_text(USER + "\n")
        done = run_python("-m", "mypy", "user.py", "--cache-dir", "cache", cwd=directory)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        facts[run] = json.loads((directory / run).read_text())
    return facts


def test_a_mark_in_a_fallback_type_survives_the_cache(what_mypy_does: Facts) -> None:
    """The last known value of a function type's fallback is still there in a module that mypy has read from its cache."""
    assert [facts["literal"] for facts in what_mypy_does.values()] == ["a mark"] * 3


def test_what_a_plugin_reports_of_itself_is_part_of_the_cache(what_mypy_does: Facts) -> None:
    """mypy checks everything anew when what `report_config_data` gives has changed, else only what has changed itself."""
    cold, warm, changed = (facts["asked"].count("decorators.mark") for facts in what_mypy_does.values())
    assert warm < cold == changed


def test_mypy_asks_only_the_first_plugin_that_has_a_hook(what_mypy_does: Facts) -> None:
    """A plugin is not asked for a name for which one before it has a hook; the list of all is `plugin._plugins`."""
    assert set(what_mypy_does["cold"]["second"]) == {"decorators.second"}
    assert what_mypy_does["cold"]["plugins"][:2] == ["Recording", "Second"]
    assert what_mypy_does["cold"]["plugins"][-1] == "DefaultPlugin"


def test_mypy_asks_for_local_names_as_they_are_written(what_mypy_does: Facts) -> None:
    """For a call of a local variable, mypy asks for a bare name: that of the function type, if it has one."""
    assert [each for each in what_mypy_does["cold"]["asked"] if "." not in each], what_mypy_does["cold"]["asked"]


def test_what_is_private_to_mypy_is_there(what_mypy_does: Facts) -> None:
    """Hooks get the type checker; its scope, its stack of error watchers, and what it knows of a partial are where they were."""
    facts = what_mypy_does["cold"]
    assert facts["is_checker"]
    assert facts["scope"] == ["MypyFile", "FuncDef"]
    assert facts["watchers"] == 0
    assert facts["discarding"] == [True, None]
    assert facts["kept"] == []
    assert facts["partial"] == "CallableType"
