"""What a driver is: a pool of somebody else's library, spoken to by its public words alone.

The library's pool is made once with a ceiling and never resized: none of them can do that well. How many of its
connections may be out at once, who is served next, and which of them are worth keeping is decided in front of it, by
`tune.actuators.connections`. Every other file in this folder adapts one library, has its URL's name, and has an
``open(url, ceiling, floor)``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol


class Driver(Protocol):
    """The pool of one library, open or not yet."""

    @property
    def label(self) -> str:
        """Return what people see: no secrets."""
        ...

    @property
    def ceiling(self) -> int:
        """Return the most connections that the pool may have."""
        ...

    async def start(self) -> None:
        """Make the pool; in the event loop that uses it.

        Raises:
            PoolDown: the server cannot be reached. PoolError: it refuses.
        """
        ...

    async def take(self, timeout: float) -> Any:
        """Return a connection for one user, opened now if none is idle.

        Raises:
            PoolDown: it cannot be reached now; nothing was taken. PoolError: it refuses, and will again.
            TimeoutError: *timeout* seconds are over.
        """
        ...

    async def give(self, connection: Any) -> None:
        """Give a connection back. One that is beyond repair is closed instead, without an error."""
        ...

    async def drop(self, connection: Any) -> None:
        """Close a connection instead of giving it back, without an error; from the first step on it is not `opened`."""
        ...

    async def check(self, connection: Any, timeout: float) -> bool:
        """Ask the server for a sign of life; returns whether it came within *timeout* seconds."""
        ...

    def key(self, connection: Any) -> Hashable:
        """Return what is the same each time this connection is taken, and not the same for two open ones."""
        ...

    def opened(self) -> int:
        """Return how many connections are open now, idle ones included."""
        ...

    async def close(self, timeout: float) -> None:
        """Close the pool: those given back politely, after *timeout* seconds all others."""
        ...
