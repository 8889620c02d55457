"""Items share an asyncio task only as long as none can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar

import pytest

from asyncworker.queue.worker import shift
from asyncworker.queue.worker.shift import Shift

Job = Callable[[], Awaitable[object]]
place: ContextVar[list[str]] = ContextVar("place")


async def worked(jobs: Sequence[Job], turns: int = 50) -> list[asyncio.Task[None]]:
    """Give jobs to a shift, let the loop turn, and return the task of each that has begun."""
    tasks: list[asyncio.Task[None]] = []

    async def work(job: Job, task: asyncio.Task[None]) -> None:
        assert task is asyncio.current_task()
        tasks.append(task)
        await job()

    Shift(work).add(list(jobs))
    for _ in range(turns):
        await asyncio.sleep(0)
    return tasks


async def test_what_never_suspends_shares_a_task() -> None:
    done: list[int] = []

    async def job() -> None:
        done.append(len(done))

    tasks = await worked([job] * 5, turns=2)
    assert done == [0, 1, 2, 3, 4]
    assert len(set(tasks)) == 1


async def test_what_suspends_has_its_task_to_itself_from_then_on() -> None:
    gate = asyncio.Event()
    ended: list[str] = []

    async def quick() -> None:
        ended.append("quick")

    async def slow() -> None:
        await gate.wait()
        ended.append("slow")

    tasks = await worked([quick, slow, quick, slow, quick, quick])
    assert ended == ["quick"] * 4
    assert tasks[0] is tasks[1]
    assert tasks[1] not in tasks[2:]
    assert tasks[3] is not tasks[1]
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(tasks) == 6
    assert ended[4:] == ["slow", "slow"]


async def test_a_task_that_suspended_takes_nothing_more() -> None:
    async def blink() -> None:
        await asyncio.sleep(0)

    tasks = await worked([blink] * 20)
    assert len(tasks) == len(set(tasks)) == 20


async def test_after_slow_ones_the_quick_share_again() -> None:
    begun: list[asyncio.Task[None]] = []

    async def work(slow: bool, task: asyncio.Task[None]) -> None:
        begun.append(task)
        if slow:
            await asyncio.sleep(0)

    shifts = Shift(work)
    for slow in (True, False, False):
        begun.clear()
        shifts.add([slow] * 5)
        for _ in range(10):
            await asyncio.sleep(0)
    assert len(begun) == 5
    assert len(set(begun)) == 1


async def test_the_loop_gets_its_turn_between_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift, "SLICE_S", 0.0)
    done: list[int] = []

    async def job() -> None:
        done.append(len(done))

    await worked([job] * 5, turns=2)
    for most in (2, 3, 4):
        assert len(done) <= most, "one a turn of the loop"
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert done == [0, 1, 2, 3, 4]


async def test_nobody_sees_context_variables_of_another() -> None:
    place.set(["outside"])
    seen: list[list[str]] = []

    async def job() -> None:
        seen.append(place.get())
        place.set(["outside"])  # equal, but its own to change
        place.get().append("inside")

    async def reset() -> None:
        token = place.set(["mine"])
        place.reset(token)

    tasks = await worked([job, job, reset, job])
    assert seen == [["outside"]] * 3
    assert tasks[2] is tasks[3]


async def test_nobody_sees_a_variable_that_was_not_there() -> None:
    other: ContextVar[int] = ContextVar("other")
    seen: list[int] = []

    async def job() -> None:
        seen.append(other.get(0))
        other.set(1)

    await worked([job, job, job])
    assert seen == [0, 0, 0]


async def test_who_cancels_itself_cancels_nobody_else() -> None:
    done: list[str] = []

    async def rash() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def calm() -> None:
        await asyncio.sleep(0)
        done.append("calm")

    await worked([rash, calm, rash, calm])
    assert done == ["calm", "calm"]
