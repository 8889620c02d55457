"""The health of a supervisor and its fleet; see `asyncworker.daemon.health`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncworker.daemon.health import STILL_S, UNREACHABLE, Check, check, depth_of, still
from asyncworker.engine import Engine
from asyncworker.fleet.manager import RED_CYCLES, DynamicWorkerManager
from asyncworker.queue.job import Depth

HUNG_S = 30.0
"""A control loop that does not come round for so long hangs."""


class Health:
    """The health of a supervisor and its fleet."""

    def __init__(self, engine: Engine, manager: DynamicWorkerManager) -> None:
        self._engine, self._manager = engine, manager

    def live(self) -> Check:
        """Return whether the control loop does its work; for so long as it was not begun it is not missed."""
        return check(ails(self._manager.get_worker_stats()))

    def turns(self) -> bool:
        """Return whether the control loop comes round, whatever it finds: a new process would find no other broker."""
        return not hangs(self._manager.get_worker_stats())

    def status(self) -> str:
        """Return how things are, in a line."""
        stats = self._manager.get_worker_stats()
        waiting = sum(stats["queue_lengths"].values())
        return f"{stats['active_workers']} of {stats['wanted_workers']} workers work, {waiting} jobs wait"

    async def ready(self) -> Check:
        """Return whether the broker is there and workers take jobs. Cost: a round trip."""
        return self.readiness(await depth_of(self._engine))

    def readiness(self, depth: Depth | None) -> Check:
        """Return the same of a look at the broker, None: it did not answer."""
        stats = self._manager.get_worker_stats()
        reasons = ails(stats) if stats["monitoring"] else ["the supervisor is not at work"]
        if depth is None:
            reasons.append(UNREACHABLE)
        if not stats["active_workers"] and (self._manager.min_workers or stats["wanted_workers"]):
            reasons.append(f"no worker works, of {max(stats['wanted_workers'], self._manager.min_workers)}")
        if stats["crash_loops"]:
            reasons.append(f"{', '.join(stats['crash_loops'])} die young again and again")
        if stats["still_s"] >= STILL_S:
            reasons.append(still(stats["still_s"]))
        return check(reasons)


def hangs(stats: Mapping[str, Any]) -> list[str]:
    """Return why a control loop does not come round, if so."""
    if stats["monitoring_ended"]:
        return ["the control loop has ended"]
    if stats["monitoring"] and stats["pass_age_s"] >= HUNG_S:
        return [f"the control loop did not come round for {stats['pass_age_s']:.0f} s"]
    return []


def ails(stats: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a control loop."""
    reasons = hangs(stats)
    if stats["failed_in_a_row"] >= RED_CYCLES:
        reasons.append(f"the last {stats['failed_in_a_row']} cycles of the control loop failed")
    return reasons
