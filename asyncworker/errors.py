"""Every error that asyncworker raises, as one tree; a class's docstring is its default message.

AsyncWorkerError
├─ SettingsError                   configuration that cannot be used
├─ UnknownName                     a name that nobody registered
├─ BadParameters                   arguments or parameters that do not fit
├─ DecodeError                     bytes that are no message
├─ SourceError ─ EmptyDataset      a dataset, file or table that cannot be read or written
├─ BrokerError ─ BrokerDown · LeaseLost · QueueFull · JobTooBig
├─ KeepError                       what should be kept cannot be read or written
├─ StoreError                      a large result cannot be stored or fetched
├─ PoolError ─ PoolDown · PoolTimeout · PoolClosed     a pool of connections that gives none
├─ ChannelClosed                   a message queue between processes that is closed, or whose owner is gone
├─ JobNotFound · ResultExpired     an id that nobody knows, or no longer
├─ JobExists                       a unique job that is there already
├─ TaskFailed ─ TaskTimeout · JobFailed
├─ TaskCancelled ─ JobCancelled
├─ TaskExpired
└─ Signal ─ Retry · Snooze · Discard      raised by a task to steer its job; no failures
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class AsyncWorkerError(Exception):
    """Something went wrong in asyncworker."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class SettingsError(AsyncWorkerError):
    """The configuration cannot be used."""


class UnknownName(AsyncWorkerError, LookupError):
    """Nobody registered this name.

    Attributes: ``kind`` of thing asked for, ``name`` asked for, ``nearest`` known name or None.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str] = ()) -> None:
        self.kind, self.name, self.nearest = kind, name, nearest(name, known)
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"unknown {kind} {name!r}{hint}")


class BadParameters(AsyncWorkerError, ValueError):
    """The parameters do not fit what they are for."""


class DecodeError(AsyncWorkerError, ValueError):
    """These bytes are no message of ours."""


class SourceError(AsyncWorkerError):
    """The source or sink cannot be used."""


class EmptyDataset(SourceError):
    """The dataset has no rows at all."""


class BrokerError(AsyncWorkerError):
    """The broker refused."""


class BrokerDown(BrokerError, ConnectionError):
    """The broker cannot be reached."""


class LeaseLost(BrokerError):
    """This worker's lease has ended; what it held belongs to others now."""


class QueueFull(BrokerError):
    """The queue takes no more jobs for now."""


class JobTooBig(BrokerError, ValueError):
    """The job's arguments take more bytes than a job may have."""


class KeepError(AsyncWorkerError):
    """The place for what should be kept cannot be reached or used."""


class StoreError(AsyncWorkerError):
    """The place for large results cannot be reached or used, or what lies there was changed."""


class PoolError(AsyncWorkerError):
    """The pool gives no connection."""


class PoolDown(PoolError, ConnectionError):
    """What the pool connects to cannot be reached."""


class PoolTimeout(PoolError, TimeoutError):
    """No connection became free in time."""


class PoolClosed(PoolError):
    """The pool is closed."""


class ChannelClosed(AsyncWorkerError, ConnectionError):
    """The channel between the processes is closed."""


class JobNotFound(AsyncWorkerError, LookupError):
    """No job has this id."""


class JobExists(AsyncWorkerError):
    """A job with this unique key is not over yet.

    Attributes: ``job_id`` of the one that is there.
    """

    def __init__(self, message: str = "", *, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class ResultExpired(AsyncWorkerError, LookupError):
    """The job is over and its result is no longer kept."""


class TaskFailed(AsyncWorkerError):
    """The job failed.

    Attributes: ``job_id``; ``reason`` (error, timeout, worker_lost, bad_payload, dependency, unknown_task);
    ``error_type`` and ``error_text`` as the worker wrote them (text: no class is looked up by name).
    """

    def __init__(
        self, message: str = "", *, job_id: str = "", reason: str = "error", error_type: str = "", error_text: str = ""
    ) -> None:
        super().__init__(message)
        self.job_id, self.reason, self.error_type, self.error_text = job_id, reason, error_type, error_text


class TaskTimeout(TaskFailed):
    """The job ran longer than its timeout, in each of its attempts."""


class JobFailed(TaskFailed):
    """The map/reduce job failed.

    Attributes: ``partial`` summary of what did succeed, ``failures`` (a bounded list of records).
    """

    def __init__(self, message: str = "", *, partial: object = None, failures: object = (), **about: str) -> None:
        super().__init__(message, **about)
        self.partial, self.failures = partial, failures

    @property
    def detail(self) -> dict[str, object]:
        """What travels with the job's record beside the message."""
        return {"partial": self.partial, "failures": self.failures}


class TaskCancelled(AsyncWorkerError):
    """The job was cancelled."""


class JobCancelled(TaskCancelled):
    """The map/reduce job was cancelled."""


class TaskExpired(AsyncWorkerError):
    """The job was not started in time."""


class Signal(AsyncWorkerError):
    """Raised by a task to say what becomes of its job."""


class Retry(Signal):
    """Run this job again after *delay* seconds (None: the task's own back-off); spends an attempt."""

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class Snooze(Signal):
    """Run this job again after *delay* seconds; no attempt is spent."""

    def __init__(self, delay: float, message: str = "") -> None:
        super().__init__(message)
        self.delay = delay


class Discard(Signal):
    """Give this job up: it ends as cancelled, with this reason."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that *name* was probably meant to be, or None."""
    import difflib  # noqa: PLC0415 - mostly nobody errs

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)
