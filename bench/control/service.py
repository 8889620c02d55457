"""Services with a knee that nobody knows: drawn at random, awaited on any event loop, real or virtual.

| kind       | throughput at n calls at once                                                              |
|------------|--------------------------------------------------------------------------------------------|
| law        | the universal scalability law: contention and crosstalk; falls slowly beyond the knee        |
| queue      | so many servers; who finds none free waits in line, so throughput stays where it is            |
| thrashing  | so many servers, and all that is more slows each call down                                   |
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.control.simulation import Capacity, Scalable, Works
from bench.control.virtual_loop import Backend

KINDS = ("law", "queue", "thrashing")
KNEES = (4, 120)
CALL_S = (0.01, 0.1)
CVS = (0.2, 0.5, 1.0)
FASTEST = 1000.0
"""Calls a second that a service does at best: more would make the simulation the limit."""


@dataclass(frozen=True)
class Service:
    """What was drawn; ``call_s`` is what a call takes alone, ``cv`` how much calls vary."""

    kind: str
    knee: int
    call_s: float
    cv: float
    sigma: float
    worse: float
    seed: int

    @classmethod
    def drawn(cls, rng: random.Random, kind: str) -> Service:
        def even(low: float, high: float) -> float:
            return math.exp(rng.uniform(math.log(low), math.log(high)))

        while True:
            service = cls(
                kind,
                round(even(*KNEES)),
                even(*CALL_S),
                rng.choice(CVS),
                rng.uniform(0, 0.06),
                rng.uniform(0.1, 0.6),
                rng.getrandbits(32),
            )
            if service.capacity(service.knee) <= FASTEST:
                return service

    @property
    def capacity(self) -> Capacity:
        """Calls a second at a concurrency."""
        if self.kind == "law":
            return Scalable(1 / self.call_s, self.sigma, (1 - self.sigma) / self.knee**2)
        worse = self.worse if self.kind == "thrashing" else 0.0
        return lambda n: min(n, self.knee) / self.call_s / (1 + worse * max(0.0, n / self.knee - 1))

    def opened(self) -> Callable[[], Awaitable[None]]:
        """Return the call, of a service that has just started, inside a running loop."""
        works = Works(random.Random(self.seed), self.cv)
        if self.kind != "queue":
            return Backend(self.capacity, works).call
        servers = asyncio.Semaphore(self.knee)

        async def call() -> None:
            async with servers:
                await asyncio.sleep(self.call_s * works.draw())

        return call
