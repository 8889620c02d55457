"""Ending: how a job ended, as an error that can be raised, or handed to the job that waited for it."""

from __future__ import annotations

from typing import Any

from asyncworker.errors import JobCancelled, JobFailed, TaskCancelled, TaskExpired, TaskFailed, TaskTimeout
from asyncworker.queue.job import Reason, Record, State


def error_of(job_id: str, state: State, record: Record, *, parent: bool = False) -> Exception:
    """Return the error that tells how a job ended. Types are chosen here, never named by the record."""
    text = f"{record.error_type}: {record.error_text}" if record.error_type else record.error_text
    if state is State.CANCELLED:
        why = f"job {job_id} was cancelled" + (f": {text}" if text else "")
        return JobCancelled(why) if parent else TaskCancelled(why)
    if state is State.EXPIRED:
        return TaskExpired(f"job {job_id} has expired" + (f": {text}" if text else ""))
    about = {
        "job_id": job_id,
        "reason": record.reason,
        "error_type": record.error_type,
        "error_text": record.error_text,
    }
    message = f"job {job_id} failed ({record.reason or Reason.ERROR}): {text}"
    if parent:
        detail: dict[str, Any] = record.detail if isinstance(record.detail, dict) else {}
        failures = detail.get("failures") or ()
        return JobFailed(message, partial=detail.get("partial"), failures=failures, **about)
    return (TaskTimeout if record.reason == Reason.TIMEOUT else TaskFailed)(message, **about)
