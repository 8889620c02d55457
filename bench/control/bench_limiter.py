"""What does the gate cost a call, free and waited for, beside asyncio's own semaphore?

Null hypothesis: a semaphore is no cheaper, so being resizable, fair and counted costs nothing. Best of some rounds, in
microseconds a call; the two take turns, so a busy machine harms both. Also what a policy costs a completion.
Run: ``python -m bench.control.bench_limiter [--json]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.adaptive import AdaptiveLimiter
from asyncworker.tune.policies.aimd import AimdPolicy
from asyncworker.tune.policies.fixed import FixedPolicy
from asyncworker.tune.policies.gradient import GradientPolicy
from asyncworker.tune.policies.policy import LimiterPolicy
from asyncworker.tune.policies.usl import UslPolicy
from bench.report import Machine, table

ROUNDS, CALLS = 7, 20_000
Gate = asyncio.Semaphore | Limiter | AdaptiveLimiter


async def free(gate: Gate) -> float:
    """Enter and leave alone."""
    began = time.perf_counter()
    for _ in range(CALLS):
        async with gate:
            pass
    return (time.perf_counter() - began) / CALLS


async def waited(gate: Gate) -> float:
    """Enter after a wait: two hundred tasks and ten permits."""

    async def crew() -> None:
        for _ in range(CALLS // 200):
            async with gate:
                await asyncio.sleep(0)

    began = time.perf_counter()
    await asyncio.gather(*(crew() for _ in range(200)))
    return (time.perf_counter() - began) / CALLS


GATES: dict[str, Callable[[], Gate]] = {
    "asyncio.Semaphore": lambda: asyncio.Semaphore(10),
    "Limiter": lambda: Limiter(10),
    "AdaptiveLimiter, fixed": lambda: AdaptiveLimiter(FixedPolicy(10)),
    "AdaptiveLimiter, usl": lambda: AdaptiveLimiter(UslPolicy(low=10, high=10)),
}
WAYS: dict[str, Callable[[Gate], Awaitable[float]]] = {"free": free, "waited for": waited}
POLICIES: dict[str, Callable[[], LimiterPolicy]] = {
    "usl": UslPolicy,
    "gradient": GradientPolicy,
    "aimd": AimdPolicy,
}


def completions(policy: LimiterPolicy) -> float:
    """Report completions of a backend of twenty servers."""
    t, began = 0.0, time.perf_counter()
    for _ in range(CALLS):
        n = policy.limit
        rtt = max(n, 20) * 0.001
        t += rtt / n
        policy.on_complete(t, rtt, n, True)
    return (time.perf_counter() - began) / CALLS


async def measured(machine: Machine) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in (*GATES, *POLICIES)}
    for _ in range(ROUNDS):
        machine.probe()
        for name, make in GATES.items():
            for way, of in WAYS.items():
                found[name][way] = min(found[name].get(way, 1.0), await of(make()))
        for name, policy in POLICIES.items():
            found[name]["a completion"] = min(found[name].get("a completion", 1.0), completions(policy()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    machine = Machine()
    found = asyncio.run(measured(machine))
    if asked.json:
        print(json.dumps({"seconds": found, "machine": machine.facts()}))
        return
    columns = [*WAYS, "a completion"]
    rows = [
        [name, *(f"{of[column] * 1e6:.2f}" if column in of else "" for column in columns)] for name, of in found.items()
    ]
    print(f"{table(['us a call', *columns], rows)}\n\n{machine}")


if __name__ == "__main__":
    main()
