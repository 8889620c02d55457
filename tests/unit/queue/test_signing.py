"""Signatures: what they cover, which keys are accepted, and until when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker import Engine, Limit
from asyncworker.errors import DecodeError, SettingsError
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers import memory
from asyncworker.queue.codec import Ids, pack_call, unpack_call
from asyncworker.queue.job import Delivery, Job, Receipt
from asyncworker.queue.signing import HEAD, Keyring, signed
from tests.support.clock import FrozenClock

OLD, NEW = "o" * 32, "n" * 32
CALL = pack_call("charge", (1, "x"), {})
new_id = Ids()


def ring(*keys: str, clock: FrozenClock | None = None) -> Keyring:
    return Keyring(keys, clock or FrozenClock())


def delivered(job: Job, **more: Any) -> Delivery:
    return Delivery(**{"id": job.id, "queue": job.queue, "payload": job.payload, "options": job.options} | more)


def is_accepted(keys: Keyring, delivery: Delivery) -> bool:
    checked = keys.check(delivery)
    try:
        unpack_call(checked.payload)
    except DecodeError:
        return False
    return checked.payload == CALL


JOB = Job(new_id(), "default", CALL, options={"unique": "k", "result_ttl": 5.0})
SIGNED = ring(NEW).sign(JOB)


def test_what_was_signed_is_accepted():
    assert is_accepted(ring(NEW), delivered(SIGNED))
    assert is_accepted(ring(OLD, NEW), delivered(SIGNED)), "all keys are accepted"
    assert not is_accepted(ring(OLD), delivered(SIGNED))
    assert not is_accepted(ring(NEW), delivered(JOB)), "unsigned"


@given(at=st.integers(0, len(SIGNED.payload) - 1), bit=st.integers(0, 7))
def test_each_flipped_bit_is_refused(at: int, bit: int):
    payload = bytearray(SIGNED.payload)
    payload[at] ^= 1 << bit
    assert not is_accepted(ring(NEW), delivered(SIGNED, payload=bytes(payload)))


@given(st.binary(max_size=HEAD + 10))
def test_any_bytes_are_refused(payload: bytes):
    assert not is_accepted(ring(NEW), delivered(SIGNED, payload=payload))


@pytest.mark.parametrize(
    "more", [{"id": new_id()}, {"queue": "other"}, {"options": {}}, {"options": {"unique": "k", "result_ttl": 6.0}}]
)
def test_what_was_moved_is_refused(more: dict[str, Any]):
    assert not is_accepted(ring(NEW), delivered(SIGNED, **more))


def test_an_old_key_is_accepted_in_its_window_alone():
    clock = FrozenClock()
    by_old = ring(OLD, clock=clock).sign(JOB)
    until = datetime.fromtimestamp(clock.now() + 60, UTC)
    keys = ring(NEW, f"{OLD}@{until.isoformat()}", clock=clock)
    assert is_accepted(keys, delivered(by_old))
    clock.advance(61)
    assert not is_accepted(keys, delivered(by_old))
    assert is_accepted(keys, delivered(SIGNED))


@pytest.mark.parametrize(
    ("keys", "why"), [((), "no signing key"), (("too-few",), "16 bytes"), ((f"{NEW}@noon",), "date")]
)
def test_keys_that_are_none(keys: tuple[str, ...], why: str):
    with pytest.raises(SettingsError, match=why) as raised:
        ring(*keys)
    assert not keys or keys[0].partition("@")[0] not in str(raised.value)


async def test_a_broker_around_a_broker():
    inner = memory.open("memory://")
    broker = signed(inner, ring(NEW))
    assert isinstance(broker, Admin)
    await broker.enqueue([JOB])
    (found,) = await inner.find([JOB.id])
    assert found is not None
    assert found.payload != CALL
    (found,) = await broker.find([JOB.id])
    assert found is not None
    assert found.payload == CALL
    assert await broker.find([new_id()]) == [None]
    await broker.close()


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_jobs_that_get_limits_or_are_debounced_stay_signed(redis_url: str, kind: str):
    url = "memory://" if kind == "memory" else redis_url
    namespace = f"signed-{new_id()}"
    worker, client = (Engine(url, namespace=namespace, signing_keys=(NEW,)) for _ in range(2))
    client = worker if kind == "memory" else client

    @worker.task(limit=Limit(1))
    async def limited() -> int:
        return 1

    @worker.task(debounce=0.05, unique="k")
    async def debounced(number: int) -> int:
        return number

    async with worker, client:
        job = Job(new_id(), "default", pack_call("limited", (), {}))
        assert await client.broker.enqueue([job]) == [Receipt.ACCEPTED]
        calls = [await debounced.enqueue(number) for number in range(3)]
        assert calls[0].id == calls[2].id
        working = asyncio.ensure_future(worker.run()) if kind == "redis" else None
        assert await client.job(job.id).result(timeout=20) == 1
        assert await calls[0].result(timeout=20) == 2
        if working is not None:
            worker.stop()
            await working


def test_options_of_a_debounced_job_that_nobody_signed():
    forged = delivered(msgspec.structs.replace(SIGNED, options={"debounce": 5}))
    assert not is_accepted(ring(NEW), forged)
    job = Job(new_id(), "default", CALL, options={"unique": "k", "debounce": 5.0})
    made = ring(NEW).sign(job)
    assert is_accepted(ring(NEW), delivered(made, id=new_id())), "an earlier call's"
    assert not is_accepted(ring(NEW), delivered(made, options={"unique": "l", "debounce": 5.0}))
