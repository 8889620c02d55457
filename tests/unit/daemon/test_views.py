"""What is put together of the broker's, the supervisor's and the workers' own words; and what is done to workers."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import msgspec
import pytest

from asyncworker import Engine
from asyncworker.daemon.actions import Actions
from asyncworker.daemon.instruments import SNAPSHOTS, Instruments, Look
from asyncworker.daemon.sights import worker_seen
from asyncworker.daemon.views import Views
from asyncworker.errors import BadParameters, SettingsError, UnknownName
from asyncworker.queue.job import WorkerCard
from asyncworker.settings import load
from asyncworker.tune.top import Snapshot, TaskLoad
from tests.support.brokers import until

HERE = f"{socket.gethostname()}:{os.getpid()}"
SNAPSHOT = Snapshot(1.0, 0.5, 9, 0.4, 0.001, 0.02, 1, "", {"memory_rss_bytes": 5e7, "memory_objects": 9.0}, [])


class Manager:
    """A supervisor as views and actions see it, of one worker that never ends."""

    min_workers, max_workers = 1, 4

    def __init__(self) -> None:
        self.restarted: list[tuple[str, ...]] = []

    def get_worker_stats(self) -> dict[str, Any]:
        worker = {
            "name": "worker-1",
            "pid": 7,
            "stage": "working",
            "age_s": 5.0,
            "running": 2,
            "jobs": 9,
            "rss_bytes": 0,
        }
        return {
            "workers": [worker],
            "total_workers": 1,
            "wanted_workers": 2,
            "because": "3 wait",
            "healthy": True,
            "crashes": 1,
            "crash_loops": {"worker-1"},
            "cpu_percent": 50.0,
            "memory_percent": 25.0,
        }

    def restart(self, *names: str) -> None:
        self.restarted.append(names)

    async def stop_worker(self, name: str) -> None:
        if name != "worker-1":
            raise UnknownName("worker", name)
        await asyncio.Event().wait()


async def test_a_fleet_is_seen_with_its_reasons() -> None:
    async with Engine() as engine:
        views = Views(engine, Manager())
        fleet = (await views.overview()).fleet
        assert (fleet.workers, fleet.wanted, fleet.because, fleet.crash_loops) == (1, 2, "3 wait", ["worker-1"])
        workers = {of.name: of for of in (await views.workers()).workers}
        assert workers["worker-1"].stage == "working"
        assert workers["worker-1"].jobs == 9
        assert workers[None].source == HERE  # the engine's own, which nobody supervises
        assert (await views.memory()).memory_percent == 25.0


def test_three_words_about_one_worker_are_put_together() -> None:
    card = WorkerCard("h", 7, ("mail",), 3, 10.0, 1.5, "1")
    own = Manager().get_worker_stats()["workers"][0]
    look = Look(
        "h:7",
        True,
        ("mail",),
        {"task mail": (8, 2)},
        msgspec.structs.replace(SNAPSHOT, jobs=[TaskLoad("mail", 4, 0, 0, {}, 0.0, 0.0)]),
    )
    whole = worker_seen("h:7", card, own, look, 100.0)
    assert (whole.name, whole.started_at, whole.running, whole.rss_bytes, whole.cpu_ratio) == (
        "worker-1",
        1.5,
        2,
        5e7,
        0.5,
    )
    assert worker_seen("h:7", None, own, None, 100.0).started_at == 95.0
    alone = worker_seen("h:7", card, None, look, 100.0)
    assert (alone.name, alone.stage, alone.running, alone.sizes) == (None, None, 4, {"task mail": (8, 2)})
    bare = worker_seen("h:7", card, None, None, 100.0)
    assert (bare.running, bare.jobs, bare.rss_bytes, bare.cpu_ratio) == (None, None, None, None)


async def test_workers_tell_where_their_time_goes_when_somebody_looks(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncworker.daemon.instruments.ALONE_S", 0.05)
    monkeypatch.setattr("asyncworker.daemon.instruments.WATCHED_S", 0.05)
    monkeypatch.setattr("asyncworker.daemon.views.LOOKED_S", 0.0)
    async with Engine(redis_url, namespace=namespace) as engine, Instruments(engine) as instruments:
        views = Views(engine)
        assert (await views.profile()).workers == []

        async def work() -> None:
            await asyncio.sleep(0)

        async def profiled() -> Any:
            await instruments.profiler.measure("mail", work())
            of = (await views.profile()).workers
            return of if of and of[0].functions else None

        (of,) = await until(profiled, 20.0)
        assert of.source == HERE
        assert [function.name for function in of.functions] == ["mail"]
        document = msgspec.json.decode(await views.speedscope())
        assert document["profiles"][0]["name"] == HERE
        assert msgspec.json.decode(await views.speedscope("nobody"))["profiles"] == []

        async def measured() -> Any:
            return (await views.memory()).workers

        (of,) = await until(measured, 20.0)
        assert of.readings["memory_rss_bytes"] > 1e6
        assert engine.keep is not None
        await engine.keep.put(SNAPSHOTS, {"other": b"{}"}, 10.0)  # another version's
        assert [one.source for one in (await views.memory()).workers] == [HERE]


async def test_settings_are_told_with_where_they_came_from() -> None:
    loaded = load({"signing_key": "s3cret", "concurrency": "7"}, {})
    async with Engine() as engine:
        views = Views(engine, settings=loaded.settings, origins=loaded.origins)
        told = {of.name: of for of in views.settings().settings}
    assert (told["concurrency"].value, told["concurrency"].origin) == ("7", "--concurrency")
    assert (told["lease"].value, told["lease"].origin) == ("10s", "default")
    assert told["signing_key"].value == "***"
    assert told["database"].value == ""
    assert "s3cret" not in str(told)


async def test_decisions_are_told_also_where_nothing_is_kept() -> None:
    async with Engine() as engine:
        engine.optimizer.decisions.add("task mail", 1, 5, "a try: 3 wait")
        engine.optimizer.decisions.add("pool", 2, 3, "more")
        views = Views(engine)
        assert [of.name for of in (await views.decisions()).decisions] == ["pool", "task mail"]
        assert [of.new for of in (await views.decisions("mail")).decisions] == [5]
        assert (await views.decisions(since_s=1e11)).decisions == []


async def test_workers_are_restarted_and_stopped() -> None:
    async with Engine() as engine:
        manager = Manager()
        actions = Actions(engine, manager)
        await actions.restart_workers()
        await actions.restart_workers("worker-1")
        assert manager.restarted == [(), ("worker-1",)]
        await actions.stop_worker("worker-1")  # returns, though that one goes on for long
        with pytest.raises(UnknownName):
            await actions.stop_worker("worker-2")
        told = [(row.action, row.target, row.outcome) for row in await actions.audit.rows(10)]
        assert told == [
            ("stop", "worker-2", "refused: unknown worker 'worker-2'"),
            ("stop", "worker-1", "done"),
            ("restart", "worker-1", "done"),
            ("restart", "all workers", "done"),
        ]
        await actions.close()
        with pytest.raises(SettingsError):
            await Actions(engine).stop_worker("worker-1")
        with pytest.raises(BadParameters):
            await actions.cancel([])
        with pytest.raises(BadParameters):
            await actions.retry(["x"] * 1001)
