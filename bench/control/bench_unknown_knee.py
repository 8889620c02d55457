"""Does a user who gives no number get what the best number would have given, from the first second on?

Null hypothesis: on services whose knee is drawn at random, `optimize_batch_processing(items, call)` does less than 90 %
of the best fixed `max_concurrent`, on average or 80 % at worst, its ramp included. On the real clock. For each
service a grid of fixed numbers is tried, briefly, and the two best of them run as long as we do; the better of these
is the reference. A user of `max_concurrent=5` is beside it. The services are simulations in this process, some of
them at a time (`--at-once`); what share of a processor all of it took is told, as more than a half would harm whoever
is measured. Run: ``python -m bench.control.bench_unknown_knee``, a quarter of an hour; shorter with `--services`
and `--seconds`; `--virtual` for virtual time, where a minute is enough.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from asyncworker.optimizer import MOST, AsyncWorkerOptimizer
from bench.control import virtual_loop
from bench.control.experiment import Bar, mean
from bench.control.service import KINDS, Service
from bench.report import Machine, table

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, MOST)
GRID_SHARE = 1 / 8
"""A number of the grid runs for this share of the time."""
FALLEN = 0.8
"""The grid ends where two numbers in a row do less than this share of the best."""
FIVE = 5


async def rate(service: Service, seconds: float, at_once: int | Literal["auto"] = "auto") -> tuple[float, int]:
    """Return the calls that ended within so many seconds, a second, and how many were let in at once at the end."""
    loop, call = asyncio.get_running_loop(), service.opened()
    optimizer = AsyncWorkerOptimizer()
    end = loop.time() + seconds
    ended = 0

    def until_then() -> Iterator[int]:
        return itertools.takewhile(lambda _: loop.time() < end, itertools.count())

    async def counted(_: int) -> None:
        nonlocal ended
        await call()
        ended += loop.time() < end

    if at_once == "auto":
        await optimizer.optimize_batch_processing(until_then(), counted)
    else:
        await optimizer.optimize_batch_processing(until_then(), counted, max_concurrent=at_once)
    last = [decided.new for decided in optimizer.decisions][-1:]
    return ended / seconds, last[0] if last else 0


async def searched(service: Service, seconds: float) -> tuple[int, float]:
    """Return the best fixed number, and the calls a second that it does in all this time."""
    tried: dict[int, float] = {}
    for number in GRID:
        tried[number] = (await rate(service, max(1.0, seconds * GRID_SHARE), number))[0]
        best = max(tried.values())
        if len(tried) > 2 and all(done < FALLEN * best for done in list(tried.values())[-2:]):
            break
    first = sorted(tried, key=tried.__getitem__)[-2:]
    found = [((await rate(service, seconds, number))[0], number) for number in first]
    done, number = max(found)
    return number, done


async def judged(service: Service, seconds: float) -> dict[str, Any]:
    number, best = await searched(service, seconds)
    auto, limit = await rate(service, seconds)
    five, _ = await rate(service, seconds, FIVE)
    return {
        **asdict(service),
        "best": number,
        "best_rate": best,
        "auto_rate": auto,
        "auto_limit": limit,
        "share": auto / best,
        "five_share": five / best,
    }


def drawn(rng: random.Random, services: int) -> list[Service]:
    """Draw services, of each kind as many, or nearly so."""
    return [Service.drawn(rng, kind) for kind, _ in zip(itertools.cycle(KINDS), range(services), strict=False)]


async def judge_all(services: list[Service], seconds: float, at_once: int) -> list[dict[str, Any]]:
    permits = asyncio.Semaphore(at_once)

    async def one(service: Service) -> dict[str, Any]:
        async with permits:
            return await judged(service, seconds)

    return list(await asyncio.gather(*map(one, services)))


def bars(results: list[dict[str, Any]]) -> list[Bar]:
    shares = [of["share"] for of in results]
    return [
        Bar("share of the best fixed number, mean", mean(shares), 0.90),
        Bar("the same, worst", min(shares), 0.80),
    ]


def told(results: list[dict[str, Any]]) -> str:
    head = ("service", "knee", "ms a call", "cv", "best fixed", "calls/s", "auto: calls/s", "limit", "share", "of 5")
    rows = [
        [
            of["kind"], str(of["knee"]), f"{1000 * of['call_s']:.0f}", str(of["cv"]), str(of["best"]),
            f"{of['best_rate']:.0f}", f"{of['auto_rate']:.0f}", str(of["auto_limit"]), f"{of['share']:.3f}",
            f"{of['five_share']:.3f}",
        ]
        for of in sorted(results, key=lambda of: (of["kind"], of["knee"]))
    ]  # fmt: skip
    shares, fives = ([of[key] for of in results] for key in ("share", "five_share"))
    rows.append(["mean", *[""] * 7, f"{mean(shares):.3f}", f"{mean(fives):.3f}"])
    rows.append(["worst", *[""] * 7, f"{min(shares):.3f}", f"{min(fives):.3f}"])
    return table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each way that is compared; default: 20")
    parser.add_argument("--at-once", type=int, default=4, help="services that are measured side by side; default: 4")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="to see the same services again")
    parser.add_argument("--virtual", action="store_true", help="in virtual time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    services = drawn(random.Random(asked.seed), asked.services)
    machine = Machine()
    machine.probe()
    began, cpu = time.perf_counter(), time.process_time()
    run = virtual_loop.run if asked.virtual else asyncio.run
    results = run(judge_all(services, asked.seconds, asked.at_once))
    took, busy = time.perf_counter() - began, time.process_time() - cpu
    machine.probe()
    met = bars(results)
    if asked.json:
        bars_told = [{"what": bar.what, "value": bar.value, "bound": bar.bound, "met": not bar.missed} for bar in met]
        print(
            json.dumps(
                {
                    "seed": asked.seed, "seconds": asked.seconds, "took_s": took, "processor": busy / took,
                    "virtual": asked.virtual, "machine": machine.facts(), "services": results, "bars": bars_told,
                }
            )
        )  # fmt: skip
    else:
        print(f"seed {asked.seed}, {asked.seconds:g} s each, {took:.0f} s in all, {busy / took:.0%} of a processor")
        print(f"{machine}\n\n{told(results)}\n")
        print(*met, sep="\n")
    return 1 if any(bar.missed for bar in met) else 0


if __name__ == "__main__":
    sys.exit(main())
