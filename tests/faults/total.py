"""The sum of as many ones as there are items: what clients and workers of the scenarios both know."""

from __future__ import annotations

from typing import Any

HOLD = "hold"
"""While a file of this name lies beside the ledgers, whoever reduces waits."""


async def one(item: Any, params: Any) -> int:
    return 1


class Sum:
    def initial(self, params: Any) -> int:
        return 0

    def fold(self, acc: int, value: int) -> int:
        return acc + value

    def merge(self, left: int, right: int) -> int:
        return left + right

    def finish(self, acc: int, params: Any) -> int:
        return acc
