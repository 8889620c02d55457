"""The front door, over memory:// and over Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncworker import Context, Engine, State, errors
from asyncworker.events import Decided
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Job, WorkerCard


@pytest.fixture(params=["memory", "redis"])
async def engine(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Engine]:
    """An open engine that works its own queue."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    it = Engine(url, namespace=namespace, lease=5, grace_period=5)
    async with it:
        run = None if request.param == "memory" else asyncio.create_task(it.run())
        yield it
        if run:
            it.stop(now=True)
            await run


async def test_a_plain_call_runs_here(engine: Engine) -> None:
    @engine.task()
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    assert await add(1, b=2) == 3
    assert add.__doc__ == "Add two numbers."
    assert add.name == "add"


async def test_enqueued_calls_give_results(engine: Engine) -> None:
    @engine.task()
    async def add(a: int, b: int = 10) -> int:
        return a + b

    job = await add.enqueue(1, b=2)
    assert await job.result(timeout=10) == 3
    jobs = await add.enqueue_many([(1,), (1, 1), {"a": 5}, {"a": 5, "b": 5}])
    assert [await job.result(timeout=10) for job in jobs] == [11, 2, 15, 10]
    by_name = await engine.enqueue("add", 7)
    assert await engine.job(by_name.id).result(timeout=10) == 17


async def test_many_calls_at_once_are_all_taken(engine: Engine) -> None:
    @engine.task()
    async def echo(n: int) -> int:
        return n

    jobs = await asyncio.gather(*(echo.enqueue(n) for n in range(1500)))
    assert len({job.id for job in jobs}) == 1500
    assert await asyncio.gather(*(job.result(timeout=20) for job in jobs)) == list(range(1500))


@pytest.mark.parametrize("calls", [[1], ["text"], [[1, 2]]])
async def test_a_call_is_a_tuple_or_a_mapping(engine: Engine, calls: list[Any]) -> None:
    @engine.task()
    async def echo(n: int) -> int:
        return n

    with pytest.raises(errors.BadParameters, match="a tuple of arguments or a mapping"):
        await echo.enqueue_many(calls)


async def test_arguments_that_cannot_travel_are_refused_at_the_border(engine: Engine) -> None:
    @engine.task()
    async def echo(n: Any) -> Any:
        return n

    with pytest.raises(errors.BadParameters, match="cannot travel"):
        await echo.enqueue(object())
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(errors.BadParameters, match="cannot travel"):
        await echo.enqueue(deep)
    while deep:  # unwound by hand: freeing it at once would overflow the stack of older interpreters
        deep = deep.pop()


async def test_errors_come_back_as_text_and_keep_their_reason(engine: Engine) -> None:
    @engine.task(max_attempts=1)
    async def fails() -> None:
        raise KeyError("secret thing")

    @engine.task(max_attempts=1, timeout=0.05)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @engine.task()
    async def gives_up() -> None:
        raise errors.Discard("no need")

    with pytest.raises(errors.TaskFailed) as failed:
        await (await fails.enqueue()).result(timeout=10)
    error = failed.value
    assert (error.reason, error.error_type, error.error_text) == ("error", "KeyError", "'secret thing'")
    with pytest.raises(errors.TaskTimeout):
        await (await hangs.enqueue()).result(timeout=10)
    with pytest.raises(errors.TaskCancelled, match="no need"):
        await (await gives_up.enqueue()).result(timeout=10)


async def test_a_wait_that_is_over_leaves_the_job_alone(engine: Engine) -> None:
    finish = asyncio.Event()

    @engine.task()
    async def slow() -> str:
        await finish.wait()
        return "done"

    job = await slow.enqueue()
    with pytest.raises(TimeoutError, match="it goes on"):
        await job.result(timeout=0.01)
    finish.set()
    assert await job.result(timeout=10) == "done"


async def test_status_tells_where_a_job_is(engine: Engine) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    @engine.task(priority=7)
    async def slow() -> str:
        started.set()
        await finish.wait()
        return "done"

    job = await slow.enqueue()
    await asyncio.wait_for(started.wait(), 10)
    status = await job.status()
    assert (status.state, status.task, status.queue, status.priority) == (State.RUNNING, "slow", "default", 7)
    assert status.started_at is not None
    assert status.ended_at is None
    finish.set()
    await job.result(timeout=10)
    status = await job.status()
    assert (status.state, status.task, status.attempt, status.reason) == (State.SUCCEEDED, "slow", 1, None)
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.enqueued_at <= status.started_at + 1 <= status.ended_at + 1


async def test_delays_and_dates_wait_in_the_broker(engine: Engine) -> None:
    @engine.task()
    async def late() -> str:
        return "now"

    soon = await late.with_options(delay=0.05).enqueue()
    at = await late.with_options(at=datetime.now(UTC) + timedelta(seconds=0.05)).enqueue()
    later = await late.with_options(delay=3600).enqueue()
    assert (await later.status()).state is State.SCHEDULED
    assert await soon.result(timeout=10) == "now"
    assert await at.result(timeout=10) == "now"
    assert await later.cancel()
    assert (await later.status()).state is State.CANCELLED
    assert not await later.cancel(), "it was over already"


async def test_one_job_of_a_key_at_a_time(engine: Engine) -> None:
    go = asyncio.Event()

    @engine.task(unique="nightly")
    async def report() -> str:
        await go.wait()
        return "done"

    first = await report.enqueue()
    assert [job.id for job in await report.enqueue_many([(), ()])] == [first.id] * 2
    assert (await engine.enqueue("report")).id == first.id
    other = await report.with_options(unique="another", on_conflict="raise").enqueue()
    assert other.id != first.id
    with pytest.raises(errors.JobExists, match="nightly") as caught:
        await report.with_options(on_conflict="raise").enqueue()
    assert caught.value.job_id == first.id
    go.set()
    assert [await job.result(timeout=10) for job in (first, other)] == ["done"] * 2
    again = await report.with_options(on_conflict="raise").enqueue()
    assert again.id != first.id
    assert await again.result(timeout=10) == "done"
    for wrong in ({"unique": ""}, {"unique": 7}, {"on_conflict": "wait"}):
        with pytest.raises(errors.BadParameters):
            report.with_options(**wrong)


async def test_e23_a_unique_key_is_one_of_its_task_queue_and_tenant(engine: Engine) -> None:
    go = asyncio.Event()

    @engine.task()
    async def report(who: str) -> str:
        await go.wait()
        return who

    @engine.task()
    async def send(who: str) -> str:
        await go.wait()
        return who

    calls = {
        "report": report.with_options(unique="k"),
        "send": send.with_options(unique="k"),
        "elsewhere": report.with_options(unique="k", queue="io_intensive"),
        "one tenant": report.with_options(unique=("one", "k")),
        "another": report.with_options(unique=("another", "k")),
        "who joins words": report.with_options(unique="one:k"),
        "who writes like us": report.with_options(unique='one","k'),
        "who knows our form": report.with_options(unique='["default","report","k"]'),
        "the longest": report.with_options(unique=("x" * 1000, "y" * 1000)),
    }
    jobs = {who: await call.enqueue(who) for who, call in calls.items()}
    assert len({job.id for job in jobs.values()}) == len(calls)
    assert [(await call.enqueue("another")).id for call in calls.values()] == [job.id for job in jobs.values()]
    go.set()
    assert {who: await job.result(timeout=10) for who, job in jobs.items()} == {who: who for who in calls}
    assert len({(await call.enqueue(who)).id for who, call in calls.items()} | {job.id for job in jobs.values()}) == 18
    for wrong in ((), ("tenant", ""), ("tenant", 7), ["tenant", "key"]):
        with pytest.raises(errors.BadParameters):
            report.with_options(unique=wrong)


async def test_s54_a_job_that_waits_for_others_lends_them_its_slot(engine: Engine) -> None:
    @engine.task(queue="narrow")
    async def sums(depth: int) -> int:
        if not depth:
            return 1
        jobs = await sums.enqueue_many([(depth - 1,)] * 2)
        return sum(await asyncio.gather(*(job.result(timeout=30) for job in jobs)))

    engine.stop()
    engine.queues = {"narrow": 1}
    async with asyncio.timeout(60):
        job = await sums.enqueue(4)
        working = asyncio.create_task(engine.run(concurrency=1, burst=True))
        assert await job.result() == 16
        await working
    counts = (await engine.broker.depth(["narrow"])).queues["narrow"]
    assert (counts.succeeded, counts.failed, counts.retried) == (31, 0, 0)


async def test_s54_results_are_taken_as_they_come_and_an_error_hides_no_others(engine: Engine) -> None:
    go = asyncio.Event()

    @engine.task(max_attempts=1)
    async def works(n: int) -> int:
        if n == 0:
            await go.wait()
        if n == 1:
            raise ValueError("one")
        return n

    jobs = await works.enqueue_many([(n,) for n in range(5)])
    coming = iter(asyncio.as_completed([job.result() for job in jobs], timeout=20))
    came = await asyncio.gather(*(next(coming) for _ in range(4)), return_exceptions=True)
    (failed,) = [one for one in came if isinstance(one, errors.TaskFailed)]
    assert "one" in str(failed)
    assert sorted(one for one in came if one is not failed) == [2, 3, 4]
    with pytest.raises(TimeoutError):
        await jobs[0].result(timeout=0.05)
    go.set()
    assert await next(coming) == 0


async def test_a_full_queue_blocks_or_rejects(engine: Engine) -> None:
    @engine.task(queue="narrow")
    async def echo(n: int) -> int:
        return n

    await engine.admin.bound("narrow", 3)
    with pytest.raises(errors.QueueFull, match="2 of 5 jobs found no room"):
        await echo.with_options(when_full="reject").enqueue_many([(n,) for n in range(5)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await echo.enqueue(7)
    blocked = asyncio.create_task(echo.enqueue_many([(n,) for n in range(9)]))
    assert not (await asyncio.wait([blocked], timeout=0.05))[0]
    await engine.admin.bound("narrow", None)
    jobs = await asyncio.wait_for(blocked, 10)
    assert len({job.id for job in jobs}) == 9
    with pytest.raises(errors.BadParameters):
        echo.with_options(when_full="drop")


async def test_a_paused_queue_waits_and_goes_on(engine: Engine) -> None:
    @engine.task()
    async def echo(n: int) -> int:
        return n

    assert await (await echo.enqueue(1)).result(timeout=10) == 1
    await engine.admin.pause("default")
    job = await echo.enqueue(2)
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.1)
    assert (await job.status()).state is State.QUEUED
    await engine.admin.resume("default")
    assert await job.result(timeout=10) == 2


async def test_what_comes_too_late_expires(engine: Engine) -> None:
    @engine.task(expires=60)
    async def now() -> str:
        return "in time"

    assert await (await now.enqueue()).result(timeout=10) == "in time"
    past, soon = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=60)
    late = now.with_options(deadline=past)
    with pytest.raises(errors.TaskExpired, match="its deadline has passed"):
        await (await late.enqueue()).result(timeout=10)
    for given in (soon, 60):
        assert await (await late.with_options(deadline=given).enqueue()).result(timeout=10) == "in time"
    for wrong in ({"expires": -1}, {"deadline": "soon"}, {"timeout": -1}):
        with pytest.raises(errors.BadParameters):
            now.with_options(**wrong)


@pytest.mark.parametrize("job_id", ["", "nonsense", "0" * 26, "0" * 26 + ".5", "x:y", "../../etc/passwd", "\x00"])
async def test_an_id_that_nobody_knows_is_an_answer_of_its_own(engine: Engine, job_id: str) -> None:
    for ask in ("status", "cancel", "result"):
        with pytest.raises(errors.JobNotFound):
            await getattr(engine.job(job_id), ask)()


async def test_a_task_that_keeps_no_results_says_so(engine: Engine) -> None:
    @engine.task(result_ttl=0)
    async def quiet() -> str:
        return "unheard"

    job = await quiet.enqueue()
    with pytest.raises(errors.ResultExpired):
        await job.result(timeout=10)


async def test_routes_send_tasks_that_name_no_queue(namespace: str) -> None:
    async with Engine(namespace=namespace, routes={"shop.charge": "priority", "shop.*": "io_intensive"}) as engine:

        @engine.task(name="shop.charge")
        async def charge() -> None: ...

        @engine.task(name="shop.mail")
        async def mail() -> None: ...

        @engine.task(name="shop.report", queue="scheduled")
        async def report() -> None: ...

        queues = [task.definition.options.queue for task in (charge, mail, report)]
        assert queues == ["priority", "io_intensive", "scheduled"]


def test_wrong_options_are_refused_where_they_are_written() -> None:
    engine = Engine()

    async def noop() -> None: ...

    with pytest.raises(errors.UnknownName, match="did you mean 'max_attempts'"):
        engine.task(max_attempt=3)(noop)
    with pytest.raises(errors.BadParameters, match="priority must be 0"):
        engine.task(priority=10)(noop)
    task = engine.task()(noop)
    with pytest.raises(errors.SettingsError, match="registered twice"):
        engine.task(name="noop")(noop)
    with pytest.raises(errors.UnknownName, match="did you mean 'delay'"):
        task.with_options(dealy=1)
    with pytest.raises(errors.BadParameters, match="not both"):
        task.with_options(delay=1, at=datetime.now(UTC))
    with pytest.raises(errors.UnknownName, match="did you mean 'redis'"):
        Engine("reids://localhost")
    with pytest.raises(errors.SettingsError, match="must be a URL"):
        Engine("localhost:6379")
    with pytest.raises(errors.SettingsError, match="would block the event loop"):
        engine.task(executor="inline", name="plain")(lambda: None)


def test_e14_no_password_in_what_an_engine_shows_of_itself() -> None:
    assert "hunter2" not in repr(Engine("redis://:hunter2@localhost:1/0"))


async def test_two_engines_in_one_process_do_not_meet() -> None:
    async with Engine() as one, Engine() as other:

        @one.task(name="who")
        async def who_one() -> str:
            return "one"

        @other.task(name="who")
        async def who_other() -> str:
            return "other"

        assert await (await who_one.enqueue()).result(timeout=10) == "one"
        job = await who_other.enqueue()
        assert await job.result(timeout=10) == "other"
        with pytest.raises(errors.JobNotFound):
            await one.job(job.id).status()


async def test_an_engine_can_be_opened_again() -> None:
    engine = Engine()

    @engine.task()
    def plain(n: int) -> int:
        return n

    for _ in range(2):
        async with engine:
            assert await (await plain.enqueue(1)).result(timeout=10) == 1


async def test_waiting_warns_once_where_nobody_works(
    redis_url: str, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncworker.job.NOBODY_S", 0.01)
    async with Engine(redis_url, namespace=namespace) as engine:

        @engine.task()
        async def noop() -> None: ...

        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await (await noop.enqueue()).result(timeout=0.05)
        assert [record.message for record in caplog.records] == [
            "no live worker reads the queue 'default'; start one with: asyncworker worker"
        ]


async def test_a_server_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RedisBroker.__init__.__kwdefaults__, "patience", 0.2)
    async with Engine("redis://127.0.0.1:1/0") as engine:

        @engine.task()
        async def noop() -> None: ...

        with pytest.raises(errors.BrokerDown) as down:
            await noop.enqueue()
        assert "\n" not in str(down.value)
        with pytest.raises(errors.BrokerDown):
            await engine.run(burst=True)


async def test_a_lifespan_works_beside_an_application(redis_url: str, namespace: str) -> None:
    engine = Engine(redis_url, namespace=namespace)

    @engine.task()
    async def double(n: int) -> int:
        return 2 * n

    async for _ in engine.lifespan(object()):
        assert await (await double.enqueue(4)).result(timeout=10) == 8
        cards = (await engine.broker.depth([])).workers.values()
        assert all(isinstance(card, WorkerCard) for card in cards)
        assert len(cards) == 1


async def test_map_here_needs_no_queue(engine: Engine) -> None:
    async def square(n: int) -> int:
        return n * n

    assert [out async for out in engine.map(square, range(10), ordered=True)] == [n * n for n in range(10)]


async def test_how_many_at_once_is_found_and_told(engine: Engine) -> None:
    told: list[Decided] = []
    end = engine.bus.listen(Decided, told.append)

    @engine.task(result_ttl=0)
    async def quick() -> None: ...

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    await quick.enqueue_many([()] * 3000)
    async with asyncio.timeout(20):
        while not told:
            await quick.enqueue_many([()] * 100)
        assert sorted([out async for out in engine.map(double, range(500))]) == list(range(0, 1000, 2))
    end()
    assert told[0].name == "task quick"
    assert "start-up" in told[0].because
    assert told[0] in list(engine.optimizer.decisions)
    assert engine.optimizer.learned.keys() >= {"task quick", double.__qualname__}


async def test_a_number_that_was_given_is_not_decided_about(namespace: str) -> None:
    engine = Engine("memory://", namespace=namespace, concurrency=7)

    @engine.task(result_ttl=0)
    async def quick() -> None: ...

    async with engine:
        await quick.enqueue_many([()] * 2000)
        await engine.drain()
    assert list(engine.optimizer.decisions) == []
    assert engine.optimizer.learned == {}


async def test_a_cron_task_is_a_task_too(engine: Engine) -> None:
    @engine.cron("0 3 * * *", tz="Europe/Berlin")
    async def nightly() -> str:
        return "done"

    assert await (await nightly.enqueue()).result(timeout=10) == "done"
    with pytest.raises(errors.SettingsError):
        engine.cron("not a crontab")(nightly.__wrapped__)


async def test_a_cancelled_map_reduce_job_says_that_it_was_one(engine: Engine) -> None:
    started = asyncio.Event()

    @engine.mapper
    async def waits(item: int, params: dict[str, Any]) -> int:
        started.set()
        await asyncio.Event().wait()
        return item

    job = await engine.map_reduce(range(100), map=waits, partition_size=10)
    await asyncio.wait_for(started.wait(), 10)
    assert await job.cancel()
    with pytest.raises(errors.JobCancelled):
        await job.result(timeout=10)


async def test_users_own_map_and_reduce(engine: Engine) -> None:
    @engine.mapper
    async def length(item: str, params: dict[str, Any]) -> int:
        await asyncio.sleep(0)
        return len(item) * params["times"]

    @engine.reducer
    class Total:
        def initial(self, params: Any) -> int:
            return 0

        def fold(self, acc: int, value: int) -> int:
            return acc + value

        def merge(self, left: int, right: int) -> int:
            return left + right

        def finish(self, acc: int, params: Any) -> int:
            return acc

    words = ["a", "bb", "ccc", "dddd"] * 25
    job = await engine.map_reduce(words, map=length, reduce=Total, params={"times": 2}, partition_size=7)
    summary = await job.result(timeout=20)
    assert (summary["final_result"], summary["total_processed"]) == (500, 100)
    job = await engine.map_reduce(words, map="length", params={"times": 1}, partition_size=30)
    assert (await job.result(timeout=20))["final_result"] == [1, 2, 3, 4] * 25
    with pytest.raises(errors.UnknownName, match="did you mean 'length'"):
        await engine.map_reduce(words, map="lenght")


@dataclass
class Order:
    id: int
    placed: datetime


async def test_arguments_are_checked_where_they_are_given_and_arrive_as_their_types(engine: Engine) -> None:
    @engine.task()
    async def bill(order: Order, ctx: Context, note: str = "") -> str:
        assert type(order) is Order
        return f"{ctx.task} {order.id} {order.placed:%Y} {note}"

    made = engine.tasks["bill"]
    order = Order(7, datetime(2026, 1, 2, tzinfo=UTC))
    assert await (await engine.enqueue("bill", order, "n")).result(timeout=10) == "bill 7 2026 n"
    for args, kwargs, told in [
        ((), {}, "bill: argument 'order' is missing"),
        ((order, 2), {}, "bill: argument 'note': Expected `str`, got `int`"),
        ((order,), {"nope": 2}, "bill: there is no argument 'nope'"),
        ((order, "", 2, 3), {}, "bill: there is room for 2"),
    ]:
        with pytest.raises(errors.BadParameters, match=told):
            await engine.enqueue("bill", *args, **kwargs)
    assert made.signature.given_name == "ctx"


async def test_a_call_from_elsewhere_that_does_not_fit_fails_as_bad_payload_at_once(engine: Engine) -> None:
    calls = []

    @engine.task()
    async def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    job = Job(Ids()(), "default", pack_call("double", ("2",), {}))
    await engine.broker.enqueue([job])
    with pytest.raises(errors.TaskFailed, match="double: argument 'n': Expected `int`, got `str`") as failed:
        await engine.job(job.id).result(timeout=10)
    assert (failed.value.reason, calls) == ("bad_payload", [])


async def test_what_workers_decide_and_learn_lies_with_the_jobs_or_where_it_was_said(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    assert Engine().keep is None
    place = str(tmp_path / "kept.db")
    for url, keep in ((redis_url, None), ("memory://", place)):
        for learned in ({}, {"mail": {"limit": 7}}):
            engine = Engine(url, namespace=namespace, keep=keep)
            found = []

            @engine.on_start
            async def learn(engine: Engine = engine, found: list[Any] = found) -> None:
                found.append(engine.optimizer.learned)
                engine.optimizer.remember({"mail": {"limit": 7}})
                engine.optimizer.decisions.add("mail", 4, 7, "start-up: 7/s")

            async with engine:
                await engine.run(burst=True)
            assert found[0] == learned
