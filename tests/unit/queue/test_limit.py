"""What may be written as a limit or a rate, and what of it travels with a job."""

from __future__ import annotations

import asyncio
import enum
import math
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any

import pytest

from asyncworker import Context, Engine, Limit, Rate
from asyncworker.errors import BadParameters, SettingsError, TaskFailed
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Job
from asyncworker.queue.limit import LONGEST_KEY, Gate, gates_of, key_of
from asyncworker.queue.task import Tasks, limits_of, options_of


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "make",
    [
        Limit,
        lambda: Limit(0),
        lambda: Limit(-1),
        lambda: Limit(True),
        lambda: Limit(2.5),
        lambda: Limit("20"),
        lambda: Limit(20, key="tenant"),
        lambda: Limit(20, per_key=1),
        lambda: Limit(key="tenant", per_key=0),
        lambda: Limit(key="no name", per_key=1),
        lambda: Limit(key=7, per_key=1),
        lambda: Limit(1, name="a:b"),
        lambda: Limit(1, name="n" * 256),
        lambda: Rate(0),
        lambda: Rate("100"),
        lambda: Rate(True),
        lambda: Rate(math.inf),
        lambda: Rate(math.nan),
        lambda: Rate(1, per=0),
        lambda: Rate(1, per=-1),
        lambda: Rate(1, per=math.inf),
        lambda: Rate(10_001),
        lambda: Rate(1, per=1e10),
        lambda: Rate(1, burst=0),
        lambda: Rate(1, burst=0.5),
        lambda: Rate(1, cost=2),
        lambda: Rate(1, cost=-1),
        lambda: Rate(1, cost=None),
        lambda: Rate(1, key="1st"),
        lambda: Rate(1, name="a:b"),
    ],
)
def test_what_is_no_limit(make: Callable[[], object]):
    with pytest.raises(BadParameters):
        make()


def test_numbers_that_travel():
    assert Limit(20, key="tenant", per_key=1).numbers == [20, 1]
    assert Limit(key="tenant", per_key=3).numbers == [0, 3]
    assert Rate(100, per=60, burst=20).numbers == [600_000, 20]
    assert Rate(3).numbers == [333_334, 1], "rounded so that it is never exceeded"


@pytest.mark.parametrize("option", [{"limit": 20}, {"rate": Limit(1)}, {"limit": Rate(1)}])
def test_options_that_are_no_limits(option: dict[str, Any]):
    with pytest.raises(BadParameters):
        options_of(option)


def test_keys():
    some = uuid.UUID(int=7)
    told = [key_of(value) for value in ("a", 7, 2.5, Colour.RED, some, date(2026, 1, 2), None, True)]
    assert told == ["a", "7", "2.5", "red", str(some), "2026-01-02", "None", "True"]
    for value in ([1], {"a": 1}, object(), "x" * (LONGEST_KEY + 1)):
        with pytest.raises(BadParameters):
            key_of(value)


def test_gates():
    options = {"limit": ["task", 20, 1, "a"], "rate": ["api", 100, 5, None, 2.0]}
    assert gates_of(options, {}) == [Gate("ktask:a", 1), Gate("ltask", 20), Gate("rapi", 0, 200, 500)]
    numbers = {"ltask": [0, 2], "rapi": [10, 1]}
    assert gates_of(options, numbers) == [Gate("ktask:a", 2), Gate("ltask", 0), Gate("rapi", 0, 10, 10)]
    keyed = {"rate": ["api", 100, 5, "k", 1.0], "limit": ["task", 3, 0, None]}
    assert gates_of(keyed, {}) == [Gate("ltask", 3), Gate("rapi:k", 0, 100, 500)]
    assert gates_of({}, numbers) == []


class TestTasks:
    def test_keys_and_costs_come_from_the_arguments(self):
        async def call(url: str, ctx: Context, tenant: str = "nobody", *, tokens: int = 1) -> None: ...

        limit, rate = Limit(2, key="tenant", per_key=1), Rate(10, burst=9, cost="tokens", key="url")
        task = Tasks().add("call", call, options_of({"limit": limit, "rate": rate}))
        numbers = [rate.unit_us, 9]
        for args, kwargs, tenant, tokens in (
            (("u", "t"), {"tokens": 5}, "t", 5.0),
            (("u",), {}, "nobody", 1.0),
            ((), {"url": "u", "tenant": "v"}, "v", 1.0),
        ):
            told = {"limit": ["call", 2, 1, tenant], "rate": ["call", *numbers, "u", tokens]}
            assert task.gates(args, kwargs) == told
        with pytest.raises(BadParameters, match="cost"):
            task.gates(("u",), {"tokens": 10})
        with pytest.raises(BadParameters, match="'url' is missing"):
            task.gates((), {})
        assert limits_of({"call": task}) == {"lcall": [2, 1], "rcall": numbers}
        assert task.gated == {"limit", "rate"}

    @pytest.mark.parametrize(
        "options",
        [
            {"limit": Limit(key="tenant", per_key=1)},
            {"rate": Rate(1, key="tenant")},
            {"rate": Rate(1, cost="tenant")},
            {"limit": Limit(key="ctx", per_key=1)},
            {"limit": Limit(key="more", per_key=1)},
        ],
    )
    def test_what_is_no_parameter(self, options: dict[str, Any]):
        async def call(ctx: Context, *args: int, **more: int) -> None: ...

        with pytest.raises(SettingsError, match="parameter"):
            Tasks().add("call", call, options_of(options))

    def test_two_limits_of_one_name(self):
        async def call() -> None: ...

        tasks = Tasks()
        tasks.add("a", call, options_of({"limit": Limit(2, name="api"), "rate": Rate(2, name="api")}))
        tasks.add("b", call, options_of({"limit": Limit(2, name="api"), "rate": Rate(2, name="api")}))
        tasks.add("c", call, options_of({"limit": Limit(3)}))
        tasks.add("d", call, options_of({"limit": Limit(4)}))
        with pytest.raises(SettingsError, match="api"):
            tasks.add("e", call, options_of({"limit": Limit(3, name="api")}))
        with pytest.raises(SettingsError, match="api"):
            tasks.add("e", call, options_of({"rate": Rate(3, name="api")}))
        assert "e" not in tasks

    def test_a_task_whose_name_is_no_limits(self):
        async def call() -> None: ...

        with pytest.raises(BadParameters, match="name"):
            Tasks().add("a:b", call, options_of({"limit": Limit(2)}))
        Tasks().add("a:b", call, options_of({"limit": Limit(2, name="ab")}))


class Counted:
    """How many run at once, in all and by key, at most."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def run(self, key: str) -> None:
        for name in ("", key):
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(0.001)
        for name in ("", key):
            self.now[name] -= 1


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


class TestEngine:
    async def test_limits_hold_while_all_is_done(self, engine: Engine):
        seen = Counted()

        @engine.task(limit=Limit(3, key="tenant", per_key=2))
        async def work(tenant: str) -> None:
            await seen.run(tenant)

        await work.enqueue_many([(tenant,) for tenant in "aaaaaaaabbbbcc"])
        assert (await engine.drain()).succeeded == 14
        assert seen.most == {"": 3, "a": 2, "b": 2, "c": seen.most["c"]}

    async def test_who_enqueues_by_name_elsewhere_is_limited_too(self, redis_url: str):
        seen = Counted()
        worker = Engine(redis_url, namespace="limits", queues=["default"])
        client = Engine(redis_url, namespace="limits")

        @worker.task(limit=Limit(1))
        async def work(tenant: str) -> None:
            await seen.run(tenant)

        async with client, worker:
            jobs = [await client.enqueue("work", "a") for _ in range(5)]
            await worker.run(burst=True)
            assert [await job.result(timeout=5) for job in jobs] == [None] * 5
        assert seen.most[""] == 1

    async def test_a_job_from_elsewhere_whose_argument_is_no_key(self, engine: Engine):
        @engine.task(limit=Limit(key="tenant", per_key=1))
        async def work(tenant: Any) -> None: ...

        with pytest.raises(BadParameters, match="key"):
            await work.enqueue(["a"])
        job = Job(Ids()(), "default", pack_call("work", (["a"],), {}))
        await engine.broker.enqueue([job])
        with pytest.raises(TaskFailed, match="key") as caught:
            await engine.job(job.id).result(timeout=5)
        assert caught.value.reason == "bad_payload"
