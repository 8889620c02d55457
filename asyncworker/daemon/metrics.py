"""``/metrics`` of a worker: what the broker counts, asked for at each scrape, and what this process measured.

The broker's counts are of the whole fleet and exact across deaths of processes; read them from one worker or
take the maximum, never the sum. Histograms are this process's own. Only 127.0.0.1 listens, in threads of its
own, and only requests that name it as their host are answered, so that no web page can ask through a name of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from asyncworker.errors import BrokerError, SettingsError
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Depth
from asyncworker.tune.sensors.jobs import BOUNDS_S, Histogram, JobsSensor

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PATIENCE_S = 2.0
"""How long a scrape waits for the broker; without an answer it tells what this process knows."""

COUNTERS = (
    ("jobs_enqueued", "Jobs taken in.", "enqueued"),
    ("job_retries", "Attempts that will be followed by another.", "retried"),
    ("jobs_redelivered", "Jobs given back because their worker died.", "redelivered"),
)
STATUSES = ("succeeded", "failed", "cancelled", "expired")
STATES = ("queued", "scheduled", "blocked")


class WorkerMetrics(Collector):
    """The first ten metrics, made anew at each scrape; called from the server's threads.

    Args:
        queues: what the broker is asked about, and the only names of queues that are told.
        loop: where the broker lives.
    """

    def __init__(
        self, broker: Broker, queues: Sequence[str], sensor: JobsSensor, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._broker, self._queues, self._sensor, self._loop = broker, tuple(queues), sensor, loop

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        depth = self._depth()
        if depth is not None:
            yield from broker_metrics(depth)
        sensor = self._sensor
        yield _histogram("job_wait_seconds", "From when a job could start until it did.", sensor.wait)
        yield _histogram("job_duration_seconds", "How long one attempt ran.", sensor.duration)
        yield CounterMetricFamily(
            "asyncworker_broker_disruptions", "Times this process lost the broker.", value=sensor.disruptions
        )

    def _depth(self) -> Depth | None:
        asked = self._broker.depth(self._queues)
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop has ended: so does this process
            asked.close()
            return None
        try:
            return answer.result(PATIENCE_S)
        except (BrokerError, TimeoutError, concurrent.futures.CancelledError) as exc:
            answer.cancel()
            log.warning("no counts from the broker: %s", str(exc) or "no answer in time")
            return None


def broker_metrics(depth: Depth) -> Iterator[Metric]:
    """Yield what the broker counts, as metrics."""
    queues = depth.queues.items()
    for name, doc, field in COUNTERS:
        counter = CounterMetricFamily(f"asyncworker_{name}", doc, labels=("queue",))
        for queue, of in queues:
            counter.add_metric((queue,), getattr(of, field))
        yield counter
    ended = CounterMetricFamily("asyncworker_jobs", "Jobs that ended, each once.", labels=("queue", "status"))
    waiting = GaugeMetricFamily("asyncworker_queue_jobs", "Jobs that wait.", labels=("queue", "state"))
    oldest = GaugeMetricFamily("asyncworker_queue_oldest_seconds", "Age of the next job.", labels=("queue",))
    for queue, of in queues:
        for status in STATUSES:
            ended.add_metric((queue, status), getattr(of, status))
        for state in STATES:
            waiting.add_metric((queue, state), getattr(of, state))
        oldest.add_metric((queue,), of.oldest_s)
    yield from (ended, waiting, oldest)
    yield GaugeMetricFamily("asyncworker_jobs_running", "Jobs in workers' hands.", value=depth.running)


def _histogram(name: str, doc: str, histograms: dict[tuple[str, str], Histogram]) -> Metric:
    family = HistogramMetricFamily(f"asyncworker_{name}", doc, labels=("task", "queue"))
    for key, histogram in sorted(histograms.copy().items()):
        counts, total = histogram.read()
        buckets, below = [], 0
        for bound, number in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
            below += number
            buckets.append((bound, below))
        family.add_metric(key, buckets, total)
    return family


class MetricsServer:
    """Serve collectors under ``url`` until closed.

    Raises:
        SettingsError: the port is taken.
    """

    def __init__(self, collector: Collector, port: int, *others: Collector) -> None:
        registry = CollectorRegistry(auto_describe=False)
        for one in (collector, *others):
            registry.register(one)
        try:
            self._server = make_server(
                HOST, port, _guarded(make_wsgi_app(registry)), ThreadingWSGIServer, handler_class=_Handler
            )
        except OSError as exc:
            raise SettingsError(f"metrics port {port} of {HOST} cannot be had: {exc.strerror}; choose another") from exc
        self.url = f"http://{HOST}:{self._server.server_port}/metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="asyncworker-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Blocks for up to a tenth of a second."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(WSGIRequestHandler):
    timeout = 5.0  # seconds that a client may take for its request

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


_OUR_NAME = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?", re.IGNORECASE)

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _guarded(app: WSGI) -> WSGI:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not _OUR_NAME.fullmatch(environ.get("HTTP_HOST", HOST)):
            start_response("421 Misdirected Request", [("Content-Type", "text/plain")])
            return [b"this is 127.0.0.1\n"]
        return app(environ, start_response)

    return answer
