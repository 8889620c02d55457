"""Runner: runs what was claimed, each job in a task of its own, and writes down how each one ended.

It never talks to the broker: what has ended lies in its outbox until the fetcher takes it along. This is one of
the two places where ``except Exception`` stands: around users' code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BadParameters, DecodeError, Discard, Snooze
from asyncworker.events import JobEnd
from asyncworker.queue.codec import born_ms, pack, unpack_call
from asyncworker.queue.context import Context
from asyncworker.queue.job import ID_LENGTH, Counted, Delivery, Op, Reason, Record, Settled
from asyncworker.queue.task import KEEP_S, Definition, TaskOptions
from asyncworker.queue.worker.retry import again, put_back_s

LOOK_S = 0.1
"""How often deadlines are looked at: one sweep over what runs is cheaper than a timer a job."""
CANCELLED_TTL_S = 3600
TEXT_CHARS = 2000
OUTBOX_BYTES = 4 * 2**20
"""How much of the outbox one step carries at most; a single larger record goes alone."""


class Running:
    """One attempt under way. ``why`` says who cancelled its task: "timeout", "cancel" or "release"."""

    __slots__ = ("deadline", "delivery", "task", "why")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.deadline = 0.0
        self.why = ""
        self.task: asyncio.Task[None] | None = None


class Runner:
    """Run deliveries.

    Args:
        wake: set whenever something has ended, for the fetcher to see.
        tell: keep a `JobEnd` of each attempt for the listeners (else `ends` stays empty).
    """

    def __init__(
        self,
        tasks: Mapping[str, Definition],
        wake: asyncio.Event,
        *,
        clock: Clock = SYSTEM,
        tell: bool = False,
    ) -> None:
        self._tasks = tasks
        self._wake = wake
        self._clock = clock
        self._tell = tell
        self._outbox: list[Settled] = []
        self._taken = 0
        self._chunks: list[tuple[int, asyncio.Future[None]]] = []
        self._busy = asyncio.Event()
        self.live: dict[str, Running] = {}
        self.ends: list[JobEnd] = []

    def start(self, delivery: Delivery) -> None:
        """Run one delivery; returns at once."""
        running = Running(delivery)
        self.live[delivery.id] = running
        running.task = asyncio.get_running_loop().create_task(self._run(running))
        if not self._busy.is_set():
            self._busy.set()

    def take(self, most: int) -> list[Settled]:
        """Remove and return up to *most* of what has ended, oldest first, and no more bytes than a step carries."""
        size = 0
        count = 0
        for settled in self._outbox[:most]:
            size += len(settled.value)
            if count and size > OUTBOX_BYTES:
                break
            count += 1
        taken = self._outbox[:count]
        del self._outbox[:count]
        self._taken += count
        return taken

    def untake(self, taken: list[Settled]) -> None:
        """Put back what was taken when nobody knows whether the broker has it: settling twice is harmless."""
        self._outbox[:0] = taken
        self._taken -= len(taken)

    @property
    def settling(self) -> int:
        """How many endings wait for the fetcher."""
        return len(self._outbox)

    def applied(self) -> None:
        """Hear that the broker has all that was taken so far: jobs that wait for room for a chunk go on."""
        while self._chunks and self._chunks[0][0] <= self._taken:
            waiting = self._chunks.pop(0)[1]
            if not waiting.done():
                waiting.set_result(None)

    def knows(self, job_id: str) -> bool:
        """Return whether this job runs here, or has ended and waits for the fetcher."""
        return job_id in self.live or any(settled.id == job_id for settled in self._outbox)

    def cancel(self, job_id: str) -> None:
        """Cancel a job that runs here, or all running children of this parent."""
        for running in list(self.live.values()):
            if running.delivery.id == job_id or running.delivery.id[:ID_LENGTH] == job_id:
                self._stop(running, "cancel")

    async def release(self, patience_s: float) -> int:
        """Cancel all that runs, wait at most *patience_s*, and hand back what was running; returns how many."""
        left = list(self.live.values())
        for running in left:
            self._stop(running, "release")
        if left:
            await asyncio.wait([running.task for running in left if running.task], timeout=patience_s)
        for running in left:
            if self.live.pop(running.delivery.id, None):  # it swallows cancellation: the queue does not wait for it
                self._outbox.append(Settled(running.delivery.id, Op.RELEASE, running.delivery.queue))
        return len(left)

    async def run(self) -> None:
        """Look after deadlines until cancelled."""
        while True:
            if not self.live:
                self._busy.clear()
                await self._busy.wait()
            await asyncio.sleep(LOOK_S)
            now = self._clock.monotonic()
            for running in list(self.live.values()):
                if running.deadline and now > running.deadline:
                    running.deadline = now + 10 * LOOK_S  # asked again when the code swallows it
                    self._stop(running, "timeout")

    @staticmethod
    def _stop(running: Running, why: str) -> None:
        if not running.why:
            running.why = why
        if running.task is not None:
            running.task.cancel()

    async def _run(self, running: Running) -> None:
        delivery = running.delivery
        clock = self._clock
        began, since = clock.now(), clock.monotonic()
        name, status = "", "failed"
        options = _DEFAULTS
        try:
            if delivery.cancel_asked:
                status = self._cancelled(delivery, name, began, "cancelled before it started")
                return
            name, args, kwargs = unpack_call(delivery.payload)
            definition = self._tasks.get(name)
            if definition is None:
                status = self._unknown(delivery, name, began)
                return
            options = definition.options
            if delivery.options:
                options = definition.overridden(delivery.options)
            if options.timeout is not None:
                running.deadline = since + options.timeout
            if definition.context_name:
                kwargs[definition.context_name] = self._context(delivery, name)
            value = await definition.call(*args, **kwargs)
            status = self._succeeded(delivery, options, name, began, value)
        except asyncio.CancelledError as exc:
            status = self._interrupted(running, options, name, began, exc)
        except DecodeError as exc:
            self._failed(delivery, options, name, began, Reason.BAD_PAYLOAD, exc)
        except Snooze as exc:
            self._later(delivery, Op.SNOOZE, exc.delay, exc)
            status = "snoozed"
        except Discard as exc:
            status = self._cancelled(delivery, name, began, str(exc))
        except (Exception, SystemExit) as exc:
            status = self._erred(delivery, options, name, began, Reason.ERROR, exc)
        finally:
            del self.live[delivery.id]
            self._wake.set()
            if self._tell and status:
                known = name if name in self._tasks else "other"
                waited = began - delivery.options.get("due_s", born_ms(delivery.id) / 1000)
                lasted = clock.monotonic() - since
                self.ends.append(
                    JobEnd(known, delivery.queue, status, max(0.0, waited) if delivery.attempt == 1 else -1.0, lasted)
                )

    def _succeeded(self, delivery: Delivery, options: TaskOptions, name: str, began: float, value: Any) -> str:
        units = 0
        if type(value) is Counted:
            units, value = value.units, value.value
        number = units if len(delivery.id) > ID_LENGTH else _ttl(options.result_ttl)
        record = b""
        if number or len(delivery.id) > ID_LENGTH:
            try:
                record = pack((name, delivery.attempt, began, self._clock.now(), value))
            except BadParameters as exc:  # running it again would not change that
                self._failed(delivery, options, name, began, Reason.ERROR, exc)
                return "failed"
        self._outbox.append(Settled(delivery.id, Op.SUCCEEDED, delivery.queue, number, record, delivery.plain))
        return "succeeded"

    def _erred(
        self, delivery: Delivery, options: TaskOptions, name: str, began: float, reason: Reason, exc: BaseException
    ) -> str:
        delay = again(options, delivery.attempt, exc)
        if delay is None:
            self._failed(delivery, options, name, began, reason, exc)
            return "failed"
        self._later(delivery, Op.RETRY, delay, exc)
        return "retrying"

    def _interrupted(
        self, running: Running, options: TaskOptions, name: str, began: float, exc: asyncio.CancelledError
    ) -> str:
        delivery = running.delivery
        if running.why == "release":
            self._outbox.append(Settled(delivery.id, Op.RELEASE, delivery.queue))
            return ""
        if running.why == "cancel":
            return self._cancelled(delivery, name, began, "cancelled while it ran")
        if running.why == "timeout":
            late = TimeoutError(f"it ran longer than {options.timeout:g} s")
            return self._erred(delivery, options, name, began, Reason.TIMEOUT, late)
        return self._erred(delivery, options, name, began, Reason.ERROR, exc)  # the task cancelled itself

    def _failed(
        self, delivery: Delivery, options: TaskOptions, name: str, began: float, reason: Reason, exc: BaseException
    ) -> None:
        record = Record(
            task=name,
            attempt=delivery.attempt,
            started_s=began,
            ended_s=self._clock.now(),
            reason=reason,
            error_type=type(exc).__name__,
            error_text=str(exc)[:TEXT_CHARS],
            detail=getattr(exc, "detail", None),
        )
        try:
            packed = pack(record)
        except BadParameters:  # an error's text or detail that cannot travel must not keep its job from ending
            packed = pack(msgspec.structs.replace(record, error_text=ascii(record.error_text), detail=None))
        self._outbox.append(Settled(delivery.id, Op.FAILED, delivery.queue, _ttl(options.failure_ttl), packed))

    def _cancelled(self, delivery: Delivery, name: str, began: float, why: str) -> str:
        ended = self._clock.now()
        record = Record(
            task=name, attempt=delivery.attempt, started_s=began, ended_s=ended, error_text=why[:TEXT_CHARS]
        )
        self._outbox.append(Settled(delivery.id, Op.CANCELLED, delivery.queue, CANCELLED_TTL_S, pack(record)))
        return "cancelled"

    def _unknown(self, delivery: Delivery, name: str, began: float) -> str:
        delay = put_back_s(delivery.put_back)
        error = LookupError(f"no worker of this queue knows the task {name[:200]!r}")
        if delay is None:
            self._failed(delivery, _DEFAULTS, name, began, Reason.UNKNOWN_TASK, error)
            return "failed"
        self._later(delivery, Op.PUT_BACK, delay, error)
        return "unknown"

    def _later(self, delivery: Delivery, op: Op, delay: float, exc: BaseException) -> None:
        text = f"{type(exc).__name__}: {exc}"[:TEXT_CHARS].encode("utf-8", "backslashreplace")
        self._outbox.append(Settled(delivery.id, op, delivery.queue, round(1000 * delay), text))

    def _context(self, delivery: Delivery, name: str) -> Context:
        async def send(number: int, data: bytes) -> None:
            self._outbox.append(Settled(delivery.id, Op.CHUNK, delivery.queue, number, data))
            applied = asyncio.get_running_loop().create_future()
            self._chunks.append((self._taken + len(self._outbox), applied))
            self._wake.set()
            await applied

        return Context(delivery.id, name, delivery.queue, delivery.attempt, delivery.deliveries, send)


_DEFAULTS = TaskOptions()


def _ttl(seconds: float | None) -> int:
    return KEEP_S if seconds is None else -int(-seconds // 1)
