"""Producers: jobs go to ENQUEUE in calls with numbers, one at a time, so that a call that is repeated is applied once."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from asyncworker.errors import BrokerError
from asyncworker.queue import parcel
from asyncworker.queue.addresses.address import Refused
from asyncworker.queue.brokers.broker import Answer
from asyncworker.queue.durability import Assurance
from asyncworker.queue.lane import Lane
from asyncworker.queue.script import Caller, Script


class Producer:
    """Sends jobs on a lane of its own, each call as safe as *assured* says.

    It is what its lane sends by (`lane.Line`), and what its link hands answers to (`link.Taker`).
    """

    def __init__(self, script: Script, assured: Assurance | None = None) -> None:
        self._script = script
        self._assured = assured
        self._wire = script.wire()
        self._name = secrets.token_hex(8)
        self._sent = 0
        self._call: Sequence[Any] = ()
        self._order: Sequence[int] = ()
        self._arrived: Callable[[list[Answer] | None], None]
        self.lane: Lane[parcel.Parcel, Answer] = Lane(self, parcel.MOST_JOBS)

    def begin(self, batch: list[parcel.Parcel], arrived: Callable[[list[Answer] | None], None]) -> bool:
        self._sent += 1
        words, self._order = parcel.runs(batch)
        self._call = (self._name, self._sent, *words)
        self._arrived = arrived
        return self._assured is None and self._script.begin(self._wire, "enqueue", self._call, self)

    async def finish(self) -> list[Answer]:
        answer = await self._script.call(self._wire, "enqueue", self._call, assured=self._assured)
        return _read(answer, self._order)

    @staticmethod
    def done() -> bool:
        return False

    def set_result(self, answer: Any) -> None:
        self._arrived(parcel.receipts(answer[1], self._order) if answer[0] == 1 else None)

    def set_exception(self, error: Exception) -> None:
        if not isinstance(error, Refused):
            self._wire.renew()
        self._arrived(None)


class BlockingProducer:
    """Sends jobs from threads, and blocks until they are there: as many calls at once as there are threads that call."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._idle: deque[_Turn] = deque()

    def send(self, batch: list[parcel.Parcel]) -> list[Answer]:
        """Send a batch that fits into one call; see `Broker.enqueue` for errors."""
        turn = self._take()
        turn.sent += 1
        words, order = parcel.runs(batch)
        try:
            return _read(turn.call("enqueue", turn.name, turn.sent, *words), order)
        finally:
            self._idle.append(turn)

    def _take(self) -> _Turn:
        with suppress(IndexError):
            while (turn := self._idle.pop()).call.inherited:
                pass
            return turn
        return _Turn(self._script.caller())


class _Turn:
    """A lane of calls that one thread at a time has."""

    def __init__(self, call: Caller) -> None:
        self.call = call
        self.name = secrets.token_hex(8)
        self.sent = 0


def _read(answer: Sequence[Any], order: Sequence[int]) -> list[Answer]:
    if answer[0] != 1:
        raise BrokerError("somebody else sends on this lane")
    return parcel.receipts(answer[1], order)
