"""What was decided, and why: told to the bus, and the last thousand kept for those who ask later."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable
from weakref import WeakValueDictionary

from asyncworker.clock import SYSTEM, Clock
from asyncworker.events import Bus, Decided

KEPT = 1000
MOST_KINDS = 500
"""Pairs of name and cause that are counted: who makes names of ids must not fill the memory."""
PROBES = frozenset({"probe", "centre"})
"""Causes of changes that only try what is nearby, or come back from that: most of all there are."""
UNDONE = frozenset({"undone", "a cliff at n"})
"""Causes of changes that take back what did harm."""
MOST_THINGS = 200

_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*(?:e[-+]?[0-9]+)?")
_DETAIL = re.compile(r"[:,;]")


def cause(because: str) -> str:
    """Return the kind of reason that a clause gives: its first part, numbers as ``n``; so there are only a few.

    >>> cause("start-up: 1.5e+03/s at 8, still growing"), cause("12/s arrive, 3 wait"), cause("a cliff at 30")
    ('start-up', 'n/s arrive', 'a cliff at n')
    """
    return _DETAIL.split(_NUMBER.sub("n", because), maxsplit=1)[0].strip()


def undone(decisions: Sequence[Decided]) -> list[bool]:
    """Return of each of these, oldest first, whether a later one took it back.

    What takes back undoes those changes of its actuator right before it that led the other way, beyond the size that
    it goes back to.
    """
    taken_back = [False] * len(decisions)
    for at, back in enumerate(decisions):
        if cause(back.because) not in UNDONE:
            continue
        way = 1 if back.old > back.new else -1
        for earlier in range(at - 1, -1, -1):
            one = decisions[earlier]
            if one.name != back.name:
                continue
            if (one.new - one.old) * way < 0 or (one.new - back.new) * way <= 0 or cause(one.because) in UNDONE:
                break
            taken_back[earlier] = True
    return taken_back


class Watched(Protocol):
    """Something that is sized by decisions, and can be looked at.

    ``completed`` is how much work it has let through so far.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def in_use(self) -> int: ...
    @property
    def completed(self) -> float: ...


@runtime_checkable
class Decides(Watched, Protocol):
    """Something that sizes itself; ``decisions`` is where it notes that, and may be exchanged."""

    decisions: Decisions


class Decisions:
    """The log that tuners and adaptive limiters write; iterate over it for the decisions, oldest first.

    Attributes:
        total: how many there have been here. made: the same by name and `cause`.
        watched: what is sized, by name, for as long as it is used; of two with one name the later.
    """

    def __init__(self, bus: Bus | None = None, kept: int = KEPT, clock: Clock = SYSTEM) -> None:
        self._bus, self._clock = bus, clock
        self._log: deque[Decided] = deque(maxlen=kept)
        self.total = 0
        self.made: dict[tuple[str, str], int] = {}
        self.watched: WeakValueDictionary[str, Watched] = WeakValueDictionary()

    def watch(self, thing: Watched) -> None:
        """Have *thing* told of, by its name, beside what is decided about it."""
        self.watched[thing.name] = thing

    def add(self, name: str, old: int, new: int, because: str) -> None:
        """Note a change of size; what is no change is no decision."""
        if new == old:
            return
        decided = Decided(name, old, new, because, self._clock.now())
        self._log.append(decided)
        self.total += 1
        key = (name, cause(because))
        if key in self.made or len(self.made) < MOST_KINDS:
            self.made[key] = self.made.get(key, 0) + 1
        if self._bus is not None:
            self._bus.emit(decided)

    def things(self) -> dict[str, Watched]:
        """Return what is watched now; may be called in another thread."""
        refs = self.watched.valuerefs()
        found = {name: thing for name, thing in ((ref.key, ref()) for ref in refs) if thing is not None}
        return dict(list(found.items())[:MOST_THINGS])

    def since(self, total: int) -> list[Decided]:
        """Return those that came since there were *total*, oldest first; of more than are kept, the last."""
        return list(self._log)[-(self.total - total) :] if self.total > total else []

    def restore(self, before: Iterable[Decided]) -> None:
        """Put decisions of the time before this log in front of it; they are neither told nor counted again."""
        log = [*before, *self._log]
        self._log.clear()
        self._log.extend(log)

    def __iter__(self) -> Iterator[Decided]:
        return iter(tuple(self._log))

    def __len__(self) -> int:
        return len(self._log)
