"""Traces by OpenTelemetry: `trace` lets those of the code that enqueues go on in the jobs. The extra ``otel``.

Spans and their attributes are named by the semantic conventions for messaging: ``send <queue>`` where a job is enqueued
and, as its child, ``process <queue>`` around each attempt. A job that waited for others (`Call.after`, a
flow) and a call of a batch have several origins, none of which is the parent: their spans begin traces of their own,
linked to where they come from. What is exported where is the application's: it configures the SDK.

Cost: nothing where it is not used; else what the SDK takes for a span, and some 80 bytes a job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from asyncworker import __version__
from asyncworker.engine import Engine
from asyncworker.errors import SettingsError, Signal
from asyncworker.queue.context import Context

try:
    from opentelemetry import context, propagate
    from opentelemetry.trace import (
        INVALID_SPAN_CONTEXT,
        Link,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_current_span,
        get_tracer,
    )
except ImportError as exc:
    raise SettingsError("traces need OpenTelemetry, which is not here: pip install 'asyncworker[otel]'") from exc

SYSTEM = "asyncworker"
JOINED = "joined."
"""Stands before the names of headers that say where a link leads to, not who the parent is."""
MOST_LINKS = 128
"""As many as an SDK keeps of a span unless told otherwise."""


class Tracing:
    """Spans of one engine's jobs; `trace` makes it."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("asyncworker", __version__, provider)

    @contextmanager
    def sending(self, task: str, queue: str) -> Iterator[None]:
        about = _about(task, queue, "send")
        with self._tracer.start_as_current_span(f"send {queue}", kind=SpanKind.PRODUCER, attributes=about):
            yield

    def headers(self, *, joined: bool) -> dict[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return {JOINED + name: value for name, value in carrier.items()} if joined else carrier

    def place(self) -> SpanContext:
        return get_current_span().get_span_context()

    @contextmanager
    def batch(self, places: Sequence[Any]) -> Iterator[None]:
        links = [Link(place) for place in places[:MOST_LINKS] if place.is_valid]
        about: dict[str, str | int] = {"messaging.system": SYSTEM, "messaging.batch.message_count": len(places)}
        with self._tracer.start_as_current_span("process batch", context.Context(), SpanKind.CONSUMER, about, links):
            yield

    async def attempt(self, ctx: Context, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run one attempt within a span: a middleware."""
        joined = {name.removeprefix(JOINED): value for name, value in ctx.headers.items() if name.startswith(JOINED)}
        origin = get_current_span(propagate.extract(joined, context.Context())).get_span_context()
        about = _about(ctx.task, ctx.queue, "process") | {
            "messaging.message.id": ctx.id,
            "asyncworker.attempt": ctx.attempt,
            "asyncworker.deliveries": ctx.deliveries,
        }
        with self._tracer.start_as_current_span(
            f"process {ctx.queue}",
            propagate.extract(ctx.headers, context.Context()),
            SpanKind.CONSUMER,
            about,
            [Link(origin)] if origin != INVALID_SPAN_CONTEXT else [],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await call()
            except Signal as signal:  # the task steers: that is no error
                span.set_attribute("asyncworker.outcome", type(signal).__name__.lower())
                raise
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__qualname__)
                span.set_status(Status(StatusCode.ERROR, type(exc).__qualname__))
                span.record_exception(exc)
                raise


def trace(engine: Engine, provider: TracerProvider | None = None) -> Tracing:
    """Trace the jobs of *engine*: those that it enqueues and those that its workers run.

    Call it once, where the engine is made, in the code that enqueues and in the code of the workers alike.

    Args:
        provider: where spans go; the global one by default.
    """
    tracing = Tracing(provider)
    engine.hooks.propagator = tracing
    engine.middleware(tracing.attempt)
    return tracing


def _about(task: str, queue: str, operation: str) -> dict[str, str | int]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "asyncworker.task": task,
    }
