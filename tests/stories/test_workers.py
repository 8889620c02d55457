"""``asyncworker workers``: who works, from the command line."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from asyncworker import Engine
from tests.support.command import run


async def test_who_works_on_what(redis_url: str, namespace: str, tmp_path: Path) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        return run("workers", *words, "--broker", redis_url, "--namespace", namespace, cwd=tmp_path)

    code, out, _ = await asyncio.to_thread(said, "--json")
    assert (code, json.loads(out)) == (1, [])
    async with Engine(redis_url, namespace=namespace, queues=["mail"]) as engine:
        begun, end = asyncio.Event(), asyncio.Event()

        @engine.task(queue="mail")
        async def send() -> None:
            begun.set()
            await end.wait()

        job = await send.enqueue()
        working = asyncio.create_task(engine.run(concurrency=3))
        async with asyncio.timeout(20):
            await begun.wait()
        code, out, _ = await asyncio.to_thread(said, "ls", "--json")
        (worker,) = json.loads(out)
        assert (code, worker["running"], worker["card"]["pid"]) == (0, 1, os.getpid())
        assert (worker["card"]["queues"], worker["card"]["concurrency"]) == (["mail"], 3)
        assert worker["age_s"] >= 0
        assert "mail" in (await asyncio.to_thread(said))[1]
        end.set()
        await job.result(timeout=20)
        engine.stop()
        await working
