"""Near servers: whether to stay awake until an answer is here.

A server on the same machine, or the next one, has answered before a process has gone to sleep and been woken again. That
takes 20 to 50 us in a virtual machine, and about as much processor time as to look at the connection for as long ("busy
polling", as in Linux' ``net.core.busy_read``; "adaptive" as are mutexes that spin for as long as that has paid).
"""

from __future__ import annotations

import time

from asyncworker.processors import usable

NEAR_S = 150e-6
"""Where answers usually take longer, nobody stays awake for them, and no longer than this for a single one."""
RECENT_S = 1e-3
"""Nobody stays awake for the answer to a command that comes longer than so after the last answer: the server sleeps
itself then, and whom it wakes may need this processor."""
PATIENCE = 64
"""An answer that takes longer than usual counts as one of so many; one that takes less is what is usual from now on."""


class Near:
    """One connection's answers, one at a time.

    Args:
        processors: how many this process may use; alone with the server on one, it would keep it from answering.
    """

    def __init__(self, processors: int | None = None) -> None:
        self._alone = (len(usable()) if processors is None else processors) < 2
        self._usual = self._since = self._last = 0.0

    def sent(self) -> bool:
        """Say that a command is sent now; returns whether to stay awake then."""
        self._since = time.perf_counter()
        return self._usual < NEAR_S and self._since - self._last < RECENT_S and not self._alone

    def worth(self) -> bool:
        """Return whether to stay awake still."""
        return time.perf_counter() - self._since < NEAR_S

    def answered(self) -> None:
        """Say that its answer is here."""
        self._last = time.perf_counter()
        took = self._last - self._since
        self._usual = took if took < self._usual else self._usual + (took - self._usual) / PATIENCE
