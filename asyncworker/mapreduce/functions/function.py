"""What a processing function is: how one item is mapped, and how what came out is folded, merged and finished.

Every other file in this folder has ``FUNCTION``, named like the file. Users' own come in by
``@engine.mapper`` and ``@engine.reducer``. `tests/contracts/test_function.py` runs over every file: folding in
any partitions and merging in any order must finish to the same result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from asyncworker.queue.context import Context


class Work(Protocol):
    """A function with its parameters checked and compiled, once a partition: all that a hot loop needs.

    Accumulators travel as MessagePack: dicts with text keys, lists, text, bytes, 64-bit integers, floats.
    """

    @property
    def fields(self) -> Sequence[str]:
        """The fields of an item that the parameters name: where all items have the same columns, each must be one."""
        ...

    def initial(self) -> Any:
        """Return a new accumulator: the identity of `merge`."""
        ...

    def map(self, item: Any) -> Any | Awaitable[Any]:
        """Map one item; may raise, which makes it a failed item, recorded apart."""
        ...

    def fold(self, acc: Any, value: Any) -> Any:
        """Fold one mapped value in and return the accumulator (the same or another)."""
        ...

    def merge(self, left: Any, right: Any) -> Any:
        """Return two accumulators as one. Associative; *left* covers the earlier items."""
        ...

    def finish(self, acc: Any, failed: int = 0) -> Any:
        """Return the final result, plain values that JSON can carry; *failed* items were never folded in."""
        ...


@runtime_checkable
class Bulk(Protocol):
    """A `Work` that folds most items of a list at once, for less than their calls alone would cost; its `map` never waits."""

    @property
    def reads(self) -> Mapping[str, Any]:
        """All fields of an item that are looked at, here and in `map` and `fold`: see `sources.source.Narrow`."""
        ...

    def fold_list(self, acc: Any, items: list[Any]) -> tuple[Any, Sequence[int]]:
        """Fold in what can be; return the accumulator, and the places of all other items, in order.

        Those are mapped and folded one by one after it, and so is what is no item (`BadItem`): whatever may fail is
        left to that. Folding all of them one by one must come to the same. Where all are `Slim`, or `Clean`, their
        fields are ``reads``. Raises nothing.
        """
        ...


@runtime_checkable
class Yielding(Protocol):
    """A `Work` that gives rows, which may be too many for one message or one memory."""

    def take_rows(self, acc: Any) -> list[Any] | None:
        """Take the rows out of an accumulator, in order; None where these parameters give none.

        Called where rows go to a sink, on each partition's accumulator before it is merged; `finish` then tells of
        all but them.
        """
        ...


@runtime_checkable
class Keyed(Protocol):
    """A `Work` whose accumulators are dicts by text key, which `merge` merges key by key.

    Of very many keys each worker takes a share, merges it, and makes rows of it; none ever holds them all. `finish`
    must come to the same as `whole` over the rows of all keys, in their order.
    """

    def order(self, key: str) -> Any:
        """Return by what a key is sorted: no other key's."""
        ...

    def row(self, key: str, value: Any) -> Any:
        """Return what is told of a key."""
        ...

    def whole(self, rows: list[Any]) -> Any:
        """Return all rows, in order, as the final result."""
        ...


@runtime_checkable
class Condensing(Protocol):
    """A `Keyed` whose result is little beside its keys: each share leaves what the result needs of it, and no more.

    `finish` must come to the same as `joined` over any shares of all keys, each of them condensed.
    """

    def condense(self, acc: Any) -> Any:
        """Return what is needed of a share of all keys, a plain value of some kilobytes."""
        ...

    def joined(self, shares: list[Any]) -> Any:
        """Return the final result."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A `Work` that holds connections once it has mapped."""

    async def close(self) -> None:
        """Give them back; called when a partition is over."""
        ...


@runtime_checkable
class Seeing(Protocol):
    """A `Work` that wants to know for which partition it works."""

    def see(self, ctx: Context) -> None:
        """Take in the partition's context, before anything is mapped."""
        ...


class Function(Protocol):
    """A function by name, with a JSON Schema of its parameters that is checked at submit."""

    name: str
    summary: str
    schema: Mapping[str, Any]

    def prepare(self, params: Mapping[str, Any]) -> Work:
        """Check and compile parameters.

        Raises:
            BadParameters: says which parameter, and what it should be.
        """
        ...
