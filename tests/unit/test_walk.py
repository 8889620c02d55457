"""`Engine.jobs`: walks through jobs as users take them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters
from asyncworker.job import walk
from asyncworker.queue.codec import Ids
from asyncworker.queue.job import Found, State
from asyncworker.queue.search import Page, Query


class Pages:
    """Somebody who has two pages, of which the second tells one job again."""

    def __init__(self) -> None:
        new = Ids()
        self.ids = [new() for _ in range(3)]

    async def jobs(self, query: Query, cursor: str = "", limit: int = 0) -> Page:
        some = self.ids[:2] if not cursor else self.ids[1:]
        return Page([Found(job_id, State.RETRYING) for job_id in some], "" if cursor else "more")


async def test_a_job_that_is_met_twice_is_told_once() -> None:
    pages = Pages()
    assert [status.id async for status in walk(pages, Query())] == pages.ids


@pytest.mark.parametrize("keys", [(), ("a-key-that-is-long-enough-for-this",)])
async def test_jobs_by_task_state_and_time_signed_or_not(redis_url: str, namespace: str, keys: tuple[str, ...]) -> None:
    engine = Engine(redis_url, namespace=namespace, signing_keys=keys)
    async with engine:
        first, second = await engine.enqueue("a", 1), await engine.enqueue("b", 2)

        async def found(*states: str, **more: object) -> list[tuple[str, str]]:
            return [(one.id, one.task) async for one in engine.jobs(states, **more)]  # type: ignore[arg-type]

        assert await found() == [(first.id, "a"), (second.id, "b")]
        assert await found("queued", task="b") == [(second.id, "b")]
        assert await found("failed") == []
        now = datetime.now(UTC)
        assert await found(until=now - timedelta(hours=1)) == await found(since=now.timestamp() + 60) == []
        assert len(await found(since=now - timedelta(hours=1), until=now + timedelta(hours=1))) == 2
        with pytest.raises(BadParameters, match="failde"):
            await found("failde")
