"""The bench of a worker that seeks its numbers: its sums, and one short turn of it; in virtual time see ``test_sought``."""

from __future__ import annotations

import pytest

from bench.child import ChildError
from bench.control.bench_worker_auto import arguments, figures, report, shares, turn
from bench.report import Machine
from bench.server import Server


def test_the_last_third_counts() -> None:
    noted = {
        "ends": [number / 10 for number in range(300)],
        "took": [1.0] * 200 + [number / 1000 for number in range(100)],
        "limits": [[1.0, 8], [21.0, 16], [25.0, 20], [29.0, 18]],
    }
    found = figures(noted, 30.0)
    assert found["rate"] == pytest.approx(10.0)
    assert found["p95_ms"] == pytest.approx(95, abs=1)
    assert found["limit"] == 18
    assert figures({**noted, "limits": [[1.0, 8]]}, 30.0)["limit"] == 8, "it has not moved since"
    with pytest.raises(ChildError):
        figures({**noted, "ends": [0.0], "took": [1.0]}, 30.0)


def test_auto_is_told_beside_the_best_number() -> None:
    found = {
        setting: {"rate": rate, "p95_ms": 1.5, "limit": 12.0}
        for setting, rate in (("auto", 95), ("1", 10), ("16", 100))
    }
    assert shares(found) == {"auto": 0.95, "1": 0.1, "16": 1.0}
    args = arguments(["--small", "--only", "cpu"])
    assert (args.levels, args.only, args.seconds) == ([4, 64], ["cpu"], 6.0)
    assert "met     auto is at least 90%" in report({"cpu": found}, args, Machine(), "redis 7")
    found["auto"]["rate"] = 80
    assert "MISSED  auto" in report({"cpu": found}, args, Machine(), "redis 7")


async def test_a_worker_takes_more_sleepers_than_it_began_with() -> None:
    with Server() as server:
        found = await turn(server, "sleepers", "auto", 1.5, "")
    assert found["limit"] > 8
    assert found["rate"] > 0
