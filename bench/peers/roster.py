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
    """One contender: ``bench/peers/<module>.py`` run in the environment of that name (none: the caller's own).

    ``concurrency`` 0: it finds that itself, as by default.
    """

    module: str
    pins: tuple[str, ...]
    concurrency: int
    settings: str
    variant: str = ""
    row: str = ""
    """The one question that this contender is there for; "" for all."""
    reduces: str = "client"
    """Where a fan-out is reduced: a "worker" runs the reduce as a job, or the "client" gathers."""
    share: float = 1.0
    """How much of the jobs of a drain it gets: slow ones get fewer, and a rate is a rate."""

    @property
    def ours(self) -> bool:
        """Whether this runs our code: then it drains more jobs, and is nobody's peer."""
        return not self.pins


_CELERY = ("celery==5.7.0", "kombu==5.7.0", "packaging==26.3", *REDIS)
_TASKIQ = ("taskiq==0.13.0", "taskiq-redis==1.2.4", *REDIS, *LOOP)

PEERS: dict[str, Peer] = {
    "asyncworker": Peer("ours", (), 0, "defaults, metrics off", reduces="worker"),
    "asyncworker+metrics": Peer("ours", (), 0, "defaults, --metrics-port", "metrics", reduces="worker"),
    "asyncworker+gather": Peer("ours", (), 0, "defaults, results gathered in the client", "gather", "fanout"),
    "asyncworker+blocking": Peer("ours", (), 0, "enqueue_blocking, as plain code calls it", "blocking", "queue"),
    "bound": Peer("bound", (), 100, "our broker under a bare loop", "gather"),
    "arq": Peer("arq", ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", *LOOP), 20, "poll_delay 5 ms"),
    "celery": Peer(
        "celery", _CELERY, 2, "prefork 2, acknowledged late, prefetch 64 a process", reduces="worker", share=0.25
    ),
    "celery-threads": Peer("celery", _CELERY, 100, "threads, acknowledged late, prefetch 4", "threads", "sleepers"),
    "docket": Peer(
        "docket", ("pydocket==0.27.0", *REDIS, *LOOP), 100, "check interval 100 ms, 2,000 connections", share=0.25
    ),
    "dramatiq": Peer("dramatiq", ("dramatiq==2.2.1", *REDIS), 8, "1 process of 8 threads, prefetch 100"),
    "rq": Peer("rq", ("rq==3.0.0", *REDIS), 1, "SimpleWorker: one job at a time, no fork", reduces="worker", share=0.1),
    "saq": Peer("saq", ("saq==0.26.4", "typing_extensions==4.16.0", *REDIS, *LOOP), 20, "defaults"),
    "streaq": Peer("streaq", ("streaq==7.2.0", "coredis==6.9.0", *LOOP), 16, "defaults", share=0.5),
    "taskiq-stream": Peer("taskiq", _TASKIQ, 100, "xread_count 1000, prefetch 1000", "stream"),
    "taskiq-list": Peer("taskiq", _TASKIQ, 100, "prefetch 1000; no acknowledgement", "list"),
}
"""The newest releases of November 2026 that fit together (arq needs redis-py below 6)."""


def at_once(concurrency: int) -> str:
    """Say how many jobs run at once."""
    return str(concurrency) if concurrency else "auto"


def contenders(row: str) -> dict[str, Peer]:
    """Return who takes part in a question."""
    return {name: peer for name, peer in PEERS.items() if peer.row in {"", row}}
