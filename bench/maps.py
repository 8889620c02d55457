"""One way to map many items in one process, run and measured in a process of its own: ``python -m bench.maps NAME BODY N``.

Every way keeps a list of nothing but counts what came out, so memory is what the way itself takes. Runs in the
environment of the way it measures, so libraries are imported where they are used.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path

AT_ONCE = 100
Body = Callable[[int], Awaitable[int]]


async def noop(item: int) -> int:
    return item


async def once(item: int) -> int:
    await asyncio.sleep(0)
    return item


async def workers(body: Body, items: Iterator[int]) -> int:
    """Share one iterator among N coroutines: what one would write by hand, and no way to take results as they come."""
    done: list[int] = []

    async def work() -> None:
        for item in items:
            done.append(await body(item))  # noqa: PERF401 - an extend would hold results back till the end

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return len(done)


async def queue(body: Body, items: Iterator[int]) -> int:
    """Share one iterator among N coroutines that hand results over by an `asyncio.Queue`."""
    done: asyncio.Queue[int | None] = asyncio.Queue(2 * AT_ONCE)
    left, count = AT_ONCE, 0

    async def work() -> None:
        for item in items:
            await done.put(await body(item))
        await done.put(None)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
        while left:
            if await done.get() is None:
                left -= 1
            else:
                count += 1
    return count


async def chunks(body: Body, items: Iterator[int]) -> int:
    """Gather a hundred, then the next hundred."""
    count = 0
    while chunk := list(islice(items, AT_ONCE)):
        count += len(await asyncio.gather(*map(body, chunk)))
    return count


async def gather(body: Body, items: Iterator[int]) -> int:
    """Gather everything behind a semaphore."""
    permits = asyncio.Semaphore(AT_ONCE)

    async def one(item: int) -> int:
        async with permits:
            return await body(item)

    return len(await asyncio.gather(*map(one, items)))


async def aiometer(body: Body, items: Iterator[int]) -> int:
    from aiometer import amap  # noqa: PLC0415 - there in its own environment alone

    count = 0
    async with amap(body, list(items), max_at_once=AT_ONCE) as results:
        async for _ in results:
            count += 1
    return count


async def ours(body: Body, items: Iterator[int], *, ordered: bool = False, on_error: str = "raise") -> int:
    from asyncworker.work.stream import stream  # noqa: PLC0415 - msgspec is not in the peers' environments

    count = 0
    async for _ in stream(body, items, concurrency=AT_ONCE, ordered=ordered, on_error=on_error):
        count += 1
    return count


async def ours_ordered(body: Body, items: Iterator[int]) -> int:
    return await ours(body, items, ordered=True)


async def ours_collect(body: Body, items: Iterator[int]) -> int:
    return await ours(body, items, on_error="collect")


async def ours_auto(body: Body, items: Iterator[int]) -> int:
    from asyncworker.optimizer import AsyncWorkerOptimizer  # noqa: PLC0415 - as above

    count = 0
    async for _ in AsyncWorkerOptimizer().map(body, items):
        count += 1
    return count


BODIES: dict[str, Body] = {"noop": noop, "once": once}
WAYS: dict[str, Callable[[Body, Iterator[int]], Awaitable[int]]] = {
    "workers": workers,
    "stream": ours,
    "stream ordered": ours_ordered,
    "stream collect": ours_collect,
    "map auto": ours_auto,
    "queue": queue,
    "chunks": chunks,
    "gather": gather,
    "aiometer": aiometer,
}
"""The first is what the others are compared with."""


def peak_mb() -> float:
    """Return the highest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss starts with what the parent had
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


async def measured(way: str, body: str, count: int) -> dict[str, float]:
    run = WAYS[way]
    await run(BODIES[body], iter(range(AT_ONCE)))  # imports, and code that adapts to its types
    before, began, cpu = peak_mb(), time.perf_counter(), time.process_time()
    came = await run(BODIES[body], iter(range(count)))
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    if came != count:
        raise RuntimeError(f"{way} gave {came} results for {count} items")
    return {"us": 1e6 * seconds / count, "cpu_us": 1e6 * cpu_s / count, "more_mb": peak_mb() - before}


def main() -> None:
    way, body, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        import uvloop  # noqa: PLC0415 - not on each platform
    except ImportError:
        figures = asyncio.run(measured(way, body, count))
    else:
        figures = uvloop.run(measured(way, body, count))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
