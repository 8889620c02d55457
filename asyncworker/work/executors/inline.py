"""Inline: coroutine functions run on the event loop, with nothing in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class InlineExecutor:
    """Call coroutine functions as they are."""

    def bind(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        return function

    def close(self) -> None:
        """Nothing to give back."""


def open() -> InlineExecutor:
    """Return the executor of coroutine functions."""
    return InlineExecutor()
