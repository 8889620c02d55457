"""Fixtures for the tests of those who use asyncworker; pytest finds them by itself.

| fixture         | gives                                                                                         |
|-----------------|-----------------------------------------------------------------------------------------------|
| `frozen_clock`  | a clock that stands still until ``advance(seconds)``                                          |
| `memory_engine` | a function: an engine over memory:// by that clock; or one's own engine, put there for a test |
| `fail_next`     | a function: ``fail_next(task, error)`` lets the next attempts of a task fail                  |

    async def test_a_mail_that_bounces_is_sent_again(memory_engine, frozen_clock, fail_next):
        async with memory_engine(shop.engine) as engine:
            await shop.send.enqueue("a@example.org")
            fail_next(shop.send, ConnectionError("bounced"))
            await engine.drain()            # one attempt; what is to be repeated waits for its time
            frozen_clock.advance(600)
            assert (await engine.drain()).succeeded == 1

The clock of the engine stands still, too: timeouts, delays and leases pass when it is advanced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

import asyncworker

LEASE_S = 1e9
"""Time that is advanced at one stroke must not look like a worker that fell silent."""


class FrozenClock:
    """A clock (`asyncworker.clock.Clock`) that stands still; both its times are moved together."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def monotonic(self) -> float:
        return self._monotonic

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


@pytest.fixture
def frozen_clock() -> FrozenClock:
    """Give a clock that stands still until it is advanced."""
    return FrozenClock()


@pytest.fixture
def memory_engine(frozen_clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., asyncworker.Engine]:
    """Give a function that makes an engine over memory://, or lets one's own (not yet in use) be that for a test."""

    def make(engine: asyncworker.Engine | None = None, **options: Any) -> asyncworker.Engine:
        if engine is None:
            return asyncworker.Engine(lease=LEASE_S, clock=frozen_clock, **options)
        for name, value in {"url": "memory://", "lease": LEASE_S, "clock": frozen_clock, **options}.items():
            monkeypatch.setattr(engine, name, value)
        return engine

    return make


@pytest.fixture
def fail_next() -> Iterator[Callable[..., None]]:
    """Give a function that lets the next *times* attempts of a task raise *error* instead of running."""
    with ExitStack() as undo:

        def fail(task: asyncworker.Task[Any, Any], error: BaseException, times: int = 1) -> None:
            definition = task.definition
            call = definition.call
            left = [error] * times

            async def failing(*args: Any, **kwargs: Any) -> Any:
                if left:
                    raise left.pop()
                return await call(*args, **kwargs)

            msgspec.structs.force_setattr(definition, "call", failing)
            undo.callback(msgspec.structs.force_setattr, definition, "call", call)

        yield fail
