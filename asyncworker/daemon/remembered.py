"""Remembered: what many ask for within seconds is asked once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What a coroutine function returned, for some seconds."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self._until = 0.0
        self._value: T

    async def get(self) -> T:
        if monotonic() >= self._until:
            self._value = await self._ask()
            self._until = monotonic() + self._seconds
        return self._value
