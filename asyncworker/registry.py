"""Find an implementation by name: ``redis://…`` opens ``queue/brokers/redis.py``.

A scheme is a file's name, or an alias listed here; packages from outside add theirs as entry points of the
group ``asyncworker.<room>``. Modules are imported when first asked for, so heavy libraries load where they
are used. Only this page and the package's lazy ``__init__`` import by name; names never come from a message.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from asyncworker.errors import UnknownName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ROOMS = {
    "address": "asyncworker.queue.addresses",
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
    "address": {"unix": "redis", "redis+sentinel": "sentinel", "redis+cluster": "cluster"},
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
    return tuple(sorted(_files(room) | {point.name for point in _outsiders(room)}))


def knows(room: str, name: str) -> bool:
    """Return whether a room has an implementation or alias of this name; asks for outsiders only where it has none of its own."""
    return name in _files(room) or name in ALIASES.get(room, {}) or name in names(room)


@cache
def find(room: str, name: str) -> ModuleType:
    """Return the module that implements *name*: a file of the room, else an outsider's.

    Raises:
        UnknownName: no file, alias or entry point of the room has this name.
    """
    aliases = ALIASES.get(room, {})
    name = aliases.get(name, name)
    if name in _files(room):
        return importlib.import_module(f"{ROOMS[room]}.{name}")
    for point in _outsiders(room):
        if point.name == name:
            module = point.load()
            assert isinstance(module, ModuleType), f"entry point {name} of {room} is no module"
            return module
    raise UnknownName(room, name, (*names(room), *aliases))


@cache
def _files(room: str) -> set[str]:
    package = importlib.import_module(ROOMS[room])
    return {module.name for module in pkgutil.iter_modules(package.__path__)} - {room}


def _outsiders(room: str) -> Iterable[EntryPoint]:
    from importlib import metadata  # noqa: PLC0415 - it takes 2 MB, and mostly nobody asks

    return metadata.entry_points(group=f"asyncworker.{room}")
