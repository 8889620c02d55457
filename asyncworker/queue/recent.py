"""Recent: the latest attempts that ended in this process, as many as are worth reading."""

from __future__ import annotations

from collections import deque

from asyncworker.events import Bus, JobEnd, JobsEnded

MOST = 1000


class Recent:
    """The last *most* `successes` and `failures` (also of jobs that are tried again), oldest first; kept from now on.

    Ask before the worker starts: one that nobody listens to makes no such records. Cost: about 1 us a job.
    """

    def __init__(self, bus: Bus, most: int = MOST) -> None:
        self.successes: deque[JobEnd] = deque(maxlen=most)
        self.failures: deque[JobEnd] = deque(maxlen=most)
        bus.listen(JobsEnded, self._take)

    def _take(self, event: JobsEnded) -> None:
        for end in event.ends:
            if end.status == "succeeded":
                self.successes.append(end)
            elif end.status in {"failed", "retrying"}:
                self.failures.append(end)
