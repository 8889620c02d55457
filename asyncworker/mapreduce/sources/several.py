"""Several datasets as one: ``data/*.csv``, ``data/**/*.jsonl``, a folder, or what `several` makes of any sources.

They are cut one after another, files in the order of their names, and each item's key says which it is of
(``flights/b.csv:17``). ``*``, ``**`` and ``[…]`` are those of a shell; options go to each file (``data/*.csv?missing=NA``).
Of a folder all files are taken that some source reads, but hidden ones, and none of folders in it. Which files there
are is looked up once, by who cuts: a partition names its own.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlencode

import msgspec

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import is_known, open_source
from asyncworker.mapreduce.sources.source import Key, Partition, Size, Source

SCHEME = "several"


def open(url: str, database: str | None = None) -> SeveralSource:
    """Open a pattern, a folder, or what `several` made, in which dataset ids are those of *database*.

    Raises:
        SourceError: it names nothing. UnknownName: nobody reads one of those that it names.
    """
    scheme, _, query = url.partition("://?")
    if scheme == SCHEME:
        sources = [open_source(each, database) for each in parse_qs(query).get("of", [])]
        if not sources:
            raise SourceError(f"{url!r} names no sources")
        return SeveralSource(several(*(source.url for source in sources)), f"{len(sources)} sources", sources)
    path, mark, options = url.partition("?")
    return SeveralSource(str(Path.cwd() / path) + mark + options, path, None)


def several(*sources: str | os.PathLike[str]) -> str:
    """Return a URL for several sources, each a path, a URL or a dataset's id, to be processed in one job."""
    return f"{SCHEME}://?" + urlencode([("of", os.fspath(source)) for source in sources])


class SeveralSource:
    """Sources in a row. A partition's span is the URL of its own, what people call that, and its own span there."""

    columns = None
    left = None

    def __init__(self, url: str, label: str, sources: list[Source] | None) -> None:
        self.url = url
        self.label = label
        self.portable = False  # until it is known which they are
        self._sources = sources

    async def partitions(self, size: Size) -> AsyncIterator[Partition]:
        index = 0
        sources = self._sources or list(map(open_source, await asyncio.to_thread(self._found)))
        self.portable = all(source.portable for source in sources)
        async with AsyncExitStack() as opened:
            cut = [(source, await self._begun(source, size, opened)) for source in self._sources or ()]
            for source, partitions in cut or [(source, source.partitions(size)) for source in sources]:
                try:
                    async with aclosing(cast("Any", partitions)):
                        async for partition in partitions:
                            span = (source.url, source.label, *partition.span)
                            extent = partition.extent and (*partition.extent[:2], f"{source.url} {partition.extent[2]}")
                            yield msgspec.structs.replace(partition, index=index, span=span, extent=extent)
                            index += 1
                finally:
                    await source.close()

    @staticmethod
    async def _begun(source: Source, size: Size, opened: AsyncExitStack) -> AsyncIterator[Partition]:
        """Return a source's partitions with the first of them at hand: what cannot be read is told before all else."""
        partitions = await opened.enter_async_context(aclosing(cast("Any", source.partitions(size))))
        first = await anext(partitions, None)

        async def all_of_them() -> AsyncIterator[Partition]:
            if first is not None:
                yield first
            async for partition in partitions:
                yield partition

        return all_of_them()

    async def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        url, label, *span = partition.span
        source = open_source(url)
        own = msgspec.structs.replace(partition, span=tuple(span))
        try:
            async with aclosing(cast("Any", source.read(own))) as lists:
                async for pairs in lists:
                    yield [(f"{label}:{key}", value) for key, value in pairs]
        finally:
            await source.close()

    async def close(self) -> None:
        for source in self._sources or ():
            await source.close()

    def _found(self) -> list[str]:
        """Return the files that are meant, sorted."""
        _, mark, options = self.url.partition("?")
        place = Path(self.label)
        found = _in_folder(place) if place.is_dir() else glob.iglob(self.label, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = sorted(each for each in found if is_known(each) and Path(each).is_file())
        if not files:
            raise SourceError(f"{self.label}: there is no file that some source reads")
        return [each + mark + options for each in files]


def _in_folder(place: Path) -> Iterator[str]:
    return (str(each) for each in place.iterdir() if not each.name.startswith("."))
