"""What an outbox is: jobs that are enqueued by the caller's own database transaction, and relayed from there.

Every other file in this folder is one, for the databases of one scheme, with ``write`` and ``open`` as below. The job
is there exactly when what the transaction did is; it stays there until it is over, so that it can be enqueued anew
when the broker has lost everything. So it may run again where its result was not kept until the relay saw it:
results of such jobs are kept for `KEPT_S` at least.

A job that is to run ``after`` others stays in the outbox until those of them that lie there too were enqueued. One after
a job that nobody knows waits for `HELD_S`, for that one's transaction may not be over, and then fails as ``dependency``;
so does one that is written after the broker has lost everything, if it names a job that was over before.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from asyncworker.clock import SYSTEM
from asyncworker.errors import DecodeError
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack, unpack_call
from asyncworker.queue.job import Job, Op, Reason, Receipt, Record, Settled, WorkerCard
from asyncworker.queue.task import DEFAULTS, KEEP_S, TaskOptions

KEPT_S = 3600.0
"""How long a relay may be away before a job that is over can be taken for one that was lost."""
LOOK_S = 30.0
"""How often a relay looks whether jobs that it has enqueued are over, or gone."""
HELD_S = 60.0
"""How long a job waits for one that neither the broker nor the outbox knows."""
LEASE_S = 60.0


class Relay(Protocol):
    """Moves jobs from an outbox to the broker. Any number may run; each job is in the hands of one at a time."""

    async def run(self) -> None:
        """Go on until cancelled; waits out whatever is away."""
        ...


class Module(Protocol):
    """What a file of this folder has."""

    async def write(self, connection: Any, namespace: str, jobs: Sequence[Job]) -> None:
        """Put jobs into the outbox, within whatever transaction *connection* is in.

        Raises:
            SettingsError: there is no outbox in this database, or this is no connection to one.
        """
        ...

    def open(
        self, url: str, *, namespace: str, broker: Broker, look_s: float = LOOK_S, held_s: float = HELD_S
    ) -> Relay:
        """Return a relay; nothing is connected before it runs."""
        ...


def kept(job: Job, task: TaskOptions) -> Job:
    """Return a job whose end can be seen for as long as a relay needs, and whose delay counts from now."""
    options = dict(job.options)
    for name in ("result_ttl", "failure_ttl"):
        ttl = options.get(name, getattr(task, name))
        if ttl is not None and ttl < KEPT_S:
            options[name] = KEPT_S
    return msgspec.structs.replace(job, options=options, delay_s=0.0, at_s=options.get("due_s", 0.0), durable="memory")


_decode = msgspec.msgpack.Decoder(Job).decode


def packed(job: Job) -> bytes:
    return msgspec.msgpack.encode(job)


def unpacked(data: bytes) -> Job | None:
    """Return a job; None where the bytes are none that this version can read."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return None


async def give_up(broker: Broker, jobs: Sequence[Job], unknown: Mapping[str, str]) -> None:
    """End jobs as failed, for reason ``dependency``; *unknown* names for each the job that nobody knows.

    They are born into our own hands, so that no worker can have one before it has ended.

    Raises:
        BrokerDown: some may be there, and run.
    """
    now_s = SYSTEM.now()
    epoch = await broker.join(
        WorkerCard(socket.gethostname(), os.getpid(), (), 0, LEASE_S, now_s, role="feeder"), lambda _: None
    )
    try:
        held = [msgspec.structs.replace(job, hold=epoch, after=()) for job in jobs]
        receipts = await broker.enqueue(held)
        ours = [job for job, receipt in zip(jobs, receipts, strict=True) if receipt is Receipt.ACCEPTED]
        await broker.step(epoch, [_failed(job, unknown[job.id], now_s) for job in ours], {}, 0)
    finally:
        await broker.reap(epoch, "", crashed=False)


def _failed(job: Job, unknown: str, now_s: float) -> Settled:
    try:
        task, *_ = unpack_call(job.payload)
    except DecodeError:
        task = ""
    why = f"nobody knows how job {unknown} ended, after which it was to run"
    record = Record(task=task, ended_s=now_s, reason=Reason.DEPENDENCY, error_text=why, queue=job.queue)
    ttl = job.options.get("failure_ttl", DEFAULTS.failure_ttl)
    return Settled(job.id, Op.FAILED, job.queue, KEEP_S if ttl is None else math.ceil(ttl), pack(record))
