"""The pool over a double of asyncpg's, in virtual time; with real servers in ``tests/unit/tune/drivers``."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, PoolClosed, PoolDown, PoolError, PoolTimeout, UnknownName
from asyncworker.events import BorrowLeaked, BorrowReturned, Bus, Decided
from asyncworker.tune.actuators.connections import ConnectionPoolOptimizer
from asyncworker.tune.drivers.postgresql import PostgresqlDriver
from asyncworker.tune.sensors.borrows import LATE, OVER
from bench.control import bench_pool_honesty, virtual_loop
from bench.control.pool_double import PostgresPool, PrivateRead, guard, guarded_asyncpg

Story = Callable[[ConnectionPoolOptimizer, PostgresPool], Awaitable[Any]]


def told(
    story: Story, *, ceiling: int = 16, connect_s: float = 0.02, query_s: float = 0.0, **options: Any
) -> tuple[Any, PostgresPool]:
    """Tell a story of an open pool in virtual time; returns what it returned, and the double."""
    made: list[PostgresPool] = []

    def make() -> Any:
        made.append(PostgresPool(ceiling, connect_s=connect_s, query_s=query_s))
        return guarded_asyncpg(made[0])

    async def main() -> Any:
        driver = PostgresqlDriver(make, ceiling)
        async with ConnectionPoolOptimizer(driver, max_size=ceiling, **{"automatic": False, **options}) as pool:
            return await story(pool, made[0])

    return virtual_loop.run(main()), made[0]


async def hold(pool: ConnectionPoolOptimizer, seconds: float = 0.05) -> float:
    """Borrow for some seconds; returns when the connection came."""
    async with pool.acquire():
        came = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
    return came


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_connection_is_lent_and_taken_back() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
            assert pool.in_use == 1
        again = await pool.acquire()
        assert again.get_server_pid() == connection.get_server_pid()
        await pool.release(again)
        assert (pool.in_use, pool.waiting, double.get_size()) == (0, 0, 1)

    told(story)


def test_who_gives_back_what_was_not_lent_is_told() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        connection = await pool.acquire()
        await pool.release(connection)
        for stranger in (connection, object()):
            with pytest.raises(PoolError, match="not borrowed here"):
                await pool.release(stranger)
        async with pool.acquire() as connection:
            await pool.release(connection)  # by hand, and then by the end of the block
        assert pool.in_use == 0

    told(story)


def test_s38_exhaustion_waits_its_turn_and_no_more_connect_than_the_ceiling() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(hold(pool, random.uniform(0, 0.05)))
            for size in (16, 3, 9, 16, 2, 16):
                pool.resize(size)
                await asyncio.sleep(0.1)

    _, double = told(story, acquire_timeout=60)
    assert 2 <= double.most <= 16


def test_there_always_is_a_deadline() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        both = [await pool.acquire(), await pool.acquire()]
        for timeout, seconds in ((0.3, 0.3), (None, 2.0)):
            began = now()
            with pytest.raises(PoolTimeout, match="2 of 2 are in use") as caught:
                await pool.acquire(timeout)
            assert isinstance(caught.value, TimeoutError)
            assert now() - began == pytest.approx(seconds)
        for connection in both:
            await pool.release(connection)
        assert pool.in_use == pool.waiting == 0

    told(story, acquire_timeout=2.0)
    for bad in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(BadParameters):
            ConnectionPoolOptimizer(PostgresqlDriver(object, 4), acquire_timeout=bad)


def test_who_came_first_is_served_first_through_growth_and_shrink() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        served: list[int] = []

        async def come(number: int) -> None:
            async with pool.acquire():
                served.append(number)
                await asyncio.sleep(0.02)

        tasks = [asyncio.create_task(come(number)) for number in range(60)]
        for size in (8, 3, 12):
            await asyncio.sleep(0.04)
            pool.resize(size)
        await asyncio.gather(*tasks)
        # Connecting takes its time: within the few that are let in together anybody may be the first.
        assert max(abs(number - place) for place, number in enumerate(served)) < 12
        assert served[-1] >= 48

    told(story)


def test_who_waited_before_a_grow_is_served_by_it() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        both = [await pool.acquire(), await pool.acquire()]
        waiter = asyncio.create_task(hold(pool))
        await asyncio.sleep(1)
        assert pool.waiting == 1
        began = now()
        pool.resize(5)
        assert await waiter - began <= 0.021  # connecting
        for connection in both:
            await pool.release(connection)

    told(story)


def test_a_grow_serves_sooner_from_what_comes_back_than_from_what_connects() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        both = [await pool.acquire(), await pool.acquire()]
        waiter = asyncio.create_task(hold(pool))
        await asyncio.sleep(0.1)
        pool.resize(3)
        await asyncio.sleep(0.1)
        began = now()
        await pool.release(both[0])
        assert await waiter - began < 0.01
        await pool.release(both[1])

    told(story, connect_s=5.0, acquire_timeout=20)


def test_after_a_shrink_in_use_falls_and_what_is_too_much_is_closed() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        pool.resize(16)
        tasks = [asyncio.create_task(hold(pool)) for _ in range(100)]
        await asyncio.sleep(0.06)
        assert pool.in_use == double.get_size() == 16
        pool.resize(4)
        assert pool.in_use == 16  # nobody is interrupted
        await asyncio.sleep(0.05)
        assert pool.in_use <= 4
        await asyncio.sleep(0.001)
        assert double.get_size() <= 4
        await asyncio.gather(*tasks)
        assert double.get_size() == 4

    told(story)


@settings(max_examples=25, deadline=None)
@given(
    callers=st.lists(
        st.tuples(st.floats(0, 0.3), st.floats(0, 0.2), st.none() | st.floats(0, 0.3), st.booleans()), max_size=30
    ),
    sizes=st.lists(st.tuples(st.floats(0, 0.4), st.integers(1, 8)), max_size=5),
)
def test_no_permit_and_no_connection_is_lost(callers: list[Any], sizes: list[Any]) -> None:
    """Callers come, hold, and some are cancelled at any moment: in line, connecting, checking, holding, giving back."""

    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        async def caller(comes: float, holds: float, by_hand: bool) -> None:
            await asyncio.sleep(comes)
            if not by_hand:
                await hold(pool, holds)
                return
            connection = await pool.acquire()
            try:
                await asyncio.sleep(holds)
            finally:
                await pool.release(connection)

        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(caller(comes, holds, by_hand)) for comes, holds, _, by_hand in callers]
        for task, (comes, _, cancelled, _) in zip(tasks, callers, strict=True):
            if cancelled is not None:
                loop.call_later(comes + cancelled, task.cancel)
        for at, size in sizes:
            loop.call_later(at, pool.resize, size)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(1)
        assert (pool.in_use, pool.waiting, pool.detect_leaks()) == (0, 0, [])
        assert double.get_idle_size() == double.get_size() <= 8
        pool.resize(8)
        everything = [await pool.acquire(timeout=1) for _ in range(8)]
        for connection in everything:
            await pool.release(connection)

    told(story, ceiling=8, query_s=0.004, acquire_timeout=30)


def test_s38_a_connection_that_broke_while_idle_is_replaced_unseen() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        async with pool.acquire() as first, pool.acquire() as second:
            pids = {first.get_server_pid(), second.get_server_pid()}
        double.break_idle()
        await asyncio.sleep(1)
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
            assert connection.get_server_pid() not in pids

    told(story)


def test_s38_callers_wait_for_a_server_that_comes_back_until_their_deadline() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        double.down = True
        patient = asyncio.create_task(hold(pool))
        with pytest.raises(PoolTimeout, match="within 2 s; postgresql cannot be reached: nobody listens"):
            await pool.acquire(timeout=2)
        assert "nobody listens" in (await pool.monitor_health()).error
        await asyncio.sleep(3)
        double.down = False
        came = await patient
        assert 5 <= came <= 6.1
        assert (await pool.monitor_health()).error == ""
        assert pool.in_use == 0

    told(story)


def test_connections_are_replaced_when_they_have_lived_their_time() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        pids = []
        for _ in range(22):
            async with pool.acquire() as connection:
                pids.append(connection.get_server_pid())
            await asyncio.sleep(1)
        assert len(set(pids)) == 3
        assert double.get_size() == 1

    told(story, max_lifetime=10)


def test_health_asks_each_idle_connection() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        pool.resize(6)
        await asyncio.gather(*(hold(pool) for _ in range(6)))
        health = await pool.monitor_health()
        assert (health.opened, health.checked, health.replaced) == (6, 6, 0)
        assert (health.size, health.in_use, health.waiting) == (6, 0, 0)
        assert 0.015 < health.acquire_p99_s < 0.025
        async with pool.acquire():
            assert (await pool.monitor_health()).checked == 5
        double.deafen(2)
        health = await pool.monitor_health()
        assert (health.checked, health.replaced) == (6, 2)
        assert double.get_size() == pool.size - 2
        pool.resize(2)
        assert (await pool.monitor_health()).opened == 2

    told(story)


def test_a_task_that_ends_with_a_connection_is_told_of_at_once() -> None:
    bus, heard = Bus(), []
    bus.listen(BorrowLeaked, heard.append)

    async def careless(pool: ConnectionPoolOptimizer) -> None:
        await pool.acquire()  # this line

    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        await asyncio.create_task(careless(pool), name="careless")
        await asyncio.sleep(0)
        (leak,) = pool.detect_leaks()
        lines, first = inspect.getsourcelines(careless)
        assert leak.place.line == first + next(place for place, line in enumerate(lines) if "this line" in line)
        assert (leak.place.file, leak.place.function) == (__file__, "careless")
        assert (leak.task, leak.because) == ("careless", OVER)
        assert [event.place for event in heard] == [str(leak.place)]
        assert [event.held_s for event in heard] == [0.0]

    told(story, bus=bus)


def test_a_borrow_that_is_late_is_told_of_and_taken_back_when_it_comes() -> None:
    bus, heard = Bus(), []
    bus.listen(BorrowLeaked, heard.append)
    bus.listen(BorrowReturned, heard.append)

    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        slow = asyncio.create_task(hold(pool, 5))
        await asyncio.sleep(1.9)
        assert pool.detect_leaks() == []
        await asyncio.sleep(0.5)
        (leak,) = pool.detect_leaks()
        assert leak.because == LATE
        assert [place.function for place in (leak.place, *leak.places)] == ["hold", "hold"]
        pool.detect_leaks()
        await slow
        assert pool.detect_leaks() == []
        assert [type(event) for event in heard] == [BorrowLeaked, BorrowReturned]

    told(story, bus=bus)


def test_what_others_take_is_not_late() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        pool.resize(16)
        await asyncio.gather(*(hold(pool, 3) for _ in range(32)))
        usual = asyncio.create_task(hold(pool, 6))
        await asyncio.sleep(5.9)
        assert pool.detect_leaks() == []
        await usual

    told(story)


def test_borrowing_through_a_task_of_its_own_is_no_leak() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        connection = await asyncio.wait_for(asyncio.ensure_future(pool.acquire()), 1)
        await asyncio.sleep(0.01)
        assert pool.detect_leaks() == []
        await pool.release(connection)

    told(story)


def test_a_leak_does_not_starve_the_others() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        for _ in range(2):
            await asyncio.create_task(hold_on(pool))
        assert pool.in_use == 2
        assert await hold(pool) - now() < 1
        assert pool.size == 4

    async def hold_on(pool: ConnectionPoolOptimizer) -> None:
        await pool.acquire()

    told(story, automatic=True)


def test_waiters_are_told_that_the_pool_closes_and_borrowers_are_waited_for() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        holders = [asyncio.create_task(hold(pool, 1)) for _ in range(2)]
        waiters = [asyncio.create_task(hold(pool)) for _ in range(3)]
        await asyncio.sleep(0.1)
        began = now()
        await pool.close()
        assert 0.9 <= now() - began < 1
        for waiter in waiters:
            with pytest.raises(PoolClosed):
                await waiter
        await asyncio.gather(*holders)
        with pytest.raises(PoolClosed):
            await pool.acquire()
        await pool.close()

    told(story)


def test_closing_does_not_wait_for_ever() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        connection = await pool.acquire()
        began = now()
        await pool.close(timeout=3)
        assert now() - began == pytest.approx(3)
        with pytest.raises(PoolError):
            await pool.release(connection)

    told(story)


def test_a_server_that_is_not_there_is_told_at_the_start() -> None:
    async def main() -> None:
        def make() -> Any:
            class Away:
                def __await__(self) -> Any:
                    raise ConnectionRefusedError("nobody listens")

            return Away()

        with pytest.raises(PoolDown, match="nobody listens"):
            await ConnectionPoolOptimizer(PostgresqlDriver(make, 4)).start()

    virtual_loop.run(main())


def test_urls_lead_to_drivers() -> None:
    pool = ConnectionPoolOptimizer("postgresql://user:secret@localhost/shop", min_size=3, max_size=9)
    assert (pool.low, pool.high, pool.size) == (3, 9, 3)
    assert "secret" not in repr(vars(vars(pool)["_driver"]))
    ConnectionPoolOptimizer("rediss://localhost")
    with pytest.raises(UnknownName, match="did you mean 'postgresql'"):
        ConnectionPoolOptimizer("postgresq://localhost")


def test_it_grows_with_the_load_keeps_callers_from_waiting_and_shrinks_again() -> None:
    """The whole thing, as `bench_pool_sizing` has its rule alone: the load jumps to four times as much and back."""
    waits: list[tuple[float, float]] = []
    bus, resizes = Bus(), []
    bus.listen(Decided, resizes.append)
    rng = random.Random(7)

    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> list[int]:
        sizes = []

        async def caller(came: float) -> None:
            async with pool.acquire():
                waits.append((came, now() - came))
                await asyncio.sleep(0.02 * rng.lognormvariate(-0.35, 0.83))

        async with asyncio.TaskGroup() as group:
            for rate in (100, 400, 100):
                end = now() + 10
                while now() < end:
                    group.create_task(caller(now()))
                    await asyncio.sleep(rng.expovariate(rate))
                sizes.append(pool.size)
            await asyncio.sleep(8)
            sizes.append(pool.size)
        return sizes

    sizes, double = told(story, ceiling=64, connect_s=0.05, automatic=True, bus=bus)
    assert sizes[0] < sizes[1] <= 24
    assert sizes[3] < sizes[1]
    steady = [wait for came, wait in waits if 5 < came < 10 or 12 < came < 20 or 22 < came < 30]
    assert sum(wait <= 0.010 for wait in steady) / len(steady) >= 0.95
    assert 4 <= len(resizes) <= 20
    assert all("/s ask for" in event.because for event in resizes)
    assert double.most <= 24


def test_a_database_that_is_asked_for_too_much_does_nearly_its_best() -> None:
    """As `bench_contended_database` has it: use takes longer the more are out, and 1.3 times the best is asked for."""
    rng = random.Random(11)

    def slower(n: int) -> float:
        return 1 + 0.02 * (n - 1) + 0.98 / 15**2 * n * (n - 1)

    best = max(n / slower(n) for n in range(1, 65)) / 0.02
    served: list[float] = []

    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> int:
        async def caller() -> None:
            with suppress(PoolTimeout):
                async with pool.acquire():
                    await asyncio.sleep(0.02 * slower(pool.in_use) * rng.uniform(0.5, 1.5))
                    served.append(now())

        async with asyncio.TaskGroup() as group:
            while now() < 10:
                group.create_task(caller())
                await asyncio.sleep(rng.expovariate(1.3 * best))
            return pool.size

    size, _ = told(story, ceiling=64, connect_s=0.05, automatic=True, acquire_timeout=1.0)
    assert 8 <= size <= 30
    assert sum(4 < t < 10 for t in served) / 6 / best >= 0.85


def test_optimize_pool_size_decides_and_says_why() -> None:
    async def story(pool: ConnectionPoolOptimizer, double: PostgresPool) -> None:
        assert (await pool.optimize_pool_size()).size == 2
        tasks = [asyncio.create_task(hold(pool)) for _ in range(40)]
        await asyncio.sleep(0.5)
        decision = await pool.optimize_pool_size()
        assert decision.size == pool.size > 4
        assert "wait" in decision.because
        readings = {(reading.name, reading.labels[1:]): reading.value for reading in pool.read()}
        assert readings["pool_connections", (("state", "used"),)] == 2
        assert readings["pool_connections", (("state", "idle"),)] == 0
        (waits,) = pool.durations()
        assert waits.histogram.count >= 2
        assert readings["pool_waiters", ()] > 10
        assert readings["pool_leaks_total", ()] == 0
        assert 0.1 < readings["pool_acquire_seconds", (("quantile", "0.5"),)] < 0.5
        await asyncio.gather(*tasks)

    told(story)


@pytest.mark.bars
def test_leaks_queue_growth_and_shrink_are_what_they_say(seed: int) -> None:
    """As `bench_pool_honesty` has it, in virtual time."""

    def make(ceiling: int) -> PostgresqlDriver:
        return PostgresqlDriver(lambda: guarded_asyncpg(PostgresPool(ceiling, connect_s=0.005)), ceiling)

    bench_pool_honesty.READS.clear()
    of = virtual_loop.run(bench_pool_honesty.judge_one(make, random.Random(seed)))
    met = bench_pool_honesty.bars({"double": {**of, "private_reads": len(bench_pool_honesty.READS)}})
    assert not [bar for bar, good in met.items() if not good], f"seed {seed}: {of}"


def test_the_guard_raises_on_private_names() -> None:
    thing = guard(PostgresPool(1))
    scope = {"__name__": "asyncworker.x", "thing": thing}
    for words in ("thing._free", "thing._free = []"):
        with pytest.raises(PrivateRead), suppress(SyntaxError):
            exec(words, scope)
    assert eval("thing.get_size()", scope) == 0
    bench_pool_honesty.READS.clear()
