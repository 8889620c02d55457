"""When a failed job runs again: full jitter within its bounds, and who decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import Retry
from asyncworker.queue.task import TaskOptions
from asyncworker.queue.worker.retry import UNKNOWN_TASK_PATIENCE_S, again, delay_s, put_back_s


@given(
    attempt=st.integers(1, 10_000),
    base=st.floats(0, 100),
    cap=st.floats(0, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_drawn_from_zero_to_the_capped_power(attempt: int, base: float, cap: float, draw: float) -> None:
    options = TaskOptions(retry_backoff=base, retry_backoff_max=cap)
    delay = delay_s(options, attempt, lambda: draw)
    assert 0 <= delay <= min(cap, base * 2.0 ** min(attempt - 1, 60))


def test_without_jitter_delays_double_up_to_the_cap() -> None:
    options = TaskOptions(retry_backoff=1, retry_backoff_max=10, retry_jitter=False)
    assert [delay_s(options, attempt) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize(
    ("options", "attempt", "error", "runs_again"),
    [
        (TaskOptions(max_attempts=3), 1, ValueError(), True),
        (TaskOptions(max_attempts=3), 2, ValueError(), True),
        (TaskOptions(max_attempts=3), 3, ValueError(), False),
        (TaskOptions(max_attempts=1), 1, ValueError(), False),
        (TaskOptions(retry_on=(OSError,)), 1, ValueError(), False),
        (TaskOptions(retry_on=(OSError,)), 1, ConnectionError(), True),
        (TaskOptions(no_retry_on=(ValueError,)), 1, ValueError(), False),
        (TaskOptions(no_retry_on=(ValueError,)), 1, UnicodeError(), False),
        (TaskOptions(no_retry_on=(ValueError,)), 1, OSError(), True),
        (TaskOptions(retry_when=lambda attempt, _: attempt < 2), 1, OSError(), True),
        (TaskOptions(retry_when=lambda attempt, _: attempt < 2), 2, OSError(), False),
        (TaskOptions(), 1, SystemExit(), False),
        (TaskOptions(no_retry_on=(Exception,)), 1, Retry(delay=7), True),
        (TaskOptions(), 3, Retry(delay=7), False),
    ],
)
def test_who_runs_again(options: TaskOptions, attempt: int, error: BaseException, runs_again: bool) -> None:
    assert (again(options, attempt, error) is not None) is runs_again


def test_a_retry_that_names_its_delay_gets_it() -> None:
    assert again(TaskOptions(), 1, Retry(delay=7.5)) == 7.5


def test_a_job_of_an_unknown_task_is_put_back_for_an_hour_and_no_longer() -> None:
    waited, tries = 0.0, 0
    while (delay := put_back_s(tries)) is not None:
        assert 0 < delay <= 60
        waited, tries = waited + delay, tries + 1
    assert UNKNOWN_TASK_PATIENCE_S <= waited < UNKNOWN_TASK_PATIENCE_S + 60
