"""Who is measured, with which versions and settings: one table, read without importing any peer.

Settings are the best of a few probes on a 2-core machine at N = 1,500 to 3,000 (each peer's file says what was tried);
where a peer's default was as good, it stayed. Serializers and acknowledgement are the defaults, logging is at
WARNING, uvloop runs where the peer is asynchronous.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOP = ("uvloop==0.23.0",)
REDIS = ("redis==8.1.0", "hiredis==3.5.0")


@dataclass(frozen=True)
class Peer:
    """One contender: ``bench/peers/<module>.py`` run in the environment of that name (none: the caller's own)."""

    module: str
    pins: tuple[str, ...]
    concurrency: int
    settings: str
    variant: str = ""

    @property
    def ours(self) -> bool:
        """Whether this runs our code: then it drains more jobs, and is nobody's peer."""
        return not self.pins


_TASKIQ = ("taskiq==0.13.0", "taskiq-redis==1.2.4", *REDIS, *LOOP)

PEERS: dict[str, Peer] = {
    "asyncworker": Peer("ours", (), 100, "defaults, metrics off"),
    "asyncworker+metrics": Peer("ours", (), 100, "defaults, --metrics-port", "metrics"),
    "bound": Peer("bound", (), 100, "our broker under a bare loop"),
    "arq": Peer("arq", ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", *LOOP), 20, "poll_delay 5 ms"),
    "dramatiq": Peer("dramatiq", ("dramatiq==2.2.1", *REDIS), 8, "1 process of 8 threads, prefetch 100"),
    "saq": Peer("saq", ("saq==0.26.4", "typing_extensions==4.16.0", *REDIS, *LOOP), 20, "defaults"),
    "streaq": Peer("streaq", ("streaq==7.2.0", "coredis==6.9.0", *LOOP), 16, "defaults"),
    "taskiq-stream": Peer("taskiq", _TASKIQ, 100, "xread_count 1000, prefetch 1000", "stream"),
    "taskiq-list": Peer("taskiq", _TASKIQ, 100, "prefetch 1000; no acknowledgement", "list"),
}
"""The newest releases of November 2026 that fit together (arq needs redis-py below 6)."""
