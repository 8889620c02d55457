"""Texts that come from users, as others may see them: bounded, and without the secrets that can be known as such."""

from __future__ import annotations

from typing import Any

import msgspec

from asyncworker.job import JobStatus
from asyncworker.secret import mask_text

SHOWN = 4_000
LARGEST = 256 * 1024
"""Bytes of what is put into words at all."""


def bounded(text: str) -> str:
    """Return the first of *text*, with secrets masked."""
    masked = mask_text(text[: 2 * SHOWN])  # cut twice, so that no half of a secret is left that nobody knows as one
    return masked if len(masked) <= SHOWN else f"{masked[:SHOWN]}…"


def shown_text(value: Any, size: int) -> str:
    """Return a value as JSON; *size* is how many bytes it had when it travelled."""
    if size > LARGEST:
        return f"({size:,} bytes)"
    try:
        return bounded(msgspec.json.encode(value, enc_hook=str).decode())
    except (TypeError, ValueError, RecursionError):
        return "(no JSON)"


def shown_error(status: JobStatus) -> JobStatus:
    return msgspec.structs.replace(status, error=bounded(status.error)) if status.error else status
