"""Standard input as a file that a thread reads, and stops reading when nobody wants it any more."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from asyncworker.errors import SourceError

PATIENCE_S = 0.2
"""How soon a thread that waits for standard input sees that nobody wants it any more."""


class StandardInput:
    """Standard input, read in whole blocks, until it ends or nobody wants it any more."""

    def __init__(self, over: Callable[[], bool]) -> None:
        if sys.stdin is None or sys.stdin.closed:
            raise SourceError("standard input is closed: pipe something in")
        self._descriptor, self._over = sys.stdin.fileno(), over

    def read(self, size: int) -> bytes:
        parts = []
        while size and not self._over():
            if select.select([self._descriptor], [], [], PATIENCE_S)[0]:
                part = os.read(self._descriptor, size)
                if not part:
                    break
                parts.append(part)
                size -= len(part)
        return b"".join(parts)
