"""What a policy is: the rule that says how many. Every other file in this folder is one, with ``open()``.

There are two kinds, as work gives evidence in two ways. A *limiter policy* moves on each completion of a call; a
*scaler policy* moves on a clock and says why. Both are pure: they read no clock and no global, never await, and given
the same reports they give the same sizes. Odd reports (not a number, negative, times that run backwards) are
survived, not believed. What they have learned fits in a dictionary of JSON values, so it outlives the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from asyncworker.errors import BadParameters


class Decision(msgspec.Struct, frozen=True):
    """How many, and because of what: one short clause for people, without names or ids of jobs."""

    size: int
    because: str


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen since the last look; a sensor fills what it can measure, a policy says what it needs.

    Attributes:
        t: seconds of a monotonic clock.
        size: units there are, those that are still starting included.
        arrivals: pieces of work a second that were *asked for*. What was served is no substitute: in a saturated
            pool it says how large the pool is.
        completions: pieces of work a second that ended well.
        waiting: pieces of work that wait for a unit now.
        oldest_s: how long the oldest of them has waited.
        busy: mean share of the units that were in use, 0..1: measured time, not a count at one moment.
        service_s: mean time that a piece of work holds a unit; 0 where nothing ended.
    """

    t: float
    size: int
    arrivals: float = 0.0
    completions: float = 0.0
    waiting: float = 0.0
    oldest_s: float = 0.0
    busy: float = 0.0
    service_s: float = 0.0


class Policy(Protocol):
    """What both kinds have in common."""

    @property
    def low(self) -> int:
        """Return the least that it will ever say, 1 or more."""
        ...

    @property
    def high(self) -> int:
        """Return the most that it will ever say."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, perhaps elsewhere, earlier and within other bounds.

        Raises:
            BadParameters: this is no state of this policy; nothing has changed.
        """
        ...


class LimiterPolicy(Policy, Protocol):
    """Decide on each completion."""

    @property
    def limit(self) -> int:
        """Return how many may be under way, ``low..high``."""
        ...

    @property
    def because(self) -> str:
        """Return why the limit was last changed."""
        ...

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        """Take in one completion; returns the limit.

        Args:
            t: seconds of a monotonic clock, not decreasing.
            rtt: seconds that the call took, without the time it waited for its permit.
            inflight: calls under way, this one included.
            ok: False for an error or a timeout. A call that was cancelled is no evidence: do not report it.
        """
        ...


class ScalerPolicy(Policy, Protocol):
    """Decide on a clock."""

    def tick(self, observation: Observation) -> Decision:
        """Take in what was seen since the last tick; returns a size in ``low..high``."""
        ...


S = TypeVar("S", bound=msgspec.Struct)


def check_bounds(low: int, high: int) -> None:
    """Refuse bounds that leave no room.

    Raises:
        BadParameters: not ``1 <= low <= high``.
    """
    if not 1 <= low <= high:
        raise BadParameters(f"bounds must be 1 or more and in order, not {low}..{high}")


def sane(value: float, low: float = 0.0, high: float = math.inf) -> float:
    """Return *value* within bounds; *low* for what is no number."""
    return low if math.isnan(value) else min(max(value, low), high)


def load(state: Mapping[str, Any], kind: type[S]) -> S:
    """Return *state* as this struct.

    Raises:
        BadParameters: a field has another type, is unknown, or is no finite number.
    """
    if not _finite(state):
        raise BadParameters("a policy's state holds finite numbers alone")
    try:
        return msgspec.convert(state, kind)
    except msgspec.ValidationError as exc:
        raise BadParameters(f"no state of this policy: {exc}") from exc


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
