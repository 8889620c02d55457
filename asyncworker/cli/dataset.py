"""What `run` and `submit` are told about a dataset: the function, its parameters, where the items come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from asyncworker.cli.command import Call
from asyncworker.engine import Engine
from asyncworker.errors import BadParameters, SettingsError
from asyncworker.job import JobHandle
from asyncworker.mapreduce.job import Summary
from asyncworker.mapreduce.sources.several import several

FLAGS = (
    "function",
    "params",
    "to",
    "failed_to",
    "item_attempts",
    "partition_attempts",
    "cache",
    "cache_version",
    "result_cache",
    "cache_ttl",
    "broker",
    "namespace",
    "app",
    "partition_size",
    "partitions_at_once",
    "fan_in",
    "reducers",
    "no_speculate",
    "priority",
    "max_failures",
    "missing",
    "database",
    "lease",
    "json",
)


class Request(msgspec.Struct, frozen=True):
    """A job as it was asked for, checked as far as that goes without touching the source."""

    source: str
    function: str
    params: dict[str, Any]

    async def submit(self, call: Call, engine: Engine) -> JobHandle[Summary]:
        settings = call.settings
        return await engine.map_reduce(
            self.source,
            self.function,
            params=self.params,
            partition_size=settings.partition_size,
            max_failures=settings.max_failures,
            item_attempts=settings.item_attempts,
            partition_attempts=settings.partition_attempts,
            workers=settings.partitions_at_once,
            fan_in=settings.fan_in,
            reducers=settings.reducers,
            speculate=not settings.no_speculate,
            priority=settings.priority,
            cache=settings.cache_version or settings.cache,
            to=settings.to,
            failed_to=settings.failed_to,
        )


def request(call: Call, engine: Engine, sources: Sequence[str]) -> Request:
    """Return what was asked for.

    Raises:
        SettingsError: no function was named. UnknownName: no such function. BadParameters: they do not fit it.
    """
    settings = call.settings
    if not settings.function:
        raise SettingsError("which function? --function NAME; 'asyncworker functions' lists them")
    params = json_object(settings.params, "--params")
    engine.functions.find(settings.function).prepare(params)
    if settings.missing is not None:
        missing = urlencode({"missing": settings.missing})
        sources = [f"{source}{'&' if '?' in source else '?'}{missing}" for source in sources]
    return Request(sources[0] if len(sources) == 1 else several(*sources), settings.function, params)


def json_object(given: str | None, what: str) -> dict[str, Any]:
    """Read a JSON object: from the text itself, where it begins with a brace, else from the file of that name.

    Raises:
        BadParameters: says what is wrong with it, and where.
    """
    if given is None:
        return {}
    text = given.strip()
    where = what
    if not text.startswith("{"):
        where = f"{what} {given!r}"
        try:
            text = Path(given).read_text("utf-8")
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            raise BadParameters(f"{where}: neither a JSON object nor a file that can be read: {why}") from exc
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadParameters(f"{where}: no JSON object: {exc}") from exc
