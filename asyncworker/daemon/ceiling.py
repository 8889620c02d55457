"""A ceiling for a worker's memory: the job that breaks through it fails, rather than the machine."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)


def limit_memory(most: int) -> None:
    """Let this process, and each that it starts, take *most* bytes of memory of its own; for more, `MemoryError`.

    The kernel counts private writable memory (RLIMIT_DATA), also what was taken and not touched yet: threads' stacks, too.
    """
    _, highest = resource.getrlimit(resource.RLIMIT_DATA)
    if highest != resource.RLIM_INFINITY and highest < most:
        log.warning("memory is limited to %d MiB already", highest >> 20)
        return
    resource.setrlimit(resource.RLIMIT_DATA, (most, highest))
