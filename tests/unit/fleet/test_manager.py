"""The manager, over processes that only say that they work, and a broker that says what it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from asyncworker.errors import BadParameters, BrokerDown, UnknownName
from asyncworker.events import Bus, Decided, ProcessEnded
from asyncworker.fleet import crew as crew_module
from asyncworker.fleet import manager as module
from asyncworker.fleet.manager import DynamicWorkerManager
from asyncworker.queue.job import Depth, QueueDepth
from asyncworker.tune.sensors.host import Host
from tests.support.brokers import until

ROOT = Path(__file__).parents[3]

WORKER = """
import asyncio, os, signal, sys
from asyncworker.share.board import Gauges
from asyncworker.share.channel import HighPerformanceIPC

behave = os.environ.get("BEHAVE", "")

async def work():
    place, _, name = os.environ["ASYNCWORKER_SUPERVISOR"].rpartition(":")
    if behave == "crash" or behave == "crash later" and os.path.exists(os.environ["MARK"]):
        sys.exit(3)
    gauges = lambda: Gauges(stage=1, running=int(os.environ.get("RUNNING", 0)), ended=int(os.environ.get("ENDED", 0)))
    async with HighPerformanceIPC(name, place=place, measure=gauges, heartbeat_interval=0.05):
        stop = asyncio.Event()
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            asyncio.get_running_loop().add_signal_handler(sign, stop.set)
        if behave == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if behave == "long":
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
        if behave == "chatty":
            sys.stdout.write("x" * 10_000_000)
            sys.stdout.flush()
        await stop.wait()

asyncio.run(work())
"""


class Scripted:
    """A broker of which only the depth is known: what the test says."""

    def __init__(self) -> None:
        self.queued = self.running = self.asked = 0
        self.down = False

    async def depth(self, queues: Any) -> Depth:
        self.asked += 1
        if self.down:
            raise BrokerDown
        return Depth({"default": QueueDepth(queued=self.queued, oldest_s=1.0)}, self.running, {})


Make = Callable[..., Any]


def quiet() -> Host:
    return Host(processors=4, cpu_ratio=0.1, memory_bytes=2**34, memory_used_bytes=2**30)


@asynccontextmanager
async def managed(broker: Scripted | None = None, **options: Any) -> AsyncIterator[DynamicWorkerManager]:
    behave = {name: str(options.pop(name)) for name in ("BEHAVE", "MARK", "RUNNING", "ENDED") if name in options}
    given = {"min_workers": 2, "max_workers": 4, "interval": 0.1, "host": quiet} | options
    manager = DynamicWorkerManager(
        [sys.executable, "-c", WORKER],
        broker or Scripted(),
        queues=["default"],
        environment={**os.environ, "PYTHONPATH": str(ROOT), **behave},
        **given,
    )
    async with manager:
        yield manager


def names(manager: DynamicWorkerManager, stage: str = "working") -> list[str]:
    return sorted(of["name"] for of in manager.get_worker_stats()["workers"] if of["stage"] == stage)


def pids(manager: DynamicWorkerManager) -> dict[str, int]:
    return {of["name"]: of["pid"] for of in manager.get_worker_stats()["workers"]}


async def working(manager: DynamicWorkerManager, count: int) -> list[str]:
    async def there() -> list[str]:
        found = names(manager)
        return found if len(found) == count == len(pids(manager)) else []

    return await until(there)


async def test_the_seeds_face() -> None:
    async with managed() as manager:
        assert await working(manager, 2) == ["worker-1", "worker-2"]
        assert await manager.start_worker() == "worker-3"
        assert await manager.start_worker("mine") == "mine"
        with pytest.raises(BadParameters, match="4 workers already"):
            await manager.start_worker()
        await manager.stop_worker("mine")
        with pytest.raises(BadParameters, match="there is a worker 'worker-3'"):
            await manager.start_worker("worker-3")
        with pytest.raises(UnknownName, match="worker"):
            await manager.stop_worker("mine")
        stats = manager.get_worker_stats()
        assert {"total_workers", "active_workers", "dead_workers", "cpu_percent", "memory_percent"} <= stats.keys()
        assert stats["total_workers"] == 3
        await manager.stop_worker()
        await manager.stop_all_workers()
        await working(manager, 2)
    assert repr(manager) == "<DynamicWorkerManager 0 of 2..4 workers>"
    await manager.stop_monitoring()
    await manager.stop_worker()


async def test_s25_eight_started_at_once_are_eight_supervised_and_never_more() -> None:
    async with managed(max_workers=8, interval=1000.0) as manager:
        await asyncio.gather(*(manager.start_worker() for _ in range(6)))
        with pytest.raises(BadParameters):
            await manager.start_worker()
        started = await working(manager, 8)
        assert started == [f"worker-{number}" for number in range(1, 9)]
        assert len(set(pids(manager).values())) == 8


async def test_s25_a_backlog_that_stays_starts_no_more_than_there_may_be() -> None:
    broker = Scripted()
    broker.queued = 10**6
    async with managed(broker, min_workers=1, max_workers=3) as manager:
        await working(manager, 3)
        looked = broker.asked

        async def ten_more() -> bool:
            assert len(pids(manager)) <= 3
            return broker.asked > looked + 10

        await until(ten_more)
        assert await working(manager, 3)


async def test_s26_from_nobody_to_one() -> None:
    broker, told = Scripted(), []
    bus = Bus()
    bus.listen(Decided, told.append)
    async with managed(broker, min_workers=0, bus=bus) as manager:

        async def looked() -> bool:
            return broker.asked > 2

        await until(looked)
        assert pids(manager) == {}
        broker.queued = 1

        async def one_works() -> bool:
            return bool(names(manager))

        await until(one_works)
    first = told[0]
    assert (first.name, first.old, first.new, first.because) == ("workers", 0, 1, "work waits, and nobody works")


async def test_s26_schedules_need_somebody() -> None:
    async def planned() -> int:
        return 1

    async with managed(min_workers=0, planned=planned) as manager:
        await working(manager, 1)
        assert "will be due" in manager.get_worker_stats()["because"] or names(manager)


async def test_s30_who_is_killed_is_replaced_under_its_name() -> None:
    ended: list[ProcessEnded] = []
    bus = Bus()
    bus.listen(ProcessEnded, ended.append)
    async with managed(bus=bus) as manager:
        await working(manager, 2)
        before = pids(manager)
        os.kill(before["worker-1"], signal.SIGKILL)

        async def replaced() -> bool:
            return pids(manager).get("worker-1") not in {None, before["worker-1"]}

        await until(replaced)
        assert await working(manager, 2) == ["worker-1", "worker-2"]
        assert pids(manager)["worker-2"] == before["worker-2"]
    (one,) = ended
    assert (one.name, one.pid, one.because, one.again_s) == (
        "worker-1",
        before["worker-1"],
        "killed by SIGKILL",
        0.0,
    )


async def test_s30_a_crash_loop_backs_off_and_is_red() -> None:
    ended: list[ProcessEnded] = []
    bus = Bus()
    bus.listen(ProcessEnded, ended.append)
    async with managed(bus=bus, min_workers=1, BEHAVE="crash") as manager:

        async def loops() -> bool:
            return not manager.healthy

        await until(loops)
        assert manager.get_worker_stats()["crash_loops"] == ["worker-1"]
        assert [of.again_s for of in ended] == [0.0, 1.0, 2.0]
        assert {of.because for of in ended} == {"exit code 3"}
        assert manager.get_worker_stats()["dead_workers"] == 1
        await manager.stop_worker("worker-1")
        assert manager.get_worker_stats()["dead_workers"] == 0


async def test_s30_what_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start, tries = crew_module.WorkerProcess, []

    def fails_twice(*given: Any) -> Any:
        tries.append(given)
        if len(tries) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(*given)

    monkeypatch.setattr(crew_module, "WorkerProcess", fails_twice)
    async with managed(min_workers=1) as manager:
        assert await working(manager, 1) == ["worker-1"]
    assert len(tries) == 3


async def test_s29_who_prints_without_end_is_not_held_up(capfd: pytest.CaptureFixture[str]) -> None:
    async with managed(min_workers=1, BEHAVE="chatty") as manager:
        await working(manager, 1)

        async def said() -> bool:
            return len(capfd.readouterr().err) > 0

        await until(said)
        await manager.stop_worker("worker-1")


async def test_s31_a_storm_of_starts_and_stops_leaves_nobody_unknown() -> None:
    async with managed(max_workers=6, interval=1000.0) as manager:
        before = {child.pid for child in psutil.Process().children()} - set(pids(manager).values())

        async def storm(number: int) -> None:
            for _ in range(3):
                try:
                    name = await manager.start_worker(f"own-{number}")
                except BadParameters:
                    continue
                try:
                    await manager.stop_worker(name)
                except UnknownName:
                    continue

        async with asyncio.timeout(50):
            await asyncio.gather(*(storm(number) for number in range(5)))
        manager.restart()

        async def all_known() -> bool:
            there = {child.pid for child in psutil.Process().children()} - before
            return there == set(pids(manager).values()) and len(names(manager)) == len(there) == 2

        await until(all_known)


async def test_s32_looks_that_fail_turn_it_red_and_are_counted() -> None:
    broker = Scripted()
    async with managed(broker, min_workers=1) as manager:
        await working(manager, 1)
        assert manager.healthy
        broker.down = True

        async def red() -> bool:
            return not manager.healthy

        await until(red)
        assert manager.get_worker_stats()["failed_cycles"] >= module.RED_CYCLES
        broker.down = False

        async def well() -> bool:
            return manager.healthy

        await until(well)
        assert names(manager) == ["worker-1"], "who works goes on"


async def test_s32_an_error_that_nobody_foresaw_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Scripted()

    async def broken(queues: Any) -> Depth:
        raise ZeroDivisionError

    monkeypatch.setattr(broker, "depth", broken)
    running = managed(broker, min_workers=1)
    manager = await running.__aenter__()
    with pytest.raises(ZeroDivisionError):
        await manager.wait()
    assert not manager.healthy
    with pytest.raises(ZeroDivisionError):
        await running.__aexit__(None, None, None)
    assert pids(manager) == {}


async def test_a_rolling_restart_replaces_each_when_its_successor_works() -> None:
    async with managed(min_workers=3, max_workers=3, interval=1000.0) as manager:
        await working(manager, 3)
        before = set(pids(manager).values())
        manager.restart()
        manager.restart()
        fewest = 3

        async def renewed() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(names(manager)))
            return len(names(manager)) == 3 and not before & set(pids(manager).values())

        await until(renewed)
        assert fewest == 3, "there were always as many at work"
        assert len(pids(manager)) <= 4


async def test_one_worker_alone_is_replaced() -> None:
    async with managed(min_workers=2, max_workers=2, interval=1000.0) as manager:
        await working(manager, 2)
        before = pids(manager)
        with pytest.raises(UnknownName):
            manager.restart("worker-1", "nobody")
        manager.restart("worker-1")

        async def renewed() -> bool:
            now = set(pids(manager).values())
            return len(names(manager)) == 2 and len(now & set(before.values())) == 1

        await until(renewed)
        assert before["worker-2"] in pids(manager).values()


async def test_a_restart_that_fails_leaves_who_works(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with managed(min_workers=2, max_workers=2, interval=1000.0, BEHAVE="crash later", MARK=mark) as manager:
        await working(manager, 2)
        before = set(pids(manager).values())
        mark.touch()
        manager.restart()

        async def failed() -> bool:
            stats = manager.get_worker_stats()
            return stats["crashes"] == 1 and stats["dead_workers"] == 0

        await until(failed)
        assert set(pids(manager).values()) == before


@pytest.mark.parametrize("limit", [{"recycle_jobs": 10}, {"recycle_bytes": 1000}])
async def test_workers_are_recycled_by_jobs_and_by_memory(limit: dict[str, int]) -> None:
    async with managed(min_workers=1, max_workers=1, ENDED=10, **limit) as manager:
        await working(manager, 1)
        before = pids(manager)

        async def renewed() -> bool:
            return len(pids(manager)) == 1 and pids(manager) != before

        await until(renewed)


async def test_those_with_the_least_to_do_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with managed(min_workers=1, max_workers=3, interval=1000.0) as manager:
        manager._crew._environment["RUNNING"] = "5"
        await manager.start_worker("busy")
        manager._crew._environment["RUNNING"] = "1"
        await manager.start_worker("less")
        await working(manager, 3)
        for gone in ("worker-1", "less"):
            await manager.stop_worker()
            assert gone not in pids(manager)
        assert set(pids(manager)) == {"busy"}


async def test_who_hangs_is_killed_after_its_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "OVERTIME_S", 0.2)
    async with managed(min_workers=1, BEHAVE="hang", grace_period=0.1) as manager:
        await working(manager, 1)
        async with asyncio.timeout(20):
            await manager.stop_worker("worker-1")
            assert "worker-1" not in names(manager)
        manager.hurry()


async def test_s28_who_is_too_much_may_take_its_time_and_there_are_never_too_many() -> None:
    async with managed(min_workers=1, max_workers=2, interval=1000.0, grace_period=0.1, BEHAVE="long") as manager:
        await manager.start_worker()
        await working(manager, 2)
        for _ in range(2):
            manager._wanted = 0

            async def draining() -> bool:
                return not names(manager)

            await until(draining)
            manager._wanted = 2

            async def as_many_as_may_be() -> bool:
                assert len(pids(manager)) <= 3
                return len(pids(manager)) == 3

            await until(as_many_as_may_be)
        assert len(names(manager, "leaving")) >= 2


async def test_s28_busy_workers_are_not_stopped_when_the_machine_is_full() -> None:
    broker = Scripted()
    broker.queued, broker.running = 1000, 50
    full = Host(processors=4, cpu_ratio=1.0, memory_bytes=100, memory_used_bytes=99)
    async with managed(broker, host=lambda: full, min_workers=1) as manager:
        await working(manager, 1)
        before, looked = pids(manager), broker.asked

        async def some_looks() -> bool:
            return broker.asked > looked + 5

        await until(some_looks)
        assert pids(manager) == before
        assert "busy" in manager.get_worker_stats()["because"]
