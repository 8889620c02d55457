"""The workers of `bench_straggler`: one partition is ten times slower for whoever begins it first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from asyncworker import Engine

engine = Engine(os.environ.get("BENCH_BROKER", "memory://"))


def _is_first(folder: Path) -> bool:
    """Return whether this process is the one that began the partition."""
    try:
        with (folder / "first").open("x") as file:
            file.write(str(os.getpid()))
        return True
    except FileExistsError:
        return (folder / "first").read_text() in ("", str(os.getpid()))


@engine.mapper
async def drags(item: int, params: dict[str, Any]) -> int:
    """Wait as long as an item takes, and write down which process did it."""
    part = item // params["size"]
    seconds = params["seconds"]
    if part == params["slow"] and await asyncio.to_thread(_is_first, Path(params["folder"])):
        seconds *= params["times"]
    await asyncio.sleep(seconds)
    return 1


@engine.reducer
class Sum:
    def initial(self, params: dict[str, Any]) -> int:
        return 0

    def fold(self, acc: int, value: int) -> int:
        return acc + value

    def merge(self, acc: int, other: int) -> int:
        return acc + other

    def finish(self, acc: int, params: dict[str, Any]) -> int:
        return acc
