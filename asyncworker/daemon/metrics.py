"""What the broker counts, and a small server for ``/metrics``, ``/healthz`` and ``/readyz`` of one process.

The broker's counts are of the whole fleet and exact across deaths of processes; read them from one place or take the
maximum, never the sum. Only 127.0.0.1 listens, in threads of its own, and only requests that name it as their host are
answered, so that no web page can ask through a name of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, make_server

import msgspec
from prometheus_client.exposition import ThreadingWSGIServer

from asyncworker.auto import PARTITION_QUEUE
from asyncworker.daemon.health import Check
from asyncworker.daemon.sheet import Series, Sheet, text
from asyncworker.errors import AsyncWorkerError, SettingsError
from asyncworker.mapreduce.job import REDUCE_TASK
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Depth, Progress, State
from asyncworker.queue.schedule import Schedule
from asyncworker.queue.search import Query
from asyncworker.secret import mask_text

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PATIENCE_S = 2.0
"""How long a scrape waits for the broker; without an answer it tells what is known here."""
SELDOM_S = 10.0
"""How old dead letters, schedules and map/reduce jobs may be: they take more than one look at counters."""
PAGES = 5
"""Pages of 200 jobs of a state that are gone through for map/reduce jobs under way, at most."""
COUNTERS = {
    "jobs_enqueued_total": "enqueued",
    "job_retries_total": "retried",
    "jobs_redelivered_total": "redelivered",
}
STATUSES = ("succeeded", "failed", "cancelled", "expired")
STATES = ("queued", "scheduled", "blocked")

T = TypeVar("T")


class BrokerMetrics:
    """Ask a broker; *queues* are the only names of queues that are told, *planned* the schedules in an engine's code."""

    def __init__(self, broker: Broker, queues: Iterable[str], planned: Iterable[Schedule] = ()) -> None:
        self._broker, self._queues, self._planned = broker, tuple(queues), planned
        self._seldom = Sheet()
        self._next_s = float("-inf")

    async def read(self) -> tuple[Sheet, Depth | None]:
        """Return what the broker knows, and its answer; without one ``broker_up`` is 0, and nothing else is told.

        Cost: a round trip, and each ten seconds a few more.
        """
        depth = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                depth = await self._broker.depth(self._queues)
            if (now := asyncio.get_running_loop().time()) >= self._next_s and isinstance(self._broker, Admin):
                async with asyncio.timeout(PATIENCE_S):
                    self._seldom, self._next_s = await self._look(self._broker), now + SELDOM_S
        except (AsyncWorkerError, OSError) as exc:  # also a TimeoutError
            log.warning("no counts from the broker: %s", mask_text(str(exc)) or "no answer in time")
        if depth is None:
            return Sheet({("broker_up", ()): 0.0}), None
        sheet = counts(depth)
        sheet.numbers.update(self._seldom.numbers)
        return sheet, depth

    async def _look(self, admin: Admin) -> Sheet:
        sheet = Sheet({}, {})
        sheet.put("dead_letters", len(await admin.dead()))
        planned = {schedule.name for schedule in self._planned}
        sheet.put("schedules", len(planned.union(*await admin.schedules())))
        under_way: dict[str, Progress] = {}
        for state in UNDER_WAY:
            query, cursor = Query(states=frozenset((state,)), queue=PARTITION_QUEUE, task=REDUCE_TASK), ""
            for _ in range(PAGES):
                page = await admin.jobs(query, cursor)
                under_way |= {job.id: job.children for job in page.jobs if job.children is not None}
                if not (cursor := page.cursor):
                    break
        total = sum(children.total for children in under_way.values())
        sheet.put("map_reduce_jobs", len(under_way))
        sheet.put("job_progress_ratio", sum(of.done for of in under_way.values()) / total if total else 0.0)
        return sheet


UNDER_WAY = (State.BLOCKED, State.RUNNING, State.QUEUED)
"""Each is gone through by itself, so that a backlog does not hide jobs that wait for their partitions."""


def counts(depth: Depth) -> Sheet:
    """Return what a look at the broker tells."""
    sheet = Sheet({("broker_up", ()): 1.0}, {})
    for queue, of in depth.queues.items():
        for name, field in COUNTERS.items():
            sheet.put(name, getattr(of, field), queue)
        for status in STATUSES:
            sheet.put("jobs_total", getattr(of, status), queue, status)
        for state in STATES:
            sheet.put("queue_jobs", getattr(of, state), queue, state)
        sheet.put("queue_oldest_seconds", of.oldest_s, queue)
        sheet.put("queue_paused", of.paused, queue)
        if of.most is not None:
            sheet.put("queue_bound_jobs", of.most, queue)
    sheet.put("jobs_running", depth.running)
    sheet.put("workers_alive", sum(card.role == "worker" for card in depth.workers.values()))
    return sheet


class WorkerMetrics:
    """All that a worker by itself tells: what the broker counts, and its *own*; called in threads.

    Args:
        loop: where the broker lives.
    """

    def __init__(self, broker: BrokerMetrics, own: Callable[[], Sheet], loop: asyncio.AbstractEventLoop) -> None:
        self._broker, self._own, self._loop = broker, own, loop
        self._series = Series()

    def __call__(self) -> Sheet:
        answer = ask(self._broker.read(), self._loop)
        told = answer[0] if answer else Sheet({("broker_up", ()): 0.0})
        return self._series.merge([told, self._own()])


def checked(look: Callable[[], Coroutine[Any, Any, Check]], loop: asyncio.AbstractEventLoop) -> Callable[[], Check]:
    """Return a function for threads that takes a *look* in the loop."""
    return lambda: ask(look(), loop) or Check(False, ("the event loop does not turn",))


def ask(asked: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T | None:
    """Return what a coroutine returns in another thread's loop; None where that does not turn."""
    try:
        answer = asyncio.run_coroutine_threadsafe(asked, loop)
    except RuntimeError:  # the loop has ended: so does this process
        asked.close()
        return None
    try:
        return answer.result(2 * PATIENCE_S)
    except (TimeoutError, concurrent.futures.CancelledError):
        answer.cancel()
        log.warning("the event loop does not answer")
        return None


class MetricsServer:
    """Serve until closed, under ``url`` what *read* returns, and checks under their paths.

    Raises:
        SettingsError: the port is taken.
    """

    def __init__(self, read: Callable[[], Sheet], port: int, checks: dict[str, Callable[[], Check]]) -> None:
        pages: dict[str, Callable[[str], Answer]] = {path: _page_of(check) for path, check in checks.items()}
        pages["/metrics"] = lambda accept: (200, *text(read(), accept))
        try:
            self._server = make_server(HOST, port, _site(pages), ThreadingWSGIServer, handler_class=_Handler)
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
_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    503: "Service Unavailable",
}
PLAIN = "text/plain; charset=utf-8"

Answer = tuple[int, bytes, str]
"""Status, body, content type."""
WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _page_of(check: Callable[[], Check]) -> Callable[[str], Answer]:
    def page(_: str) -> Answer:
        found = check()
        return 200 if found.ok else 503, msgspec.json.encode(found), "application/json"

    return page


def _site(pages: dict[str, Callable[[str], Answer]]) -> WSGI:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Sequence[bytes]:
        page = pages.get(environ.get("PATH_INFO", ""))
        if not _OUR_NAME.fullmatch(environ.get("HTTP_HOST", HOST)):
            status, body, kind = 421, b"this is 127.0.0.1\n", PLAIN
        elif page is None:
            status, body, kind = 404, (" ".join(sorted(pages)) + "\n").encode(), PLAIN
        elif environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            status, body, kind = 405, b"GET only\n", PLAIN
        else:
            status, body, kind = page(environ.get("HTTP_ACCEPT", ""))
        start_response(f"{status} {_REASONS[status]}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return answer
