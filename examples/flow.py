"""A small graph: three shops are asked side by side, the cheapest is bought at; whatever happens, all is tidied up.

To run it: ./dev.sh python examples/flow.py
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from asyncworker import Engine, TaskFailed, group

engine = Engine()  # memory://; with redis:// any number of workers would share the work


@engine.task(max_attempts=1)
async def ask(shop: str) -> tuple[float, str]:
    if shop == "closed":
        raise ConnectionError(shop)
    return round(random.uniform(1, 9), 2), shop


@engine.task(allow_failure=True)
async def choose(offers: Sequence[tuple[float, str] | TaskFailed]) -> tuple[float, str]:
    return min(offer for offer in offers if not isinstance(offer, TaskFailed))


@engine.task()
async def buy(offer: tuple[float, str], *, most: float) -> str:
    price, shop = offer
    if price > most:
        raise ValueError(f"{shop} wants {price}")
    return f"bought at {shop} for {price}"


@engine.task(allow_failure=True)
async def tidy(said: str | TaskFailed) -> str:
    return f"tidied up: {said}"


async def main() -> None:
    flow = group(ask.bind(shop) for shop in ("north", "south", "closed")).then(choose).then(buy, most=9).then(tidy)
    async with engine:
        job = await flow.enqueue()
        print(await job.result(timeout=10))


asyncio.run(main())
