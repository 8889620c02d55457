"""Inputs: what a job is given by those that it waited for, and the task that does nothing but gather that.

The broker keeps how each of them ended as long as the job is not over, so that their own results may expire before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from asyncworker.errors import BrokerDown, ResultExpired
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.ending import error_of
from asyncworker.queue.job import Delivery, State

INPUT: Final = "input"
INPUTS: Final = "inputs"
"""Options of a job: it is given one value, or a list of so many."""
GATHER_TASK = "asyncworker.gather"
PAUSE_S = 1.0


def wants_inputs(options: Mapping[str, Any]) -> bool:
    """Return whether a job with these options is given something."""
    return INPUT in options or INPUTS in options


async def gather(values: list[Any]) -> list[Any]:
    """Return what the jobs of a group returned, in their order."""
    return values


async def inputs_of(broker: Broker, delivery: Delivery) -> list[Any]:
    """Return the arguments that go before a job's own: one value, or one list. Waits out an outage.

    In the place of a value that there is none of stands the error, where the job allows failure.

    Raises:
        JobNotFound: nothing is kept for this job, which is over then. ResultExpired, StoreError: a large one is gone. DecodeError: what is kept is no record.

    Cost: one round trip for every 200 values.
    """
    count = delivery.options.get(INPUTS)
    names = [f"{delivery.id}.{place}" for place in range(1 if count is None else count)]
    while True:
        try:
            ends = await broker.wait(names, 0)
            break
        except BrokerDown:
            await asyncio.sleep(PAUSE_S)
    values: list[Any] = []
    for name, ended in zip(names, ends, strict=True):
        assert ended is not None
        record = unpack_record(ended.record)
        if record.stored:
            raise ResultExpired(f"what {name} returned is no longer in the store")
        succeeded = ended.state is State.SUCCEEDED
        values.append(record.value if succeeded else error_of(name, ended.state, record))
    return values if count is None else [values]
