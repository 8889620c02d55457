"""How many connections: what the callers need, but never more than the database turns into work.

Two policies, one of each kind. By queueing theory (`policies.erlang`) so many are enough that almost nobody waits. But
on a database that is saturated each connection makes all others slower, the theory sees longer use and asks for still
more, up to the ceiling. So once callers wait for good, a limiter policy (`policies.usl`) measures how many do the most
work, and its answer caps the first.
"""

from __future__ import annotations

import math

from asyncworker.tune.policies.policy import Decision, LimiterPolicy, Observation, ScalerPolicy

# Both from `bench/control/bench_pool_sizing.py` and `bench_contended_database.py`.
PATIENCE_S = 1.5
"""Seconds for which callers have waited without a break before the database is suspected: longer than the other policy
takes to answer more callers."""
CALM = 200
"""Uses in a row that ended without a waiter before the cap is lifted."""


class CappedSizing:
    """Join what is *needed* with what there is *capacity* for; pure, as policies are.

    Attributes: ``capped`` is whether the database, and not the callers, says how many.
    """

    def __init__(self, needed: ScalerPolicy, capacity: LimiterPolicy) -> None:
        self._policy, self._capacity = needed, capacity
        self._needed = Decision(needed.low, "start")
        self.capped = False
        self._pressed_at = math.inf  # since when callers wait without a break
        self._quiet = 0  # uses in a row that ended without a waiter
        # The capacity policy's own clock. It stands still while nobody waits: a pool that is asked for less than it
        # has says nothing about what the database can do.
        self._clock = 0.0
        self._last: float | None = None

    @property
    def needed(self) -> int:
        """Return the size without the cap."""
        return self._needed.size

    @property
    def size(self) -> int:
        return min(self.needed, max(self._policy.low, self._capacity.limit)) if self.capped else self.needed

    @property
    def because(self) -> str:
        if self.size < self.needed:
            return f"{self._capacity.because}; more would only slow the others"
        return self._needed.because

    def on_complete(self, t: float, held_s: float, in_use: int, waiting: int, *, ok: bool = True) -> int:
        """Take in one use that ended; returns the size.

        Args:
            t: seconds of a monotonic clock. held_s: how long the connection was out.
            in_use: connections out, this one included. waiting: callers that wait.
        """
        if not waiting:
            self._pressed_at, self._last = math.inf, None
            self._quiet += 1
            self.capped = self.capped and self._quiet < CALM
            return self.size
        self._quiet = 0
        self._pressed_at = min(self._pressed_at, t)
        if t - self._pressed_at >= PATIENCE_S:
            self.capped = True
        if self.capped:
            if self._last is not None:  # else the clock starts here: what came before is not known
                self._clock += max(0.0, t - self._last)
                self._capacity.on_complete(self._clock, held_s, in_use, ok)
            self._last = t
        return self.size

    def tick(self, observation: Observation) -> Decision:
        """Take in what was seen since the last tick; returns a size and why."""
        before, decision = self._needed, self._policy.tick(observation)
        # One fewer is not worth the closing and opening: estimates sway by that much.
        if not self._policy.low < decision.size == before.size - 1:
            self._needed = decision
        return Decision(self.size, self.because)
