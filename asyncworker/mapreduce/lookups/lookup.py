"""What a look-up is: something that knows more about a key.

Every other file in this folder is named after a URL scheme (``file`` for paths) and has ``open(url, key, timeout_s)``,
which checks the form of the URL and touches nothing yet. Only `Memo` asks look-ups: it remembers what they said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Lookup(Protocol):
    """Answers by key. Keys are text: a number is its digits."""

    label: str
    """For people: secrets masked."""
    batch: int
    """How many keys it likes to be asked for at once, at most."""

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return what is known of up to `batch` keys; nothing is known of those that are not in the answer.

        Raises:
            SourceError: it cannot be asked, or gives no answer that can be used. Shows no key.
        """
        ...

    async def close(self) -> None:
        """Give back files and connections; what is asked afterwards opens them anew."""
        ...
