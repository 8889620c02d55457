"""Propagator: what lets a trace go on in the jobs that its code enqueues; `asyncworker.tracing` is one.

It puts headers onto jobs and opens spans. `Hooks.propagator` is None unless somebody traces, and then nothing is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

HEADERS: Final = "headers"
"""Option of a job: what travels with it, by name; read as `Context.headers`."""


def headers_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a job with these options; what is no text is left out."""
    headers = options.get(HEADERS)
    if type(headers) is not dict:
        return {}
    return {name: value for name, value in headers.items() if type(name) is str and type(value) is str}


class Propagator(Protocol):
    """Called in the task of who enqueues, or runs; must not raise and must be quick."""

    def sending(self, task: str, queue: str) -> AbstractContextManager[None]:
        """Stand around the enqueueing of calls of a task."""
        ...

    def headers(self, *, joined: bool) -> dict[str, str]:
        """Return what goes with a job enqueued here; *joined*: it waits for others, so that no one of them is its parent."""
        ...

    def place(self) -> Any:
        """Return where in a trace this code runs."""
        ...

    def batch(self, places: Sequence[Any]) -> AbstractContextManager[None]:
        """Stand around one call for several items, each added from its own place."""
        ...
