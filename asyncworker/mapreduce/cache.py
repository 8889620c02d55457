"""Results that are there already: the same function with the same parameters over the same version of a dataset.

What is remembered is the id of the job that did it, not its result: that lies with the job for as long as it is kept,
and a job that failed or is forgotten is no answer. Where there is a table for that (`asyncworker.mapreduce.cachetable`),
results lie there, too, and a job that the broker has forgotten is given back to it. The version of a dataset is its own word, or what a source can tell
of it without reading it through; where neither is known, nothing is remembered.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from asyncworker import __version__
from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_cache, open_source
from asyncworker.mapreduce.feeder import Feeder
from asyncworker.mapreduce.job import REDUCE_TASK
from asyncworker.mapreduce.pace import Flow
from asyncworker.mapreduce.sources.source import Versioned
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack, pack_call
from asyncworker.queue.job import Job, State
from asyncworker.queue.keeps.keep import Keep
from asyncworker.secret import mask_text

TABLE = "results"
TTL_S = 86_400.0
BACK_S, LEASE_S = 3600, 10.0
log = logging.getLogger(__name__)


async def key_of(
    source: Any,
    function: str,
    params: Mapping[str, Any],
    more: Mapping[str, Any],
    *,
    version: str | None,
    database: str | None,
) -> str | None:
    """Return what a result goes by; None where nobody knows the version of the dataset.

    Args:
        more: what else decides a result. version: the dataset's, or that of code; "" is what the source can tell.

    Raises:
        SourceError: it cannot be opened.
    """
    opened = open_source(source, database)
    try:
        told = await opened.version() if isinstance(opened, Versioned) else None
    finally:
        await opened.close()
    if told is None and not version:
        return None
    words = [__version__, opened.url, told, version, function, _sorted(params), _sorted(more)]
    return hashlib.sha256(pack(words)).hexdigest()


async def known_job(keep: Keep, broker: Broker, key: str) -> str | None:
    """Return the job that does this, or has done it and whose result is still there.

    Raises:
        KeepError, BrokerDown.
    """
    name = (await keep.values(TABLE)).get(key)
    if name is None:
        return None
    (found,) = await broker.find([job_id := name.decode()])
    ours = found is not None and (found.state is State.SUCCEEDED or not found.state.terminal)
    return job_id if ours else None


async def remember(keep: Keep, key: str, job_id: str, ttl_s: float = TTL_S) -> None:
    """Note who does this. Raises KeepError."""
    await keep.put(TABLE, {key: job_id.encode()}, ttl_s)


async def brought_back(url: str, broker: Broker, key: str, queue: str, *, clock: Clock = SYSTEM) -> str | None:
    """Return the job whose result lies in a table, and is with the job again for an hour; None where there is none.

    A table that cannot be asked has none, which is logged. Raises BrokerDown.
    """
    table = open_cache(url)
    try:
        found = await table.find(key)
    except SourceError as exc:
        log.warning("cached results cannot be asked for: %s", mask_text(str(exc)))
        return None
    finally:
        await table.close()
    if found is None:
        return None
    job_id, summary = found
    feeder = Feeder(broker, Job(job_id, queue, pack_call(REDUCE_TASK, (), {})), Flow(1, 1), LEASE_S, clock)
    await feeder.begin()
    await feeder.done(summary, BACK_S)
    (there,) = await broker.find([job_id])
    return job_id if there is not None and there.state is State.SUCCEEDED else None


def _sorted(value: Any) -> Any:
    """Return a value in which the order of keys does not matter."""
    if isinstance(value, Mapping):
        return [[str(key), _sorted(value[key])] for key in sorted(value, key=str)]
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value
