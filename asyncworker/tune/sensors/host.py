"""How busy the processors are that we may use, and how much memory is left: of the machine, or of our container.

On Linux a control group may allow less than the machine has; then its own count is what matters, for work is throttled
or killed by that, whatever the machine has left (cgroup v2, v1 where that is mounted; the tightest of all those above).
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import msgspec
import psutil

from asyncworker.clock import SYSTEM, Clock
from asyncworker.processors import usable
from asyncworker.tune.sensors.sensor import Reading

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class Host(msgspec.Struct, frozen=True):
    """The machine, or the container, at one moment.

    Attributes:
        processors: how many may be used at once; a quota may be a part of one.
        cpu_ratio: how busy they were since the last look, 0..1.
        memory_bytes, memory_used_bytes: what there is, and what is in use and cannot be given back.
    """

    processors: float
    cpu_ratio: float
    memory_bytes: int
    memory_used_bytes: int

    @property
    def memory_ratio(self) -> float:
        return self.memory_used_bytes / self.memory_bytes if self.memory_bytes else 0.0


class HostSensor:
    """Look when asked. *groups* and *own* say where control groups are, for tests."""

    def __init__(self, clock: Clock = SYSTEM, groups: Path = GROUPS, own: Path = OWN) -> None:
        self._clock = clock
        self._cpu = _folders(groups, own, "cpu", "cpu.max", "cpu.cfs_quota_us")
        self._memory = _folders(groups, own, "memory", "memory.max", "memory.limit_in_bytes")
        self._before = self._times()
        self._used_before = {folder: _used(folder) for folder in self._cpu}

    def look(self) -> Host:
        """Return how things are now, and were since the last call. Cost: about 0.3 ms."""
        (was_at, was_idle, was_busy), (at, idle, busy) = self._before, self._times()
        used = {folder: _used(folder) for folder in self._cpu}
        processors = float(len(usable()))
        spent = (busy - was_busy) + (idle - was_idle)
        ratio = (busy - was_busy) / spent if spent > 0 else 0.0
        for folder in self._cpu:
            if (quota := _quota(folder)) < math.inf and at > was_at:
                processors = min(processors, quota)
                ratio = max(ratio, (used[folder] - self._used_before[folder]) / (at - was_at) / quota)
        self._before, self._used_before = (at, idle, busy), used
        memory = psutil.virtual_memory()
        total, taken = memory.total, memory.total - memory.available
        for folder in self._memory:
            limit, current = _limit(folder), _current(folder)
            if limit < math.inf and current / limit >= taken / total:
                total, taken = int(limit), current
        return Host(processors, min(1.0, max(0.0, ratio)), total, taken)

    def read(self) -> list[Reading]:
        host = self.look()
        return [
            Reading("host_processors", host.processors),
            Reading("host_cpu_ratio", host.cpu_ratio),
            Reading("host_memory_bytes", host.memory_bytes),
            Reading("host_memory_used_bytes", host.memory_used_bytes),
        ]

    def close(self) -> None:
        """Nothing is held."""

    def _times(self) -> tuple[float, float, float]:
        """Return now, and idle and busy seconds of the processors that we may use."""
        ours = usable()
        times = [of for number, of in enumerate(psutil.cpu_times(percpu=True)) if number in ours]
        idle = sum(of.idle + getattr(of, "iowait", 0.0) for of in times)
        # The system counts guest time as user time, too.
        doubled = sum(getattr(of, "guest", 0.0) + getattr(of, "guest_nice", 0.0) for of in times)
        return self._clock.monotonic(), idle, sum(map(sum, times)) - idle - doubled


def rss(pid: int) -> int:
    """Return a process's resident memory in bytes, 0 for one that is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _folders(groups: Path, own: Path, controller: str, *files: str) -> list[Path]:
    """Return our group's folder and those above it which set this limit, the innermost first."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controller if controllers else groups
        inside = root / path.lstrip("/")
        above = [folder for folder in (inside, *inside.parents) if folder.is_relative_to(root)]
        found += [folder for folder in above if any((folder / file).exists() for file in files)]
    return found


def _quota(folder: Path) -> float:
    """Return how many processors a group may use."""
    with contextlib.suppress(OSError, ValueError):
        if (folder / "cpu.max").exists():
            most, period = (folder / "cpu.max").read_text().split()
        else:
            most = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text()
        if most not in {"max", "-1"} and int(most) > 0 and int(period) > 0:
            return int(most) / int(period)
    return math.inf


def _used(folder: Path) -> float:
    """Return the processor seconds that a group has used."""
    with contextlib.suppress(OSError, ValueError):
        if used := _field(folder / "cpu.stat", "usage_usec"):
            return used / 1e6
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    return 0.0


def _limit(folder: Path) -> float:
    for file in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return float(max(1, int((folder / file).read_text())))
    return math.inf


def _current(folder: Path) -> int:
    """Return what a group uses, without files in memory that would be dropped for something better."""
    for file, droppable in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
        with contextlib.suppress(OSError, ValueError):
            return max(0, int((folder / file).read_text()) - _field(folder / "memory.stat", droppable))
    return 0


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        word, _, value = line.partition(" ")
        if word == name:
            return int(value)
    return 0
