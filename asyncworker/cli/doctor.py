"""``asyncworker doctor``: looks over what asyncworker stands on, and says how to mend it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import metadata

import click
import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.table import show_table
from asyncworker.cli.target import LONELY, engine_for
from asyncworker.engine import Engine
from asyncworker.errors import AsyncWorkerError
from asyncworker.finding import Finding, Level, bad, fine, note
from asyncworker.mapreduce import checkup as postgresql
from asyncworker.queue import checkup as redis
from asyncworker.queue.rights import rules
from asyncworker.queue.server import find_binary
from asyncworker.secret import mask_url
from asyncworker.share.place import orphans, root

FAST = {"uvloop": "a faster event loop", "hiredis": "a faster parser", "pyre2": "patterns in rules"}
FILES = 4096
STYLES = {Level.FINE: "green", Level.NOTE: "yellow", Level.BAD: "bold red"}


async def body(call: Call) -> int:
    """Look over this machine, and the broker and database that are set; say of each fault how to mend it.

    TARGET is your engine, as for 'asyncworker worker', or a broker's URL. Nothing is changed anywhere.
    With --acl: print the Redis user that workers and clients need, and no more. Exit code 1: something is wrong.
    """
    if "://" in (target := call.settings.app or ""):
        call.settings = msgspec.structs.replace(call.settings, app=None, broker=target)
    engine = engine_for(call)
    if call.settings.acl:
        return _show_acl(call, engine.namespace)
    found = [finding async for finding in look(engine)]
    wrong = any(finding.level is Level.BAD for finding in found)
    if call.settings.json:
        call.document({"wrong": wrong, "findings": found})
        return int(wrong)
    rows = [(one.level, one.about, one.said, one.mend) for one in found]
    show_table(call, ("", "what", "seen", "to mend it"), rows, styles=[STYLES[one.level] for one in found])
    counts = {level: sum(1 for one in found if one.level is level) for level in Level}
    call.say(f"{counts[Level.BAD]} wrong, {counts[Level.NOTE]} to think about, {counts[Level.FINE]} fine")
    return int(wrong)


async def look(engine: Engine) -> AsyncIterator[Finding]:
    """Yield all findings."""
    for finding in (*machine(), *shared()):
        yield finding
    if engine.url in LONELY or engine.url.startswith("embedded://"):
        yield _alone(engine.url)
    else:
        sound = True
        async for finding in redis.look(engine.url, engine.namespace):
            sound = sound and finding.level is not Level.BAD
            yield finding
        if sound:
            async for finding in _fleet(engine):
                yield finding
    for url in dict.fromkeys(filter(None, (engine.database, engine.outbox))):
        async for finding in postgresql.look(url):
            yield finding


def machine() -> Iterator[Finding]:
    """Say what runs us."""
    said = f"{platform.python_implementation()} {platform.python_version()}"
    yield fine("python", said)
    for name, what in FAST.items():
        try:
            yield fine(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield note(name, f"is not here: {what}", f"pip install {name}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FILES:
        mend = f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}, or LimitNOFILE= in its systemd unit"
        yield note("open files", f"{soft} at most", mend)
    else:
        yield fine("open files", f"{soft} at most" if soft > 0 else "any number")
    zone = os.environ.get("TZ", "")
    yield fine("machine", f"{os.cpu_count()} processors, {sys.platform}" + (f", TZ={zone}" if zone else ""))


def shared() -> Iterator[Finding]:
    """Say what lies in shared memory."""
    place = root()
    if not os.access(place, os.W_OK):
        yield bad("shared memory", f"{place} cannot be written to", "mount a tmpfs there, or set TMPDIR")
        return
    left = orphans()
    if left:
        names = " ".join(str(path) for path in left[:3])
        yield note(
            "shared memory",
            f"{len(left)} left by processes that died",
            f"the next start removes them; now: rm -r {names}",
        )
    else:
        yield fine("shared memory", f"nothing is left in {place}")


def _alone(url: str) -> Finding:
    mend = "for several processes or machines give --broker redis://…"
    if not url.startswith("embedded://"):
        return note("broker", f"{url} lives in one process alone", mend)
    try:
        return fine("broker", f"{mask_url(url)} by {find_binary()}")
    except AsyncWorkerError as exc:
        return bad("broker", str(exc), "pip install 'asyncworker[embedded]'")


async def _fleet(engine: Engine) -> AsyncIterator[Finding]:
    """Say who works, and what waits for people."""
    try:
        async with engine:
            depth = await engine.broker.depth([])
            dead = await engine.admin.dead()
    except AsyncWorkerError as exc:
        yield bad("workers", str(exc), "asyncworker doctor --acl prints the user that is needed")
        return
    workers = [card for card in depth.workers.values() if card.role == "worker"]
    versions = sorted({card.version for card in workers})
    if not workers:
        yield note("workers", "nobody works", "asyncworker worker module:engine, or asyncworker daemon")
    elif len(versions) > 1:
        yield note("workers", f"{len(workers)}, of the versions {', '.join(versions)}", "restart the old ones")
    else:
        yield fine("workers", f"{len(workers)}, {depth.running} jobs in hand")
    if dead:
        yield note("dead letters", f"{len(dead)}", "asyncworker dead ls, then dead replay or dead purge")
    else:
        yield fine("dead letters", "none")


def _show_acl(call: Call, namespace: str) -> int:
    words = ["ACL", "SETUSER", namespace, "on", ">PASSWORD", *rules(namespace)]
    if call.settings.json:
        call.document({"user": namespace, "rules": rules(namespace)})
    else:
        call.show(" ".join(words))
        call.say("durable='disk' needs +waitaof as well (Redis 7.2), and +config|get on older ones")
    return 0


COMMAND = command(
    "doctor",
    body,
    click.Argument(["app"], required=False, metavar="[TARGET]"),
    flags=("broker", "namespace", "database", "outbox", "acl", "json"),
    examples="""
  asyncworker doctor --broker redis://localhost:6379/0
  asyncworker doctor shop:engine --json
  asyncworker doctor --acl | sed "s/PASSWORD/$SECRET/" | redis-cli""",
)
