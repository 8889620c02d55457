"""What a task is given beside its arguments: parameters whose default is ``depends(provider)``.

    async def connection(ctx: Context) -> AsyncIterator[Connection]:
        async with ctx.resources.acquire() as one:
            yield one

    @engine.task()
    async def store(row: dict, db: Connection = depends(connection)) -> None: ...

Callers do not pass them. Each attempt asks a provider once, however many want it, and gives back what was opened when the
attempt ends, the last first; a provider that yields sees the attempt's error.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from asyncworker.errors import SettingsError
from asyncworker.queue.context import Context
from asyncworker.work.signature import Signature

HIDDEN = ""
"""The name under which a call is handed its `Context` where its function has no parameter for that."""


class Need:
    """A default that stands for what *provider* gives; see `depends`.

    Raises:
        SettingsError: a parameter of the provider that nobody gives.
    """

    __slots__ = ("_context", "_needs", "_open", "provider")

    def __init__(self, provider: Callable[..., Any]) -> None:
        signature = Signature(provider, Context, Need)
        if signature.required:
            raise SettingsError(f"nobody gives {name_of(provider)} its parameter {signature.required[0]!r}")
        self.provider = provider
        self._context, self._needs = signature.given_name, signature.provided
        self._open = asynccontextmanager(provider) if inspect.isasyncgenfunction(provider) else provider

    async def value(self, ctx: Context, held: AsyncExitStack, known: dict[Any, Any]) -> Any:
        """Return what the provider gives to this attempt; *held* gives it back, *known* is what others gave."""
        if self.provider not in known:
            given = await values(self._needs, ctx, held, known)
            if self._context:
                given[self._context] = ctx
            value = self._open(**given)
            if inspect.isawaitable(value):
                value = await value
            if isinstance(value, AbstractAsyncContextManager):
                value = await held.enter_async_context(value)
            known[self.provider] = value
        return known[self.provider]


def depends(provider: Callable[..., Any]) -> Any:
    """Return a default by which a parameter of a task (or of another provider) is given what *provider* gives.

    It is a plain function, a coroutine function, or a generator of one value; where it gives an async context manager
    that is entered. It may take a `Context` and depend on others.

    Raises:
        SettingsError: it has a parameter that nobody gives.
    """
    return Need(provider)


async def values(
    needs: Mapping[str, Need], ctx: Context, held: AsyncExitStack, known: dict[Any, Any]
) -> dict[str, Any]:
    """Return what these parameters are given."""
    return {name: await need.value(ctx, held, known) for name, need in needs.items()}


def supplied(
    call: Callable[..., Awaitable[Any]], needs: Mapping[str, Need], parameter: str
) -> Callable[..., Awaitable[Any]]:
    """Return *call* with what its function needs; it is handed the context as *parameter* (`HIDDEN`: for us alone)."""

    async def with_needs(*args: Any, **kwargs: Any) -> Any:
        ctx: Context = kwargs.pop(HIDDEN) if parameter == HIDDEN else kwargs[parameter]
        async with AsyncExitStack() as held:
            return await call(*args, **kwargs, **await values(needs, ctx, held, {}))

    return with_needs


def name_of(provider: Callable[..., Any]) -> str:
    return getattr(provider, "__qualname__", type(provider).__name__)
