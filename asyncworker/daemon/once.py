"""Once: a request that comes again under the same key is answered as it was the first time, and does nothing.

Keys are each token's own. Answers are remembered for ten minutes, a thousand of them, in this process.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from asyncworker.daemon.guard import Refused

T = TypeVar("T")
KEPT = 1_000
KEPT_S = 600.0
KEY_CHARS = 128


class Once(Generic[T]):
    """Remember answers by key."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[float, bytes, asyncio.Future[T]]] = OrderedDict()

    async def answer(self, who: str, key: str, digest: bytes, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to this key of theirs; the first time, what *ask* returns. What it raises is not kept.

        Raises:
            Refused: the key is too long, or stood for another request (*digest*), or that is still being answered.
        """
        if not key:
            return await ask()
        if len(key) > KEY_CHARS:
            raise Refused(422, f"an Idempotency-Key has {KEY_CHARS} characters at most")
        self._forget()
        if known := self._known.get((who, key)):
            _, before, answer = known
            if before != digest:
                raise Refused(422, "this Idempotency-Key stood for another request")
            if not answer.done():
                raise Refused(409, "the first request with this Idempotency-Key is still being answered")
            return answer.result()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._known[who, key] = monotonic(), digest, future
        try:
            result = await ask()
        except BaseException:
            self._known.pop((who, key), None)
            future.cancel()
            raise
        future.set_result(result)
        return result

    def _forget(self) -> None:
        old = monotonic() - KEPT_S
        while self._known and (len(self._known) >= KEPT or next(iter(self._known.values()))[0] < old):
            self._known.popitem(last=False)
