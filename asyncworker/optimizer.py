"""How many at once, for work in this process: no broker, no queue.

optimizer = AsyncWorkerOptimizer()
pages = await optimizer.optimize_batch_processing(urls, fetch)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from asyncworker.errors import BadParameters
from asyncworker.events import Bus
from asyncworker.queue.archive import Archive, open_keep
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.actuators.pool import ResourcePool
from asyncworker.tune.adaptive import AdaptiveLimiter
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.policy import ScalerPolicy
from asyncworker.tune.policies.usl import UslPolicy
from asyncworker.work.balance import Balance, balance_score, distribute
from asyncworker.work.pipeline import Pipeline, Stage
from asyncworker.work.stream import Items, gathered, stream

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)

MOST = 200
"""What ``"auto"`` never goes beyond."""


class AsyncWorkerOptimizer:
    """Run coroutine functions over many items, as many at once as does most work.

    Attributes:
        decisions: what was decided, and why: the last thousand.

    Args:
        bus: is told of decisions, too.
        learned: what another optimizer has found out.
        keep: a file (or a URL) where both are kept while it is used as an async context manager: the next one goes on.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        learned: dict[str, dict[str, Any]] | None = None,
        keep: str | None = None,
    ) -> None:
        self.decisions = Decisions(bus)
        self._keep = open_keep(keep, "optimizer") if keep else None
        self._archive = Archive(self._keep, self) if self._keep else None
        self._learned = dict(learned or {})
        self._policies: dict[str, UslPolicy] = {}

    async def __aenter__(self) -> Self:
        if self._archive is not None:
            await self._archive.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._archive is not None:
            await self._archive.__aexit__(kind, error, traceback)
        if self._keep is not None:
            await self._keep.close()

    @property
    def learned(self) -> dict[str, dict[str, Any]]:
        """What was found out for each function, by its qualified name.

        It goes on from there in the next call; kept as JSON values, it also does so in the next process.
        """
        return self._learned | {name: policy.state_dict() for name, policy in self._policies.items()}

    def remember(self, learned: Mapping[str, dict[str, Any]]) -> None:
        """Go on from what was learned before, where nothing was learned here."""
        self._learned = {**learned, **self._learned}

    def policy(self, name: str, /, **given: Any) -> UslPolicy:
        """Return a policy that goes on from what was learned under this name, and whose learning is kept under it.

        Args:
            given: as for `UslPolicy`.
        """
        policy = UslPolicy(**({"high": MOST} | given))
        with contextlib.suppress(BadParameters):  # what another version has learned is no loss
            if (learned := self.learned.get(name)) is not None:
                policy.load_state_dict(learned)
        self._policies[name] = policy
        return policy

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
            func, limiter = self._sought(func)
            return stream(func, items, concurrency=limiter, ordered=ordered, on_error=on_error)
        return stream(func, items, concurrency=_number(concurrency), ordered=ordered, on_error=on_error)

    async def optimize_batch_processing(
        self,
        items: Items[T],
        task_func: Callable[[T], Awaitable[R]],
        batch_size: int | Literal["auto"] = "auto",
        max_concurrent: int | Literal["auto"] = "auto",
    ) -> list[R]:
        """Return the results of all items, in their order; the first error ends all of it and is raised.

        Args:
            items: as for `map`. task_func: awaited once an item.
            batch_size: at most so many items are under way, too; ``"auto"``: no bound of its own. Calls that take many
                items at once are `AsyncBatchProcessor`'s.
            max_concurrent: how many items are under way.

        Raises:
            BadParameters: one of the two is neither a number, 1 or more, nor ``"auto"``.
        """
        bounds = [_number(bound) for bound in (batch_size, max_concurrent) if bound != "auto"]
        if bounds:
            return await gathered(task_func, items, concurrency=min(bounds))
        task_func, limiter = self._sought(task_func)
        return await gathered(task_func, items, concurrency=limiter)

    def setup_pipeline(self, *stages: Stage | Callable[[Any], Any], workers: int = 100) -> Pipeline:
        """Return stages in a row; how many items each works on at once is found."""
        return Pipeline(*stages, workers=workers)

    def manage_resource_pool(
        self, min_workers: int = 1, max_workers: int = 10, policy: ScalerPolicy | str | None = "levels"
    ) -> ResourcePool:
        """Return a pool of worker coroutines whose size the policy says; its decisions are noted here."""
        return ResourcePool(min_workers, max_workers, policy, decisions=self.decisions)

    def distribute_tasks(self, tasks: Iterable[T], workers: Iterable[Mapping[str, Any] | K]) -> dict[K, list[T]]:
        """Return each worker's tasks; see `asyncworker.work.balance.distribute`."""
        return distribute(tasks, workers)

    def calculate_balance_score(
        self,
        distribution: Mapping[K, Iterable[T] | float],
        workers: Iterable[Mapping[str, Any] | K] | None = None,
    ) -> Balance:
        """Return how even a distribution is; see `asyncworker.work.balance.balance_score`."""
        return balance_score(distribution, workers)

    def _sought(self, func: Callable[[T], Awaitable[R]]) -> tuple[Callable[[T], Awaitable[R]], Limiter]:
        """Return the function with each call timed, and the limiter that is so moved."""
        policy = self.policy(getattr(func, "__qualname__", type(func).__qualname__))
        gate = AdaptiveLimiter(policy, Limiter(policy.limit, name="map", high=MOST), decisions=self.decisions)
        return gate.timed(func), gate.limiter


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadParameters(f"how many at once is a number or 'auto', not {value!r}")
    return value
