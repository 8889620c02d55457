"""``redis+cluster://host:port,…``: nodes are asked who has the slot of our keys, which all carry one hash tag."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from redis.crc import key_slot

from asyncworker.errors import SettingsError
from asyncworker.queue.addresses.address import MISTAKE, Address, Asked, Refused
from asyncworker.queue.blocking import Blocking


class Cluster(Asked):
    """The node of a cluster that has the slot of *key*."""

    def __init__(self, parts: SplitResult, key: str) -> None:
        if parts.path.strip("/"):
            raise SettingsError(MISTAKE)
        super().__init__(parts, "0")
        self._slot = key_slot(key.encode())

    def _ask(self, patience: float) -> tuple[str, int]:
        error: Exception = ConnectionError(f"nobody has slot {self._slot}")
        for place in self._places:
            try:
                with Blocking(self._at(*place), patience / len(self._places)) as node:
                    said = node.ask("CLUSTER", "SLOTS")
            except (Refused, OSError) as exc:
                error = exc
                continue
            # An empty host is the one that was asked.
            owners = {
                range(first, last + 1): (owner[0].decode() or place[0], owner[1]) for first, last, owner, *_ in said
            }
            known = list(owners.values())
            self._places = [*known, *(other for other in self._places if other not in known)]
            for slots, owner in owners.items():
                if self._slot in slots:
                    return owner
        raise error


def open(url: str, key: str) -> Address:  # the room's word, as in `registry`
    """Return the address of the node that has a key."""
    return Cluster(urlsplit(url), key)
