"""Users' expressions over the fields of an item: Python's syntax, of which little is left, run by simpleeval.

``dep_delay > 60 and carrier in ['UA', 'AA']``, ``round(distance / air_time * 60, 1)``, ``upper(origin) + '-' + dest``.

There are names (the item's fields; what is absent is null), plain constants, lists, ``+ - * / // % **``, comparisons,
``in``, ``and or not``, ``a if b else c``, ``x[key]`` and the calls in `FUNCTIONS`. All else is refused where it is
compiled: attributes, lambdas, comprehensions, f-strings, any other call. So nothing of an expression runs twice, and
its size bounds its steps. Numbers stay within 64 bits and doubles finite, text within 64 kB, and lists
longer than `MAX_ENTRIES` are not searched.

CSV has only text, so numbers are read where they are asked for, by the one grammar of `asyncworker.mapreduce.value`:
arithmetic takes numbers alone, but ``+`` joins two texts that are not both numbers; ``< <= > >=`` compare numbers, else
text with text; ``==`` compares a number with text that reads as one. Of what is missing arithmetic and calls are null,
comparisons by order false.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

import simpleeval  # type: ignore[import-untyped]

from asyncworker.errors import BadParameters, nearest
from asyncworker.mapreduce.conversion import ConversionError, text_of, whole
from asyncworker.mapreduce.value import kind, missing, number

MAX_CHARS = 1000
MAX_NODES = 200
MAX_TEXT = 64 * 2**10
MAX_ENTRIES = 10_000
_LIMIT = 2**63
_MAX_EXPONENT = 64


class ExpressionError(ValueError):
    """An expression has no value for this item. Its text holds nothing of the item's values."""


class Expression:
    """A compiled expression; call it with an item's fields. Cost: about 2 us a name, operator or call.

    ``fields`` are the names it asks for.
    """

    def __init__(self, text: str, tree: ast.expr, fields: tuple[str, ...]) -> None:
        self.fields = fields
        self._text, self._tree = text, tree
        self._names = names = _Names()
        calls: dict[str, Any] = {name: _guarded(name) for name in FUNCTIONS}
        calls["locals"] = lambda: names.item
        calls["field"] = names.__getitem__
        self._evaluator = _Evaluator(_OPERATORS, calls, names)

    def __call__(self, item: Mapping[str, Any]) -> Any:
        """Return the value.

        Raises:
            ExpressionError: it has none.
        """
        self._names.item = item
        try:
            return self._evaluator.eval(self._text, self._tree)
        except ExpressionError:
            raise
        except ConversionError as exc:
            raise ExpressionError(str(exc)) from None
        except (KeyError, IndexError):
            raise ExpressionError("there is no such key or index") from None
        except ZeroDivisionError:
            raise ExpressionError("division by zero") from None
        except (TypeError, ValueError, ArithmeticError, RecursionError, simpleeval.InvalidExpression) as exc:
            raise ExpressionError(f"no value ({type(exc).__name__})") from None


class _Evaluator(simpleeval.SimpleEval):  # type: ignore[misc]  # which has no types
    """Simpleeval with lists, and without its search through each value for functions: ours are plain data."""

    def __init__(self, operators: Any, functions: Any, names: Any) -> None:
        super().__init__(operators, functions, names)
        self.nodes |= {ast.List: self._eval_list, ast.Tuple: self._eval_list}

    def _eval_list(self, node: ast.List | ast.Tuple) -> list[Any]:
        return [self._eval(entry) for entry in node.elts]

    def _check_disallowed_items(self, item: Any) -> None:
        if type(item) not in _PLAIN:
            raise simpleeval.FeatureNotAvailable


_PLAIN = frozenset({str, int, float, bool, NoneType, list, dict})


class _Names:
    """The fields of the item at hand, as names."""

    item: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.item.get(name)


def compile_expression(text: str, where: str = "the expression") -> Expression:
    """Compile an expression.

    Raises:
        BadParameters: at *where* stands none, or one that is too large or not allowed.
    """
    if len(text) > MAX_CHARS:
        raise BadParameters(f"{where} has {len(text)} characters; an expression may have {MAX_CHARS}")
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        why = exc.msg if isinstance(exc, SyntaxError) else "too deep, or no text"
        raise BadParameters(f"{where} is no expression: {why}") from exc
    nodes = list(ast.walk(tree))
    if len(nodes) > MAX_NODES:
        raise BadParameters(f"{where} has {len(nodes)} parts; an expression may have {MAX_NODES}")
    for node in nodes:
        if because := _refusal(node):
            raise BadParameters(f"{where}: {because}")
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    names = [node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called]
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="field"), args=[ast.Constant(value=str(field))]):
                names.append(field)
    return Expression(text, tree, tuple(dict.fromkeys(names)))


def _refusal(node: ast.AST) -> str:
    """Say why a part may not stand in an expression; "" where it may."""
    match node:
        case ast.Constant(value=value):
            fits = value is None or type(value) in (bool, str) or _fits(value)
            return "" if fits else "its constants may be text, 64-bit numbers, True, False and None"
        case ast.Call():
            return _refused_call(node)
        case ast.Compare(ops=ops, comparators=others):
            identities = [other for op, other in zip(ops, others, strict=True) if isinstance(op, ast.Is | ast.IsNot)]
            odd = any(not isinstance(other, ast.Constant) or other.value is not None for other in identities)
            return "'is' asks for None alone: write ==" if odd else ""
        case _:
            return "" if isinstance(node, _ALLOWED) else f"{type(node).__name__} is not allowed in it"


def _refused_call(node: ast.Call) -> str:
    known = {**FUNCTIONS, "locals": (None, 0, 0), "field": (None, 1, 1)}
    name = _name(node)
    if name not in known:
        near = nearest(name, known)
        return "it may call " + (f"{near!r}, not {name!r}" if near else ", ".join(sorted(known)))
    _, least, most = known[name]
    if node.keywords or not least <= len(node.args) <= most:
        many = str(least) if least == most else f"{least} to {most}"
        return f"{name}() takes {many} plain arguments"
    return ""


def _name(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _fits(value: Any) -> bool:
    """Return whether this is a number that travels."""
    if type(value) is int:
        return -_LIMIT <= value < _LIMIT
    return type(value) is float and number(value) is not None


def _checked(value: Any) -> Any:
    """Return a result, if it is of a size that may go on."""
    if type(value) is str:
        if len(value) > MAX_TEXT:
            raise ExpressionError("the text grows too long")
    elif type(value) in (int, float, complex) and not _fits(value):
        raise ExpressionError("the number grows too large, or is none")
    return value


def _numeric(value: Any) -> int | float:
    found = value if type(value) is int else number(value)
    if found is None:
        raise ExpressionError(f"{kind(value)} where a number is needed")
    return found


def _arithmetic(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def applied(left: Any, right: Any) -> Any:
        if missing(left) or missing(right):
            return None
        return _checked(apply(_numeric(left), _numeric(right)))

    return applied


def _plus(left: Any, right: Any) -> Any:
    if type(left) is str and type(right) is str and (number(left) is None or number(right) is None):
        return _checked(left + right)
    return _sum(left, right)


_sum = _arithmetic(operator.add)


def _power(left: float, right: float) -> Any:
    if type(left) is int and type(right) is int and abs(right) > _MAX_EXPONENT and abs(left) > 1:
        raise ExpressionError(f"an exponent beyond {_MAX_EXPONENT}")
    return left**right


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(left: Any, right: Any) -> bool:
        if missing(left) or missing(right):
            return False
        one, other = number(left), number(right)
        if one is not None and other is not None:
            return compare(one, other)
        if type(left) is str and type(right) is str:
            return compare(left, right)
        raise ExpressionError(f"{kind(left)} has no order beside {kind(right)}")

    return holds


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are the same; a number is the same as text that reads as it, true is no 1."""
    if type(left) is str and type(right) in (int, float):
        left = number(left)
    elif type(right) is str and type(left) in (int, float):
        right = number(right)
    return (type(left) is bool) is (type(right) is bool) and bool(left == right)


def _within(value: Any, container: Any) -> bool:
    match container:
        case str():
            return type(value) is str and value in container
        case Mapping():
            return type(value) is str and value in container
        case list():
            if len(container) > MAX_ENTRIES:
                raise ExpressionError("the list is too long to search")
            return any(equal(value, entry) for entry in container)
    raise ExpressionError(f"nothing is in {kind(container)}")


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _plus,
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _arithmetic(operator.floordiv),
    ast.Mod: _arithmetic(operator.mod),
    ast.Pow: _arithmetic(_power),
    ast.USub: lambda value: None if missing(value) else _checked(-_numeric(value)),
    ast.UAdd: lambda value: None if missing(value) else _numeric(value),
    ast.Not: operator.not_,
    ast.Eq: equal,
    ast.NotEq: lambda left, right: not equal(left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _within,
    ast.NotIn: lambda value, container: not _within(value, container),
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_SYNTAX: tuple[type[ast.AST], ...] = (ast.Name, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.IfExp, ast.List, ast.Tuple)
_ALLOWED = (*_SYNTAX, ast.Subscript, ast.Load, ast.And, ast.Or, *_OPERATORS)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ExpressionError(f"{kind(value)} where text is needed")
    return value


def _sized(value: Any) -> int:
    if not isinstance(value, str | list | Mapping):
        raise ExpressionError(f"{kind(value)} has no length")
    return len(value)


def _round(value: Any, digits: Any = 0) -> Any:
    places = min(max(whole(digits), -400), 400)
    return round(_numeric(value), places) if places else round(_numeric(value))


FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (lambda value: abs(_numeric(value)), 1, 1),
    "coalesce": (lambda *values: next((value for value in values if not missing(value)), None), 1, 20),
    "endswith": (lambda value, end: _text(value).endswith(_text(end)), 2, 2),
    "float": (lambda value: float(_numeric(value)), 1, 1),
    "int": (whole, 1, 1),
    "len": (_sized, 1, 1),
    "lower": (lambda value: _text(value).lower(), 1, 1),
    "max": (lambda *values: max(map(_numeric, values)), 1, 20),
    "min": (lambda *values: min(map(_numeric, values)), 1, 20),
    "missing": (missing, 1, 1),
    "round": (_round, 1, 2),
    "startswith": (lambda value, start: _text(value).startswith(_text(start)), 2, 2),
    "str": (text_of, 1, 1),
    "strip": (lambda value: _text(value).strip(), 1, 1),
    "upper": (lambda value: _text(value).upper(), 1, 1),
}
"""What an expression may call: the function, and how few and how many arguments it takes.

Beside them ``locals()`` gives the item's fields, and ``field("dep time")`` one whose name is no name of Python's.
"""
_TAKES_MISSING = {"coalesce", "missing"}


def _guarded(name: str) -> Callable[..., Any]:
    """Return a function as expressions call it: null where an argument is missing, and never too large a result."""
    function = FUNCTIONS[name][0]
    if name in _TAKES_MISSING:
        return function
    return lambda *values: None if any(map(missing, values)) else _checked(function(*values))
