"""Results that are too large for the broker lie in a store; with the job lies their name alone.

Whoever asks for such a result is given it as any other; where it is no longer there, it has expired. A store keeps
results for a day longer than the broker knows of them, for jobs that are still to be given them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from asyncworker.errors import DecodeError, StoreError
from asyncworker.queue.admin import Admin
from asyncworker.queue.around import Around, AroundAdmin
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.job import Ended
from asyncworker.queue.stores.store import Store

log = logging.getLogger(__name__)

ABOVE = 256 * 2**10
"""Bytes of a result above which it goes to the store, unless somebody says otherwise."""
LONGER_S = 86400.0
SWEEP_S = 3600.0
OF_ELEVEN = b"\x9b"
"""How a record begins that may name a store's result: one that a worker wrote of a success has ten parts."""


class Offload:
    """Puts results larger than *above* bytes into a store."""

    def __init__(self, store: Store, above: int = ABOVE) -> None:
        self.above = above
        self._store = store

    async def put(self, record: bytes, seconds: float) -> str:
        """Store a record that its job keeps for so long, and return its name.

        Raises:
            StoreError.
        """
        return await self._store.put(record, seconds + LONGER_S)

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        """Sweep the store now and then while the block runs."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def _sweep(self) -> None:
        while True:
            try:
                await self._store.sweep()
            except StoreError as exc:
                log.warning("results that have expired stay where they are: %s", exc)
            await asyncio.sleep(SWEEP_S)


class _Fetching(Around):
    """A broker that gives results as if they lay there."""

    def __init__(self, broker: Any, store: Store) -> None:
        super().__init__(broker)
        self._store = store

    def __repr__(self) -> str:
        return repr(self._broker)

    async def wait(self, ids: Sequence[str], timeout: float | None) -> list[Ended | None]:
        return [await self._fetched(ended) for ended in await self._broker.wait(ids, timeout)]

    async def _fetched(self, ended: Ended | None) -> Ended | None:
        if ended is None or ended.record[:1] != OF_ELEVEN:
            return ended
        try:
            name = unpack_record(ended.record).stored
        except DecodeError:
            return ended
        record = await self._store.get(name) if name else None
        return ended if record is None else Ended(ended.state, record)

    async def close(self) -> None:
        await self._store.close()
        await self._broker.close()


class _FetchingAdmin(_Fetching, AroundAdmin):
    pass


def fetching(broker: Broker, store: Store) -> Broker:
    """Return a broker that gives results which lie in this store as if they lay there."""
    return cast("Broker", (_FetchingAdmin if isinstance(broker, Admin) else _Fetching)(broker, store))
