"""Crew: the worker processes there are; makes them as many as are wanted, and replaces who has died.

Each has a name. A name is taken again by the process that replaces one which died, so there are never more names than
places. Who is too much is asked to drain, and who is to be renewed goes when its successor works.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from asyncworker.clock import Clock
from asyncworker.events import Bus, ProcessEnded
from asyncworker.fleet.crashes import Crashes
from asyncworker.fleet.process import WorkerProcess
from asyncworker.fleet.report import REPORTS
from asyncworker.share.board import Gauges
from asyncworker.share.channel import HighPerformanceIPC
from asyncworker.share.queue import MessageType

log = logging.getLogger(__name__)

OVERTIME_S = 10.0
"""How long after its grace period a worker may live: it has handed its jobs back by then, so it hangs, and is killed."""
LOOK_S = 0.05
SUPERVISOR = "ASYNCWORKER_SUPERVISOR"


class Crew:
    """Processes that run *command*. `open` it before anything else.

    Args:
        most: processes at most, with those that still drain; for more, others must have ended first.
        grace_s: how long they may drain when they are told to `leave`.

    Attributes:
        starts: how many were started. fates: how many ended untold, by the signal that killed them, or ``exit``.
        heard: called with a worker's name and what its `Report` sent.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        most: int,
        grace_s: float,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._most = most
        self._command, self._environment, self._grace_s = command, environment, grace_s
        self._bus, self._clock = bus, clock
        self.crashes = Crashes()
        self.starts, self.fates = 0, Counter[str]()
        self.heard: Callable[[str, Any], None] = lambda _, __: None
        self.workers: dict[str, WorkerProcess] = {}
        self.due: dict[str, float] = {}
        self._making: set[str] = set()
        self._outgoing: deque[str] = deque()
        self._changing = asyncio.Lock()
        self._ipc: HighPerformanceIPC | None = None
        self._hearing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Be there for workers to report to. Harmless when repeated."""
        if self._ipc is None:
            self._ipc = HighPerformanceIPC("supervisor", clock=self._clock)
            await self._ipc.start()
            self._ipc.create_message_queue(REPORTS)
            self._hearing = asyncio.get_running_loop().create_task(self._hear(self._ipc), name="reports")

    async def drain(self) -> None:
        """Let all who are there drain, and return when the last has ended."""
        self.due.clear()
        self._outgoing.clear()
        async with self._changing:
            workers = list(self.workers.values())
        await self.leave(*workers)

    async def close(self) -> None:
        """Be there for nobody any more. Harmless when repeated."""
        if self._ipc is not None:
            await self._ipc.cleanup()
            self._ipc = None
        if self._hearing is not None:
            await asyncio.wait([self._hearing])
            self._hearing = None

    async def _hear(self, ipc: HighPerformanceIPC) -> None:
        """Take what workers send, until the end; in the order in which it came, so a successor's comes later."""
        while (message := await ipc.receive_message(REPORTS)) and message.msg_type is not MessageType.SHUTDOWN:
            self.heard(message.sender_id, message.data)

    @property
    def size(self) -> int:
        """How many there are that are to stay, with those that will be started again."""
        return sum(worker.stays for worker in self.workers.values()) + len(self.due) + len(self._making)

    @property
    def names(self) -> set[str]:
        """The names that are taken."""
        return {*self.workers, *self.due, *self._making}

    @property
    def idlest(self) -> list[WorkerProcess]:
        """Who may be stopped, the one that costs least first: not yet at work, with least to do, the youngest."""
        stay = [worker for worker in self.workers.values() if worker.stays]
        return sorted(stay, key=lambda worker: (worker.works, worker.gauges.running, -worker.born))

    def read(self) -> None:
        """Look what they tell."""
        if self._ipc is None:
            return
        now = self._clock.monotonic()
        for worker in self.workers.values():
            if (gauges := self._ipc.read_gauges(worker.name)).beats:
                worker.gauges = gauges
            self.crashes.lives(worker.name, now - worker.born)

    async def adjust(self, wanted: Callable[[], int]) -> None:
        """Bury the dead, let successors take over, and start or stop as many as it takes for *wanted*."""
        async with self._changing:
            self.read()
            now = self._clock.monotonic()
            self._bury(now)
            self._hand_over()
            self._kill_the_hanging(now)
            for name in [name for name, at in self.due.items() if at <= now]:
                if self.due.pop(name, None) is not None:
                    await self._start(name)
            while self.size < wanted() and len(self.workers) < self._most:
                await self._start(self.new_name())
            while self.size > wanted():
                if self.due:
                    self.due.popitem()
                else:
                    self.idlest[0].retire()

    async def leave(self, *workers: WorkerProcess) -> None:
        """Let them drain, and return when they have ended; kill those that hang."""
        now = self._clock.monotonic()
        for worker in workers:
            worker.leave(now)
        while any(worker.running for worker in workers):
            self._kill_the_hanging(self._clock.monotonic())
            await asyncio.sleep(LOOK_S)
        for worker in workers:
            if self.workers.get(worker.name) is worker:
                del self.workers[worker.name]

    def hurry(self) -> None:
        """Make those that drain hand back at once what they run."""
        for worker in self.workers.values():
            worker.hurry()

    def renew(self, names: Iterable[str]) -> None:
        """Replace these, one after another."""
        for name in names:
            if name not in self._outgoing and self.workers[name].stays:
                self._outgoing.append(name)

    @property
    def renewing(self) -> bool:
        return bool(self._outgoing) or any(worker.outgoing for worker in self.workers.values())

    def new_name(self) -> str:
        number = 1
        while (name := f"worker-{number}") in self.names:
            number += 1
        return name

    async def _start(self, name: str) -> None:
        assert self._ipc is not None, "opened before"
        own = {**self._environment, SUPERVISOR: f"{self._ipc.place}:{name}"}
        now = self._clock.monotonic()
        self._making.add(name)
        making = asyncio.ensure_future(asyncio.to_thread(WorkerProcess, name, self._command, own, now))
        try:
            await asyncio.wait([making])
        finally:  # who is cancelled meanwhile leaves no process that nobody knows
            await self._take_in(name, making)

    async def _take_in(self, name: str, making: asyncio.Future[WorkerProcess]) -> None:
        try:
            worker = self.workers[name] = await making
            self.starts += 1
        except OSError as exc:
            again = self.crashes.died(name, 0.0) or LOOK_S
            self.due[name] = self._clock.monotonic() + again
            log.error("%s cannot be started: %s; again in %g s", name, exc, again)  # noqa: TRY400 - it is foreseen
            return
        finally:
            self._making.discard(name)
        for other in self.workers.values():
            if other.outgoing and other.successor is None:
                other.successor = worker

    def _bury(self, now: float) -> None:
        for name, worker in [(name, worker) for name, worker in self.workers.items() if not worker.running]:
            del self.workers[name]
            if worker.leaves:
                self.crashes.forget(name)
                continue
            again = self.crashes.died(name, now - worker.born, worker.gauges.ended)
            self.fates[worker.killer or "exit"] += 1
            if worker.stays:
                self.due[name] = now + again
            level = logging.ERROR if name in self.crashes.looping else logging.WARNING
            log.log(level, "%s (process %d) ended: %s; again in %g s", name, worker.pid, worker.fate(), again)
            self._bus.emit(ProcessEnded(name=name, pid=worker.pid, because=worker.fate(), again_s=again))

    def _hand_over(self) -> None:
        """Let the one that is outgoing go as soon as its successor works; then the next is."""
        going = [worker for worker in self.workers.values() if worker.outgoing and not worker.leaves]
        for worker in going:
            if worker.successor is None or worker.successor.stage == "starting":
                continue
            if worker.successor.works:
                worker.retire()
            else:
                worker.outgoing, worker.successor = False, None
                self._outgoing.clear()
                self.due.pop(next(reversed(self.due), ""), None)  # the place is taken again
                log.error("%s stays, and so do the others: its successor did not come to work", worker.name)
        if not going and self._outgoing:
            following = self.workers.get(self._outgoing.popleft())
            if following is not None and following.stays:
                following.outgoing = True

    def _kill_the_hanging(self, now: float) -> None:
        for worker in self.workers.values():
            if worker.leaving_since is not None and now - worker.leaving_since > self._grace_s + OVERTIME_S:
                log.warning("%s (process %d) hangs and is killed", worker.name, worker.pid)
                worker.child.send(signal.SIGKILL)


def spent(workers: Iterable[WorkerProcess], before: Mapping[str, Gauges]) -> tuple[float, float]:
    """Return the worker-seconds since *before*, and the share of them in which there was no room for more work."""
    told = [worker.busy(before.get(worker.name, Gauges())) for worker in workers]
    up = sum(of for _, of in told)
    return up / 1e6, sum(of for of, _ in told) / up if up else 0.0
