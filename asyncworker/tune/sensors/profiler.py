"""Where coroutines spend their time: on the loop, on the CPU, in await, or waiting for their turn. Cheap enough to leave on.

A sampling profiler of threads sees no suspended coroutine, and a tracing one makes the loop another. This one puts a
coat (`tune.metered`) on one in eight trees of tasks, by way of the loop's task factory, and on each call of what is
decorated. Time on the loop is wall time: on a busy host it is more than CPU time, so both are told, each by its name.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from time import perf_counter
from types import CodeType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import msgspec

from asyncworker.errors import AsyncWorkerError, BadParameters
from asyncworker.tune.beat import Beat
from asyncworker.tune.bottleneck import Bottleneck, bottlenecks
from asyncworker.tune.metered import MAX_CHILDREN, Meter, Metered, Record
from asyncworker.tune.sensors.sensor import Reading
from asyncworker.tune.speedscope import collapsed, speedscope

P = ParamSpec("P")
T = TypeVar("T")

SAMPLE_RATE = 1 / 8
CALLS_A_BEAT = 2
"""Calls that `PerformanceProfiler.measure` takes at most in ten milliseconds, so that its cost does not grow with the rate."""


class FunctionProfile(msgspec.Struct, frozen=True):
    """One function over its measured calls that ended; seconds.

    ``wall_s`` is the sum of ``on_loop_s``, ``await_s`` and ``ready_s``, each with what it awaited in the same task;
    ``self_s`` is on the loop, without that.
    """

    name: str
    file: str
    line: int
    calls: int
    failed: int
    steps: int
    wall_s: float
    on_loop_s: float
    self_s: float
    cpu_s: float
    await_s: float
    ready_s: float
    longest_step_s: float
    p50_s: float
    p99_s: float


class ProfileReport(msgspec.Struct, frozen=True):
    """What was measured in ``seconds`` of profiling; ``functions`` by their share of it, the largest first.

    ``tasks`` were started, ``sampled`` of them measured, in ``roots`` trees of calls and tasks that ended, whose
    critical paths are ``critical_s`` long. ``lag_s`` is what a ready callback waits for its turn by now.
    """

    seconds: float
    tasks: int
    sampled: int
    roots: int
    critical_s: float
    lag_s: float
    functions: list[FunctionProfile]


class _Factory:
    """A task factory before another one; when it is closed and cannot be taken out, it lets everything pass."""

    def __init__(self, loop: asyncio.AbstractEventLoop, profiler: PerformanceProfiler) -> None:
        self._before: Any = loop.get_task_factory()
        self._loop, self._profiler = loop, profiler
        self._open = True
        loop.set_task_factory(self)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if self._open and isinstance(coro, Coroutine):
            coro = self._profiler._sampled(coro)  # noqa: SLF001 - two halves of one thing
        if self._before is not None:
            return self._before(loop, coro, **options)
        return asyncio.Task(coro, loop=loop, **options)

    def close(self) -> None:
        self._open = False
        if self._loop.get_task_factory() is self:
            self._loop.set_task_factory(self._before)


class PerformanceProfiler:
    """Profile the running loop between `start_profiling` and `stop`, or as a context manager.

    Args:
        sample_rate: share (0..1] of the task trees that are measured; decorated functions always are.
        tasks: whether to look at each asyncio task of the loop. Without, what is handed to `measure` is measured alone.

    Attributes: ``open``: whether `measure` would take a call now; who has very many calls asks that first.

    Cost: some 0.4 microseconds a step of a measured task, 4 once, and 100 beats a second.
    """

    def __init__(self, sample_rate: float = SAMPLE_RATE, *, tasks: bool = True) -> None:
        if not 0 < sample_rate <= 1:
            raise BadParameters(f"sample_rate is {sample_rate}; it must be above 0 and at most 1")
        self._sample_rate = sample_rate
        self._look_at_tasks = tasks
        self.open = False
        self._left = self._skip = 0
        self._named: dict[str, Record] = {}
        self._meter = Meter()
        self._random = random.Random()
        self._decorated: dict[int, CodeType] = {}
        self._thread = 0
        self._factory: _Factory | None = None
        self._beat: Beat | None = None
        self._began = self._seconds = 0.0
        self._tasks = self._measured = 0

    def __repr__(self) -> str:
        state = "profiling" if self.profiling else "stopped"
        return f"<PerformanceProfiler {state}, {self._measured} of {self._tasks} tasks>"

    def __enter__(self) -> Self:
        self.start_profiling()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def profiling(self) -> bool:
        return self._beat is not None

    def start_profiling(self) -> None:
        """Measure the running loop from now on, afresh; tasks that are there already are not seen.

        Raises:
            AsyncWorkerError: it is profiling already. RuntimeError: no loop runs in this thread.
        """
        if self.profiling:
            raise AsyncWorkerError("this profiler is profiling already")
        loop = asyncio.get_running_loop()
        self._meter, self._named = Meter(), {}
        self._tasks = self._measured = 0
        self._thread = threading.get_ident()
        self._began = perf_counter()
        self._beat = Beat(loop, self._on_beat)
        self._factory = _Factory(loop, self) if self._look_at_tasks else None
        self.open, self._left = True, CALLS_A_BEAT

    def stop(self) -> None:
        """End the measuring; what was measured stays. Calls that still run count no more. Harmless when stopped."""
        if self._beat is None:
            return
        self._seconds = perf_counter() - self._began
        self._meter.open = self.open = False
        self._beat.stop()
        if self._factory is not None:
            self._factory.close()
        self._factory = self._beat = None

    def close(self) -> None:
        """Do as `stop`: what a sensor is closed by."""
        self.stop()

    def profile_async(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Measure each call of this coroutine function while profiling; a decorator.

        Raises:
            BadParameters: it is no ``async def``. Cost while not profiling: one more coroutine.
        """
        if not inspect.iscoroutinefunction(function):
            raise BadParameters(f"{getattr(function, '__qualname__', function)!r} is no coroutine function")

        @wraps(function)
        async def measured(*args: P.args, **kwargs: P.kwargs) -> T:
            coro = function(*args, **kwargs)
            meter = self._meter
            if not self.profiling or threading.get_ident() != self._thread:
                return await coro
            around = meter.current()
            if around is not None and around.cr_frame is sys._getframe():  # noqa: SLF001 - documented
                return await coro  # this very call is a measured task
            self._measured += around is None
            result: T = await Metered(coro, meter, self._record(coro), around, nested=around is not None)
            return result

        # Each decorated function has a code object of its own, by which a task of it is known.
        code = measured.__code__.replace(co_name=function.__name__)  # type: ignore[attr-defined]  # a function, whatever P
        measured.__code__ = code  # type: ignore[attr-defined]  # as above
        inner = getattr(inspect.unwrap(function), "__code__", None)
        if inner is not None:
            self._decorated[id(code)] = inner
        return measured

    def measure(self, name: str, call: T) -> T:
        """Return *call*, a coroutine about to be awaited in this loop, in a coat if it is one of those to be measured.

        It is accounted for under *name*, one of few. Cost: 0.1 us for most calls, and 5 us for one that is measured,
        which are some hundred a second at most.
        """
        if not self.open:
            return call
        self._tasks += 1
        self._skip -= 1
        if self._skip >= 0 or not isinstance(call, Coroutine):
            return call
        self._skip = int(self._random.random() * (2 / self._sample_rate - 1))
        self._left -= 1
        self.open = self._left > 0
        self._measured += 1
        record = self._named.get(name)
        if record is None:
            record = self._named[name] = self._meter.named(name, call)
        around = self._meter.current()
        measured: Any = Metered(call, self._meter, record, around, nested=around is not None)
        return cast("T", measured)

    def _on_beat(self, lag: float) -> None:
        self._meter.on_beat(lag)
        self.open, self._left = True, CALLS_A_BEAT

    def get_profile_report(self) -> ProfileReport:
        """Return what has been measured so far, or until it was stopped."""
        functions = sorted(map(_told, self._meter.records.values()), key=lambda of: of.wall_s, reverse=True)
        return ProfileReport(
            perf_counter() - self._began if self.profiling else self._seconds,
            self._tasks,
            self._measured,
            self._meter.roots,
            sum(self._meter.stacks.values()),
            self._meter.lag,
            [of for of in functions if of.calls],
        )

    def analyze_bottlenecks(self, limit: int = 10) -> list[Bottleneck]:
        """Return what took the most of the critical paths, with advice where the numbers bear it.

        Summed time says little: a hundred calls side by side cost their caller what the slowest costs.
        """
        return bottlenecks(self._meter.stacks, {of.label: of for of in self._meter.records.values()})[:limit]

    def speedscope(self, name: str = "critical paths") -> bytes:
        """Return the critical paths as a file for https://www.speedscope.app; weights in seconds."""
        return speedscope(self._meter.stacks, {of.label: of.frame for of in self._meter.records.values()}, name)

    def collapsed(self) -> str:
        """Return the critical paths as collapsed stacks, in microseconds."""
        return collapsed(self._meter.stacks)

    def read(self) -> Sequence[Reading]:
        """Return the time of all measured calls by kind; not by function, as their names are no closed set."""
        records = list(self._meter.records.copy().values())
        kinds = {
            "cpu": sum(of.cpu_s for of in records if not of.nested),
            "on_loop": sum(of.own_loop for of in records),
            "await": sum(of.await_s for of in records if not of.nested),
            "ready": sum(of.ready for of in records if not of.nested),
        }
        return [Reading("profiled_seconds_total", seconds, (("kind", kind),)) for kind, seconds in kinds.items()]

    def _sampled(self, coro: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of a new task, in a coat if it is to be measured."""
        self._tasks += 1
        meter = self._meter
        parent = meter.current()
        if parent is not None and parent.children < MAX_CHILDREN:
            parent.children += 1
        elif self._random.random() < self._sample_rate:
            parent = None
        else:
            return coro
        self._measured += 1
        return Metered(coro, meter, self._record(coro), parent, nested=False)

    def _record(self, coro: Coroutine[Any, Any, Any]) -> Record:
        code = getattr(coro, "cr_code", None)
        return self._meter.record(coro, self._decorated.get(id(code), code))


def _told(of: Record) -> FunctionProfile:
    return FunctionProfile(
        *of.frame,
        of.calls,
        of.failed,
        of.steps,
        of.walls.sum,
        of.on_loop,
        of.own_loop,
        of.cpu_s,
        of.await_s,
        of.ready,
        of.longest,
        of.walls.quantile(0.5),
        of.walls.quantile(0.99),
    )
