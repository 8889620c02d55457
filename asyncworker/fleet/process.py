"""One worker process of the fleet: how it is started, what it tells, and how it is asked to leave."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

from asyncworker.lifeline import Child
from asyncworker.share.board import Gauges

STARTING, WORKING, LEAVING = range(3)
STDERR = 2


class WorkerProcess:
    """A worker under a name; it blocks for some milliseconds while it is started.

    What it prints goes to our standard error, so nobody must read it for the worker to go on.

    Attributes: ``gauges`` as last looked at; ``outgoing``: it goes as soon as ``successor`` works.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], now: float) -> None:
        self.name, self.born = name, now
        self.child = Child(command, env=environment, stdout=STDERR)
        self.pid = self.child.pid
        self.gauges = Gauges()
        self.rss_bytes = 0
        self.outgoing = False
        self.successor: WorkerProcess | None = None
        self.retired = False
        self.leaving_since: float | None = None

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.name} {self.pid} {self.stage}>"

    @property
    def running(self) -> bool:
        return self.child.running

    @property
    def works(self) -> bool:
        """Whether it has joined and takes jobs."""
        return self.stage == "working"

    @property
    def stays(self) -> bool:
        """Whether it is to stay."""
        return not self.leaves and not self.outgoing

    @property
    def leaves(self) -> bool:
        """Whether it was asked to leave."""
        return self.retired or self.leaving_since is not None

    @property
    def stage(self) -> str:
        if not self.running:
            return "ended"
        if self.leaves or self.gauges.stage == LEAVING:
            return "leaving"
        return "working" if self.gauges.stage == WORKING else "starting"

    def busy(self, before: Gauges) -> tuple[int, int]:
        """Return microseconds since *before* in which it had no room for more, and of all."""
        up = max(0, self.gauges.up_us - before.up_us)
        idle = max(0, self.gauges.idle_us - before.idle_us)
        return max(0, up - idle), up

    def retire(self) -> None:
        """Ask it to drain: it finishes what it runs, however long that takes."""
        if not self.leaves:
            self.retired = True
            self.child.send(signal.SIGUSR1)

    def leave(self, now: float) -> None:
        """Ask it to drain within its grace period."""
        if self.leaving_since is None:
            self.leaving_since = now
            self.child.send(signal.SIGTERM)

    def hurry(self) -> None:
        """Make one that drains hand back at once. It may be about to end: of this signal it would do so silently."""
        if self.leaving_since is not None:
            self.child.send(signal.SIGUSR2)

    @property
    def killer(self) -> str:
        """The name of the signal that it died of, or ""."""
        code = self.child.wait(0)
        return signal.Signals(-code).name if code is not None and code < 0 else ""

    def fate(self) -> str:
        """Say how it ended."""
        return f"killed by {self.killer}" if self.killer else f"exit code {self.child.wait(0)}"
