from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from asyncworker.cli.log import start_logging, tell
from asyncworker.events import (
    BrokerDisrupted,
    BrokerRestored,
    Bus,
    JobEnd,
    JobsEnded,
    JobsFailed,
    LeaseEnded,
    WorkerReaped,
)

NASTY = "a\nb\x1b[31m\u202e redis://u:hunter2@h"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level


def failing(log: logging.Logger) -> None:
    def nested() -> None:
        raise ValueError(NASTY)

    try:
        nested()
    except ValueError:
        log.exception("failed: %s", NASTY)


def test_a_text_line_is_one_line_and_a_traceback_is_indented() -> None:
    out = io.StringIO()
    start_logging("info", "text", out)
    log = logging.getLogger("shop")
    log.debug("not this")
    log.info("hello %s", NASTY)
    failing(log)
    first, second, *rest = out.getvalue().splitlines()
    assert re.fullmatch(
        r"[0-9-]{10} [0-9:]{8}[+-][0-9:]{5} INFO shop: hello a\\nb\\x1b\[31m\\u202e redis://u:\*\*\*@h", first
    )
    assert " ERROR shop: failed: a\\nb" in second
    assert rest
    assert all(line.startswith("  | ") for line in rest)
    assert "hunter2" not in out.getvalue()


def test_a_json_line_is_one_object() -> None:
    out = io.StringIO()
    start_logging("info", "json", out)
    failing(logging.getLogger("shop"))
    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert told.keys() == {"time", "level", "logger", "message", "error"}
    assert told["level"] == "error"
    assert told["message"] == "failed: a\\nb\\x1b[31m\\u202e redis://u:***@h"
    assert "ValueError" in told["error"]
    assert "hunter2" not in line


def test_what_happens_to_a_worker_is_told() -> None:
    out, bus = io.StringIO(), Bus()
    start_logging("info", "text", out)
    tell(bus)
    bus.emit(BrokerDisrupted(broker="redis://h", error="gone"))
    bus.emit(BrokerRestored(broker="redis://h", outage_s=2.5))
    bus.emit(LeaseEnded(epoch="e", because="silent for too long"))
    bus.emit(WorkerReaped(epoch="e", jobs=3))
    assert not bus.wants(JobsEnded), "workers need not tell of each job"
    bus.emit(JobsFailed(epoch="e", ends=[JobEnd("mail", "q", "failed", 0, 1.5)]))
    assert [line.split(" ", 2)[2] for line in out.getvalue().splitlines()] == [
        "WARNING asyncworker.worker: the broker redis://h is gone: gone",
        "INFO asyncworker.worker: the broker redis://h is back after 2.5 s",
        "WARNING asyncworker.worker: lost its lease and begins anew: silent for too long",
        "WARNING asyncworker.worker: worker e died; 3 jobs were given back",
        "WARNING asyncworker.worker: mail on q: failed after 1.5 s",
    ]


def test_who_logs_all_is_told_of_each_job() -> None:
    out, bus = io.StringIO(), Bus()
    start_logging("debug", "text", out)
    tell(bus)
    assert not bus.wants(JobsFailed)
    bus.emit(JobsEnded(epoch="e", ends=[JobEnd("mail", "q", "failed", 0, 1.5), JobEnd("mail", "q", "succeeded", 0, 1)]))
    assert [line.split(" ")[2] for line in out.getvalue().splitlines()] == ["WARNING", "DEBUG"]
