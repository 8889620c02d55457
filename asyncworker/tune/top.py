"""What one process is doing right now: a snapshot for a live view, with shares since the snapshot before."""

from __future__ import annotations

import asyncio
from time import perf_counter, process_time

import msgspec

from asyncworker.tune.sensors.loop import LoopSensor
from asyncworker.tune.sensors.memory import MemoryOptimizer
from asyncworker.tune.sensors.profiler import FunctionProfile, PerformanceProfiler

TOP = 20


class FunctionLoad(msgspec.Struct, frozen=True):
    """One function since the last snapshot, over its measured calls that ended: ``share`` of their time on the loop.

    ``wall_s``, ``await_s`` and ``cpu_s`` are means of one call.
    """

    name: str
    file: str
    line: int
    calls: int
    share: float
    wall_s: float
    await_s: float
    cpu_s: float


class Snapshot(msgspec.Struct, frozen=True):
    """``seconds`` since the snapshot before, over which ``cpu_ratio`` (1.0 is one processor) and ``functions`` count.

    ``held`` tells how often the loop was held so far, and ``last_hold`` by what, last; empty when never.
    """

    seconds: float
    cpu_ratio: float
    tasks: int
    loop_utilisation: float
    lag_p50_s: float
    lag_p99_s: float
    held: int
    last_hold: str
    memory: dict[str, float]
    functions: list[FunctionLoad]


class Top:
    """Take snapshots of the process in whose loop it is used, from sensors that somebody else starts and stops."""

    def __init__(self, loop: LoopSensor, profiler: PerformanceProfiler, memory: MemoryOptimizer) -> None:
        self._loop, self._profiler, self._memory = loop, profiler, memory
        self._at, self._cpu = perf_counter(), process_time()
        self._before: dict[tuple[str, str, int], FunctionProfile] = {}

    def snapshot(self) -> Snapshot:
        """Return what there is now. Cost: below a millisecond for some hundred functions and tasks."""
        now, cpu, loop = perf_counter(), process_time(), self._loop
        seconds, used = now - self._at, cpu - self._cpu
        self._at, self._cpu = now, cpu
        return Snapshot(
            seconds,
            used / seconds if seconds > 0 else 0.0,
            len(asyncio.all_tasks()),
            loop.utilisation,
            loop.lag.quantile(0.5),
            loop.lag.quantile(0.99),
            loop.held,
            str(loop.blocks[-1]) if loop.blocks else "",
            {reading.name: reading.value for reading in self._memory.read() if not reading.labels},
            self._functions(),
        )

    def _functions(self) -> list[FunctionLoad]:
        found = []
        before, self._before = self._before, {}
        for of in self._profiler.get_profile_report().functions:
            key = (of.name, of.file, of.line)
            self._before[key] = of
            old = before.get(key)
            if old is not None and old.calls > of.calls:  # it was started afresh
                old = None
            calls = of.calls - (old.calls if old else 0)
            if not calls:
                continue
            wall, waits, cpu, own = (
                getattr(of, name) - (getattr(old, name) if old else 0.0)
                for name in ("wall_s", "await_s", "cpu_s", "self_s")
            )
            found.append(FunctionLoad(*key, calls, own, wall / calls, max(0.0, waits) / calls, max(0.0, cpu) / calls))
        whole = sum(of.share for of in found)
        found.sort(key=lambda of: of.share, reverse=True)
        return [msgspec.structs.replace(of, share=of.share / whole if whole > 0 else 0.0) for of in found[:TOP]]
