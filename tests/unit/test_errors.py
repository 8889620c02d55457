from __future__ import annotations

import inspect
import re

import pytest

from asyncworker import errors
from asyncworker.errors import AsyncWorkerError, JobFailed, Retry, Snooze, TaskFailed, UnknownName, nearest

TREE = {
    cls.__name__: cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, AsyncWorkerError)
}


def drawn() -> dict[str, str]:
    """Return the tree as the module's docstring draws it: name -> the name above it."""
    lines = (errors.__doc__ or "").partition("\n\n")[2].splitlines()
    assert lines[0] == "AsyncWorkerError"
    above = {"AsyncWorkerError": "Exception"}
    for line in lines[1:]:
        names = re.match(r"[├└]─ ([\w ─·]+)", line)
        assert names, line
        base, *below = re.split(r" ─ ", names.group(1).partition("   ")[0].strip())
        for name in base.split(" · "):
            above[name.strip()] = "AsyncWorkerError"
        for name in " · ".join(below).split(" · ") if below else []:
            above[name.strip()] = base
    return above


def test_the_drawing_shows_every_class_and_no_other():
    assert drawn() == {name: cls.__bases__[0].__name__ for name, cls in TREE.items()}


@pytest.mark.parametrize("cls", [cls for cls in TREE.values() if cls not in {UnknownName, Snooze}])
def test_the_docstring_is_the_default_message(cls: type[AsyncWorkerError]):
    assert str(cls()) == inspect.getdoc(cls).partition("\n")[0]
    assert str(cls("other words")) == "other words"
    assert str(cls()).endswith(".") or ";" in str(cls())


@pytest.mark.parametrize("cls", TREE.values())
def test_one_except_catches_all(cls: type[AsyncWorkerError]):
    error = {UnknownName: lambda: cls("task", "x"), Snooze: lambda: cls(1.0)}.get(cls, cls)()
    with pytest.raises(AsyncWorkerError):
        raise error


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("BadParameters", ValueError),
        ("DecodeError", ValueError),
        ("JobTooBig", ValueError),
        ("BrokerDown", ConnectionError),
        ("UnknownName", LookupError),
        ("JobNotFound", LookupError),
        ("ResultExpired", LookupError),
    ],
)
def test_what_they_are_in_pythons_own_words(name: str, builtin: type[Exception]):
    assert issubclass(TREE[name], builtin)


def test_unknown_names_name_the_nearest():
    error = UnknownName("function", "data_validaton", ["word_count", "data_validation"])
    assert (error.kind, error.name, error.nearest) == ("function", "data_validaton", "data_validation")
    assert str(error) == "unknown function 'data_validaton'; did you mean 'data_validation'?"
    assert str(UnknownName("function", "zzz", ["word_count"])) == "unknown function 'zzz'"
    assert nearest("zzz", ["word_count"]) is None
    assert nearest("redsi", (name for name in ("memory", "redis"))) == "redis"


def test_failures_tell_what_the_worker_wrote():
    failed = TaskFailed(job_id="j", reason="timeout", error_type="E", error_text="x")
    assert (failed.job_id, failed.reason, failed.error_type, failed.error_text) == ("j", "timeout", "E", "x")
    job = JobFailed("no", partial={"n": 1}, failures=[2], job_id="j")
    assert isinstance(job, TaskFailed)
    assert (job.partial, job.failures, job.job_id, job.reason) == ({"n": 1}, [2], "j", "error")


def test_signals_say_when():
    assert (Retry().delay, Retry(delay=2).delay, Snooze(3).delay) == (None, 2, 3)
    assert str(Snooze(3)) == "Run this job again after *delay* seconds; no attempt is spent."
