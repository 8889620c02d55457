"""What a store is: where results lie that are too large for the broker, under names made of what they are.

Every other file in this folder is one, for the places of one scheme, with ``open(url)`` as below. A result's name is its
SHA-256, so that it is there whole or not at all, and one that was changed is known.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from asyncworker.errors import StoreError

LARGEST = 256 * 2**20
"""Bytes of the largest result that is stored."""
_NAME = re.compile("[0-9a-f]{64}")


class Store(Protocol):
    """Keeps results for a time. Any number of processes may share one. Its errors are `StoreError`."""

    async def put(self, data: bytes, seconds: float) -> str:
        """Keep *data* for so many seconds at least, and return its name. On disk when this returns."""
        ...

    async def get(self, name: str) -> bytes | None:
        """Return what has this name; None where there is nothing of that name any more.

        Raises:
            StoreError: this is no name, what lies there is not what it was, or the place cannot be reached.
        """
        ...

    async def sweep(self) -> int:
        """Forget what has expired; returns how much."""
        ...

    async def close(self) -> None:
        """Give back connections; the next call opens them again."""
        ...


class Module(Protocol):
    """What a file of this folder has."""

    def open(self, url: str) -> Store:
        """Return a store; nothing is opened before it is used.

        Raises:
            SettingsError: a URL that names no place.
        """
        ...


def name_of(data: bytes) -> str:
    """Return the name of a result. Cost: 0.5 ms a MiB."""
    return hashlib.sha256(data).hexdigest()


def check_name(name: str) -> None:
    """Refuse what is no name of a result, such as a path.

    Raises:
        StoreError.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name[:80]!r} is no name of a result")


def checked(name: str, data: bytes) -> bytes:
    """Return *data*, if it is what has this name.

    Raises:
        StoreError.
    """
    if name_of(data) != name:
        raise StoreError(f"the result {name} is not what it was when it was stored")
    return data
