"""A worker over a broker: what becomes of jobs that succeed, fail, hang, are cancelled, or are not known."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncworker import errors, events
from asyncworker.queue.brokers import memory
from asyncworker.queue.codec import Ids, pack_call, unpack_record
from asyncworker.queue.context import Context
from asyncworker.queue.job import Ended, Job, Reason, Record, State, WorkerCard, child_id
from asyncworker.queue.task import Tasks, options_of
from asyncworker.queue.worker.worker import Worker
from tests.support import calls
from tests.support.brokers import until

ids = Ids()


class Bench:
    """A broker, its tasks, and what was heard on the bus."""

    def __init__(self) -> None:
        self.bus = events.Bus()
        self.broker = memory.open("memory://", bus=self.bus)
        self.tasks = Tasks()
        self.ends: list[events.JobEnd] = []
        self.bus.listen(events.JobsEnded, lambda event: self.ends.extend(event.ends))
        self.failures: list[events.JobEnd] = []
        self.bus.listen(events.JobsFailed, lambda event: self.failures.extend(event.ends))

    def task(self, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.tasks.add(function.__name__, function, options_of({"retry_backoff": 0.0} | options))
            return function

        return register

    def worker(self, **options: Any) -> Worker:
        defaults = {"queues": {"default": 100}, "concurrency": 100, "lease_s": 5.0, "grace_s": 5.0}
        return Worker(self.broker, self.tasks, bus=self.bus, **(defaults | options))

    async def put(self, name: str, *args: Any, **options: Any) -> str:
        job = Job(ids(), "default", pack_call(name, args, {}), options=options)
        await self.broker.enqueue([job])
        return job.id

    async def end(self, job_id: str) -> tuple[State, Record]:
        (ended,) = await self.broker.wait([job_id], 10)
        assert isinstance(ended, Ended), f"{job_id} is not over after 10 s"
        return ended.state, unpack_record(ended.record)

    @asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[Worker]:
        worker = self.worker(**options)
        run = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop(now=True)
            await run


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    it = Bench()
    yield it
    it.tasks.close()
    await it.broker.close()


async def test_a_burst_runs_all_and_returns(bench: Bench) -> None:
    @bench.task()
    async def double(n: int) -> int:
        return 2 * n

    jobs = [await bench.put("double", n) for n in range(300)]
    await bench.worker(burst=True).run()
    assert [(await bench.end(job))[1].value for job in jobs] == [2 * n for n in range(300)]


@pytest.mark.parametrize("value", [0, "", [], None, False, {}])
async def test_s51_falsy_results_complete_once(bench: Bench, value: Any) -> None:
    runs = []

    @bench.task()
    async def falsy() -> Any:
        runs.append(1)
        return value

    job = await bench.put("falsy")
    await bench.worker(burst=True).run()
    state, record = await bench.end(job)
    assert (state, record.value, len(runs)) == (State.SUCCEEDED, value, 1)


async def test_a_failure_is_tried_again_and_then_told(bench: Bench) -> None:
    attempts = []

    @bench.task(max_attempts=3)
    async def fails(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("no such thing")

    job = await bench.put("fails")
    await bench.worker(burst=True).run()
    state, record = await bench.end(job)
    assert attempts == [1, 2, 3]
    assert (state, record.reason, record.attempt) == (State.FAILED, Reason.ERROR, 3)
    assert (record.error_type, record.error_text, record.task) == ("ValueError", "no such thing", "fails")
    assert [end.status for end in bench.ends] == ["retrying", "retrying", "failed"]
    assert bench.failures == bench.ends[2:]
    assert [end.wait_s >= 0 for end in bench.ends] == [True, False, False], "only a first attempt has waited"


async def test_one_call_overrides_what_may_travel(bench: Bench) -> None:
    @bench.task(max_attempts=5)
    async def fails() -> None:
        raise ValueError

    job = await bench.put("fails", max_attempts=1, queue="elsewhere", retry_on=["os.system"])
    await bench.worker(burst=True).run()
    assert (await bench.end(job))[1].attempt == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"expires": 0.01}, "it was not started within 0.01 s"),
        ({"deadline": 0.01}, "its deadline has passed"),
        ({"until_s": 1.0}, "its deadline has passed"),
    ],
)
@pytest.mark.parametrize("travels", [True, False])
async def test_a_job_claimed_too_late_expires_without_running(
    bench: Bench, options: dict[str, float], why: str, travels: bool
) -> None:
    runs = []
    own = {} if travels or "until_s" in options else options

    @bench.task(**own)
    async def late() -> None:
        runs.append(1)

    job = await bench.put("late", **({} if own else options))
    await asyncio.sleep(0.02)  # it must be older than it may be
    await bench.worker(burst=True).run()
    state, record = await bench.end(job)
    assert (state, record.error_text, record.task, runs) == (State.EXPIRED, why, "late", [])
    assert [end.status for end in bench.ends] == ["expired"]


async def test_a_job_that_began_in_time_may_be_tried_again(bench: Bench) -> None:
    @bench.task(expires=0.3, retry_backoff=0.4, retry_jitter=False)
    async def twice(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise ValueError
        return ctx.attempt

    job = await bench.put("twice")
    async with bench.working():
        assert (await bench.end(job))[1].value == 2


async def test_a_deadline_ends_what_runs_and_what_would_be_tried_again_after_it(bench: Bench) -> None:
    @bench.task(deadline=0.2, timeout=None)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @bench.task(deadline=30.0, retry_backoff=60.0, retry_jitter=False)
    async def fails() -> None:
        raise ValueError

    jobs = [await bench.put(name) for name in ("hangs", "fails")]
    async with bench.working():
        (_, hung), (_, failed) = [await bench.end(job) for job in jobs]
    assert (hung.reason, hung.attempt, hung.error_text) == (Reason.TIMEOUT, 1, "its deadline passed while it ran")
    assert (failed.reason, failed.attempt, failed.error_type) == (Reason.ERROR, 1, "ValueError")


async def test_s12_a_hung_job_ends_at_its_timeout(bench: Bench) -> None:
    @bench.task(timeout=0.05, max_attempts=2)
    async def hangs() -> None:
        await asyncio.Event().wait()

    job = await bench.put("hangs")
    async with bench.working():
        state, record = await bench.end(job)
    assert (state, record.reason, record.attempt) == (State.FAILED, Reason.TIMEOUT, 2)
    assert "0.05 s" in record.error_text


async def test_a_job_that_cancels_itself_has_failed(bench: Bench) -> None:
    @bench.task()
    async def quits() -> None:
        raise asyncio.CancelledError

    job = await bench.put("quits")
    await bench.worker(burst=True).run()
    assert (await bench.end(job))[0] is State.FAILED


async def test_exit_in_a_task_ends_the_job_and_not_the_worker(bench: Bench) -> None:
    @bench.task(max_attempts=1)
    async def exits() -> None:
        raise SystemExit(3)

    @bench.task()
    async def fine() -> str:
        return "fine"

    jobs = [await bench.put("exits"), await bench.put("fine")]
    await bench.worker(burst=True).run()
    assert [(await bench.end(job))[0] for job in jobs] == [State.FAILED, State.SUCCEEDED]


async def test_signals_steer_their_job(bench: Bench) -> None:
    attempts = []

    @bench.task(max_attempts=2)
    async def snoozes(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) < 4:
            raise errors.Snooze(0.0)
        return ctx.attempt

    @bench.task()
    async def discards() -> None:
        raise errors.Discard("not wanted any more")

    @bench.task(retry_backoff=1000.0)
    async def retries(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise errors.Retry(delay=0.0)
        return ctx.attempt

    jobs = [await bench.put(name) for name in ("snoozes", "discards", "retries")]
    await bench.worker(burst=True).run()
    ends = [await bench.end(job) for job in jobs]
    assert [(state, record.value) for state, record in ends] == [
        (State.SUCCEEDED, 1),
        (State.CANCELLED, None),
        (State.SUCCEEDED, 2),
    ]
    assert ends[1][1].error_text == "not wanted any more"
    assert attempts == [1, 1, 1, 1], "a snooze spends no attempt"


async def test_a_result_that_cannot_travel_fails_once_with_a_cause(bench: Bench) -> None:
    runs = []

    @bench.task()
    async def odd() -> object:
        runs.append(1)
        return object()

    job = await bench.put("odd")
    await bench.worker(burst=True).run()
    state, record = await bench.end(job)
    assert (state, record.error_type, len(runs)) == (State.FAILED, "BadParameters", 1)
    assert "cannot travel" in record.error_text


async def test_an_error_text_that_cannot_travel_still_ends_its_job(bench: Bench) -> None:
    @bench.task(max_attempts=1)
    async def odd() -> None:
        raise ValueError("half a pair: \ud800")

    job = await bench.put("odd")
    await bench.worker(burst=True).run()
    state, record = await bench.end(job)
    assert state is State.FAILED
    assert "half a pair" in record.error_text


async def test_a_payload_that_is_no_call_is_bad(bench: Bench) -> None:
    job = Job(ids(), "default", b"\x80\x04junk")
    await bench.broker.enqueue([job])
    await bench.worker(burst=True).run()
    assert (await bench.end(job.id))[1].reason == Reason.BAD_PAYLOAD


@pytest.mark.parametrize(
    "name", ["os.system", "os:system", "__import__", "builtins.eval", "ｆine", "fine ", "fine\x00"]
)
async def test_e2_a_name_from_a_message_is_looked_up_exactly_and_never_imported(bench: Bench, name: str) -> None:
    @bench.task()
    async def fine() -> None: ...

    job = await bench.put(name)
    async with bench.working():
        async with asyncio.timeout(10):
            while not bench.ends:
                await asyncio.sleep(0.005)
        (found,) = await bench.broker.find([job])
    assert found is not None
    assert (found.state, found.attempt) == (State.SCHEDULED, 0), "no attempt is spent"
    assert [end.status for end in bench.ends] == ["unknown"]
    assert [end.task for end in bench.ends] == ["other"], "a name from a message is no label"


async def test_a_plain_function_runs_in_a_thread(bench: Bench) -> None:
    @bench.task()
    def where() -> str:
        return threading.current_thread().name

    job = await bench.put("where")
    await bench.worker(burst=True).run()
    assert (await bench.end(job))[1].value.startswith("task")


async def test_never_more_at_once_than_asked(bench: Bench) -> None:
    now, most = 0, 0

    @bench.task()
    async def busy() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    for _ in range(60):
        await bench.put("busy")
    await bench.worker(burst=True, concurrency=7).run()
    assert most == 7
    most = 0
    for _ in range(60):
        await bench.put("busy")
    await bench.worker(burst=True, concurrency=50, queues={"default": 3}).run()
    assert most == 3, "a queue's own slots bind as well"


async def test_a_running_job_is_cancelled_when_asked(bench: Bench) -> None:
    started = asyncio.Event()

    @bench.task()
    async def waits() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await bench.put("waits")
    async with bench.working():
        await asyncio.wait_for(started.wait(), 10)
        assert await bench.broker.cancel(job) is State.RUNNING
        assert (await bench.end(job))[0] is State.CANCELLED


async def test_a_job_that_swallows_its_cancellation_is_abandoned(bench: Bench) -> None:
    started, asked, go, over = asyncio.Event(), [], asyncio.Event(), asyncio.Event()
    abandoned: list[events.JobAbandoned] = []
    bench.bus.listen(events.JobAbandoned, abandoned.append)

    @bench.task()
    async def swallows() -> str:
        started.set()
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
            asked.append(1)
        over.set()
        return "too late"

    @bench.task()
    async def waits_its_turn() -> str:
        return "in the slot of the other"

    job, next_one = await bench.put("swallows"), await bench.put("waits_its_turn")
    async with bench.working(concurrency=1, cancel_grace_s=0.4) as worker:
        await asyncio.wait_for(started.wait(), 10)
        assert await bench.broker.cancel(job) is State.RUNNING
        state, record = await bench.end(job)
        assert (state, record.error_text) == (
            State.CANCELLED,
            "cancelled while it ran; it did not stop, and was abandoned",
        )
        assert (await bench.end(next_one))[1].value == "in the slot of the other"
        assert worker.running() == {}
        assert 2 <= len(asked) <= 3, "it is asked again, after pauses that grow"
        go.set()
        await asyncio.wait_for(over.wait(), 10)
        assert (await bench.end(await bench.put("waits_its_turn")))[0] is State.SUCCEEDED
        assert (await bench.end(job))[0] is State.CANCELLED, "what it returned came too late"
    (told,) = abandoned
    assert (told.id, told.task, told.queue) == (job, "swallows", "default")
    assert [place.rpartition(" in ")[2] for place in told.stack] == ["swallows", "wait"]
    assert [end.status for end in bench.ends if end.id == job] == ["cancelled"]


async def test_who_is_cancelled_may_clean_up(bench: Bench) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    @bench.task()
    async def cleans_up() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)
            cleaned.set()

    job = await bench.put("cleans_up")
    async with bench.working():
        await asyncio.wait_for(started.wait(), 10)
        await bench.broker.cancel(job)
        assert (await bench.end(job))[1].error_text == "cancelled while it ran"
    assert cleaned.is_set()


async def test_plain_functions_are_cancelled_in_threads_and_processes(bench: Bench, tmp_path: Path) -> None:
    go, mark = threading.Event(), tmp_path / "mark"

    @bench.task()
    def blocks() -> None:
        started.set()
        go.wait(30)

    bench.tasks.add("hang", calls.hang, options_of({"executor": "process"}))
    started = threading.Event()
    jobs = [await bench.put("blocks"), await bench.put("hang", str(mark))]
    try:
        async with bench.working(concurrency=2):
            await asyncio.to_thread(started.wait, 20)

            async def hangs() -> bool:
                return mark.exists()

            await until(hangs, 20)
            for job in jobs:  # all slots are busy
                assert await bench.broker.cancel(job) is State.RUNNING
                assert (await bench.end(job))[1].error_text == "cancelled while it ran"
    finally:
        go.set()


async def test_stopping_drains_and_spends_nothing(bench: Bench) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    @bench.task()
    async def slow() -> str:
        started.set()
        await finish.wait()
        return "done"

    job = await bench.put("slow")
    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    await asyncio.wait_for(started.wait(), 10)
    worker.stop()
    later = await bench.put("slow")
    await asyncio.sleep(0)
    finish.set()
    await asyncio.wait_for(run, 10)
    assert (await bench.end(job))[1].value == "done"
    (found,) = await bench.broker.find([later])
    assert found is not None
    assert (found.state, found.attempt, found.deliveries) == (State.QUEUED, 0, 0)


async def test_stopping_now_hands_running_jobs_back_unspent(bench: Bench) -> None:
    started = asyncio.Event()

    @bench.task()
    async def stubborn() -> None:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    @bench.task()
    async def waits() -> None:
        await asyncio.Event().wait()

    job = await bench.put("waits")
    other = await bench.put("stubborn")
    worker = bench.worker()
    stopped: list[events.WorkerStopped] = []
    bench.bus.listen(events.WorkerStopped, stopped.append)
    run = asyncio.create_task(worker.run())
    await asyncio.wait_for(started.wait(), 10)
    worker.stop(now=True)
    await asyncio.wait_for(run, 10)
    (found,) = await bench.broker.find([job])
    assert found is not None
    assert (found.state, found.attempt, found.deliveries) == (State.QUEUED, 0, 0)
    assert stopped[0].handed_back == 2
    assert (await bench.end(other))[0] is State.SUCCEEDED, "what swallowed its cancellation in time has ended"


async def test_a_grace_period_that_is_over_hands_back(bench: Bench) -> None:
    started = asyncio.Event()

    @bench.task()
    async def waits() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await bench.put("waits")
    worker = bench.worker(grace_s=0.05)
    run = asyncio.create_task(worker.run())
    await asyncio.wait_for(started.wait(), 10)
    worker.stop()
    await asyncio.wait_for(run, 10)
    (found,) = await bench.broker.find([job])
    assert found is not None
    assert found.state is State.QUEUED


async def test_a_worker_that_was_reaped_joins_again_and_works_on(bench: Bench) -> None:
    started = asyncio.Event()
    runs = []

    @bench.task()
    async def first_waits() -> int:
        runs.append(1)
        if len(runs) == 1:
            started.set()
            await asyncio.Event().wait()
        return len(runs)

    epochs: list[events.WorkerStarted] = []
    lost: list[events.LeaseEnded] = []
    bench.bus.listen(events.WorkerStarted, epochs.append)
    bench.bus.listen(events.LeaseEnded, lost.append)
    job = await bench.put("first_waits")
    async with bench.working():
        await asyncio.wait_for(started.wait(), 10)
        assert await bench.broker.reap(epochs[0].epoch, "", crashed=True) == 1
        state, record = await bench.end(job)
    assert (state, record.value) == (State.SUCCEEDED, 2)
    assert len(epochs) == 2
    assert epochs[0].epoch != epochs[1].epoch
    assert [event.epoch for event in lost] == [epochs[0].epoch]


async def test_a_dead_workers_job_is_run_by_the_others(bench: Bench) -> None:
    @bench.task()
    async def fine(ctx: Context) -> int:
        return ctx.deliveries

    job = await bench.put("fine")
    card = WorkerCard(host="gone", pid=1, queues=("default",), concurrency=1, lease_s=0.2, started_s=0)
    dead = await bench.broker.join(card, lambda _: None)
    assert len((await bench.broker.step(dead, [], {"default": 1}, 1)).deliveries) == 1
    async with bench.working():
        state, record = await bench.end(job)
    assert (state, record.value) == (State.SUCCEEDED, 1)


async def test_chunks_go_ahead_of_a_childs_result(bench: Bench) -> None:
    @bench.task()
    async def large(ctx: Context) -> str:
        for number in range(3):
            await ctx.send_chunk(number, bytes([number]) * 10)
        return "whole"

    card = WorkerCard(host="here", pid=1, queues=(), concurrency=0, lease_s=60, started_s=0, role="feeder")
    feeder = await bench.broker.join(card, lambda _: None)
    parent = ids()
    await bench.broker.enqueue([Job(parent, "default", pack_call("none", (), {}), hold=feeder)])
    child = child_id(parent, 0)
    await bench.broker.enqueue([Job(child, "default", pack_call("large", (), {}))])
    async with bench.working():
        assert (await bench.end(child))[1].value == "whole"
        chunks = await bench.broker.wait([f"{child}:{number}" for number in range(3)], 0)
    assert [chunk.record for chunk in chunks if chunk] == [bytes([n]) * 10 for n in range(3)]
    await bench.broker.cancel(parent)


async def test_who_listens_is_told_once_a_round_trip(bench: Bench) -> None:
    @bench.task()
    async def fine() -> None: ...

    claims: list[events.JobsClaimed] = []
    bench.bus.listen(events.JobsClaimed, claims.append)
    for _ in range(500):
        await bench.put("fine")
    await bench.worker(burst=True).run()
    assert sum(claim.count for claim in claims) == 500
    assert len(claims) < 50
    assert [end.status for end in bench.ends] == ["succeeded"] * 500
