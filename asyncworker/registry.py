"""Find an implementation by name: ``redis://…`` opens ``queue/brokers/redis.py``.

A scheme is a file's name, or an alias listed here; packages from outside add theirs as entry points of the
group ``asyncworker.<room>``. Modules are imported when first asked for, so heavy libraries load where they
are used. Only this page and the package's lazy ``__init__`` import by name; names never come from a message.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from types import ModuleType

from asyncworker.errors import UnknownName

ROOMS = {
    "broker": "asyncworker.queue.brokers",
    "keep": "asyncworker.queue.keeps",
    "outbox": "asyncworker.queue.outboxes",
    "store": "asyncworker.queue.stores",
    "source": "asyncworker.mapreduce.sources",
    "function": "asyncworker.mapreduce.functions",
    "lookup": "asyncworker.mapreduce.lookups",
    "executor": "asyncworker.work.executors",
    "policy": "asyncworker.tune.policies",
    "driver": "asyncworker.tune.drivers",
}
ALIASES = {
    "broker": {"rediss": "redis", "unix": "redis", "redis+sentinel": "redis", "redis+cluster": "redis"},
    "keep": {"rediss": "redis", "unix": "redis", "redis+sentinel": "redis", "redis+cluster": "redis"},
    "outbox": {"postgres": "postgresql"},
    "store": {"postgres": "postgresql"},
    "source": {"postgres": "postgresql"},
    "lookup": {"https": "http", "postgres": "postgresql"},
    "driver": {"postgres": "postgresql", "rediss": "redis", "unix": "redis"},
}


@cache
def names(room: str) -> tuple[str, ...]:
    """Return the names of a room's implementations, sorted: its files (but the singular's), and outsiders'."""
    package = importlib.import_module(ROOMS[room])
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - {room}
    outsiders = {point.name for point in importlib.metadata.entry_points(group=f"asyncworker.{room}")}
    return tuple(sorted(files | outsiders))


@cache
def find(room: str, name: str) -> ModuleType:
    """Return the module that implements *name*.

    Raises:
        UnknownName: no file, alias or entry point of the room has this name.
    """
    aliases = ALIASES.get(room, {})
    name = aliases.get(name, name)
    if name not in names(room):
        raise UnknownName(room, name, (*names(room), *aliases))
    for point in importlib.metadata.entry_points(group=f"asyncworker.{room}"):
        if point.name == name:
            module = point.load()
            assert isinstance(module, ModuleType), f"entry point {name} of {room} is no module"
            return module
    return importlib.import_module(f"{ROOMS[room]}.{name}")
