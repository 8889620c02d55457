"""Checkup: looks a Redis over before jobs depend on it, and says of each fault how to mend it. Changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from asyncworker.errors import BrokerDown
from asyncworker.finding import Finding, bad, fine, note
from asyncworker.queue.addresses.address import address_of
from asyncworker.queue.rights import key_pattern, rules
from asyncworker.queue.script import OLDEST, facts
from asyncworker.queue.wire import ERRORS, Wire, mapped

ANSWER_S = 5.0
PINGS = 20
SLOW_S, TOO_SLOW_S = 0.005, 0.1
SKEWED_S, TOO_SKEWED_S = 1.0, 60.0
FULL, TOO_FULL = 0.8, 0.95
LOOKED_AT = 20_000
"""Keys whose sizes are asked for, at most: enough to see who takes the memory."""
A_PAGE = 500
KINDS = {
    "e": "jobs that are not over",
    "r": "queues: ids that are ready",
    "d": "queues: ids that are delayed",
    "o": "results",
    "f": "failures",
    "z": "dead letters",
    "a": "in the hands of workers",
    "j": "parents and their children",
    "h": "what jobs wait for",
    "n": "who waits for jobs",
    "x": "notes on jobs",
    "y": "lists for searching",
    "k": "decisions, what was learned",
}
CVE = ((7, 2), (8, 6, 3))
"""Redis from, and before: CVE-2026-23479, a use after free when blocked clients are woken."""

Ask = Callable[..., Any]


async def look(url: str, namespace: str) -> AsyncIterator[Finding]:
    """Yield what is to be said of the Redis at *url*; the first that makes the others senseless is the last.

    Raises:
        SettingsError: a URL that cannot be used.
    """
    address = address_of(url, f"{{{namespace}:0}}")
    wire = Wire(address)

    async def ask(*words: Any) -> Any:
        return await wire(*words, timeout=ANSWER_S)

    try:
        try:
            about = facts(await ask("INFO"))
        except ERRORS as exc:
            told = mapped(exc, address)
            if isinstance(told, BrokerDown):
                yield bad("redis", str(told), f"start it, or give its address by --broker (now: {address})")
            else:
                yield bad("redis", str(told), "give a user and password that it knows, and the right to +info")
            return
        yield fine("redis", f"{address} answers")
        for finding in _told(about):
            yield finding
        for later in (_latency(ask), _clock(ask), _rights(ask, namespace), _memory(ask, namespace)):
            async for finding in later:
                yield finding
    finally:
        wire.close()


def _told(about: Mapping[str, str]) -> Iterator[Finding]:
    """Say what INFO tells."""
    yield _version(about)
    yield _eviction(about)
    yield _room(about)
    yield _persistence(about)
    if about.get("role") != "master":
        yield bad("role", "it is a replica and takes no writes", "give the master's address, or redis+sentinel://")
    clients, most = int(about.get("connected_clients", 0)), int(about.get("maxclients", 0)) or 10_000
    said = f"{clients} of {most} connections"
    if clients > FULL * most:
        yield note("connections", said, "raise maxclients: each worker takes up to five")
    else:
        yield fine("connections", said)


def _version(about: Mapping[str, str]) -> Finding:
    version, valkey = about.get("redis_version", "0"), about.get("valkey_version")
    said = f"Valkey {valkey}" if valkey else f"Redis {version}"
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if numbers < (OLDEST,):
        return bad("version", said, "Redis 7.0 or Valkey 7.2 or newer is needed")
    if not valkey and CVE[0] <= numbers < CVE[1]:
        return note("version", f"{said} has CVE-2026-23479", "update it to 8.6.3 or newer")
    return fine("version", said)


def _eviction(about: Mapping[str, str]) -> Finding:
    policy, most = about.get("maxmemory_policy", "noeviction"), int(about.get("maxmemory", 0))
    if policy == "noeviction":
        return fine("eviction", policy)
    mend = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
    if most:
        return bad("eviction", f"it may evict jobs ({policy})", mend)
    return note("eviction", f"{policy}: it will evict jobs once maxmemory is set", mend)


def _room(about: Mapping[str, str]) -> Finding:
    used = int(about.get("used_memory", 0))
    most = int(about.get("maxmemory", 0)) or int(about.get("total_system_memory", 0))
    share = used / most if most else 0.0
    said = f"{_mb(used)} of {_mb(most)} used" if most else f"{_mb(used)} used"
    if share > TOO_FULL:
        return bad("memory", said, "free or add memory: producers get QueueFull when it is full")
    if share > FULL:
        return note("memory", said, "see below what takes it; lower result_ttl=, or add memory")
    return fine("memory", said)


def _persistence(about: Mapping[str, str]) -> Finding:
    written = [about.get(name, "ok") for name in ("aof_last_write_status", "rdb_last_bgsave_status")]
    if written != ["ok", "ok"]:
        return bad(
            "persistence", "it cannot write to its disk", "make room there: it refuses writes (MISCONF) until then"
        )
    if about.get("aof_enabled") == "1":
        return fine("persistence", "append-only file")
    return note(
        "persistence",
        "no append-only file: jobs are lost when the server dies",
        "set appendonly yes, or use the outbox",
    )


async def _latency(ask: Ask) -> AsyncIterator[Finding]:
    took = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await ask("PING")
        took.append(time.perf_counter() - began)
    took.sort()
    median, worst = took[len(took) // 2], took[-1]
    said = f"{1000 * median:.2f} ms for a round trip (median of {PINGS}), {1000 * worst:.2f} ms at worst"
    mend = "bring workers and server nearer to each other; look for slow scripts of others (SLOWLOG GET)"
    if median > TOO_SLOW_S:
        yield bad("latency", said, mend)
    elif median > SLOW_S:
        yield note("latency", said, mend)
    else:
        yield fine("latency", said)


async def _clock(ask: Ask) -> AsyncIterator[Finding]:
    before = time.time()
    seconds, micros = await ask("TIME")
    skew = int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2
    said = f"the server's is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} ours"
    mend = "run NTP on both: no lease depends on it, dates, deadlines and expires do"
    if abs(skew) > TOO_SKEWED_S:
        yield bad("clock", said, mend)
    elif abs(skew) > SKEWED_S:
        yield note("clock", said, mend)
    else:
        yield fine("clock", said)


async def _rights(ask: Ask, namespace: str) -> AsyncIterator[Finding]:
    """Ask the server what it would let this user do, where it tells."""
    mend = "asyncworker doctor --acl prints the user that is needed"
    try:
        user = (await ask("ACL", "WHOAMI")).decode()
        key = key_pattern(namespace).replace("*", "b")
        lacking = [name for name in _tried(namespace) if not await _may(ask, user, name, key)]
    except ERRORS as exc:
        yield fine("rights", f"this user may not be asked about ({type(exc).__name__}), which workers do not need")
        return
    if lacking:
        yield bad("rights", f"the user {user} may not {', '.join(lacking)}", mend)
    elif user == "default":
        yield note("rights", "the user is default, who may do all there is", mend)
    else:
        yield fine("rights", f"the user {user} may do what is needed")


def _tried(namespace: str) -> list[str]:
    return [rule[1:] for rule in rules(namespace) if rule.startswith("+") and rule != "+cluster|slots"]


async def _may(ask: Ask, user: str, name: str, key: str) -> bool:
    """Return whether a user may use a command. One that is asked with too few arguments is an error of its own."""
    words = name.upper().split("|")
    for given in (words, [*words, key], [*words, key, "0"], [*words, key, "0", "0"], [*words, "x", "1", key]):
        try:
            answer = await ask("ACL", "DRYRUN", user, *given)
        except ERRORS as exc:
            if "number of arguments" in str(exc) or "Unknown" in str(exc) or "not found" in str(exc):
                continue
            raise
        if answer == b"OK":
            return True
        if b"command" in answer:
            return False
    return True


async def _memory(ask: Ask, namespace: str) -> AsyncIterator[Finding]:
    """Say which of our keys take the memory, and how many are not ours."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    tag = key_pattern(namespace)[:-1].encode()
    cursor, looked = b"0", 0
    try:
        everything = await ask("DBSIZE")
        while True:
            cursor, keys = await ask("SCAN", cursor, "MATCH", tag.replace(b"*", b"\\*") + b"*", "COUNT", A_PAGE)
            found = await asyncio.gather(*(ask("MEMORY", "USAGE", key) for key in keys))
            for key, size in zip(keys, found, strict=True):
                kind = key[len(tag) : len(tag) + 1].decode()
                sizes[kind] += size or 0
                counts[kind] += 1
            looked += len(keys)
            if cursor == b"0" or looked >= LOOKED_AT:
                break
    except ERRORS as exc:
        yield fine("keys", f"their sizes cannot be asked for ({type(exc).__name__}), which workers do not need")
        return
    whole = "" if cursor == b"0" else f" (the first {looked:,} that were met)"
    yield fine("keys", f"{looked:,} of {everything:,} keys are {namespace}'s, {_mb(sizes.total())}{whole}")
    for kind, size in sizes.most_common(5):
        yield fine("keys", f"{_mb(size)} in {counts[kind]:,}: {KINDS.get(kind, 'counters and switches')}")


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
