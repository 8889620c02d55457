"""``redis://``, ``rediss://`` and ``unix://``: a keep in Redis, beside the queue and under the same tag.

    <tag>k:l:<log>     list   entries
    <tag>k:t:<table>   hash   name -> value
    <tag>k:u:<table>   zset   name -> until when, ms by the server's clock

All of them have an expiry of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncworker.errors import BrokerDown, KeepError
from asyncworker.queue.addresses.address import Address, address_of
from asyncworker.queue.keeps.keep import LOG_S, MOST_VALUES
from asyncworker.queue.wire import ERRORS, Wire, mapped

ANSWER_S = 2.0

APPEND = """
for at = 3, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[at]) end
redis.call('LTRIM', KEYS[1], -ARGV[1], -1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
TABLE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[at])
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -ARGV[2] - 1)) do gone[#gone + 1] = name end
for _, name in ipairs(gone) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
if last then
  redis.call('PEXPIREAT', KEYS[1], last)
  redis.call('PEXPIREAT', KEYS[2], last)
end
return #ARGV < 3 and redis.call('HGETALL', KEYS[1]) or {}
"""
"""Sets values, lets go of what is over, and returns what there is where none was set."""


class RedisKeep:
    """Hold logs and tables on the server at *address*. Each call is tried again once, on a new connection, where the old one is lost."""

    def __init__(self, address: Address, namespace: str) -> None:
        self._address = address
        self._tag = f"{{{namespace}:0}}:k:"
        self._wire = Wire(address)

    def __repr__(self) -> str:
        return f"<RedisKeep {self._address}>"

    async def append(self, log: str, entries: Sequence[bytes], most: int) -> None:
        await self._ask("EVAL", APPEND, 1, f"{self._tag}l:{log}", most, round(1000 * LOG_S), *entries)

    async def last(self, log: str, most: int) -> list[bytes]:
        found: list[bytes] = await self._ask("LRANGE", f"{self._tag}l:{log}", -most, -1)
        return found

    async def put(self, table: str, values: Mapping[str, bytes], ttl: float) -> None:
        words = [word for name, value in values.items() for word in (name, value)]
        if words:
            await self._table(table, round(1000 * ttl), *words)

    async def values(self, table: str) -> dict[str, bytes]:
        # Mostly there is none, and workers that idle ask again and again.
        if not await self._ask("EXISTS", f"{self._tag}t:{table}"):
            return {}
        words = iter(await self._table(table, 0))
        return {name.decode(): value for name, value in zip(words, words, strict=True)}

    async def drop(self, table: str, name: str) -> None:
        await self._ask("HDEL", f"{self._tag}t:{table}", name)  # what is in the other key alone goes in its time

    async def close(self) -> None:
        self._wire.close()

    async def _table(self, table: str, ttl_ms: int, *words: Any) -> list[bytes]:
        keys = (f"{self._tag}t:{table}", f"{self._tag}u:{table}")
        found: list[bytes] = await self._ask("EVAL", TABLE, 2, *keys, ttl_ms, MOST_VALUES, *words)
        return found

    async def _ask(self, *command: Any, again: bool = True) -> Any:
        try:
            return await self._wire(*command, timeout=ANSWER_S)
        except ERRORS as exc:
            error = mapped(exc, self._address)
            self._wire.renew()  # the server may be another by now
            lost = isinstance(error, BrokerDown) and not isinstance(exc, TimeoutError)
            if not (again and lost):
                raise KeepError(str(error)) from exc
        return await self._ask(*command, again=False)


def open(url: str, *, namespace: str) -> RedisKeep:
    """Return the keep on this server; nothing is connected before it is used.

    Raises:
        SettingsError: a URL that cannot be used.
    """
    return RedisKeep(address_of(url, f"{{{namespace}:0}}"), namespace)
