"""What is wrong with jobs themselves: clocks that jump, values that cannot travel, results that are gone, versions."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.clock import SystemClock
from asyncworker.errors import JobNotFound, ResultExpired, Retry, Snooze
from asyncworker.job import JobHandle
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, pack_call, unpack_record
from asyncworker.queue.job import APART, Ended, Job, State, WorkerCard
from tests.faults.crew import QUEUE, Crew, crew, new_id
from tests.faults.server import TAG, server
from tests.support.proxy import proxy

MS = 0.001
HOUR = 3600.0


class SteppedClock(SystemClock):
    """The machine's clocks, whose date an administrator sets."""

    step_s = 0.0

    def now(self) -> float:
        return super().now() + self.step_s


@pytest.mark.parametrize("step_s", [HOUR, -HOUR], ids=["forward", "back"])
async def test_f13_a_clock_that_jumps_ends_no_lease(seed: int, step_s: float) -> None:
    with server() as redis:
        async with crew(redis.url) as running:
            clocks = SteppedClock(), SteppedClock()
            for clock in clocks:
                running.start(lease_s=0.5, clock=clock)
            await running.joined(2)
            due = [Job(new_id(), QUEUE, pack_call("work", (0.0,), {}), delay_s=0.8) for _ in range(5)]
            asked = time.monotonic()
            await running.client.enqueue(due)
            running.ids += [job.id for job in due]
            await running.put("work", *[(1.0,)] * 20)
            await running.until(lambda: len(redis.held().held) == 20)
            clocks[0].step_s = step_s  # one of the two: they disagree by an hour
            verdict = await running.judged("F13", seed)
    verdict.check()
    assert (running.story.leases_lost, verdict.duplicate) == (0, 0)
    early = [
        run.at - asked for run in running.story.runs if run.id in {job.id for job in due} and run.at - asked < 0.79
    ]
    assert not early, "what is due later ran at once"


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Abort(BaseException):
    pass


class Odd(Exception):
    detail = deep(100_000)


def raises(error: BaseException) -> Any:
    raise error


BAD: dict[str, Any] = {
    "an object": object,
    "a class": lambda: Unspeakable,
    "100,000 lists in one another": lambda: deep(100_000),
    "too large": lambda: bytes(MAX_PAYLOAD_BYTES + 1),
    "half of a pair of surrogates": lambda: "\ud800",
    "a huge number": lambda: 2**70,
    "an error that cannot be told": lambda: raises(Unspeakable()),
    "an error with an odd detail": lambda: raises(Odd("half a pair: \ud800")),
    "a delay that is no number": lambda: raises(Retry(delay=float("nan"))),
    "a delay that never ends": lambda: raises(Snooze(float("inf"))),
    "a delay that is a text": lambda: raises(Snooze("soon")),
    "a group of errors": lambda: raises(BaseExceptionGroup("many", [SystemExit(1), ValueError("one")])),
    "an error that is no Exception": lambda: raises(Abort()),
}


async def test_f19_bad_results_fail_alone() -> None:
    with server() as redis:
        async with crew(redis.url) as running:

            @running.task(max_attempts=2)
            async def bad(kind: str) -> Any:
                return BAD[kind]()

            @running.task(retry_when=lambda attempt, error: raises(ValueError("no idea")), max_attempts=2)
            async def cannot_decide() -> Any:
                raise ValueError

            @running.task()
            async def not_a_number() -> float:
                return float("nan")

            running.start()
            good = await running.put("work", *[(10 * MS,)] * 20)
            wrong = await running.put("bad", *[(kind,) for kind in BAD]) + await running.put("cannot_decide", ())
            (nan,) = await running.put("not_a_number", ())
            more = await running.put("work", *[(10 * MS,)] * 20)
            ends = dict(zip(running.ids, await running.ends(), strict=True))
            assert not running.runs[0].done()
            assert len(running.story.joined) == 1, "the worker had to begin anew"
    assert [state(ends[id]) for id in good + more] == [State.SUCCEEDED] * 40
    assert [state(ends[id]) for id in wrong] == [State.FAILED] * len(wrong)
    for id in wrong:
        assert unpack_record(ends[id].record).error_type, "nobody can say why"
    assert state(ends[nan]) is State.SUCCEEDED
    assert unpack_record(ends[nan].record).value != unpack_record(ends[nan].record).value, "MessagePack knows NaN"


def state(ended: Ended | None) -> State | None:
    return ended.state if ended else None


async def test_f20_a_result_that_has_expired_is_no_endless_wait() -> None:
    with server() as redis:
        async with proxy(redis.url) as between, crew(redis.url) as running:

            @running.task(result_ttl=1)
            async def short_lived() -> str:
                return "gone soon"

            running.start()
            deaf = RedisBroker(between.url, patience=1.0)
            try:
                await deaf.depth([])
                (brief,) = await running.put("short_lived", ())
                waiting = asyncio.create_task(JobHandle(deaf, brief, QUEUE).result(20))
                assert await JobHandle(running.client, brief).result(5) == "gone soon"
                await asyncio.wait([waiting], timeout=0.05)
                await running.until(lambda: not redis.client.exists(f"{TAG}o:{brief[:-1]}"))
                with pytest.raises(JobNotFound):
                    await running.client.wait([brief], None)
                with pytest.raises(ResultExpired):
                    await JobHandle(running.client, brief, QUEUE).result()
                with pytest.raises(JobNotFound):
                    await JobHandle(running.client, brief).result()
                assert await waiting == "gone soon"
            finally:
                await deaf.close()


async def test_f20_who_was_cut_off_while_a_result_came_and_went_is_told() -> None:
    with server() as redis:
        async with proxy(redis.url) as between, crew(redis.url) as running:
            gate = asyncio.Event()

            @running.task(result_ttl=1)
            async def short_lived() -> str:
                await gate.wait()
                return "gone soon"

            running.start()
            deaf = RedisBroker(between.url, patience=5.0)
            try:
                (brief,) = await running.put("short_lived", ())
                waiting = asyncio.create_task(JobHandle(deaf, brief, QUEUE).result())
                await running.until(lambda: redis.client.hexists(f"{TAG}x", brief))  # the server knows that it waits
                between.refusing = True
                between.cut()
                gate.set()
                await running.client.wait([brief], 5)
                await running.until(lambda: not redis.client.exists(f"{TAG}o:{brief[:-1]}"))
                between.refusing = False
                with pytest.raises(ResultExpired):
                    async with asyncio.timeout(10):
                        await waiting
            finally:
                await deaf.close()


async def test_f22_what_a_worker_does_not_know_is_left_to_others() -> None:
    with server() as redis:
        async with crew(redis.url) as old, crew(redis.url) as new:
            new.ids = old.ids

            @new.task()
            async def invented_later() -> str:
                return "by the new one"

            leaving = old.start()
            (job,) = await old.put("invented_later", ())
            (foreign,) = await put_as_version(old, redis.client, b"2")
            for id in (job, foreign):

                async def left(id: str = id) -> bool:
                    (found,) = await old.client.find([id])
                    assert found is not None, "it was thrown away"
                    assert found.state in {State.QUEUED, State.SCHEDULED, State.RUNNING}, found
                    return found.state is State.SCHEDULED and bool(found.error)

                async with asyncio.timeout(10):
                    while not await left():
                        await asyncio.sleep(0.005)
            body = redis.client.hget(f"{TAG}e", foreign)
            assert body[:1] == b"2", "it was changed"
            neighbours = await old.put("work", *[(0.0,)] * 20)
            await old.until(lambda: len(old.story.runs) == len(neighbours))
            leaving.stop()
            redis.client.hset(f"{TAG}e", foreign, b"1" + body[1:])  # now it is one that the others read
            new.start()
            ends = await new.ends()
            found = await new.client.find([job, foreign])
    assert [state(end) for end in ends] == [State.SUCCEEDED] * 22
    assert [one.attempt for one in found if one] == [1, 1], "to be put back spends no attempt"


async def test_f12_a_task_says_how_many_deaths_a_job_may_meet() -> None:
    """Its own option counts, not the default of the worker that finds the dead; after it, workers run it apart."""
    with server() as redis:
        async with Engine(redis.url) as engine:

            @engine.task(max_deliveries=1)
            async def patient() -> None: ...

            job = await patient.enqueue()
            card = WorkerCard(host="here", pid=1, queues=(QUEUE,), concurrency=1, lease_s=30, started_s=0)
            for deaths in range(1, 1 + 1 + APART):
                assert (await job.status()).state is State.QUEUED
                epoch = await engine.broker.join(card, lambda _: None)
                (delivery,) = (await engine.broker.step(epoch, [], {QUEUE: 1}, 1)).deliveries
                assert delivery.deliveries == deaths - 1
                await engine.broker.reap(epoch, "", crashed=True)
            status = await job.status()
    assert (status.state, status.reason) == (State.FAILED, "worker_lost")


async def put_as_version(running: Crew, client: Any, version: bytes) -> list[str]:
    """Enqueue a job as a worker of another version would write it, before anybody can claim it."""
    job = Job(new_id(), QUEUE, pack_call("work", (0.0,), {}), delay_s=0.1)
    await running.client.enqueue([job])
    body = client.hget(f"{TAG}e", job.id)
    client.hset(f"{TAG}e", job.id, version + body[1:])
    running.ids.append(job.id)
    return [job.id]
