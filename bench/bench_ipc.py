"""What do calls and messages between processes cost, by their size, beside what Python itself has for that?

Null hypothesis: a large buffer that goes through shared memory costs no less than one that goes through a pipe.

    python -m bench.bench_ipc [--rounds N] [--small] [--json]

Microseconds each, median of interleaved rounds: wall time, and processor time of both processes. *call*: a function in
another process looks at bytes and says how many there are. *return*: it gives so many. *echo*: both. *stream*: messages
one way, as fast as they are taken; *ping*: one there and back. Beside `ProcessExecutor` and `HighPerformanceIPC` stand
`concurrent.futures.ProcessPoolExecutor` and `multiprocessing.Queue` (both spawned), which pickle and use pipes.
``view`` is ours where the function takes a memoryview, so that nothing is copied on its side.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import psutil

from asyncworker import HighPerformanceIPC, MessageType
from asyncworker.work.executors.process import ProcessExecutor
from bench.report import Machine, table

SIZES = (100, 10_000, 65_536, 1_000_000, 16_000_000)
Call = Callable[[int], Awaitable[Any]]
Times = tuple[float, float]


def length(data: bytes) -> int:
    return len(data)


def length_of_view(data: memoryview) -> int:
    return len(data)


def give(size: int) -> bytes:
    return bytes(size)


def echo(data: bytes) -> bytes:
    return data


async def timed(work: Callable[[], Awaitable[Any]], count: int) -> Times:
    """Return microseconds of wall and of processor time for each of *count*; *work* does all of them."""
    me = psutil.Process()
    everybody = [me, *me.children(recursive=True)]
    spent, began = cpu(everybody), time.perf_counter()
    await work()
    wall = time.perf_counter() - began
    return wall / count * 1e6, (cpu(everybody) - spent) / count * 1e6


def cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


# --- calls ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ours() -> AsyncIterator[dict[str, Call]]:
    executor = ProcessExecutor(1)
    functions = {name: executor.bind(of) for name, of in (("call", length), ("return", give), ("echo", echo))}
    view = executor.bind(length_of_view)
    yield {
        "call": lambda size: functions["call"](bytes(size)),
        "call view": lambda size: view(memoryview(bytes(size))),
        "return": functions["return"],
        "echo": lambda size: functions["echo"](bytes(size)),
    }
    executor.close()


@asynccontextmanager
async def futures() -> AsyncIterator[dict[str, Call]]:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield {
            "call": lambda size: loop.run_in_executor(pool, length, bytes(size)),
            "return": lambda size: loop.run_in_executor(pool, give, size),
            "echo": lambda size: loop.run_in_executor(pool, echo, bytes(size)),
        }


async def calls(way: Callable[[], Any], size: int, count: int) -> dict[str, Times]:
    told = {}
    async with way() as named:
        for name, call in named.items():

            async def work(call: Call = call, count: int = count) -> None:
                for _ in range(count):
                    await call(size)

            await work(call, 3)
            told[name] = await timed(work, count)
    return told


# --- messages ---------------------------------------------------------------------------------------------


async def answer(place: str) -> None:
    """Count what comes until there is an end, and send back what asks for it."""
    async with HighPerformanceIPC("other", place=place) as ipc:
        while (message := await ipc.receive_message("there")) and message.msg_type is not MessageType.SHUTDOWN:
            if message.msg_type is MessageType.CONTROL:
                await ipc.send_message("back", MessageType.DATA, message.data)


async def channel(size: int, count: int) -> dict[str, Times]:
    async with HighPerformanceIPC("main") as ipc:
        ipc.create_message_queue("there")
        ipc.create_message_queue("back")
        with subprocess.Popen([sys.executable, "-m", "bench.bench_ipc", "--answer", ipc.place]) as other:  # noqa: ASYNC220 - it starts at once

            async def ping(count: int = count) -> None:
                for _ in range(count):
                    await ipc.send_message("there", MessageType.CONTROL, bytes(size))
                    await ipc.receive_message("back")

            async def stream() -> None:
                for _ in range(count):
                    await ipc.send_message("there", MessageType.DATA, bytes(size))
                await ipc.send_message("there", MessageType.CONTROL)
                await ipc.receive_message("back")

            await ping(3)
            told = {"ping": await timed(ping, count), "stream": await timed(stream, count)}
            await ipc.send_message("there", MessageType.SHUTDOWN)
            await asyncio.to_thread(other.wait)
    return told


def answer_queue(there: Any, back: Any) -> None:
    while (message := there.get()) is not None:
        if message[0]:
            back.put(message[1])


async def queue(size: int, count: int) -> dict[str, Times]:
    spawn = multiprocessing.get_context("spawn")
    there, back = spawn.Queue(1000), spawn.Queue(1000)
    other = spawn.Process(target=answer_queue, args=(there, back))
    other.start()

    async def ping(count: int = count) -> None:
        for _ in range(count):
            there.put((True, bytes(size)))
            back.get()

    async def stream() -> None:
        for _ in range(count):
            there.put((False, bytes(size)))
        there.put((True, b""))
        back.get()

    await ping(3)
    told = {"ping": await timed(ping, count), "stream": await timed(stream, count)}
    there.put(None)
    await asyncio.to_thread(other.join)
    return told


# --- telling ----------------------------------------------------------------------------------------------


async def measure(rounds: int, sizes: tuple[int, ...], most: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return size -> way and what -> wall and processor time, and how often; medians of rounds."""
    found: dict[str, dict[str, list[Times]]] = {}
    for _ in range(rounds):
        for size in sizes:
            count = max(5, min(most, 200_000_000 // (size + 20_000)))
            rows = found.setdefault(f"{size:,}", {})
            for name, times in (
                ("ProcessExecutor", await calls(ours, size, count)),
                ("ProcessPoolExecutor", await calls(futures, size, count)),
                ("HighPerformanceIPC", await channel(size, count)),
                ("multiprocessing.Queue", await queue(size, count)),
            ):
                for what, of in times.items():
                    rows.setdefault(f"{name} {what}", []).append(of)
    return {
        size: {
            name: {"wall_us": statistics.median(wall for wall, _ in of), "cpu_us": statistics.median(c for _, c in of)}
            for name, of in rows.items()
        }
        for size, rows in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.answer:
        asyncio.run(answer(asked.answer))
        return
    machine = Machine()
    machine.probe()
    sizes, most = ((100, 1_000_000), 20) if asked.small else (SIZES, 2_000)
    told = asyncio.run(measure(1 if asked.small else asked.rounds, sizes, most))
    machine.probe()
    if asked.json:
        print(json.dumps({"machine": machine.facts(), "us": told}))
        return
    names = sorted({name for rows in told.values() for name in rows}, key=lambda name: (name.split()[1], name))
    head = ["wall (processor) us", *(f"{size} B" for size in told)]
    rows = [
        [name, *(f"{of[name]['wall_us']:,.0f} ({of[name]['cpu_us']:,.0f})" for of in told.values())] for name in names
    ]
    print(machine, table(head, rows), sep="\n")


if __name__ == "__main__":
    importlib.import_module("bench.bench_ipc").main()  # under its name, where another process finds its functions
