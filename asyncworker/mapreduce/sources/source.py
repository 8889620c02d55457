"""What a source and a sink are: where items come from, and where rows go.

Every other file in this folder is named after a URL scheme or a suffix and has ``open(url)``, which checks the
URL's form and touches nothing yet; ``writer(url, *, job_id="")``, where the room can be written to, returns a
`Sink`. `tests/contracts/test_source.py` runs over every file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, overload, runtime_checkable

import msgspec

Key = int | str
Size = int | Callable[[], int]
"""How many items partitions have: a number, or who is asked before each is cut."""

LIST_ITEMS = 1000
"""How many items `Source.read` yields at once, at most."""
DATA_BYTES = 4 * 2**20
"""A partition that carries its data is closed at this size, so that it can travel (`codec.MAX_PAYLOAD_BYTES`)."""


class Exactly(int):
    """A size in the source's own units (bytes, pages), where it cuts without counting items."""


def sizes(size: Size) -> Callable[[], int]:
    """Return who is asked."""
    return size if callable(size) else lambda: size


class BadItem(msgspec.Struct, frozen=True):
    """Stands where an item could not be read (a line that is no JSON): counted and recorded, never mapped."""

    error: str


class Partition(msgspec.Struct, frozen=True):
    """A part of a source, small enough to travel.

    ``index`` counts from 0. ``items`` is how many items the plan counted in it, 0 where
    it counted none. ``span`` says where they lie,
    in the source's own terms (MessagePack values). Where workers cannot open the source, ``data`` carries the
    items themselves, in the source's own form. Who ships it notes when (a date in s), and how many items are before it.
    Where items were not counted ``extent`` says which units of the source's own these are, so that they can be cut so
    again: the first, how many, and a text that changes when the source does.
    """

    index: int
    items: int
    span: tuple[Any, ...] = ()
    data: bytes | None = None
    cut_s: float = 0.0
    first: int = 0
    extent: tuple[int, int, str] | None = None

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it lies: the first item or unit, how many they are, and of what ("" for items that were counted)."""
        return self.extent or (self.first, self.items, "")


class Source(Protocol):
    """Items under keys: a line number, an index, a key column."""

    url: str
    """How another process opens the same source: absolute, complete. May hold secrets: show `label` to people."""
    label: str
    """For people: secrets masked."""
    portable: bool
    """Whether a worker elsewhere can open `url`; else partitions carry their data."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """What each item has, known from the first partition on; None where items may differ."""
        ...

    @property
    def left(self) -> float | None:
        """About how many items are still to be cut, while that is under way; None where that is not known."""
        ...

    def partitions(self, size: Size) -> AsyncIterator[Partition]:
        """Cut the source into partitions of *size* items, all from one snapshot.

        The last may be smaller, and so may one that carries its data (`DATA_BYTES`). Holds no more than one
        partition's data at a time. An empty source gives none.

        Raises:
            SourceError: it cannot be opened or read. EmptyDataset: a dataset id with no row at all.
        """
        ...

    def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        """Yield a partition's items in order, in lists of at most `LIST_ITEMS` pairs of key and value.

        A value that could not be read is a `BadItem`. Callable on a source that was opened from `url` in another
        process; does not ask for the file when the partition carries its data.

        Raises:
            SourceError: it cannot be read, or holds nothing where the plan counted items.
        """
        ...

    async def close(self) -> None:
        """Give back files and connections."""
        ...


class Slim(msgspec.Struct, gc=False):
    """An object of which some fields alone were read: attributes ``f0``, ``f1`` … in the order in which they were asked for.

    What it lacks is `msgspec.UNSET`; `msgspec.to_builtins` makes a dict of it. It takes a fifth of a dict's memory,
    and half the time to make.
    """


class Clean(Slim, gc=False):
    """One that has all these fields, each of the type that was asked for."""


class Batch(Sequence[tuple[Key, Any]]):
    """Pairs of key and value that are not made before somebody asks for one."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[Key], values: list[Any]) -> None:
        self.keys = keys
        self.values = values

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> tuple[Key, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Batch: ...
    def __getitem__(self, at: int | slice) -> tuple[Key, Any] | Batch:
        return Batch(self.keys[at], self.values[at]) if isinstance(at, slice) else (self.keys[at], self.values[at])


@runtime_checkable
class Narrow(Protocol):
    """A source that need not make all of its objects where little of them is looked at."""

    def read_fields(self, partition: Partition, fields: Mapping[str, Any]) -> AsyncIterator[Batch]:
        """Do as `Source.read`; some or all values that are objects are `Slim` or `Clean`, with these *fields*. Raises the same.

        Args:
            fields: by name, the type (one of `msgspec`'s) that nearly all items have it of; `Any`: some may lack it.
        """
        ...


@runtime_checkable
class Connected(Protocol):
    """A source that reads through connections, which it may share with others; any number of partitions at once."""

    def join(self, other: Source) -> bool:
        """Read through the connections of *other*, if they lead where this one reads from; not after the first use.

        Returns whether they do.
        """
        ...


@runtime_checkable
class Versioned(Protocol):
    """A source that can tell, without reading it through, whether it is what it was."""

    async def version(self) -> str | None:
        """Return a text that changes whenever an item does; None where that is not known. Raises SourceError."""
        ...


class Sink(Protocol):
    """Rows going out: all of them become visible at `commit`, or none."""

    label: str

    async def write(self, rows: Sequence[Any]) -> None:
        """Take rows in. Raises SourceError."""
        ...

    async def commit(self) -> None:
        """Make what was written visible, replacing what an earlier run of the same job wrote."""
        ...

    async def abort(self) -> None:
        """Forget what was written."""
        ...
