"""Levels: LOW, MEDIUM, HIGH, CRITICAL, and a factor up or down. Easy to explain, slow to find what is best.

The level says how long work waits, against how long it may. Multiplying and dividing on a level alone swings for
ever, so two things hold it still: a level is left only when it is missed by a margin, and units are given back only
where those that stay have room for what is in use now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.policy import Decision, Observation, check_bounds, load, sane


class Level(StrEnum):
    """How pressing the work is: the age of the oldest waiting piece, as a share of `drain` seconds."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


LADDER = tuple(Level)
BOUNDS = (0.25, 0.75, 1.5)
"""Where MEDIUM, HIGH and CRITICAL begin."""
MARGIN = 0.2
"""How far past its bound, as a share, the pressure must be for the level to change."""
ROOM = 0.8
"""How busy those that stay may be after a step down."""


class _State(msgspec.Struct, forbid_unknown_fields=True):
    level: Level = Level.LOW
    calm: int = 0


class LevelsPolicy:
    """Grow by *factor* at CRITICAL and by its root at HIGH; shrink by *factor* after *patience* ticks at LOW.

    Needs ``oldest_s`` and ``busy``.

    Args:
        drain: seconds that work may wait. factor: above 1. patience: ticks.
    """

    def __init__(
        self, *, low: int = 1, high: int = 64, drain: float = 15.0, factor: float = 1.5, patience: int = 3
    ) -> None:
        check_bounds(low, high)
        if not (drain > 0 and 1 < factor <= 10 and patience >= 1):
            raise BadParameters("drain above 0, factor in 1..10 and patience 1 or more are needed")
        self.low, self.high = low, high
        self._drain, self._factor, self._patience = drain, factor, patience
        self._state = _State()

    @property
    def level(self) -> Level:
        return self._state.level

    def tick(self, observation: Observation) -> Decision:
        state = self._state
        size = min(max(observation.size, self.low), self.high)
        state.level = self._climb(sane(observation.oldest_s) / self._drain)
        if state.level in (Level.HIGH, Level.CRITICAL):
            state.calm = 0
            factor = self._factor if state.level is Level.CRITICAL else math.sqrt(self._factor)
            return self._decision(max(size + 1, math.floor(size * factor)))
        state.calm = state.calm + 1 if state.level is Level.LOW else 0
        needed = math.ceil(sane(observation.busy, 0.0, 1.0) * size / ROOM)
        fewer = max(math.floor(size / self._factor), needed)
        if state.calm < self._patience or fewer >= size:
            return self._decision(size)
        state.calm = 0
        return self._decision(fewer)

    def _climb(self, pressure: float) -> Level:
        place = LADDER.index(self._state.level)
        while place < len(BOUNDS) and pressure >= BOUNDS[place] * (1 + MARGIN):
            place += 1
        while place and pressure < BOUNDS[place - 1] * (1 - MARGIN):
            place -= 1
        return LADDER[place]

    def _decision(self, size: int) -> Decision:
        return Decision(min(max(size, self.low), self.high), f"level {self._state.level}")

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(self._state)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._state = load(state, _State)


open = LevelsPolicy
