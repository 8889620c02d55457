"""USL: the concurrency at which most work is done a second, found by trying and fitting. The default for backlogs.

It measures throughput in *epochs*, at limits of its own choosing, and fits the universal scalability law to them
(`asyncworker.tune.scalability`). Latency is not what it looks at: on a contended backend calls take three times as
long before throughput is at its best.

| phase   | what it does                                                                                       |
|---------|----------------------------------------------------------------------------------------------------|
| start   | double while throughput grows by a tenth or more, then fit                                          |
| track   | hold the fitted centre and probe around it, in a cycle of eight epochs                               |
| bracket | after the backend has changed: forget, and step x1.6 one way until the best is in the middle         |

Epoch: after a change of the limit one turnover is let pass, until a call that began after the change has ended; then
completions are counted. What an application that asks for less than the limit does is no evidence, and moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Literal

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.tune.change import Change
from asyncworker.tune.failures import Failures
from asyncworker.tune.history import Sample, effective_count, points, throughput, usual_rate
from asyncworker.tune.policies.policy import check_bounds, load
from asyncworker.tune.probes import PLACES, probe
from asyncworker.tune.scalability import Curve, fit

# The numbers below were chosen on simulated backends: `bench/control/bench_convergence.py`, `bench_shapes.py`.
GROWTH, STEP = 1.1, 1.6
"""Start-up goes on while doubling the limit brings so much. How far the centre may move at once, how far a bracket
steps, and how high the widest probe reaches."""
PLAIN, GIVEN_UP = 1.05, 0.03
"""Where the caller itself is the limit: what a step up must promise, and the share of throughput given up for less."""
HISTORY = 64
MOVED, CALM, REST = 0.2, 12, 1
"""After `CALM` epochs in which the centre has not moved so far, in ln N, it is held longer between probes: they cost."""
START_WINDOW, BRIEF_S = 0.02, 0.1
"""Start-up asks for plain differences, so its epochs may be shorter; one so brief does not end it."""
PATIENCE_S, GUESS = 0.3, 100
"""Start-up waits so long for the first call to end; then it grows without knowing, as waiting is cheap, up to so many."""
PLAIN_AFTER_S, FEW = 0.1, 12
"""After so long, and so many completions, start-up looks whether throughput grows, or does not, plainly."""
TURNOVER, MUCH_LOWER = 1.5, 1.7
"""A turnover lasts at most so many times what calls took before. Below a limit that was so many times as high, it is
over when no more calls are under way than may be."""


class _State(msgspec.Struct, forbid_unknown_fields=True):
    """All that is learned; `centre` is the limit without its probes."""

    limit: int
    centre: float
    phase: Literal["start", "track", "bracket"] = "start"
    because: str = "start"
    epoch: int = 0
    place: int = 0  # in the cycle of probes
    calm: int = 0  # epochs for which the centre has hardly moved
    rested: int = 0  # more epochs at the centre than the cycle asks for
    curve: Curve | None = None
    variance: float = 0.25  # of call times, squared coefficient of variation
    history: list[Sample] = []
    bracket: list[Sample] = []
    faster: bool = False  # the way in which the bracket began
    best_rate: float = 0.0  # of the start-up
    doubted: bool = False  # whether its last epoch brought nothing
    ceiling: float | None = None  # a cliff: above it throughput falls
    ceiling_until: int = 0
    ceiling_for: int = 16
    last_ceiling: float | None = None
    fell: bool = False  # the last probe fell off it
    change: Change = msgspec.field(default_factory=Change)
    failures: Failures = msgspec.field(default_factory=Failures)
    hold: int = 0  # epochs to let pass


class UslPolicy:
    """Seek the least concurrency with nearly the best throughput.

    Args:
        low, high: bounds of the limit. initial: where start-up begins.
        min_samples, min_window: completions and seconds that an epoch lasts at least.
        dither: how far probes go from the centre, a share.
        knee_tolerance: throughput given up, a share, for fewer calls under way; 0 for the very peak.
        slo: seconds that a call may take: no more are under way than keep to that, whatever throughput would gain.
        noise: how much throughput varies by itself, a share, until that has been seen; 0: it does not.
        stock: seconds of work that are under way at least, up to `GUESS` calls: what fetching some takes anyway.

    Attributes: ``saturated``, set by who owns the policy: what calls (the event loop) is itself the limit. Nothing
    higher than what was tried is tried then, unless throughput grows with it.

    Cost: 1.7 us a completion, its share of the fits included (`bench/control/bench_limiter.py`).
    """

    def __init__(
        self,
        *,
        low: int = 1,
        high: int = 200,
        initial: int = 4,
        min_samples: int = 50,
        min_window: float = 0.05,
        dither: float = 0.2,
        knee_tolerance: float = 0.01,
        slo: float = math.inf,
        noise: float = 0.0,
        stock: float = 0.0,
    ) -> None:
        check_bounds(low, high)
        if not (min_samples >= 8 and min_window >= 0 and 0 < dither <= 0.5 and 0 <= knee_tolerance < 0.5):
            raise BadParameters("min_samples >= 8, min_window >= 0, dither in 0..0.5 and knee_tolerance below 0.5")
        if not slo > 0:
            raise BadParameters(f"slo must be seconds, more than 0, not {slo}")
        self.low, self.high = low, high
        self._min_samples, self._min_window = min_samples, min_window
        self._dither, self._tolerance, self._slo = dither, knee_tolerance, slo
        self.saturated, self._stock = False, stock
        self._answered, self._asked = False, math.inf  # whether any call has ended; since when that is waited for
        initial = min(max(initial, low), high)
        self._state = _State(initial, float(initial), change=Change.of(noise))
        self.limit = initial
        self._before, self._usual = initial, math.inf  # the limit before this one, and how long calls took then
        self._begin(-math.inf, settled=False)

    @property
    def because(self) -> str:
        return self._state.because

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(self._state)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        loaded = load(state, _State)
        loaded.history = [sample for sample in loaded.history[-HISTORY:] if sample.rate > 0 and sample.inflight >= 1]
        loaded.bracket = [sample for sample in loaded.bracket[-8:] if sample.rate > 0 and sample.inflight >= 1]
        if loaded.curve is not None and (loaded.curve.a0 <= 0 or min(loaded.curve) < 0):
            loaded.curve = None
        loaded.variance = max(1e-6, loaded.variance)
        loaded.centre = min(max(loaded.centre, float(self.low)), float(self.high))
        self._state = loaded
        self._set(loaded.limit, loaded.because)
        self._begin(-math.inf, settled=False)

    # --- an epoch: what is counted ------------------------------------------------------------------------------

    def _begin(self, t: float, *, settled: bool) -> None:
        self._since = self._last = t
        self._settled = settled
        brief = self._state.phase == "start" and not self._state.doubted
        self._window = min(START_WINDOW, self._min_window) if brief else self._min_window
        self._count = self._good = 0
        self._sum = self._squares = self._area = 0.0

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool, calls: int = 1) -> int:
        """Take in a completion; *calls* of them where one that was timed stands for others that ended with it."""
        if not (0.0 <= rtt < math.inf and -math.inf < t < math.inf):
            return self.limit
        if not self._settled:
            self._answered = True
            self._count += calls
            if self._turned(t, rtt, inflight):
                self._begin(t, settled=True)
            return self.limit
        self._count += calls
        if t > self._last:
            self._area += max(1, inflight) * (t - self._last)
            self._last = t
        if ok:
            self._good += calls
            self._sum += rtt * calls
            self._squares += rtt * rtt * calls
        elapsed = self._last - self._since
        if elapsed >= self._window and elapsed > 0 and self._enough(elapsed):
            before = self._before = self.limit
            if self._good:
                self._usual = self._sum / self._good
            self._close(elapsed)
            self._begin(t, settled=self.limit == before)
        return self.limit

    def on_wait(self, t: float) -> int:
        """Hear that all permits are out and work waits; returns the limit.

        Where calls take so long that nothing is known yet, few at once would be the dearest of guesses.
        """
        if self._state.phase != "start" or self._answered or self.saturated or not self.limit < min(GUESS, self.high):
            return self.limit
        self._asked = min(self._asked, t)
        if t - self._asked >= PATIENCE_S:
            self._set(min(2 * self.limit, GUESS), "start-up: calls take long, and waiting is cheap")
            self._state.centre, self._asked = self.limit, t
            self._begin(t, settled=False)
        return self.limit

    def _turned(self, t: float, rtt: float, inflight: int) -> bool:
        """Return whether what ends now no longer tells of the limit before."""
        if self.limit * MUCH_LOWER < self._before:  # what is too much needs long to end
            return inflight <= self.limit
        turned = self._count >= min(self.limit, inflight) or t - self._since >= TURNOVER * self._usual
        return turned and t - rtt >= self._since

    def _enough(self, elapsed: float) -> bool:
        state, count = self._state, self._count
        if count >= max(self._min_samples, self.limit):
            return True
        if state.phase == "start" and elapsed > PLAIN_AFTER_S:  # do not wait for fifty slow calls to see what is plain
            noise = math.sqrt(state.variance * (1 / count + 1 / self._min_samples))
            off = math.log(
                max(1e-9, throughput(self._good, elapsed, self._area, self._sum)) / max(1e-9, state.best_rate * GROWTH)
            )
            return count >= max(FEW, self.limit / 2) and not -3 * noise < off < 2 * noise
        if state.curve is None or count < 15:
            return False
        # An epoch that takes twice as long as it should is judged at once.
        return elapsed * state.curve.rate(max(1.0, self._area / elapsed)) >= 2.0 * count + 20

    def _close(self, elapsed: float) -> None:
        state = self._state
        state.epoch += 1
        if state.hold:
            state.hold -= 1
            return
        inflight = self._area / elapsed
        if self._fails() or not self._good or (inflight < 0.8 * self.limit and self.limit > 1):
            return
        mean = self._sum / self._good
        if mean > 0:
            # Failures make the count of good calls vary, too.
            spread = max(1e-4, self._squares / self._good / (mean * mean) - 1) + self._count / self._good - 1
            state.variance += 0.2 * (spread - state.variance)
        if state.epoch > state.ceiling_until:
            state.ceiling = None
        sample = Sample(
            max(1.0, inflight), throughput(self._good, elapsed, self._area, self._sum), self._count, state.epoch
        )
        {"start": self._start_up, "bracket": self._bracket, "track": self._track}[state.phase](sample)

    # --- the phases ---------------------------------------------------------------------------------------------

    def _start_up(self, sample: Sample) -> None:
        state = self._state
        self._remember(sample)
        slow = sample.inflight > self._slo * sample.rate
        if sample.rate > state.best_rate * GROWTH and self.limit < self.high and not slow:
            state.best_rate = sample.rate
            least = min(sample.rate * self._stock, GUESS)
            self._set(
                max(2 * self.limit, least), f"start-up: {sample.rate:.4g}/s at {sample.inflight:.0f}, still growing"
            )
            state.centre = self.limit
            state.doubted = False
        elif sample.count < BRIEF_S * sample.rate and not state.doubted:  # a moment's noise: look once more
            state.doubted = True
        else:
            self._settle(state.history, sample)

    def _bracket(self, sample: Sample) -> None:
        state = self._state
        self._remember(sample)
        state.bracket.append(sample)
        if len(state.bracket) < 8:
            best = max(state.bracket, key=attrgetter("rate")).inflight
            tried = [sample.inflight for sample in state.bracket]
            least, most = min(tried), max(tried)
            first = len(state.bracket) == 1
            grows = not self.saturated or sample.rate > GROWTH * max((s.rate for s in state.bracket[:-1]), default=0.0)
            upwards = state.faster or not first or least <= max(1.5, self.low)
            if best == most and most < 0.95 * self.high and upwards and grows:
                return self._set(most * STEP, "the best is still above")
            if best == least and least > max(1.5, self.low) and not (first and state.faster):
                return self._set(least / STEP, "the best is still below")
        return self._settle(state.bracket, sample)

    def _settle(self, tried: list[Sample], last: Sample) -> None:
        """Turn from searching to tracking, around the best that was tried."""
        state = self._state
        best = max(tried, key=attrgetter("rate"))
        state.centre = best.inflight
        noise = math.sqrt(state.variance / last.count)
        for sample in tried:
            fall = math.log(sample.rate / best.rate)
            if sample.inflight > 1.05 * best.inflight and fall < -max(0.3, 5 * noise):
                self._mark(min(state.ceiling or math.inf, sample.inflight))
        state.phase, state.place, state.bracket, state.calm = "track", 7, [], 0
        self._aim()

    def _track(self, sample: Sample) -> None:
        state = self._state
        if (good := self._falls(sample)) is not None:
            # Measure once more where it was good: a change of the whole backend looks the same.
            self._mark(sample.inflight)
            state.fell, state.place, state.centre = True, 7, good
            return self._set(good, f"a cliff at {sample.inflight:.0f}")
        state.fell = False
        if change := self._changed(sample):
            # Of this epoch it may have come in the middle: what is faster now does no less than it says.
            state.history, state.bracket = [], [sample] if change > 0 else []
            state.curve, state.ceiling = None, None
            state.change.forget()
            state.phase, state.centre, state.faster = "bracket", sample.inflight, change > 0
            way = STEP if state.faster else 1 / STEP
            return self._set(sample.inflight * way, "the backend is " + ("faster" if state.faster else "slower"))
        self._remember(sample)
        return self._aim()

    # --- what a sample says -------------------------------------------------------------------------------------

    def _remember(self, sample: Sample) -> None:
        self._state.history.append(sample)
        del self._state.history[:-HISTORY]

    def _changed(self, sample: Sample) -> float:
        """Return above 0 where the backend has become faster, below 0 for slower, 0 where it is the one known."""
        state = self._state
        if state.curve is None:
            return 0.0
        off = math.log(sample.rate / state.curve.rate(sample.inflight))
        known = effective_count(state.history, sample.inflight, state.epoch)
        noise = state.variance * (1 / sample.count + 2 / max(1.0, known))
        return state.change.judge(off, noise)

    def _falls(self, sample: Sample) -> float | None:
        """Return the concurrency known to be good below which this sample has fallen, as off a cliff; else None."""
        state = self._state
        bound = min(state.centre, sample.inflight / 1.02)
        good = max((old.inflight for old in state.history if old.inflight <= bound), default=None)
        if state.fell or good is None:
            return None
        rate, weight = usual_rate(state.history, good, state.epoch)
        noise = math.sqrt(state.variance / sample.count + state.variance / weight + state.change.unusual)
        return good if math.log(sample.rate / rate) < -max(0.15, 4 * noise) else None

    def _mark(self, ceiling: float) -> None:
        """Stay below this for 16 epochs; longer each time that it is found again nearby."""
        state = self._state
        known = state.last_ceiling is not None and state.last_ceiling / 1.7 < ceiling <= state.last_ceiling * 1.3
        state.ceiling_for = min(256, state.ceiling_for * 2) if known else 16
        state.ceiling = state.last_ceiling = ceiling
        state.ceiling_until = state.epoch + state.ceiling_for
        state.history = [sample for sample in state.history if sample.inflight < 0.99 * ceiling]

    def _fails(self) -> bool:
        """Back off where calls fail because there are too many; returns whether this epoch says nothing else."""
        state, share = self._state, 1 - self._good / self._count
        if not state.history and state.phase == "start":  # few calls at once: what fails here does so by itself
            state.failures.usual = share
            return False
        answer = state.failures.answer(share, self._count, self.limit, self.low)
        if answer.too_many:
            self._mark(float(answer.too_many))
            state.phase, state.place = "track", 7
        if answer.limit is None:
            return False
        state.hold = answer.hold
        self._set(answer.limit, answer.because)
        state.centre = float(self.limit)
        return True

    # --- where to go --------------------------------------------------------------------------------------------

    def _aim(self) -> None:
        """Fit, move the centre, and take the next place of the cycle of probes."""
        state = self._state
        highest = float(self.high)
        if state.ceiling is not None:  # go no nearer to it than half the way from what is known to be good
            good = max((sample.inflight for sample in state.history), default=1.0)
            highest = min(highest, math.sqrt(good * state.ceiling))
        if len(state.history) >= 2:
            state.curve = fit(points(state.history, state.epoch, state.centre, state.variance)) or state.curve
        before = state.centre
        if state.curve is not None:
            if self.saturated and state.curve.rate(state.centre * STEP) < PLAIN * state.curve.rate(state.centre):
                highest = min(highest, max(sample.inflight for sample in state.history))
            least = min(self._stock * state.curve.rate(state.centre), GUESS)
            highest = min(max(highest, least), state.curve.within(self._slo, self.low, self.high))
            low = max(float(self.low), state.centre / STEP, least)
            high = min(state.centre * STEP, highest)
            given_up = max(self._tolerance, GIVEN_UP * self.saturated)
            state.centre = state.curve.knee(low, high, given_up) if low < high else max(float(self.low), high)
        centre = state.centre
        state.calm = state.calm + 1 if abs(math.log(centre / before)) < MOVED else 0
        if state.place % 2 and state.calm > CALM and state.rested < REST:
            state.rested += 1
        else:
            state.place, state.rested = (state.place + 1) % PLACES, 0
        limit = probe(state.place, centre, dither=self._dither, wide=STEP, highest=highest, ceiling=state.ceiling)
        self._set(limit, f"{'centre' if limit == centre else 'probe'}, most work at {centre:.3g}")

    def _set(self, limit: float, because: str) -> None:
        self._state.limit = self.limit = round(min(max(limit, self.low), self.high))
        self._state.because = because


open = UslPolicy
