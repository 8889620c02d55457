"""The map and reduce coroutines of the conformance suite: what its workers run, and what a plain loop makes of a plan.

Mapped and reduced is what shows any difference: doubles of all sizes added up as they come, so that another order of
merging gives other bits; the same sum exactly; and the first keys. Failures are injected by the items themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from asyncworker import Engine
from asyncworker.mapreduce import openings
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.functions.function import Function
from asyncworker.mapreduce.job import MAP_TASK, MERGE_TASK, REDUCE_TASK
from asyncworker.mapreduce.sources.source import BadItem
from asyncworker.queue.codec import pack, unpack
from asyncworker.queue.context import Context
from asyncworker.queue.job import Parted

FOLDER = "CONFORMANCE_FOLDER"
"""Names a folder; in it lies what workers are told by files, and where they say what they do."""
HOLD = "hold"
"""While a file of this name lies there, whoever has reduced a job does not say so."""
SLOW = "slow"
"""Holds how long, in s, a partition is waited for beside its work."""
MARKS = "marks"
"""``<job id> reduced <pid>`` when a job is reduced, ``<job id> done <pid>`` right before that is said."""


async def weigh(item: Any, params: Mapping[str, Any]) -> Any:
    """Return the item's number; every 13th is told to fail, and every 7th lets others go first."""
    number = int(item["n"])
    if number % 7 == 0:
        await asyncio.sleep(0)
    if number % 13 == 0:
        raise ValueError(f"no weight of {number}")
    return [number, float(item["v"])]


class Scales:
    """Add up in three ways."""

    def initial(self, params: Any) -> Any:
        return {"count": 0, "rough": 0.0, "exact": "0", "first": []}

    def fold(self, acc: Any, value: Any) -> Any:
        number, weight = value
        return self.merge(acc, {"count": 1, "rough": weight, "exact": str(Fraction(weight)), "first": [number]})

    def merge(self, left: Any, right: Any) -> Any:
        return {
            "count": left["count"] + right["count"],
            "rough": left["rough"] + right["rough"],
            "exact": str(Fraction(left["exact"]) + Fraction(right["exact"])),
            "first": [*left["first"], *right["first"]][:5],
        }

    def finish(self, acc: Any, params: Any) -> Any:
        return {**acc, "exact": float(Fraction(acc["exact"]))}


class Letters:
    """Count and add up by the first letters of a digest: a reducer by keys."""

    def initial(self, params: Any) -> Any:
        return {}

    def fold(self, acc: Any, value: Any) -> Any:
        number, weight = value
        key = hashlib.sha256(str(number).encode()).hexdigest()[:2]
        return self.merge(acc, {key: [1, weight]})

    def merge(self, left: Any, right: Any) -> Any:
        for key, (count, weight) in right.items():
            mine = left.setdefault(key, [0, 0.0])
            mine[0] += count
            mine[1] += weight
        return left

    def row(self, key: str, value: Any, params: Any) -> Any:
        return {"key": key, "count": value[0], "weight": value[1]}


def make(broker: str = os.environ.get("ASYNCWORKER_BROKER", "memory://")) -> Engine:
    """Return an engine that knows these coroutines; what breaks is tried again soon and often."""
    made = Engine(broker, queues=["cpu_intensive"])
    made.mapper(weigh)
    made.reducer(Scales)
    made.reducer(Letters)
    assert made.broker
    folder = Path(os.environ[FOLDER]) if FOLDER in os.environ else None
    for name in (MAP_TASK, MERGE_TASK, REDUCE_TASK):
        known = made.tasks[name]
        options = msgspec.structs.replace(
            known.options,
            max_attempts=50,
            retry_backoff=0.02,
            retry_backoff_max=0.2,
            max_deliveries=100,
            result_ttl=float(os.environ.get("CONFORMANCE_TTL", "3600")),
        )
        call = known.call if folder is None else (_held if name == REDUCE_TASK else _slowed)(known.call, folder)
        made.tasks._known[name] = msgspec.structs.replace(known, options=options, call=call)
    if folder is not None:
        openings.IDLE_S = 0.2
    return made


def _slowed(call: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    async def slowed(*args: Any, **kwargs: Any) -> Any:
        pause_s = float((folder / SLOW).read_text()) if (folder / SLOW).exists() else 0.0
        await asyncio.sleep(pause_s / 2)
        result = await call(*args, **kwargs)
        await asyncio.sleep(pause_s / 2)
        return result

    return slowed


def _held(call: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    async def held(*args: Any, ctx: Context) -> Any:
        def mark(word: str) -> None:
            with (folder / MARKS).open("a") as file:
                file.write(f"{ctx.id} {word} {os.getpid()}\n")

        result = await call(*args, ctx=ctx)
        if not isinstance(result, Parted):
            mark("reduced")
            while (folder / HOLD).exists():
                await asyncio.sleep(0.005)
            mark("done")
        return result

    return held


async def plain(
    source: str, function: Function, params: Mapping[str, Any], size: int, fan_in: int = 0
) -> dict[str, Any]:
    """Map and reduce in a plain loop, with neither a queue nor our mapper and reducer."""
    opened = open_source(source)
    accs, failures, items = [], [], 0
    work = function.prepare(params)
    async for partition in opened.partitions(size):
        acc = work.initial()
        async for pairs in opened.read(partition):
            for key, item in pairs:
                items += 1
                if isinstance(item, BadItem):
                    failures.append({"key": key, "error_type": "BadItem", "error_text": item.error})
                    continue
                try:
                    value = work.map(item)
                    acc = work.fold(acc, await value if hasattr(value, "__await__") else value)
                except ValueError as exc:
                    failures.append({"key": key, "error_type": "ValueError", "error_text": str(exc)})
        accs.append(acc)
    partitions = len(accs)
    await opened.close()

    def merged(some: list[Any]) -> Any:
        acc = work.initial()
        for other in some:
            acc = work.merge(acc, unpack(pack(other)))
        return acc

    while fan_in and len(accs) > fan_in:
        accs = [merged(accs[start : start + fan_in]) for start in range(0, len(accs), fan_in)]
    return {
        "total_processed": items,
        "total_failed": len(failures),
        "partitions_processed": partitions,
        "failures": failures[:100],
        "final_result": work.finish(merged(accs), len(failures)),
    }


def compared(summary: Mapping[str, Any]) -> bytes:
    """Return what must be the same of a summary, as bytes."""
    names = ("total_processed", "total_failed", "partitions_processed", "failures", "final_result")
    return msgspec.json.encode({name: summary[name] for name in names})
