"""Run one coroutine function over many items in this process: so many at once, and never more in memory than a window.

A set of workers pulls one iterator (`asyncworker.work.crew`). The window is how far pulling may be ahead of consuming: a
slow consumer, or a slow first item where order is kept, holds the source back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Literal, TypeVar, overload

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.work.crew import SKIPPED, Crew, OrderedCrew

T = TypeVar("T")
R = TypeVar("R")
Items = Iterable[T] | AsyncIterable[T]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one item: its place in the source, and its value or its error."""

    index: int
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    seconds: float = 0.0


@overload
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int | Limiter = ...,
    ordered: bool = ...,
    on_error: Literal["collect"],
) -> AsyncGenerator[Outcome, None]: ...
@overload
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int | Limiter = ...,
    ordered: bool = ...,
    on_error: Literal["raise", "skip"] = ...,
) -> AsyncGenerator[R, None]: ...
@overload
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int | Limiter = ...,
    ordered: bool = ...,
    on_error: Literal["raise", "collect", "skip"] = ...,
) -> AsyncGenerator[R | Outcome, None]: ...
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int | Limiter = 100,
    ordered: bool = False,
    on_error: Literal["raise", "collect", "skip"] = "raise",
) -> AsyncGenerator[Any, None]:
    """Yield ``await func(item)`` for each item, as they come or in the items' order.

    Nothing is pulled before the first ``anext``. Leaving the loop, an error, or a cancellation ends the workers
    and closes an asynchronous source; ``async with contextlib.aclosing(stream(…)) as outs`` waits for that also after
    a ``break``, where a plain ``async for`` leaves it to the event loop.

    Args:
        func: awaited once an item.
        items: an iterable or an asynchronous one, pulled by one worker at a time.
        concurrency: how many items may be under way, 1 or more; no more tasks than that are ever made. Or a limiter
            whose size says how many, also when it changes meanwhile; a worker keeps its permit from item to item,
            so this stream should be alone with it.
        ordered: hold results back until all before them are out; at most twice *concurrency* are held.
        on_error: ``"raise"`` stops everything at the first error and raises it; ``"collect"`` yields an `Outcome`
            an item, with its value or its error; ``"skip"`` leaves failed items out. The source's own errors
            are always raised.

    Raises:
        BadParameters: *concurrency* or *on_error* is not one of these.

    Cost: 0.4 us an item where *func* never suspends, 1.0 us where it does (`bench/bench_map.py`).
    """
    _check(concurrency)
    if on_error not in ("raise", "collect", "skip"):
        raise BadParameters(f"on_error must be 'raise', 'collect' or 'skip', not {on_error!r}")
    call = {"raise": func, "collect": _collected(func), "skip": _skipping(func)}[on_error]
    crew = (OrderedCrew if ordered else Crew)(call, items, concurrency, numbered=on_error == "collect")
    return crew.results()


async def gathered(func: Callable[[T], Awaitable[R]], items: Items[T], *, concurrency: int | Limiter = 100) -> list[R]:
    """Return ``await func(item)`` for each item, in the items' order; the first error ends all of it and is raised.

    As all results are kept anyway, no slow item holds the others back, as it does in an ordered `stream`.

    Raises:
        BadParameters: *concurrency* is not 1 or more.
    """
    _check(concurrency)
    results = OrderedCrew(func, items, concurrency, room=sys.maxsize).results()
    async with contextlib.aclosing(results):
        return [result async for result in results]


def _check(concurrency: int | Limiter) -> None:
    if not isinstance(concurrency, Limiter) and concurrency < 1:
        raise BadParameters(f"concurrency must be 1 or more, not {concurrency}")


def _collected(func: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Outcome]]:
    """Return *func* as a function of an item with its index that returns what became of it."""
    clock = time.perf_counter

    async def collected(numbered: tuple[int, Any]) -> Outcome:
        index, item = numbered
        began = clock()
        try:
            value = await func(item)
        except asyncio.CancelledError as exc:
            if _stopped():
                raise
            return Outcome(index, None, exc, 1, clock() - began)
        except Exception as exc:
            return Outcome(index, None, exc, 1, clock() - began)
        return Outcome(index, value, None, 1, clock() - began)

    return collected


def _skipping(func: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """Return *func* as a function that returns `SKIPPED` where it fails."""

    async def skipping(item: Any) -> Any:
        try:
            return await func(item)
        except asyncio.CancelledError:
            if _stopped():
                raise
        except Exception:  # noqa: S110 - leaving failures out is what was asked for
            pass
        return SKIPPED

    return skipping


def _stopped() -> bool:
    """Return whether this worker is cancelled; else its item awaited something that was, which is its own failure."""
    worker = asyncio.current_task()
    return worker is not None and worker.cancelling() > 0
