"""Whose a ``unique`` key is: the same word of another task, for another queue or from another tenant is another key.

So nobody can find, by guessing a word, a job that is none of his own, nor keep one from being enqueued.
"""

from __future__ import annotations

from typing import Any

import msgspec


def scoped(options: dict[str, Any], task: str, queue: str) -> dict[str, Any]:
    """Return the options with which a job travels: its key names queue and task, and then what the caller said."""
    unique = options.get("unique")
    if unique is None:
        return options
    said = (unique,) if isinstance(unique, str) else unique
    return {**options, "unique": msgspec.json.encode((queue, task, *said)).decode()}
