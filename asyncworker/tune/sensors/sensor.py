"""What a sensor is: something that measures while it is open, and tells what it measured when it is asked.

Measuring must be cheap enough to leave on. A sensor never acts on what it sees: that is a policy's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from asyncworker.tune.histogram import LogHistogram


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One number that was measured.

    ``name`` is in the base unit that its suffix says (``_seconds``, ``_bytes``, ``_ratio``, ``_total``), without the
    prefix ``asyncworker_``. ``labels`` are pairs from a closed set, never ids.
    """

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Durations(msgspec.Struct, frozen=True):
    """How long something took, each time since the sensor's start. ``name`` and ``labels`` as of a `Reading`."""

    name: str
    histogram: LogHistogram
    labels: tuple[tuple[str, str], ...] = ()


class Readable(Protocol):
    """Tells numbers about itself."""

    def read(self) -> Sequence[Reading]:
        """Return what is known now, without waiting; may be called in another thread than the one measured."""
        ...


class Sensor(Readable, Protocol):
    """Measures from its start until `close`."""

    def close(self) -> None:
        """Stop measuring and let go of everything; harmless when already closed."""
        ...


@runtime_checkable
class Timed(Protocol):
    """Also knows how long things took."""

    def durations(self) -> Sequence[Durations]:
        """Return all histograms there are; may be called in another thread than the one measured."""
        ...
