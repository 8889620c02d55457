"""A fleet in virtual time: jobs that arrive and wait, workers that boot, work, drain and die, and somebody who decides.

One job at a time a worker, one event after another; who decides is asked on its own clock and sees what a broker counts.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

BOOT_S = 10.0
LEASE_S = 11.0
"""After a death its job is back: the lease and a beat."""


@dataclass(frozen=True)
class Look:
    """What can be seen: jobs that wait, run and have ended; workers, and since the last look their time and its use."""

    t: float
    waiting: int
    running: int
    ended: int
    oldest_s: float
    size: int
    starting: int
    worker_s: float
    busy: float


class Rule(Protocol):
    """Who decides. ``every``: seconds between looks."""

    every: float

    def desired(self, look: Look) -> int: ...


@dataclass
class _Worker:
    number: int
    ready: float
    since: float = 0.0
    job: float | None = None  # when the job that it runs had arrived
    leaving: bool = False
    busy_s: float = 0.0


@dataclass
class Run:
    """What came of a run."""

    waits: list[float] = field(default_factory=list)
    worker_s: float = 0.0
    reversals: int = 0
    changes: int = 0
    arrived: int = 0
    ended: int = 0
    left: int = 0
    oldest_s: float = 0.0
    kills: int = 0
    most: int = 0

    def wait(self, share: float) -> float:
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def lost(self) -> int:
        return self.arrived - self.ended - self.left


def run(
    rule: Rule,
    rate: Callable[[float], float],
    speed: float,
    seconds: float,
    rng: random.Random,
    *,
    low: int = 1,
    high: int = 64,
    kill_every: float = math.inf,
) -> Run:
    """Let jobs arrive at *rate(t)* a second; a worker does *speed* a second. A death takes no job along for ever."""
    out, events, order = Run(), [], 0
    queue: deque[float] = deque()
    workers: dict[int, _Worker] = {}
    last_way = 0
    looked = 0.0

    def push(t: float, kind: str, *what: object) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (t, order, kind, what))

    def hire(t: float) -> None:
        worker = _Worker(order, t + BOOT_S, since=t)
        workers[worker.number] = worker
        push(t + BOOT_S, "ready", worker)

    def fire(worker: _Worker, t: float) -> None:
        out.worker_s += t - worker.since
        del workers[worker.number]

    def give(worker: _Worker, t: float) -> None:
        if worker.leaving:
            fire(worker, t)
        elif queue and worker.number in workers:
            worker.job = queue.popleft()
            out.waits.append(t - worker.job)
            took = rng.uniform(0.8, 1.2) / speed
            worker.busy_s -= t
            push(t + took, "done", worker, worker.job)

    def serve(t: float) -> None:
        for worker in workers.values():
            if not queue:
                return
            if worker.ready <= t and worker.job is None and not worker.leaving:
                give(worker, t)

    def spent(t: float) -> tuple[float, float]:
        """Return the worker-seconds since the last look, and the busy share of them."""
        up = sum(max(0.0, t - max(worker.ready, looked)) for worker in workers.values())
        busy = sum(worker.busy_s + (t if worker.job is not None else 0.0) for worker in workers.values())
        for worker in workers.values():
            worker.busy_s = -t if worker.job is not None else 0.0
        return up, min(1.0, busy / up) if up else 0.0

    push(0.0, "arrive")
    push(0.0, "look")
    if kill_every < math.inf:
        push(kill_every, "kill")
    for _ in range(low):
        hire(-BOOT_S)
        order += 1
    while events:
        t, _, kind, what = heapq.heappop(events)
        if t > seconds:
            break
        if kind == "arrive":
            # Thinning: candidates at the highest rate there is in the next second.
            most = max(rate(t), rate(t + 0.5), rate(t + 1.0)) * 1.1 + 1e-9
            if rng.random() < rate(t) / most:
                queue.append(t)
                out.arrived += 1
                serve(t)
            push(t + min(1.0, rng.expovariate(most)), "arrive")
        elif kind == "ready":
            if what[0].number in workers:
                give(what[0], t)
        elif kind == "done":
            worker = what[0]
            if worker.number in workers and worker.job == what[1]:
                worker.job = None
                worker.busy_s += t
                out.ended += 1
                give(worker, t)
        elif kind == "back":
            queue.appendleft(what[0])
            serve(t)
        elif kind == "kill":
            push(t + kill_every, "kill")
            if alive := [worker for worker in workers.values() if worker.ready <= t]:
                victim = rng.choice(alive)
                out.kills += 1
                if victim.job is not None:
                    push(t + LEASE_S, "back", victim.job)
                fire(victim, t)
                if not victim.leaving:
                    hire(t)
        elif kind == "look":
            push(t + rule.every, "look")
            staying = [worker for worker in workers.values() if not worker.leaving]
            worker_s, busy = spent(t)
            look = Look(
                t=t,
                waiting=len(queue),
                running=sum(worker.job is not None for worker in workers.values()),
                ended=out.ended,
                oldest_s=t - queue[0] if queue else 0.0,
                size=len(staying),
                starting=sum(worker.ready > t for worker in staying),
                worker_s=worker_s,
                busy=busy,
            )
            looked = t
            wanted = min(max(rule.desired(look), low), high)
            out.most = max(out.most, wanted)
            for _ in range(wanted - len(staying)):
                hire(t)
            for worker in sorted(staying, key=lambda one: (one.ready <= t, one.job is not None, -one.ready))[
                : max(0, len(staying) - wanted)
            ]:
                worker.leaving = True
                if worker.job is None:
                    fire(worker, t)
            if wanted != len(staying):
                way = 1 if wanted > len(staying) else -1
                out.changes += 1
                out.reversals += last_way == -way
                last_way = way
    for worker in list(workers.values()):
        out.left += worker.job is not None
        fire(worker, seconds)
    out.oldest_s = seconds - queue[0] if queue else 0.0
    out.left += len(queue) + sum(kind == "back" for _, _, kind, _ in events)
    return out
