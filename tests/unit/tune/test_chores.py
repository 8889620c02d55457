from __future__ import annotations

import asyncio

from asyncworker.tune.chores import Chores
from bench.control import virtual_loop


def test_a_chore_is_finished_though_who_began_it_is_cancelled_and_cancelled_when_it_takes_for_ever() -> None:
    async def main() -> None:
        chores, done = Chores("pool"), []

        async def chore(seconds: float) -> None:
            await asyncio.sleep(seconds)
            done.append(seconds)

        async def asks() -> None:
            await asyncio.shield(chores.begin(chore(1)))

        asking = asyncio.create_task(asks())
        endless = chores.begin(chore(1000))
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await chores.close(3)
        assert done == [1]
        assert endless.cancelled()
        assert asyncio.get_running_loop().time() == 3.5
        await chores.close(3)

    virtual_loop.run(main())
