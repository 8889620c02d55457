from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from asyncworker.daemon.catalogue import CATALOGUE, LABELS
from asyncworker.daemon.sheet import MOST_SERIES, Series, Sheet, Spread, text
from asyncworker.tune.sensors.jobs import BOUNDS_S, OTHER

WIDE = len(BOUNDS_S) + 1


def spread(*counts: int) -> Spread:
    return Spread([*counts, *[0] * (WIDE - len(counts))], float(sum(counts)))


def test_sums_and_largest() -> None:
    one = Sheet(
        {("jobs_running", ()): 1.0, ("batch_size", ("rows",)): 10.0, ("job_attempts_total", ("t", "q", "failed")): 2.0},
        {("job_wait_seconds", ("t", "q")): spread(1, 2)},
    )
    two = Sheet(
        {("jobs_running", ()): 4.0, ("batch_size", ("rows",)): 7.0, ("job_attempts_total", ("t", "q", "failed")): 3.0},
        {("job_wait_seconds", ("t", "q")): spread(0, 5), ("job_wait_seconds", ("u", "q")): spread(1)},
    )
    whole = Series().merge([one, two])
    assert whole.numbers == {
        ("jobs_running", ()): 5.0,
        ("batch_size", ("rows",)): 10.0,
        ("job_attempts_total", ("t", "q", "failed")): 5.0,
    }
    assert whole.spreads == {
        ("job_wait_seconds", ("t", "q")): spread(1, 7),
        ("job_wait_seconds", ("u", "q")): spread(1),
    }
    assert one.spreads["job_wait_seconds", ("t", "q")] == spread(1, 2), "what was handed on is not changed"


def test_the_text_has_types_and_buckets_and_escapes() -> None:
    sheet = Sheet({("queue_jobs", ('a"b\\c\nd', "queued")): 3.0}, {("job_wait_seconds", ("t", "q")): spread(1, 2)})
    body, kind = text(sheet, "")
    families = {one.name: one for one in text_string_to_metric_families(body.decode())}
    (sample,) = families["asyncworker_queue_jobs"].samples
    assert sample.labels == {"queue": 'a"b\\c\nd', "state": "queued"}
    buckets = [one for one in families["asyncworker_job_wait_seconds"].samples if one.name.endswith("_bucket")]
    assert [one.value for one in buckets] == [1.0] + [3.0] * (WIDE - 1)
    assert buckets[-1].labels["le"] == "+Inf"
    assert kind.startswith("text/plain; version=0.0.4")


def test_e15_a_hundred_thousand_names_make_no_more_series() -> None:
    series = Series()

    def told(round_: int) -> Sheet:
        numbers = {("job_attempts_total", (f"task-{round_}-{n}", "q", "failed")): 1.0 for n in range(10_000)}
        spreads = {("job_wait_seconds", (f"task-{round_}-{n}", "q")): spread(1) for n in range(100)}
        return series.merge([Sheet(numbers, spreads)])

    first = told(0)
    assert len(first.numbers) == MOST_SERIES + 1
    assert first.numbers["job_attempts_total", (OTHER, OTHER, OTHER)] == 10_000 - MOST_SERIES
    for round_ in range(1, 10):
        later = told(round_)
        assert set(later.numbers) <= set(first.numbers)
        assert sum(later.numbers.values()) == 10_000, "none is lost"


names = st.sampled_from(["a", "b", "c"])
counts = st.dictionaries(names, st.integers(1, 9), max_size=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(counts, counts), max_size=8))
def test_what_since_tells_brings_after_up_to_date(rounds: list[tuple[dict[str, int], dict[str, int]]]) -> None:
    here, there, totals = Sheet(), Sheet(), dict.fromkeys("abc", 0)
    for grown, gauges in rounds:
        totals |= {name: totals[name] + number for name, number in grown.items()}
        now = Sheet(
            {("optimizer_decisions_total", (name, "r")): float(of) for name, of in totals.items() if of}
            | {("pool_waiters", (name,)): float(of) for name, of in gauges.items()},
            {("pool_acquire_seconds", (name,)): Spread([of] * 19, float(of)) for name, of in totals.items() if of},
        )
        assert now.fits()
        told = msgspec.msgpack.decode(msgspec.msgpack.encode(now.since(here)), type=Sheet)
        here, there = now, there.after(told)
        assert there == now


@pytest.mark.parametrize(
    "sheet",
    [
        Sheet({("jobs_total", ("q",)): 1.0}),
        Sheet({("no_such_metric", ()): 1.0}),
        Sheet({("job_wait_seconds", ("t", "q")): 1.0}),
        Sheet({}, {("job_wait_seconds", ("t", "q")): Spread([1], 0.0)}),
        Sheet({}, {("jobs_running", ()): Spread([1], 0.0)}),
    ],
)
def test_what_is_not_in_the_catalogue_does_not_fit(sheet: Sheet) -> None:
    assert not sheet.fits()


def test_the_catalogue_keeps_prometheus_rules() -> None:
    for name, entry in CATALOGUE.items():
        assert name.endswith("_total") == (entry.kind == "counter"), name
        assert bool(entry.bounds) == (entry.kind == "histogram"), name
        assert set(entry.labels) <= set(LABELS), name
        assert entry.doc.endswith(".")
        assert list(entry.bounds) == sorted(set(entry.bounds))
