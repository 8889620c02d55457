"""A pool of connections in virtual time, the rules that size it, and what callers then wait.

Callers come by themselves (Poisson), wait in order, hold a connection for a lognormal time that may depend on how many
are out, and give it back. A rule sees what a real pool can see and says how many connections there should be.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from asyncworker.tune.policies.erlang import ErlangPolicy, wait_probability
from asyncworker.tune.policies.policy import Observation
from asyncworker.tune.policies.usl import UslPolicy
from asyncworker.tune.sizing import CappedSizing

CEILING = 64
FLOOR = 2
TICK_S = 0.5
CONNECT_S = 0.05
WAIT_S, SHARE = 0.010, 0.05
"""The target: at most this share of callers waits longer."""


class Rule(Protocol):
    """Says how many."""

    @property
    def size(self) -> int: ...

    def tick(self, seen: Observation, in_use: int) -> None: ...

    def on_complete(self, t: float, held_s: float, in_use: int, waiting: int) -> None: ...


class Ours:
    """The rule of `ConnectionPoolOptimizer`."""

    def __init__(self) -> None:
        self.sizing = CappedSizing(
            ErlangPolicy(low=FLOOR, high=CEILING, wait=WAIT_S, share=SHARE),
            UslPolicy(low=FLOOR, high=CEILING, initial=4 * FLOOR),
        )

    @property
    def size(self) -> int:
        return self.sizing.size

    def tick(self, seen: Observation, in_use: int) -> None:
        self.sizing.tick(seen)

    def on_complete(self, t: float, held_s: float, in_use: int, waiting: int) -> None:
        self.sizing.on_complete(t, held_s, in_use, waiting)


class Erlang(Ours):
    """Ours without the cap."""

    @property
    def size(self) -> int:
        return self.sizing.needed


class Static:
    """The usual pool: as many as it was told."""

    def __init__(self, size: int) -> None:
        self.size = size

    def tick(self, seen: Observation, in_use: int) -> None:
        pass

    def on_complete(self, t: float, held_s: float, in_use: int, waiting: int) -> None:
        pass


class SeedRatio(Static):
    """The first design's: times 1.5 where more than 80 % are in use, divided by it below 30 %."""

    def __init__(self) -> None:
        self._size = FLOOR * 2.5
        super().__init__(round(self._size))

    def tick(self, seen: Observation, in_use: int) -> None:
        share = in_use / max(1, seen.size)
        if share > 0.8:
            self._size = min(CEILING, self._size * 1.5)
        elif share < 0.3:
            self._size = max(FLOOR, self._size / 1.5)
        self.size = round(self._size)


class OnDemand(Static):
    """psycopg_pool's and HikariCP's way: one more, one at a time, whenever somebody waits; idle ones go after minutes."""

    def __init__(self) -> None:
        super().__init__(FLOOR)


@dataclass
class Run:
    """What became of the callers."""

    waits: list[tuple[float, float]] = field(default_factory=list)
    """When each came that was served, and how long it waited."""
    connection_s: float = 0.0
    resizes: int = 0
    served: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)

    def within(self, *spans: tuple[float, float]) -> float:
        """Return the share of callers of these spans of time who waited no longer than they should."""
        waits = [wait for came, wait in self.waits if any(begin <= came < end for begin, end in spans)]
        return sum(wait <= WAIT_S for wait in waits) / max(1, len(waits))


def run(
    rule: Rule,
    rate: Callable[[float], float],
    seconds: float,
    hold_s: float,
    cv: float,
    rng: random.Random,
    slower: Callable[[int], float] = lambda _: 1.0,
) -> Run:
    """Let *rule* size a pool for some virtual seconds.

    Args:
        rate: callers a second, at a time. slower: what holds are multiplied by, with so many connections out.
    """
    out = Run()
    sigma = math.sqrt(math.log(1 + cv * cv))
    order = itertools.count()
    events: list[tuple[float, int, str, float]] = []

    def plan(t: float, kind: str, value: float = 0.0) -> None:
        heapq.heappush(events, (t, next(order), kind, value))

    plan(rng.expovariate(rate(0)), "come")
    plan(TICK_S, "tick")
    there, in_use, connecting = rule.size, 0, 0  # connections, those out, those still connecting
    line: deque[float] = deque()
    holds: list[float] = []
    arrivals, last = 0, 0.0
    on_demand = isinstance(rule, OnDemand)
    while events and events[0][0] <= seconds:
        now, _, kind, value = heapq.heappop(events)
        out.connection_s += there * (now - last)
        last = now
        if kind == "come":
            arrivals += 1
            line.append(now)
            plan(now + rng.expovariate(rate(now)), "come")
        elif kind == "connected":
            connecting -= 1
        elif kind == "end":
            out.served += 1
            holds.append(value)
            rule.on_complete(now, value, in_use, len(line))
            in_use -= 1
        else:
            seen = Observation(
                t=now,
                size=rule.size,
                arrivals=arrivals / TICK_S,
                completions=len(holds) / TICK_S,
                waiting=len(line),
                service_s=sum(holds) / len(holds) if holds else 0.0,
            )
            rule.tick(seen, in_use)
            arrivals, holds = 0, []
            plan(now + TICK_S, "tick")
        if on_demand and line and not connecting and in_use >= there < CEILING:
            rule.size += 1  # type: ignore[misc]
        before = there
        while there < rule.size:
            there, connecting = there + 1, connecting + 1
            plan(now + CONNECT_S, "connected")
        there = max(rule.size, min(there, in_use + connecting))
        if there != before:
            out.resizes += 1
            out.sizes.append((now, there))
        while line and in_use + connecting < there:
            came = line.popleft()
            out.waits.append((came, now - came))
            in_use += 1
            held = hold_s * rng.lognormvariate(-sigma * sigma / 2, sigma) * slower(in_use)
            plan(now + held, "end", held)
    out.waits += [(came, math.inf) for came in line if seconds - came > WAIT_S]
    return out


def enough(rate: float, hold_s: float) -> int:
    """Return what somebody who knows all would take: the least size that meets the target."""
    load = rate * hold_s
    sizes = range(max(FLOOR, int(load) + 1), CEILING)
    return next((size for size in sizes if wait_probability(size, load, hold_s, WAIT_S) <= SHARE), CEILING)
