"""The queues' sensor: what the broker counts, as evidence for a policy."""

from __future__ import annotations

from asyncworker.queue.job import Depth
from asyncworker.tune.policies.policy import Observation


class DepthSensor:
    """Tell arrivals and completions from what two looks at the broker differ in.

    Arrivals are counted by what is there: what waits or runs now and did not before, and what has ended meanwhile. So a
    delayed job arrives when it is due, and what failed and is tried again arrives again. Paused queues do not count.
    """

    def __init__(self) -> None:
        self._before: tuple[float, int, int, int] | None = None

    def read(self, depth: Depth, t: float, *, size: int, worker_s: float, busy: float) -> Observation:
        """Return what was seen since the last call.

        Args:
            t: seconds of a monotonic clock. size: workers, with those that start. worker_s: seconds for which they
                worked since the last call, all together. busy: the share of these in which they had no room for more.
        """
        open_queues = [queue for queue in depth.queues.values() if not queue.paused]
        waiting = sum(queue.queued for queue in open_queues)
        here = sum(queue.queued for queue in depth.queues.values()) + depth.running
        tried = sum(queue.succeeded + queue.failed + queue.retried for queue in depth.queues.values())
        gone = tried + sum(queue.cancelled + queue.expired for queue in depth.queues.values())
        arrivals = completions = 0.0
        if self._before is not None and t > self._before[0]:
            was_t, was_here, was_gone, was_tried = self._before
            arrivals = max(0, here - was_here + gone - was_gone) / (t - was_t)
            # As if all worked all the time: the policy divides by all there are, also by those that are starting.
            completions = max(0, tried - was_tried) * size / worker_s if worker_s > 0 else 0.0
        self._before = (t, here, gone, tried)
        return Observation(
            t=t,
            size=size,
            arrivals=arrivals,
            completions=completions,
            waiting=waiting,
            oldest_s=max((queue.oldest_s for queue in open_queues if queue.queued), default=0.0),
            busy=busy,
        )
