"""Which expressions give a value that a loop's tasks share, and that is closed with the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mypy.nodes import (
    LDEF,
    AssignmentExpr,
    AwaitExpr,
    CallExpr,
    CastExpr,
    Decorator,
    FuncDef,
    FuncItem,
    MemberExpr,
    NameExpr,
    RefExpr,
    ReturnStmt,
    Var,
)
from mypy.types import FunctionLike, Instance, UnionType, get_proper_type

from ._bindings import bindings, is_none
from ._marker import VALID, marker_of
from ._symbols import referred_to, type_of, variable
from ._tree import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy.checker import TypeChecker
    from mypy.nodes import Expression, Node
    from mypy.types import Type

    from ._bindings import Binding

_STICKY_ACM = "asyncio_loop_local._sticky_acm.StickyACM"
_ENTER = {
    f"asyncio_loop_local.{module}{name}": name
    for module, name in [("", "enter"), ("_enter.", "enter"), ("", "enter_once"), ("_enter.", "enter_once")]
}
_BLOCK_OF = {"asyncio_loop_local.sticky_acm": "sticky_acm", "asyncio_loop_local._sticky.sticky_acm": "sticky_acm"}
_STACK = "contextlib.AsyncExitStack"
_WAIT_FOR = frozenset(f"asyncio.{module}{name}" for module in ("", "tasks.") for name in ("wait_for", "shield"))
CLOSING = ("close", "aclose")


class Giver(NamedTuple):
    """What gave a shared value: its name for errors, and whether a user may close it.

    A factory with ``valid`` makes a new one then; what `enter` has given, it gives to nobody else.
    """

    name: str
    may_be_closed: bool


class SharedValues:
    """What is known in the module that is being checked. Of the functions of other modules, a cache has no code."""

    def __init__(self, api: TypeChecker) -> None:
        """Take mypy's checker of the module."""
        self._api = api
        self._of_functions: dict[FuncDef, list[Giver | None]] = {}

    def of_block(self, entered: Expression) -> Giver | None:
        """Return what ``async with`` this expression gets its value from; None if that is not known to be shared."""
        if not isinstance(entered, CallExpr):
            return None
        return _of_call(entered, self._of_function(entered.callee, _BLOCK_OF))

    def of_await(self, awaited: Expression) -> Giver | None:
        """Return what ``await`` of this expression gets its value from; None if that is not known to live as long as the loop."""
        if not isinstance(awaited, CallExpr):
            return None
        if self._is_entered_into_a_stack(awaited):
            return self.of_block(awaited.args[0])
        if isinstance(awaited.callee, RefExpr) and awaited.callee.fullname in _WAIT_FOR and awaited.args:
            return self.of_await(awaited.args[0])
        return _of_call(awaited, _together(self.of_awaited_call(awaited.callee)))

    def of_awaited_call(self, function: Expression) -> list[Giver | None]:
        """Return what ``await`` of a call of this function may get its value from; None for each that is not known."""
        giver = self._of_function(function, _ENTER)
        return [giver] if giver is not None else self._of_coroutine_function(function)

    def of_value(self, value: Expression) -> Giver | None:
        """Return what gave the value of an expression, if it is no variable; None if that is not known to be shared."""
        if isinstance(value, AwaitExpr):
            return self.of_await(value.expr)
        if isinstance(value, AssignmentExpr):
            return self.of_value(value.value)
        if isinstance(value, CallExpr) and isinstance(value.analyzed, CastExpr):
            return self.of_value(value.analyzed.expr)
        return None

    def of_variable(self, var: Var, function: FuncItem) -> Giver | None:
        """Return what gives a variable its value in a function; None if anything there may set it to what is not shared."""
        if any(argument.variable is var for argument in function.arguments):
            return None
        return _together([self._of_binding(binding) for binding in bindings(var, function)])

    def _of_binding(self, binding: Binding) -> Giver | None:
        if binding.entered is not None:
            return self.of_block(binding.entered)
        return None if binding.value is None else self.of_value(binding.value)

    def _of_function(self, callee: Expression, functions: dict[str, str]) -> Giver | None:
        """Return what gives the value of a call: one of these functions of the library, or a sticky factory."""
        if not isinstance(callee, RefExpr):
            return None
        if callee.fullname in functions:
            name = functions[callee.fullname]
            return Giver(name, may_be_closed=name == "enter")
        var = variable(referred_to(callee, self._api))
        function = None if var is None else get_proper_type(var.type)
        marker = marker_of(function)
        if marker is None or marker.is_decorator or not isinstance(function, FunctionLike):
            return None
        made = get_proper_type(function.items[0].ret_type)
        is_sticky = isinstance(made, Instance) and made.type.fullname == _STICKY_ACM
        return Giver(marker.name, marker.given == VALID) if is_sticky else None

    def _is_entered_into_a_stack(self, call: CallExpr) -> bool:
        method = call.callee
        if not isinstance(method, MemberExpr) or method.name != "enter_async_context" or len(call.args) != 1:
            return False
        stack = type_of(method.expr, self._api)
        return isinstance(stack, Instance) and stack.type.has_base(_STACK)

    def _of_coroutine_function(self, callee: Expression) -> list[Giver | None]:
        function = self._coroutine_function(callee)
        if function is None:
            return []
        if function not in self._of_functions:
            self._of_functions[function] = []  # functions can call each other in a circle
            values = [value for value in _returned(function.body) if not is_none(value)]
            self._of_functions[function] = [self._of_returned(value, function) for value in values]
        return self._of_functions[function]

    def _coroutine_function(self, callee: Expression) -> FuncDef | None:
        """Return the coroutine function of this module that a call runs."""
        node = referred_to(callee, self._api) if isinstance(callee, RefExpr) else None
        if isinstance(node, Decorator) and not node.decorators:  # classmethod and staticmethod are not among them
            node = node.func
        if not isinstance(node, FuncDef) or not node.is_coroutine or node.is_async_generator:
            return None
        is_local = isinstance(callee, NameExpr) and callee.kind == LDEF
        module = node.info.module_name if node.info else node.fullname.rpartition(".")[0]
        return node if is_local or module == self._api.tree.fullname else None

    def _of_returned(self, value: Expression, function: FuncDef) -> Giver | None:
        if not isinstance(value, NameExpr):
            return self.of_value(value)
        if not isinstance(value.node, Var) or value.kind != LDEF:  # other functions can set a global variable
            return None
        return self.of_variable(value.node, function)


def _of_call(call: CallExpr, giver: Giver | None) -> Giver | None:
    """Return the giver: an object that is made in the call of `enter_once` or `sticky_acm` itself has no other user."""
    is_by_object = isinstance(call.callee, RefExpr) and call.callee.fullname in {*_ENTER, *_BLOCK_OF}
    is_new = is_by_object and bool(call.args) and isinstance(call.args[0], CallExpr)
    return giver._replace(may_be_closed=True) if giver is not None and is_new else giver


def _together(givers: list[Giver | None]) -> Giver | None:
    """Return what gives a value that is of any of these; None if it may be another."""
    known = [giver for giver in givers if giver is not None]
    if not known or len(known) < len(givers):
        return None
    return known[0]._replace(may_be_closed=any(giver.may_be_closed for giver in known))


def _returned(node: Node) -> Iterator[Expression]:
    for part in parts(node):
        if isinstance(part, ReturnStmt) and part.expr is not None:
            yield part.expr
        elif not isinstance(part, FuncItem):
            yield from _returned(part)


def can_be_closed(typ: Type) -> bool:
    """Tell whether a value is something that ends with its loop, as far as its type shows: it can be closed, or exited."""
    proper = get_proper_type(typ)
    if isinstance(proper, UnionType):
        return any(can_be_closed(item) for item in proper.items)
    if not isinstance(proper, Instance):
        return False
    return any(proper.type.get(name) is not None for name in (*CLOSING, "__aexit__", "__exit__"))
