"""Where the time of a job went, in few numbers: made by each partition of its own, and merged as results are."""

from __future__ import annotations

import msgspec

SLOWEST = 10


class Slow(msgspec.Struct, frozen=True):
    """One of the slowest partitions; ``tries`` counts attempts and workers that died with it."""

    partition: int
    items: int
    seconds: float
    worker: str = ""
    tries: int = 1


class Digest(msgspec.Struct, frozen=True):
    """What some partitions took; seconds are sums over them.

    ``wait_s``: from when they were cut until they began. ``retries`` of partitions after errors, ``deaths`` of workers
    with one in hand, ``item_retries`` of items, ``resumed``: items that an earlier attempt had done. ``steps`` of the
    reduction that others did took ``step_s``, and the reducer ``reduce_s``. Dates, 0 where unknown: the last partition was
    cut at ``cut_until``, the first began at ``began``, the last ended at ``ended``.
    """

    partitions: int = 0
    items: int = 0
    seconds: float = 0.0
    read_s: float = 0.0
    map_s: float = 0.0
    send_s: float = 0.0
    wait_s: float = 0.0
    retries: int = 0
    deaths: int = 0
    item_retries: int = 0
    resumed: int = 0
    steps: int = 0
    step_s: float = 0.0
    reduce_s: float = 0.0
    cut_until: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    slowest: list[Slow] = []

    def __add__(self, other: Digest) -> Digest:
        slowest = sorted([*self.slowest, *other.slowest], key=lambda slow: (-slow.seconds, slow.partition))[:SLOWEST]
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        return Digest(
            **sums,
            slowest=slowest,
            cut_until=max(self.cut_until, other.cut_until),
            began=min(self.began, other.began) or max(self.began, other.began),
            ended=max(self.ended, other.ended),
        )

    @property
    def skew(self) -> float:
        """How many times as long as the mean the slowest partition took; 1 where all are alike, 0 where there is none."""
        return self.slowest[0].seconds * self.partitions / self.seconds if self.slowest and self.seconds else 0.0


_SUMS = [name for name in Digest.__struct_fields__ if name not in {"slowest", "cut_until", "began", "ended"}]
