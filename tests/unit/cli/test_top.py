from __future__ import annotations

import pytest

from asyncworker.cli.line import size
from asyncworker.daemon.instruments import Look
from asyncworker.daemon.top import heard_of, view
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.top import FunctionLoad, Snapshot, TaskLoad


def look(source: str, walls: list[float], *, watched: bool = True, calls: int = 1, cpu: float = 0.1) -> Look:
    histogram = LogHistogram()
    for wall in walls:
        histogram.add(wall)
    jobs = [TaskLoad("mail", 2, len(walls), 1, histogram.sparse(), histogram.sum, histogram.longest)]
    jobs.append(TaskLoad("", 3, 0, 0, {}, 0.0, 0.0))
    functions = [FunctionLoad("mail", "shop.py", 3, calls, 1.0, 0.2, 0.1, cpu, 0.05)]
    snapshot = Snapshot(
        2.0, 0.5, 9, 0.4, 0.001, 0.02, 1, "x", {"memory_rss_bytes": 5e7}, functions, jobs, [f"held by {source}", "x"]
    )
    return Look(source, watched, ("default",), {"task mail": (8, 2), "pool": (4, 1)}, snapshot)


def test_workers_are_put_together_by_task() -> None:
    told = view([look("a:1", [0.1] * 9, calls=3), look("b:2", [1.0], calls=1, cpu=0.5)])
    (mail,) = told.tasks
    assert (mail.name, mail.running, mail.limit, mail.rate, mail.failed) == ("mail", 4, 16, 5.0, 2)
    assert mail.p50_s == pytest.approx(0.1, rel=0.1)
    assert mail.p95_s == pytest.approx(1.0, rel=0.1)
    assert mail.cpu_s == pytest.approx(0.2)
    assert mail.on_loop_s == pytest.approx(0.05)
    assert [(of.name, of.running) for of in told.workers] == [("a:1", 5), ("b:2", 5)]
    assert [line for line, _ in told.held] == ["x", "held by a:1", "x", "held by b:2"]


def test_a_task_that_only_has_a_limit_is_told_of_too() -> None:
    quiet = look("a:1", [])
    (mail,) = view([quiet]).tasks
    assert (mail.p50_s, mail.rate) == (None, 0.0)
    assert view([]).tasks == []


def test_who_does_not_answer_is_left_out_unless_nobody_does() -> None:
    one, other = look("a:1", []), look("b:2", [], watched=False)
    assert heard_of([one, other]) == ([one], ["b:2"])
    assert heard_of([other]) == ([other], ["b:2"])
    assert heard_of([]) == ([], [])


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (120e6, "120 MB"), (2.5e12, "2.5e+03 GB")]
)
def test_bytes_can_be_read_at_a_glance(number: float, told: str) -> None:
    assert size(number) == told
