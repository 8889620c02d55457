"""Hooks: users' functions that are called at the turning points of a worker and of each attempt.

They are told, not asked: what one raises is logged and changes nothing, but that ``before_task`` may raise `Retry`,
`Snooze` or `Discard` to steer its job. A hook is a plain function, which must return at once, or a coroutine function.
A middleware is no hook: it stands around the attempt, and its word counts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar

from asyncworker.errors import Signal
from asyncworker.queue.context import Context
from asyncworker.queue.propagation import Propagator

log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])
Attempted = Callable[[], Awaitable[Any]]
Middleware = Callable[[Context, Attempted], Awaitable[Any]]


class Hooks:
    """The hooks of one engine, each list in the order of registration; every method is a decorator.

    A job's hooks run in the asyncio task of its attempt, so they see its context variables; those after it neither
    hold up its result nor count as running. A worker that dies tells nothing: what has to happen belongs into a task.
    """

    def __init__(self) -> None:
        self.used = False  # whether an attempt's hooks are to be looked at at all
        self.follow = False  # whether anybody wants to know how attempts ended
        self.start: list[Callable[[], Any]] = []
        self.stop: list[Callable[[], Any]] = []
        self.before: list[Callable[[Context], Any]] = []
        self.after: list[Callable[[Context, BaseException | None], Any]] = []
        self.success: list[Callable[[Context, Any], Any]] = []
        self.failure: list[Callable[[Context, BaseException], Any]] = []
        self.around: list[Middleware] = []
        self.propagator: Propagator | None = None

    def on_start(self, hook: H) -> H:
        """Call ``hook()`` when a worker starts, before it claims anything."""
        self.start.append(hook)
        return hook

    def on_stop(self, hook: H) -> H:
        """Call ``hook()`` when a worker has stopped."""
        self.stop.append(hook)
        return hook

    def before_task(self, hook: H) -> H:
        """Call ``hook(ctx)`` before each attempt, within its timeout; it may raise `Retry`, `Snooze`, `Discard`."""
        self.before.append(hook)
        self.used = True
        return hook

    def after_task(self, hook: H) -> H:
        """Call ``hook(ctx, error)`` after each attempt; *error* is None where it gave a value."""
        self.after.append(hook)
        self.used = self.follow = True
        return hook

    def on_success(self, hook: H) -> H:
        """Call ``hook(ctx, value)`` once a job has succeeded."""
        self.success.append(hook)
        self.used = self.follow = True
        return hook

    def on_failure(self, hook: H) -> H:
        """Call ``hook(ctx, error)`` once a job has failed for good in a worker's hands."""
        self.failure.append(hook)
        self.used = self.follow = True
        return hook

    def middleware(self, around: H) -> H:
        """Run ``await around(ctx, call)`` in place of each attempt, which it makes by ``await call()``.

        What it returns or raises is what the attempt did. The first one registered is the outermost.
        """
        self.around.append(around)
        self.used = True
        return around

    def wrapped(self, ctx: Context, call: Attempted) -> Awaitable[Any]:
        """Return an attempt with all that is around it."""
        for around in reversed(self.around):
            call = partial(around, ctx, call)
        return call()

    async def steer(self, ctx: Context) -> None:
        """Call what comes before an attempt.

        Raises:
            Signal: a hook's word on what becomes of the job.
        """
        await self._call(self.before, ctx, passed=Signal)

    async def tell(self, hooks: Sequence[Callable[..., Any]], *about: Any) -> None:
        """Call *hooks*; never raises but when cancelled."""
        await self._call(hooks, *about)

    async def _call(self, hooks: Sequence[Callable[..., Any]], *about: Any, passed: Any = ()) -> None:
        for hook in hooks:
            try:
                answer = hook(*about)
                if isawaitable(answer):
                    await answer
            except passed:
                raise
            except Exception:
                log.exception("the hook %s failed", getattr(hook, "__qualname__", hook))
