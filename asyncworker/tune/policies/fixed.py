"""Fixed: always the same number. For those who know it, and to compare the others with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.tune.policies.policy import Decision, Observation, check_bounds, load


class _State(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing is learned."""


class FixedPolicy:
    """Say *size*, whatever happens; of both kinds."""

    because = "fixed"

    def __init__(self, size: int = 10) -> None:
        check_bounds(size, size)
        self.low = self.high = self.limit = size

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        return self.limit

    def tick(self, observation: Observation) -> Decision:
        return Decision(self.limit, self.because)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load(state, _State)


open = FixedPolicy
