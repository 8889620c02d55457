"""What a file is known by: whether it is what it was, without reading it through."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

from asyncworker.errors import SourceError

EDGE_BYTES = 2**16
"""How much of a file's beginning and end is looked at."""


def stamp(file: io.BufferedReader) -> tuple[int, int]:
    """Return what changes when a file does: its size in bytes, and when it was written."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def file_version(path: str, label: str) -> str:
    """Return a file's inode, size and time, and what its first and last 64 KiB hash to.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(EDGE_BYTES)
            file.seek(max(0, found.st_size - EDGE_BYTES))
            edges = hashlib.sha256(head + file.read(EDGE_BYTES)).hexdigest()
    except OSError as exc:
        raise SourceError(f"{label} cannot be read: {exc.strerror or exc}") from exc
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{edges}"
