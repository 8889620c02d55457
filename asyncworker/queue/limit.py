"""Limits: how many jobs of a task may run at once, and how often one may start, in the whole fleet.

What is written at the task (`Limit`, `Rate`) becomes *gates* of each job: a text that says whom the gate counts, and
its numbers. Gates travel with the job; the broker lets a job through all of them or has it wait at one. Numbers that a
worker brings when it joins go before those that travel, so a new deployment also holds for what waits already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from asyncworker.errors import BadParameters

LONGEST_NAME = 255
LONGEST_KEY = 1000
FASTEST = 10_000
"""Starts a second that a rate may ask for: gates count in microseconds."""
MICROS = 1_000_000
AT_ONCE, FOR_KEY, OFTEN = "l", "k", "r"
"""The first letter of a gate's name: what it counts."""


class Limit(msgspec.Struct, frozen=True):
    """How many jobs may run at once, on all workers together.

    ``Limit(20)``: twenty of this task. ``Limit(20, key="tenant", per_key=1)``: twenty, and one for each value of the
    parameter ``tenant``; ``Limit(key="tenant", per_key=1)`` has no bound in all. Tasks whose limits have the same
    ``name`` (the task's own, unless given) share them.

    Raises:
        BadParameters: numbers or names that do not fit.
    """

    most: int | None = None
    key: str | None = None
    per_key: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for what, number in (("a limit", self.most), ("per_key", self.per_key)):
            if number is not None and (type(number) is not int or number < 1):
                raise BadParameters(f"{what} must be a whole number, 1 or more, not {number!r}")
        if (self.key is None) != (self.per_key is None):
            raise BadParameters("a limit by key needs both key= (a parameter's name) and per_key=")
        if self.most is None and self.per_key is None:
            raise BadParameters("a limit needs a number: Limit(20), or Limit(key='tenant', per_key=1)")
        _check_names(self.name, self.key)

    @property
    def numbers(self) -> list[int]:
        """What its gates count by: jobs in all, jobs of a key; 0 is any number."""
        return [self.most or 0, self.per_key or 0]


class Rate(msgspec.Struct, frozen=True):
    """How often jobs may start, on all workers together: ``count`` in each ``per`` seconds, evenly (GCRA).

    Who has waited may start ``burst`` at once; so in any ``per`` seconds there are at most ``count + burst - 1``, and
    with the default of 1 never more than ``count``. A job counts as ``cost``: a number, or the name of the parameter
    that holds it (tokens, say); none may cost more than the burst. With ``key``, the name of a parameter, each
    of its values has a rate of its own. The clock is the broker's. Tasks whose rates have the same ``name`` share them.

    Raises:
        BadParameters: numbers or names that do not fit.
    """

    count: float
    per: float = 1.0
    burst: float = 1
    cost: float | str = 1
    key: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for what in ("count", "per", "burst"):
            number = getattr(self, what)
            if not _is_number(number) or number <= 0:
                raise BadParameters(f"a rate's {what} must be a number above 0, not {number!r}")
        if self.burst < 1:
            raise BadParameters(f"a rate's burst must be at least 1, not {self.burst!r}")
        if not 1 <= self.unit_us <= MICROS * 86400 * 366 or self.count / self.per > FASTEST:
            raise BadParameters(
                f"a rate may be from one a year to {FASTEST:,} a second, not {self.count} in {self.per} s"
            )
        if not isinstance(self.cost, str):
            self.check_cost(self.cost)
        _check_names(self.name, self.key)

    def check_cost(self, cost: Any) -> float:
        """Return what one job costs, if it may.

        Raises:
            BadParameters: no number, less than 0, or more than the burst: it could never start.
        """
        if not _is_number(cost) or not 0 <= cost <= self.burst:
            raise BadParameters(f"a job's cost must be a number from 0 to its rate's burst, {self.burst}, not {cost!r}")
        return float(cost)

    @property
    def unit_us(self) -> int:
        """Microseconds from one start of cost 1 to the next."""
        return math.ceil(self.per * MICROS / self.count)

    @property
    def numbers(self) -> list[float]:
        """What its gates count by: microseconds that a cost of 1 takes, and how many may start at once."""
        return [self.unit_us, self.burst]


class Gate(NamedTuple):
    """One gate as one job meets it: a limit's lets *most* jobs in (0: any number), a rate's has *room_us*."""

    name: str
    most: int = 0
    take_us: int = 0
    room_us: int = 0


def key_of(value: Any) -> str:
    """Return the text by which the value of a key parameter is told from others.

    Raises:
        BadParameters: no text, number, date, enum or the like; or a text of more than 1,000 characters.
    """
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        plain = [value]
    if not isinstance(plain, str | int | float | None):
        raise BadParameters(f"a limit's key must be a text or a number, not {type(value).__name__}")
    text = str(plain)
    if len(text) > LONGEST_KEY:
        raise BadParameters(f"a limit's key may have {LONGEST_KEY} characters, not {len(text)}")
    return text


def gates_of(options: Mapping[str, Any], numbers: Mapping[str, Sequence[float]]) -> list[Gate]:
    """Return the gates of a job: the narrowest first. *numbers* go before those that travel with it."""
    gates = []
    if limit := options.get("limit"):
        name, most, per_key, key = limit
        most, per_key = numbers.get(AT_ONCE + name, (most, per_key))
        if key is not None:
            gates.append(Gate(f"{FOR_KEY}{name}:{key}", int(per_key)))
        gates.append(Gate(AT_ONCE + name, int(most)))
    if rate := options.get("rate"):
        name, unit_us, burst, key, cost = rate
        unit_us, burst = numbers.get(OFTEN + name, (unit_us, burst))
        take, room = math.ceil(min(cost, burst) * unit_us), math.ceil(burst * unit_us)
        gates.append(Gate(OFTEN + name if key is None else f"{OFTEN}{name}:{key}", 0, take, room))
    return gates


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value)


def _check_names(name: str, key: str | None) -> None:
    if len(name) > LONGEST_NAME or ":" in name:
        raise BadParameters(f"a limit's name has up to {LONGEST_NAME} characters and no ':'; not {name!r}")
    if key is not None and (type(key) is not str or not key.isidentifier()):
        raise BadParameters(f"a limit's key is the name of a parameter, not {key!r}")
