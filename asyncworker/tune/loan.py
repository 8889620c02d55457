"""What `acquire` of a pool returns: to be entered, or awaited and given back by hand."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any


class Loan:
    """``async with`` it, or ``await`` it and release what it gave.

    Args:
        lend: waits for the thing. take_back: is given it, and whether its use went well; None where it does not say.
    """

    __slots__ = ("_lend", "_take_back", "_thing")

    def __init__(
        self, lend: Callable[[], Coroutine[Any, Any, Any]], take_back: Callable[[Any, bool | None], Awaitable[object]]
    ) -> None:
        self._lend, self._take_back = lend, take_back
        self._thing: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._lend().__await__()

    async def __aenter__(self) -> Any:
        self._thing = await self._lend()
        return self._thing

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        # What timed out or lost its connection is bad news of the server; other errors are the caller's own affair.
        good = None if isinstance(error, CancelledError) else not isinstance(error, OSError)
        await self._take_back(self._thing, good)
