"""A child ends with its parent: killed, or its thread gone, or asked to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import psutil
import pytest

from asyncworker import lifeline
from asyncworker.lifeline import Child
from tests.support import leaks

SLEEP = ["/bin/sleep", "60"]

PARENT = """
import sys
from asyncworker import lifeline
lifeline.TETHER = sys.argv[1]
lifeline.Child(["/bin/sh", "-c", "echo $$; exec sleep 60"])
sys.stdin.read()
"""


@pytest.fixture(params=["pipe", *(["signal"] if sys.platform == "linux" else [])])
def tether(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lifeline, "TETHER", request.param)
    return request.param


def test_ends_when_the_parent_is_killed(tether: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tether], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert not leaks.ended(child, patience=0.0)
        parent.kill()
    assert leaks.ended(child)


def test_does_not_start_for_a_parent_that_is_already_gone(tether: str) -> None:
    other = subprocess.run(
        [sys.executable, "-ISc", lifeline._BECOME, tether, "1", *SLEEP],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=10,
    )
    assert other.returncode == {"signal": 1, "pipe": -signal.SIGTERM}[tether]


def test_outlives_the_thread_that_asked_for_it(tether: str) -> None:
    made: list[Child] = []
    asking = threading.Thread(target=lambda: made.append(Child(SLEEP)))
    asking.start()
    asking.join()
    (child,) = made
    assert child.wait(0.05) is None
    assert repr(child) == f"<Child {child.pid} running>"
    assert child.stop() == -signal.SIGTERM
    assert not psutil.pid_exists(child.pid)
    assert repr(child) == f"<Child {child.pid} ended>"
    assert child.stop() == -signal.SIGTERM


def test_is_killed_when_it_does_not_listen() -> None:
    child = Child(["/bin/sh", "-c", "trap '' TERM; echo ready; sleep 60 & wait; wait"], stdout=subprocess.PIPE)
    assert child._process.stdout.readline() == b"ready\n"
    assert child.stop(grace=0.0) == -signal.SIGKILL


def test_tells_its_exit_code(tether: str) -> None:
    assert Child(["/bin/sh", "-c", "exit 7"]).wait(10) == 7


def test_raises_what_starting_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        Child(SLEEP, prefix=["/no/such/program"])
