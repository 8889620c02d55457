"""Child processes that end when this one does, even when it is killed and can say no word.

Linux signals a child when the *thread* that started it ends (``PR_SET_PDEATHSIG``), so a thread of its own
starts each child and stays with it. Elsewhere a small process waits at a pipe whose other end we hold.
Both are set up by a few lines of Python between us and the program, because a ``preexec_fn`` may deadlock in a
process with threads. They become the program, so its pid is that of the process we started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

TETHER = "signal" if sys.platform == "linux" else "pipe"

_BECOME = """
import os, sys
tether, parent, program = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if tether == "signal":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
    if os.getppid() != parent:  # it ended before this
        sys.exit("the parent process is gone")
else:
    me = os.getpid()
    if os.fork() == 0:
        os.read(0, 1)  # returns when nobody holds the other end
        if os.getppid() == me:
            os.kill(me, 15)
        os._exit(0)
os.execv(program[0], program)
"""


class Child:
    """A running program that gets SIGTERM when this process ends, however it ends.

    It has a session of its own, so that a Ctrl-C in the terminal reaches only us.
    """

    def __init__(self, program: Sequence[str], *, prefix: Sequence[str] = (), **options: Any) -> None:
        """Start *program*: an absolute path and its arguments.

        Args:
            prefix: a command that runs its arguments in its own place, as ``nice`` does.
            options: what `subprocess.Popen` takes.

        Raises:
            OSError: it could not be started. Cost: the start of a Python interpreter, about 20 ms.
        """
        self._command = [*prefix, sys.executable, "-ISc", _BECOME, TETHER, str(os.getpid()), *program]
        self._options = {"stdin": subprocess.PIPE if TETHER == "pipe" else subprocess.DEVNULL} | options
        born: Future[subprocess.Popen[Any]] = Future()
        self._thread = threading.Thread(target=self._stay, args=(born,), name="asyncworker-child", daemon=True)
        self._thread.start()
        self._process = born.result()
        self.pid = self._process.pid

    def __repr__(self) -> str:
        return f"<Child {self.pid} {'running' if self.running else 'ended'}>"

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code, or None when it still runs after *timeout* seconds."""
        self._thread.join(timeout)
        return None if self.running else self._process.returncode

    def stop(self, sign: signal.Signals = signal.SIGTERM, grace: float = 5.0) -> int | None:
        """Ask it to end and wait; kill it after *grace* seconds. Returns the exit code."""
        if self.running:
            self.send(sign)
            self._thread.join(grace)
        if self.running:
            self.send(signal.SIGKILL)
        return self.wait()

    def send(self, sign: signal.Signals) -> None:
        """Signal it, if it still runs, and do not wait."""
        self._process.send_signal(sign)

    def _stay(self, born: Future[subprocess.Popen[Any]]) -> None:
        try:
            process: subprocess.Popen[Any] = subprocess.Popen(self._command, start_new_session=True, **self._options)
        except OSError as exc:
            born.set_exception(exc)
            return
        with process:  # waits, and closes the pipe
            born.set_result(process)
            process.wait()
