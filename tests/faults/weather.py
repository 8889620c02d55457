"""A proxy in bad weather: at random it swallows answers, cuts them off, slices them, holds them up."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

from tests.support.proxy import Proxy

SLICES = 64


class Weather(Proxy):
    """Attributes: ``shares``, how likely each of the faults is, by its name, none at first; ``faults``, how many there were.

    =========  ==========================================================================
    swallow    the server has done its work, nobody hears of it, and the line goes dead
    mute       the same, but the line seems well: half open
    reset      hung up in the middle of the answer
    slice      byte by byte
    delay      up to `longest_s` late
    =========  ==========================================================================
    """

    longest_s = 0.02

    def __init__(self, upstream: str, path: Path, random: Random) -> None:
        super().__init__(upstream, path)
        self.shares: dict[str, float] = {}
        self.faults: Counter[str] = Counter()
        self._random = random

    async def hand_on(self, writer: asyncio.StreamWriter, data: bytes) -> bool:
        names, shares = list(self.shares), list(self.shares.values())
        (fault,) = self._random.choices([*names, ""], [*shares, 1 - sum(shares)])
        if not fault:
            return await super().hand_on(writer, data)
        self.faults[fault] += 1
        match fault:
            case "swallow":
                return False
            case "mute":
                return True
            case "reset":
                writer.write(data[: self._random.randrange(len(data))])
                return False
            case "slice":
                for at in range(min(len(data), SLICES)):
                    writer.write(data[at : at + 1])
                    await asyncio.sleep(0)
                data = data[SLICES:]
            case "delay":
                await asyncio.sleep(self._random.uniform(0, self.longest_s))
        return await super().hand_on(writer, data)
