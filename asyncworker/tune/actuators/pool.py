"""Worker coroutines over one line of work, as many as the work needs: grown and shrunk while they work.

    async with ResourcePool(2, 20) as pool:
        page = await pool.run(fetch, "https://example.org")

A worker that is too many leaves when it has finished what it has in hand; one that is missing begins at once. How busy
they are is measured time, not the share of workers that happen to be there.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import msgspec

from asyncworker import registry
from asyncworker.errors import BadParameters, PoolClosed
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.levels import Level, LevelsPolicy
from asyncworker.tune.policies.policy import Observation, ScalerPolicy, check_bounds
from asyncworker.tune.tuner import Tuner

P = ParamSpec("P")
T = TypeVar("T")

LOOK_S = 0.5
LOOKS = 6
"""Looks over which utilisation is averaged."""
DRAIN_S = 1.0
"""Seconds that work may wait here, for the default policy: a caller stands behind it."""
LOADS = {Level.LOW: 0.2, Level.MEDIUM: 0.5, Level.HIGH: 0.9, Level.CRITICAL: 1.5}
"""What `simulate_load` takes a level for: work for so large a share of all workers there may be."""
PIECE_S = 0.02


class Rehearsal(msgspec.Struct, frozen=True):
    """What a simulated load came to: workers and their utilisation at its end, and the longest that a piece waited."""

    workers: int
    utilization: float
    longest_wait_s: float


class _Piece:
    __slots__ = ("came", "context", "future", "start")

    def __init__(self, start: Callable[[], Coroutine[Any, Any, Any]], future: asyncio.Future[Any], came: float) -> None:
        self.start, self.future, self.came = start, future, came
        self.context = contextvars.copy_context()


class ResourcePool:
    """Run work on *min_workers* to *max_workers* coroutines.

    Args:
        policy: says how many, twice a second: an instance, the name of a file in ``tune/policies`` of the scaler
            kind, or None for as many as `resize` was told.
        name: how decisions speak of it.
        decisions: where changes are noted; by default in a log of its own.

    Cost: some 30 us a piece.
    """

    def __init__(
        self,
        min_workers: int = 1,
        max_workers: int = 10,
        policy: ScalerPolicy | str | None = "levels",
        *,
        name: str = "pool",
        decisions: Decisions | None = None,
    ) -> None:
        check_bounds(min_workers, max_workers)
        self.name, self.low, self.high = name, min_workers, max_workers
        if policy == "levels":
            policy = LevelsPolicy(low=min_workers, high=max_workers, drain=DRAIN_S)
        elif isinstance(policy, str):
            policy = registry.find("policy", policy).open(low=min_workers, high=max_workers)
            assert not isinstance(policy, str)
        self._tuner = Tuner(self, self._sense, policy, decisions=decisions) if policy is not None else None
        self._size = min_workers
        self._crew: set[asyncio.Task[None]] = set()
        self._line: deque[_Piece] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._busy = 0
        self._open = False
        self._tending: asyncio.Task[None] | None = None
        self._measured = 0.0
        self._busy_s = self._there_s = 0.0  # worker seconds at work, and in all
        self._looks: deque[tuple[float, float, float]] = deque(maxlen=LOOKS)
        self._arrivals = self._ended = 0
        self._held_s = 0.0

    # --- an actuator --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._size

    @property
    def in_use(self) -> int:
        """Return how many workers have something in hand."""
        return self._busy

    @property
    def waiting(self) -> int:
        return len(self._line)

    def resize(self, size: int) -> None:
        """Want *size* workers from now on, within the bounds; nobody is interrupted."""
        self._size = min(max(size, self.low), self.high)
        self._measure()
        for _ in range(self._size - len(self._crew) if self._open else 0):
            worker = asyncio.create_task(self._work(), name=f"{self.name}: worker")
            self._crew.add(worker)
            worker.add_done_callback(self._crew.discard)
        self._wake(len(self._crew) - self._size)

    # --- open and closed ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._open or self._crew:
            raise PoolClosed(f"{self.name} is open already, or still closing")
        self._open = True
        self._measured = asyncio.get_running_loop().time()
        self._looks.append((self._measured, self._busy_s, self._there_s))
        self.resize(self._size)
        if self._tuner is not None:
            self._tending = asyncio.create_task(self._tuner.run(LOOK_S), name=f"{self.name}: tuner")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close(drain=kind is None)

    async def close(self, *, drain: bool = True) -> None:
        """Take no more work; finish what is in line first, or cancel that and what is in hand."""
        self._open = False
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
            self._tending = None
        crew = set(self._crew)
        if not drain:
            self._cancel(crew)
        self._wake(len(self._idle))
        try:
            if crew:
                await asyncio.wait(crew)
        finally:
            self._cancel({worker for worker in crew if not worker.done()})

    def _cancel(self, crew: set[asyncio.Task[None]]) -> None:
        for worker in crew:
            worker.cancel()
        while self._line:
            self._line.popleft().future.cancel()

    # --- work ---------------------------------------------------------------------------------------------------

    async def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have a worker call ``function(*args, **kwargs)`` and return or raise what it does, in the order of calls.

        Cancelling it cancels the work.
        """
        return await self.submit(function, *args, **kwargs)

    def submit(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Put work in the line, however long that is; returns its future.

        Raises:
            PoolClosed: the pool is not open.
        """
        if not self._open:
            raise PoolClosed(f"{self.name} is not open")

        async def start() -> T:
            return await function(*args, **kwargs)

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._line.append(_Piece(start, future, loop.time()))
        self._arrivals += 1
        self._wake(1)
        return future

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            if not (turn := self._idle.pop()).done():
                turn.set_result(None)

    async def _work(self) -> None:
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None
        while len(self._crew) <= self._size and (self._open or self._line):
            if not self._line:
                turn = loop.create_future()
                self._idle.append(turn)
                await turn
                continue
            piece = self._line.popleft()
            if piece.future.done():
                continue
            self._measure()
            self._busy += 1
            began = loop.time()
            try:
                await self._call(piece)
            finally:
                self._measure()
                self._busy -= 1
                self._ended += 1
                self._held_s += loop.time() - began
        self._measure()
        self._crew.discard(this)

    async def _call(self, piece: _Piece) -> None:
        """Run a piece as a task of its own, so that whatever it raises is its caller's alone."""
        task = asyncio.get_running_loop().create_task(piece.start(), name=f"{self.name}: piece", context=piece.context)
        piece.future.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)
        try:
            await asyncio.wait([task])
        finally:
            if not task.done():  # the worker itself was cancelled
                task.cancel()
                await asyncio.wait([task])
            error = None if task.cancelled() else task.exception()
            if not piece.future.done():
                if task.cancelled():
                    piece.future.cancel()
                elif error is not None:
                    piece.future.set_exception(error)
                else:
                    piece.future.set_result(task.result())

    # --- how busy -----------------------------------------------------------------------------------------------

    def get_active_workers(self) -> int:
        """Return how many workers there are; for a while more than `size`, while those leaving finish their work."""
        return len(self._crew)

    def get_utilization(self) -> float:
        """Return the share of their time that the workers were at work lately, 0..1: the last 2.5 to 3 s."""
        self._measure()
        _, busy, there = self._looks[0] if self._looks else (0.0, 0.0, 0.0)
        return (self._busy_s - busy) / (self._there_s - there) if self._there_s > there else 0.0

    @property
    def level(self) -> Level | None:
        """Return how pressing the work is; None where the policy knows no levels."""
        policy = self._tuner.policy if self._tuner is not None else None
        return policy.level if isinstance(policy, LevelsPolicy) else None

    async def simulate_load(self, load: Level | str | float, seconds: float = 3.0) -> Rehearsal:
        """Send work that only waits through the pool, to see how it would scale; other work goes on beside it.

        Args:
            load: a level, or the share of *max_workers* that it would keep busy, 0..10.

        Raises:
            BadParameters: no such level or share.
        """
        share = self._share(load)
        loop = asyncio.get_running_loop()
        ends, longest, left = loop.time() + seconds, 0.0, 0.0
        pieces: set[asyncio.Future[None]] = set()

        async def piece(came: float) -> None:
            nonlocal longest
            longest = max(longest, loop.time() - came)
            await asyncio.sleep(PIECE_S)

        try:
            last = loop.time()
            while (now := loop.time()) < ends:
                left += share * self.high * (now - last) / PIECE_S
                last = now
                while left >= 1:
                    future = self.submit(piece, now)
                    pieces.add(future)
                    future.add_done_callback(pieces.discard)
                    left -= 1
                await asyncio.sleep(PIECE_S / 4)
            return Rehearsal(len(self._crew), self.get_utilization(), longest)
        finally:
            for future in list(pieces):
                future.cancel()

    @staticmethod
    def _share(load: Level | str | float) -> float:
        if isinstance(load, str):
            if load.lower() not in LOADS:
                raise BadParameters(f"a load is one of {', '.join(LOADS)}, or a share, not {load!r}")
            return LOADS[Level(load.lower())]
        if not 0 <= load <= 10:
            raise BadParameters(f"a share of all workers is 0..10, not {load}")
        return load

    def _sense(self) -> Observation:
        now = asyncio.get_running_loop().time()
        utilization = self.get_utilization()
        began = self._looks[-1][0] if self._looks else now - LOOK_S
        elapsed = max(1e-6, now - began)
        self._looks.append((now, self._busy_s, self._there_s))
        arrivals, ended, held = self._arrivals, self._ended, self._held_s
        self._arrivals = self._ended = 0
        self._held_s = 0.0
        return Observation(
            t=now,
            size=self._size,
            arrivals=arrivals / elapsed,
            completions=ended / elapsed,
            waiting=len(self._line),
            oldest_s=now - self._line[0].came if self._line else 0.0,
            busy=utilization,
            service_s=held / ended if ended else 0.0,
        )

    def _measure(self) -> None:
        """Add up worker seconds; called whenever how many there are, or are busy, changes."""
        if self._crew:
            now = asyncio.get_running_loop().time()
            self._busy_s += self._busy * (now - self._measured)
            self._there_s += len(self._crew) * (now - self._measured)
            self._measured = now
