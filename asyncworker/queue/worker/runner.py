"""Runner: runs what was claimed, and writes down how each job ended.

It never talks to the broker: what has ended lies in its outbox until the fetcher takes it along. This is one of
the two places where ``except Exception`` stands: around users' code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import AsyncWorkerError, DecodeError, Discard, LeaseLost, Snooze
from asyncworker.events import JobAbandoned, JobEnd
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, unpack_call
from asyncworker.queue.context import Context
from asyncworker.queue.hooks import Hooks
from asyncworker.queue.inputs import wants_inputs
from asyncworker.queue.job import ID_LENGTH, Delivery, Op, Reason, Settled
from asyncworker.queue.offload import Offload
from asyncworker.queue.propagation import headers_of
from asyncworker.queue.stores.store import LARGEST
from asyncworker.queue.strike import AGAIN_S, Strike
from asyncworker.queue.task import Definition
from asyncworker.queue.worker.attempt import Attempt
from asyncworker.queue.worker.lending import MOST_LENT
from asyncworker.queue.worker.patience import CANCEL_GRACE_S, Patience, stack_of
from asyncworker.queue.worker.shift import Shift
from asyncworker.queue.worker.sought import SoughtSlots
from asyncworker.tune.sensors.profiler import PerformanceProfiler

LOOK_S = 0.1
"""How often deadlines are looked at: one sweep over what runs is cheaper than a timer a job."""
OUTBOX_BYTES = 4 * 2**20
"""How much of the outbox one step carries at most; a single larger record goes alone."""


class Runner:
    """Run deliveries.

    Args:
        wake: set whenever something has ended, for the fetcher to see.
        tell: keep a `JobEnd` of each attempt for the listeners, not only of those that failed; may be changed.
        sought: is told how many have ended, and whom it lets in. profiler: measures some of the calls.
        cancel_grace_s: how long a cancelled job may go on before it is given up. emit: is told of each of those.
        offload: takes large results.
    """

    def __init__(
        self,
        tasks: Mapping[str, Definition],
        wake: asyncio.Event,
        *,
        clock: Clock = SYSTEM,
        tell: bool = False,
        hooks: Hooks | None = None,
        sought: SoughtSlots | None = None,
        profiler: PerformanceProfiler | None = None,
        inputs: Callable[[Delivery], Awaitable[list[Any]]] | None = None,
        cancel_grace_s: float = CANCEL_GRACE_S,
        emit: Callable[[JobAbandoned], None] | None = None,
        offload: Offload | None = None,
    ) -> None:
        self._tasks = tasks
        self._cancel_grace_s = cancel_grace_s
        self._emit = emit
        self._offload = offload
        self._largest = MAX_PAYLOAD_BYTES if offload is None else LARGEST
        self._abandoned: set[asyncio.Task[None]] = set()
        self._inputs = inputs
        self._hooks = hooks or Hooks()
        self._sought = sought
        self._profiler = profiler
        self._telling: set[asyncio.Task[None]] = set()
        self._wake = wake
        self._clock = clock
        self.tell = tell
        self._outbox: list[Settled] = []
        self._taken = 0
        self._chunks: list[tuple[int, asyncio.Future[None]]] = []
        self._busy = asyncio.Event()
        self._shift = Shift(self._run)
        self.live: dict[str, Attempt] = {}
        self.running: dict[str, int] = {}  # by queue
        self.lent = 0  # of those that are live, how many wait for other jobs
        self.ends: list[JobEnd] = []
        self.resources: Any = None
        self.strikes: Mapping[str, Sequence[Strike]] = {}  # by task
        self.idle: Callable[[], None] | None = (
            None  # called when the last job that ran has ended, and just that wakes the fetcher
        )

    def start(self, deliveries: Iterable[Delivery], now_ms: int = 0) -> None:
        """Run deliveries; returns at once. *now_ms*: the broker's clock, by which a job is late."""
        attempts = []
        for delivery in deliveries:
            self.live[delivery.id] = attempt = Attempt(delivery, self._clock, now_ms)
            self.running[delivery.queue] = self.running.get(delivery.queue, 0) + 1
            attempt.home = self
            attempts.append(attempt)
        if attempts:
            self._shift.add(attempts)
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

    def forget(self) -> None:
        """Drop what waits for the fetcher: its epoch is over, and what it held belongs to others."""
        self._outbox.clear()
        self.ends.clear()
        for _, waiting in self._chunks:
            waiting.cancel()
        self._chunks.clear()

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
        for attempt in list(self.live.values()):
            if attempt.delivery.id == job_id or attempt.delivery.id[:ID_LENGTH] == job_id:
                self._stop(attempt, "cancel")
                if attempt.patience is None:
                    attempt.patience = Patience(self._clock.monotonic(), self._cancel_grace_s)

    async def release(self, patience_s: float) -> int:
        """Cancel all that runs, wait at most *patience_s*, and hand back what was running; returns how many.

        Hooks that are still being called are waited for, and then cancelled.
        """
        left = list(self.live.values())
        for attempt in left:
            self._stop(attempt, "release")
        ending = {attempt.runner for attempt in left if attempt.runner} | self._telling
        if ending:
            await asyncio.wait(ending, timeout=patience_s)
        for task in self._telling | self._abandoned:
            task.cancel()
        for attempt in left:
            if self._over(attempt):  # never begun; or it swallows cancellation: the queue does not wait for it
                self._outbox.append(Settled(attempt.delivery.id, Op.RELEASE, attempt.delivery.queue))
        return len(left)

    async def run(self) -> None:
        """Look after deadlines until cancelled."""
        while True:
            if not self.live:
                self._busy.clear()
                await self._busy.wait()
            await asyncio.sleep(LOOK_S)
            now = self._clock.monotonic()
            if self._sought is not None:
                self._sought.look(now, self.running, self.live)
            for attempt in list(self.live.values()):
                if attempt.deadline and now > attempt.deadline:
                    attempt.deadline = now + 10 * LOOK_S  # asked again when the code swallows it
                    self._stop(attempt, "timeout")
                if (patience := attempt.patience) is None or attempt.runner is None:
                    continue
                if patience.is_over(now):
                    self._abandon(attempt, attempt.runner)
                elif patience.asks(now):
                    attempt.runner.cancel()

    def _abandon(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Give back the slot of a cancelled attempt that goes on, and end its job."""
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        self._outbox.append(attempt.cancelled("cancelled while it ran; it did not stop, and was abandoned"))
        self._over(attempt)
        self._count(attempt)
        if self.tell:
            self.ends.append(attempt.end(self._tasks))
        attempt.why, attempt.error = "abandoned", None
        if self._emit is not None:
            self._emit(JobAbandoned(attempt.delivery.id, attempt.task, attempt.delivery.queue, stack_of(task)))
        self._wake.set()

    def _count(self, attempt: Attempt) -> None:
        """Tell who seeks how many may run that one fewer does."""
        if (sought := self._sought) is not None:
            sought.last, name = attempt, attempt.task
            sought.ended[name] = sought.ended.get(name, 0) + 1
            if sought.doors or attempt.status != "succeeded":
                sought.over(attempt)

    @staticmethod
    def _stop(attempt: Attempt, why: str) -> None:
        if not attempt.why:
            attempt.why = why
        if attempt.runner is not None:
            attempt.runner.cancel()

    async def _run(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Run an attempt, unless it was struck off before it began. Never raises but for the process' own end."""
        if self.live.get(attempt.delivery.id) is not attempt:
            return
        sought, profiler = self._sought, self._profiler
        attempt.runner = task
        attempt.begin()
        try:
            try:
                if attempt.delivery.options and self._inputs is not None and wants_inputs(attempt.delivery.options):
                    attempt.inputs = await self._inputs(attempt.delivery)
                ready = self._prepared(attempt)
                if isinstance(ready, Settled):
                    settled = ready
                else:
                    if sought is not None and sought.doors:
                        await sought.enter(attempt)
                    if attempt.context is not None:
                        await self._hooks.steer(attempt.context)
                    call, places, names = ready
                    if attempt.context is not None and self._hooks.around:
                        work = self._hooks.wrapped(attempt.context, partial(call, *places, **names))
                    else:
                        work = call(*places, **names)
                    if profiler is not None and profiler.open:
                        work = profiler.measure(attempt.task, work)
                    settled = attempt.succeeded(await work, self._largest)
                    if self._offload is not None and len(settled.value) > self._offload.above:
                        settled = await attempt.stored(settled, self._offload)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as exc:
                settled = self._ended(attempt, exc)
        except Exception as exc:  # how it ended cannot be told: its text, or the delay that it asks for, is none
            settled = attempt.failed(exc, Reason.ERROR)
        finally:
            still_ours = self._over(attempt)
            if self._sought is not None and attempt.why != "abandoned":
                self._count(attempt)
            asleep = not self._wake.is_set()
            self._wake.set()
        if still_ours:
            self._outbox.append(settled)
            if attempt.status and (self.tell or attempt.status == "failed"):
                self.ends.append(attempt.end(self._tasks))
            if asleep and self.idle is not None and not self.live:
                self.idle()
            if self._hooks.follow:
                await self._follow(attempt, task)
        attempt.error = None  # its traceback holds this very frame

    async def _follow(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Tell the hooks how an attempt ended."""
        hooks, ctx = self._hooks, attempt.context
        self._telling.add(task)
        try:
            if ctx is not None:
                await hooks.tell(hooks.after, ctx, attempt.error)
            elif attempt.status == "failed":  # it never came to its call
                ctx = self._context(attempt.delivery, attempt.task)
            if attempt.status == "succeeded":
                await hooks.tell(hooks.success, ctx, attempt.value)
            elif attempt.status == "failed":
                await hooks.tell(hooks.failure, ctx, attempt.error)
        finally:
            self._telling.discard(task)

    def _over(self, attempt: Attempt) -> bool:
        """Strike an attempt off; returns False for one that was struck off before, whose word no longer counts."""
        delivery = attempt.delivery
        if self.live.get(delivery.id) is not attempt:
            return False
        del self.live[delivery.id]
        if attempt.lent:
            self.lent -= 1
        else:
            self.running[delivery.queue] -= 1
        return True

    def lend(self, attempt: Attempt) -> bool:
        if self.live.get(attempt.delivery.id) is not attempt:
            return False
        if not attempt.lent:
            if self.lent >= MOST_LENT:
                text = f"{MOST_LENT} jobs of this worker wait for others already: let jobs follow on others (then=, after=)"
                raise AsyncWorkerError(text)
            self.lent += 1
            self.running[attempt.delivery.queue] -= 1
            if self._sought is not None:
                self._sought.leave(attempt)
            self._wake.set()
        attempt.lent += 1
        return True

    def take_back(self, attempt: Attempt) -> None:
        attempt.lent -= 1
        if not attempt.lent and self.live.get(attempt.delivery.id) is attempt:
            self.lent -= 1
            self.running[attempt.delivery.queue] += 1

    def _prepared(self, attempt: Attempt) -> Settled | tuple[Callable[..., Awaitable[Any]], tuple[Any, ...], Any]:
        """Return what to call with which arguments; or what becomes of a job that is not to be run at all."""
        delivery = attempt.delivery
        if attempt.why == "release":
            return attempt.released()
        if attempt.why or delivery.cancel_asked:
            return attempt.cancelled("cancelled before it started")
        if not delivery.queue:
            return attempt.unreadable()
        attempt.task, args, kwargs = unpack_call(delivery.payload)
        if attempt.inputs:
            args[:0] = attempt.inputs
        definition = self._tasks.get(attempt.task)
        if definition is None:
            return attempt.unknown()
        options = definition.options
        if delivery.options:
            options = definition.overridden(delivery.options)
        attempt.options = options
        if late := attempt.late():
            return attempt.expired(late)
        if self.strikes and (struck := self._struck(definition, args, kwargs)):
            return attempt.later(Op.SNOOZE, "snoozed", AGAIN_S, Snooze(AGAIN_S, f"struck: {struck.name}"))
        if definition.gated and not definition.gated <= delivery.options.keys():
            return attempt.gated(definition, args, kwargs)
        attempt.deadline = attempt.until
        if options.timeout is not None:
            attempt.deadline = min(attempt.since + options.timeout, attempt.until)
        places, names = definition.arguments(args, kwargs)
        if definition.context is not None or self._hooks.used:
            attempt.context = self._context(delivery, attempt.task)
            if definition.context is not None:
                names[definition.context] = attempt.context
        if delivery.deliveries >= options.max_deliveries:
            return attempt.suspected() if definition.apart is None else (definition.apart, places, names)
        return definition.call, places, names

    def _struck(self, definition: Definition, args: list[Any], kwargs: dict[str, Any]) -> Strike | None:
        """Return the strike that keeps this call from being made."""
        strikes = self.strikes.get(definition.name, ())
        return next((strike for strike in strikes if strike.hits(definition.signature, args, kwargs)), None)

    @staticmethod
    def _ended(attempt: Attempt, exc: BaseException) -> Settled:
        """Return what becomes of a job whose attempt raised *exc*."""
        match exc:
            case asyncio.CancelledError() if attempt.why == "release":
                return attempt.released()
            case asyncio.CancelledError() if attempt.why == "cancel":
                return attempt.cancelled("cancelled while it ran")
            case asyncio.CancelledError() if attempt.why == "timeout":
                return attempt.erred(attempt.overrun(), Reason.TIMEOUT)
            case DecodeError():
                return attempt.failed(exc, Reason.BAD_PAYLOAD)
            case ChildProcessError() if attempt.delivery.deliveries >= attempt.options.max_deliveries:
                return attempt.suspected(exc)
            case Snooze():
                return attempt.later(Op.SNOOZE, "snoozed", exc.delay, exc)
            case Discard():
                return attempt.cancelled(str(exc))
        return attempt.erred(exc)  # also where the task cancelled itself

    def _context(self, delivery: Delivery, name: str) -> Context:
        async def send(op: Op, number: int, data: bytes) -> None:
            if (live := self.live.get(delivery.id)) is None or live.delivery is not delivery:
                raise LeaseLost("this attempt is over: what it says no longer counts")
            self._outbox.append(Settled(delivery.id, op, delivery.queue, number, data))
            applied = asyncio.get_running_loop().create_future()
            self._chunks.append((self._taken + len(self._outbox), applied))
            self._wake.set()
            await applied

        headers = headers_of(delivery.options) if delivery.options else None
        about = delivery.id, name, delivery.queue, delivery.attempt, delivery.deliveries
        return Context(*about, send, self.resources, headers, delivery.checkpoint)
