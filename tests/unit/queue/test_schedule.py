"""Schedules: their ticks, their nights of daylight saving, and what is no schedule."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, DecodeError, SettingsError
from asyncworker.queue.codec import born_ms, is_id
from asyncworker.queue.schedule import Schedule, pack_schedule, unpack_schedule

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(cron: str = "", tz: str = "UTC", name: str = "tick", **more: Any) -> Schedule:
    return Schedule(name=name, task="task", cron=cron, tz=tz, **more)


def ticks(it: Schedule, after: datetime, count: int) -> list[datetime]:
    zone = ZoneInfo(it.tz)
    return [datetime.fromtimestamp(tick, zone) for tick in itertools.islice(it.ticks(after.timestamp()), count)]


def test_a_tick_in_the_gap_fires_at_the_next_valid_time() -> None:
    night = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    first, second = ticks(schedule("30 2 * * *", "Europe/Berlin"), night, 2)
    assert (first.day, first.hour, first.minute) == (29, 3, 0)
    assert (second.day, second.hour, second.minute) == (30, 2, 30)


def test_a_repeated_hour_fires_once() -> None:
    night = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    days = [tick.day for tick in ticks(schedule("30 2 * * *", "Europe/Berlin"), night, 3)]
    assert days == [25, 26, 27]


@given(st.integers(0, 4 * 10**9), st.sampled_from([0.1, 1.0, 7.5, 60.0, 86_400.0]))
def test_everybody_has_the_same_intervals(after_s: int, every: float) -> None:
    it = schedule(every=every)
    first, second = itertools.islice(it.ticks(after_s), 2)
    assert after_s < first <= after_s + every + 1e-6
    assert second - first == pytest.approx(every, abs=1e-5)
    assert it.latest(first) == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
@given(after_s=st.integers(10**9, 2 * 10**9))
def test_the_latest_tick_is_one_of_them(zone: str, after_s: int) -> None:
    it = schedule("*/7 3,14 * * *", zone)
    latest = it.latest(after_s)
    assert latest <= after_s
    assert next(it.ticks(latest)) > after_s


@pytest.mark.parametrize(
    ("it", "kind"),
    [
        (schedule("61 * * * *"), SettingsError),
        (schedule("* * * *"), SettingsError),
        (schedule("* * * * *", "Mars/Base"), SettingsError),
        (schedule(), SettingsError),
        (schedule("* * * * *", every=1.0), SettingsError),
        (schedule(every=0.01), SettingsError),
        (schedule(every=float("inf")), SettingsError),
        (schedule(every=1.0, missed="some"), BadParameters),
    ],
)
def test_what_is_no_schedule(it: Schedule, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        it.check()
    with pytest.raises(DecodeError):
        unpack_schedule(pack_schedule(it))


@given(st.binary())
def test_any_bytes_are_a_schedule_or_none(data: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack_schedule(data)


def test_they_travel() -> None:
    it = schedule("*/5 * * * *", "Europe/Berlin", missed="all", payload=b"call", options={"unique": "k"})
    assert unpack_schedule(pack_schedule(it)) == it
    assert (str(it), str(schedule(every=30.0))) == ("*/5 * * * * Europe/Berlin", "every 30 s")


def test_a_ticks_job_has_the_same_id_wherever_it_is_made() -> None:
    it = schedule("* * * * *")
    job = it.job(1_800_000_000.0)
    assert is_id(job.id)
    assert job.id == schedule("* * * * *").job(1_800_000_000.0).id
    assert job.id != it.job(1_800_000_060.0).id
    assert job.id != schedule("* * * * *", name="other").job(1_800_000_000.0).id
    assert born_ms(job.id) == 1_800_000_000_000
