"""A coroutine in a coat that notes when it runs, waits, and waits for its turn; and what that means for who awaits it.

Each step of a coroutine lies between two of its waits, and a wait ends with a delay until the loop comes round:
``wall = on loop + await + ready``. The first two are measured. The delay is known for a first step and after a bare
yield; after other waits nobody tells when the future was done, so it is taken from the beat (`tune.beat`): what
a callback that fell due in these moments had to wait.

A *root* is measured with what it awaits and with the tasks it starts, and its whole wall time is laid on its
**critical path**: to the function that ran, or was waited in, at each moment. A wait that ended just as one of the
root's own tasks did was a wait for that task, and is laid on the path of the one that ended last.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from itertools import islice
from time import perf_counter, thread_time
from types import CodeType, FrameType, GeneratorType
from typing import Any, Self

from asyncworker.tune.histogram import LogHistogram

ON_LOOP, AWAIT, READY = "[on loop]", "[await]", "[ready]"
OTHER = "[other]"
"""Stands for the stacks and functions beyond the number that is kept apart."""

CLOCK_FROM_S = 100e-6
"""Steps that take longer on average have the thread's clock read at each; it costs a system call, about 1 microsecond."""
CLOCK_FIRST = 8
"""As long as fewer are known of a function, one step in so many has it read, the very first among them."""
CLOCK_ONE_IN = 251
"""Of short steps; a prime, so that it is not always the same step of tasks that have few."""
CLOCK_STRIDE = 37
"""From one call's first such step to the next one's, so that calls which begin together do not all read it."""
AT_ONCE_S = 0.001
"""A task that ended at most so long (or a few lags) before its parent went on is what the parent waited for."""
MAX_CHILDREN = 64
"""Tasks of one root that are measured with it; those of a loop that starts tasks for ever are roots of their own."""
MAX_DEPTH = 32
MAX_STACKS = 2_000
MAX_RECORDS = 2_000

Stack = tuple[str, ...]
Frame = tuple[str, str, int]


class Record:
    """What is known of one function, summed over the calls that ended; times in seconds."""

    __slots__ = (
        "calls", "clocked", "clocked_loop", "code", "cpu", "every", "failed", "frame", "label", "longest", "nested", "on_loop",
        "own_loop", "_phase", "ready", "stacks", "steps", "walls",
    )  # fmt: skip

    def __init__(self, code: CodeType | None, frame: Frame) -> None:
        self.code, self.frame = code, frame
        self.label = f"{frame[0]} ({frame[1].rpartition('/')[2]}:{frame[2]})".replace(";", ",")
        self.calls = self.failed = self.nested = self.steps = self.clocked = 0
        self.on_loop = self.own_loop = self.clocked_loop = self.cpu = self.ready = self.longest = 0.0
        self.walls = LogHistogram()
        self.stacks: tuple[Stack, Stack, Stack] = ((self.label, ON_LOOP), (self.label, AWAIT), (self.label, READY))
        self.every = CLOCK_FIRST
        """The thread's clock is read at one step in so many."""
        self._phase = -CLOCK_STRIDE

    @property
    def cpu_s(self) -> float:
        """The CPU time: read for some steps, and for the others in the same proportion to their time on the loop."""
        return self.cpu / self.clocked_loop * self.on_loop if self.clocked_loop else 0.0

    @property
    def await_s(self) -> float:
        return max(0.0, self.walls.sum - self.on_loop - self.ready)

    def first(self) -> int:
        """Return how many steps a call takes until the thread's clock is read, 0 for the first call."""
        self._phase = (self._phase + CLOCK_STRIDE) % self.every
        return self._phase

    def clock(self, took: float, cpu: float) -> None:
        """Take in the CPU time of a step, and say how often it is read."""
        self.clocked += 1
        self.clocked_loop += took
        self.cpu += min(cpu, took)
        if self.clocked_loop > CLOCK_FROM_S * self.clocked:
            self.every = 1
        else:
            self.every = CLOCK_FIRST if self.clocked < CLOCK_FIRST else CLOCK_ONE_IN


class Meter:
    """What the metered coroutines of one loop share.

    Attributes: ``active`` is the one that was stepped last (`current`: the one being stepped), ``lag`` a running mean of the beat's lag, ``stacks`` the critical
    paths of the roots that ended, ``open`` whether anything is noted at all.
    """

    __slots__ = ("active", "lag", "open", "records", "roots", "stacks")

    def __init__(self) -> None:
        self.active: Metered | None = None
        self.lag = 0.0
        self.records: dict[int, Record] = {}
        self.stacks: dict[Stack, float] = {}
        self.roots = 0
        self.open = True

    def on_beat(self, lag: float) -> None:
        self.lag += (lag - self.lag) * 0.1

    def current(self) -> Metered | None:
        """Return the one being stepped, innermost; None where nothing that is measured runs."""
        return self.active if self.active is not None and self.active.running else None

    def record(self, coro: Coroutine[Any, Any, Any], code: CodeType | None) -> Record:
        """Return the record of this code; by identity, as hashing code reads all of it."""
        key = id(code or type(coro))
        found = self.records.get(key)
        if found is None and len(self.records) >= MAX_RECORDS:  # code that is made anew again and again
            found = self.records.setdefault(0, Record(None, (OTHER, "", 0)))
        elif found is None:
            name = getattr(coro, "__qualname__", type(coro).__qualname__)
            frame = (name, code.co_filename, code.co_firstlineno) if code else (name, type(coro).__module__, 0)
            found = self.records[key] = Record(code, frame)
        return found

    def named(self, name: str, coro: Coroutine[Any, Any, Any]) -> Record:
        """Return a new record, told of as *name* at the place of this coroutine's code."""
        code = getattr(coro, "cr_code", None)
        frame = (name, code.co_filename, code.co_firstlineno) if code else (name, "", 0)
        record = self.records[-1 - len(self.records)] = Record(code, frame)  # no code has such an id
        return record

    def settle(self, path: dict[Stack, float]) -> None:
        """Take in the critical path of a root."""
        self.roots += 1
        stacks = self.stacks
        for stack, seconds in path.items():
            before = stacks.get(stack)
            if before is None and len(stacks) >= MAX_STACKS:
                stack = (OTHER, stack[-1])
                before = stacks.get(stack)
            stacks[stack] = seconds if before is None else before + seconds


class Metered(islice, Coroutine[Any, Any, Any]):  # type: ignore[type-arg]  # it cannot be subscripted
    """A coroutine that behaves as the one it wraps, frames and name included, and accounts for each step.

    Args:
        parent: whose critical path this may lie on: who awaits it (``nested``), or who started it as a task.

    Who steps it steps a generator at once: ``send`` is that generator's own, and asyncio, which would rather call
    ``__next__``, gets there through `islice`, which is in C and hands on what its iterator returns. Between two steps no
    line of Python runs but the generator's, on local names, and what can be told at the end is not summed up before:
    the delays of bare yields are what is left of the wall time.

    Cost: two clock readings and about 0.15 us a step, and 4 us once.
    """

    __slots__ = (
        "__name__", "__qualname__", "_closing", "_coro", "_generator", "_meter", "_nested", "_parent", "beside", "child",
        "children", "created_at", "delegated", "ended_at", "inner", "inner_ready", "lent", "path", "record", "send",
    )  # fmt: skip
    send: Callable[[Any], Any]
    _generator: GeneratorType[Any, Any, Any]

    def __new__(
        cls, coro: Coroutine[Any, Any, Any], meter: Meter, record: Record, _: Metered | None, *, nested: bool
    ) -> Self:
        generator = _stepped(coro, meter, record, nested=nested)
        assert isinstance(generator, GeneratorType)
        self = super().__new__(cls, generator, None)
        self._generator = generator
        return self

    def __init__(
        self, coro: Coroutine[Any, Any, Any], meter: Meter, record: Record, parent: Metered | None, *, nested: bool
    ) -> None:
        self._coro, self._meter, self.record = coro, meter, record
        self._parent, self._nested = parent, nested
        self.__name__ = getattr(coro, "__name__", record.frame[0])
        self.__qualname__ = getattr(coro, "__qualname__", record.frame[0])
        self.child: Metered | None = None
        self.path: dict[Stack, float] = {}
        self.children = 0
        self.inner = self.inner_ready = self.lent = self.beside = self.ended_at = 0.0
        self.delegated = self._closing = False
        self.created_at = perf_counter()
        self.send = send = self._generator.send
        send(None)
        send(self)  # up to where steps begin, so that it can also be thrown at

    def __repr__(self) -> str:
        return f"<Metered {self._coro!r}>"

    @property
    def cr_frame(self) -> FrameType | None:
        return getattr(self._coro, "cr_frame", None)

    @property
    def cr_code(self) -> CodeType | None:
        return getattr(self._coro, "cr_code", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._coro, "cr_await", None)

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._coro, "cr_running", False))

    @property
    def cr_origin(self) -> Any:
        return getattr(self._coro, "cr_origin", None)

    @property
    def cr_suspended(self) -> bool:
        return bool(getattr(self._coro, "cr_suspended", False))

    @property
    def running(self) -> bool:
        """Whether this is being stepped."""
        return self._generator.gi_running

    def clocked(self, value: Any) -> Any:
        """Step with the thread's clock read as well; what that takes is no part of the step."""
        entered, cpu, began = perf_counter(), thread_time(), perf_counter()
        try:
            return self._coro.send(value)
        finally:
            left = perf_counter()
            self.record.clock(left - began, thread_time() - cpu)
            self.beside += began - entered + perf_counter() - left

    def throw(self, *error: Any) -> Any:
        return self._generator.throw(*error)

    def close(self) -> None:
        self._coro.close()
        self._closing = True
        self._generator.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._generator

    def joined(self, left: float, began: float) -> float:
        """Return how much of a wait, in which a task of this one ended, was for its turn; lay the rest on that one's path."""
        gap, lag = began - left, self._meter.lag
        child, self.child = self.child, None
        if child is None or child.ended_at <= left or began - child.ended_at > max(AT_ONCE_S, 3 * lag):
            return lag
        delay = began - child.ended_at
        shared = min(gap - delay, child.ended_at - child.created_at)
        self.take(child, shared)
        self.lent += shared
        return delay

    def take(self, other: Metered, seconds: float) -> None:
        """Lay *seconds* of the path of another on one's own, in its proportions."""
        whole = sum(other.path.values())
        for stack, part in other.path.items():
            key = (self.record.label, *stack) if len(stack) < MAX_DEPTH else stack
            self.path[key] = self.path.get(key, 0.0) + (part * seconds / whole if whole else 0.0)

    def end(
        self, now: float, steps: int, on_loop: float, longest: float, awaited: float, within: float, *, failed: bool
    ) -> None:
        self.ended_at = now
        meter, record, parent, path = self._meter, self.record, self._parent, self.path
        self._parent = self.child = None
        if meter.active is self:
            meter.active = None
        on_loop -= self.beside
        wall, own_loop = now - self.created_at, on_loop - self.inner
        ready = wall - on_loop - awaited - within
        awaited -= self.lent
        of_loop, of_await, of_ready = record.stacks
        if own_loop > 0:
            path[of_loop] = path.get(of_loop, 0.0) + own_loop
        if awaited > 0:
            path[of_await] = path.get(of_await, 0.0) + awaited
        if ready > 0:
            path[of_ready] = path.get(of_ready, 0.0) + ready
        if meter.open:
            record.calls += 1
            record.failed += failed
            record.nested += self._nested
            record.steps += steps
            record.on_loop += on_loop
            record.own_loop += own_loop
            record.ready += ready + self.inner_ready
            if longest > record.longest:  # noqa: PLR1730 - a call of max costs as much as a clock
                record.longest = longest
            record.walls.add(wall)
        if parent is not None and not parent.ended_at:
            if self._nested:
                parent.take(self, wall)
                parent.inner_ready += ready + self.inner_ready
            else:
                parent.child = self
                return  # whose path is wanted yet
        elif meter.open:
            meter.settle(path)
        self.path = {}


def _stepped(coro: Coroutine[Any, Any, Any], meter: Meter, record: Record, *, nested: bool) -> Generator[Any, Any, Any]:
    """Step what is wrapped, each time that this is stepped; the first thing that is sent is the `Metered` itself."""
    self: Metered = yield
    send, clock = coro.send, perf_counter
    step: Callable[[Any], Any] = send
    error: BaseException | None = None
    result, steps = None, 0
    on_loop = longest = awaited = within = 0.0  # within: between steps, while what is awaited in place tells of it
    left = self.created_at
    parent = self._parent
    odd = parent is not None  # there is more to do after a step
    due, turns, every = False, record.first(), record.every
    while error is None:
        turn = -1
        for turn in range(turns):  # noqa: B007 - it is used after the loop
            try:
                value = yield result
            except GeneratorExit:
                if not self._closing:  # it is forgotten, and so is the coroutine
                    raise
                left, steps, error = clock(), steps - 1, GeneratorExit()
                break
            except BaseException as exc:
                step, value = coro.throw, exc
            meter.active = self
            began = clock()
            if result is not None or self.delegated:
                gap = began - left
                if self.delegated:
                    self.delegated = False
                    within += gap
                else:
                    gap -= meter.lag if self.child is None else self.joined(left, began)
                    if gap > 0:
                        awaited += gap
            try:
                result = step(value)
            except BaseException as exc:
                error, odd = exc, True
            left = clock()
            took = left - began
            on_loop += took
            if took > longest:  # noqa: PLR1730 - a call of max costs as much as a clock
                longest = took
            if odd:
                if parent is not None:
                    inside = parent.running
                    meter.active = parent if inside else None
                    if nested and inside:
                        parent.inner += took
                        parent.delegated = error is None
                if error is not None:
                    break
            step = send
        steps += turn + 1
        if due:
            due, turns, every = False, record.every - 1, record.every
        elif record.every <= every:
            step, due, turns = self.clocked, True, 1
        else:  # meanwhile it need not be read so often
            turns, every = record.first(), record.every
    self.end(left, steps, on_loop, longest, awaited, within, failed=not isinstance(error, StopIteration))
    try:
        if isinstance(error, StopIteration):
            return error.value
        if not self._closing:
            raise error
    finally:
        error = None  # its traceback holds this frame
