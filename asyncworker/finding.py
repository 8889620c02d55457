"""Finding: what somebody who looks a part of the house over has to say of it, and how to mend it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    FINE = "fine"
    NOTE = "note"  # it works, and may not on a bad day
    BAD = "bad"  # it does not work, or jobs will be lost


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: *said* is what was seen there, *mend* what to do where it is not fine."""

    about: str
    level: Level
    said: str
    mend: str = ""


def fine(about: str, said: str) -> Finding:
    return Finding(about, Level.FINE, said)


def note(about: str, said: str, mend: str) -> Finding:
    return Finding(about, Level.NOTE, said, mend)


def bad(about: str, said: str, mend: str) -> Finding:
    return Finding(about, Level.BAD, said, mend)
