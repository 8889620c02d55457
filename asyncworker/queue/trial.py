"""Trial: a namespace that is used for a moment, on somebody's own server, and is gone afterwards."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any, Self

from asyncworker.queue.addresses.address import address_of
from asyncworker.queue.script import facts
from asyncworker.queue.wire import ERRORS, Wire, mapped

ANSWER_S = 5.0
LASTING = ("b", "c", "e", "g", "l", "m", "p", "s", "t", "u", "x", "y", "y:b", "z")
"""Our keys without an expiry of their own, but for those of queues."""


class Trial:
    """What is asked of the server beside the work; use as an async context manager, which removes what is left.

    Needs no rights beyond those of a worker. What has an expiry of its own goes by that.
    """

    def __init__(self, url: str, namespace: str, queue: str) -> None:
        tag = f"{{{namespace}:0}}:"
        self._address = address_of(url, tag)
        self._wire = Wire(self._address)
        self._keys = [f"{tag}{name}" for name in (*LASTING, f"d:{queue}", f"i:{queue}")]
        self._keys += [f"{tag}r:{queue}:{level}" for level in range(10)]

    async def version(self) -> str:
        """Return what the server is."""
        about = facts(await self._ask("INFO"))
        return f"Valkey {about['valkey_version']}" if "valkey_version" in about else f"Redis {about['redis_version']}"

    async def commands(self) -> int:
        """Return how many commands the server has run, those in scripts and those of others, too."""
        stats = facts(await self._ask("INFO", "commandstats"))
        return sum(int(stat.partition("calls=")[2].partition(",")[0]) for stat in stats.values())

    async def _ask(self, *words: str) -> Any:
        try:
            return await self._wire(*words, timeout=ANSWER_S)
        except ERRORS as exc:
            raise mapped(exc, self._address) from exc

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._ask("UNLINK", *self._keys)
        finally:
            self._wire.close()


def namespace() -> str:
    """Return a namespace that nobody uses."""
    return f"bench-{secrets.token_hex(6)}"
