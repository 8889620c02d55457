"""What an executor is: where a task's function runs. Every other file in this folder is one, with ``open()``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Executor(Protocol):
    """Run functions somewhere; the event loop awaits them."""

    def bind(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Return what the event loop calls and awaits instead of *function*; errors come back as they were raised."""
        ...

    def close(self) -> None:
        """Give back threads or processes; what still runs is not waited for. Binding stays valid: it opens again."""
        ...
