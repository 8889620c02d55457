"""Words for people: texts that stay on one line, and numbers that can be read at a glance."""

from __future__ import annotations

from datetime import UTC, datetime


def one_line(text: str) -> str:
    """Return *text* with what is not printable escaped: line ends, colours of a terminal, marks that turn the writing."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def count(number: float) -> str:
    return f"{number:,.0f}"


def switches(paused: bool, most: int | None) -> str:
    """Return what is set of a queue."""
    return ", ".join(filter(None, ("paused" if paused else "", "" if most is None else f"at most {count(most)}")))


def duration(seconds: float) -> str:
    """Return ``2.5 ms``, ``0.25 s``, ``12 s``, ``3:20 min`` or ``2:05 h``."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def size(number: float) -> str:
    """Return bytes as ``512 B``, ``1.5 kB``, ``120 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def date(seconds: float) -> str:
    """Return a date in this machine's time zone, to the second."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "seconds")
