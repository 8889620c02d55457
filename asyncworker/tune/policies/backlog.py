"""Backlog: as many workers as keep up with what arrives and work off what waits within a given time.

``(lambda/rho + max(0, Q - lambda * 1 s)/drain) / mu``: *lambda* what arrives a second, *rho* how busy workers should
be, *Q* what waits, *mu* what one worker does a second. Depth alone says little: ten jobs of a second are as long a wait
as ten thousand of a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.policy import Decision, Observation, check_bounds, load, sane

SATURATED = 0.95
"""Workers this busy show what they can do; others show what they were asked for."""
TOLERANCE = 0.1
"""Smaller changes are not worth a start or a stop; as Kubernetes' HPA has it."""


class _State(msgspec.Struct, forbid_unknown_fields=True):
    arrivals: float | None = None
    speed: float | None = None
    wanted: list[tuple[float, int]] = []


class BacklogPolicy:
    """Follow the arrivals quickly upwards and slowly downwards; shrink to the most that was wanted of late.

    Needs ``arrivals``, ``completions``, ``waiting``, ``oldest_s`` and ``busy``; ``size`` with those still starting.

    Args:
        drain: seconds in which a backlog is worked off. utilisation: *rho*.
        stabilization: seconds for which a larger size is remembered.
        service_s: seconds that one piece of work takes a worker, where that is known beforehand.
    """

    def __init__(
        self,
        *,
        low: int = 1,
        high: int = 64,
        drain: float = 15.0,
        utilisation: float = 0.85,
        stabilization: float = 60.0,
        service_s: float | None = None,
    ) -> None:
        check_bounds(low, high)
        if not (drain > 0 and 0 < utilisation <= 1 and stabilization >= 0 and (service_s is None or service_s > 0)):
            raise BadParameters("drain above 0, utilisation in 0..1, stabilization 0 or more are needed")
        self.low, self.high = low, high
        self._drain, self._utilisation, self._stabilization = drain, utilisation, stabilization
        self._state = _State(speed=1 / service_s if service_s else None)

    def tick(self, observation: Observation) -> Decision:
        state = self._state
        size = min(max(observation.size, self.low), self.high)
        arrivals, waiting = sane(observation.arrivals, 0.0, 1e12), sane(observation.waiting, 0.0, 1e12)
        if state.arrivals is None:
            state.arrivals = arrivals
        state.arrivals += (0.5 if arrivals > state.arrivals else 0.1) * (arrivals - state.arrivals)
        done = sane(observation.completions, 0.0, 1e12)
        if observation.busy > SATURATED and done > 0 and observation.size > 0:
            speed = max(1e-9, done / observation.size)
            state.speed = speed if state.speed is None else state.speed + 0.2 * (speed - state.speed)
        if state.speed is None:
            wanted, because = (size * 2, "work waits, speed unknown") if waiting else (size, "nothing known yet")
        else:
            backlog = max(0.0, waiting - state.arrivals)
            rate = state.arrivals / self._utilisation + backlog / self._drain
            wanted = math.ceil(min(rate / state.speed, self.high))
            because = f"{state.arrivals:.3g}/s arrive, {backlog:.0f} wait, one does {state.speed:.3g}/s"
        wanted = min(max(wanted, self.low), self.high)
        now = observation.t if math.isfinite(observation.t) else 0.0
        state.wanted = [(t, n) for t, n in state.wanted if now - self._stabilization <= t <= now] + [(now, wanted)]
        if wanted > size:
            late = sane(observation.oldest_s) > self._drain
            return Decision(wanted if late or wanted > size * (1 + TOLERANCE) else size, because)
        fewer = max(n for _, n in state.wanted)
        return Decision(fewer if fewer < size * (1 - TOLERANCE) else size, because)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(self._state)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        loaded = load(state, _State)
        loaded.wanted = []  # times of another process's clock
        if loaded.speed is not None and loaded.speed < 1e-9:
            loaded.speed = None
        self._state = loaded


open = BacklogPolicy
