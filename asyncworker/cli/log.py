"""Log lines of a command, for people or for machines. One line each; no control character, no password."""

from __future__ import annotations

import logging
from typing import TextIO

import msgspec

from asyncworker.cli.line import count, date, duration, one_line
from asyncworker.events import (
    BrokerDisrupted,
    BrokerRestored,
    Bus,
    JobAbandoned,
    JobsEnded,
    JobsFailed,
    LeaseEnded,
    WorkerReaped,
)
from asyncworker.secret import mask_text

log = logging.getLogger("asyncworker.worker")


class TextLines(logging.Formatter):
    """``2026-01-31 12:00:00+01:00 WARNING asyncworker.worker: …``; the lines of a traceback follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        first = f"{date(record.created)} {record.levelname} {record.name}: {_clean(record.getMessage())}"
        return "\n  | ".join((first, *_traceback(record)))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and error where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = "\n".join(_traceback(record))
        return msgspec.json.encode(line).decode()


def _clean(text: str) -> str:
    return one_line(mask_text(text))


def _traceback(record: logging.LogRecord) -> list[str]:
    lines = logging.Formatter().formatException(record.exc_info).splitlines() if record.exc_info else []
    return [_clean(line) for line in lines]


def start_logging(level: str, form: str, stream: TextIO) -> None:
    """Send the log lines of this process to *stream*, in the *form* ``text`` or ``json``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def tell(bus: Bus) -> None:
    """Write a line for what happens to a worker that people may have to look after."""
    bus.listen(BrokerDisrupted, lambda e: log.warning("the broker %s is gone: %s", e.broker, e.error))
    bus.listen(BrokerRestored, lambda e: log.info("the broker %s is back after %s", e.broker, duration(e.outage_s)))
    bus.listen(LeaseEnded, lambda e: log.warning("lost its lease and begins anew: %s", e.because))
    bus.listen(WorkerReaped, lambda e: log.warning("worker %s died; %s jobs were given back", e.epoch, count(e.jobs)))
    bus.listen(JobAbandoned, _abandoned)
    if log.isEnabledFor(logging.DEBUG):
        bus.listen(JobsEnded, _ended)
    else:
        bus.listen(JobsFailed, _ended)


def _abandoned(event: JobAbandoned) -> None:
    place = " > ".join(event.stack) or "nowhere"
    log.error("job %s of %s did not stop when it was cancelled, and was abandoned at %s", event.id, event.task, place)


def _ended(event: JobsEnded | JobsFailed) -> None:
    for end in event.ends:
        level = logging.WARNING if end.status == "failed" else logging.DEBUG
        log.log(level, "%s on %s: %s after %s", end.task, end.queue, end.status, duration(end.duration_s))
