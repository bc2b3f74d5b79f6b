"""Expression graphs: compiled once, evaluated node by node, on demand.

A node's value is remembered where its last free argument is bound: nodes without function arguments once per
request, nodes inside a mapped function once per element of the innermost mapping that they depend on.

Format: the ``Expression`` and ``ValueNode`` messages of the REST reference (nine kinds of node).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmearth_data.emulator.binding import algorithm_named, call
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import ALGORITHMS, Context

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Constant:
    """A literal."""

    value: Any
    free: frozenset[str] = _NONE


@dataclass(frozen=True, eq=False)
class Many:
    """A list of nodes."""

    items: tuple[Node, ...]
    free: frozenset[str]


@dataclass(frozen=True, eq=False)
class Table:
    """A dictionary of nodes."""

    items: Mapping[str, Node]
    free: frozenset[str]


@dataclass(frozen=True, eq=False)
class Argument:
    """A reference to a function's argument."""

    name: str
    free: frozenset[str]


@dataclass(frozen=True, eq=False)
class Definition:
    """A function: argument names and body."""

    names: tuple[str, ...]
    body: Node
    free: frozenset[str]


@dataclass(frozen=True, eq=False)
class Invocation:
    """An algorithm by name, or a function that another node defines, with arguments by name."""

    function: str | Node
    arguments: Mapping[str, Node]
    free: frozenset[str]


Node = Constant | Many | Table | Argument | Definition | Invocation


@dataclass(eq=False)
class Scope:
    """Arguments bound by one call of a function, and the values that depend on them."""

    bindings: Mapping[str, Any] = field(default_factory=dict)
    parent: Scope | None = None
    memo: dict[int, Any] = field(default_factory=dict)

    def owner(self, free: frozenset[str]) -> Scope:
        """The innermost scope that binds one of the arguments; the outermost if there are none."""
        scope = self
        while scope.parent is not None and free.isdisjoint(scope.bindings):
            scope = scope.parent
        return scope

    def lookup(self, name: str) -> Any:
        """The value of an argument."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bindings:
                return scope.bindings[name]
            scope = scope.parent
        raise ServiceError(f"Argument reference '{name}' is not an argument of an enclosing function.")


@dataclass(frozen=True, eq=False)
class Closure:
    """A function with the scope that it was defined in."""

    definition: Definition
    scope: Scope
    evaluator: Evaluator

    @property
    def keeps_element(self) -> bool:
        """Whether it visibly returns its only argument with footprint and time unchanged."""
        return len(self.definition.names) == 1 and _traces_to(self.definition.body, self.definition.names[0])

    def __call__(self, *values: Any) -> Any:
        """The body's value for arguments by position."""
        names = self.definition.names
        if len(values) != len(names):
            raise ServiceError(f"A function of {len(names)} arguments was called with {len(values)}.")
        inner = Scope(dict(zip(names, values, strict=True)), self.scope)
        return self.evaluator.value(self.definition.body, inner)


class Evaluator:
    """Evaluates the nodes of one request."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def run(self, expression: Mapping[str, Any]) -> Any:
        """The value of an expression; ServiceError says what is wrong with it."""
        try:
            return self.value(compiled(expression), Scope())
        except RecursionError:
            raise ServiceError("The expression is nested too deeply to be evaluated.") from None

    def value(self, node: Node, scope: Scope) -> Any:
        """The value of a node in a scope."""
        if isinstance(node, Constant):
            return node.value
        if isinstance(node, Argument):
            return scope.lookup(node.name)
        owner, key = scope.owner(node.free), id(node)
        if key not in owner.memo:
            owner.memo[key] = self._fresh(node, owner)
        return owner.memo[key]

    def _fresh(self, node: Many | Table | Definition | Invocation, scope: Scope) -> Any:
        if isinstance(node, Many):
            return [self.value(item, scope) for item in node.items]
        if isinstance(node, Table):
            return {key: self.value(item, scope) for key, item in node.items.items()}
        if isinstance(node, Definition):
            return Closure(node, scope, self)
        if isinstance(node.function, str):
            algorithm = algorithm_named(node.function)
            self._context.budget.check_time()
            if algorithm.aggregates and scope.parent is not None:
                self._context.budget.nest()
            return call(algorithm, self._arguments(node, scope), self._context)
        function = self.value(node.function, scope)
        if not isinstance(function, Closure):
            raise ServiceError("functionReference must refer to a function definition.")
        given = self._arguments(node, scope)
        missing = [name for name in function.definition.names if name not in given]
        if missing or len(given) != len(function.definition.names):
            raise ServiceError(f"A function of ({', '.join(function.definition.names)}) was called with {list(given)}.")
        return function(*(given[name] for name in function.definition.names))

    def _arguments(self, node: Invocation, scope: Scope) -> dict[str, Any]:
        return {name: self.value(argument, scope) for name, argument in node.arguments.items()}


def _traces_to(node: Node, argument: str) -> bool:
    """Whether a node is the argument, passed on through algorithms that keep an element's footprint and time."""
    while isinstance(node, Invocation):
        known = ALGORITHMS.get(node.function) if isinstance(node.function, str) else None
        if known is None or known.transparent is None or known.transparent not in node.arguments:
            return False
        key = node.arguments.get("key")
        if key is not None and not (isinstance(key, Constant) and not str(key.value).startswith("system:")):
            return False
        node = node.arguments[known.transparent]
    return isinstance(node, Argument) and node.name == argument


def compiled(expression: Mapping[str, Any]) -> Node:
    """The node that an expression's result is, with references resolved and free arguments known."""
    if not isinstance(expression, Mapping) or not isinstance(expression.get("values"), Mapping):
        raise ServiceError("The request needs an 'expression' with 'values' and 'result'.")
    return _Compiler(expression["values"]).reference(str(expression.get("result")))


class _Compiler:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._done: dict[str, Node] = {}
        self._open: set[str] = set()

    def reference(self, key: str) -> Node:
        if key not in self._values:
            raise ServiceError(f"Value reference '{key}' refers to no value of the expression.")
        if key not in self._done:
            if key in self._open:
                raise ServiceError(f"Value '{key}' of the expression refers to itself.")
            self._open.add(key)
            self._done[key] = self.node(self._values[key])
            self._open.discard(key)
        return self._done[key]

    def node(self, value: Any) -> Node:
        if not isinstance(value, Mapping) or len(value) != 1:
            raise ServiceError(f"A value node must have exactly one kind; got {str(value)[:80]}.")
        ((kind, content),) = value.items()
        match kind:
            case "constantValue":
                return Constant(content)
            case "integerValue":
                return Constant(_whole(content))
            case "bytesValue":
                return Constant(_decoded(content))
            case "arrayValue":
                items = tuple(self.node(item) for item in _part(content, "values", list))
                return Many(items, _union(items))
            case "dictionaryValue":
                table = {name: self.node(item) for name, item in _part(content, "values", dict).items()}
                return Table(table, _union(table.values()))
            case "argumentReference":
                return Argument(str(content), frozenset({str(content)}))
            case "valueReference":
                return self.reference(str(content))
            case "functionDefinitionValue":
                names = tuple(map(str, _part(content, "argumentNames", list)))
                body = self.reference(str(content.get("body")))
                return Definition(names, body, body.free - set(names))
            case "functionInvocationValue":
                arguments = {name: self.node(item) for name, item in _part(content, "arguments", dict).items()}
                if "functionReference" in content:
                    function: str | Node = self.reference(str(content["functionReference"]))
                else:
                    function = str(content.get("functionName"))
                used = (*arguments.values(), function) if not isinstance(function, str) else arguments.values()
                return Invocation(function, arguments, _union(used))
            case _:
                raise ServiceError(f"Unknown kind of value node: '{kind}'.")


def _part(content: Any, name: str, kind: type) -> Any:
    """A part of a node, empty if it is left out; a 400 if it is of another kind."""
    part = content.get(name, kind()) if isinstance(content, Mapping) else None
    if not isinstance(part, kind):
        raise ServiceError(f"A value node is malformed: '{name}' must be of the kind {kind.__name__}.")
    return part


def _whole(content: Any) -> int:
    try:
        return int(content)
    except (TypeError, ValueError, OverflowError):
        raise ServiceError(f"'integerValue' must be a whole number; got {str(content)[:40]!r}.") from None


def _decoded(content: Any) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (TypeError, ValueError):
        raise ServiceError("'bytesValue' must be text in base64.") from None


def _union(nodes: Any) -> frozenset[str]:
    return _NONE.union(*(node.free for node in nodes))
