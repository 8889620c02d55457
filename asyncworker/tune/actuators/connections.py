"""A pool of connections that sizes itself, keeps its connections sound, and knows who does not give them back.

Around a driver's own pool (`tune.drivers`), which is made once with a ceiling. In front of it stands a gate of permits,
first come, first served, that can be resized while callers wait; behind the permit a connection is taken, checked if it
was idle, and lent. What is given back is closed instead while more are open than there should be, so a shrink is true.

    async with ConnectionPoolOptimizer("postgresql://localhost/shop", max_size=32) as pool:
        async with pool.acquire(timeout=2) as connection:
            await connection.fetch("SELECT 1")

| what goes wrong                         | what happens                                                               |
|-----------------------------------------|----------------------------------------------------------------------------|
| nobody gives one back                   | `PoolTimeout` at the caller's deadline; there always is one                |
| the server is gone for a while          | callers wait until it is back, or for their deadline                       |
| a connection broke while it was idle    | it is replaced, and the caller does not see it                             |
| a task ends without giving back         | `BorrowLeaked` at once, with the line; the pool grows by one while it can  |
| the server is asked for more than it can| the size that does the most work is kept, callers wait                     |
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from asyncworker import registry
from asyncworker.errors import BadParameters, PoolClosed, PoolError, PoolTimeout
from asyncworker.events import BorrowLeaked, BorrowReturned, Bus
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.chores import Chores
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.drivers.driver import Driver
from asyncworker.tune.health import Health
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.loan import Loan
from asyncworker.tune.policies.erlang import ErlangPolicy
from asyncworker.tune.policies.policy import Decision, Observation
from asyncworker.tune.policies.usl import UslPolicy
from asyncworker.tune.sensors.borrows import Borrow, BorrowsSensor, Leak
from asyncworker.tune.sensors.sensor import Durations, Reading
from asyncworker.tune.sizing import CappedSizing
from asyncworker.tune.upkeep import Upkeep

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the size is thought over."""
HEALTH_LOOKS = 120
"""At every so many of these looks each idle connection is asked."""
CLOSE_S = 5.0


class ConnectionPoolOptimizer:
    """Lend connections, as many at once as serve best.

    Args:
        driver: a URL (``postgresql://``, ``redis://``), or a `Driver` that was not started.
        min_size, max_size: bounds of the size; at most *max_size* connections are ever open, the driver's ceiling.
        name: how metrics, events and decisions speak of it.
        acquire_timeout: seconds that `acquire` waits unless told otherwise.
        target_wait, target_share: at most this share of callers should wait longer than so many seconds.
        max_lifetime: seconds after which a connection is replaced, minus up to 2.5 %.
        leak_after: seconds for which a borrow is never called late; beyond, three times the usual is.
        bus: where changes of size and leaks are told of; leaks are logged too.
        automatic: think the size over, check and look for leaks while open; else only when asked.

    Cost: some 50 us to borrow and give back, beside what the driver takes (`bench/control/bench_pool_honesty.py`).
    """

    def __init__(
        self,
        driver: Driver | str,
        *,
        min_size: int = 2,
        max_size: int = 64,
        name: str = "connections",
        acquire_timeout: float = 10.0,
        target_wait: float = 0.01,
        target_share: float = 0.05,
        max_lifetime: float = 1800.0,
        leak_after: float = 2.0,
        bus: Bus | None = None,
        automatic: bool = True,
    ) -> None:
        if not (0 < acquire_timeout < float("inf") and max_lifetime > 0 and leak_after > 0):
            raise BadParameters("acquire_timeout, max_lifetime and leak_after are seconds above 0")
        if isinstance(driver, str):
            driver = registry.find("driver", driver.partition(":")[0]).open(driver, max_size, min_size)
        assert not isinstance(driver, str)
        self.name, self.low, self.high = name, min_size, min(max_size, driver.ceiling)
        self._driver = driver
        self._sizing = CappedSizing(
            ErlangPolicy(low=self.low, high=self.high, wait=target_wait, share=target_share),
            UslPolicy(low=self.low, high=self.high, initial=4 * self.low),
        )
        self._gate = Limiter(self.low, name=name, low=self.low, high=self.high)
        self._borrows = BorrowsSensor(name, late_s=leak_after, on_leak=self._on_leak, on_return=self._on_return)
        self._chores = Chores(name)
        self._upkeep = Upkeep(driver, max_lifetime, self._chores)
        self._acquire_timeout = acquire_timeout
        self._bus, self._automatic = bus, automatic
        self.decisions = Decisions(bus)
        self._size = self.low
        self._connecting = 0  # connections that are being opened ahead of their permits
        self._shrunk = False  # more may be open than are wanted
        self._closing = 0
        self._waits = LogHistogram()
        self._seen = (0, 0)  # connections open and callers waiting at the last look
        self._open = False
        self._empty = asyncio.Event()
        self._tender: asyncio.Task[None] | None = None
        self._begin_window(0.0)

    # --- an actuator --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._size

    @property
    def in_use(self) -> int:
        return self._gate.in_use

    @property
    def waiting(self) -> int:
        return self._gate.waiting

    @property
    def completed(self) -> int:
        return self._waits.count

    def resize(self, size: int) -> None:
        """Want *size* connections; who waits for one of the new ones is served as soon as it has connected.

        Where the pool is automatic, its own opinion comes back within half a second.
        """
        before, self._size = self._size, min(max(size, self.low), self.high)
        if self._size < before:
            self._shrunk = True
        opened = self._driver.opened()
        # Where none is idle, a new permit is worth something only with a connection behind it: until then who waits
        # is served sooner by one that comes back.
        missing = self._size - max(self._gate.size, opened) - self._connecting if opened <= self.in_use else 0
        for _ in range(missing if self._open else 0):
            self._connecting += 1
            self._chores.begin(self._connect())
        self._set_gate()

    def _set_gate(self) -> None:
        self._gate.resize(min(self._size, max(self._gate.size, self._size - self._connecting)))

    # --- open and closed ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect.

        Raises:
            PoolDown: the server cannot be reached. PoolError: it refuses.
        """
        if self._open:
            return
        await self._driver.start()
        self._open = True
        self._empty.clear()
        self._begin_window(asyncio.get_running_loop().time())
        if self._automatic:
            self._tender = asyncio.create_task(self._tend(), name=f"{self.name}: tender")

    async def close(self, timeout: float = 10.0) -> None:
        """Let nobody in any more, wait up to *timeout* seconds for what is lent, and disconnect."""
        self._open = False
        tender, self._tender = self._tender, None
        if tender is not None:
            tender.cancel()
            await asyncio.wait([tender])
        self._gate.resize(self.high)  # who waits in line is told at once
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout if self.in_use else 0):
                await self._empty.wait()
        await self._driver.close(0.0 if self.in_use else CLOSE_S)
        await self._chores.close(CLOSE_S)
        self._borrows.close()
        self._upkeep.forget()

    # --- lending ------------------------------------------------------------------------------------------------

    def acquire(self, timeout: float | None = None) -> Loan:
        """Borrow a connection: ``async with pool.acquire() as connection``, or ``await`` and `release`.

        Args:
            timeout: seconds to wait at most; None for the pool's own.

        Raises:
            PoolTimeout: none became free in time, or the server was away that long. PoolClosed.
            PoolError: the server refuses.
        """
        patience, borrow = self._acquire_timeout if timeout is None else timeout, Borrow()
        return Loan(lambda: self._lend(patience, borrow), self._take_back)

    async def release(self, connection: Any) -> None:
        """Give a connection back that ``await acquire()`` gave. Survives that its caller is cancelled.

        Raises:
            PoolError: it is not out, or not of this pool.
        """
        if not await self._take_back(connection, good=True):
            raise PoolError(f"{self.name}: this connection was not borrowed here, or is back already")

    async def _lend(self, timeout: float, borrow: Borrow) -> Any:
        if not self._open:
            raise PoolClosed(f"{self.name} is not open")
        loop = asyncio.get_running_loop()
        came = loop.time()
        self._arrivals += 1
        try:
            async with asyncio.timeout(timeout):
                connection = await self._enter(came + timeout)
        except TimeoutError as exc:
            why = f"; {self._upkeep.error}" if self._upkeep.error else f"; {self.in_use} of {self.size} are in use"
            raise PoolTimeout(f"{self.name}: no connection within {timeout:g} s{why}") from exc
        self._waits.add(loop.time() - came)
        self._borrows.begin(borrow, connection)
        return connection

    async def _enter(self, deadline: float) -> Any:
        await self._gate.acquire()
        connection = None
        try:
            if self._open:
                connection = await self._upkeep.take(deadline)
        finally:
            if connection is None:
                self._leave()
        if connection is None:
            raise PoolClosed(f"{self.name} was closed")
        return connection

    async def _take_back(self, connection: Any, good: bool | None) -> bool:
        """Take a connection back; *good* is None where its use says nothing. Returns whether it was out."""
        if (ended := self._borrows.end(connection)) is None:
            return False
        # A task of its own: who gives back may be cancelled, what is given back must not be.
        await asyncio.shield(self._chores.begin(self._put_away(connection, ended[1], good)))
        return True

    async def _put_away(self, connection: Any, held: float, good: bool | None) -> None:
        loop = asyncio.get_running_loop()
        back = loop.time()
        if self._shrunk:
            self._shrunk = self._driver.opened() - self._closing > self._size
        try:
            if self._shrunk:  # nobody need wait for the goodbye
                self._closing += 1
                self._chores.begin(self._close_one(connection))
            else:
                await self._upkeep.give(connection)
        finally:
            now = loop.time()
            if good is not None:
                self._ended += 1
                self._held_s += held + now - back
                self._sizing.on_complete(now, held + now - back, self.in_use, self.waiting, ok=good)
            self._leave()
            if self._automatic:
                self._apply()

    async def _close_one(self, connection: Any) -> None:
        self._closing -= 1  # from its first step on the driver does not count it either
        await self._upkeep.give(connection, keep=False)

    async def _connect(self) -> None:
        """Open one connection ahead of the permit for it, which comes all the same: who gets it tries again."""
        try:
            await self._upkeep.open(self._acquire_timeout)
        finally:
            self._connecting -= 1
            self._set_gate()

    # --- how many -----------------------------------------------------------------------------------------------

    async def optimize_pool_size(self) -> Decision:
        """Look once, decide once, resize at most once; returns what was decided and why."""
        now = asyncio.get_running_loop().time()
        elapsed = now - self._window_began
        if elapsed <= 0:
            return Decision(self.size, self._sizing.because)
        self._sizing.tick(
            Observation(
                t=now,
                size=self.size,
                arrivals=self._arrivals / elapsed,
                completions=self._ended / elapsed,
                waiting=self.waiting,
                service_s=self._held_s / self._ended if self._ended else 0.0,
            )
        )
        self._begin_window(now)
        self._seen = self._driver.opened(), self.waiting
        self._apply()
        return Decision(self.size, self._sizing.because)

    def _apply(self) -> None:
        # What leaks is lost to the callers: the others are as many as were decided, while the ceiling allows it.
        wanted = min(self.high, self._sizing.size + self._borrows.suspects)
        if self._open and wanted != self._size:
            self.decisions.add(self.name, self._size, wanted, self._sizing.because)
            self.resize(wanted)

    def _begin_window(self, now: float) -> None:
        self._window_began = now
        self._arrivals = self._ended = 0
        self._held_s = 0.0

    def _leave(self) -> None:
        self._gate.release()
        if not self._open and not self.in_use:
            self._empty.set()

    # --- health and leaks ---------------------------------------------------------------------------------------

    async def monitor_health(self) -> Health:
        """Ask the server over each idle connection, replace those that are dead or too old, and report.

        While callers wait there is none that is idle. Others who come must wait for some milliseconds.
        """
        checked = replaced = permits = 0
        if self._open and not self.waiting:
            idle = max(0, self._driver.opened() - self.in_use)
            while permits < idle and self._gate.try_acquire():
                permits += 1
            try:
                checked, replaced = await self._upkeep.check(permits, self._size)
            finally:
                for _ in range(permits):
                    self._leave()
        return Health(
            self.size,
            self.in_use,
            self.waiting,
            self._driver.opened(),
            checked,
            replaced,
            self._borrows.suspects,
            self._borrows.leaks,
            self._waits.quantile(0.99),
            self._upkeep.error,
        )

    def read(self) -> Sequence[Reading]:
        """Return what metrics tell, as of the last look; may be called in another thread."""
        labels = (("pool", self.name),)
        return (
            Reading("pool_connections", self.in_use, (*labels, ("state", "used"))),
            Reading("pool_connections", max(0, self._seen[0] - self.in_use), (*labels, ("state", "idle"))),
            Reading("pool_waiters", self._seen[1], labels),
            *(
                Reading("pool_acquire_seconds", self._waits.quantile(q), (*labels, ("quantile", str(q))))
                for q in (0.5, 0.99)
            ),
            *self._borrows.read(),
        )

    def durations(self) -> Sequence[Durations]:
        return [Durations("pool_acquire_seconds", self._waits, (("pool", self.name),))]

    def detect_leaks(self) -> list[Leak]:
        """Return the borrows that seem not to come back, longest held first, each with the line that borrowed."""
        return self._borrows.look()

    def _on_leak(self, leak: Leak) -> None:
        log.warning("%s: a connection leaks, %s", self.name, leak)
        if self._bus is not None:
            self._bus.emit(BorrowLeaked(self.name, str(leak.place), leak.held_s, leak.because))

    def _on_return(self, leak: Leak) -> None:
        log.info("%s: a connection is back after all, %s", self.name, leak)
        if self._bus is not None:
            self._bus.emit(BorrowReturned(self.name, str(leak.place), leak.held_s))

    async def _tend(self) -> None:
        for look in itertools.count(1):
            await asyncio.sleep(LOOK_S)
            await self.optimize_pool_size()
            self.detect_leaks()
            if not look % HEALTH_LOOKS:
                await self.monitor_health()
