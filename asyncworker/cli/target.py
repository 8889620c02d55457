"""The engine a command works with: the user's own (``module:name``) or a plain one, with what was set put in."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asyncworker.cli.command import Call
from asyncworker.engine import Engine
from asyncworker.errors import SettingsError, nearest
from asyncworker.queue.keeps.keep import Keep
from asyncworker.secret import mask_url

ATTRIBUTE = "engine"
"""The name that is meant where none is given."""
LONELY = ("memory://", "embedded://")
"""Brokers that nobody else can reach."""


def engine_for(call: Call, *, broker: str | None = None) -> Engine:
    """Return an engine that has not been used yet. What was set goes before what the engine says itself.

    Args:
        broker: the URL, whatever was set; for a command that has its own.

    Raises:
        SettingsError: there is no such engine, or it cannot be imported.
    """
    settings = call.settings
    engine = load(settings.app) if settings.app else Engine()
    for name, value in {
        "namespace": settings.namespace,
        "concurrency": settings.concurrency,
        "lease": settings.lease,
        "grace_period": settings.grace_period,
        "cancel_grace": settings.cancel_grace,
        "result_offload": settings.result_offload,
        "cache_ttl": settings.cache_ttl,
    }.items():
        if call.origins[name] != "default":
            setattr(engine, name, value)
    engine.url = broker or settings.broker or engine.url
    engine.database = settings.dsn() or engine.database
    engine.outbox = settings.outbox or engine.outbox
    engine.result_store = settings.result_store or engine.result_store
    engine.result_cache = settings.result_cache or engine.result_cache
    engine.signing_keys = settings.signing_key or engine.signing_keys
    engine.keep_at = settings.keep or engine.keep_at
    if settings.queues:
        engine.weights |= settings.weights
        names = settings.names
        slots = engine.queues if isinstance(engine.queues, Mapping) else {}
        engine.queues = {name: slots[name] for name in names} if all(name in slots for name in names) else names
    return engine


def client_for(call: Call) -> Engine:
    """Return an engine whose broker others can reach, too.

    Raises:
        SettingsError: no such broker was given.
    """
    engine = engine_for(call)
    if engine.url in LONELY:
        said = "" if call.settings.app or call.settings.broker else "no broker is set; "
        raise SettingsError(
            f"{said}{engine.url} lives in one process alone: give --broker or ASYNCWORKER_BROKER,"
            " such as redis://localhost:6379/0"
        )
    return engine


def kept_for(call: Call) -> tuple[Engine, Keep]:
    """Return an engine and its keep, where that outlives a process; who uses it closes the engine.

    Raises:
        SettingsError: there is none.
    """
    engine = engine_for(call)
    lonely = engine.url in LONELY and engine.keep_at is None
    if lonely or (keep := engine.keep) is None:
        raise SettingsError(
            f"{mask_url(engine.url)} keeps nothing for others to see: give --broker or ASYNCWORKER_BROKER, such as"
            " redis://localhost:6379/0, or the --keep of the workers"
        )
    return engine, keep


def load(target: str) -> Engine:
    """Import ``module:name``; the name may be a function without arguments that makes the engine.

    Raises:
        SettingsError: says what is missing, or what the user's own code raised and where.
    """
    module_name, _, path = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with _users_code(target):
        found: Any = importlib.import_module(module_name)
    for name in (path or ATTRIBUTE).split("."):
        if not hasattr(found, name):
            close = nearest(name, vars(found))
            hint = f"; did you mean {close!r}?" if close else ""
            raise SettingsError(f"{target!r}: {module_name} has no {name!r}{hint}")
        found = getattr(found, name)
    if callable(found):
        with _users_code(target):
            found = found()
    if not isinstance(found, Engine):
        raise SettingsError(f"{target!r} is of type {type(found).__name__}, not an Engine")
    return found


@contextmanager
def _users_code(target: str) -> Iterator[None]:
    """Turn whatever the user's own code raises into one line that says where."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name and f"{target}.".replace(":", ".").startswith(f"{exc.name}."):
            raise SettingsError(f"{target!r}: there is no module {exc.name!r} in {Path.cwd()} nor installed") from exc
        raise SettingsError(f"{target!r} cannot be used: {exc}{_place(exc)}") from exc
    except Exception as exc:
        raise SettingsError(f"{target!r} cannot be used: {type(exc).__name__}: {exc}{_place(exc)}") from exc


def _place(exc: BaseException) -> str:
    """Return where an error came up."""
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno})"
