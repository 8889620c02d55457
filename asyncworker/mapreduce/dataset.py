"""Find the source or sink that is meant: an iterable, a URL, a path, or a dataset's id."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, urlencode

from asyncworker import registry
from asyncworker.errors import SourceError, UnknownName
from asyncworker.mapreduce.job import Summary
from asyncworker.mapreduce.sources.source import Sink, Source

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?://|$)", re.IGNORECASE)
_PATTERN = re.compile(r"\*|\[.*\]")
_SUFFIX = re.compile(r"\.([a-z0-9_]+)(?:\.gz)?(?:\?[^?]*)?$", re.IGNORECASE)


def open_source(
    thing: str | os.PathLike[str] | Iterable[Any] | AsyncIterable[Any], database: str | None = None
) -> Source:
    """Open what items come from; nothing is touched yet.

    Args:
        thing: items, a URL (``postgresql://…``), a path (``data.csv``, ``data.csv.gz``), a folder or a pattern of paths
            (``data/*.csv``), ``-`` for standard input (``-?format=csv``; JSON Lines if nothing is said), else a
            dataset's id in *database*.
        database: DSN of the PostgreSQL that dataset ids are looked up in.

    Raises:
        UnknownName: nobody reads such URLs or files. SourceError: it cannot be what it seems to be.
    """
    if isinstance(thing, os.PathLike):
        thing = os.fspath(thing)
    if not isinstance(thing, str):
        return cast("Source", registry.find("source", "memory").open(thing))
    module = _module(thing)
    several = registry.find("source", "several")
    if module is several or (
        (module is not None or database is None) and _are_many(thing)
    ):  # ids may look like patterns
        return cast("Source", several.open(thing, database))
    if module is not None:
        return cast("Source", module.open(thing))
    if database is not None:
        joint = "&" if "?" in database else "?"
        return open_source(f"{database}{joint}{urlencode({'dataset': thing})}")
    if found := _SUFFIX.search(thing):
        raise UnknownName("source", found[1], registry.names("source"))
    raise SourceError(f"{thing!r} is no URL and no file of a known kind; if it is a dataset's id, name its database")


def open_sink(thing: str | os.PathLike[str] | list[Any], job_id: str = "") -> Sink:
    """Open where rows go: a list, a URL or a path; nothing is touched yet.

    Args:
        thing: as for `open_source`.
        job_id: whose rows these are: what an earlier run of the same job wrote is replaced.

    Raises:
        UnknownName, SourceError: as `open_source`; also where it can only be read.
    """
    if isinstance(thing, os.PathLike):
        thing = os.fspath(thing)
    module = _module(thing) if isinstance(thing, str) else registry.find("source", "memory")
    if module is None:
        found = _SUFFIX.search(str(thing))
        raise UnknownName("sink", found[1] if found else str(thing), registry.names("source"))
    if not hasattr(module, "writer"):
        raise SourceError(f"{module.__name__.rpartition('.')[2]} can be read, not written")
    return cast("Sink", module.writer(thing, job_id=job_id))


def is_known(name: str) -> bool:
    """Return whether some source reads files of this name."""
    return _module(name) is not None


class Results(Protocol):
    """Where a job's summary goes as a row."""

    label: str

    def join(self, other: Source) -> bool:
        """Write through the connections of *other*, if they lead there; returns whether they do."""
        ...

    async def save(self, summary: Summary) -> None:
        """Write the row, in place of an earlier one of the same job. Raises SourceError."""
        ...

    async def close(self) -> None: ...


class CachedResults(Protocol):
    """Where the results of jobs lie that may be asked for again; see `asyncworker.mapreduce.cachetable`."""

    label: str

    async def save(self, key: str, summary: Summary, ttl_s: float) -> None:
        """Keep a result. Raises SourceError."""
        ...

    async def find(self, key: str) -> tuple[str, Summary] | None:
        """Return a job's id and what it came to, as long as that is kept. Raises SourceError."""
        ...

    async def close(self) -> None: ...


def is_postgresql(url: str) -> bool:
    """Return whether *url* names a PostgreSQL database."""
    return url.lower().startswith(("postgresql://", "postgres://"))


def open_results(database: str) -> Results:
    """Open the table of results of a PostgreSQL database; nothing is touched yet.

    Raises:
        SourceError: this is no DSN.
    """
    return cast("Results", registry.find("source", "postgresql").results(database))


def open_cache(database: str) -> CachedResults:
    """Open the table of cached results of a PostgreSQL database; nothing is touched yet.

    Raises:
        SourceError: this is no DSN.
    """
    return cast("CachedResults", registry.find("source", "postgresql").cache(database))


def _are_many(text: str) -> bool:
    """Return whether this is a folder, or a pattern of paths."""
    path = text.partition("?")[0]
    return _SCHEME.match(text) is None and (
        Path(path).is_dir() or (_PATTERN.search(path) is not None and not Path(path).exists())
    )


def _module(text: str) -> ModuleType | None:
    """Return who reads this URL or file; None where it is neither URL nor file of a known kind."""
    if text == "-" or text.startswith("-?"):
        return registry.find("source", parse_qs(text[2:]).get("format", ["jsonl"])[0])
    if scheme := _SCHEME.match(text):
        return registry.find("source", scheme[1].lower())
    suffix = _SUFFIX.search(text)
    known = suffix and suffix[1].lower() in registry.names("source")
    return registry.find("source", suffix[1].lower()) if suffix and known else None
