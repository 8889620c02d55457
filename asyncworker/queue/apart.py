"""Apart: calls a function with a `Context` in a process where nothing else runs.

The worker asks one of its processes (`work.executors.process`) for `call`, which makes there what the function needs of
its worker: the context, and the resources of a lifespan of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

from asyncworker.errors import AsyncWorkerError
from asyncworker.queue.context import Context
from asyncworker.queue.depends import HIDDEN, Need, supplied
from asyncworker.queue.job import Op
from asyncworker.work.finder import find
from asyncworker.work.signature import Signature


async def call(place: list[str], lifespan: list[str], about: list[Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call the function of this module and name.

    Args:
        place, lifespan: module and qualified name; an empty one is none. about: the plain fields of a `Context`.
    """
    function, _ = find(*place)
    id, task, queue, attempt, deliveries, headers, saved = about
    ctx = Context(id, task, queue, attempt, deliveries, _refuse, headers=headers, checkpoint=saved)
    lives: AbstractAsyncContextManager[Any] = find(*lifespan)[0]() if lifespan else nullcontext()
    async with lives as ctx.resources:
        signature = Signature(function, Context, Need)
        places, names = signature.convert([*args], kwargs)
        work = function if inspect.iscoroutinefunction(function) else partial(asyncio.to_thread, function)
        if signature.provided:
            work = supplied(work, signature.provided, signature.given_name or HIDDEN)
        if signature.provided or signature.given_name:
            names[signature.given_name or HIDDEN] = ctx
        return await work(*places, **names)


async def _refuse(op: Op, _number: int, _data: bytes) -> None:
    if op in {Op.CHECKPOINT, Op.PROGRESS}:
        return  # the next attempt, if there is one, goes on from the last that was kept
    raise AsyncWorkerError("a job that runs apart from its worker stores no part of its result ahead")


def bind(
    asked: Callable[..., Awaitable[Any]], place: list[str], lifespan: list[str], parameter: str
) -> Callable[..., Awaitable[Any]]:
    """Return what asks a process (*asked* is `call`, bound to one) with the arguments that the function has here."""

    async def through(*args: Any, **kwargs: Any) -> Any:
        ctx: Context = kwargs.pop(parameter)
        about = [ctx.id, ctx.task, ctx.queue, ctx.attempt, ctx.deliveries, dict(ctx.headers), ctx.packed]
        return await asked(place, lifespan, about, *args, **kwargs)

    return through
