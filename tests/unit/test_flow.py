"""Flows as users write them, over memory:// and over Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from asyncworker import Context, Engine, Limit, State, Task, chain, errors, group
from asyncworker.flow import Flow

PATIENCE = 20.0


@pytest.fixture(params=["memory", "redis"])
async def engine(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Engine]:
    """An engine that works its own queue."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    it = Engine(url, namespace=namespace, lease=5, grace_period=5)
    async with it:
        run = None if request.param == "memory" else asyncio.create_task(it.run())
        yield it
        if run:
            it.stop(now=True)
            await run


@dataclass
class Page:
    """What is no plain value."""

    url: str


@dataclass
class Tasks:
    """What the flows are made of."""

    double: Task[[int], int]
    add: Task[..., int]
    total: Task[[list[int]], int]
    fail: Task[[int], int]
    ran: list[str]


@pytest.fixture
def tasks(engine: Engine) -> Tasks:
    ran: list[str] = []

    @engine.task()
    async def double(n: int) -> int:
        ran.append(f"double {n}")
        return 2 * n

    @engine.task()
    async def add(n: int, more: int, times: int = 1) -> int:
        return n + more * times

    @engine.task()
    async def total(numbers: list[int]) -> int:
        ran.append("total")
        return sum(numbers)

    @engine.task(max_attempts=1)
    async def fail(n: int) -> int:
        raise ValueError(n)

    return Tasks(double, add, total, fail, ran)


async def test_a_chain_hands_results_on(tasks: Tasks) -> None:
    job = await chain(tasks.double.bind(1), tasks.double, tasks.double).enqueue()
    assert await job.result(timeout=PATIENCE) == 8
    assert len(job.jobs) == 3
    assert job.jobs[-1].id == job.id
    assert [await one.result(timeout=PATIENCE) for one in job.jobs] == [2, 4, 8]
    further = chain(tasks.double.bind(1)).then(tasks.add, 3).then(tasks.add, more=5, times=2)
    for _ in range(2):
        assert await (await further.enqueue()).result(timeout=PATIENCE) == 15


async def test_a_handle_is_followed(tasks: Tasks) -> None:
    job = await tasks.double.enqueue(4)
    after = await (await job.then(tasks.add, 1)).then(tasks.double)
    assert await after.result(timeout=PATIENCE) == 18
    over = await job.then(tasks.double)
    assert await over.result(timeout=PATIENCE) == 16


@pytest.mark.parametrize("count", [0, 1, 2, 50])
async def test_a_group_gives_a_list_to_what_follows(tasks: Tasks, count: int) -> None:
    calls = group(tasks.double.bind(n) for n in range(count))
    assert await (await calls.then(tasks.total).enqueue()).result(timeout=PATIENCE) == count * (count - 1)
    if count:
        job = await calls.enqueue()
        assert await job.result(timeout=PATIENCE) == [2 * n for n in range(count)]
        assert (await job.status()).task == "asyncworker.gather"


async def test_what_is_fanned_out_and_in_again(engine: Engine, tasks: Tasks) -> None:
    first = tasks.double.bind(1)
    sides = [first.then(tasks.add, n) for n in range(3)]
    nested = group(group(*sides), group(first)).then(_flat(engine))
    job = await nested.enqueue()
    assert await job.result(timeout=PATIENCE) == [2, 3, 4, 2]
    assert tasks.ran.count("double 1") == 1, "the same flow at two places is one job"


def _flat(engine: Engine) -> Task[[list[list[int]]], list[int]]:
    @engine.task()
    async def flat(lists: list[list[int]]) -> list[int]:
        return [n for one in lists for n in one]

    return flat


async def test_handles_and_calls_in_one_group(tasks: Tasks) -> None:
    jobs = await tasks.double.enqueue_many([(1,), (2,)])
    both = await group(*jobs, tasks.double.bind(3)).enqueue()
    assert await both.result(timeout=PATIENCE) == [2, 4, 6]
    assert await (await group(jobs).then(tasks.total).enqueue()).result(timeout=PATIENCE) == 6


async def test_what_is_given_arrives_as_annotated(engine: Engine) -> None:
    @engine.task()
    async def fetch(url: str) -> Page:
        return Page(url)

    @engine.task()
    async def parse(page: Page) -> str:
        assert isinstance(page, Page)
        return page.url

    assert await (await fetch.bind("/a").then(parse).enqueue()).result(timeout=PATIENCE) == "/a"


async def test_a_plain_function_and_one_with_a_context_follow(engine: Engine, tasks: Tasks) -> None:
    @engine.task()
    def halve(n: int) -> float:
        return n / 2

    @engine.task()
    async def told(ctx: Context, n: float, word: str) -> str:
        return f"{word} {n} {ctx.attempt}"

    job = await tasks.double.bind(3).then(halve).then(told, word="it is").enqueue()
    assert await job.result(timeout=PATIENCE) == "it is 3.0 1"


async def test_a_failure_fails_what_follows_with_its_cause(tasks: Tasks) -> None:
    job = await chain(tasks.fail.bind(7), tasks.double, tasks.double).enqueue()
    with pytest.raises(errors.TaskFailed, match=f"job {job.jobs[0].id} failed") as caught:
        await job.result(timeout=PATIENCE)
    assert caught.value.reason == "dependency"
    status = await job.status()
    assert (status.state, status.reason, status.task, status.attempt) == (State.FAILED, "dependency", "double", 0)
    assert tasks.ran == []
    with pytest.raises(errors.TaskFailed, match="ValueError"):
        await job.jobs[0].result(timeout=PATIENCE)


async def test_allowed_failures_are_given_as_errors(engine: Engine, tasks: Tasks) -> None:
    @engine.task(allow_failure=True)
    async def survey(values: list[int | errors.TaskFailed]) -> list[str]:
        return [value.error_type if isinstance(value, errors.TaskFailed) else str(value) for value in values]

    @engine.task()
    async def look(value: Any) -> str:
        return f"{type(value).__name__}: {value.reason}"

    job = await group(tasks.double.bind(1), tasks.fail.bind(2)).then(survey).enqueue()
    assert await job.result(timeout=PATIENCE) == ["2", "ValueError"]
    failed = chain(tasks.fail.bind(1), tasks.double)
    job = await failed.then(look.with_options(allow_failure=True)).enqueue()
    assert await job.result(timeout=PATIENCE) == "TaskFailed: dependency"


async def test_after_waits_for_jobs_and_takes_nothing_of_them(tasks: Tasks) -> None:
    first, second = await tasks.double.enqueue_many([(1,), (2,)])
    job = await tasks.double.with_options(after=[first, second.id, first]).enqueue(9)
    assert await job.result(timeout=PATIENCE) == 18
    assert tasks.ran[-1] == "double 9"
    failed = await tasks.fail.enqueue(1)
    cleanup = tasks.double.with_options(after=failed, allow_failure=True)
    assert await (await cleanup.enqueue(3)).result(timeout=PATIENCE) == 6
    with pytest.raises(errors.TaskFailed) as caught:
        await (await tasks.double.with_options(after=failed).enqueue(3)).result(timeout=PATIENCE)
    assert caught.value.reason == "dependency"


async def test_after_and_before_in_one_flow(tasks: Tasks) -> None:
    first = await tasks.double.enqueue(1)
    add = tasks.add.with_options(after=first)
    assert await (await tasks.double.bind(2).then(add, 1).enqueue()).result(timeout=PATIENCE) == 5


async def test_what_can_not_be_waited_for(engine: Engine, tasks: Tasks) -> None:
    nobody = "0" * 26
    with pytest.raises(errors.JobNotFound, match=nobody):
        await tasks.double.with_options(after=nobody).enqueue(1)
    with pytest.raises(errors.JobNotFound, match=nobody):
        await engine.job(nobody).then(tasks.double)
    with pytest.raises(errors.JobNotFound, match="'x'"):
        tasks.double.with_options(after="x")
    for wrong in (7, [7]):
        with pytest.raises(errors.BadParameters, match="handles or ids"):
            tasks.double.with_options(after=wrong)
    with pytest.raises(errors.BadParameters, match="allow_failure"):
        tasks.double.with_options(allow_failure=1)
    with pytest.raises(errors.BadParameters, match="no engine"):
        await group().enqueue()
    with pytest.raises(errors.BadParameters, match="no engine"):
        await group(group(), tasks.double.bind(1)).enqueue()
    debounced = tasks.double.with_options(unique="k", debounce=5)
    for flow in (debounced.bind(1), debounced.bind(1).then(tasks.double), tasks.double.bind(1).then(debounced)):
        with pytest.raises(errors.BadParameters, match="debounced"):
            await flow.enqueue()
    with pytest.raises(errors.BadParameters, match="debounced"):
        debounced.with_options(after=nobody)
    call = tasks.double.bind(1)
    with pytest.raises(errors.BadParameters, match="stands twice"):
        group(call, call)


async def test_arguments_of_what_follows_are_checked_where_it_is_enqueued(engine: Engine, tasks: Tasks) -> None:
    @engine.task()
    async def nothing() -> None: ...

    @engine.task()
    async def anything(*values: Any, **named: Any) -> int:
        return len(values)

    follow: Any = tasks.double.bind(1).then
    for flow, text in [
        (follow(tasks.add), "'more' is missing"),
        (follow(tasks.add, "1"), "'more'"),
        (follow(tasks.add, 1, n=2), "no argument 'n'"),
        (follow(nothing), "no parameter for what"),
        (tasks.double.bind("1"), "'n'"),
    ]:
        with pytest.raises(errors.BadParameters, match=text):
            await flow.enqueue()
    assert await (await follow(anything, 1, 2).enqueue()).result(timeout=PATIENCE) == 3


async def test_a_value_of_another_type_than_what_follows_takes(engine: Engine, tasks: Tasks) -> None:
    @engine.task()
    async def word(n: str) -> str:
        return n

    flow: Any = tasks.double.bind(1)
    with pytest.raises(errors.TaskFailed) as caught:
        await (await flow.then(word).enqueue()).result(timeout=PATIENCE)
    assert caught.value.reason == "bad_payload"


async def test_a_blocked_job_says_for_what(engine: Engine) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @engine.task()
    async def hold(n: int) -> int:
        begun.set()
        await go.wait()
        return n

    job = await group(hold.bind(n) for n in range(12)).enqueue()
    ids = [one.id for one in job.jobs[:-1]]
    await begun.wait()
    status = await job.status()
    assert (status.state, status.after_done, status.after_total) == (State.BLOCKED, 0, 12)
    assert status.waits_for == tuple(ids[:10])
    assert status.partitions_total is None
    looks = [now async for now in _watched(job, go)]
    assert (looks[0].done, looks[0].total, looks[0].sealed) == (0, 12, True)
    assert (looks[-1].done, looks[-1].ratio, looks[-1].state) == (12, 1.0, State.SUCCEEDED)
    assert [now async for now in job.progress()][-1].state is State.SUCCEEDED
    over = await job.status()
    assert (over.state, over.after_total, over.waits_for) == (State.SUCCEEDED, None, None)
    with pytest.raises(errors.JobNotFound, match="waits for none"):
        await anext(job.jobs[0].progress())


async def _watched(job: Any, go: asyncio.Event) -> AsyncIterator[Any]:
    async for now in job.progress(every=0.01):
        yield now
        go.set()


async def test_a_flow_is_cancelled_as_a_whole(engine: Engine, tasks: Tasks) -> None:
    begun = asyncio.Event()

    @engine.task()
    async def hold(n: int) -> int:
        begun.set()
        await asyncio.Event().wait()
        return n

    job = await chain(hold.bind(1), tasks.double, tasks.double).enqueue()
    await begun.wait()
    assert await job.cancel()
    with pytest.raises(errors.TaskCancelled):
        await job.result(timeout=PATIENCE)
    for one in job.jobs:
        with pytest.raises(errors.TaskCancelled):
            await one.result(timeout=PATIENCE)
    assert not await job.cancel()
    assert tasks.ran == []


async def test_a_unique_job_in_a_flow_is_the_one_that_is_there(engine: Engine, tasks: Tasks) -> None:
    go = asyncio.Event()

    @engine.task()
    async def hold(n: int) -> int:
        await go.wait()
        return n

    once = hold.with_options(unique="k")
    there = await once.enqueue(5)
    job = await group(once.bind(6), once.bind(7), tasks.double.bind(1)).then(tasks.total).enqueue()
    assert [one.id for one in job.jobs[:2]] == [there.id, there.id]
    go.set()
    assert await job.result(timeout=PATIENCE) == 7, "once, though two stood for it"
    go.clear()
    await once.enqueue(1)
    with pytest.raises(errors.JobExists):
        await once.with_options(on_conflict="raise").bind(6).then(tasks.double).enqueue()
    go.set()


async def test_a_flow_through_a_full_queue(engine: Engine, tasks: Tasks) -> None:
    await engine.admin.pause("default")
    await engine.admin.bound("default", 1)
    with pytest.raises(errors.QueueFull):
        await group(tasks.double.with_options(when_full="reject").bind(n) for n in range(3)).enqueue()
    flow = asyncio.ensure_future(group(tasks.double.bind(n) for n in range(3)).then(tasks.total).enqueue())
    await engine.admin.resume("default")
    job = await asyncio.wait_for(flow, PATIENCE)
    assert await job.result(timeout=PATIENCE) == 6


async def test_what_is_given_may_be_the_key_of_a_limit(engine: Engine, tasks: Tasks) -> None:
    running = {"most": 0, "now": 0}

    @engine.task(limit=Limit(5, key="n", per_key=1))
    async def alone(n: int) -> int:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        await asyncio.sleep(0)
        running["now"] -= 1
        return n

    job = await group(tasks.double.bind(1).then(alone) for _ in range(5)).enqueue()
    assert await job.result(timeout=PATIENCE) == [2] * 5
    assert running["most"] == 1


async def test_a_signed_flow(request: pytest.FixtureRequest, namespace: str) -> None:
    url = request.getfixturevalue("redis_url")
    async with Engine(url, namespace=namespace, signing_keys=["k" * 40]) as engine:

        @engine.task()
        async def double(n: int) -> int:
            return 2 * n

        job = await group(double.bind(1), double.bind(2)).enqueue()
        after = await (await double.enqueue(3)).then(double)
        await engine.run(burst=True)
        assert await job.result(timeout=PATIENCE) == [2, 4]
        assert await after.result(timeout=PATIENCE) == 12


async def test_a_map_reduce_job_is_followed(engine: Engine) -> None:
    @engine.task()
    async def words(summary: dict[str, Any]) -> int:
        return int(summary["total_processed"])

    job = await engine.map_reduce([{"text": "a b"}, {"text": "c"}], "word_count", params={"field": "text"})
    assert await (await job.then(words)).result(timeout=PATIENCE) == 2


async def test_a_chain_of_a_thousand(engine: Engine, tasks: Tasks) -> None:
    flow: Flow[int] = tasks.double.with_options(result_ttl=0).bind(0)
    for _ in range(999):
        flow = flow.then(tasks.add.with_options(result_ttl=0), 1)
    job = await flow.then(tasks.double).enqueue()
    assert await job.result(timeout=4 * PATIENCE) == 2 * 999
    assert len(job.jobs) == 1001


async def test_a_group_of_thousands(engine: Engine, tasks: Tasks) -> None:
    calls = [tasks.double.with_options(result_ttl=0).bind(n) for n in range(3000)]
    job = await group(calls).then(tasks.total).enqueue()
    assert await job.result(timeout=4 * PATIENCE) == 3000 * 2999
    assert await job.jobs[0].result() == 0, "kept until those that wait for it are enqueued"


async def test_inputs_wait_out_an_outage(engine: Engine, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    wait, failures = engine.broker.wait, [errors.BrokerDown(), errors.BrokerDown()]

    async def unsteady(ids: Any, timeout: float | None) -> Any:
        if timeout == 0 and failures:
            raise failures.pop()
        return await wait(ids, timeout)

    monkeypatch.setattr("asyncworker.queue.inputs.PAUSE_S", 0.001)
    monkeypatch.setattr(engine.broker, "wait", unsteady)
    job = await chain(tasks.double.bind(1), tasks.double).enqueue()
    assert await job.result(timeout=PATIENCE) == 4
    assert (await job.status()).attempt == 1
    assert not failures
