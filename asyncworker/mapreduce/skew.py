"""What a worker does with a job whose function it lacks: it leaves it to others, as it does with unknown tasks.

A fleet is seldom all of one version: while new code is rolled out, old workers claim jobs that only new ones can do.
"""

from __future__ import annotations

from collections.abc import Callable

from asyncworker.clock import Clock
from asyncworker.errors import Snooze, UnknownName
from asyncworker.mapreduce.functions.function import Function
from asyncworker.queue.codec import born_ms
from asyncworker.queue.context import Context

PATIENCE_S = 3600.0
AGAIN_S = 5.0


def function_or_snooze(find: Callable[[str], Function], name: str, ctx: Context, clock: Clock) -> Function:
    """Return the function *name*.

    Raises:
        Snooze: it is not known here; for the first hour of the job, as another worker may know it.
        UnknownName: after that.
    """
    try:
        return find(name)
    except UnknownName as exc:
        if clock.now() - born_ms(ctx.id) / 1000 < PATIENCE_S:
            raise Snooze(AGAIN_S, str(exc)) from exc
        raise
