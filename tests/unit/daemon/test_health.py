"""Red and green, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.daemon.fleet_health import HUNG_S, Health
from asyncworker.daemon.fleet_metrics import FleetMetrics
from asyncworker.daemon.health import STILL_S, WorkerHealth
from asyncworker.errors import BrokerDown
from asyncworker.events import WorkerIdled, WorkerStarted, WorkerStopped
from asyncworker.fleet.manager import RED_CYCLES, DynamicWorkerManager
from asyncworker.queue.job import Depth, QueueDepth
from tests.support.brokers import until
from tests.support.clock import FrozenClock

STATS: dict[str, Any] = {
    "active_workers": 2,
    "wanted_workers": 2,
    "queue_lengths": {"default": 3},
    "crash_loops": [],
    "failed_in_a_row": 0,
    "monitoring": True,
    "monitoring_ended": False,
    "pass_age_s": 0.1,
    "still_s": 0.0,
}
SEEN = Depth({}, 0, {})


def health(min_workers: int = 1, **stats: Any) -> Health:
    manager = SimpleNamespace(get_worker_stats=lambda: STATS | stats, min_workers=min_workers)
    return Health(Engine(), manager)  # type: ignore[arg-type] - the two that it asks


def test_all_is_well() -> None:
    assert (health().live().ok, health().readiness(SEEN).ok, health().turns()) == (True, True, True)
    assert health().status() == "2 of 2 workers work, 3 jobs wait"


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        ({"monitoring": False, "monitoring_ended": True}, "the control loop has ended"),
        ({"pass_age_s": HUNG_S}, "the control loop did not come round for 30 s"),
    ],
)
def test_a_control_loop_that_does_not_come_round_is_dead(stats: dict[str, Any], reason: str) -> None:
    found = health(**stats)
    assert found.live().reasons == (reason,)
    assert not found.turns()
    assert not found.readiness(SEEN).ok


def test_s32_failed_cycles_turn_it_red_but_do_not_starve_the_watchdog() -> None:
    found = health(failed_in_a_row=RED_CYCLES)
    assert found.live().reasons == ("the last 3 cycles of the control loop failed",)
    assert found.turns(), "a new process would find no other broker"
    assert health(failed_in_a_row=RED_CYCLES - 1).live().ok


@pytest.mark.parametrize(
    ("stats", "depth", "reason"),
    [
        ({}, None, "the broker does not answer"),
        ({"active_workers": 0}, SEEN, "no worker works, of 2"),
        ({"active_workers": 0, "wanted_workers": 0}, SEEN, "no worker works, of 1"),
        ({"monitoring": False}, SEEN, "the supervisor is not at work"),
        ({"crash_loops": ["worker-1"]}, SEEN, "worker-1 die young again and again"),
        ({"still_s": STILL_S}, SEEN, "jobs have waited for 30 s, and workers with room for them took none"),
    ],
)
def test_where_no_work_is_done_it_is_not_ready(stats: dict[str, Any], depth: Depth | None, reason: str) -> None:
    assert health(**stats).readiness(depth).reasons == (reason,)


def test_from_zero_workers_it_is_ready_without_any() -> None:
    assert health(min_workers=0, active_workers=0, wanted_workers=0).readiness(SEEN).ok


class Failing:
    """A broker that cannot be asked."""

    def __init__(self) -> None:
        self.down = True

    async def depth(self, queues: Any) -> Depth:
        if self.down:
            raise BrokerDown
        return Depth({"default": QueueDepth()}, 0, {})


async def test_s32_a_control_loop_whose_cycles_fail_turns_red_counts_them_and_recovers() -> None:
    broker = Failing()
    engine = Engine()
    engine.__dict__["broker"] = broker
    manager = DynamicWorkerManager(
        ["nobody"],
        broker,  # type: ignore[arg-type] - the verb it uses
        queues=["default"],
        min_workers=0,
        max_workers=1,
        interval=0.05,
    )
    found = Health(engine, manager)
    metrics = FleetMetrics(engine, manager, found)

    async def failures() -> float:
        return (await metrics.read()).numbers["control_failures_total", ()]

    async def red() -> bool:
        return not found.live().ok

    async def green() -> bool:
        return found.live().ok and (await found.ready()).ok

    async with manager:
        await until(red)
        assert await failures() >= RED_CYCLES
        assert (await found.ready()).reasons[-1] == "the broker does not answer"
        assert (await metrics.read()).numbers["fleet_healthy", ()] == 0
        broker.down = False
        await until(green)
        assert (await metrics.read()).numbers["fleet_ready", ()] == 1
    metrics.close()
    del engine.__dict__["broker"]


@pytest.fixture
async def alone(frozen_clock: FrozenClock) -> AsyncIterator[SimpleNamespace]:
    engine, broker = Engine(), Failing()
    engine.__dict__["broker"] = broker
    found = WorkerHealth(engine, frozen_clock)
    yield SimpleNamespace(engine=engine, broker=broker, health=found)
    found.close()
    del engine.__dict__["broker"]


async def test_a_worker_by_itself_is_ready_when_it_takes_jobs(alone: SimpleNamespace) -> None:
    assert (await alone.health.live()).ok
    assert (await alone.health.ready()).reasons == ("the broker does not answer", "the worker takes no jobs")
    alone.broker.down = False
    alone.engine.bus.emit(WorkerStarted(epoch="e", queues=("default",), concurrency=1))
    assert (await alone.health.ready()).ok
    assert alone.health.status() == "0 jobs run"
    alone.engine.bus.emit(WorkerStopped(epoch="e", handed_back=0))
    assert not (await alone.health.ready()).ok
    assert alone.health.status() == "not at work"


async def test_a_worker_that_idles_while_jobs_wait_is_not_ready(
    alone: SimpleNamespace, frozen_clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waiting(_: Any) -> Depth:
        return Depth({"default": QueueDepth(queued=1)}, 0, {})

    monkeypatch.setattr(alone.broker, "depth", waiting)
    alone.engine.bus.emit(WorkerStarted(epoch="e", queues=("default",), concurrency=1))
    alone.engine.bus.emit(WorkerIdled(epoch="e", idle=True))
    assert (await alone.health.ready()).ok
    frozen_clock.advance(STILL_S)
    assert not (await alone.health.ready()).ok
    alone.engine.bus.emit(WorkerIdled(epoch="e", idle=False))
    assert (await alone.health.ready()).ok
