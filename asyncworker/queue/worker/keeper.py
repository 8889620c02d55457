"""Keeper: says that this worker lives, from a thread of its own, and says when it no longer may work.

It beats four times a lease (at most once in 2.5 seconds) on a connection of its own, so a busy event loop cannot
starve it. But it also watches the loop: when the loop has not turned for *max_block* seconds it beats no more,
for a worker that can do nothing must not look alive. And when no beat was answered for nine tenths of a lease
the worker fences itself: whoever waits longer might work beside the next owner of its jobs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, BrokerError, LeaseLost
from asyncworker.queue.brokers.broker import Broker, Look

BEATS_A_LEASE = 4
ALONE = 24
"""Who was alone when it last looked after the others asks for them again only at each so many beats, or is told that some came."""
MARGIN = 0.9


class Keeper:
    """Keep one epoch's lease.

    Args:
        on_lost: called once, in the event loop, with the reason; the epoch must not be used for work then.
        on_beats: called in the event loop with what `Broker.beat` returned; None tells of a failed beat.
    """

    def __init__(
        self,
        broker: Broker,
        epoch: str,
        lease_s: float,
        *,
        on_lost: Callable[[str], None],
        on_beats: Callable[[Mapping[str, str] | None], None] | None = None,
        max_block_s: float | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._broker = broker
        self._epoch = epoch
        self._lease_s = lease_s
        self._on_lost = on_lost
        self._on_beats = on_beats
        self._max_block_s = lease_s if max_block_s is None else max_block_s
        self._clock = clock
        self._every_s = min(2.5, lease_s / BEATS_A_LEASE)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turned = clock.monotonic()

    def start(self) -> None:
        """Begin to beat; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._turned = self._clock.monotonic()
        self._thread = threading.Thread(target=self._beat, name=f"keeper-{self._epoch[:6]}", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Beat no more, and wait until the thread is over."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _tell(self, function: Callable[..., None], *args: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            return False
        return True

    def _turn(self) -> None:
        self._turned = self._clock.monotonic()

    def _beat(self) -> None:
        answered = self._clock.monotonic()
        unseen = ALONE
        while not self._stop.is_set():
            if self._clock.monotonic() - self._turned < self._max_block_s:
                asked = self._clock.monotonic()
                unseen += 1
                look: Look = "no" if self._on_beats is None else "yes" if unseen >= ALONE else "others"
                try:
                    beats = self._broker.beat(self._epoch, look=look)
                except LeaseLost as exc:
                    self._tell(self._on_lost, str(exc))
                    return
                except BrokerError as exc:
                    unseen = ALONE
                    if self._on_beats is not None:
                        self._tell(self._on_beats, None)
                    cause = str(exc) if isinstance(exc, BrokerDown) else f"{type(exc).__name__}: {exc}"
                else:
                    answered, cause = asked, ""
                    if beats is not None:
                        unseen = 0 if len(beats) == 1 else ALONE
                    if beats is not None and self._on_beats is not None:
                        self._tell(self._on_beats, beats)
            else:
                cause = f"the event loop did not turn for {self._max_block_s:g} s"
            if self._clock.monotonic() - answered > self._lease_s * MARGIN:
                self._tell(self._on_lost, f"no beat was answered in time: {cause}")
                return
            if not self._tell(self._turn):
                return
            self._stop.wait(self._every_s)
