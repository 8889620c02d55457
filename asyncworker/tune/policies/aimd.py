"""AIMD: one more while all is well, a tenth fewer after a failure. It finds where errors begin, not where work is fastest.

For backends that refuse rather than slow down: an API that answers 429.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.policy import check_bounds, load


class _State(msgspec.Struct, forbid_unknown_fields=True):
    limit: int


class AimdPolicy:
    """Add one after a good call that found the limit at least half used; multiply by *backoff* after another.

    A call that took longer than *timeout* seconds counts as failed. Source: Netflix/concurrency-limits,
    ``AIMDLimit``; its bounds are 20..200.
    """

    def __init__(
        self, *, low: int = 1, high: int = 200, initial: int = 20, timeout: float = 5.0, backoff: float = 0.9
    ) -> None:
        check_bounds(low, high)
        if not 0.5 <= backoff < 1.0 or not timeout > 0:
            raise BadParameters("backoff must be in 0.5..1 and timeout above 0")
        self.low, self.high = low, high
        self.because = "start"
        self._timeout, self._backoff = timeout, backoff
        self.limit = min(max(initial, low), high)

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        if not ok or rtt > self._timeout:
            self._move(math.floor(self.limit * self._backoff), "a call timed out" if ok else "a call failed")
        elif inflight * 2 >= self.limit:
            self._move(self.limit + 1, "all is well")
        return self.limit

    def _move(self, limit: int, because: str) -> None:
        limit = min(max(limit, self.low), self.high)
        if limit != self.limit:
            self.limit, self.because = limit, because

    def state_dict(self) -> dict[str, Any]:
        return {"limit": self.limit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.limit = min(max(load(state, _State).limit, self.low), self.high)


open = AimdPolicy
