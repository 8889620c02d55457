"""The processors that this process may use: its affinity, which a container's CPU set narrows."""

from __future__ import annotations

import os


def usable() -> set[int]:
    """Return their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
