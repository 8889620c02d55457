"""Patience: a job that is cancelled is asked to stop, asked again, and in the end given up.

It has a quarter of its grace to itself, for what it may have to clean up; then it is asked anew whenever the time since
the first asking has doubled. Nobody can make a coroutine stop that swallows its cancellation: its slot is given back,
and what it says later does not count.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

CANCEL_GRACE_S = 10.0
_OURS = str(Path(__file__).parent)


class Patience:
    """What is left to a job that was asked to stop at *now*, by the monotonic clock."""

    __slots__ = ("_again", "_asked", "_until")

    def __init__(self, now: float, grace_s: float) -> None:
        self._asked = now
        self._again = now + grace_s / 4
        self._until = now + grace_s

    def is_over(self, now: float) -> bool:
        """Return whether it is to be given up."""
        return now >= self._until

    def asks(self, now: float) -> bool:
        """Return whether it is to be asked again; once for each time."""
        if now < self._again:
            return False
        self._again = 2 * now - self._asked
        return True


def stack_of(task: asyncio.Task[Any]) -> tuple[str, ...]:
    """Return where a suspended task stands, as ``file:line in function``, the outermost call first; ours are left out."""
    places = []
    inner: Any = task.get_coro()
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_OURS):
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return tuple(places)
