"""Attempt: one try of one job. It knows what is to be said of each way in which that can end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asyncworker.clock import Clock
from asyncworker.errors import BadParameters, DecodeError, StoreError, TaskCancelled, TaskExpired
from asyncworker.events import JobEnd
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, born_ms, pack
from asyncworker.queue.context import Context
from asyncworker.queue.job import ID_LENGTH, Counted, Delivery, Op, Parted, Reason, Record, Settled
from asyncworker.queue.offload import Offload
from asyncworker.queue.task import KEEP_S, Definition, TaskOptions
from asyncworker.queue.worker.lending import Lender
from asyncworker.queue.worker.patience import Patience
from asyncworker.queue.worker.retry import again, put_back_s

CANCELLED_TTL_S = 3600
TEXT_CHARS = 2000


class Attempt:
    """One attempt: what is known of it, and each way in which it can end.

    ``runner`` is the asyncio task in which it runs, None before that; ``why`` says who stopped it: "timeout", "cancel",
    "release", or "abandoned", when it went on nevertheless; ``patience`` is what is left to one that was cancelled.
    ``lent`` is how often it waits for other jobs now, ``home`` who runs it. ``inputs`` go before the job's own arguments. ``deadline`` is by the monotonic clock, 0 where it has none.
    """

    __slots__ = (
        "_clock",
        "began",
        "claimed_ms",
        "context",
        "deadline",
        "delivery",
        "error",
        "home",
        "inputs",
        "lent",
        "options",
        "patience",
        "runner",
        "since",
        "status",
        "task",
        "until",
        "value",
        "why",
    )

    began: float
    home: Lender
    since: float

    def __init__(self, delivery: Delivery, clock: Clock, claimed_ms: int = 0) -> None:
        self.delivery = delivery
        self.claimed_ms = claimed_ms
        self.runner: asyncio.Task[None] | None = None
        self.why = ""
        self.lent = 0
        self.patience: Patience | None = None
        self.deadline = 0.0
        self.options = _DEFAULTS
        self.task = ""
        self.status = ""
        self.value: Any = None
        self.error: BaseException | None = None
        self.context: Context | None = None
        self.inputs: Sequence[Any] = ()
        self.until = math.inf
        self._clock = clock

    def begin(self) -> None:
        """Note when it began; before that it cannot end."""
        self.began, self.since = self._clock.now(), self._clock.monotonic()

    def end(self, tasks: Mapping[str, Definition]) -> JobEnd:
        """Return what listeners are told; tasks that are not known here share one name."""
        delivery = self.delivery
        due_s = delivery.options.get("due_s") if delivery.options else None
        waited = self.began - (due_s or born_ms(delivery.id) / 1000)
        return JobEnd(
            self.task if tasks.get(self.task) else "other",
            delivery.queue,
            self.status,
            max(0.0, waited) if delivery.attempt == 1 else -1.0,
            self._clock.monotonic() - self.since,
            delivery.id,
            "" if self.error is None else _text(self.error),
        )

    def late(self) -> str:
        """Return why this attempt must not begin at all, or ""; then ``until`` is how long it may go on."""
        options, delivery = self.options, self.delivery
        if options.expires is None and options.deadline is None and not delivery.options:
            return ""
        now_s = self.claimed_ms / 1000 if self.claimed_ms else self.began
        age_s = now_s - (delivery.enqueued_ms or born_ms(delivery.id)) / 1000
        left_s = math.inf if options.deadline is None else options.deadline - age_s
        left_s = min(left_s, delivery.options.get("until_s", math.inf) - now_s)
        self.until = self.since + left_s
        if left_s <= 0:
            return "its deadline has passed"
        fresh = delivery.attempt == 1 and not delivery.deliveries
        if fresh and options.expires is not None and age_s > options.expires:
            return f"it was not started within {options.expires:g} s"
        return ""

    def overrun(self) -> TimeoutError:
        """Return what is told of an attempt that took too long."""
        if self._clock.monotonic() >= self.until:
            return TimeoutError("its deadline passed while it ran")
        return TimeoutError(f"it ran longer than {self.options.timeout:g} s")

    def succeeded(self, value: Any, most: int = MAX_PAYLOAD_BYTES) -> Settled:
        """Return what is told of a success; *most*: bytes that the record may have."""
        delivery = self.delivery
        child = len(delivery.id) > ID_LENGTH
        units = 0
        if type(value) is Parted:
            return Settled(delivery.id, Op.SEAL, delivery.queue)
        if type(value) is Counted:
            units, value = value.units, value.value
        number = units if child else _ttl(self.options.result_ttl)
        record = b""
        if number or child:
            try:
                record = pack(
                    (
                        self.task,
                        delivery.attempt,
                        self.began,
                        self._clock.now(),
                        value,
                        "",
                        "",
                        "",
                        None,
                        delivery.queue,
                    ),
                    MAX_PAYLOAD_BYTES if child else most,
                )
            except BadParameters as exc:  # running it again would not change that
                return self.failed(exc, Reason.ERROR)
        self.status, self.value = "succeeded", value
        return Settled(delivery.id, Op.SUCCEEDED, delivery.queue, number, record, delivery.plain)

    async def stored(self, settled: Settled, offload: Offload) -> Settled:
        """Return what is told of a success whose record lies in a store; itself, where that is away and it may travel.

        Raises:
            StoreError: the store is away, and it is too large to travel.
        """
        if self.status != "succeeded" or len(self.delivery.id) > ID_LENGTH:
            return settled
        try:
            name = await offload.put(settled.value, settled.number)
        except StoreError:
            if len(settled.value) > MAX_PAYLOAD_BYTES:
                raise
            return settled
        record = Record(
            task=self.task,
            attempt=self.delivery.attempt,
            started_s=self.began,
            ended_s=self._clock.now(),
            queue=self.delivery.queue,
            stored=name,
        )
        return msgspec.structs.replace(settled, value=pack(record))

    def erred(self, exc: BaseException, reason: Reason = Reason.ERROR) -> Settled:
        delay = again(self.options, self.delivery.attempt, exc)
        if delay is None or self._clock.monotonic() + delay >= self.until:
            return self.failed(exc, reason)
        return self.later(Op.RETRY, "retrying", delay, exc)

    def failed(self, exc: BaseException, reason: Reason) -> Settled:
        record = Record(
            task=self.task,
            attempt=self.delivery.attempt,
            started_s=self.began,
            ended_s=self._clock.now(),
            reason=reason,
            error_type=type(exc).__name__,
            error_text=_said(exc)[:TEXT_CHARS],
            detail=getattr(exc, "detail", None),
            queue=self.delivery.queue,
        )
        try:
            packed = pack(record)
        except BadParameters:  # an error's text or detail that cannot travel must not keep its job from ending
            packed = pack(msgspec.structs.replace(record, error_text=ascii(record.error_text), detail=None))
        self.status, self.error = "failed", exc
        return Settled(self.delivery.id, Op.FAILED, self.delivery.queue, _ttl(self.options.failure_ttl), packed)

    def expired(self, why: str) -> Settled:
        record = Record(
            task=self.task,
            attempt=self.delivery.attempt - 1,
            ended_s=self._clock.now(),
            error_text=why,
            queue=self.delivery.queue,
        )
        self.status, self.error = "expired", TaskExpired(why)
        return Settled(self.delivery.id, Op.EXPIRED, self.delivery.queue, _ttl(self.options.failure_ttl), pack(record))

    def cancelled(self, why: str) -> Settled:
        record = Record(
            task=self.task,
            attempt=self.delivery.attempt,
            started_s=self.began,
            ended_s=self._clock.now(),
            error_text=ascii(why[:TEXT_CHARS]) if not why.isprintable() else why[:TEXT_CHARS],
            queue=self.delivery.queue,
        )
        self.status, self.error = "cancelled", TaskCancelled(why)
        return Settled(self.delivery.id, Op.CANCELLED, self.delivery.queue, CANCELLED_TTL_S, pack(record))

    def unknown(self) -> Settled:
        error = LookupError(f"no worker of this queue knows the task {self.task[:200]!r}")
        return self._left_to_others(error, Reason.UNKNOWN_TASK)

    def unreadable(self) -> Settled:
        error = DecodeError("no worker of this queue can read this job: another version of asyncworker wrote it")
        return self._left_to_others(error, Reason.BAD_PAYLOAD)

    def _left_to_others(self, error: Exception, reason: Reason) -> Settled:
        delay = put_back_s(self.delivery.put_back)
        if delay is None:
            return self.failed(error, reason)
        return self.later(Op.PUT_BACK, "unknown", delay, error)

    def gated(self, definition: Definition, args: list[Any], kwargs: dict[str, Any]) -> Settled:
        """Hand a job back that was enqueued without the limits of its task, so that it waits for its turn."""
        try:
            options = self.delivery.options | definition.gates(args, kwargs)
            value = pack((options, self.delivery.payload))
        except BadParameters as exc:
            return self.failed(exc, Reason.BAD_PAYLOAD)
        return Settled(self.delivery.id, Op.GATE, self.delivery.queue, 0, value)

    def suspected(self, fate: ChildProcessError | None = None) -> Settled:
        """Give a job up with which its last workers died: also the process where it ran alone, if it could be that."""
        why = "it cannot be run in a process of its own" if fate is None else f"run alone, {fate}"
        died = f"{self.delivery.deliveries} workers died with this job in hand; {why}"
        return self.failed(ChildProcessError(died), Reason.WORKER_LOST)

    def released(self) -> Settled:
        self.error = TaskCancelled("handed back: its worker stops")
        return Settled(self.delivery.id, Op.RELEASE, self.delivery.queue)

    def later(self, op: Op, status: str, delay: float, exc: BaseException) -> Settled:
        text = _text(exc).encode("utf-8", "backslashreplace")
        self.status, self.error = status, exc
        return Settled(self.delivery.id, op, self.delivery.queue, round(1000 * delay), text)


_DEFAULTS = TaskOptions()


def _text(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {_said(exc)}"[:TEXT_CHARS]


def _said(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as second:
        return f"its text cannot be told: {type(second).__name__}"


def _ttl(seconds: float | None) -> int:
    return KEEP_S if seconds is None else math.ceil(seconds)
