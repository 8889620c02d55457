"""Member: an epoch of a client of ``brokers/lua``: its steps, and what is remembered of it between two of them.

A job may be claimed for an epoch that sleeps and holds nothing, without its asking: it comes in the message that would
have woken it, and the next step brings it without a round trip. Nobody need trust that message. Whoever knows of nothing
that it holds says so when it looks for work; if that is not so it is told all that it holds, as after a lost answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asyncworker.errors import BrokerError, LeaseLost
from asyncworker.queue import parcel
from asyncworker.queue.addresses.address import Refused
from asyncworker.queue.body import delivery
from asyncworker.queue.brokers.broker import Notice
from asyncworker.queue.job import UNSETTLED, Claimed, Op, Settled
from asyncworker.queue.script import Script
from asyncworker.queue.wire import ERRORS, Wire

LOWEST_FIRST = 16
"""One step in so many asks the lowest priority first, so that no level starves."""


class Call(NamedTuple):
    """A step: its arguments, and what its answer is to be read by."""

    args: list[Any]
    queues: Mapping[str, int]
    asked: Mapping[str, int]
    want: int
    idle: bool
    given_up: int


@dataclass(slots=True, eq=False)
class Member:
    """An epoch of ours.

    ``seq`` is the number of its last step, ``asleep`` the queues among whose idle ones that has left it, and ``stirred``
    those among whose it may still be or not, for it was noticed since, or an answer was lost. ``holding`` is how many jobs
    it has, ``handed`` one that it was handed and has not taken yet, ``due_ms`` when something is due that it sleeps for.
    ``told`` are the jobs that it was last told it holds: the message that hands it one of them may only come then.
    ``wire`` is its own, for a call that is begun goes without a turn; ``begun`` is one until its answer has been waited for.
    *gone* is called when the epoch turns out to be over.
    """

    epoch: str
    notice: Notice
    script: Script
    gone: Callable[[], Awaitable[None]]
    wire: Wire = field(init=False)
    seq: int = 0
    asleep: set[str] = field(default_factory=set)
    stirred: set[str] = field(default_factory=set)
    holding: int = 0
    handed: Claimed | None = None
    due_ms: int = -1
    told: frozenset[str] = frozenset()
    begun: tuple[Call, asyncio.Future[Any]] | None = None

    def __post_init__(self) -> None:
        self.wire = self.script.wire()

    def close(self) -> None:
        """Give back its connection."""
        self.script.drop(self.wire)

    def step(
        self, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool
    ) -> Coroutine[Any, Any, Claimed]:
        """Step; where nothing is in the way, the call is under way when this returns. See `Broker.step` for errors."""
        if self.begun is not None:  # nobody waited for it
            call, answer = self.begun
            self.lost(call)
            answer.cancel()
            self.wire.renew()
        call, answer = self.begun = (
            self.call(settled, queues, want, idle=idle),
            asyncio.get_running_loop().create_future(),
        )
        begins = self.script.begin(self.wire, "step", (self.epoch, *call.args), answer)
        return self._answer(call, answer if begins else None)

    async def _answer(self, call: Call, begun: asyncio.Future[Any] | None) -> Claimed:
        """Wait for the answer to a step, sending it once more if there was none."""
        answer = None
        try:
            if begun is not None:
                try:
                    answer = await begun
                except ERRORS as exc:
                    if not isinstance(exc, Refused):
                        self.wire.renew()
            if answer is None:
                answer = await self.script.call(self.wire, "step", (self.epoch, *call.args), forever=True)
        except BaseException:
            self.lost(call)
            self.wire.renew()  # the answer may be on its way
            raise
        finally:
            self.begun = None
        if answer[0] == -1:
            await self.gone()
            raise LeaseLost
        if len(answer) == 1:
            raise BrokerError("somebody else steps with this epoch")
        claimed = parcel.claimed(answer)
        self.answered(call, claimed)
        return claimed

    def hand(self, message: bytes) -> None:
        """Hear of a job that was claimed for this epoch: ``<ms> <id> <body>``."""
        now_ms, job_id, body = message.split(b" ", 2)
        given = delivery(job_id.decode(), body, None)
        if given.id not in self.told:
            self.handed = Claimed(int(now_ms), self.due_ms, [given])
            self.notice("")

    def take(self, settled: Sequence[Settled], queues: Mapping[str, int], want: int) -> Claimed | None:
        """Return what was handed, where that answers a step."""
        handed = self.handed
        if handed is None or settled or not want or not queues.get(handed.deliveries[0].queue):
            return None
        self.handed = None
        self.holding += 1
        return handed

    def call(self, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool) -> Call:
        """Begin a step."""
        given_up = sum(one.op not in UNSETTLED for one in settled)
        if self.handed is not None:  # whoever has room has it, be it this very step
            given, self.handed = self.handed.deliveries[0], None
            settled = [*settled, Settled(given.id, Op.RELEASE, given.queue)]
        self.seq += 1
        asleep, stirred, self.stirred = self.asleep, self.stirred, set()
        asked = queues
        if not (asleep <= queues.keys() and stirred <= queues.keys()):
            asked = {**queues, **dict.fromkeys((asleep | stirred) - queues.keys(), 0)}
        looks = 2 if idle and not (settled or self.holding) else int(idle)
        args: list[Any] = [self.seq, want, int(self.seq % LOWEST_FIRST == 0), looks, len(asked)]
        for name, most in asked.items():
            args += (name, most, 2 if name in stirred else int(name in asleep))
        args += parcel.settlements(settled)
        return Call(args, queues, asked, want, idle, given_up)

    def lost(self, call: Call) -> None:
        """Hear that nobody knows whether a step was applied: a gap makes the next answer say what is held."""
        self.seq += 1
        self.stirred |= call.asked.keys()

    def answered(self, call: Call, claimed: Claimed) -> None:
        """Hear what a step has brought."""
        self.due_ms = claimed.next_due_ms
        self.holding += len(claimed.deliveries) - call.given_up
        if claimed.held is not None:
            self.stirred |= call.asked.keys()
            self.holding, self.told, self.handed = len(claimed.held), claimed.held, None
        elif call.idle and len(claimed.deliveries) < call.want:
            room = dict(call.queues)
            for one in claimed.deliveries:
                room[one.queue] = room.get(one.queue, 0) - 1
            self.asleep = {name for name, most in room.items() if most > 0}
            if "" in room:  # of what cannot be read nobody knows whose quota it counts against
                self.stirred |= call.asked.keys()
        else:
            self.asleep = set()
