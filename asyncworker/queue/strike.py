"""Strikes: tasks, or calls of them with certain arguments, that nobody is to start until the strike is lifted.

They lie in the broker and hold for the fleet; workers look for new ones every few seconds. A job that is struck is put off
and spends no attempt; what runs goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.queue.codec import pack, unpack
from asyncworker.work.signature import Signature

AGAIN_S = 10.0
"""How long a struck job is put off; so long after a strike is lifted the last of them has begun."""


class Strike(msgspec.Struct, frozen=True):
    """Calls of *task* that have these *arguments* (by name; none: all calls)."""

    task: str
    arguments: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What it is known by, and told as."""
        said = (
            f"{name}={msgspec.json.encode(value, enc_hook=str).decode()}"
            for name, value in sorted(self.arguments.items())
        )
        return " ".join((self.task, *said))

    def pack(self) -> bytes:
        """Return it as it lies in the broker.

        Raises:
            BadParameters: an argument that cannot travel.
        """
        return pack([self.task, self.arguments])

    def hits(self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Return whether a call is meant."""
        try:
            return all(signature.value(name, args, kwargs) == value for name, value in self.arguments.items())
        except (BadParameters, KeyError):  # it has no such argument
            return False


def read_strikes(texts: Iterable[bytes]) -> dict[str, list[Strike]]:
    """Return the strikes of each task; what cannot be read, another version wrote for others."""
    found: dict[str, list[Strike]] = {}
    for text in texts:
        try:
            strike = Strike(*msgspec.convert(unpack(text), tuple[str, dict[str, Any]]))
        except (DecodeError, msgspec.ValidationError):
            continue
        found.setdefault(strike.task, []).append(strike)
    return found
