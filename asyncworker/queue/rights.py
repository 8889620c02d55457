"""What a Redis user needs to do all that we do, and nothing else: commands, keys and channels."""

from __future__ import annotations

DIRECT = (
    "fcall",
    "function|load",
    "info",
    "wait",
    "waitaof",
    "subscribe",
    "unsubscribe",
    "ping",
    "eval",
    "client|setname",
    "select",
)
"""Commands that we send; the functions of ``brokers/lua`` and the scripts of the keep run the others, as this user, too.

``select`` is for URLs with a database, ``wait`` and ``waitaof`` are for ``durable=``.
"""
INSIDE = (
    "exists",
    "expire",
    "get",
    "hdel",
    "hexists",
    "hget",
    "hgetall",
    "hincrby",
    "hkeys",
    "hlen",
    "hmget",
    "hset",
    "hsetnx",
    "lindex",
    "llen",
    "lpop",
    "lpos",
    "lpush",
    "lrange",
    "lrem",
    "ltrim",
    "mget",
    "persist",
    "pexpire",
    "pexpireat",
    "publish",
    "rpush",
    "sadd",
    "scard",
    "set",
    "spop",
    "srandmember",
    "srem",
    "time",
    "unlink",
    "zadd",
    "zcard",
    "zpopmin",
    "zrange",
    "zrangebylex",
    "zrangebyscore",
    "zrank",
    "zrem",
    "zremrangebyscore",
    "zrevrange",
    "zscore",
)
CLUSTERED = ("cluster|slots",)
SINCE_7_2 = {"waitaof"}
"""Commands that Redis 7.0 does not know: a user cannot be given them there."""


def key_pattern(namespace: str) -> str:
    return f"{{{namespace}:0}}:*"


def rules(namespace: str, *, known: frozenset[str] | None = None) -> list[str]:
    """Return the rules of ``ACL SETUSER``, but for the user's name and password.

    Args:
        namespace: may be a pattern, for several. known: commands that the server knows, None where nobody asked.
    """
    commands = [
        name
        for name in (*DIRECT, *INSIDE, *CLUSTERED)
        if (name not in SINCE_7_2 if known is None else name.partition("|")[0] in known)
    ]
    pattern = key_pattern(namespace)
    return ["resetkeys", f"~{pattern}", "resetchannels", f"&{pattern}", "-@all", *(f"+{name}" for name in commands)]
