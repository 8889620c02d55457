"""How safe a job is when its enqueue returns: what a producer asks of the server beyond taking the job in.

=========  ==============================================================================================
memory     the server has it; a crash of the server loses what its append-only file lacks (everysec: 1-2 s)
replica    a replica has it as well (WAIT): it outlives the master, if that replica is the one promoted
disk       it is in the append-only file, and that on disk (WAITAOF; older servers: appendfsync always)
=========  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Assurance(NamedTuple):
    """A command that follows a write over the same connection, and whether its answer is enough."""

    words: tuple[Any, ...]
    is_enough: Callable[[Any], bool]
    lack: str


REPLICA = Assurance(("WAIT", 1), lambda copies: bool(copies >= 1), "no replica has it yet")
DISK = Assurance(("WAITAOF", 1, 0), lambda synced: bool(synced[0] >= 1), "it is not on disk yet")
LEVELS = ("memory", "replica", "disk")
"""From the weakest."""
