"""Gates: who may pass, and who waits, for a broker that lives in this process.

A job passes all its gates when it is claimed, or waits at the first that holds it up, in the line of its queue: higher
priorities first, then the older. Where a gate has room, the best of each line is *called up*: it goes back to the head
of its queue, and no newcomer overtakes it. Whoever passes, waits elsewhere or goes gives the next its turn. So each
event moves a few jobs, however many wait; ``brokers/lua`` does the same.

Two who were called up at different gates must not give way to each other for ever: who comes from a narrower gate gives
way at a wider one, never the other way round. So a job leaves a gate that has room for a wider one, or for one that is
full, and whoever is called up gets somewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence

from asyncworker.queue.job import Job
from asyncworker.queue.limit import Gate, gates_of

LOWEST_FIRST_EVERY = 16
"""One call in so many goes to the lowest priority that waits, so that none starves."""
CALLED = -1
LATE_MS = 1000
"""How late a job must be to pass without a permit: its worker, which knows better, must come to the same end."""


def is_limited(job: Job) -> bool:
    """Return whether a job has gates at all."""
    return "limit" in job.options or "rate" in job.options


def is_late(job: Job, now_ms: int, born_ms: int, *, fresh: bool) -> bool:
    """Return whether its worker will certainly not start a job that is claimed now; *fresh*: no attempt has begun yet."""
    options, age_s = job.options, (now_ms - born_ms - LATE_MS) / 1000
    expires, deadline = options.get("expires"), options.get("deadline")
    if expires is not None and fresh and age_s > expires:
        return True
    if deadline is not None and age_s > deadline:
        return True
    return bool((now_ms - LATE_MS) / 1000 > options.get("until_s", math.inf))


class Line:
    """Who waits at one gate, of one queue: by rank (0 goes first) and age."""

    def __init__(self) -> None:
        self.order: list[tuple[int, str]] = []
        self.jobs: dict[str, tuple[int, Job]] = {}
        self.calls = 0

    def put(self, rank: int, job: Job) -> None:
        self.jobs[job.id] = rank, job
        insort(self.order, (rank, job.id))

    def remove(self, job_id: str) -> int:
        rank, _ = self.jobs.pop(job_id)
        del self.order[bisect_left(self.order, (rank, job_id))]
        return rank

    def next(self) -> Job | None:
        """Return who is to be called up, None where somebody is already."""
        rank, job_id = self.order[0]
        if rank == CALLED:
            return None
        if (self.calls + 1) % LOWEST_FIRST_EVERY == 0:
            job_id = self.order[bisect_left(self.order, (self.order[-1][0],))][1]
        return self.jobs[job_id][1]


class Gates:
    """All gates of one broker.

    Args:
        call: puts the job of this id at the head of its queue. arm: makes `stir` be called for this gate at a time in ms.
    """

    def __init__(self, call: Callable[[str], None], arm: Callable[[str, str, int], None]) -> None:
        self._call = call
        self._arm = arm
        self._numbers: dict[str, Sequence[float]] = {}
        self._permits: dict[str, set[str]] = {}
        self._spent: OrderedDict[str, int] = OrderedDict()  # a rate's gate -> until when it is spoken for, us
        self._lines: dict[str, dict[str, Line]] = {}
        self.waiting: Counter[str] = Counter()  # by queue: who is in a line and has not been called up

    def regulate(self, numbers: Mapping[str, Sequence[float]], now_ms: int) -> None:
        """Let these numbers hold; at gates of a key, from the next time that they are looked at."""
        self._numbers.update(numbers)
        for name in numbers:
            self.stir(name, now_ms)

    def admit(self, job: Job, now_ms: int, *, late: bool = False) -> bool:
        """Return whether a job may start, which takes its permits; else it waits. One that is *late* needs none."""
        gates = gates_of(job.options, self._numbers)
        came = [self._step_out(gate, job) for gate in gates]  # True for the gate at which it was called up
        blocker = None
        for n, gate in enumerate(gates if not late else ()):
            rank = self._first(gate, job)
            yields = rank is not None and (True not in came or (rank == CALLED and True in came[:n]))
            if yields or self._wait_us(gate, now_ms) > 0:
                blocker = gate
                break
        if blocker:
            lines = self._lines.setdefault(blocker.name, {})
            lines.setdefault(job.queue, Line()).put(9 - job.priority, job)
            self.waiting[job.queue] += 1
        elif not late:
            for gate in gates:
                self._take(gate, job, now_ms)
        for gate in gates:
            self.stir(gate.name, now_ms)
        return blocker is None

    def let_go(self, job: Job, now_ms: int) -> None:
        """Give back what a job holds, or its place in a line."""
        gates = gates_of(job.options, self._numbers)
        for gate in gates:
            held = self._permits.get(gate.name, set())
            held.discard(job.id)
            if not held:
                self._permits.pop(gate.name, None)
            self._step_out(gate, job)
        for gate in gates:
            self.stir(gate.name, now_ms)

    def stir(self, name: str, now_ms: int) -> None:
        """Call up who may pass this gate now; where time will bring that, make sure that it is noticed."""
        for queue, line in self._lines.get(name, {}).items():
            if (job := line.next()) is None:
                continue
            gate = next(gate for gate in gates_of(job.options, self._numbers) if gate.name == name)
            wait_us = self._wait_us(gate, now_ms)
            if wait_us <= 0:
                line.calls += 1
                line.remove(job.id)
                line.put(CALLED, job)
                self.waiting[queue] -= 1
                self._call(job.id)
            elif wait_us < math.inf:
                self._arm(queue, name, now_ms + math.ceil(wait_us / 1000))

    def _first(self, gate: Gate, job: Job) -> int | None:
        """Return the rank of the first in the line of this job's queue."""
        line = self._lines.get(gate.name, {}).get(job.queue)
        return line.order[0][0] if line else None

    def _wait_us(self, gate: Gate, now_ms: int) -> float:
        """Return for how long there is no room: 0 or less, it is there; infinite, until somebody leaves."""
        if gate.room_us:
            return self._spoken_for(gate, now_ms) + gate.take_us - gate.room_us - now_ms * 1000
        full = gate.most and len(self._permits.get(gate.name, ())) >= gate.most
        return math.inf if full else 0

    def _take(self, gate: Gate, job: Job, now_ms: int) -> None:
        if not gate.room_us:
            if gate.most:
                self._permits.setdefault(gate.name, set()).add(job.id)
            return
        self._spent[gate.name] = self._spoken_for(gate, now_ms) + gate.take_us
        self._spent.move_to_end(gate.name)
        while self._spent and next(iter(self._spent.values())) <= now_ms * 1000:
            self._spent.popitem(last=False)

    def _spoken_for(self, gate: Gate, now_ms: int) -> int:
        """Return until when, in us: no longer than its room, whatever its numbers or the clock were before."""
        now_us = now_ms * 1000
        if self._spent.get(gate.name, 0) > now_us + gate.room_us:
            self._spent[gate.name] = now_us + gate.room_us
        return max(now_us, self._spent.get(gate.name, 0))

    def _step_out(self, gate: Gate, job: Job) -> bool:
        """Leave a line, if that is where this job is; returns whether it was."""
        lines = self._lines.get(gate.name, {})
        line = lines.get(job.queue)
        if line is None or job.id not in line.jobs:
            return False
        self.waiting[job.queue] -= line.remove(job.id) != CALLED
        if not line.jobs:
            del lines[job.queue]
        if not lines:
            del self._lines[gate.name]
        return True
