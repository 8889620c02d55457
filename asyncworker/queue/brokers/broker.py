"""What a broker is: the way of work from who asks to who works, in eleven verbs.

Every other file in this folder is one; ``open(url, *, namespace, bus, clock)`` in it returns an unopened
broker, and `tests/contracts/test_broker.py` says what each must do. The words:

- An *epoch* is one worker's incarnation; what it claimed is its own until it settles it, hands it back, or is
  silent for its lease. It is lease and fence in one: a reaped epoch can settle, claim and beat no more.
- A beat that was *observed* to stand still for a lease is a death; no clock of another machine is trusted.
- Every verb may be repeated after an error: an answer that was lost is given again, nothing is applied twice.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Protocol

from asyncworker.queue.job import (
    APART,
    MAX_DELIVERIES,
    Claimed,
    Depth,
    Ended,
    Found,
    Job,
    Missing,
    Receipt,
    Settled,
    State,
    Twin,
    WorkerCard,
)
from asyncworker.queue.lane import Waiter

Notice = Callable[[str], None]
"""Called in the event loop: ``""`` there may be work; an id: this job was asked to stop, or (a parent's id)
all children of this job were."""


Look = Literal["yes", "others", "no"]

Answer = Receipt | Twin | Missing
"""What became of a job that was handed in; see `Broker.enqueue`."""


class Broker(Protocol):
    """Carry jobs. At least once; terminal exactly once."""

    async def join(self, card: WorkerCard, notice: Notice) -> str:
        """Begin an incarnation and return its epoch: random, never used again.

        Raises:
            BrokerDown: unreachable. SettingsError: a server too old, or one we may not use.
        """
        ...

    async def enqueue(self, jobs: Sequence[Job]) -> list[Receipt | Twin | Missing]:
        """Take jobs in, in this order; one round trip a thousand. Repeats of an id add nothing.

        But a job with ``hold`` that failed at most a day ago is opened anew; those of its children that succeeded are known.

        Returns:
            what became of each, in order; a `Twin` names the job that holds the same ``unique`` key. The key is
            free again when its job ends in any way; a key whose job is gone is free, too. Children have none. A
            `Missing` names a job that nobody knows, or knows no longer, among those ``after`` which it is to run.

        Raises:
            BrokerDown: no answer in time; calling again with the same jobs is safe. QueueFull: no room.
            JobTooBig: one is larger than the broker carries. Nothing of the round trip was taken then.
        """
        ...

    async def step(
        self, epoch: str, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool = False
    ) -> Claimed:
        """Settle what ended and claim up to *want* jobs, in one round trip.

        Queues are asked in the order given, each for no more than the number given with it; within a queue
        priority 9 first and oldest first, but one step in sixteen asks the lowest first, so that no level starves. With *idle*, and less to claim than
        wanted, the epoch is noticed when work comes to a queue of which it may have more; while it holds nothing, a broker may claim
        a job for it as it comes, which the next step then brings. A job with a ``limit`` or ``rate`` among its options (`limit.gates_of`) is claimed
        when it passes all of its gates; else it is `State.BLOCKED` and costs nothing until it is its turn. It leaves them
        when it is settled in any way, or its epoch is reaped. Each ``settled`` is applied once, and only if this epoch still holds the
        job. Waits out an outage: repeats the same request until it is answered, and never loses nor doubles it.
        Calls of one epoch must not overlap.

        Args:
            settled: at most 1,000. queues: name -> most to claim from it, 0..1,000. want: 0..1,000 in all.

        Raises:
            LeaseLost: this epoch was reaped; nothing was applied.
        """
        ...

    def beat(self, epoch: str, *, look: Look = "yes") -> Mapping[str, str] | None:
        """Say that this epoch lives. **Blocking**; called from the keeper's thread alone, on a connection of its own.

        Returns:
            None; or, for the fleet's few elected sweepers, every epoch with its last beat (an opaque text that
            ends in ``:<lease in ms>``) to hand to `reap`. Nobody is elected who does not *look*; who looks for others only
            may be when it was alone, and somebody has joined since it was last elected.

        Raises:
            LeaseLost: reaped. BrokerDown: no answer.
        """
        ...

    async def reap(self, epoch: str, seen: str, *, crashed: bool, max_deliveries: int = MAX_DELIVERIES + APART) -> int:
        """End an epoch whose last beat is still *seen* (``""``: whatever it is; for one's own), give its jobs back.

        With *crashed* each job's deliveries are counted up; one with *max_deliveries* of them fails as ``worker_lost``
        instead. A job's own option of that name, and `APART` more, goes before the argument.

        Returns:
            how many jobs it held, or -1 when it has beaten since, or is gone.
        """
        ...

    async def wait(self, ids: Sequence[str], timeout: float | None) -> list[Ended | None]:
        """Return how jobs ended, in the order of *ids*; None for one that is not over when the wait is.

        ``timeout`` 0 only looks; None waits for ever. No polling: the broker tells. An id of a child's chunk is
        ``<child>:<number>``, and ``<id>.<place>`` how one ended after which a job that is not over was enqueued.

        Raises:
            JobNotFound: an id that nobody knows (or whose result has expired).
        """
        ...

    async def find(self, ids: Sequence[str]) -> list[Found | None]:
        """Return what is known about jobs, in the order of *ids*; None for an id that nobody knows."""
        ...

    async def running(self, parent: str) -> list[str]:
        """Return the ids of a job's children that somebody holds, copies among them.

        A child whose id is `copy_of` another's is enqueued like any other, while that one is not over. It is not
        given to who holds that one and counts for nothing; if it succeeds first it is the other one, whose worker is then noticed to stop; and the other way round.
        """
        ...

    async def cancel(self, job_id: str) -> State | None:
        """Cancel a job: at once where it waits; by asking its worker where it runs. Children go with their parent.

        Returns:
            the state in which it was found, None for an id that nobody knows.
        """
        ...

    async def depth(self, queues: Sequence[str]) -> Depth:
        """Count what lies in these queues, and who works."""
        ...

    async def close(self) -> None:
        """Give back connections. Epochs that have not left end like crashed ones."""
        ...


class Plain(Protocol):
    """A broker that can be used without an event loop."""

    def enqueue_blocking(self, job: Job) -> Answer:
        """Take in one job whose ``durable`` is "memory", as `Broker.enqueue` does, and block meanwhile; from any thread."""
        ...


class Handing(Protocol):
    """A broker that hands a job to an epoch that sleeps, in the message that wakes it."""

    def handed(self, epoch: str, queues: Mapping[str, int]) -> Claimed | None:
        """Return the job that was handed to this epoch, if it is of one of *queues*; the next step does not bring it then."""
        ...

    def begin(
        self, epoch: str, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool
    ) -> Coroutine[Any, Any, Claimed]:
        """Do as `Broker.step`, but for what was handed; where nothing is in the way, the call is under way when this returns.

        Who does not wait for it steps again: it is not known then whether this one was applied.
        """
        ...


class Quick(Protocol):
    """A broker that takes single jobs without a task for each."""

    def post(self, job: Job, waiter: Waiter[Answer]) -> None:
        """Take in one job whose ``durable`` is "memory", as `Broker.enqueue` does, and tell *waiter*; called in the event loop.

        Raises:
            JobTooBig, BadParameters: it cannot travel.
        """
        ...
