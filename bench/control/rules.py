"""Other people's rules, to compare with: ports of what they publish, with their defaults, and the seed's own.

A port that loses here says that the rule is made for another goal, to guard latency, and not that it is bad. `AimdPolicy`
and `GradientPolicy`, which the package has, stand for two more of them. `tests/unit/bench/test_originals.py` has the vectors
of the originals' own tests (Vegas, AIMD, the averages of Gradient2 and of windows, failsafe-go, Envoy, Vector), and their
arithmetic by hand where there are none (.NET, BentoML); BBR is the idea alone.
"""

from __future__ import annotations

import cmath
import math
import random
from collections import deque
from collections.abc import Callable

from asyncworker.tune.policies.aimd import AimdPolicy
from asyncworker.tune.policies.fixed import FixedPolicy
from asyncworker.tune.policies.gradient import GradientPolicy
from asyncworker.tune.policies.usl import UslPolicy
from bench.control.simulation import HIGH, Judged


def clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


class Growing:
    """The seed's ResourcePool at a backlog: times 1.5 each second, up to the most."""

    def __init__(self) -> None:
        self.limit, self._next = 5, 1.0

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        if t >= self._next:
            self._next += 1.0
            self.limit = min(HIGH, int(self.limit * 1.5))
        return self.limit


class Windowed:
    """Netflix' ``WindowedLimit``: hand the mean of a window, of ten samples or more, to another rule."""

    def __init__(self, rule: Judged, seconds: float = 1.0) -> None:
        self._rule, self._seconds, self._next = rule, seconds, 0.0
        self._clear()

    def _clear(self) -> None:
        self._count, self._sum, self._most = 0, 0.0, 0

    @property
    def limit(self) -> int:
        return self._rule.limit

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self._count += 1
        self._sum += rtt
        self._most = max(self._most, inflight)
        if t > self._next:
            self._next = t + self._seconds
            if self._count >= 10:
                self._rule.on_complete(t, self._sum / self._count, self._most, ok)
            self._clear()
        return self.limit


class Vegas:
    """Netflix' ``VegasLimit``: hold 3..6 log10 L calls in the backend's queue, as the shortest time ever seen has it."""

    def __init__(self, rng: random.Random, initial: int = 20, high: int = HIGH) -> None:
        self._rng, self._high = rng, high
        self._estimate, self._shortest, self._probes = float(initial), 0.0, 0
        self._jitter = rng.uniform(0.5, 1)

    @property
    def limit(self) -> int:
        return int(self._estimate)

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self._probes += 1
        if self._jitter * 30 * self._estimate <= self._probes:
            self._jitter, self._probes, self._shortest = self._rng.uniform(0.5, 1), 0, rtt
        elif self._shortest == 0 or rtt < self._shortest:
            self._shortest = rtt
        else:
            self._estimate = clamped(self._next(rtt, inflight, ok), 1, self._high)
        return self.limit

    def _next(self, rtt: float, inflight: int, ok: bool) -> float:
        estimate = self._estimate
        step = max(1, int(math.log10(int(estimate))))
        if not ok:
            return estimate - step
        if inflight * 2 < estimate:
            return estimate
        queue = math.ceil(estimate * (1 - self._shortest / rtt))
        if queue <= step:
            return estimate + 6 * step
        if queue < 3 * step:
            return estimate + step
        return estimate - step if queue > 6 * step else estimate


class Vector:
    """Vector's adaptive request concurrency: one more while calls take no longer, a tenth fewer at 2.5 deviations."""

    def __init__(self) -> None:
        self.limit = 1
        self._mean: float | None = None
        self._variance = self._next = self._sum = 0.0
        self._count, self._full = 0, True

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self._count += 1
        self._sum += rtt
        self._full = self._full or inflight >= self.limit
        now = self._sum / self._count
        if self._mean is None:
            self._mean, self._next = now, t + now
        elif t >= self._next:
            if self.limit < HIGH and self._full and now <= self._mean:
                self.limit += 1
            elif now >= self._mean + 2.5 * math.sqrt(self._variance):
                self.limit = max(1, int(self.limit * 0.9))
            off = now - self._mean
            self._mean += 0.4 * off
            self._variance = 0.6 * (self._variance + 0.4 * off * off)
            self._next, self._count, self._sum, self._full = t + self._mean, 0, 0.0, False
        return self.limit


class Correlation:
    """Of the last fifty pairs."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[float, float]] = deque(maxlen=50)

    def add(self, x: float, y: float) -> tuple[float, float]:
        """Return the correlation, and the coefficient of variation of *y*; zeros for fewer than ten pairs."""
        self._pairs.append((x, y))
        n = len(self._pairs)
        if n < 10:
            return 0.0, 0.0
        mean_x, mean_y = (sum(values) / n for values in zip(*self._pairs, strict=True))
        xx = sum((x - mean_x) ** 2 for x, _ in self._pairs)
        yy = sum((y - mean_y) ** 2 for _, y in self._pairs)
        xy = sum((x - mean_x) * (y - mean_y) for x, y in self._pairs)
        spread = math.sqrt(yy / n) / mean_y if mean_y else 0.0
        return (xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else 0.0), spread


class Failsafe:
    """failsafe-go's adaptive limiter, after Uber's Cinnamon: a gradient of the 90th percentile, and correlations."""

    def __init__(self) -> None:
        self.limit = 20
        self._times: list[float] = []
        self._next, self._most, self._windows = 0.0, 0, 0
        self._medians: deque[float] = deque(maxlen=5)
        self._short = self._long = 0.0
        self._throughput, self._latency = Correlation(), Correlation()

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self._times.append(rtt)
        self._most = max(self._most, inflight)
        if t > self._next and len(self._times) >= 50:
            times = sorted(self._times)
            self._medians.append(times[int(0.9 * (len(times) - 1))])
            self._window(sorted(self._medians)[len(self._medians) // 2])
            self._next, self._times, self._most = t + max(2 * times[0], 1.0), [], 0
        return self.limit

    def _window(self, quantile: float) -> None:
        self._windows += 1
        self._short += (2 / 6 if self._windows > 10 else 1 / self._windows) * (quantile - self._short)
        self._long += (2 / 11 if self._windows > 10 else 1 / self._windows) * (self._short - self._long)
        queue = math.ceil(self.limit * (1 - self._long / self._short))
        throughput, spread = self._throughput.add(self._most, self._most / self._short)
        latency, _ = self._latency.add(self._most, self._short)
        step = max(1, int(math.log10(self.limit)))
        contended = latency > 0.5 and (throughput < 0.3 or spread < 0.2)
        if queue > 6 * step or throughput < 0 or contended:
            self.limit -= step
        elif queue < 3 * step:
            self.limit += step
        self.limit = int(clamped(self.limit, 1, HIGH))


class HillClimbing:
    """The .NET thread pool's: a square wave on the limit, and what of it comes back in the throughput."""

    PERIOD, SAMPLES = 4, 32

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._control, self.limit = 20.0, 20
        self._taken, self._noise = 0, 0.0
        self._throughputs, self._limits = [0.0] * self.SAMPLES, [0.0] * self.SAMPLES
        self._since, self._count = 0.0, 0
        self._interval = rng.uniform(0.010, 0.200)
        self._next = self._interval

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self._count += 1
        if t < self._next:
            return self.limit
        if self._taken and (self.limit - 1) / self._count >= 0.15:
            self._next = t + 0.010
            return self.limit
        seconds = t - self._since
        place = self._taken % self.SAMPLES
        self._throughputs[place], self._limits[place] = self._count / seconds, self.limit
        self._since, self._count = t, 0
        self._taken += 1
        ratio, confidence = self._respond()
        move = clamped(ratio, -1, 1) * clamped(confidence, 0, 1)
        move = math.copysign(move * move, move) * 4.0 * seconds
        self._control += min(move, 20)
        wave = int(clamped(int(0.5 + self._control * self._noise * 3.0 * 2), 1, 20))
        self._control = clamped(self._control, 1, HIGH - wave)
        limit = int(clamped(self._control + wave * (self._taken // (self.PERIOD // 2) % 2), 1, HIGH))
        if limit != self.limit:
            self._interval = self._rng.uniform(0.010, 0.200)
        self.limit, self._next = limit, t + self._interval
        return self.limit

    def _respond(self) -> tuple[float, float]:
        n = min(self._taken - 1, self.SAMPLES) // self.PERIOD * self.PERIOD
        if n <= self.PERIOD:
            return 0.0, 0.0
        places = [(self._taken - n + i) % self.SAMPLES for i in range(n)]
        throughputs, limits = ([values[place] for place in places] for values in (self._throughputs, self._limits))
        throughput, limit = sum(throughputs) / n, sum(limits) / n
        waves = n / self.PERIOD
        error = abs(self._wave(throughputs, n / (waves + 1)) / throughput)
        if n / (waves - 1) <= n:
            error = max(error, abs(self._wave(throughputs, n / (waves - 1)) / throughput))
        of_throughput = self._wave(throughputs, self.PERIOD) / throughput
        of_limit = self._wave(limits, self.PERIOD) / limit
        self._noise = error if self._noise == 0 else 0.01 * error + 0.99 * self._noise
        ratio = ((of_throughput - 0.15 * of_limit) / of_limit).real if abs(of_limit) > 0 else 0.0
        noise = max(self._noise, error)
        return ratio, abs(of_limit) / noise / 3.0 if noise > 0 else 1.0

    @staticmethod
    def _wave(samples: list[float], period: float) -> complex:
        """Return the amplitude at one period (Goertzel's recurrence)."""
        angle = 2 * math.pi / period
        last = before = 0.0
        for sample in samples:
            last, before = 2 * math.cos(angle) * last - before + sample, last
        return (last - before * cmath.exp(-1j * angle)) / len(samples)


class Bbr:
    """BBR's idea: twice the greatest throughput times the shortest round trip, after doubling up to there.

    Each ten seconds it goes down to half the product for a moment, to see the shortest round trip again.
    """

    def __init__(self) -> None:
        self.limit = 4
        self._since, self._count, self._sum = 0.0, 0, 0.0
        self._shortest, self._seen_at, self._probing = math.inf, 0.0, False
        self._rates: deque[float] = deque(maxlen=10)
        self._starting, self._full, self._stalled = True, 0.0, 0

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self._count += 1
        self._sum += rtt
        mean = self._sum / self._count
        if self._count >= 10 and t - self._since >= max(0.2 if self._probing else 0.1, 2 * mean):
            self._round(t, self._count / (t - self._since), mean)
            self._since, self._count, self._sum = t, 0, 0.0
        return self.limit

    def _round(self, t: float, rate: float, mean: float) -> None:
        if self._probing or mean < self._shortest:
            self._shortest, self._seen_at = mean, t
        if not self._probing:
            self._rates.append(rate)
        if self._starting:
            self._full, self._stalled = (rate, 0) if rate > 1.25 * self._full else (self._full, self._stalled + 1)
            self._starting = self._stalled < 3
        self._probing = not self._starting and t - self._seen_at > 10
        if self._starting:
            self.limit = min(HIGH, self.limit * 2)
        else:
            gain = 0.5 if self._probing else 2.0
            self.limit = int(clamped(gain * max(self._rates) * self._shortest, 2, HIGH))


class Envoy:
    """Envoy's gradient controller: now and then a few calls at once for the shortest time, else a gradient to it."""

    AT_LEAST = 5
    """So many updates in a row at the least limit, and the shortest time is measured anew."""

    def __init__(self, low: int = 3, high: int = HIGH, calls: int = 50, buffer: float = 0.25) -> None:
        self.limit = self._low = low
        self._high, self._calls, self._buffer = high, calls, buffer
        self._saved = low
        self._calibrating, self.shortest = True, 0.0
        self._times: list[float] = []
        self._next, self._at_least = 0.0, 0
        self._calibrate_at = 30.0
        self._begun_at = 0.0

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        if self._calibrating:
            if t - rtt >= self._begun_at and inflight <= self._low:
                self._times.append(rtt)
            if len(self._times) >= self._calls:
                self.shortest = sorted(self._times)[self._calls // 2]
                self._calibrating, self._times = False, []
                self.limit = self._saved
                self._next, self._calibrate_at = t + 0.1, t + 30.0
            return self.limit
        self._times.append(rtt)
        if t >= self._calibrate_at:
            self._calibrate(t)
        elif t >= self._next:
            median = sorted(self._times)[len(self._times) // 2]
            limit = self.limit * clamped(self.shortest * (1 + self._buffer) / median, 0.5, 2.0)
            self.limit = int(clamped(limit + math.sqrt(limit), self._low, self._high))
            self._next, self._times = t + 0.1, []
            self._at_least = self._at_least + 1 if self.limit == self._low else 0
            if self._at_least >= self.AT_LEAST:
                self._calibrate(t)
        return self.limit

    def _calibrate(self, t: float) -> None:
        self._calibrating, self._times, self._begun_at, self._at_least = True, [], t, 0
        self._saved, self.limit = self.limit, self._low


OURS = "usl"
SEEDS = ("seed x1.5", "seed fixed 5")
RULES: dict[str, Callable[[random.Random], Judged]] = {
    OURS: lambda rng: UslPolicy(high=HIGH),
    "bbr": lambda rng: Bbr(),
    "gradient2 0.1 s": lambda rng: Windowed(GradientPolicy(low=1, high=HIGH), 0.1),
    "gradient2 1 s": lambda rng: Windowed(GradientPolicy(low=1, high=HIGH), 1.0),
    "aimd 0.1 s": lambda rng: Windowed(AimdPolicy(low=20, high=HIGH), 0.1),
    "vector": lambda rng: Vector(),
    "vegas 0.1 s": lambda rng: Windowed(Vegas(rng), 0.1),
    "failsafe": lambda rng: Failsafe(),
    "hill climbing": HillClimbing,
    "envoy": lambda rng: Envoy(),
    "seed x1.5": lambda rng: Growing(),
    "seed fixed 5": lambda rng: FixedPolicy(5),
}
"""Name -> a new one; the published peers are all but ours and the seed's."""
PEERS = tuple(name for name in RULES if name != OURS and name not in SEEDS)
