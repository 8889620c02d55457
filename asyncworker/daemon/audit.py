"""Audit: who did what, kept with the jobs, for those who ask later.

Who acts is said by the guard for the request that is being answered (`WHO`); whatever is done meanwhile is theirs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon.answers import AuditRow
from asyncworker.daemon.text import bounded
from asyncworker.engine import Engine
from asyncworker.errors import AsyncWorkerError, KeepError

log = logging.getLogger(__name__)

LOCAL = "local"
WHO: ContextVar[str] = ContextVar("WHO", default=LOCAL)
"""The name of the token with which somebody asks; `LOCAL` where none is needed."""
LOG = "audit"
KEPT = 10_000
MOST_WAITING = 1_000
TARGET = 200


class Audit:
    """Rows in the engine's keep, the last 10,000; where it has none, in this process. What cannot be written waits."""

    def __init__(self, engine: Engine, clock: Clock = SYSTEM) -> None:
        self._engine, self._clock = engine, clock
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)

    @asynccontextmanager
    async def row(self, action: str, target: str) -> AsyncIterator[None]:
        """Write a row of what is done inside, also of what is refused."""
        outcome = "interrupted"
        try:
            yield
            outcome = "done"
        except AsyncWorkerError as exc:
            outcome = f"refused: {exc}"
            raise
        finally:
            await self._write(AuditRow(self._clock.now(), WHO.get(), action, target[:TARGET], bounded(outcome)))

    async def rows(self, limit: int) -> list[AuditRow]:
        """Return the last rows, youngest first.

        Raises:
            KeepError: the keep cannot be reached.
        """
        kept = list(self._waiting) if self._engine.keep is None else await self._engine.keep.last(LOG, limit)
        return [msgspec.json.decode(row, type=AuditRow) for row in kept[: -limit - 1 : -1]]

    async def _write(self, row: AuditRow) -> None:
        log.info("%r: %s %r: %r", row.who, row.action, row.target, row.outcome)
        self._waiting.append(msgspec.json.encode(row))
        if (keep := self._engine.keep) is None:
            return
        waiting = list(self._waiting)
        try:
            await keep.append(LOG, waiting, KEPT)
        except KeepError as exc:
            log.warning("%d audit rows cannot be kept now: %s", len(waiting), exc)
            return
        for _ in range(min(len(waiting), len(self._waiting))):
            self._waiting.popleft()
