"""The hand that joins the three: read the sensor, ask the policy, turn the actuator, say why.

It also looks whether what it did was good: where throughput falls after a change, although work waits, the change is
undone within three windows, and the policy is not followed that way for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from asyncworker.tune.actuators.actuator import Actuator
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.policy import Decision, Observation, ScalerPolicy

WINDOWS = 3
"""Ticks for which a change is on probation, and over which throughput before it is averaged."""
HURTS = 0.1
"""The share of throughput whose loss over two windows or more is too much; half of it is so in one."""
LONGEST_PAUSE = 48


class Tuner:
    """Turn one actuator on a clock.

    Args:
        actuator: what is turned.
        sense: returns what was seen since it was last asked. Where ``completions`` is not filled nothing is undone.
        policy: of the scaler kind.
        decisions: where changes are noted; by default in a log of its own.
    """

    def __init__(
        self,
        actuator: Actuator,
        sense: Callable[[], Observation],
        policy: ScalerPolicy,
        *,
        decisions: Decisions | None = None,
    ) -> None:
        self.actuator, self.policy = actuator, policy
        self.decisions = Decisions() if decisions is None else decisions
        self._sense = sense
        self._usual: deque[float] = deque(maxlen=WINDOWS)  # completions a second at the present size
        self._trial: _Trial | None = None
        self._way = 0  # the way in which the policy is not followed: 1 up, -1 down
        self._pause = 0  # for so many ticks
        self._next_pause = WINDOWS
        self._seen_at: float | None = None
        self.completed = 0.0
        """Pieces of work that were seen to end well so far."""
        self.decisions.watch(self)

    @property
    def name(self) -> str:
        return self.actuator.name

    @property
    def size(self) -> int:
        return self.actuator.size

    @property
    def in_use(self) -> int:
        return self.actuator.in_use

    def tick(self) -> Decision:
        """Look once, decide once, turn at most once; returns what was decided and why."""
        seen = self._sense()
        if self._seen_at is not None and seen.t > self._seen_at:
            self.completed += seen.completions * (seen.t - self._seen_at)
        self._seen_at = seen.t
        wanted = self.policy.tick(seen)
        self._usual.append(seen.completions)
        size = self.actuator.size
        if self._trial is not None:
            self._trial.rates.append(seen.completions)
            if seen.waiting > 0 and self._trial.hurts():
                return self._undo(self._trial)
            if len(self._trial.rates) >= WINDOWS:
                self._trial = None
                self._next_pause = WINDOWS
        self._pause = max(0, self._pause - 1)
        if self._pause and (wanted.size - size) * self._way > 0:
            return Decision(size, f"not again: {wanted.because}")
        rate = sum(self._usual) / len(self._usual)
        if (new := self._turn(wanted)) != size:
            trial = self._trial
            # While it goes on the same way, what is held to account is the whole way since throughput was best.
            if trial is None or (new > size) != trial.up or rate >= trial.rate:
                self._trial = _Trial(size, rate, new > size)
        return Decision(new, wanted.because)

    async def run(self, every: float) -> None:
        """Tick each *every* seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            self.tick()

    def _undo(self, trial: _Trial) -> Decision:
        self._trial = None
        self._way = 1 if trial.up else -1
        self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)
        because = f"undone: {trial.kept():.3g}/s after {trial.rate:.3g}/s before, while work waits"
        return Decision(self._turn(Decision(trial.size, because)), because)

    def _turn(self, decision: Decision) -> int:
        old = self.actuator.size
        if decision.size != old:
            self.actuator.resize(decision.size)
        new = self.actuator.size
        if new != old:
            self._usual.clear()
            self.decisions.add(self.actuator.name, old, new, decision.because)
        return new


class _Trial:
    """A change on probation: the size and throughput before it, its direction, and the throughput since."""

    def __init__(self, size: int, rate: float, up: bool) -> None:
        self.size, self.rate, self.up = size, rate, up
        self.rates: list[float] = []

    def kept(self) -> float:
        return sum(self.rates) / len(self.rates)

    def hurts(self) -> bool:
        return self.kept() < self.rate * (1 - HURTS if len(self.rates) > 1 else 0.5)
