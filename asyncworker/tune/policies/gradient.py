"""Gradient: hold the limit where calls take no longer than they used to. It guards latency, and pays in throughput.

For calls that a person waits for. Where a backlog is worked off, latency rises long before throughput stops rising,
so this rule stops too early: `usl.py` is for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.policy import check_bounds, load

WARM_UP = 10
"""Calls whose plain mean starts the long average."""


class _State(msgspec.Struct, forbid_unknown_fields=True):
    estimate: float
    usual: float = 0.0
    seen: int = 0


class GradientPolicy:
    """Compare a call's time with the long average: ``L <- (1-s) L + s (g L + q)``, ``g = usual / this`` in 0.5..1.

    Source: Netflix/concurrency-limits, ``Gradient2Limit``. A failed call says nothing of latency and is not counted,
    which keeps a dependency that refuses at once from looking fast.

    Args:
        tolerance: how much slower than usual is still well.
        smoothing: *s*, 0..1. queue: *q*, the calls that may wait in the backend. window: calls in the long average.
    """

    def __init__(
        self,
        *,
        low: int = 1,
        high: int = 200,
        initial: int = 20,
        tolerance: float = 1.5,
        smoothing: float = 0.2,
        queue: int = 4,
        window: int = 600,
    ) -> None:
        check_bounds(low, high)
        if not (tolerance >= 1 and 0 < smoothing <= 1 and queue >= 0 and window >= WARM_UP):
            raise BadParameters(f"tolerance >= 1, smoothing in 0..1, queue >= 0 and window >= {WARM_UP} are needed")
        self.low, self.high = low, high
        self.because = "start"
        self._tolerance, self._smoothing, self._queue, self._weight = tolerance, smoothing, queue, 2 / (window + 1)
        self._state = _State(float(min(max(initial, low), high)))

    @property
    def limit(self) -> int:
        return int(self._state.estimate)

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        state = self._state
        if not ok or not 0.0 < rtt < math.inf:
            return self.limit
        if state.seen < WARM_UP:
            state.seen += 1
            state.usual += (rtt - state.usual) / state.seen
        else:
            state.usual += self._weight * (rtt - state.usual)
        usual = state.usual
        if usual / rtt > 2:  # long overloaded and now well again: forget faster than the average does
            state.usual *= 0.95
        if inflight >= state.estimate / 2:
            gradient = max(0.5, min(1.0, self._tolerance * usual / rtt))
            self._move(state.estimate + self._smoothing * (state.estimate * (gradient - 1) + self._queue), gradient)
        return self.limit

    def _move(self, estimate: float, gradient: float) -> None:
        old, self._state.estimate = self.limit, min(max(estimate, self.low), self.high)
        if self.limit != old:
            self.because = "calls take longer than usual" if gradient < 1 else "calls take no longer than usual"

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self._state, name) for name in self._state.__struct_fields__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        loaded = load(state, _State)
        loaded.estimate = min(max(loaded.estimate, float(self.low)), float(self.high))
        loaded.usual, loaded.seen = max(0.0, loaded.usual), max(0, loaded.seen)
        self._state = loaded


open = GradientPolicy
