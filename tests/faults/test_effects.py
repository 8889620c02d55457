"""P4: what jobs write within `effect` is there once, whoever is killed or frozen meanwhile."""

from __future__ import annotations

import asyncpg

from tests.faults.fleet import fleet, until
from tests.faults.server import server

JOBS, FAULTS = 120, 4


async def test_p4_effects_come_about_once_while_workers_are_killed_and_zombies_wake(
    postgres_dsn: str, seed: int
) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("CREATE TABLE paid (job text)")
        with server() as redis:
            async with fleet(redis, seed, workers=2, lease="0.6s", concurrency="8") as running:
                await running.put("pays", *((postgres_dsn, 0.03 + 0.01 * (number % 5)) for number in range(JOBS)))
                for number in range(1, FAULTS + 1):

                    async def its_turn(number: int = number) -> bool:
                        return running.count("s") >= number * JOBS // (2 * FAULTS)

                    await until(its_turn)
                    if number % 2:
                        await running.kill_one()
                        continue
                    zombie, _ = await running.stop_one()
                    running.start()
                    epoch = {pid: epoch for epoch, pid in running.server.epochs().items()}[zombie.pid]

                    async def given_up(epoch: str = epoch) -> bool:
                        return epoch not in running.server.epochs()

                    await until(given_up)
                    zombie.go_on()
                await running.over()
                runs = len(running.story.runs)
        rows = await connection.fetch("SELECT job, count(*) AS times FROM paid GROUP BY job")
        print(f"P4 seed={seed} jobs={JOBS} faults={FAULTS} runs={runs} effects={len(rows)}")
        assert {row["job"] for row in rows} == set(running.ids)
        assert {row["times"] for row in rows} == {1}
    finally:
        await connection.close()
