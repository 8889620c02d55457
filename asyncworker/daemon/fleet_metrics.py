"""``/metrics`` of a fleet: what the broker counts, what the supervisor knows, and the sum of what its workers measured.

Each worker process sends its sheet once a second: all gauges, and of counters and histograms what has changed. These are
absolute, so a sheet that comes again changes nothing. What a process that is over had counted is kept, so nothing
ever goes down; who is killed takes along what it counted since its last sheet. Gauges go with their process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon.fleet_health import Health
from asyncworker.daemon.metrics import BrokerMetrics
from asyncworker.daemon.process import ProcessMetrics
from asyncworker.daemon.sheet import Series, Sheet, text
from asyncworker.engine import Engine
from asyncworker.fleet.manager import DynamicWorkerManager
from asyncworker.tune.sensors.jobs import OTHER

log = logging.getLogger(__name__)

SUPERVISOR = "supervisor"
STAGES = ("starting", "working", "leaving")
LAST_WORDS_S = 10.0
MOST_BURIED = 1000
CRASHES = dict.fromkeys(("exit", "SIGKILL", "SIGSEGV"), 0)
"""Told from the start: Prometheus sees no increase in a series that begins with its first event."""
_OUR_NAMES = re.compile(r"worker-[0-9]{1,4}")


class Told(msgspec.Struct, array_like=True):
    """What a worker process sends. ``life`` is drawn anew by each process."""

    life: str
    pid: int
    sheet: Sheet


class Telling:
    """What a worker process tells its supervisor, each time it is called; all of it is to arrive, in order."""

    def __init__(self, read: Callable[[], Sheet]) -> None:
        self._read = read
        self._life = os.urandom(8).hex()
        self._before = Sheet()

    def __call__(self) -> bytes:
        sheet = self._read()
        told, self._before = sheet.since(self._before), sheet
        return msgspec.msgpack.encode(Told(self._life, os.getpid(), told))


_decode = msgspec.msgpack.Decoder(Told).decode


class Ledger:
    """Add up what processes told, the dead with the living."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._living: dict[str, Told] = {}
        self._heard: dict[str, float] = {}
        self._dead = Sheet()
        self._buried: deque[str] = deque(maxlen=MOST_BURIED)
        self._series = Series()

    def hear(self, name: str, data: Any) -> None:
        """Take what the process *name* sent; one of another life has taken its place."""
        try:
            told = _decode(data)
        except (msgspec.MsgspecError, TypeError) as exc:
            log.warning("%s sends what is no sheet: %s", name, exc)
            return
        if not told.sheet.fits():
            log.warning("%s tells what nobody knows: is it of another version?", name)
            return
        if told.life in self._buried:
            return
        before = self._living.get(name)
        if before is not None and before.life == told.life:
            told.sheet = before.sheet.after(told.sheet)
        elif before is not None:
            self._bury(before)
        self._living[name], self._heard[name] = told, self._clock.monotonic()

    def keep(self, names: set[str]) -> None:
        """Bury all but these, when their last words must have come: what came later would not be counted."""
        now = self._clock.monotonic()
        for name in self._living.keys() - names:
            if now - self._heard[name] > LAST_WORDS_S:
                self._bury(self._living.pop(name))
                del self._heard[name]

    def read(self, pids: set[int]) -> Sheet:
        """Return the sum; gauges only of these processes."""
        living = list(self._living.values())
        sheets = [told.sheet if told.pid in pids else told.sheet.only("counter", "histogram") for told in living]
        return self._series.merge([self._dead, *sheets])

    def _bury(self, told: Told) -> None:
        self._dead = self._series.merge([self._dead, told.sheet.only("counter", "histogram")])
        self._buried.append(told.life)


class FleetMetrics:
    """Listen to a manager's workers, until closed."""

    def __init__(self, engine: Engine, manager: DynamicWorkerManager, health: Health | None = None) -> None:
        self._manager = manager
        self._health = health or Health(engine, manager)
        self._broker = BrokerMetrics(engine.broker, engine.queues, engine.schedules)
        self._own = ProcessMetrics(engine, None, manager.decisions, target=SUPERVISOR)
        self._workers = Ledger()
        self._series = Series()
        manager.listen(self._workers.hear)

    def close(self) -> None:
        self._own.close()

    async def read(self) -> Sheet:
        """Return the whole. Cost: a round trip, and 5 ms for eight workers of a hundred tasks."""
        told, depth = await self._broker.read()
        stats = self._manager.get_worker_stats()
        supervised = self._supervised(stats)
        supervised.put("fleet_healthy", self._health.live().ok)
        supervised.put("fleet_ready", self._health.readiness(depth).ok)
        self._workers.keep({of["name"] for of in stats["workers"]})
        pids = {of["pid"] for of in stats["workers"]}
        return self._series.merge([told, supervised, self._own.read(), self._workers.read(pids)])

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text in the format that ``Accept`` asks for, and its content type."""
        sheet = await self.read()
        return await asyncio.to_thread(text, sheet, accept)

    def _supervised(self, stats: dict[str, Any]) -> Sheet:
        sheet, manager = Sheet({}, {}), self._manager
        stages = [of["stage"] for of in stats["workers"]]
        for stage in STAGES:
            sheet.put("workers", stages.count(stage), stage)
        sheet.put("workers", stats["dead_workers"], "due")
        sheet.put("workers_wanted", stats["wanted_workers"])
        sheet.put("workers_min", manager.min_workers)
        sheet.put("workers_max", manager.max_workers)
        for of in stats["workers"]:
            sheet.put("worker_info", 1, known_as(of["name"]), of["stage"])
        sheet.put("worker_starts_total", stats["starts"])
        for reason, number in {**CRASHES, **stats["crashes_by_signal"]}.items():
            sheet.put("worker_crashes_total", number, reason)
        sheet.put("worker_crash_loops", len(stats["crash_loops"]))
        sheet.put("control_failures_total", stats["failed_cycles"])
        if (host := stats["host"]) is not None:
            sheet.put("host_processors", host.processors)
            sheet.put("host_cpu_ratio", host.cpu_ratio)
            sheet.put("host_memory_bytes", host.memory_bytes)
            sheet.put("host_memory_used_bytes", host.memory_used_bytes)
        return sheet


def known_as(name: str) -> str:
    """Return the name of a worker as it is told: one that somebody thought up is not."""
    return name if _OUR_NAMES.fullmatch(name) else OTHER
