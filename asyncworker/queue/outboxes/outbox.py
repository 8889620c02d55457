"""What an outbox is: jobs that are enqueued by the caller's own database transaction, and relayed from there.

Every other file in this folder is one, for the databases of one scheme, with ``write`` and ``open`` as below. The job
is there exactly when what the transaction did is; it stays there until it is over, so that it can be enqueued anew
when the broker has lost everything. So it may run again where its result was not kept until the relay saw it:
results of such jobs are kept for `KEPT_S` at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Job
from asyncworker.queue.task import TaskOptions

KEPT_S = 3600.0
"""How long a relay may be away before a job that is over can be taken for one that was lost."""
LOOK_S = 30.0
"""How often a relay looks whether jobs that it has enqueued are over, or gone."""


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

    def open(self, url: str, *, namespace: str, broker: Broker, look_s: float = LOOK_S) -> Relay:
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
