"""Flows as people meet them: the example, and what the command line says of their jobs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from asyncworker import Engine, Flow, chain, group
from tests.support.command import call

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_a_flow() -> None:
    said = subprocess.run(
        [sys.executable, "examples/flow.py"],
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
    )
    assert said.stdout.startswith(b"tidied up: bought at "), said.stderr


def test_the_command_line_says_what_blocks_a_job(redis_url: str, namespace: str, tmp_path: Path) -> None:
    engine = Engine(redis_url, namespace=namespace)

    @engine.task(max_attempts=1)
    async def fetch(n: int) -> int:
        return 1 // n

    async def put(flow: Flow[Any]) -> list[str]:
        async with engine:
            return [job.id for job in (await flow.enqueue()).jobs]

    async def work() -> None:
        async with engine:
            await engine.run(burst=True)

    def ask(*words: str) -> tuple[int, str]:
        code, out, err = call(*words, "--broker", redis_url, "--namespace", namespace, cwd=tmp_path)
        return code, out + err

    *members, last = asyncio.run(put(group(fetch.bind(n) for n in range(12))))
    said = json.loads(ask("status", last, "--json")[1])
    assert (said["state"], said["after_done"], said["after_total"]) == ("blocked", 0, 12)
    assert said["waits_for"] == members[:10]
    code, text = ask("status", last)
    assert code == 0
    assert "waits for" in text
    assert members[0] in text
    asyncio.run(work())
    for words in ("result", "status"):
        code, text = ask(words, last)
        assert code == (words == "result")
        assert "dependency" in text
    *_, last = asyncio.run(put(chain(fetch.bind(1), fetch)))
    asyncio.run(work())
    assert ask("result", last) == (0, "1\n")
