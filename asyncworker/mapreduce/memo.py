"""Ask a look-up as little as can be: remember its answers, ask once for what many want, and not too often.

What was answered is remembered by this process, in bounded space and for a bounded time, and serves all partitions
that ask the same; so does the rate. One partition's items are mapped side by side: those that ask for the same key
wait for one answer, and those that ask at the same time travel together where the look-up takes many.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import SourceError
from asyncworker.mapreduce.lookups.lookup import Lookup

UNKNOWN: Any = object()
"""The answer where nothing is known of a key."""
NOT_ASKED: Any = object()
"""Stands for the answer of a key that is not remembered."""
SHELVES = 16
"""How many look-ups' answers one process remembers."""
FAILURES = 5
"""After so many fetches in a row that failed, a partition asks no more: the others would only wait as long."""


class Answers:
    """What a look-up said, the oldest forgotten first.

    Args:
        most: how many answers are kept.
        ttl_s: how long one is good.
    """

    def __init__(self, most: int, ttl_s: float) -> None:
        self.next_turn = 0.0
        """When the rate allows the next fetch, by the monotonic clock."""
        self._most, self._ttl_s = most, ttl_s
        self._kept: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def get(self, key: str, now: float) -> Any:
        """Return what was answered, or `NOT_ASKED`."""
        found = self._kept.get(key)
        if found is None or found[0] <= now:
            return NOT_ASKED
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: str, answer: Any, now: float) -> None:
        self._kept[key] = now + self._ttl_s, answer
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


_SHELVES: OrderedDict[tuple[Any, ...], Answers] = OrderedDict()


def answers_of(lookup: str, most: int, ttl_s: float) -> Answers:
    """Return what this process remembers of a look-up; kept as long as it is among the last `SHELVES` asked for."""
    name = (lookup, most, ttl_s)
    answers = _SHELVES.setdefault(name, Answers(most, ttl_s))
    _SHELVES.move_to_end(name)
    while len(_SHELVES) > SHELVES:
        _SHELVES.popitem(last=False)
    return answers


class Memo:
    """A look-up with a memory; of one partition.

    Args:
        rate: fetches a second of this process, at most; None: no bound.
    """

    def __init__(self, lookup: Lookup, answers: Answers, rate: float | None = None, clock: Clock = SYSTEM) -> None:
        self._lookup, self._answers, self._rate, self._clock = lookup, answers, rate, clock
        self._flying: dict[str, asyncio.Future[Any]] = {}
        self._gathered: list[str] = []
        self._failures = 0
        self._failed = ""

    def remembered(self, key: str) -> Any:
        """Return the answer at once: `UNKNOWN`, or `NOT_ASKED` where it must be fetched."""
        return self._answers.get(key, self._clock.monotonic())

    async def get(self, key: str) -> Any:
        """Return the answer, `UNKNOWN` where nothing is known of *key*.

        Raises:
            SourceError: the look-up cannot be asked.
        """
        while (answer := self.remembered(key)) is NOT_ASKED:
            if (flying := self._flying.get(key)) is None:
                flying = self._flying[key] = asyncio.get_running_loop().create_future()
                self._gathered.append(key)
            if self._lookup.batch > 1:
                await asyncio.sleep(0)  # who asks in this turn of the event loop travels with us
            if self._gathered:
                await self._fetch_gathered()
            try:
                answer = await asyncio.shield(flying)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flying.cancelled() or (task is not None and task.cancelling()):
                    raise
                continue  # it was cancelled who fetched it, not we: ask again
            if isinstance(answer, _Failed):
                raise SourceError(answer.why)
            return answer
        return answer

    async def close(self) -> None:
        await self._lookup.close()

    async def _fetch_gathered(self) -> None:
        most = self._lookup.batch
        keys, self._gathered = self._gathered[:most], self._gathered[most:]
        try:
            answers = await self._fetch(keys)
        except BaseException:
            for key in keys:
                self._flying.pop(key).cancel()
            raise
        for key in keys:
            self._flying.pop(key).set_result(answers[key])

    async def _fetch(self, keys: list[str]) -> dict[str, Any]:
        if self._failures >= FAILURES:
            return dict.fromkeys(keys, _Failed(self._failed))
        await self._turn()
        try:
            found = await self._lookup.fetch(keys)
        except SourceError as exc:
            self._failures, self._failed = self._failures + 1, str(exc)
            return dict.fromkeys(keys, _Failed(self._failed))
        self._failures = 0
        now = self._clock.monotonic()
        answers = {key: found.get(key, UNKNOWN) for key in keys}
        for key, answer in answers.items():
            self._answers.put(key, answer, now)
        return answers

    async def _turn(self) -> None:
        """Wait until the rate allows another fetch."""
        if self._rate is not None:
            now = self._clock.monotonic()
            at = max(self._answers.next_turn, now)
            self._answers.next_turn = at + 1 / self._rate
            await asyncio.sleep(at - now)


class _Failed:
    """Stands for an answer that could not be had."""

    def __init__(self, why: str) -> None:
        self.why = why
