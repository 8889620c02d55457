"""Pieces: how an accumulator gets from who folded it to who merges it.

A small one travels in its `Partial`, a larger one ahead of it in chunks. That of a `Keyed` function, once it is not
small, is dealt out by the hash of its keys into 2^bits pieces of some kilobytes, so that a job that merges one share
of all keys reads what is its own and nothing else. The hash is CRC-32, the same on every machine, and its lowest bits
count: piece 5 of 8 holds what pieces 5 and 13 of 16 would. Pieces are compressed: keys have much in common.

They lie with the job in the broker, which deletes them with it; no other place is needed that all workers can see. A
key of a group with one sum takes 10 to 20 bytes there, for each partition that met it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.mapreduce.functions.function import Keyed, Work
from asyncworker.mapreduce.job import CHUNK_BYTES, Partial
from asyncworker.mapreduce.offers import offers
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack, unpack
from asyncworker.queue.context import Context

INLINE_BYTES = 2**16
"""A larger accumulator goes ahead of its partial: who only counts partials need not read it."""
PIECE_BYTES = 2**12
"""How large a piece should be before it is compressed."""
MOST_BITS = 12
KEYS_HELD = 2**15
"""How many keys a partition folds before it sends them ahead and begins anew: its memory is bounded, whatever its size."""
AT_ONCE = 64
"""How many pieces are sent or read in one round trip."""
CHUNKS_AT_ONCE = 16


class Outbound:
    """What one partition, or step, leaves of its accumulator.

    ``size`` is what it takes packed; ``runs`` are the bits of each time that keys were dealt out, whose pieces are
    numbered on and on; else all is in ``chunks`` or in what `end` returned.
    """

    def __init__(self, ctx: Context, work: Work) -> None:
        self.size = 0
        self.chunks = 0
        self.runs: list[int] = []
        self._ctx = ctx
        self._keyed = offers(work, Keyed)

    def is_full(self, acc: Any) -> bool:
        """Return whether an accumulator has grown so large that it is better sent ahead."""
        return self._keyed and len(acc) >= KEYS_HELD

    async def spill(self, acc: dict[str, Any]) -> None:
        """Send all of an accumulator by keys ahead."""
        await self._deal(acc, len(pack(acc, None)))

    async def end(self, acc: Any) -> bytes:
        """Send the last accumulator ahead, or return it packed where it is small.

        Raises:
            BadParameters: MessagePack cannot carry it, or one key's value takes more than 16 MiB.
        """
        data = pack(acc, None)
        if self._keyed and (self.runs or len(data) > INLINE_BYTES):
            await self._deal(acc, len(data))
            return b""
        self.size += len(data)
        if len(data) <= INLINE_BYTES:
            return data
        await self._send([data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)], 1)
        return b""

    async def put(self, rows: Sequence[Any]) -> None:
        """Send a chunk of rows ahead."""
        data = pack(rows)
        self.size += len(data)
        await self._send([zlib.compress(data, 1)], 1)

    async def _deal(self, acc: dict[str, Any], size: int) -> None:
        bits = min(MOST_BITS, (max(size - 1, 0) // PIECE_BYTES).bit_length())
        self.size += size
        self.runs.append(bits)
        await self._send((zlib.compress(pack(share), 1) for share in deal(acc, bits)), AT_ONCE)

    async def _send(self, chunks: Iterable[bytes], at_once: int) -> None:
        waiting: list[Any] = []
        for chunk in chunks:
            waiting.append(self._ctx.send_chunk(self.chunks, chunk))
            self.chunks += 1
            if len(waiting) >= at_once:
                await asyncio.gather(*waiting)
                waiting = []
        await asyncio.gather(*waiting)


def deal(acc: dict[str, Any], bits: int) -> list[dict[str, Any]]:
    """Return an accumulator's keys in 2^bits shares, each in the order in which they came."""
    shares: list[dict[str, Any]] = [{} for _ in range(1 << bits)]
    mask = (1 << bits) - 1
    try:
        for key, value in acc.items():
            shares[zlib.crc32(key.encode()) & mask][key] = value
    except AttributeError as exc:
        raise BadParameters("a reducer with row() keeps a dict whose keys are text") from exc
    return shares


def share_of(acc: dict[str, Any], bits: int, share: int) -> dict[str, Any]:
    """Return of an accumulator's keys those of one of 2^bits shares."""
    mask = (1 << bits) - 1
    return {key: value for key, value in acc.items() if zlib.crc32(key.encode()) & mask == share}


async def load(
    broker: Broker, partials: Iterable[tuple[str, Partial]], *, bits: int = 0, share: int = 0
) -> AsyncIterator[Any]:
    """Yield the accumulators of children, in their order; of those by keys, only one of 2^bits shares.

    One that was dealt out comes as its pieces, one after another.
    """
    wanted: list[tuple[str, bool]] = []
    for child, partial in partials:
        if partial.runs:
            wanted += _pieces(child, partial.runs, bits, share)
            continue
        async for acc in _read(broker, wanted, bits, share):
            yield acc
        wanted = []
        acc = unpack(await _whole(broker, child, partial))
        yield share_of(acc, bits, share) if bits else acc
    async for acc in _read(broker, wanted, bits, share):
        yield acc


async def read_rows(broker: Broker, child: str, chunks: int) -> AsyncIterator[list[Any]]:
    """Yield the chunks of rows that a child put ahead, in their order."""
    for number in range(chunks):
        for data in await _fetch(broker, [f"{child}:{number}"]):
            yield _inflated(data)


def _pieces(child: str, runs: Sequence[int], bits: int, share: int) -> Iterator[tuple[str, bool]]:
    """Yield the pieces that hold a share, and whether they hold others', too."""
    first = 0
    for run in runs:
        step = 1 << min(bits, run)
        for number in range(share % step, 1 << run, step):
            yield f"{child}:{first + number}", run < bits
        first += 1 << run


async def _read(broker: Broker, wanted: list[tuple[str, bool]], bits: int, share: int) -> AsyncIterator[Any]:
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        for data, (_, mixed) in zip(await _fetch(broker, [name for name, _ in some]), some, strict=True):
            acc = _inflated(data)
            yield share_of(acc, bits, share) if mixed else acc


async def _whole(broker: Broker, child: str, partial: Partial) -> bytes:
    """Return an accumulator's bytes, wherever they are."""
    pieces = [partial.acc]
    for start in range(0, partial.chunks, CHUNKS_AT_ONCE):
        numbers = range(start, min(start + CHUNKS_AT_ONCE, partial.chunks))
        pieces += await _fetch(broker, [f"{child}:{number}" for number in numbers])
    return b"".join(pieces)


async def _fetch(broker: Broker, names: list[str]) -> list[bytes]:
    return [ended.record if ended else b"" for ended in await broker.wait(names, 0)]


def _inflated(data: bytes) -> Any:
    try:
        return unpack(zlib.decompress(data))
    except zlib.error as exc:
        raise DecodeError(f"these bytes are no piece: {exc}") from exc
