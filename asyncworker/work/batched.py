"""Batched: a handler of many items as a function of one, whose calls are gathered into batches.

So what calls one item at a time, as a worker does its jobs, feeds a handler that is cheaper by the hundred; each
call has its own answer, its own error, and its own timeout.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from asyncworker.errors import BadParameters
from asyncworker.work.batch import AsyncBatchProcessor
from asyncworker.work.signature import hints_of


class Spans(Protocol):
    """Traces calls of the handler, each of which has many callers."""

    def place(self) -> Any:
        """Return where in a trace this code runs."""
        ...

    def batch(self, places: Sequence[Any]) -> AbstractContextManager[None]:
        """Stand around one call, for items that were added from these places."""
        ...


class _Placed:
    """An item, and from where it was added."""

    __slots__ = ("item", "place")

    def __init__(self, item: Any, place: Any) -> None:
        self.item, self.place = item, place


def batched(
    handler: Callable[[list[Any]], Any],
    *,
    spans: Callable[[], Spans | None] = lambda: None,
    watch: Callable[[AsyncBatchProcessor[Any, Any]], object] = lambda _: None,
    **options: Any,
) -> Callable[[Any], Awaitable[Any]]:
    """Return a coroutine function of one item; *handler* gets a list of those that it is called with meanwhile.

    Args:
        handler: takes one list; returns None, or one value (or exception) an item.
        spans: asked at each call for who traces, if anybody does. watch: is shown each processor that is made.
        options: of `AsyncBatchProcessor`. There is one for each event loop.

    Raises:
        BadParameters: no function of one list, or options that do not fit.
    """
    make = functools.partial(AsyncBatchProcessor[Any, Any], _traced(handler, spans), **options)
    make()
    processors = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncBatchProcessor[Any, Any]]()

    async def one(*args: Any, **kwargs: Any) -> Any:
        (item,) = (*args, *kwargs.values())
        loop = asyncio.get_running_loop()
        if (processor := processors.get(loop)) is None:
            processor = processors[loop] = make()
            watch(processor)
        tracer = spans()
        return await processor.add_item(item if tracer is None else _Placed(item, tracer.place()))

    signature = _of_one(handler)
    functools.update_wrapper(one, handler)
    del one.__dict__["__wrapped__"]  # whoever asks for the signature shall find that for one
    one.__dict__["__signature__"] = signature
    one.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return one


def _traced(handler: Callable[..., Any], spans: Callable[[], Spans | None]) -> Callable[[list[Any]], Any]:
    """Return a handler that takes items out of their places, and is traced if anybody does."""

    def opened(items: list[Any]) -> tuple[AbstractContextManager[None], list[Any]]:
        tracer = spans()
        placed = [item for item in items if type(item) is _Placed]
        if not placed:
            return nullcontext(), items
        bare = [item.item if type(item) is _Placed else item for item in items]
        return nullcontext() if tracer is None else tracer.batch([item.place for item in placed]), bare

    async def on_loop(items: list[Any]) -> Any:
        around, bare = opened(items)
        with around:
            return await handler(bare)

    def in_thread(items: list[Any]) -> Any:
        around, bare = opened(items)
        with around:
            return handler(bare)

    coroutine = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
    return on_loop if coroutine else in_thread


def _of_one(handler: Callable[..., Any]) -> inspect.Signature:
    """Return the signature for one item of a handler of lists."""
    parameters = list(inspect.signature(handler).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise BadParameters(f"a batch handler takes one list of items and nothing else, unlike {handler!r}")
    hint = hints_of(handler).get(parameters[0].name, Any)
    items = typing.get_args(hint)
    one = items[0] if len(items) == 1 and typing.get_origin(hint) is not None else Any
    return inspect.Signature([parameters[0].replace(annotation=one, default=inspect.Parameter.empty)])
