"""Scaler: how many worker processes, by what waits and arrives, within what machine and backend can bear.

What is short stops it from growing, though not from having one worker; it never makes the fleet shrink, for a worker
that is busy is doing its work. Pure:
the same reports give the same decisions.
"""

from __future__ import annotations

import math

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.backlog import BacklogPolicy
from asyncworker.tune.policies.policy import Decision, Observation, ScalerPolicy
from asyncworker.tune.sensors.host import Host

CPU_RATIO = 0.95
MEMORY_RATIO = 0.85
IDLE_S = 60.0


class Scaler:
    """Decide on a clock.

    Args:
        low, high: bounds; a fleet may have no worker at all (low 0) while there is nothing to do.
        cpu_ratio, memory_ratio: no worker is added while more than this share of processors or memory is in use.
        queue_threshold: so many jobs waiting in one queue force one more worker; None: only the policy counts.
        policy: for 1..high workers; by default `BacklogPolicy`.
    """

    def __init__(
        self,
        *,
        low: int = 1,
        high: int = 64,
        cpu_ratio: float = CPU_RATIO,
        memory_ratio: float = MEMORY_RATIO,
        queue_threshold: int | None = None,
        policy: ScalerPolicy | None = None,
    ) -> None:
        if not 0 <= low <= high or high < 1:
            raise BadParameters(f"workers must be in order, and 1 or more at most, not {low}..{high}")
        if not (0 < cpu_ratio <= 1 and 0 < memory_ratio <= 1):
            raise BadParameters("the shares of processors and memory must be above 0 and at most 1")
        self.low, self.high = low, high
        self._cpu_ratio, self._memory_ratio, self._queue_threshold = cpu_ratio, memory_ratio, queue_threshold
        self.policy: ScalerPolicy = policy or BacklogPolicy(low=max(1, low), high=high)
        self._idle_since: float | None = None

    def decide(
        self,
        seen: Observation,
        host: Host,
        *,
        deepest: int = 0,
        scheduled: int = 0,
        starting: int = 0,
        running: int = 0,
        worker_bytes: float = 0.0,
        backend: float = math.inf,
    ) -> Decision:
        """Return how many, and because of what.

        Args:
            deepest: jobs that wait in the longest queue. scheduled: jobs that are not due yet. starting: workers that do not work yet. running: jobs in hand.
            worker_bytes: memory that a worker needs. backend: how many workers' jobs what they work with can bear.
        """
        wanted = self._wanted(seen, deepest, scheduled, starting, running)
        size = min(max(wanted.size, self.low), self.high)
        if size <= max(seen.size, self.low):
            return Decision(size, wanted.because)
        for most, because in self._ceilings(seen.size, host, worker_bytes, backend):
            if size > (held := max(most, seen.size, self.low, 1)):
                size, wanted = held, Decision(held, f"{because}; else {wanted.size}: {wanted.because}")
        return Decision(size, wanted.because)

    def _wanted(self, seen: Observation, deepest: int, scheduled: int, starting: int, running: int) -> Decision:
        idle = not (seen.waiting or scheduled or running or seen.arrivals)
        self._idle_since = (seen.t if self._idle_since is None else self._idle_since) if idle else None
        if seen.size == 0:
            if seen.waiting or scheduled:
                return Decision(1, f"work {'waits' if seen.waiting else 'will be due'}, and nobody works")
            return Decision(0, "nothing to do")
        if self.low == 0 and self._idle_since is not None and seen.t - self._idle_since >= IDLE_S:
            return Decision(0, f"nothing to do for {IDLE_S:g} s")
        wanted = self.policy.tick(seen)
        threshold = self._queue_threshold
        if threshold is not None and deepest > threshold and wanted.size <= seen.size and not starting:
            return Decision(seen.size + 1, f"{deepest} wait in one queue, more than {threshold}")
        return wanted

    def _ceilings(self, size: int, host: Host, worker_bytes: float, backend: float) -> list[tuple[int, str]]:
        ceilings = []
        if host.cpu_ratio > self._cpu_ratio:
            ceilings.append((size, f"the processors are {host.cpu_ratio:.0%} busy"))
        room = host.memory_bytes * self._memory_ratio - host.memory_used_bytes
        if room <= 0:
            ceilings.append((size, f"{host.memory_ratio:.0%} of the memory is in use"))
        elif worker_bytes > 0:
            ceilings.append((size + int(room / worker_bytes), f"there is memory for {room / worker_bytes:.0f} more"))
        if backend < math.inf:
            ceilings.append((max(1, int(backend)), f"what they work with bears {backend:.3g}"))
        return ceilings
