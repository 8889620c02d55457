"""Templates: HTML made of views, everything escaped; and the words in which numbers and dates are shown."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import msgspec

from asyncworker import __version__
from asyncworker.cli.line import count, date, duration, size

HERE = Path(__file__).parent
STATIC = HERE / "static"
NONE = "\u2013"
UNITS = (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 2 * 86400))
"""Of lengths of time: seconds in one, and up to how many seconds it is used."""

TONES = {
    "succeeded": "good",
    "failed": "bad",
    "cancelled": "",
    "expired": "warn",
    "running": "busy",
    "started": "busy",
    "queued": "",
    "scheduled": "late",
    "due": "late",
    "retrying": "warn",
    "blocked": "warn",
}
"""By state: the class of what shows it; its word is always there, too."""
PARTS = {"succeeded": "done", "running": "running", "failed": "failed", "cancelled": "failed", "expired": "failed"}


class Page(NamedTuple):
    """What a page shows: its template, title and values."""

    name: str
    title: str
    values: dict[str, Any]


def seen(text: object) -> str:
    """Return *text* with what would not be seen, or would turn the writing, as escapes; line ends and tabs stay."""
    known = str(text)
    if known.isprintable():
        return known
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in known)


def pretty(text: str) -> str:
    """Return JSON with indents; what is none, for it was cut short, as it is."""
    try:
        return msgspec.json.format(text, indent=2)
    except msgspec.DecodeError:
        return text


def key(text: str) -> str:
    """Return what can be part of an element's id, and differs where *text* does: rows that can be acted on keep theirs."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def number(value: float | None) -> str:
    return NONE if value is None else count(value)


def rate(value: float | None) -> str:
    """Return a rate: whole from 10 a second on, else two digits."""
    if value is None:
        return NONE
    return count(value) if value >= 9.95 else f"{value:.2g}"


def dur(value: float | None) -> str:
    return NONE if value is None else "0 s" if value <= 0 else duration(value)


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}".replace("%", " %")


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f} %"


def octets(value: float | None) -> str:
    return NONE if not value else size(value)


def ago(at_s: float, now_s: float) -> str:
    """Return ``12 s ago``, ``in 5 min`` or ``3 days ago``."""
    seconds = abs(now_s - at_s)
    if seconds < 1:
        return "now"
    unit, length = next(((unit, length) for unit, length, most in UNITS if seconds < most), ("days", 86400))
    told = f"{seconds // length:.0f} {unit}"
    return f"{told} ago" if now_s >= at_s else f"in {told}"


def iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")


def measured(value: float | None, kind: str) -> str:
    return {"bytes": octets, "seconds": dur, "share": share}.get(kind, number)(value)


def static(name: str) -> str:
    """Return the address of a file of ours, another one whenever it changes."""
    return f"/static/{quote(name)}?{_digest(STATIC / name)}"


def _digest(path: Path) -> str:
    if path not in _DIGESTS:
        _DIGESTS[path] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return _DIGESTS[path]


_DIGESTS: dict[Path, str] = {}


def environment() -> jinja2.Environment:
    """Return what renders our templates."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters |= {
        "ago": ago,
        "date": date,
        "dur": dur,
        "first_line": lambda text: (text.strip().splitlines() or [""])[0],
        "iso": iso,
        "key": key,
        "measured": measured,
        "num": number,
        "part": lambda state: PARTS.get(state, "waits"),
        "percent": percent,
        "pretty": pretty,
        "rate": rate,
        "seen": seen,
        "share": share,
        "size": octets,
        "tone": lambda state: TONES.get(state, ""),
    }
    env.globals |= {"static": static, "version": __version__}
    return env


class Renderer:
    """Render pages, whole or in part.

    Args:
        more: what all templates may use.
    """

    def __init__(self, **more: Any) -> None:
        self._env = environment()
        self._env.globals |= more

    def render(self, name: str, block: str, values: dict[str, Any]) -> str:
        """Return a page, or one *block* of it ("": the whole page)."""
        template = self._env.get_template(f"{name}.html")
        ui = self._env.get_template("ui.html").make_module(values)
        values = {**values, "ui": ui}
        if not block:
            return template.render(values)
        return "".join(template.blocks[block](template.new_context(values)))
