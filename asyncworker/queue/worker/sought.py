"""Sought slots: how many jobs of a task a worker runs at once is found while it works, for each task by itself.

A task has an `Allowance`, which a `UslPolicy` moves. What a queue may have at once is what the tasks that are active in it
are allowed together; no more is claimed, so nothing is hoarded. Where one queue brings jobs of several tasks, they pass
doors: a task that has all it is allowed waits there, lets the others by, and keeps its queue from being asked for more.

Jobs are not measured one by one. The runner counts endings, and those are reported in bulk every few milliseconds; the
slot of a job that has ended counts as used until the next claim fills it, for that is what it costs.

A queue whose last claim brought less than it had room for is not held back by its limit: that teaches nothing and
moves nothing. Where the event loop is full, nothing higher is tried than what was (`UslPolicy.saturated`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.queue.task import Definition
from asyncworker.queue.worker.attempt import Attempt
from asyncworker.queue.worker.slots import Slots
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.usl import UslPolicy
from asyncworker.tune.utilisation import LoopLoad

INITIAL = 8
HIGHEST = 500
WINDOW_S, NOISE = 0.25, 0.1
"""How long a measurement takes at least, once it is known where to look, and how uneven it is: real machines are."""
STOCK_S = 0.002
"""How long a claim takes, about."""
LOOK_S = 0.003
SORT_S = 0.05
"""How often it is found out anew which tasks are active in which queue."""
BUSY_S = 0.2
"""How long it is watched before it is known how busy the loop is: less than a policy waits before it grows blindly."""
FULL = 0.9
"""The share of its time from which on an event loop has none left."""


Seek = Callable[..., UslPolicy]
"""Makes a policy, of a name and of what `UslPolicy` takes; somebody may keep what it learns."""


def forgetful(_: str, /, **given: Any) -> UslPolicy:
    """Return a policy that knows nothing, and what it learns is not kept."""
    return UslPolicy(**given)


class Allowance:
    """How many jobs of one task may run here at once.

    Attributes: ``running`` ones, when that was last looked at; ``completed`` so far; ``inside``: those that
    passed its door, None where its jobs need not pass one.
    """

    def __init__(self, name: str, policy: UslPolicy, decisions: Decisions) -> None:
        self.name, self.policy, self._decisions = name, policy, decisions
        self.limiter = Limiter(policy.limit, name=name, low=policy.low, high=policy.high)
        self.inside: set[Attempt] | None = None
        self.running = self.completed = 0
        self.took_s = 0.0
        decisions.watch(self)

    @property
    def size(self) -> int:
        return self.limiter.size

    @property
    def in_use(self) -> int:
        return self.running

    def report(self, now: float, ended: int, failed: int, *, full: bool) -> None:
        """Tell the policy what has ended since the last report, and whether the limit is what held more back."""
        policy = self.policy
        used = max(self.running, self.size if full else 1)
        self.completed += ended
        if failed:
            policy.on_complete(now, self.took_s, used, False, failed)
        if ended > failed:
            policy.on_complete(now, self.took_s, used, True, ended - failed)
        if full and self.running >= self.size:
            policy.on_wait(now)
        if (old := self.size) != policy.limit:
            self.limiter.resize(policy.limit)
            self._decisions.add(self.name, old, self.size, policy.because)


class SoughtSlots(Slots):
    """Slots of which some are sought.

    Args:
        queues: name -> how many of its jobs; None: that is sought.
        wake: set when there is room that was not there before.
        seek: makes the policies. decisions: where changes are noted. load: tells how busy the loop is; it is watched
            while a queue has more than there is room for.
    """

    def __init__(
        self,
        queues: Mapping[str, int | None],
        tasks: Mapping[str, Definition],
        wake: asyncio.Event,
        *,
        concurrency: int = HIGHEST,
        seek: Seek = forgetful,
        decisions: Decisions | None = None,
        clock: Clock = SYSTEM,
        load: LoopLoad | None = None,
    ) -> None:
        super().__init__({}, concurrency)
        self._fixed = {name: slots for name, slots in queues.items() if slots is not None}
        self._order = list(queues)
        self._tasks, self._wake, self._seek, self._clock = tasks, wake, seek, clock
        self._decisions = Decisions() if decisions is None else decisions
        self._allowances: dict[str, Allowance] = {}
        self._known: dict[str, set[str]] = {name: set() for name in queues if name not in self._fixed}
        self._active: dict[str, set[str]] = {name: set() for name in self._known}
        self._where: dict[str, list[str]] = {}  # active tasks and their queues
        self._aside: set[str] = set()  # tasks that end here and are not sought
        self._room: dict[str, int] = {}
        self._backlog = dict.fromkeys(queues, False)
        self._parked = dict.fromkeys(queues, 0)
        self._looked = self._sorted = -math.inf
        self._load = load or LoopLoad(BUSY_S)
        self.doors: dict[str, Allowance] = {}
        self.ended: dict[str, int] = {}
        """Attempts that have ended since the last look, by task; the runner counts."""
        self.failed: dict[str, int] = {}
        self.last: Attempt | None = None
        """The last of them."""

    def close(self) -> None:
        """Watch the loop no more."""
        self._load.rest()

    # --- what the fetcher asks ----------------------------------------------------------------------------------

    def ask(
        self, running: Mapping[str, int], live: Mapping[str, Attempt], most: int, lent: int = 0
    ) -> tuple[dict[str, int], int]:
        now = self._clock.monotonic()
        if now - self._looked >= LOOK_S and (live or any(self._backlog.values())):
            self.look(now, running, live)  # a few jobs that never met teach nothing; the runner reports them, later
        if not live:
            self._load.rest()
        want = min(self._concurrency - len(live) + lent, most)
        room = {name: n for name in self._order if (n := min(want, self._free(name, running.get(name, 0)))) > 0}
        self._order.append(self._order.pop(0))
        return room, max(0, min(want, sum(room.values())))

    def _free(self, queue: str, running: int) -> int:
        if queue in self._fixed:
            return self._fixed[queue] - running
        return 0 if self._parked[queue] else self._room.get(queue, INITIAL) - running

    def took(self, room: Mapping[str, int], want: int, before: Mapping[str, int], running: Mapping[str, int]) -> None:
        got = {name: running.get(name, 0) - before.get(name, 0) for name in room}
        short = sum(got.values()) < want
        for name, n in got.items():
            if n >= room[name]:
                self._backlog[name] = True
                self._load.watch()
            elif short:
                self._backlog[name] = False

    # --- what the runner asks -----------------------------------------------------------------------------------

    async def enter(self, attempt: Attempt) -> None:
        """Wait at the door of its task, if that has one; its time begins when it is let in."""
        allowance = self.doors.get(attempt.task)
        if allowance is None or allowance.inside is None:
            return
        if not allowance.limiter.try_acquire():
            queue, left = attempt.delivery.queue, attempt.deadline - self._clock.monotonic()
            attempt.deadline = attempt.until
            self._parked[queue] += 1
            try:
                await allowance.limiter.acquire()
            finally:
                self._parked[queue] -= 1
                self._wake.set()
            attempt.begin()
            attempt.deadline = min(attempt.since + left, attempt.until)
        allowance.inside.add(attempt)

    def over(self, attempt: Attempt) -> None:
        """Take in an attempt that has ended otherwise than well, or behind a door; it is in ``ended`` already."""
        task = attempt.task
        if attempt.status in ("failed", "retrying"):
            self.failed[task] = self.failed.get(task, 0) + 1
        elif attempt.status not in ("succeeded", "snoozed"):  # cancelled, handed back, too late: no evidence
            self.ended[task] -= 1
        self.leave(attempt)

    def leave(self, attempt: Attempt) -> None:
        """Let another in by the door of an attempt that has ended, or waits for other jobs."""
        allowance = self.doors.get(attempt.task)
        if allowance is not None and allowance.inside is not None and attempt in allowance.inside:
            allowance.inside.discard(attempt)
            allowance.limiter.release()

    # --- what moves the limits ----------------------------------------------------------------------------------

    def look(self, now: float, running: Mapping[str, int], live: Mapping[str, Attempt]) -> None:
        """Report what has ended, and count anew what each queue may have."""
        self._looked, saturated = now, self._load.ratio > FULL
        ended, self.ended, failed, self.failed = self.ended, {}, self.failed, {}
        if now - self._sorted >= SORT_S or not ended.keys() <= self._where.keys() | self._aside:
            self._sort(now, ended, live)
        if (last := self.last) is not None:
            self.last = None
            if last.task in self._allowances:
                self._allowances[last.task].took_s = now - last.since
        for task, queues in self._where.items():
            allowance = self._allowances[task]
            allowance.policy.saturated = saturated
            if allowance.inside is None:
                allowance.running = sum(running.get(queue, 0) for queue in queues)
            else:
                allowance.running = allowance.limiter.in_use
            full = all(self._backlog[queue] and len(self._active[queue]) == 1 for queue in queues)
            full = full or allowance.limiter.waiting > 0
            allowance.report(now, ended.get(task, 0), failed.get(task, 0), full=full)
        for queue, tasks in self._active.items():
            if tasks:
                room = sum(self._allowances[task].size for task in tasks)
            else:
                room = max((self._allowances[task].size for task in self._known[queue]), default=INITIAL)
            if room > self._room.get(queue, room):
                self._wake.set()
            self._room[queue] = room

    def _sort(self, now: float, ended: Mapping[str, int], live: Mapping[str, Attempt]) -> None:
        """Find out which tasks are active in which queue, and set doors where those of several tasks meet."""
        self._sorted = now
        seen = {(attempt.delivery.queue, attempt.task) for attempt in live.values()}
        if self.last is not None:
            seen.add((self.last.delivery.queue, self.last.task))
        for task in ended:
            if task in self._tasks:
                seen.add((self._tasks[task].options.queue, task))
        self._active = {queue: set() for queue in self._known}
        self._where = {}
        for queue, task in sorted(seen):
            if queue in self._active and task in self._tasks:
                self._active[queue].add(task)
                self._known[queue].add(task)
                self._where.setdefault(task, []).append(queue)
        self._aside = ended.keys() - self._where.keys()
        for task, queues in self._where.items():
            if task not in self._allowances:
                name = f"task {task}"
                policy = self._seek(
                    name, initial=INITIAL, high=HIGHEST, min_window=WINDOW_S, noise=NOISE, stock=STOCK_S
                )
                self._allowances[task] = Allowance(name, policy, self._decisions)
            allowance = self._allowances[task]
            if allowance.inside is None and (len(queues) > 1 or len(self._active[queues[0]]) > 1):
                allowance.inside = {attempt for attempt in live.values() if attempt.task == task}
                allowance.limiter.admit(len(allowance.inside))
                self.doors[task] = allowance
