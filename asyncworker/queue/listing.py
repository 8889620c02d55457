"""Listing: a walk through the jobs that lie in Redis; what lies at its places is told by ``brokers/lua``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asyncworker.queue.codec import base32
from asyncworker.queue.job import ID_LENGTH, Found, State
from asyncworker.queue.search import MOST, Page, Query, Stand, pack_stand, rank, read_stand

MOST_PLACES = 32
"""Places that one page looks into."""
STRETCH = 5
"""Characters of an id that say in which stretch of 17 minutes it was made."""
ENDS = {"c": State.CANCELLED, "e": State.EXPIRED, "f": State.FAILED, "s": State.SUCCEEDED}
BLOCKED = "y:b"

Ask = Callable[..., Awaitable[Any]]
"""Call a function of the script: its name, and its arguments."""
Find = Callable[[Sequence[str]], Awaitable[list[Found | None]]]
"""`Broker.find`."""


async def page(ask: Ask, find: Find, query: Query, cursor: str, limit: int) -> Page:
    """Return those of the next *limit* jobs that fit.

    Cost: one call for the places, one for each of those that it looks into, and one that looks at the jobs.
    """
    limit = min(max(limit, 1), MOST)
    stand = read_stand(cursor)
    places = sorted(_places(query, *await ask("places")), key=_order)
    left = [place for place in places if stand is None or _order(place) >= _order(stand)]
    if stand and left and left[0].place == stand.place:
        left[0] = stand
    meant: dict[str, set[int]] = {}
    looks = 0
    while left and looks < MOST_PLACES and len(meant) < limit:
        looks += 1
        place, count = left.pop(0), limit - len(meant)
        ids, following = await _read(ask, place, count)
        for job_id in filter(query.may_be, ids):
            meant.setdefault(job_id, set()).add(place.rank)
        if following and not (ids and place.place[0] == "y" and query.is_past(ids[-1])):
            left.insert(0, following)
    found = await find(list(meant)) if meant else []
    jobs = [one for one in found if one and query.fits(one) and rank(one.state) in meant[one.id]]
    return Page(jobs, pack_stand(left[0]) if left else "")


def _order(stand: Stand) -> tuple[int, str]:
    return stand.rank, stand.place


def _places(query: Query, epochs: list[bytes], switches: list[bytes], stretches: list[bytes]) -> list[Stand]:
    """Return where jobs that are meant may lie, each with where a walk through it begins."""
    first, last = (base32(round(at_s * 1000), 9) if at_s else "" for at_s in (query.since_s, query.until_s))
    found = [(State.RUNNING, f"a:{epoch.decode()}", "", "") for epoch in epochs]
    found.append((State.BLOCKED, BLOCKED, first, ""))
    for name, value in zip(switches[::2], switches[1::2], strict=True):
        queue, _, switch = name.decode().rpartition(":")
        if query.queue in {"", queue}:
            if switch == "l":
                found += [(State.QUEUED, f"r:{queue}:{level}", "", "-1") for level in value.decode()]
            elif switch == "d":
                found.append((State.SCHEDULED, f"d:{queue}", "", "-inf"))
    for name in stretches:
        end, stretch = name[:1].decode(), name[1:].decode()
        if first[:STRETCH] <= stretch and (not last or stretch <= last[:STRETCH]):
            found.append((ENDS[end], f"y:{end}{stretch}", first, ""))
    ranks = set(map(rank, query.states))
    return [Stand(rank(state), *more) for state, *more in found if rank(state) in ranks]


async def _read(ask: Ask, stand: Stand, count: int) -> tuple[list[str], Stand | None]:
    """Return the next ids of a place, about *count*, and where those stand that follow them; None: there are none."""
    level, place, after, at = stand.rank, stand.place, stand.after, stand.at
    kind = place[0]
    ids: list[str]
    if kind == "a":
        ids = sorted(one.decode() for one in await ask("list", kind, place, count, "", "") if one.decode() > after)
        return ids[:count], Stand(level, place, ids[count - 1]) if len(ids) > count else None
    if kind == "r":
        before, said = await ask("list", kind, place, count, after, at)
        ids = [one.decode() for one in said]
        return ids, Stand(level, place, ids[-1], str(int(before) + count)) if len(ids) == count else None
    if kind == "d":
        said = await ask("list", kind, place, count, after, at)
        lots = [(float(due), member.decode()) for member, due in zip(said[::2], said[1::2], strict=True)]
        ids = [member[1:] for due, member in lots if member[0].isdigit() and (due, member) > (float(at), after)]
        return ids, Stand(level, place, lots[-1][1], said[-1].decode()) if len(lots) == count else None
    bound = f"({after}" if after else "-"
    if ENDS.get(place[2]) is not State.SUCCEEDED:
        ids = [one.decode() for one in await ask("list", kind, place, count, bound, "")]
        return ids, Stand(level, place, ids[-1]) if len(ids) == count else None
    whole = len(after) == ID_LENGTH
    last, said = await ask("list", "s", place, count, f"[{after[:-1]}" if whole else bound, "")
    ids = sorted(one.decode() for one in said if one.decode() > after)
    if len(ids) > count:
        return ids[:count], Stand(level, place, ids[count - 1])
    return ids, Stand(level, place, last.decode()) if last else None
