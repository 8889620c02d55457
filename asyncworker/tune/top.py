"""What one process is doing right now: a snapshot for a live view, with shares since the snapshot before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter, process_time

import msgspec

from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.loop import LoopSensor
from asyncworker.tune.sensors.memory import MemoryOptimizer
from asyncworker.tune.sensors.profiler import FunctionProfile, PerformanceProfiler
from asyncworker.tune.sensors.tasks import TasksSensor

TOP = 20
HOLDS = 5


class FunctionLoad(msgspec.Struct, frozen=True):
    """One function since the last snapshot, over its measured calls that ended: ``share`` of their time on the loop.

    ``wall_s``, ``await_s``, ``cpu_s`` and ``on_loop_s`` are means of one call.
    """

    name: str
    file: str
    line: int
    calls: int
    share: float
    wall_s: float
    await_s: float
    cpu_s: float
    on_loop_s: float = 0.0


class TaskLoad(msgspec.Struct, frozen=True):
    """The jobs of one task: ``running`` now, and those that ended since the last snapshot.

    ``walls`` (`LogHistogram.sparse`), ``wall_s`` and ``longest_s`` tell how long they took; `walls_of` puts several
    workers' together.
    """

    name: str
    running: int
    ended: int
    failed: int
    walls: dict[int, int]
    wall_s: float
    longest_s: float


class Snapshot(msgspec.Struct, frozen=True):
    """``seconds`` since the snapshot before, over which ``cpu_ratio`` (1.0 is one processor), lag and loads count.

    ``held`` tells how often the loop was held so far, ``holds`` by what, the last ones, and ``last_hold`` the very
    last; empty when never. ``jobs`` is empty where nobody counts them.
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
    jobs: list[TaskLoad] = []
    holds: list[str] = []


class Top:
    """Take snapshots of the process in whose loop it is used, from sensors that somebody else starts and stops.

    Args:
        ended: tells of jobs. running: returns how many run now, by task.
    """

    def __init__(
        self,
        loop: LoopSensor,
        profiler: PerformanceProfiler,
        memory: MemoryOptimizer,
        ended: TasksSensor | None = None,
        running: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._loop, self._profiler, self._memory = loop, profiler, memory
        self._ended, self._running = ended, running
        self._lag = loop.lag.copy()
        self._at, self._cpu = perf_counter(), process_time()
        self._before: dict[tuple[str, str, int], FunctionProfile] = {}

    def snapshot(self) -> Snapshot:
        """Return what there is now. Cost: below a millisecond for some hundred functions and tasks."""
        now, cpu, loop = perf_counter(), process_time(), self._loop
        seconds, used = now - self._at, cpu - self._cpu
        self._at, self._cpu = now, cpu
        before, self._lag = self._lag, loop.lag.copy()
        lag = self._lag.since(before)
        return Snapshot(
            seconds,
            used / seconds if seconds > 0 else 0.0,
            len(asyncio.all_tasks()),
            loop.utilisation,
            lag.quantile(0.5),
            lag.quantile(0.99),
            loop.held,
            str(loop.blocks[-1]) if loop.blocks else "",
            {reading.name: reading.value for reading in self._memory.read() if not reading.labels},
            self._functions(),
            self._jobs(),
            [str(block) for block in list(loop.blocks)[-HOLDS:]],
        )

    def _jobs(self) -> list[TaskLoad]:
        ended = {} if self._ended is None else self._ended.take()
        running = self._running()
        return [
            TaskLoad(
                name,
                running.get(name, 0),
                walls.count,
                ended[name].failed if name in ended else 0,
                walls.sparse(),
                walls.sum,
                walls.longest,
            )
            for name in sorted(ended.keys() | running.keys())
            for walls in (ended[name].walls if name in ended else LogHistogram(),)
        ]

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
            wall, waits, cpu, own, on_loop = (
                getattr(of, name) - (getattr(old, name) if old else 0.0)
                for name in ("wall_s", "await_s", "cpu_s", "self_s", "on_loop_s")
            )
            means = (wall / calls, max(0.0, waits) / calls, max(0.0, cpu) / calls, on_loop / calls)
            found.append(FunctionLoad(*key, calls, own, *means))
        whole = sum(of.share for of in found)
        found.sort(key=lambda of: of.share, reverse=True)
        return [msgspec.structs.replace(of, share=of.share / whole if whole > 0 else 0.0) for of in found[:TOP]]


def walls_of(loads: Iterable[TaskLoad]) -> LogHistogram:
    """Return how long the jobs of these took, all together."""
    whole = LogHistogram()
    for of in loads:
        whole.merge(LogHistogram.of(of.walls, of.wall_s, of.longest_s))
    return whole
