"""An asyncio event loop on virtual time: real tasks, no waiting, the same each time.

Its selector never sleeps; it says how late it would be. A loop that would wait for ever raises: nothing is left
that could wake it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from bench.control.simulation import Capacity, Works

T = TypeVar("T")


class Deadlock(RuntimeError):
    """All tasks wait, and no timer is set."""


class _Selector(selectors.BaseSelector):
    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return self._keys[number]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("nothing is scheduled in virtual time")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only while nothing is to do."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class Backend:
    """The processor-sharing backend of `simulation.py`, to be awaited: ``await backend.call()``."""

    def __init__(self, capacity: Capacity, works: Works) -> None:
        self._capacity, self._works = capacity, works
        self._progress = self._at = 0.0
        self._under_way: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.completed = 0
        self.most = 0

    async def call(self) -> None:
        """Take as long as the capacity has it, shared with all other calls."""
        loop = asyncio.get_running_loop()
        self._advance(loop.time())
        call = loop.create_future()
        self._under_way[call] = self._progress + self._works.draw()
        self.most = max(self.most, len(self._under_way))
        self._set_timer(loop)
        try:
            await call
            self.completed += 1
        finally:
            self._advance(loop.time())
            self._under_way.pop(call, None)
            self._set_timer(loop)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def _speed(self) -> float:
        n = len(self._under_way)
        return self._capacity(n) / n

    def _advance(self, now: float) -> None:
        if self._under_way:
            self._progress += self._speed() * (now - self._at)
        self._at = now

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._under_way:
            left = min(self._under_way.values()) - self._progress
            self._timer = loop.call_later(max(0.0, left / self._speed()), self._end)

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        self._advance(loop.time())
        for call in [call for call, end in self._under_way.items() if end <= self._progress + 1e-9]:
            del self._under_way[call]
            if not call.done():
                call.set_result(None)
        self._set_timer(loop)
