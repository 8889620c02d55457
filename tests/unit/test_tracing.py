"""Traces, by the SDK's own exporter in memory: jobs go on in the trace of who enqueued them; what has many origins is linked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from asyncworker import Context, Engine, Retry, TaskFailed, trace
from asyncworker.queue.propagation import headers_of


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def spans() -> Iterator[Spans]:
    found = Spans()
    yield found
    found.provider.shutdown()


def links(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


async def test_a_job_goes_on_in_the_trace_of_its_caller(spans: Spans) -> None:
    engine = Engine()
    trace(engine, spans.provider)

    @engine.task(queue="default")
    async def double(n: int) -> int:
        with spans.tracer.start_as_current_span("inside"):
            return 2 * n

    async with engine:
        with spans.tracer.start_as_current_span("caller") as caller:
            job = await double.enqueue(4)
        assert await job.result(timeout=10) == 8
    (send,), (process,), (inside,) = spans.named("send default"), spans.named("process default"), spans.named("inside")
    assert send.parent is not None
    assert process.parent is not None
    assert inside.parent is not None
    assert send.parent.span_id == caller.get_span_context().span_id
    assert process.parent.span_id == send.context.span_id
    assert inside.parent.span_id == process.context.span_id
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert process.attributes is not None
    assert process.attributes["messaging.message.id"] == job.id
    assert process.attributes["asyncworker.task"] == "double"
    assert process.status.status_code is StatusCode.UNSET


async def test_each_attempt_has_a_span_and_an_error_marks_it(spans: Spans) -> None:
    engine = Engine()
    trace(engine, spans.provider)

    @engine.task(queue="default", max_attempts=2, retry_backoff=0.001)
    async def fails(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry(delay=0)
        raise ValueError("no such order")

    async with engine:
        with pytest.raises(TaskFailed):
            await (await fails.enqueue()).result(timeout=10)
    first, second = sorted(
        spans.named("process default"), key=lambda span: (span.attributes or {})["asyncworker.attempt"]
    )
    assert (first.attributes or {})["asyncworker.outcome"] == "retry"
    assert first.status.status_code is StatusCode.UNSET
    assert second.status.status_code is StatusCode.ERROR
    assert (second.attributes or {})["error.type"] == "ValueError"
    assert [event.name for event in second.events] == ["exception"]
    assert first.context.trace_id == second.context.trace_id


async def test_a_job_after_others_is_linked_and_has_no_parent(spans: Spans) -> None:
    engine = Engine()
    trace(engine, spans.provider)

    @engine.task(queue="default")
    async def part(n: int) -> int:
        return n

    @engine.task(queue="io_intensive")
    async def total() -> int:
        return 1

    async with engine:
        with spans.tracer.start_as_current_span("caller") as caller:
            jobs = await part.enqueue_many([(1,), (2,)])
            last = await total.with_options(after=jobs).enqueue()
        assert await last.result(timeout=10) == 1
    (process,), (send,) = spans.named("process io_intensive"), spans.named("send io_intensive")
    assert process.parent is None
    assert process.context.trace_id != caller.get_span_context().trace_id
    assert links(process) == {send.context.span_id}


async def test_a_batch_is_linked_to_its_jobs(spans: Spans) -> None:
    engine = Engine(concurrency=10)
    trace(engine, spans.provider)

    @engine.batch(max_size=10, max_wait=0.2, queue="default")
    async def store(rows: list[int]) -> list[int]:
        return [row + 1 for row in rows]

    async with engine:
        jobs = await store.enqueue_many([(row,) for row in range(6)])
        assert [await job.result(timeout=10) for job in jobs] == [1, 2, 3, 4, 5, 6]
    batches = spans.named("process batch")
    linked = set[int]().union(*map(links, batches))
    assert linked == {span.context.span_id for span in spans.named("process default")}
    assert sum((span.attributes or {})["messaging.batch.message_count"] for span in batches) == 6  # type: ignore[misc]
    assert all(span.parent is None for span in batches)


async def test_without_tracing_nothing_travels() -> None:
    engine, seen = Engine(), []

    @engine.task(queue="default")
    async def look(ctx: Context) -> None:
        seen.append(ctx.headers)

    async with engine:
        await (await look.enqueue()).result(timeout=10)
    assert seen == [{}]


@pytest.mark.parametrize("headers", [None, 7, "text", ["traceparent"], {1: "a", "b": 2, "traceparent": b"x"}])
def test_headers_that_are_none_do_no_harm(headers: object) -> None:
    assert headers_of({"headers": headers}) == {}
