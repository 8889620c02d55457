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
from time import perf_counter, thread_time
from types import CodeType, FrameType
from typing import Any

from asyncworker.tune.histogram import LogHistogram

ON_LOOP, AWAIT, READY = "[on loop]", "[await]", "[ready]"
OTHER = "[other]"
"""Stands for the stacks and functions beyond the number that is kept apart."""

CLOCK_FROM_S = 100e-6
"""Steps that take longer on average have the thread's clock read at each; it costs a system call, about 1 microsecond."""
CLOCK_ONE_IN = 64
CLOCK_FIRST = 8
"""The first steps of each function are all clocked."""
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
        "calls", "clocked", "clocked_loop", "code", "cpu", "failed", "frame", "label", "longest", "nested", "on_loop",
        "own_loop", "ready", "steps", "turn", "walls",
    )  # fmt: skip

    def __init__(self, code: CodeType | None, frame: Frame) -> None:
        self.code, self.frame = code, frame
        self.label = f"{frame[0]} ({frame[1].rpartition('/')[2]}:{frame[2]})".replace(";", ",")
        self.calls = self.failed = self.nested = self.steps = self.clocked = 0
        self.on_loop = self.own_loop = self.clocked_loop = self.cpu = self.ready = self.longest = 0.0
        self.walls = LogHistogram()
        self.turn = 0
        """Steps left until the thread's clock is read; in 0..CLOCK_ONE_IN."""

    @property
    def cpu_s(self) -> float:
        """The CPU time: read for some steps, and for the others in the same proportion to their time on the loop."""
        return self.cpu / self.clocked_loop * self.on_loop if self.clocked_loop else 0.0

    @property
    def await_s(self) -> float:
        return max(0.0, self.walls.sum - self.on_loop - self.ready)


class Meter:
    """What the metered coroutines of one loop share.

    Attributes: ``active`` is the one being stepped, ``lag`` a running mean of the beat's lag, ``stacks`` the critical
    paths of the roots that ended, ``open`` whether anything is noted at all.
    """

    def __init__(self) -> None:
        self.active: Metered | None = None
        self.lag = 0.0
        self.records: dict[int, Record] = {}
        self.stacks: dict[Stack, float] = {}
        self.roots = 0
        self.open = True

    def on_beat(self, lag: float) -> None:
        self.lag += (lag - self.lag) * 0.1

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
        for stack, seconds in path.items():
            key = stack if stack in self.stacks or len(self.stacks) < MAX_STACKS else (OTHER, stack[-1])
            self.stacks[key] = self.stacks.get(key, 0.0) + seconds


class Metered(Coroutine[Any, Any, Any]):
    """A coroutine that behaves as the one it wraps, frames and name included, and accounts for each step.

    Args:
        parent: whose critical path this may lie on: who awaits it (``nested``), or who started it as a task.

    Who steps it steps a generator at once: ``send`` is that generator's own, and there is no ``__next__``, which asyncio
    would rather call. Between two steps no line of Python runs but the generator's, on local names.

    Cost: two clock readings and about a quarter of a microsecond a step.
    """

    __slots__ = (
        "__name__", "__qualname__", "_closing", "_coro", "_generator", "_meter", "_nested", "_parent", "awaited", "child",
        "children", "created_at", "delegated", "ended_at", "inner", "inner_ready", "left_at", "longest", "on_loop",
        "path", "ready", "record", "send", "steps",
    )  # fmt: skip
    send: Callable[[Any], Any]

    def __init__(
        self, coro: Coroutine[Any, Any, Any], meter: Meter, record: Record, parent: Metered | None, *, nested: bool
    ) -> None:
        self._coro, self._meter, self.record = coro, meter, record
        self._parent, self._nested = parent, nested
        self.__name__ = getattr(coro, "__name__", record.frame[0])
        self.__qualname__ = getattr(coro, "__qualname__", record.frame[0])
        self.child: Metered | None = None
        self.path: dict[Stack, float] = {}
        self.steps = self.children = 0
        self.on_loop = self.inner = self.inner_ready = self.ready = self.awaited = self.longest = 0.0
        self.delegated = self._closing = False
        self.ended_at = 0.0
        self._generator = self._stepped()
        self.send = self._generator.send
        self.send(None)  # up to where steps begin, so that it can also be thrown at
        self.created_at = self.left_at = perf_counter()

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

    def _stepped(self) -> Generator[Any, Any, Any]:
        """Step what is wrapped, each time that this is stepped."""
        coro, meter, record, nested, clock = self._coro, self._meter, self.record, self._nested, perf_counter
        step = send = coro.send
        error: BaseException | None = None
        result, plain = None, True
        steps, accounted, turn = 0, 0, record.turn
        on_loop = ready = longest = left = 0.0
        while error is None:
            try:
                value = yield result
            except GeneratorExit:
                if not self._closing:  # it is forgotten, and so is the coroutine
                    raise
                left, error = clock(), GeneratorExit()
                break
            except BaseException as exc:
                step, value = coro.throw, exc
            outer = meter.active
            meter.active = self
            turn -= 1
            cpu = thread_time() if turn < 0 else 0.0
            began = clock()
            if plain:
                ready += began - (left or self.created_at)
            elif self.delegated:
                self.delegated = False
            else:
                self._waited(began, left)
            try:
                result = step(value)
            except BaseException as exc:
                error = exc
            left = clock()
            meter.active = outer
            took = left - began
            on_loop += took
            self.steps = steps = steps + 1
            if took > longest:  # noqa: PLR1730 - a call of max costs as much as a clock
                longest = took
            if turn < 0:
                turn, accounted = self._clocked(took, thread_time() - cpu), steps
            if nested and outer is not None:
                outer.inner += took
                outer.delegated = error is None
            plain = result is None and not self.delegated
            step = send
        record.turn -= steps - accounted
        self.on_loop, self.longest, self.left_at = on_loop, longest, left
        self.ready += ready
        self._end(failed=not isinstance(error, StopIteration))
        try:
            if isinstance(error, StopIteration):
                return error.value
            if not self._closing:
                raise error
        finally:
            error = None  # its traceback holds this frame

    def throw(self, *error: Any) -> Any:
        return self._generator.throw(*error)

    def close(self) -> None:
        self._coro.close()
        self._closing = True
        self._generator.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._generator

    def _waited(self, began: float, left: float) -> None:
        """Share out the wait that has just ended, between awaiting and being ready."""
        gap, lag = began - left, self._meter.lag
        child, self.child = self.child, None
        if child is not None and child.ended_at > left and began - child.ended_at <= max(AT_ONCE_S, 3 * lag):
            delay = began - child.ended_at
            shared = min(gap - delay, child.ended_at - child.created_at)
            self.take(child, shared)
            self.awaited -= shared
        else:
            delay = min(gap, lag)
        self.ready += delay
        self.awaited += gap - delay

    def _clocked(self, took: float, cpu: float) -> int:
        """Take in the CPU time of a step; returns in how many steps it is read again."""
        record = self.record
        record.clocked += 1
        record.clocked_loop += took
        record.cpu += min(cpu, took)
        dear = record.clocked_loop > CLOCK_FROM_S * record.clocked
        record.turn = 0 if dear or record.clocked < CLOCK_FIRST else CLOCK_ONE_IN - 1
        return record.turn

    def take(self, other: Metered, seconds: float) -> None:
        """Lay *seconds* of the path of another on one's own, in its proportions."""
        whole = sum(other.path.values())
        for stack, part in other.path.items():
            key = (self.record.label, *stack) if len(stack) < MAX_DEPTH else stack
            self.path[key] = self.path.get(key, 0.0) + (part * seconds / whole if whole else 0.0)

    def _end(self, *, failed: bool) -> None:
        self.ended_at = now = self.left_at
        meter, record, parent, label = self._meter, self.record, self._parent, self.record.label
        self._parent = self.child = None
        own_loop, wall = self.on_loop - self.inner, now - self.created_at
        for kind, seconds in ((ON_LOOP, own_loop), (AWAIT, self.awaited), (READY, self.ready)):
            if seconds > 0:
                self.path[label, kind] = self.path.get((label, kind), 0.0) + seconds
        if meter.open:
            record.calls += 1
            record.failed += failed
            record.nested += self._nested
            record.steps += self.steps
            record.on_loop += self.on_loop
            record.own_loop += own_loop
            record.ready += self.ready + self.inner_ready
            record.longest = max(record.longest, self.longest)
            record.walls.add(wall)
        if parent is not None and not parent.ended_at:
            if self._nested:
                parent.take(self, wall)
                parent.inner_ready += self.ready + self.inner_ready
            else:
                parent.child = self
        elif meter.open:
            meter.settle(self.path)
        if parent is None or parent.ended_at or self._nested:
            self.path = {}
