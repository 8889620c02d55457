"""How late the event loop is, how busy, and which line held it.

Three looks that cost next to nothing: a beat in the loop, the CPU clock of its thread, and a thread that watches the
beat and, when it stays away, notes what the loop's thread is doing at that moment. Nothing of the loop itself is
touched, so it works on each loop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from types import FrameType, TracebackType
from typing import Self

import msgspec

from asyncworker.errors import AsyncWorkerError
from asyncworker.tune.beat import Beat
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.sensor import Durations, Reading
from asyncworker.tune.utilisation import Utilisation

log = logging.getLogger(__name__)

THRESHOLD_S = 0.06
KEPT = 100
QUIET_S = 10.0
"""A line that holds the loop again and again is logged at most so often; it is counted each time."""
DEPTH = 40
STALL_S = 0.03
"""When the watchdog itself comes so late, the whole process stood still, and no line of it is to blame."""
LIBRARY = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))

Line = tuple[str, int, str]
"""File, line, function."""


class Block(msgspec.Struct, frozen=True):
    """The loop was held for ``seconds``; ``stack`` is where its thread was, outermost first, when that was noticed."""

    seconds: float
    stack: tuple[Line, ...]

    @property
    def line(self) -> Line:
        """The innermost line that is not of the standard library or an installed package; else the innermost."""
        own = (line for line in reversed(self.stack) if not line[0].startswith((*LIBRARY, "<frozen")))
        return next(own, self.stack[-1])

    def __str__(self) -> str:
        file, number, function = self.line
        inside = "" if self.stack[-1] == self.line else f", inside {self.stack[-1][2]}"
        return f"the event loop was held for {self.seconds:.3f} s by {file}:{number}, in {function}{inside}"


class LoopSensor:
    """Watch the running loop from `start` until `close`.

    Args:
        threshold: seconds for which the loop may be held before it is noticed; a hold of one beat (10 ms) and a
            third of this more is noticed for sure.
        on_block: called in the loop's thread, after a hold that was noticed, beside a line in the log.

    Cost: 100 callbacks and some 50 wake-ups of a thread a second, together below 0.3 % of a processor.
    """

    def __init__(self, threshold: float = THRESHOLD_S, on_block: Callable[[Block], None] | None = None) -> None:
        self._threshold, self._on_block = threshold, on_block
        self.lag = LogHistogram()
        self.blocks: deque[Block] = deque(maxlen=KEPT)
        self.held = 0
        """Holds that were noticed, also those that ``blocks`` has forgotten."""
        self._busy = Utilisation()
        self._said: dict[Line, float] = {}
        self._caught: tuple[float, tuple[Line, ...]] | None = None
        self._beat: Beat | None = None
        self._watchdog: threading.Thread | None = None
        self._over = threading.Event()

    def __repr__(self) -> str:
        return (
            f"<LoopSensor {self.utilisation:.0%} busy, lag p99 {self.lag.quantile(0.99):.3f} s, held {self.held} times>"
        )

    @property
    def utilisation(self) -> float:
        """The loop's busy share of the last second, 0..1; see `Utilisation`."""
        return self._busy.ratio

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Watch the loop that runs in this thread.

        Raises:
            AsyncWorkerError: it watches already. RuntimeError: no loop runs here.
        """
        if self._beat is not None:
            raise AsyncWorkerError("this sensor watches a loop already")
        self._over.clear()
        self._busy = Utilisation()
        self._beat = beat = Beat(asyncio.get_running_loop(), self._on_beat)
        self._watchdog = threading.Thread(
            target=self._watch, args=(beat, threading.get_ident()), name="asyncworker-watchdog", daemon=True
        )
        self._watchdog.start()

    def close(self) -> None:
        if self._beat is None or self._watchdog is None:
            return
        self._beat.stop()
        self._over.set()
        self._watchdog.join()
        self._beat = self._watchdog = None

    def read(self) -> Sequence[Reading]:
        quantiles = [
            Reading("loop_lag_seconds", self.lag.quantile(share), (("quantile", str(share)),)) for share in (0.5, 0.99)
        ]
        return [
            *quantiles,
            Reading("loop_utilisation_ratio", self.utilisation),
            Reading("loop_held_total", self.held),
        ]

    def durations(self) -> Sequence[Durations]:
        return [Durations("loop_lag_seconds", self.lag)]

    def _on_beat(self, lag: float) -> None:
        self.lag.add(lag)
        if self._caught is not None:
            began, stack = self._caught
            self._caught = None
            self._tell(Block(perf_counter() - began, stack))
        self._busy.beat(lag)

    def _tell(self, block: Block) -> None:
        self.held += 1
        self.blocks.append(block)
        now = perf_counter()
        if now - self._said.get(block.line, -QUIET_S) >= QUIET_S:
            if len(self._said) >= KEPT:
                self._said.clear()
            self._said[block.line] = now
            log.warning("%s", block)
        if self._on_block is not None:
            self._on_block(block)

    def _watch(self, beat: Beat, thread: int) -> None:
        """Look a few times within the threshold whether the beat still comes; runs in a thread of its own."""
        period, seen = self._threshold / 3, 0.0
        while True:
            asked = perf_counter()
            if self._over.wait(period):
                return
            now, last = perf_counter(), beat.last
            if now - asked > period + STALL_S or now - last < self._threshold or last == seen:
                continue
            frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, and the only way to see it
            stack = _stack(frame)
            if frame is not None and not _idle(stack) and beat.last == last:
                seen, self._caught = last, (last, stack)


def _stack(frame: FrameType | None) -> tuple[Line, ...]:
    """Return the innermost frames, outermost first, without the loop's own machinery around them."""
    lines: list[Line] = []
    while frame is not None and len(lines) < DEPTH:
        code = frame.f_code
        if code.co_name == "_run_once" or (code.co_name == "_run" and code.co_filename.endswith("events.py")):
            break
        lines.append((code.co_filename, frame.f_lineno, code.co_qualname))
        frame = frame.f_back
    return tuple(reversed(lines))


def _idle(stack: Sequence[Line]) -> bool:
    """Return whether the loop runs no callback at the moment: it selects, or is in its own C code."""
    if not stack:
        return True
    file, _, function = stack[-1]
    return file.endswith(("selectors.py", "asyncio/runners.py")) or function.endswith("run_forever")
