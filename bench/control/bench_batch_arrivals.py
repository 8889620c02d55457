"""Do batches that gather as items come answer as soon as the best fixed rule, with fewer calls?

Null hypothesis: natural batching (take what is there), a fixed linger or BentoML's rule answers sooner at some load.
Four handlers, T = c0 + a b with c0 10-30 ms and a 0.3-0.8 ms, at most 100 items a batch, Poisson arrivals at 2, 20, 50
and 85 % of what the handlers can do. Ours is the public `AsyncBatchProcessor` on a virtual event loop, learning from
nothing; the others run in a simulation of their own. Each bar holds for the worst of the draws.

What a linger can save has a bound: an item waits 20 ms for others and no longer, so no rule that keeps to it gathers
more than those 20 ms bring, and natural batching, with four calls under way, gathers a quarter of a call's time by
itself. At half load, 27 ms a call and more, 20 ms are less than twice that: there half of the calls cannot be had, the
bar asks for what can (within 5 %), and the table says of how many draws. On the mean of the draws it is half everywhere.
Run: ``python -m bench.control.bench_batch_arrivals``.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean

from asyncworker.work.batch import AsyncBatchProcessor
from bench.control import verdict, virtual_loop
from bench.control.simulation import Works
from bench.control.verdict import Figures

HANDLERS = 4
MOST = 100
LOADS = (0.02, 0.2, 0.5, 0.85)
SECONDS = 10.0
NOISE = 0.1
SHORT_S, LONG_S = 0.005, 0.020
HALF, NEAR = 0.5, 1.05
Cost = Callable[[int], float]


@dataclass
class Ran:
    """How long each item took from its arrival to its answer, and how many calls that were."""

    latencies: list[float] = field(default_factory=list)
    calls: int = 0

    @property
    def mean(self) -> float:
        return mean(self.latencies)

    @property
    def p99(self) -> float:
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]

    @property
    def calls_an_item(self) -> float:
        return self.calls / len(self.latencies)


class Natural:
    """Take what is there as soon as a handler is free and its oldest item has waited for *linger*."""

    def __init__(self, linger: float = 0.0) -> None:
        self._linger = linger

    def decide(self, queued: int, waited: float, silent: float) -> tuple[int, float]:
        """Return how many to take, and, where none, when to look again."""
        if queued >= MOST or waited >= self._linger - 1e-9:
            return min(queued, MOST), 0.0
        return 0, self._linger - waited

    def on_batch(self, items: int, seconds: float) -> None:
        pass


class Full(Natural):
    """The seed's rule: ten, or nothing."""

    def decide(self, queued: int, waited: float, silent: float) -> tuple[int, float]:
        return (10, 0.0) if queued >= 10 else (0, 1e9)


class Bento(Natural):
    """BentoML's dispatcher: wait while the queue's waiting for one more is less than the mean wait."""

    def __init__(self) -> None:
        super().__init__()
        self._each = 1e-3
        self._seen: list[tuple[int, float]] = []
        self._waits: list[float] = []

    def decide(self, queued: int, waited: float, silent: float) -> tuple[int, float]:
        usual = mean(self._waits) if self._waits else 0.0
        if queued < MOST and queued * (silent + 0.001 + self._each) <= 0.95 * usual:
            return 0, 0.001
        self._waits = [*self._waits[-49:], waited]
        return min(queued, MOST), 0.0

    def on_batch(self, items: int, seconds: float) -> None:
        self._seen = [*self._seen[-49:], (items, seconds)]
        middle, usual = mean(b for b, _ in self._seen), mean(t for _, t in self._seen)
        if spread := sum((b - middle) ** 2 for b, _ in self._seen):
            self._each = max(1e-6, sum((b - middle) * (t - usual) for b, t in self._seen) / spread)


def drawn(rng: random.Random, rate: float, count: int) -> list[float]:
    """Return when items come, so many a second (Poisson)."""
    return list(itertools.accumulate(rng.expovariate(rate) for _ in range(count)))


def simulate(rule: Natural, arrivals: list[float], cost: Cost, works: Works) -> Ran:
    """Let *rule* gather the *arrivals*; at the end what is left goes as it is."""
    out, free, queue, last = Ran(), HANDLERS, list[float](), 0.0
    order = itertools.count()
    events: list[tuple[float, int, int, float]] = [
        (at, next(order), 0, 0.0) for at in arrivals
    ]  # (when, _, items, since)
    heapq.heapify(events)
    left = len(arrivals)
    while events or queue:
        if events:
            now, _, items, since = heapq.heappop(events)
            if items > 0:
                free += 1
                rule.on_batch(items, now - since)
            elif items == 0:
                queue.append(now)
                left, last = left - 1, now
        while free and queue:
            take, again = rule.decide(len(queue), now - queue[0], now - last)
            if not left:
                take = take or min(len(queue), MOST)
            if not take:
                if again < 1e9:
                    heapq.heappush(events, (now + max(again, 1e-6), next(order), -1, 0.0))
                break
            end = now + cost(take) * works.draw()
            out.latencies += [end - came for came in queue[:take]]
            out.calls += 1
            del queue[:take]
            free -= 1
            heapq.heappush(events, (end, next(order), take, now))
    return out


def ours(linger: float, arrivals: list[float], cost: Cost, works: Works) -> Ran:
    """Let the public class gather the same arrivals."""
    out = Ran()

    async def handler(items: list[float]) -> None:
        out.calls += 1
        await asyncio.sleep(cost(len(items)) * works.draw())

    async def arrive() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncBatchProcessor(
            handler, max_batch_size=MOST, linger=linger, max_concurrent_batches=HANDLERS
        ) as processor:
            for at in arrivals:
                await asyncio.sleep(at - loop.time())
                answer = await processor.submit(at)
                answer.add_done_callback(lambda _, at=at: out.latencies.append(loop.time() - at))

    virtual_loop.run(arrive())
    return out


def judge(seed: int, draws: int) -> Figures:
    """Return for each load the worst ratios to the best peer, over the draws, and what each rule did on average."""
    out: Figures = {}
    items, cpu_s = 0, 0.0
    for load in LOADS:
        ratios: dict[str, list[float]] = {key: [] for key in ("mean", "p99", "calls", "least", "later")}
        told: dict[str, list[Ran]] = {}
        for draw in range(draws):
            rng = random.Random(f"{seed} {draw}")
            fixed, each = rng.uniform(0.010, 0.030), rng.uniform(0.0003, 0.0008)

            def cost(items: int, fixed: float = fixed, each: float = each) -> float:
                return fixed + each * items

            rate = load * HANDLERS * MOST / cost(MOST)
            count = max(3000, min(20_000, int(rate * SECONDS)))
            arrivals = drawn(rng, rate, count)

            def works(draw: int = draw) -> Works:
                return Works(random.Random(f"{seed} {draw} noise"), NOISE)

            ran = {
                "natural": simulate(Natural(), arrivals, cost, works()),
                "linger 5 ms": simulate(Natural(SHORT_S), arrivals, cost, works()),
                "Bento": simulate(Bento(), arrivals, cost, works()),
                "seed's 10": simulate(Full(), arrivals, cost, works()),
            }
            began = time.process_time()
            ran |= {
                "ours 5 ms": ours(SHORT_S, arrivals, cost, works()),
                "ours 20 ms": ours(LONG_S, arrivals, cost, works()),
            }
            cpu_s, items = cpu_s + time.process_time() - began, items + 2 * count
            peers = [ran[name] for name in ("natural", "linger 5 ms", "Bento")]
            ratios["mean"].append(ran["ours 5 ms"].mean / min(peer.mean for peer in peers))
            ratios["p99"].append(ran["ours 5 ms"].p99 / min(peer.p99 for peer in peers))
            ratios["calls"].append(ran["ours 20 ms"].calls_an_item / ran["natural"].calls_an_item)
            ratios["least"].append(1 / (1 + LONG_S * rate) / ran["natural"].calls_an_item)
            ratios["later"].append(ran["ours 20 ms"].mean - ran["natural"].mean)
            for name, one in ran.items():
                told.setdefault(name, []).append(one)
        for name, all_of in told.items():
            out[f"{load:.0%} {name}"] = {
                "mean ms": 1e3 * mean(one.mean for one in all_of),
                "p99 ms": 1e3 * mean(one.p99 for one in all_of),
                "calls/item": mean(one.calls_an_item for one in all_of),
            }
        out[f"{load:.0%} ours 5 ms"] |= {
            "mean / best peer": max(ratios["mean"]),
            "p99 / best peer": max(ratios["p99"]),
        }
        out[f"{load:.0%} ours 20 ms"] |= {
            "calls / natural": mean(ratios["calls"]),
            "worst": max(ratios["calls"]),
            "beyond": max(
                of / max(HALF, NEAR * least) for of, least in zip(ratios["calls"], ratios["least"], strict=True)
            ),
            "out of reach": sum(NEAR * least > HALF for least in ratios["least"]),
            "ms later": 1e3 * max(ratios["later"]),
        }
    out["all ours"] = {"us an item": 1e6 * cpu_s / items}
    return out


def bars(figures: Figures) -> dict[str, bool]:
    five = [figures[f"{load:.0%} ours 5 ms"] for load in LOADS]
    twenty = [figures[f"{load:.0%} ours 20 ms"] for load in (0.2, 0.5)]
    return {
        "linger 5 ms: mean <= 1.07x the best peer at every load": all(of["mean / best peer"] <= 1.07 for of in five),
        "linger 5 ms: p99 <= 1.20x the best peer at every load": all(of["p99 / best peer"] <= 1.20 for of in five),
        "linger 20 ms: <= .5x natural's calls at 20 and 50 %, mean": all(
            of["calls / natural"] <= HALF for of in twenty
        ),
        "linger 20 ms: the same in each draw, or within 5 % of the fewest there can be": all(
            of["beyond"] <= 1 for of in twenty
        ),
        "linger 20 ms: mean at most 35 ms later": all(of["ms later"] <= 35 for of in twenty),
        "the seed's 10 is unstable from 50 %": all(
            figures[f"{load:.0%} seed's 10"]["p99 ms"] > 10 * figures[f"{load:.0%} natural"]["p99 ms"]
            for load in (0.5, 0.85)
        ),
    }


if __name__ == "__main__":
    sys.exit(verdict.main(__doc__, judge, bars, draws=6))
