"""How many at once, for work in this process: no broker, no queue.

optimizer = AsyncWorkerOptimizer()
pages = await optimizer.optimize_batch_processing(urls, fetch)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal, TypeVar

from asyncworker.errors import BadParameters
from asyncworker.events import Bus
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.adaptive import AdaptiveLimiter
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.usl import UslPolicy
from asyncworker.work.stream import Items, stream

T = TypeVar("T")
R = TypeVar("R")

MOST = 200
"""What ``"auto"`` never goes beyond."""


class AsyncWorkerOptimizer:
    """Run coroutine functions over many items, as many at once as does most work.

    Attributes:
        decisions: what was decided, and why: the last thousand.
        learned: what was found out for each function, by its qualified name. It goes on from there in the next
            call; kept as JSON values, it also does so in the next process.

    Args:
        bus: is told of decisions, too.
        learned: what another optimizer has found out.
    """

    def __init__(self, bus: Bus | None = None, learned: dict[str, dict[str, Any]] | None = None) -> None:
        self.decisions = Decisions(bus)
        self.learned = dict(learned or {})

    def map(
        self,
        func: Callable[[T], Awaitable[R]],
        items: Items[T],
        *,
        concurrency: int | Literal["auto"] = "auto",
        ordered: bool = False,
        on_error: Literal["raise", "collect", "skip"] = "raise",
    ) -> AsyncGenerator[Any, None]:
        """Yield ``await func(item)`` for each item; see `asyncworker.work.stream.stream`.

        With ``"auto"`` the limit is sought while the items are worked off, by `UslPolicy`, at most `MOST`.

        Raises:
            BadParameters: *concurrency* or *on_error* is not one of these.
        """
        if concurrency == "auto":
            return self._sought(func, items, ordered, on_error)
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise BadParameters(f"concurrency must be a number or 'auto', not {concurrency!r}")
        return stream(func, items, concurrency=concurrency, ordered=ordered, on_error=on_error)

    async def optimize_batch_processing(
        self,
        items: Items[T],
        task_func: Callable[[T], Awaitable[R]],
        max_concurrent: int | Literal["auto"] = "auto",
    ) -> list[R]:
        """Return the results of all items, in their order; the first error ends all of it and is raised.

        One item is one call. Raises also what `map` does.
        """
        results = self.map(task_func, items, concurrency=max_concurrent, ordered=True)
        async with contextlib.aclosing(results):
            return [result async for result in results]

    async def _sought(
        self, func: Callable[[T], Awaitable[R]], items: Items[T], ordered: bool, on_error: Any
    ) -> AsyncGenerator[Any, None]:
        name = getattr(func, "__qualname__", type(func).__qualname__)
        policy = UslPolicy(high=MOST)
        with contextlib.suppress(BadParameters):  # what another version has learned is no loss
            if name in self.learned:
                policy.load_state_dict(self.learned[name])
        gate = AdaptiveLimiter(policy, Limiter(policy.limit, name="map", high=MOST), decisions=self.decisions)

        async def passed(item: T) -> R:
            async with gate:
                return await func(item)

        results: AsyncGenerator[Any, None] = stream(passed, items, concurrency=MOST, ordered=ordered, on_error=on_error)
        try:
            async with contextlib.aclosing(results):
                async for result in results:
                    yield result
        finally:
            self.learned[name] = policy.state_dict()
