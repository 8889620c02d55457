"""The ports of other people's rules, by the vectors of the originals' own tests; by hand where they have none."""

from __future__ import annotations

import cmath
import heapq
import itertools
import math
import random
from collections.abc import Callable
from statistics import linear_regression

import pytest

from asyncworker.tune.policies.aimd import AimdPolicy
from asyncworker.tune.policies.gradient import GradientPolicy
from bench.control import rules
from bench.control.bench_batch_arrivals import Bento


def test_vegas_by_hand() -> None:
    """As its own test has it: alpha 3, beta 6, the shortest time 10 ms, a limit of 10."""
    for rtt, after in [(0.010, 16), (0.050, 9), (0.014, 10), (0.012, 11)]:
        vegas = rules.Vegas(random.Random(1), initial=10, high=20)
        assert vegas.on_complete(0.0, 0.010, 10, True) == 10
        assert vegas.on_complete(0.0, rtt, 11, True) == after


def test_vegas_does_not_grow_where_the_limit_is_not_used_and_shrinks_on_a_drop() -> None:
    vegas = rules.Vegas(random.Random(1), initial=10)
    vegas.on_complete(0.0, 0.010, 10, True)
    assert vegas.on_complete(0.0, 0.010, 4, True) == 10
    assert vegas.on_complete(0.0, 0.010, 4, False) == 9


def test_bbr_doubles_until_throughput_stalls_and_then_holds_twice_the_product() -> None:
    bbr, t, limits = rules.Bbr(), 0.0, []
    for _ in range(4000):
        n = bbr.limit
        rtt = max(1, n / 10) * 0.1  # ten servers of 0.1 s: the product is 10
        t += rtt / n
        limits.append(bbr.on_complete(t, rtt, n, True))
    assert limits[-1] in range(18, 23)
    assert max(limits) >= 32


def test_envoy_by_hand() -> None:
    envoy, t = rules.Envoy(), 0.1
    for _ in range(50):
        t += 0.001
        envoy.on_complete(t, 0.010, 3, True)
    # g = 1.25, L = 3 * 1.25 + sqrt(3.75) = 5.68
    assert envoy.on_complete(t + 0.2, 0.010, 3, True) == 5


def test_vector_by_hand() -> None:
    vector = rules.Vector()
    vector.on_complete(0.0, 0.1, 1, True)
    assert vector.on_complete(0.2, 0.1, 1, True) == 2
    assert vector.on_complete(0.9, 10.0, 2, True) == 1


def test_windows_hand_on_means_of_ten_or_more() -> None:
    class Heard(rules.Growing):
        def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
            heard.append((rtt, inflight))
            return 5

    heard: list[tuple[float, int]] = []
    windowed = rules.Windowed(Heard(), 1.0)
    for call in range(40):
        windowed.on_complete(call * 0.09, 0.1 + call / 1000, call, True)
    assert len(heard) == 3
    assert heard[0] == (pytest.approx(0.1075), 13)  # the calls 2 to 13: the first window had too few


@pytest.mark.parametrize(
    ("rtts", "limits"), [((1.0, 0.5), (21, 22)), ((2.0, 2.0), (19, 18)), ((1.3, 1.3), (20, 20))], ids=str
)
def test_failsafe_by_its_own_test(rtts: tuple[float, float], limits: tuple[int, int]) -> None:
    """`TestAdaptiveLimiter_record` of failsafe-go: a limit of 20, and ten windows of 1 s each in the long mean."""
    failsafe = rules.Failsafe()
    failsafe._windows, failsafe._long, failsafe._short = 10, 1.0, rtts[0]
    for rtt, limit in zip(rtts, limits, strict=True):
        failsafe._window(rtt)
        assert failsafe.limit == limit


def test_failsafes_windows_by_their_own_tests() -> None:
    """`TestCovarianceWindow` and `TestVariationWindowSliding`; ours has no word before ten pairs."""
    up, down = rules.Correlation(), rules.Correlation()
    for x in range(1, 13):
        rising = up.add(x, 10.0 * (1 + (x - 1) % 3))
        falling = down.add(x, 130.0 - 10.0 * x)
    assert falling[0] == pytest.approx(-1.0)
    assert rising[1] == pytest.approx(0.4082, abs=1e-4)  # of 10, 20, 30, four times
    assert rules.Correlation().add(1.0, 2.0) == (0.0, 0.0)


def test_aimd_by_its_own_test() -> None:
    """`AIMDLimitTest` of concurrency-limits."""
    assert AimdPolicy(initial=10).on_complete(0.0, 0.001, 10, True) == 11
    assert AimdPolicy(initial=10).on_complete(0.0, 0.0, 0, False) == 9


@pytest.mark.parametrize("period", [4.0, 32 / 9, 32 / 7])
def test_hill_climbing_finds_a_waves_amplitude_as_a_fourier_sum_does(period: float) -> None:
    """.NET's has no test of its own; its recurrence is Goertzel's, so the sum it stands for is the vector."""
    rng = random.Random(3)
    samples = [20 + 3 * math.cos(2 * math.pi * i / 4 + 0.4) + rng.random() for i in range(32)]
    summed = sum(x * cmath.exp(-2j * math.pi * i / period) for i, x in enumerate(samples)) / 32
    assert abs(rules.HillClimbing._wave(samples, period)) == pytest.approx(abs(summed), rel=1e-9)


def test_hill_climbing_goes_up_where_throughput_answers_its_wave_and_not_where_it_does_not() -> None:
    def climbed(throughput: Callable[[int], float]) -> int:
        climbing, t = rules.HillClimbing(random.Random(1)), 0.0
        for _ in range(60_000):
            t += 1 / throughput(climbing.limit)
            climbing.on_complete(t, 0.1, climbing.limit, True)
        return climbing.limit

    assert climbed(lambda n: 10.0 * n) > 40
    assert climbed(lambda n: 500.0) <= 25


def test_bento_by_hand() -> None:
    bento = Bento()
    assert bento.decide(3, 0.02, 0.0) == (3, 0.0)  # nobody has waited yet: go
    for items, seconds in ((1, 0.011), (3, 0.013)):
        bento.on_batch(items, seconds)
    # 0.95 * 0.02 = 19 ms; three wait for (silent 1 ms + tick 1 ms + 1 ms an item) each: 9 ms, ten: 30 ms
    assert bento.decide(3, 0.02, 0.001) == (0, 0.001)
    assert bento.decide(10, 0.02, 0.001) == (10, 0.0)


def test_gradients_long_average_by_its_own_test() -> None:
    """`ExpAvgMeasurementTest` of concurrency-limits: a window of 100, of which the first ten are a plain mean."""
    policy = GradientPolicy(window=100)
    for i, usual in enumerate([10.0, 10.5, 11, 11.5, 12, 12.5, 13, 13.5, 14, 14.5]):
        policy.on_complete(0.0, i + 10.0, 20, True)
        assert policy.state_dict()["usual"] == pytest.approx(usual, abs=0.01)
    policy.on_complete(0.0, 100.0, 20, True)
    assert policy.state_dict()["usual"] == pytest.approx(16.2, abs=0.1)


def test_a_windows_mean_by_its_own_test() -> None:
    """`ImmutableAverageSampleWindowTest`: what was dropped counts in the mean, too; here four times over, for the ten."""
    heard: list[float] = []

    class Heard(rules.Growing):
        def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
            heard.append(rtt)
            return 5

    windowed = rules.Windowed(Heard(), 1.0)
    windowed.on_complete(0.5, 1.0, 1, True)  # ends the window that was open: too few
    for rtt, ok in [(5000.0, True), (500.0, True), (10.0, True), (5000.0, False)] * 4:
        windowed.on_complete(1.0, rtt, 1, ok)
    windowed.on_complete(2.0, (5000 + 500 + 10 + 5000) / 4, 1, True)
    assert heard == [pytest.approx((5000 + 500 + 10 + 5000) / 4)]


class Asked:
    """Envoy's controller as its own tests ask it: calls of one length, then 101 ms."""

    def __init__(self, **given: float) -> None:
        self.envoy, self.t = rules.Envoy(**given), 42.0 * 3600  # type: ignore[arg-type]
        self.envoy._next = self.envoy._begun_at = self.t - 1
        self.envoy._calibrate_at = self.t + 30

    def calls(self, rtt: float, number: int = 5) -> int:
        for _ in range(number):
            self.envoy.on_complete(self.t, rtt, self.envoy.limit, True)
        return self.envoy.limit

    def window(self, rtt: float) -> int:
        self.calls(rtt, 4)
        self.t += 0.101
        return self.calls(rtt, 1)


def test_envoys_shortest_time_by_its_own_tests() -> None:
    """`MinRTTLogicTest` and `SamplePercentileProcessTest`: as many calls as asked for, at the least limit; their median."""
    asked = Asked(low=7, calls=50)
    for _ in range(50):
        assert asked.envoy.limit == 7
        assert asked.envoy._calibrating
        asked.calls(0.013, 1)
    assert not asked.envoy._calibrating
    assert asked.envoy.shortest == 0.013
    asked = Asked(calls=5)
    for ms in range(1, 6):
        asked.calls(ms / 1000, 1)
    assert asked.envoy.shortest == 0.003


def test_envoy_does_not_shrink_within_its_buffer_by_its_own_test() -> None:
    """`MinRTTBufferTest`."""
    asked = Asked(calls=5, buffer=0.5)
    before = asked.calls(0.005)
    assert asked.envoy.shortest == 0.005
    for _ in range(10):
        now = asked.window(0.006)
        assert now > before or now == rules.HIGH
        before = now


def test_envoys_limit_by_its_own_test() -> None:
    """`ConcurrencyLimitBehaviorTestBasic`: it grows by no more than twice at once, and shrinks where calls take longer."""
    asked = Asked(low=7, high=1000, calls=5, buffer=0.1)
    before = asked.calls(0.005)
    assert before == 7
    for _ in range(10):
        now = asked.window(0.004)
        assert before <= now <= 2 * before + math.sqrt(2 * before)
        before = now
    for _ in range(10):
        now = asked.window(0.006)
        assert 7 <= now < before
        before = now


def test_envoy_returns_to_its_limit_by_its_own_test() -> None:
    """`MinRTTReturnToPreviousLimit` and `MinRTTEpoch`: calls that were begun before do not count."""
    asked = Asked(calls=5)
    asked.calls(0.005)
    for _ in range(5):
        grown = asked.window(0.004)
    asked.t += 31
    assert asked.calls(0.004, 1) == 3
    asked.calls(300.0, 25)
    assert asked.envoy.limit == 3
    asked.t += 1
    for _ in range(5):
        assert asked.envoy.limit == 3
        asked.calls(0.013, 1)
    assert asked.envoy.limit == grown


def test_envoy_measures_anew_where_it_stays_at_the_least_by_its_own_test() -> None:
    """`ConsecutiveMinConcurrencyReset`: twice the shortest time, and nothing else for long."""
    asked = Asked(low=7, calls=5, buffer=0.0)
    asked.calls(0.005)
    asked.envoy._calibrate_at = math.inf
    while not asked.envoy._calibrating:
        asked.window(0.010)
    asked.t += 1
    before = asked.window(0.010)
    assert asked.envoy.shortest == 0.010
    for _ in range(10):
        now = asked.window(0.010)
        assert now >= before
        before = now
    assert before > 7


def linked(requests: int, scale: Callable[[int], float], rng: random.Random, jitter: float = 0.0) -> tuple[int, float]:
    """Return the most and the mean calls under way, of Vector's rule on a link as its own tests have it."""
    rule, order = rules.Vector(), itertools.count()
    under_way: list[tuple[float, int, float]] = []
    left, done, most = requests, 0, 0
    area = now = 0.0
    while done < requests:
        while left and len(under_way) < rule.limit:
            took = 0.125 * (1 + scale(len(under_way) + 1) + jitter * rng.expovariate(1))
            heapq.heappush(under_way, (now + took, next(order), now))
            left -= 1
        most = max(most, len(under_way))
        end = under_way[0][0]
        area += len(under_way) * (end - now)
        now = end
        while under_way and under_way[0][0] == now:  # those that end at once all do before another one begins
            _, _, began = heapq.heappop(under_way)
            rule.on_complete(now, now - began, len(under_way) + 1, True)
            done += 1
    return most, area / now


def test_vectors_rule_by_its_own_links() -> None:
    """Its files of ``tests/data/adaptive-concurrency``, with 125 ms for 100: a number that adds up without rounding."""
    rng = random.Random(1)
    most, mean = linked(500, lambda level: 0.0, rng)  # constant-link
    assert 30 <= most <= 31
    assert 15.0 <= mean <= 16.0
    most, mean = linked(1000, lambda level: 1.1 ** max(0, level - 10) - 1, rng)  # shallow-knee
    assert most == 12
    assert 9 <= mean <= 11
    most, mean = linked(200, lambda level: level - 1.0, rng)  # slow-link
    assert 2 <= most <= 7
    assert 1.5 <= mean <= 5.0
    found = [
        linked(1000, lambda level: 0.0, random.Random(seed), jitter=0.1) for seed in range(8)
    ]  # jittery-link-small
    assert sum(20 <= most <= 40 and 8.0 <= mean <= 20.0 for most, mean in found) >= 6


def test_bentos_cost_of_an_item_is_the_slope_of_a_least_squares_fit() -> None:
    """As `Optimizer.trigger_refresh` has it: of durations on sizes and one, over the last fifty, at least a microsecond."""
    rng, bento = random.Random(4), Bento()
    seen = [(rng.randint(1, 100), rng.uniform(0.01, 0.05)) for _ in range(80)]
    for items, seconds in seen:
        bento.on_batch(items, seconds)
    sizes, durations = zip(*seen[-50:], strict=True)
    assert bento._each == pytest.approx(max(1e-6, linear_regression(sizes, durations).slope))
