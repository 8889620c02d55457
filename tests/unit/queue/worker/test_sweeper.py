"""Death is a beat that was seen to stand still for that worker's lease, by one's own monotonic clock."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from asyncworker.events import Bus, WorkerReaped
from asyncworker.queue.brokers import memory
from asyncworker.queue.worker.keeper import BEATS_A_LEASE
from asyncworker.queue.worker.sweeper import Sweeper
from tests.support.brokers import World
from tests.support.clock import FrozenClock


def sweeper() -> tuple[Sweeper, FrozenClock]:
    clock = FrozenClock()
    return Sweeper(None, "me", bus=Bus(), clock=clock), clock  # type: ignore[arg-type] - its broker is not asked


def test_a_beat_that_stands_still_for_its_lease_is_a_death() -> None:
    it, clock = sweeper()
    it.look({"a": "5:9:1500", "me": "1:1:1500"})
    assert it.dead() == []
    clock.advance(1.4)
    it.look({"a": "5:9:1500", "me": "1:1:1500"})
    assert it.dead() == []
    clock.advance(0.2)
    assert it.dead() == [("a", "5:9:1500")]


def test_a_beat_that_moved_starts_anew() -> None:
    it, clock = sweeper()
    it.look({"a": "5:9:1000"})
    clock.advance(0.9)
    it.look({"a": "5:10:1000"})
    clock.advance(0.9)
    it.look({"a": "5:10:1000"})
    assert it.dead() == []
    clock.advance(0.2)
    assert it.dead() == [("a", "5:10:1000")]


def test_each_worker_has_the_lease_it_named() -> None:
    it, clock = sweeper()
    it.look({"short": "0:0:1000", "long": "0:0:60000"})
    clock.advance(2)
    assert it.dead() == [("short", "0:0:1000")]


def test_an_outage_is_nobodys_death() -> None:
    it, clock = sweeper()
    it.look({"a": "5:9:1000"})
    clock.advance(5)
    it.look(None)
    it.look({"a": "5:9:1000"})
    assert it.dead() == []


def test_who_left_is_forgotten() -> None:
    it, clock = sweeper()
    it.look({"a": "5:9:1000"})
    it.look({})
    clock.advance(5)
    it.look({"a": "5:9:1000"})
    assert it.dead() == []


@given(victim=st.integers(0, 15), observer=st.integers(0, 15), lived=st.integers(0, 7))
def test_a_death_is_known_a_lease_and_at_most_one_beat_after_the_last_sign_of_life(
    victim: int, observer: int, lived: int
) -> None:
    """Both beat once in sixteen ticks, whenever they began; the victim *lived* so many beats."""
    beat, tick_s = 16, 1 / 16
    lease = BEATS_A_LEASE * beat
    it, clock = sweeper()
    last, died = victim + beat * lived, 0
    for now in range(last + 3 * lease):
        clock.advance(tick_s)
        if now % beat == observer and now >= victim:
            it.look({"victim": f"1:{min(lived, (now - victim) // beat)}:{round(1000 * lease * tick_s)}"})
        if it.dead():
            died = now
            break
    assert last + lease <= died <= last + lease + beat


async def test_it_reaps_when_the_lease_is_over_though_nobody_looks_again() -> None:
    clock, bus = FrozenClock(), Bus()
    world = World(memory.open(clock=clock), clock)
    reaped: asyncio.Future[WorkerReaped] = asyncio.get_running_loop().create_future()
    bus.listen(WorkerReaped, reaped.set_result)
    victim = await world.join(lease_s=10)
    await world.put_one()
    await victim.claim_one()
    it = Sweeper(world.broker, "me", bus=bus, clock=clock)
    beats = await victim.beat()
    it.look(beats)
    running = asyncio.create_task(it.run())
    try:
        clock.advance(9.9)
        await asyncio.sleep(0.01)
        assert not reaped.done()
        clock.advance(0.2)
        assert await asyncio.wait_for(reaped, 20) == WorkerReaped(victim.epoch, 1)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await world.close()
