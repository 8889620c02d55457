"""A library of functions in Redis, called until it answers.

An answer may be lost, a server may restart or be replaced by one that never heard of the functions: then the same
call is made again, on a new connection. So whatever the functions do must bear repetition.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from asyncworker.clock import Clock
from asyncworker.errors import BrokerDown, SettingsError
from asyncworker.events import BrokerDisrupted, BrokerRestored, Bus
from asyncworker.queue.addresses.address import Address, Refused
from asyncworker.queue.blocking import Blocking
from asyncworker.queue.durability import Assurance
from asyncworker.queue.link import Taker
from asyncworker.queue.wire import ERRORS, FIRST_PAUSE_S, LONGEST_PAUSE_S, Wire, is_unloaded, mapped

ANSWER_S = 5.0
"""How long one answer may take; then its connection is given up."""
OLDEST = 7


def name_of(text: str) -> str:
    """Return a library's name: a hash of its text, so that versions live side by side."""
    return f"asyncworker_{blake2b(text.encode(), digest_size=5).hexdigest()}"


def library(name: str, text: str) -> str:
    """Return what is loaded: the text, which finds its name in LIBRARY."""
    return f"#!lua name={name}\nlocal LIBRARY = '{name}' {text}"


def facts(info: bytes) -> dict[str, str]:
    """Return what INFO says."""
    return dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)


class Script:
    """Call functions of one library on one key, over wires of its own making.

    ``patience`` is how many seconds a call may take in all, where it is not told to go on for ever. The first failed
    call and the first answered one after it are told as `BrokerDisrupted` and `BrokerRestored`; where a server answers
    and refuses (its disk is full, it is a replica), only an answer to what is none of the *reads* ends that.
    """

    def __init__(
        self,
        address: Address,
        text: str,
        key: str,
        *,
        patience: float,
        bus: Bus,
        clock: Clock,
        reads: frozenset[str] = frozenset(),
    ) -> None:
        self.address = address
        self._name = name_of(text)
        self._text = text
        self._key = key
        self.patience = patience
        self._bus = bus
        self._clock = clock
        self._answer_s = min(ANSWER_S, patience)
        self._wires: list[Wire] = []
        self._callers: list[Caller] = []
        self._checked = False
        self.closed = False
        self._down_since: float | None = None
        self._refused = False  # by a server that answers
        self._reads = frozenset(f"{self._name}_{verb}" for verb in reads)

    def wire(self) -> Wire:
        """Return a new connection, not yet open, for calls that should not wait for others."""
        self._wires.append(Wire(self.address))
        return self._wires[-1]

    def drop(self, wire: Wire) -> None:
        """Close a connection that is needed no longer."""
        if wire in self._wires:
            self._wires.remove(wire)
        wire.close()

    async def call(
        self, wire: Wire, verb: str, args: Iterable[Any], *, forever: bool = False, assured: Assurance | None = None
    ) -> Any:
        """Call a function, again and again until it answers; not *forever* unless asked to.

        Raises:
            BrokerDown: no answer in time, or closed. SettingsError: a server that cannot or must not be used.
            QueueFull, BrokerError: the server refused.
        """
        return await self.ask(wire, *self._command(verb, args), forever=forever, assured=assured)

    def begin(self, wire: Wire, verb: str, args: Iterable[Any], taker: Taker) -> bool:
        """Call a function once if that can be done at once; else, and where *taker* is told an error, `call` has to."""
        if not self._checked or self.closed or self._down_since is not None:
            return False
        return wire.begin(self._command(verb, args), self._answer_s, taker)

    async def ask(self, wire: Wire, *command: Any, forever: bool = False, assured: Assurance | None = None) -> Any:
        """Send any command that may be repeated, as `call` does."""
        end = None if forever else self._clock.monotonic() + self.patience
        pause, unloaded, timeout = FIRST_PAUSE_S, False, self._answer_s
        why: BrokerDown | None = None
        while not self.closed:
            try:
                if not self._checked:
                    await self._check(wire, timeout)
                if unloaded:
                    await wire("FUNCTION", "LOAD", "REPLACE", library(self._name, self._text), timeout=timeout)
                answer = await wire(*command, timeout=timeout, assured=assured)
            except ERRORS as exc:
                if is_unloaded(exc) and not unloaded:
                    unloaded = True
                    continue
                error = mapped(exc, self.address)
                if not isinstance(error, BrokerDown):
                    raise error from exc
                wire.renew()  # also after an answer: it may be a replica that refuses, and the name another server's by now
                self._disrupted(error, refused=isinstance(exc, Refused))
                if why is None or not isinstance(exc, TimeoutError):
                    why = error  # that the last try was cut short tells less than what failed before
                if end is not None:
                    timeout = min(self._answer_s, end - pause - self._clock.monotonic())
                    if timeout <= 0:
                        raise why from exc
            else:
                if self._down_since is not None and (not self._refused or self._is_write(command)):
                    self._restored(self._down_since)
                return answer
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise BrokerDown("the broker was closed")

    def caller(self) -> Caller:
        """Return what calls functions and blocks meanwhile."""
        self._callers.append(Caller(self))
        return self._callers[-1]

    def call_blocking(self, line: Blocking, verb: str, args: Iterable[Any]) -> Any:
        """Call a function once; what it raises is the connection's."""
        command = self._command(verb, args)
        try:
            return line.ask(*command)
        except Refused as exc:
            if not is_unloaded(exc):
                raise
        line.ask("FUNCTION", "LOAD", "REPLACE", library(self._name, self._text))
        return line.ask(*command)

    def open_blocking(self) -> Blocking:
        """Return a new connection to a server that may be used; what it raises is the connection's, or `SettingsError`."""
        line = Blocking(self.address.found(self._answer_s), self._answer_s)
        try:
            if not self._checked:
                self._look_over(line.ask("INFO"))
        except BaseException:
            line.close()
            raise
        return line

    async def close(self) -> None:
        """Drop all connections; calls under way end as `BrokerDown`."""
        self.closed = True
        for wire in self._wires:
            wire.close()
        for caller in list(self._callers):
            caller.close()

    def _command(self, verb: str, args: Iterable[Any]) -> tuple[Any, ...]:
        return ("FCALL", f"{self._name}_{verb}", b"1", self._key, b"0", *args)  # 0: by the server's clock

    async def _check(self, wire: Wire, timeout: float) -> None:
        self._look_over(await wire("INFO", timeout=timeout))

    def _look_over(self, info: bytes) -> None:
        """Refuse a server that lacks what the functions need, or may forget jobs."""
        about = facts(info)
        version = about.get("redis_version", "0")
        if int(version.partition(".")[0]) < OLDEST:
            raise SettingsError(f"{self.address} is Redis {version}: Redis 7.0 or Valkey 7.2 or newer is needed")
        policy = about.get("maxmemory_policy", "noeviction")
        if about.get("maxmemory", "0") != "0" and policy != "noeviction":
            raise SettingsError(f"{self.address} may evict jobs ({policy}): set maxmemory-policy to noeviction")
        self._checked = True

    def _is_write(self, command: tuple[Any, ...]) -> bool:
        return command[0] == "FCALL" and command[1] not in self._reads

    def _disrupted(self, error: BrokerDown, *, refused: bool) -> None:
        self._refused = refused
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
            for wire in self._wires:
                wire.renew()  # else a wire that stood idle meanwhile would find the same outage again, later
            self._bus.emit(BrokerDisrupted(broker=str(self.address), error=str(error)))

    def _restored(self, since: float) -> None:
        self._down_since = None
        self._bus.emit(BrokerRestored(broker=str(self.address), outage_s=self._clock.monotonic() - since))


class Caller:
    """Calls functions and blocks meanwhile, on a connection of its own; threads take turns."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._line: Blocking | None = None
        self._turn = threading.Lock()
        self._process = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether this process was forked since: the connection is its parent's."""
        return self._process != os.getpid()

    def once(self, verb: str, *args: Any) -> Any:
        """Call a function.

        Raises:
            BrokerDown: no answer. SettingsError, QueueFull, BrokerError: the server refused.
        """
        with self._turn:
            try:
                return self._script.call_blocking(self._open(), verb, args)
            except BaseException as exc:  # also Ctrl-C: its answer would be taken for the next call's
                if line := self._line:
                    self._line = None
                    line.close()
                if isinstance(exc, ERRORS):
                    raise mapped(exc, self._script.address) from exc
                raise

    def _open(self) -> Blocking:
        if self._line is None and not self._script.closed:
            self._line = self._script.open_blocking()
        if self._line is None or self._script.closed:  # maybe meanwhile, by another thread, which saw no connection
            raise ConnectionError("the broker was closed")
        return self._line

    def __call__(self, verb: str, *args: Any) -> Any:
        """Call a function, again and again until it answers, for as long as the script is patient; see `once`."""
        end, pause = time.monotonic() + self._script.patience, FIRST_PAUSE_S
        while True:
            try:
                return self.once(verb, *args)
            except BrokerDown:
                if self._script.closed or time.monotonic() + pause >= end:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Hang up; a call under way in another thread ends as `BrokerDown`. What is a parent's stays open."""
        if (line := self._line) and not self.inherited:
            line.close()
