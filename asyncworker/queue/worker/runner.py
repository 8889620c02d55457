"""Runner: runs what was claimed, each job in a task of its own, and writes down how each one ended.

It never talks to the broker: what has ended lies in its outbox until the fetcher takes it along. This is one of
the two places where ``except Exception`` stands: around users' code.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Mapping
from typing import Any, cast

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import DecodeError, Discard, Snooze
from asyncworker.events import JobEnd
from asyncworker.queue.codec import unpack_call
from asyncworker.queue.context import Context
from asyncworker.queue.hooks import Hooks
from asyncworker.queue.job import ID_LENGTH, Delivery, Op, Reason, Settled
from asyncworker.queue.task import Definition
from asyncworker.queue.worker.attempt import Attempt

LOOK_S = 0.1
"""How often deadlines are looked at: one sweep over what runs is cheaper than a timer a job."""
OUTBOX_BYTES = 4 * 2**20
"""How much of the outbox one step carries at most; a single larger record goes alone."""


class Running:
    """One attempt under way. ``why`` says who cancelled its task: "timeout", "cancel" or "release"."""

    __slots__ = ("claimed_ms", "deadline", "delivery", "task", "why")

    def __init__(self, delivery: Delivery, claimed_ms: int) -> None:
        self.delivery = delivery
        self.claimed_ms = claimed_ms
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
        hooks: Hooks | None = None,
    ) -> None:
        self._tasks = tasks
        self._hooks = hooks or Hooks()
        self._telling: set[asyncio.Task[None]] = set()
        self._wake = wake
        self._clock = clock
        self._tell = tell
        self._outbox: list[Settled] = []
        self._taken = 0
        self._chunks: list[tuple[int, asyncio.Future[None]]] = []
        self._busy = asyncio.Event()
        self.live: dict[str, Running] = {}
        self.running: dict[str, int] = {}  # by queue
        self.ends: list[JobEnd] = []
        self.resources: Any = None

    def start(self, delivery: Delivery, now_ms: int = 0) -> None:
        """Run one delivery; returns at once. *now_ms*: the broker's clock, by which a job is late."""
        running = Running(delivery, now_ms)
        self.live[delivery.id] = running
        self.running[delivery.queue] = self.running.get(delivery.queue, 0) + 1
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
        for running in list(self.live.values()):
            if running.delivery.id == job_id or running.delivery.id[:ID_LENGTH] == job_id:
                self._stop(running, "cancel")

    async def release(self, patience_s: float) -> int:
        """Cancel all that runs, wait at most *patience_s*, and hand back what was running; returns how many.

        Hooks that are still being called are waited for, and then cancelled.
        """
        left = list(self.live.values())
        for running in left:
            self._stop(running, "release")
        ending = {running.task for running in left if running.task} | self._telling
        if ending:
            await asyncio.wait(ending, timeout=patience_s)
        for task in self._telling:
            task.cancel()
        for running in left:
            if self._over(running):  # it swallows cancellation: the queue does not wait for it
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
        task = running.task
        if task is None:
            return
        if inspect.getcoroutinestate(cast("Coroutine[Any, Any, None]", task.get_coro())) == inspect.CORO_CREATED:
            task.get_loop().call_soon(task.cancel)  # cancelled before its first step it would end without a word
        else:
            task.cancel()

    async def _run(self, running: Running) -> None:
        attempt = Attempt(running.delivery, self._clock)
        try:
            settled = await self._settle(running, attempt)
        except Exception as exc:  # how it ended cannot be told: its text, or the delay that it asks for, is none
            settled = attempt.failed(exc, Reason.ERROR)
        finally:
            still_ours = self._over(running)
            self._wake.set()
        if still_ours:
            self._outbox.append(settled)
            if self._tell and attempt.status:
                self.ends.append(attempt.end(self._tasks))
            if self._hooks.follow and running.task is not None:
                self._telling.add(running.task)
                running.task.add_done_callback(self._telling.discard)
                await self._follow(attempt)
        attempt.error = None  # its traceback holds this very frame

    async def _follow(self, attempt: Attempt) -> None:
        """Tell the hooks how an attempt ended."""
        hooks, ctx = self._hooks, attempt.context
        if ctx is not None:
            await hooks.tell(hooks.after, ctx, attempt.error)
        elif attempt.status == "failed":  # it never came to its call
            ctx = self._context(attempt.delivery, attempt.task)
        if attempt.status == "succeeded":
            await hooks.tell(hooks.success, ctx, attempt.value)
        elif attempt.status == "failed":
            await hooks.tell(hooks.failure, ctx, attempt.error)

    def _over(self, running: Running) -> bool:
        """Strike an attempt off; returns False for one that was struck off before, whose word no longer counts."""
        delivery = running.delivery
        if self.live.get(delivery.id) is not running:
            return False
        del self.live[delivery.id]
        self.running[delivery.queue] -= 1
        return True

    async def _settle(self, running: Running, attempt: Attempt) -> Settled:
        """Run the attempt and return what becomes of its job. Never raises but for the process' own end."""
        delivery = running.delivery
        try:
            if delivery.cancel_asked:
                return attempt.cancelled("cancelled before it started")
            if not delivery.queue:
                return attempt.unreadable()
            attempt.task, args, kwargs = unpack_call(delivery.payload)
            definition = self._tasks.get(attempt.task)
            if definition is None:
                return attempt.unknown()
            options = definition.options
            if delivery.options:
                options = definition.overridden(delivery.options)
            attempt.options = options
            if late := attempt.late(running.claimed_ms):
                return attempt.expired(late)
            running.deadline = attempt.until
            if options.timeout is not None:
                running.deadline = min(attempt.since + options.timeout, attempt.until)
            places, names = definition.arguments(args, kwargs)
            context_name = definition.signature.given_name
            if context_name or self._hooks.used:
                attempt.context = self._context(delivery, attempt.task)
                if context_name:
                    names[context_name] = attempt.context
                await self._hooks.steer(attempt.context)
            return attempt.succeeded(await definition.call(*places, **names))
        except asyncio.CancelledError as exc:
            if running.why == "release":
                return attempt.released()
            if running.why == "cancel":
                return attempt.cancelled("cancelled while it ran")
            if running.why == "timeout":
                return attempt.erred(attempt.overrun(), Reason.TIMEOUT)
            return attempt.erred(exc)  # the task cancelled itself
        except DecodeError as exc:
            return attempt.failed(exc, Reason.BAD_PAYLOAD)
        except Snooze as exc:
            return attempt.later(Op.SNOOZE, "snoozed", exc.delay, exc)
        except Discard as exc:
            return attempt.cancelled(str(exc))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            return attempt.erred(exc)

    def _context(self, delivery: Delivery, name: str) -> Context:
        async def send(number: int, data: bytes) -> None:
            self._outbox.append(Settled(delivery.id, Op.CHUNK, delivery.queue, number, data))
            applied = asyncio.get_running_loop().create_future()
            self._chunks.append((self._taken + len(self._outbox), applied))
            self._wake.set()
            await applied

        return Context(delivery.id, name, delivery.queue, delivery.attempt, delivery.deliveries, send, self.resources)
