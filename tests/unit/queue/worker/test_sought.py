"""How many jobs of a task a worker runs at once, found in virtual time on services whose best number is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import pytest

from asyncworker.events import Decided
from asyncworker.optimizer import AsyncWorkerOptimizer
from asyncworker.queue.worker.slots import Slots
from asyncworker.queue.worker.sought import INITIAL
from bench.control import virtual_loop
from bench.control.simulation import Capacity, Scalable, Works, best
from bench.control.virtual_loop import Backend
from bench.control.virtual_worker import VirtualWorker

SEED = random.SystemRandom().randrange(2**32)
"""New in each run; shown by a failure."""
CONTENDED = Scalable(40.0, 0.02, 0.004)
"""As a database whose rows are few: most is done by 15 at once, half of it by 60."""


def of(service: Capacity) -> Callable[[], Awaitable[None]]:
    return Backend(service, Works(random.Random(SEED))).call


def story(main: Callable[[], Awaitable[Any]]) -> None:
    async def told() -> None:
        await main()

    virtual_loop.run(told())


def test_it_finds_what_a_contended_service_does_best_with() -> None:
    async def main() -> None:
        worker = VirtualWorker({"pay": of(CONTENDED)}, queues={"default": None})
        told: list[Decided] = []
        worker.bus.listen(Decided, told.append)
        await worker.put(["pay"] * 6000)
        await worker.work(18.0)
        number, rate = best(CONTENDED)
        assert worker.rate("pay", 8, 18) > 0.85 * rate, f"seed {SEED}"
        assert number / 2 <= median(worker.limits("pay", 8)) <= 1.7 * number, f"seed {SEED}"
        assert told == list(worker.decisions), "the bus hears each with its cause"
        assert {one.name for one in told} == {"task pay"}
        assert all(one.because for one in told)

    story(main)


def test_a_full_loop_does_not_take_ever_more() -> None:
    """Jobs that compute share the loop: as many a second, however many at once."""

    async def main() -> None:
        worker = VirtualWorker({"compute": of(lambda n: 150.0)}, queues={"default": None}, busy=1.0)
        await worker.put(["compute"] * 4000)
        await worker.work(24.0)
        assert worker.rate("compute", 16, 24) > 0.9 * 150, f"seed {SEED}"
        assert worker.most["compute"] <= 1.2 * 8 * INITIAL, f"seed {SEED}"  # three doublings, and one probe from there
        assert median(worker.limits("compute", 14)) <= 3 * INITIAL, f"seed {SEED}"

    story(main)


def test_what_waits_long_is_not_waited_for() -> None:
    async def main() -> None:
        worker = VirtualWorker({"nap": lambda: asyncio.sleep(30.0)}, queues={"default": None})
        await worker.put(["nap"] * 300)
        await worker.work(3.0)
        assert worker.running["nap"] == 0, "handed back"
        assert worker.most["nap"] == 100

    story(main)


def test_where_few_jobs_come_nothing_moves() -> None:
    async def main() -> None:
        worker = VirtualWorker({"mail": lambda: asyncio.sleep(0.02)}, queues={"default": None})
        working = asyncio.ensure_future(worker.work(20.0))
        for _ in range(900):
            await worker.put(["mail"])
            await asyncio.sleep(0.02)
        await working
        assert len(worker.ends["mail"]) == 900
        assert list(worker.decisions) == []

    story(main)


def test_a_service_that_refuses_is_asked_for_less() -> None:
    async def main() -> None:
        inside = 0

        async def refusing() -> None:
            nonlocal inside
            inside += 1
            try:
                await asyncio.sleep(0.05)
                if inside > 20:
                    raise ConnectionError("too many")
            finally:
                inside -= 1

        worker = VirtualWorker({"ask": refusing}, queues={"default": None})
        await worker.put(["ask"] * 9000)
        await worker.work(20.0)
        assert any("fail" in one.because for one in worker.decisions)
        assert median(worker.limits("ask", 10)) <= 25

    story(main)


def test_each_task_has_a_limit_of_its_own_also_in_one_queue() -> None:
    async def main() -> None:
        worker = VirtualWorker({"pay": of(CONTENDED), "nap": lambda: asyncio.sleep(0.05)}, queues={"default": None})
        await worker.put(["pay", "nap"] * 4000)
        await worker.work(12.0)
        _, rate = best(CONTENDED)
        assert worker.rate("pay", 4, 12) > 0.75 * rate, f"seed {SEED}"
        assert worker.rate("nap", 4, 12) > 0.7 * rate, "the other one keeps step: they come in turn"
        assert worker.most["pay"] <= max(worker.limits("pay", 0)) + INITIAL, "what others are allowed is not its"

    story(main)


def test_tasks_in_queues_of_their_own_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        worker = VirtualWorker(
            {"pay": of(CONTENDED), "nap": lambda: asyncio.sleep(0.05)}, queues={"slow": None, "quick": None}
        )
        await worker.put(["pay"] * 3000, "slow")
        await worker.put(["nap"] * 8000, "quick")
        await worker.work(8.0)
        assert worker.rate("pay", 2, 8) > 0.75 * best(CONTENDED)[1], f"seed {SEED}"
        assert max(worker.ends["nap"]) < 5.0, "a backlog that grows with what is under way is worked off by ever more"
        assert len(worker.ends["nap"]) == 8000

    story(main)


def test_a_number_that_was_given_is_kept_beside_one_that_is_sought() -> None:
    async def main() -> None:
        nap = lambda: asyncio.sleep(0.05)  # noqa: E731 - one body for two tasks
        worker = VirtualWorker({"map": nap, "nap": nap}, queues={"default": None, "cpu_intensive": 2})
        await worker.put(["map"] * 300, "cpu_intensive")
        await worker.put(["nap"] * 3000)
        await worker.work(5.0)
        assert worker.most["map"] == 2
        assert worker.most["nap"] > INITIAL
        assert {one.name for one in worker.decisions} == {"task nap"}

    story(main)


def test_what_was_learned_is_where_the_next_worker_begins() -> None:
    optimizer = AsyncWorkerOptimizer()

    async def main() -> None:
        for seconds in (10.0, 2.0):
            worker = VirtualWorker({"pay": of(CONTENDED)}, queues={"default": None}, seek=optimizer.policy)
            await worker.put(["pay"] * 3000)
            await worker.work(seconds)
        number, rate = best(CONTENDED)
        assert worker.rate("pay", 10.5, 12) > 0.7 * rate, f"seed {SEED}"
        assert max(worker.limits("pay", 10), default=0) <= 2 * number, "it does not search from the start again"

    story(main)
    assert list(optimizer.learned) == ["task pay"]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_waits_at_the_door_can_be_cancelled_and_its_time_begins_inside(cancelled: bool) -> None:
    async def main() -> None:
        gone = asyncio.Event()
        worker = VirtualWorker({"hang": gone.wait, "nap": lambda: asyncio.sleep(0.01)}, queues={"default": None})
        await worker.put(["hang", "nap"] * 400)
        working = asyncio.ensure_future(worker.work(20.0))
        await asyncio.sleep(10.0)
        inside = worker.running["hang"]
        waiting = [one for one in worker.runner.live.values() if one.task == "hang"][inside:]
        assert waiting
        if cancelled:
            worker.runner.cancel(waiting[0].delivery.id)
            await asyncio.sleep(0.1)
            assert waiting[0].delivery.id not in worker.runner.live
            assert waiting[0].status == "cancelled"
        since, came = waiting[-1].since, worker.clock.monotonic()
        gone.set()
        await asyncio.sleep(0.1)
        assert cancelled or waiting[-1].since >= came > since
        await working
        assert worker.running == {"hang": 0, "nap": 0}

    story(main)


def test_fixed_slots_ask_each_queue_first_in_turn() -> None:
    slots = Slots({"a": 2, "b": 5}, 4)
    assert slots.ask({}, {}, 200) == ({"a": 2, "b": 4}, 4)
    assert list(slots.ask({"a": 1}, {}, 200)[0]) == ["b", "a"]
    assert slots.ask({"a": 2}, {}, 3) == ({"b": 3}, 3)
    busy: Any = dict.fromkeys("wxyz")
    assert slots.ask({"b": 4}, busy, 200) == ({}, 0)
