"""The keeper beats from its thread, watches the loop, and fences its own worker in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

from asyncworker.errors import BrokerDown, LeaseLost
from asyncworker.queue.worker.keeper import Keeper

LEASE_S = 0.5


class Heart:
    """The one verb of a broker that a keeper uses, and what it shall answer."""

    def __init__(self) -> None:
        self.beats = 0
        self.answer: Exception | Mapping[str, str] | None = None
        self.threads: set[str] = set()

    def beat(self, epoch: str, *, look: bool = True) -> Mapping[str, str] | None:
        self.beats += 1
        self.threads.add(threading.current_thread().name)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Watch:
    """A keeper over a heart, with what it told us."""

    def __init__(self, **options: float) -> None:
        self.heart = Heart()
        self.told: list[Mapping[str, str] | None] = []
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.keeper = Keeper(
            self.heart,  # type: ignore[arg-type] - only `beat` is used
            "epoch1",
            LEASE_S,
            on_lost=self.lost.set_result,
            on_beats=self.told.append,
            **options,
        )

    async def until_beats(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.heart.beats < count:
                await asyncio.sleep(0.005)


async def test_it_beats_from_a_thread_of_its_own_and_stops() -> None:
    watch = Watch()
    watch.keeper.start()
    await watch.until_beats(3)
    await watch.keeper.stop()
    assert watch.heart.threads == {"keeper-epoch1"}
    assert not watch.lost.done()


async def test_it_hands_on_everybodys_beats() -> None:
    watch = Watch()
    watch.heart.answer = {"a": "1:1:1000"}
    watch.keeper.start()
    await watch.until_beats(2)
    await watch.keeper.stop()
    await asyncio.sleep(0)
    assert watch.told[0] == {"a": "1:1:1000"}


async def test_a_reaped_epoch_is_lost_at_once() -> None:
    watch = Watch()
    watch.heart.answer = LeaseLost("reaped")
    watch.keeper.start()
    assert await asyncio.wait_for(watch.lost, 10) == "reaped"
    await watch.keeper.stop()
    assert watch.heart.beats == 1


async def test_it_fences_itself_before_others_may_reap() -> None:
    watch = Watch()
    watch.heart.answer = BrokerDown("nobody there")
    began = time.monotonic()
    watch.keeper.start()
    assert "nobody there" in await asyncio.wait_for(watch.lost, 10)
    assert time.monotonic() - began >= 0.9 * LEASE_S
    await watch.keeper.stop()
    assert watch.told[0] is None, "what was seen before an error is stale"


async def test_a_loop_that_does_not_turn_must_not_look_alive() -> None:
    watch = Watch(max_block_s=0.25)
    watch.keeper.start()
    await watch.until_beats(2)
    blocked_until = time.monotonic() + 20
    while any(thread.name == "keeper-epoch1" for thread in threading.enumerate()):
        assert time.monotonic() < blocked_until, "it did not give up"
        time.sleep(0.001)  # noqa: ASYNC251 - blocks the loop, as is to be seen
    counted = watch.heart.beats
    assert "did not turn" in await asyncio.wait_for(watch.lost, 10)
    await watch.keeper.stop()
    assert counted <= 5 + 2, "it beat on while the loop was blocked"
