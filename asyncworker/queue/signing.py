"""Signed jobs: workers run only what was enqueued by somebody who knows the key.

A signature (HMAC-SHA256) stands before the payload and covers the job's id (of a debounced one its key), its queue, the options that travel with
it and the call itself: so neither a changed byte nor a job moved to another queue is accepted. Several keys let one be
exchanged for another: the first signs, all of them are accepted, one with a date until then. It is a broker around
a broker; whoever enqueues or claims through it need not know.

    payload = 0xC1 (which begins no MessagePack), 4 bytes of the key's hash, 32 of the signature, the call
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from asyncworker.clock import Clock
from asyncworker.errors import SettingsError
from asyncworker.queue.admin import Admin
from asyncworker.queue.around import Around, AroundAdmin
from asyncworker.queue.brokers.broker import Answer, Broker
from asyncworker.queue.codec import pack, unpack
from asyncworker.queue.job import Claimed, Delivery, Found, Job, Missing, Op, Receipt, Settled, Twin
from asyncworker.queue.search import MOST, Page, Query

MARK = b"\xc1"
HEAD = 1 + 4 + 32
SHORTEST = 16
"""Bytes of a key; 32 random ones are as good as it gets."""
REFUSED = b"\xc1"
"""What a payload becomes whose signature is missing or wrong: it cannot be read, so the job fails as bad_payload."""
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Keyring:
    """Keys by which jobs are signed and checked.

    Args:
        keys: texts of 16 bytes or more, each with an optional ``@2026-12-31T00:00:00Z`` until which it is accepted.

    Raises:
        SettingsError: no key, one that is too short, or a date that cannot be read. The message shows none of them.
    """

    def __init__(self, keys: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[bytes, tuple[bytes, float]] = {}
        for number, text in enumerate(keys, 1):
            secret, _, date = text.partition("@")
            if len(secret.encode()) < SHORTEST:
                raise SettingsError(f"signing key {number} is shorter than {SHORTEST} bytes")
            try:
                until = datetime.fromisoformat(date).astimezone(UTC).timestamp() if date else float("inf")
            except ValueError:
                raise SettingsError(
                    f"signing key {number}: what stands after @ is no date such as 2026-12-31"
                ) from None
            self._keys[hashlib.sha256(secret.encode()).digest()[:4]] = secret.encode(), until
        if not self._keys:
            raise SettingsError("there is no signing key")
        self._first = next(iter(self._keys))

    def sign(self, job: Job) -> Job:
        """Return a job with its signature. Cost: 3 us."""
        secret, _ = self._keys[self._first]
        mac = _mac(secret, job.id, job.queue, job.options, job.payload)
        return msgspec.structs.replace(job, payload=MARK + self._first + mac + job.payload)

    def renew(self, gated: Settled) -> Settled:
        """Return an `Op.GATE` that gives a job back with its signature, which covers the options that it has now."""
        options, call = unpack(gated.value)
        job = self.sign(Job(gated.id, gated.queue, call, options=options))
        return msgspec.structs.replace(gated, value=pack((options, job.payload)))

    def check(self, delivery: Delivery) -> Delivery:
        """Return a delivery without its signature; one that cannot be read where that is missing or wrong."""
        payload = delivery.payload
        secret, until = self._keys.get(payload[1:5], (b"", 0.0))
        call = payload[HEAD:]
        good = payload[:1] == MARK and self._clock.now() < until
        if not good or not hmac.compare_digest(
            payload[5:HEAD], _mac(secret, delivery.id, delivery.queue, delivery.options, call)
        ):
            call = REFUSED
        return msgspec.structs.replace(delivery, payload=call)


def _mac(secret: bytes, job_id: str, queue: str, options: Mapping[str, Any], call: bytes) -> bytes:
    whose = options.get("unique") if options.get("debounce") else job_id  # it may go on under the id of an earlier call
    said = _encode((whose, queue, options))
    return hmac.digest(secret, len(said).to_bytes(4, "big") + said + call, "sha256")


def bare(found: Found | None) -> Found | None:
    """Return what was found with the call alone as its payload, whoever signed it."""
    if found is None or found.payload[:1] != MARK:
        return found
    return msgspec.structs.replace(found, payload=found.payload[HEAD:])


class _Signed(Around):
    """A broker through which jobs are signed when they are enqueued and checked when they are claimed."""

    def __init__(self, broker: Any, keys: Keyring) -> None:
        super().__init__(broker)
        self._keys = keys

    def __repr__(self) -> str:
        return f"<signed {self._broker!r}>"

    async def enqueue(self, jobs: Sequence[Job]) -> list[Receipt | Twin | Missing]:
        receipts: list[Receipt | Twin | Missing] = await self._broker.enqueue(list(map(self._keys.sign, jobs)))
        return receipts

    def enqueue_blocking(self, job: Job) -> Answer:
        answer: Answer = self._broker.enqueue_blocking(self._keys.sign(job))
        return answer

    async def step(self, epoch: str, settled: Sequence[Settled], *args: Any, **kwargs: Any) -> Claimed:
        signed = [self._keys.renew(one) if one.op is Op.GATE else one for one in settled]
        claimed: Claimed = await self._broker.step(epoch, signed, *args, **kwargs)
        return msgspec.structs.replace(claimed, deliveries=list(map(self._keys.check, claimed.deliveries)))

    async def find(self, ids: Sequence[str]) -> list[Found | None]:
        return list(map(bare, await self._broker.find(ids)))


class _SignedAdmin(_Signed, AroundAdmin):
    async def fire(self, name: str, tick_ms: int, job: Job) -> Receipt | Twin | Missing | None:
        fired: Receipt | Twin | Missing | None = await self._broker.fire(name, tick_ms, self._keys.sign(job))
        return fired

    async def jobs(self, query: Query, cursor: str = "", limit: int = MOST) -> Page:
        page = await self._broker.jobs(msgspec.structs.replace(query, task=""), cursor, limit)
        return Page([one for one in map(bare, page.jobs) if one and query.fits(one)], page.cursor)


def signed(broker: Broker, keys: Keyring) -> Broker:
    """Return a broker through which jobs are signed when they are enqueued and checked when they are claimed."""
    kind = _SignedAdmin if isinstance(broker, Admin) else _Signed
    return cast("Broker", kind(broker, keys))
