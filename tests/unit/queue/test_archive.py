from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from asyncworker.errors import KeepError, UnknownName
from asyncworker.queue import archive as module
from asyncworker.queue.archive import Archive, Deciding, history, open_keep
from asyncworker.queue.keeps.memory import MemoryKeep
from asyncworker.testing import FrozenClock
from asyncworker.tune.decisions import Decisions
from tests.support.brokers import until


class Learner:
    """Decides and learns what the test says."""

    def __init__(self) -> None:
        self.decisions = Decisions(clock=FrozenClock())
        self.learned: dict[str, dict[str, Any]] = {}

    def remember(self, learned: Mapping[str, dict[str, Any]]) -> None:
        self.learned = {**learned, **self.learned}


class Moody(MemoryKeep):
    """A keep that is away when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.puts = 0

    async def append(self, log: str, entries: Any, most: int) -> None:
        self._look()
        await super().append(log, entries, most)

    async def put(self, table: str, values: Any, ttl: float) -> None:
        self._look()
        self.puts += 1
        await super().put(table, values, ttl)

    async def values(self, table: str) -> dict[str, bytes]:
        self._look()
        return await super().values(table)

    def _look(self) -> None:
        if self.away:
            raise KeepError("redis://h does not answer")


@pytest.fixture
def learner() -> Learner:
    return Learner()


@pytest.fixture
def keep() -> Moody:
    return Moody()


async def test_s42_what_was_decided_and_learned_outlives_the_process(keep: Moody, learner: Learner) -> None:
    first = Archive(keep, learner)
    await first.load()
    learner.decisions.add("mail", 4, 8, "start-up: 9/s at 4, still growing")
    learner.decisions.add("mail", 8, 9, "probe, most work at 8")
    learner.learned = {"mail": {"limit": 8}, "shop": {"limit": 3}}
    await first.flush()

    second = Learner()
    second.learned = {"shop": {"limit": 5}}
    second.decisions.add("shop", 4, 5, "more")
    await Archive(keep, second).load()
    assert second.learned == {"mail": {"limit": 8}, "shop": {"limit": 5}}
    assert [one.because for one in second.decisions] == ["start-up: 9/s at 4, still growing", "more"]
    assert second.decisions.total == 1
    told = await history(keep)
    assert [(one.name, one.old, one.new) for one in told.decisions] == [("mail", 4, 8)]
    assert told.decisions[0].source.endswith(tuple("0123456789"))
    assert [one.causes for one in told.rollups] == [{"start-up": 1, "probe": 1}]


async def test_only_what_is_new_is_written(keep: Moody, learner: Learner) -> None:
    archive = Archive(keep, learner)
    learner.decisions.add("mail", 1, 2, "more")
    learner.learned = {"mail": {"limit": 2}}
    for _ in range(3):
        await archive.flush()
    assert keep.puts == 1
    assert len((await history(keep)).decisions) == 1
    again = Archive(keep, learner)
    await again.load()
    await again.flush()
    assert keep.puts == 1
    assert len((await history(keep)).decisions) == 1


async def test_it_writes_now_and_then_and_at_the_end(keep: Moody, learner: Learner) -> None:
    async def written() -> int:
        return len((await history(keep)).decisions)

    async with Archive(keep, learner, every=0.001):
        learner.decisions.add("mail", 1, 2, "more")
        assert await until(written) == 1
    async with Archive(keep, learner, every=1000):
        learner.decisions.add("mail", 2, 3, "more")
        assert await written() == 1
    assert await written() == 2


async def test_a_keep_that_is_away_is_told_once_and_written_to_later(
    keep: Moody, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    keep.away = True
    archive = Archive(keep, learner)
    with caplog.at_level(logging.WARNING):
        await archive.load()
        learner.decisions.add("mail", 1, 2, "more")
        learner.learned = {"mail": {"limit": 2}}
        await archive.flush()
        learner.decisions.add("mail", 2, 3, "more")
        await archive.flush()
    assert [record.getMessage() for record in caplog.records] == [
        "what is decided and learned cannot be kept now: redis://h does not answer"
    ]
    keep.away = False
    await archive.flush()
    told = await history(keep)
    assert [(one.old, one.new) for one in told.decisions] == [(1, 2), (2, 3)]
    assert await keep.values("learned") == {"mail": b'{"limit":2}'}


async def test_a_keep_that_is_silent_holds_up_nobody(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Moody):
        async def values(self, table: str) -> dict[str, bytes]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return] - never

        async def append(self, log: str, entries: Any, most: int) -> None:
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    async with asyncio.timeout(20), Archive(Silent(), learner):
        learner.decisions.add("mail", 1, 2, "more")


async def test_what_cannot_be_read_or_came_twice_is_left_out(keep: Moody, learner: Learner) -> None:
    one = b'{"name":"mail","old":1,"new":2,"because":"more","at_s":5.0,"source":"h:1"}'
    await keep.append("decisions", [one, b"\xff", b'{"name":3}', one], 10)
    await keep.put("learned", {"mail": b"[]", "shop": b'{"limit":1}'}, 60)
    assert [decided.source for decided in (await history(keep)).decisions] == ["h:1"]
    await Archive(keep, learner).load()
    assert learner.learned == {"shop": {"limit": 1}}


async def test_what_is_kept_is_bounded(keep: Moody, learner: Learner) -> None:
    archive = Archive(keep, learner)
    for size in range(1, 1502):
        learner.decisions.add("mail", size, size + 1, "more")
    learner.learned = {"huge": {"text": "x" * module.LARGEST}}
    await archive.flush()
    assert len((await history(keep)).decisions) == 1000
    assert keep.puts == 0


async def test_it_is_open_as_long_as_anybody_uses_it(keep: Moody, learner: Learner) -> None:
    archive = Archive(keep, learner)
    async with archive:
        async with archive:
            learner.decisions.add("mail", 1, 2, "more")
        assert (await history(keep)).decisions == []
    assert len((await history(keep)).decisions) == 1


async def test_a_place_is_a_url_or_a_path(tmp_path: Path) -> None:
    for place in (str(tmp_path / "a b%20?.db"), f"file://{tmp_path}/c"):
        keep = open_keep(place, "n")
        await keep.append("log", [b"1"], 1)
        assert await keep.last("log", 1) == [b"1"]
    with pytest.raises(UnknownName):
        open_keep("ftp://h", "n")


async def test_who_learns_nothing_is_given_nothing_but_what_it_decides_is_kept(keep: Moody, learner: Learner) -> None:
    async with Archive(keep, learner):
        learner.decisions.add("mail", 1, 2, "more")
    decisions = Decisions()
    async with Archive(keep, Deciding(decisions)):
        decisions.add("workers", 1, 2, "9 wait")
    assert [one.name for one in decisions] == ["workers"]
    assert {one.name for one in (await history(keep)).decisions} == {"mail", "workers"}
