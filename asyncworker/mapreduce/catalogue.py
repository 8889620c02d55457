"""The functions that a job can name: the built-ins by their files, and users' own.

A mapper is called as ``mapper(item, params)`` and may be a coroutine function; one with a third parameter annotated
`Context` is given its partition's, for `Context.effect`. A reducer is a class with
``initial(params)``, ``fold(acc, value)``, ``merge(acc, acc)`` and ``finish(acc, params)``, all plain. A mapper alone
collects what it returns, in the order of the items; a reducer alone is given the items as they are. One whose
accumulators are dicts by text key may have ``row(key, value, params)`` in the place of ``finish``: its result is the
list of all rows in the order of their keys, and very many keys are shared out among workers (`Keyed`). Users' own
travel by name, ``mapper+reducer`` with either side empty, and workers find them where they are registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from asyncworker import registry
from asyncworker.errors import BadParameters, SettingsError, UnknownName
from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.queue.context import Context

Mapper = Callable[..., Any | Awaitable[Any]]


class Reducer(Protocol):
    """What users write to bring mapped values together. Accumulators must travel as MessagePack."""

    def initial(self, params: Any) -> Any:
        """Return a new accumulator, the identity of `merge`."""
        ...

    def fold(self, acc: Any, value: Any) -> Any:
        """Fold one mapped value in; return the accumulator."""
        ...

    def merge(self, left: Any, right: Any) -> Any:
        """Return two accumulators as one; associative, *left* covers the earlier items."""
        ...

    def finish(self, acc: Any, params: Any) -> Any:
        """Return the final result."""
        ...


def function_names() -> tuple[str, ...]:
    """Return the names of all built-in functions, sorted."""
    return registry.names("function")


def find_function(name: str) -> Function:
    """Return the built-in function of this name.

    Raises:
        UnknownName: with the nearest known name.
    """
    function: Function = registry.find("function", name).FUNCTION
    return function


class Catalogue:
    """What one engine knows: all built-ins, and what was registered with it."""

    def __init__(self) -> None:
        self._mappers: dict[str, Mapper] = {}
        self._reducers: dict[str, type[Any]] = {}
        self._made: dict[str, Function] = {}  # each partition asks; to check callables takes as long as a small one

    def add_mapper(self, name: str, mapper: Mapper) -> None:
        """Register a mapper.

        Raises:
            SettingsError: the name is taken. BadParameters: it cannot be called as it will be.
        """
        from_callables(mapper)
        _add(self._mappers, "mapper", name, mapper)

    def add_reducer(self, name: str, reducer: type[Any]) -> None:
        """Register a reducer.

        Raises:
            SettingsError: the name is taken. BadParameters: a method is missing or cannot be called as it will be.
        """
        from_callables(None, reducer)
        _add(self._reducers, "reducer", name, reducer)

    def name(
        self, function: str | None = None, mapper: str | Mapper | None = None, reducer: str | type[Any] | None = None
    ) -> str:
        """Return the one name under which `find` gives a built-in, or users' own by name or object.

        Raises:
            UnknownName: nobody registered it. BadParameters: the three do not go together.
        """
        if function is not None:
            if mapper is not None or reducer is not None:
                raise BadParameters("name either a built-in function, or a mapper and a reducer of your own")
            return function
        if mapper is None and reducer is None:
            raise BadParameters(_NOTHING)
        return f"{_known(self._mappers, 'mapper', mapper)}+{_known(self._reducers, 'reducer', reducer)}"

    def names(self) -> tuple[str, ...]:
        """Return what `find` takes: the built-ins, ``mapper+`` and ``+reducer``; of these two any pair goes, too."""
        own = (*(f"{name}+" for name in self._mappers), *(f"+{name}" for name in self._reducers))
        return (*function_names(), *sorted(own))

    def find(self, name: str) -> Function:
        """Return a function by the name that `name` gave.

        Raises:
            UnknownName: with the nearest known name.
        """
        if "+" not in name:
            if name not in function_names():
                raise UnknownName("function", name, self.names())
            return find_function(name)
        if name not in self._made:
            mapper, _, reducer = name.partition("+")
            _known(self._mappers, "mapper", mapper or None)
            _known(self._reducers, "reducer", reducer or None)
            self._made[name] = from_callables(self._mappers.get(mapper), self._reducers.get(reducer), name)
        return self._made[name]


def from_callables(mapper: Mapper | None = None, reducer: type[Any] | None = None, name: str = "") -> Function:
    """Make a function of a mapper, a reducer, or both; *name* is made of theirs unless given.

    Raises:
        BadParameters: neither is given; one is a lambda, or cannot be called as it will be.
    """
    if mapper is None and reducer is None:
        raise BadParameters(_NOTHING)
    if mapper is not None:
        if _name_of(mapper) == "<lambda>":
            raise BadParameters("a mapper must have a name by which workers can find it: no lambda")
        _check_call(mapper, f"mapper {_name_of(mapper)}", "item", "params", *_context_of(mapper))
    if reducer is not None:
        _check_reducer(reducer)
    names = "+".join(_name_of(given) if given else "" for given in (mapper, reducer))
    return _Callables(mapper or _identity, reducer or _Collect, name or names)


_NOTHING = "there is nothing to do: name a function, or a mapper and a reducer of your own, or one of the two"


class _Callables:
    schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self, mapper: Mapper, reducer: type[Any], name: str) -> None:
        self.name = name
        about = inspect.getdoc(reducer if mapper is _identity else mapper)
        self.summary = (about or name).partition("\n")[0]
        self._mapper = mapper
        self._reducer = reducer
        self._sees = _context_of(mapper)

    def prepare(self, params: Mapping[str, Any]) -> Work:
        works = _KEYED_WORKS if hasattr(self._reducer, "row") else _WORKS
        return works[bool(self._sees)](self._mapper, self._reducer(), params)


class _CallablesWork:
    fields: tuple[str, ...] = ()

    def __init__(self, mapper: Mapper, reducer: Reducer, params: Mapping[str, Any]) -> None:
        self._mapper = mapper
        self._reducer = reducer
        self._params = params

    def initial(self) -> Any:
        return self._reducer.initial(self._params)

    def map(self, item: Any) -> Any | Awaitable[Any]:
        return self._mapper(item, self._params)

    def fold(self, acc: Any, value: Any) -> Any:
        return self._reducer.fold(acc, value)

    def merge(self, left: Any, right: Any) -> Any:
        return self._reducer.merge(left, right)

    def finish(self, acc: Any, failed: int = 0) -> Any:
        return self._reducer.finish(acc, self._params)

    def take_rows(self, acc: Any) -> list[Any] | None:
        if not isinstance(self._reducer, _Collect):
            return None
        rows = list(acc)
        acc.clear()
        return rows


class _SeeingWork(_CallablesWork):
    """Of a mapper that takes a context."""

    def see(self, ctx: Context) -> None:
        self._ctx = ctx

    def map(self, item: Any) -> Any | Awaitable[Any]:
        return self._mapper(item, self._params, self._ctx)


class _KeyedWork(_CallablesWork):
    """Of a reducer with ``row``."""

    def order(self, key: str) -> str:
        return key

    def row(self, key: str, value: Any) -> Any:
        return self._reducer.row(key, value, self._params)  # type: ignore[attr-defined]  # who has none is not taken for one

    def whole(self, rows: list[Any]) -> list[Any]:
        return rows

    def finish(self, acc: Any, failed: int = 0) -> Any:
        return [self.row(key, acc[key]) for key in sorted(acc)]


class _SeeingKeyedWork(_SeeingWork, _KeyedWork):
    """Of both."""


_WORKS = (_CallablesWork, _SeeingWork)
_KEYED_WORKS = (_KeyedWork, _SeeingKeyedWork)


class _Collect:
    """Keep all values, in the order of their items."""

    def initial(self, params: Any) -> list[Any]:
        return []

    def fold(self, acc: list[Any], value: Any) -> list[Any]:
        acc.append(value)
        return acc

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        left.extend(right)
        return left

    def finish(self, acc: list[Any], params: Any) -> list[Any]:
        return acc


def _identity(item: Any, _params: Any) -> Any:
    return item


def _check_reducer(reducer: type[Any]) -> None:
    name = _name_of(reducer)
    if not isinstance(reducer, type):
        raise BadParameters(f"reducer {name} must be a class")
    _check_call(reducer, f"reducer {name}")
    made = reducer()
    for verb, arguments in (_KEYED_VERBS if hasattr(made, "row") else _VERBS).items():
        method = getattr(made, verb, None)
        if method is None:
            raise BadParameters(f"reducer {name} has no {verb}({', '.join(arguments)})")
        if inspect.iscoroutinefunction(method):
            raise BadParameters(f"{verb} of reducer {name} must be a plain function, not a coroutine")
        _check_call(method, f"{verb} of reducer {name}", *arguments)


_VERBS = {"initial": ("params",), "fold": ("acc", "value"), "merge": ("left", "right"), "finish": ("acc", "params")}
_KEYED_VERBS = {**{verb: _VERBS[verb] for verb in ("initial", "fold", "merge")}, "row": ("key", "value", "params")}


def _context_of(mapper: Any) -> tuple[str, ...]:
    """Return the name of a mapper's parameter that is annotated `Context`, if it is the third."""
    try:
        third = [*inspect.signature(mapper, eval_str=True).parameters.values()][2:3]
    except (NameError, TypeError, ValueError):  # annotations that only a type checker understands
        return ()
    return tuple(one.name for one in third if one.annotation is Context)


def _check_call(function: Any, what: str, *arguments: str) -> None:
    if not callable(function):
        raise BadParameters(f"{what} cannot be called")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as exc:
        raise BadParameters(f"{what} must take ({', '.join(arguments)}): {exc}") from exc


def _add(known: dict[str, Any], kind: str, name: str, given: Any) -> None:
    if known.setdefault(name, given) is not given:
        raise SettingsError(f"{kind} {name!r} is registered twice")


def _known(known: Mapping[str, Any], kind: str, given: Any) -> str:
    """Return the name of what was registered, given by name or object; "" for None."""
    if given is None:
        return ""
    name = given if isinstance(given, str) else _name_of(given)
    if name not in known:
        raise UnknownName(kind, name, known)
    if not isinstance(given, str) and known[name] is not given:
        raise BadParameters(f"{kind} {name!r} is not the one that is registered under this name")
    return name


def _name_of(given: Any) -> str:
    name = getattr(given, "__name__", None)
    return name if isinstance(name, str) else type(given).__name__
