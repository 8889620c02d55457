"""Report: where the time of a map/reduce job went, of one that is over or as far as it is."""

from __future__ import annotations

from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import JobNotFound
from asyncworker.mapreduce.digest import Digest
from asyncworker.mapreduce.job import Partial, read, read_call
from asyncworker.mapreduce.progress import look, outcome_of
from asyncworker.mapreduce.sources.source import Partition
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import born_ms, unpack_record
from asyncworker.queue.job import State, child_id, original_of

SLICE = 64


class Running(msgspec.Struct, frozen=True):
    """A partition that is under way: *seconds* so far, *expected* from what others took (0: unknown)."""

    partition: int
    items: int
    seconds: float
    expected: float = 0.0
    copy: bool = False


class Report(msgspec.Struct, frozen=True):
    """Where a job's time went.

    ``shares`` of the partitions' own time, 0..1: ``reading``, ``mapping`` and ``sending``. ``waiting_s`` is how long a
    partition waited for a worker, in the mean; ``skew`` how many times as long as the mean the slowest one took.
    ``steps``: what each step took in s, summed over all who did it: ``waiting reading mapping sending shuffling reducing``.
    ``stretches``: how long the job itself was in each, in s: ``planning mapping reducing``; the first two may overlap.
    ``phase`` is one of ``planning mapping reducing``, and "" of a job that is over.
    """

    job_id: str
    state: State
    phase: str
    seconds: float
    items: int
    items_per_s: float
    partitions_done: int
    partitions_total: int
    shares: dict[str, float]
    waiting_s: float
    skew: float
    digest: Digest
    steps: dict[str, float]
    stretches: dict[str, float]
    running: list[Running] = []


async def report(broker: Broker, job_id: str, *, clock: Clock = SYSTEM) -> Report:
    """Return the report of a job.

    Raises:
        JobNotFound: nobody knows the id, or no longer; or it is no map/reduce job.

    Cost: of a job that is over a round trip; of another one more for every 64 partitions, with what they came to.
    """
    found, _ = await look(broker, job_id)
    record = unpack_record(found.record)
    running: list[Running] = []
    phase = ""
    if found.children and not found.state.terminal:
        children = found.children
        digest = await _so_far(broker, job_id, children.total)
        running = await _under_way(broker, job_id, digest, clock.now())
        done, total = children.done, children.total
        phase = "planning" if not children.sealed else "mapping" if done < total else "reducing"
        until = clock.now()
    else:
        stats = outcome_of(found, record).get("processing_stats", {})
        if "digest" not in stats:
            raise JobNotFound(f"job {job_id} left no report: it ended before its partitions did")
        digest = read(Digest, stats["digest"])
        done, total, until = stats["partitions_processed"], stats["partitions_total"], record.ended_s
    seconds = max(until - born_ms(job_id) / 1000, 1e-3)
    spent = max(digest.read_s + digest.map_s + digest.send_s, 1e-9)
    return Report(
        job_id=job_id,
        state=found.state,
        phase=phase,
        seconds=seconds,
        items=digest.items,
        items_per_s=digest.items / seconds,
        partitions_done=done,
        partitions_total=total,
        shares={
            "reading": digest.read_s / spent,
            "mapping": digest.map_s / spent,
            "sending": digest.send_s / spent,
        },
        waiting_s=digest.wait_s / max(digest.partitions, 1),
        skew=digest.skew,
        digest=digest,
        steps={
            "waiting": digest.wait_s,
            "reading": digest.read_s,
            "mapping": digest.map_s,
            "sending": digest.send_s,
            "shuffling": digest.step_s,
            "reducing": digest.reduce_s,
        },
        stretches=_stretches(digest, born_ms(job_id) / 1000, until, mapped=done >= total and phase != "planning"),
        running=running,
    )


def _stretches(digest: Digest, born_s: float, until: float, *, mapped: bool) -> dict[str, float]:
    """Return how long it took to plan, to map, and what came after that; clocks of several machines make it inexact."""
    ended = (digest.ended or until) if mapped else until
    return {
        "planning": max(0.0, digest.cut_until - born_s) if digest.cut_until else 0.0,
        "mapping": max(0.0, ended - digest.began) if digest.began else 0.0,
        "reducing": max(0.0, until - ended),
    }


async def _so_far(broker: Broker, job_id: str, total: int) -> Digest:
    digest = Digest()
    for start in range(0, total, SLICE):
        ids = [child_id(job_id, part) for part in range(start, min(start + SLICE, total))]
        for one in await broker.find(ids):
            if one is not None and one.state is State.SUCCEEDED:
                digest += read(Partial, unpack_record(one.record).value).digest
    return digest


async def _under_way(broker: Broker, job_id: str, digest: Digest, now_s: float) -> list[Running]:
    cost_s = digest.seconds / digest.items if digest.items else 0.0
    running = []
    for one in await broker.find(await broker.running(job_id)):
        if one is not None and one.payload and one.state is State.RUNNING:
            partition = _partition(one.payload)
            if partition is not None:
                seconds = max(0.0, now_s - one.started_s)
                copy = original_of(one.id) is not None
                running.append(Running(partition.index, partition.items, seconds, cost_s * partition.items, copy))
    return sorted(running, key=lambda each: -each.seconds)


def _partition(payload: bytes) -> Partition | None:
    """Return the partition that a child's call carries; None of a step of the reduction."""
    partition: Any = read_call(dict[str, Any], payload)
    return read(Partition, partition) if "index" in partition else None
