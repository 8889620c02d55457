"""Erlang: as many connections as keep almost every caller from waiting, by queueing theory.

Offered load ``a = lambda * h`` (Little's law) and Erlang's C formula give the share of callers that wait longer than
they should in a pool of *c*; the least *c* that is good enough is the answer. It believes that a connection takes as
long in a large pool as in a small one. Where the database is what is short, put `usl.py` on top, which measures that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.policy import Decision, Observation, check_bounds, load, sane

CATCH_UP_S = 0.25
"""Seconds in which callers that wait already should be served."""
SMOOTHING = 0.3


def wait_probability(size: int, load: float, service_s: float, wait_s: float) -> float:
    """Return the share of callers that wait longer than *wait_s*.

    Args:
        size: connections. load: *a*, mean number in use if nobody ever waited. service_s: mean time of use.

    Source: Erlang's C formula, by the recursion of his B: ``B_k = a B_{k-1} / (k + a B_{k-1})``.
    """
    if load >= size:
        return 1.0
    blocked = 1.0
    for k in range(1, size + 1):
        blocked = load * blocked / (k + load * blocked)
    waits = blocked / (1 - load / size * (1 - blocked))
    return waits * math.exp(-(size - load) / service_s * wait_s)


class _State(msgspec.Struct, forbid_unknown_fields=True):
    arrivals: float | None = None
    service_s: float | None = None
    wanted: list[tuple[float, int]] = []


class ErlangPolicy:
    """Choose the least size with ``P(wait > wait) <= share``; up at once, down to the most wanted of late.

    Needs ``arrivals`` (counted where a connection is asked for), ``service_s`` and ``waiting``.

    Args:
        wait, share: callers of whom at most *share* may wait more than *wait* seconds.
        cv: spread of the times of use, as coefficient of variation; 1 for exponential ones.
        stabilization: seconds for which a larger size is remembered.
    """

    def __init__(
        self,
        *,
        low: int = 2,
        high: int = 64,
        wait: float = 0.01,
        share: float = 0.05,
        cv: float = 1.0,
        stabilization: float = 10.0,
    ) -> None:
        check_bounds(low, high)
        if not (wait >= 0 and 0 < share < 1 and cv >= 0 and stabilization >= 0):
            raise BadParameters("wait 0 or more, share in 0..1, cv and stabilization 0 or more are needed")
        self.low, self.high = low, high
        self._wait, self._share, self._stabilization = wait, share, stabilization
        self._spread = max(0.5, (1 + cv * cv) / 2)  # Allen and Cunneen's correction
        self._state = _State()

    def tick(self, observation: Observation) -> Decision:
        state = self._state
        size = min(max(observation.size, self.low), self.high)
        arrivals = sane(observation.arrivals, 0.0, 1e12)
        likely = arrivals + math.sqrt(max(arrivals, 1.0))  # one standard deviation of a Poisson count above
        if state.arrivals is None or likely > state.arrivals:
            state.arrivals = likely
        state.arrivals += SMOOTHING * (likely - state.arrivals)
        service = sane(observation.service_s, 0.0, 1e9)
        if service > 0:
            known = state.service_s
            state.service_s = service if known is None else known + 0.5 * (service - known)
        if state.service_s is None:
            return Decision(size, "no connection was used yet")
        wanted = self._least(state.arrivals, state.service_s)
        if (waiting := sane(observation.waiting, 0.0, 1e9)) > 0:
            wanted = max(wanted, size + math.ceil(waiting * state.service_s / CATCH_UP_S))
        now = observation.t if math.isfinite(observation.t) else 0.0
        state.wanted = [(t, n) for t, n in state.wanted if now - self._stabilization <= t <= now]
        state.wanted.append((now, min(max(wanted, self.low), self.high)))
        because = f"{arrivals:.3g}/s ask for {state.service_s:.3g} s each, {waiting:.0f} wait"
        return Decision(max(n for _, n in state.wanted), because)

    def _least(self, arrivals: float, service_s: float) -> int:
        load = arrivals * service_s
        if load >= self.high:
            return self.high
        for size in range(max(self.low, math.floor(load) + 1), self.high):
            if wait_probability(size, load, service_s * self._spread, self._wait) <= self._share:
                return size
        return self.high

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(self._state)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        loaded = load(state, _State)
        loaded.wanted = []  # times of another process's clock
        if loaded.service_s is not None and loaded.service_s <= 0:
            loaded.service_s = None
        self._state = loaded


open = ErlangPolicy
