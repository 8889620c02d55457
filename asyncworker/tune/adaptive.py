"""A limiter that finds its own size: calls pass a `Limiter`, and what they took is told to a policy.

    limiter = AdaptiveLimiter(UslPolicy(high=200))
    async with limiter:
        await call()

One for each backend: a policy that sees two kinds of calls mixed learns the mixture.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, TypeVar, runtime_checkable

from asyncworker.errors import BadParameters
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.policy import LimiterPolicy

T = TypeVar("T")
R = TypeVar("R")

ROUNDING_S = 1.0
"""A loop's clock that is so near to the system's is the system's, rounded, or read when this turn of the loop began."""

WAIT_S, WAITS = 0.1, 20
"""How often, and how many times, it is looked whether the first call has ended."""


@runtime_checkable
class Patient(Protocol):
    """A policy that wants to know where nothing ends."""

    def on_wait(self, t: float) -> int:
        """Hear that all permits are out and calls wait; returns the limit."""
        ...


class AdaptiveLimiter:
    """Let as many inside ``async with`` as the policy says, and report to it each call that ends.

    An error that leaves the block is a failed call; a cancellation is no evidence and is not reported. Who needs no
    task of its own for each call (a worker that claims jobs in batches) asks the limiter for room and reports with
    `complete`.

    Args:
        policy: of the limiter kind; it says the first size.
        limiter: the gate; by default one within the policy's bounds.
        decisions: where changes are noted; by default in a log of its own.
        clock: monotonic seconds; by default the running event loop's, so it also holds in virtual time.

    Attributes: ``completed`` calls were reported so far.

    Cost: 2.3 us a call with `UslPolicy` (`bench/control/bench_limiter.py`).
    """

    def __init__(
        self,
        policy: LimiterPolicy,
        limiter: Limiter | None = None,
        *,
        decisions: Decisions | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.policy = policy
        self.limiter = limiter or Limiter(policy.limit, low=policy.low, high=policy.high)
        self.decisions = Decisions() if decisions is None else decisions
        self._clock = clock
        self._began: dict[asyncio.Task[object] | None, float] = {}
        self.limiter.resize(policy.limit)
        self.completed = 0
        self.decisions.watch(self)

    @property
    def limit(self) -> int:
        return self.limiter.size

    size = limit

    @property
    def name(self) -> str:
        return self.limiter.name

    @property
    def in_use(self) -> int:
        return self.limiter.in_use

    def now(self) -> float:
        """Return the time by which calls are measured."""
        return (self._clock or self._start())()

    def _start(self) -> Callable[[], float]:
        """Choose the clock when the first call begins; and look now and then whether none ends."""
        self._clock = _loop_clock()
        if isinstance(self.policy, Patient):
            with contextlib.suppress(RuntimeError):
                self._wait(asyncio.get_running_loop(), self.policy, WAITS)
        return self._clock

    def _wait(self, loop: asyncio.AbstractEventLoop, policy: Patient, left: int) -> None:
        if self.limiter.waiting and self._clock is not None:
            self._resize(policy.on_wait(self._clock()))
        if left and not self.completed:
            loop.call_later(WAIT_S, self._wait, loop, policy, left - 1)

    def complete(self, began: float, ok: bool = True) -> None:
        """Report a call that began at ``now() == began`` and has just ended; its permit must still be held."""
        now = self.now()
        self.completed += 1
        limit = self.policy.on_complete(now, now - began, self.limiter.in_use, ok)
        if limit != self.limiter.size:
            self._resize(limit)

    def _resize(self, limit: int) -> None:
        old = self.limiter.size
        self.limiter.resize(limit)
        if self.limiter.size != old:
            self.decisions.add(self.limiter.name, old, self.limiter.size, self.policy.because)

    def timed(self, func: Callable[[T], Awaitable[R]]) -> Callable[[T], Awaitable[R]]:
        """Return *func* as one that reports each call; who calls it holds a permit of the limiter."""
        clock, limiter, on_complete = self._clock, self.limiter, self.policy.on_complete

        async def call(item: T) -> R:
            nonlocal clock
            if clock is None:
                clock = self._start()
            began = clock()
            try:
                result = await func(item)
            except (asyncio.CancelledError, GeneratorExit):  # no evidence
                raise
            except BaseException:
                self.complete(began, ok=False)
                raise
            now = clock()
            self.completed += 1
            limit = on_complete(now, now - began, limiter.in_use, True)  # `complete`, written out for speed
            if limit != limiter.size:
                self._resize(limit)
            return result

        return call

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task in self._began:
            raise BadParameters("this task is inside this limiter already and would wait for itself")
        await self.limiter.acquire()
        self._began[task] = self.now()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        began = self._began.pop(asyncio.current_task())
        try:
            if kind is None or not issubclass(kind, asyncio.CancelledError | GeneratorExit):
                self.complete(began, ok=kind is None)
        finally:
            self.limiter.release()


def _loop_clock() -> Callable[[], float]:
    """Return the running loop's clock; where that is the system's, without the loop's rounding: uvloop's is to 1 ms."""
    try:
        clock = asyncio.get_running_loop().time
    except RuntimeError:
        return time.monotonic
    return time.monotonic if abs(clock() - time.monotonic()) < ROUNDING_S else clock
