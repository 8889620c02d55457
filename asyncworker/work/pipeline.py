"""Stages in a row, each with its own concurrency, which is found: a pipeline is as fast as its slowest stage.

With c_i items at once, each taking s_i seconds, a stage passes c_i / s_i items a second, so each next slot goes to
the stage with the least of that (max-min). The s_i are measured while it runs. Between stages lie bounded queues: who
is too fast waits. Around the user's functions stands one of the places where ``except Exception`` may.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Literal, get_args

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.work.executors.thread import ThreadExecutor
from asyncworker.work.stream import Outcome

OnError = Literal["raise", "skip", "collect"]
AHEAD = 2
"""Items that may wait before a stage, for each that it works on at once."""
SAMPLES = 5
"""Items that each stage has had before slots are shared out the first time."""
LOOK = 50
"""Completions of stages after which the shares are looked at again, and items over which service times are averaged."""
GAIN = 1.05
"""Shares change where the slowest stage gets this much faster."""


class Stage(msgspec.Struct, frozen=True):
    """One step: a coroutine function, or a plain one that runs in a thread; ``concurrency`` fixed, or "auto"."""

    function: Callable[[Any], Any]
    name: str = ""
    concurrency: int | Literal["auto"] = "auto"


class StageMetrics(msgspec.Struct, frozen=True):
    """What one stage has done and does."""

    name: str
    concurrency: int
    """Items that it may work on at once, now."""
    running: int
    queued: int
    """Items that wait before it."""
    done: int
    failed: int
    service_s: float
    """Mean of the latest items; 0 before the first."""
    busy_s: float
    """Seconds worked on items, added up: over concurrency and time, the share in use."""


class _Item:
    __slots__ = ("began", "error", "index", "value")

    def __init__(self, index: int, value: Any, began: float) -> None:
        self.index, self.value, self.began = index, value, began
        self.error: BaseException | None = None


class _State:
    """One stage: what outlives a run of the pipeline (numbers), and what passes through in it (queues)."""

    def __init__(self, stage: Stage, number: int, call: Callable[[Any], Awaitable[Any]]) -> None:
        self.stage, self.call = stage, call
        self.name = stage.name or getattr(stage.function, "__name__", f"stage {number}")
        self.concurrency = 1
        self.done = self.failed = self.samples = 0
        self.service_s = self.busy_s = 0.0
        self.waiting: deque[_Item] = deque()
        self.blocked: deque[_Item] = deque()  # done here, and no room in the next queue: they keep their slots
        self.serving = 0

    @property
    def has_room(self) -> bool:
        return len(self.waiting) < AHEAD * self.concurrency

    @property
    def has_slot(self) -> bool:
        return self.serving + len(self.blocked) < self.concurrency

    def measured(self, seconds: float) -> None:
        self.busy_s += seconds
        self.samples += 1
        self.service_s += (seconds - self.service_s) / min(self.samples, LOOK)


class Pipeline:
    """Pass items through stages.

    Args:
        stages: `Stage`, or functions of one argument; each gets what the one before it returned.
        workers: items under way in all stages together that have no fixed concurrency: these slots are shared out.
        on_error: ``"raise"``: the first error ends the run; ``"skip"``: failed items are left out; ``"collect"``:
            the results are `Outcome`, with each item's value or error. An item that failed goes no further.

    Raises:
        BadParameters: no stages, fewer slots than stages, or an option is out of its range.

    One run at a time. Cost: 10 us an item and stage (`bench/control/bench_pipeline.py`).
    """

    def __init__(self, *stages: Stage | Callable[[Any], Any], workers: int = 100, on_error: OnError = "raise") -> None:
        if on_error not in get_args(OnError):
            raise BadParameters(f"on_error must be 'raise', 'skip' or 'collect', not {on_error!r}")
        made = [stage if isinstance(stage, Stage) else Stage(stage) for stage in stages]
        if not made:
            raise BadParameters("a pipeline has one stage or more")
        for stage in made:
            function: object = stage.function
            if not callable(function) or (stage.concurrency != "auto" and stage.concurrency < 1):
                raise BadParameters(f"a stage is a function, with a concurrency of 1 or more: {stage!r}")
        automatic = sum(stage.concurrency == "auto" for stage in made)
        if workers < automatic:
            raise BadParameters(f"workers must be {automatic} or more, one a stage, not {workers}")
        self._workers, self._on_error = workers, on_error
        self._threads = ThreadExecutor()
        self._stages = [_State(stage, number, self._bound(stage.function)) for number, stage in enumerate(made, 1)]
        self._automatic = [state for state in self._stages if state.stage.concurrency == "auto"]
        for state in self._stages:
            if state.stage.concurrency != "auto":
                state.concurrency = state.stage.concurrency
        for state, share in zip(self._automatic, allot([1.0] * automatic, workers), strict=True):
            state.concurrency = share
        self._running = False

    def get_metrics(self) -> list[StageMetrics]:
        """Return what each stage has done and does; `StageMetrics.service_s` over ``concurrency`` tells the slowest."""
        return [
            StageMetrics(
                name=state.name,
                concurrency=state.concurrency,
                running=state.serving,
                queued=len(state.waiting),
                done=state.done,
                failed=state.failed,
                service_s=state.service_s,
                busy_s=state.busy_s,
            )
            for state in self._stages
        ]

    async def process(self, items: Iterable[Any] | AsyncIterable[Any]) -> list[Any]:
        """Pass *items* through and return what came out, in their order.

        Raises:
            Whatever a stage raised, with ``on_error="raise"``. BadParameters: this pipeline is already running.
        """
        async with aclosing(self.stream(items)) as results:
            return [result async for result in results]

    async def stream(self, items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """Yield results in the order of *items*, pulling no more of them than the stages and queues hold.

        Leaving the loop ends what is under way; use ``contextlib.aclosing`` to wait for that.

        Raises:
            As `process`.
        """
        if self._running:
            raise BadParameters("this pipeline is already running: make another")
        self._running = True
        run = _Run(self._stages, self._automatic, self._workers, stop_at_error=self._on_error == "raise")
        try:
            async with aclosing(run.items(items)) as done:
                async for item in done:
                    if self._on_error == "collect":
                        seconds = asyncio.get_running_loop().time() - item.began
                        yield Outcome(item.index, None if item.error else item.value, item.error, 1, seconds)
                    elif item.error is None:
                        yield item.value
        finally:
            self._running = False
            self._threads.close()

    def _bound(self, function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
        on_loop = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        return function if on_loop else self._threads.bind(function)


class _Run:
    """One run: a reader feeds the first stage, each item in a stage is a task, and what is done waits for its turn."""

    def __init__(self, stages: list[_State], automatic: list[_State], workers: int, *, stop_at_error: bool) -> None:
        self._stages, self._automatic, self._workers = stages, automatic, workers
        self._stop_at_error = stop_at_error
        self._fixed = sum(state.concurrency for state in stages if state not in automatic)
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: dict[int, _Item] = {}
        self._pulled = self._given = self._completions = 0
        self._exhausted = self._stopping = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()  # for the consumer
        self._wanted = asyncio.Event()  # for the reader

    async def items(self, source: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[_Item, None]:
        """Yield each item after its last stage, in the source's order; sees to it that nothing is left at the end."""
        loop = asyncio.get_running_loop()
        self._own(loop.create_task(self._read(source), name="pipeline reader"))
        try:
            while not (self._exhausted and self._given == self._pulled):
                if self._failure is not None:
                    raise self._failure
                item = self._out.pop(self._given, None)
                if item is None:
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                self._given += 1
                self._wanted.set()
                yield item
        finally:
            self._stopping = True
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            for state in self._stages:
                state.waiting.clear()
                state.blocked.clear()
                state.serving = 0

    # --- moving ----------------------------------------------------------------------------------------------

    async def _read(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        first, loop = self._stages[0], asyncio.get_running_loop()
        if isinstance(source, AsyncIterable):
            try:
                async for value in source:
                    await self._room(first)
                    self._pull(first, _Item(self._pulled, value, loop.time()))
            finally:
                if isinstance(source, AsyncGenerator):
                    await source.aclose()
        else:
            for value in source:
                await self._room(first)
                self._pull(first, _Item(self._pulled, value, loop.time()))
        self._exhausted = True
        self._changed.set()

    def _pull(self, first: _State, item: _Item) -> None:
        self._pulled += 1
        first.waiting.append(item)
        self._move()

    async def _room(self, first: _State) -> None:
        """Wait until the first queue has room, and what waits for its turn at the end is not too much."""
        window = (1 + AHEAD) * (self._fixed + self._workers)
        while not first.has_room or self._pulled - self._given >= window:
            self._wanted.clear()
            await self._wanted.wait()

    def _move(self) -> None:
        """Start and hand on whatever can be: from the last stage to the first, as room opens backwards."""
        for number in range(len(self._stages) - 1, -1, -1):
            if self._stopping:
                return
            state = self._stages[number]
            before = self._stages[number - 1].blocked if number else None
            while True:
                if state.waiting and state.has_slot and self._may_start(state):
                    self._start(number, state.waiting.popleft())
                elif before and state.has_room:
                    state.waiting.append(before.popleft())
                else:
                    break
        if self._stages[0].has_room:
            self._wanted.set()

    def _may_start(self, state: _State) -> bool:
        """Return whether there is a slot at all: a stage that gives slots away may still be using them."""
        return state.stage.concurrency != "auto" or sum(one.serving for one in self._automatic) < self._workers

    def _start(self, number: int, item: _Item) -> None:
        state = self._stages[number]
        state.serving += 1
        task = asyncio.get_running_loop().create_task(self._serve(state, item), name=f"pipeline {state.name}")
        self._own(task)
        task.add_done_callback(partial(self._served, number, item))

    async def _serve(self, state: _State, item: _Item) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            item.value = await state.call(item.value)
        except asyncio.CancelledError as exc:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            item.error = exc  # it awaited something that was cancelled: its own failure
        except Exception as exc:
            item.error = exc
        state.measured(clock() - began)

    def _served(self, number: int, item: _Item, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        state = self._stages[number]
        state.serving -= 1
        state.done += 1
        if item.error is not None:
            state.failed += 1
            if self._stop_at_error:
                self._fail(item.error)
                return
        if item.error is not None or number == len(self._stages) - 1:
            self._out[item.index] = item
            if item.index == self._given:
                self._changed.set()
        else:
            state.blocked.append(item)
        self._completions += 1
        if self._completions % LOOK == 0:
            self._share_out()
        self._move()

    def _share_out(self) -> None:
        if not self._automatic or min(state.samples for state in self._automatic) < SAMPLES:
            return
        service = [state.service_s for state in self._automatic]
        shares = allot(service, self._workers)
        if _pace(service, shares) >= GAIN * _pace(service, [state.concurrency for state in self._automatic]):
            for state, share in zip(self._automatic, shares, strict=True):
                state.concurrency = share

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)  # the source's own error

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stopping = True
        self._changed.set()


def allot(service_s: Sequence[float], workers: int) -> list[int]:
    """Share out *workers* among stages so that the slowest is as fast as can be: max-min of c_i / s_i.

    Args:
        service_s: seconds an item takes in each stage; 0 counts as next to nothing.
        workers: at least one a stage.

    Greedy, and the best there is: a share that is taken elsewhere would make the slowest no faster.
    Cost: w log n. With times measured on 50 items each, 0.96 of the best (`bench/control/bench_pipeline.py`).
    """
    if not service_s:
        return []
    shares = [1] * len(service_s)
    heap = [(1 / max(seconds, 1e-9), number) for number, seconds in enumerate(service_s)]
    heapq.heapify(heap)
    for _ in range(workers - len(shares)):
        _, number = heap[0]
        shares[number] += 1
        heapq.heapreplace(heap, (shares[number] / max(service_s[number], 1e-9), number))
    return shares


def _pace(service_s: Sequence[float], shares: Sequence[int]) -> float:
    """Return the items a second of the slowest stage."""
    return min((share / max(seconds, 1e-9) for seconds, share in zip(service_s, shares, strict=True)), default=math.inf)
