"""What a keep is: a place for what should outlive a process, and be seen by others. No job lies there.

Every other file in this folder is one, with ``open(url, *, namespace)``, and `tests/contracts/test_keep.py` says what
each must do. It holds *logs*, of which the last entries stay, and *tables* of values that go when their time is over.
All of it is bounded, and gone a week after its last change. What is lost with it can be learned anew, so nobody waits
for a keep: an error is told, and the work goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

LOG_S = 7 * 86_400.0
"""How long a log stays after its last entry."""
MOST_VALUES = 4_096
"""Values in a table; of more, those that would go first are gone at once."""


class Keep(Protocol):
    """Logs and tables by name; bytes in, bytes out. Never blocks the loop.

    Raises:
        KeepError: each verb, where the place cannot be reached or used.
    """

    async def append(self, log: str, entries: Sequence[bytes], most: int) -> None:
        """Add entries at the end of a log, in this order, and let go of all but its last *most*.

        After an error nobody knows whether they were added: whoever repeats the call may see them twice.
        """
        ...

    async def last(self, log: str, most: int) -> list[bytes]:
        """Return the last *most* entries of a log, oldest first."""
        ...

    async def put(self, table: str, values: Mapping[str, bytes], ttl: float) -> None:
        """Set some values of a table; each is gone *ttl* seconds after it was last set, 0.001 or more."""
        ...

    async def values(self, table: str) -> dict[str, bytes]:
        """Return a table's values that are still there."""
        ...

    async def drop(self, table: str, name: str) -> None:
        """Let go of one value, if it is there."""
        ...

    async def close(self) -> None:
        """Give back what was opened; what is kept stays, but for a keep in memory."""
        ...
