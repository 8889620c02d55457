"""What other queues have and no other test of ours shows from end to end."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack

import click
import pytest
import redis

from asyncworker import Engine, ResultExpired
from asyncworker.cli import COMMANDS
from asyncworker.settings import SETTINGS
from asyncworker.task import Task
from asyncworker.testing import FrozenClock

AN_HOUR = 3600


def calls(url: str) -> int:
    """Return how many calls of functions a server has answered."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"])


async def test_a_thousand_calls_are_one_round_trip(redis_url: str, namespace: str) -> None:
    async with Engine(redis_url, namespace=namespace) as engine:

        @engine.task()
        async def echo(n: int) -> int:
            return n

        await echo.enqueue(0)
        before = calls(redis_url)
        jobs = await echo.enqueue_many([(n,) for n in range(1000)])
        assert calls(redis_url) - before == 1
        assert len({job.id for job in jobs}) == 1000


async def test_who_enqueues_by_name_needs_no_code(redis_url: str, namespace: str) -> None:
    async with (
        Engine(redis_url, namespace=namespace) as client,
        Engine(redis_url, namespace=namespace) as server,
    ):

        @server.task(name="shop.double")
        async def double(n: int) -> int:
            return 2 * n

        job = await client.enqueue("shop.double", n=21)
        await server.run(burst=True)
        assert await job.result(timeout=20) == 42


async def test_a_job_longer_than_its_lease_is_run_once(redis_url: str, namespace: str) -> None:
    """Another worker watches meanwhile: by the words of the broker alone, it would have been given the job."""
    lease_s, runs = 1.2, list[int]()
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(Engine(redis_url, namespace=namespace, lease=lease_s)) for _ in "ab"]
        for number, engine in enumerate(engines):

            async def long(number: int = number) -> int:
                runs.append(number)
                await asyncio.sleep(2.5 * lease_s)
                return number

            engine.task(name="long")(long)
        working = [asyncio.create_task(engine.run()) for engine in engines]
        job = await engines[0].enqueue("long")
        assert await job.result(timeout=20) == runs[0]
        for engine in engines:
            engine.stop()
        await asyncio.gather(*working)
    assert len(runs) == 1


async def test_results_are_kept_for_an_hour_unless_told_otherwise(
    memory_engine: Callable[..., Engine], frozen_clock: FrozenClock
) -> None:
    async with memory_engine() as engine:

        @engine.task()
        async def echo(n: int) -> int:
            return n

        job = await echo.enqueue(7)
        await engine.drain()
        frozen_clock.advance(AN_HOUR - 1)
        assert await job.result(timeout=0) == 7
        frozen_clock.advance(2)
        with pytest.raises(ResultExpired):
            await job.result(timeout=0)


async def test_who_waits_for_a_result_is_woken_and_does_not_poll(redis_url: str, namespace: str) -> None:
    async with (
        Engine(redis_url, namespace=namespace) as client,
        Engine(redis_url, namespace=namespace) as server,
    ):

        @server.task(name="echo")
        async def echo(n: int) -> int:
            return n

        job = await client.enqueue("echo", 7)
        before = calls(redis_url)
        waiting = asyncio.create_task(client.broker.wait([job.id], None))
        done, _ = await asyncio.wait([waiting], timeout=1.0)  # nobody works yet
        assert not done
        assert calls(redis_url) - before == 1, "it asked once, and then waits to be told"
        await server.run(burst=True)
        async with asyncio.timeout(20):
            await waiting


def test_type_checkers_know_what_a_task_takes() -> None:
    """`tests/typing/api.py` is what they say of it, and `./dev.sh check` asks them."""
    kinds = inspect.signature(Task.enqueue).parameters
    assert [str(kind.annotation) for kind in kinds.values() if kind.name != "self"] == ["P.args", "P.kwargs"]
    assert "JobHandle[R]" in str(inspect.signature(Task.enqueue).return_annotation)


def flags() -> list[click.Option]:
    """Return all flags of all commands and their verbs."""
    found: list[click.Option] = []
    left: list[click.Command] = [importlib.import_module(f"asyncworker.cli.{name}").COMMAND for name in COMMANDS]
    while left:
        command = left.pop()
        left += command.commands.values() if isinstance(command, click.Group) else []
        found += [one for one in command.params if isinstance(one, click.Option)]
    return found


def test_every_flag_has_a_variable() -> None:
    assert len(flags()) > 100
    for one in flags():
        assert one.name in {*SETTINGS, "config"}, f"{one.opts} is no setting: no variable, no key in a file"
