"""What the README shows is run as it stands there, but for the address of the server."""

from __future__ import annotations

import asyncio
import importlib
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import asyncworker
from asyncworker import Engine

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def hello(word: str) -> str:
    """Return the hello world that holds *word*."""
    (block,) = [block for block in blocks("python") if word in block and "import Engine" in block]
    return block


@asynccontextmanager
async def running(*program: str, cwd: Path = ROOT) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_inside_an_aiohttp_service(fresh_redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = hello("web.Application").replace("redis://localhost", fresh_redis_url)
    code = code.replace("web.run_app(app)", f"web.run_app(app, host='127.0.0.1', port={port})")
    async with running("-c", code), aiohttp.ClientSession() as client, asyncio.timeout(30):
        while True:
            try:
                async with client.get(f"http://127.0.0.1:{port}/hello?name=you") as answer:
                    assert (answer.status, await answer.text()) == (200, "hello you")
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def test_a_worker_of_its_own(fresh_redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(hello("shop.py").replace("redis://localhost", fresh_redis_url))
    async with running("-m", "asyncworker", "worker", "shop:engine", cwd=tmp_path), Engine(fresh_redis_url) as engine:
        job = await engine.enqueue("charge", 7)
        assert await job.result(timeout=30) is None
        status = await job.status()
        assert (status.state, status.queue) == ("succeeded", "priority") or status.queue in {"default", ""}


async def test_map_reduce_over_a_dataset() -> None:
    async with running("-c", hello("map_reduce"), cwd=ROOT) as process:
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, said.decode()
    assert b"partitions" in said
    assert b"'total_processed': 27004" in said


def test_s33_every_name_is_where_the_table_says() -> None:
    rows = re.findall(r"^\| (`.*`) \| `(asyncworker/[\w/]+\.py)` \|$", README, re.MULTILINE)
    assert len(rows) > 10
    listed = set()
    for names, file in rows:
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        for name in re.findall(r"`(\w+)`", names):
            listed.add(name)
            assert getattr(module, name).__module__ == module.__name__, f"{name} is not defined in {file}"
    classes = {name for name in asyncworker.__all__ if isinstance(getattr(asyncworker, name), type)}
    errors = {name for name in classes if issubclass(getattr(asyncworker, name), BaseException)}
    assert classes - errors - {"State"} <= listed, "a public class is missing in the table"


def test_every_link_into_the_tree_is_true() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", sorted(asyncworker.__all__))
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(asyncworker, name) is not None
