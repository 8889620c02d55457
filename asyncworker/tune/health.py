"""How a pool of connections is, told in numbers."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True):
    """A pool at one moment.

    Attributes:
        size: wanted. in_use: lent. waiting: callers in line. opened: connections to the server.
        checked, replaced: connections that were asked now, and those of them that were closed.
        leaks: borrows that seem not to come back, now. leaks_found: since the start.
        acquire_p99_s: what callers waited for a connection, since the start.
        error: why the server could not be reached last, empty when all is well.
    """

    size: int
    in_use: int
    waiting: int
    opened: int
    checked: int
    replaced: int
    leaks: int
    leaks_found: int
    acquire_p99_s: float
    error: str
