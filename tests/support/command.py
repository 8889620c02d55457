"""The command ``asyncworker`` as people run it: a process of its own, in a directory and environment of the test's."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import psutil

from asyncworker.cli import main

PATIENCE = 30.0


def environment(**variables: str) -> dict[str, str]:
    """Return this process's variables without those that settings come from, and with *variables*."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCWORKER_")}
    return {name: value for name, value in own.items() if name not in {"NO_COLOR", "FORCE_COLOR"}} | variables


@contextlib.contextmanager
def started(*words: str, cwd: Path, stdin: int | None = subprocess.DEVNULL, **variables: str) -> Iterator[Running]:
    """Start the command; it is killed at the end of the block if it still runs."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "asyncworker", *words],
            cwd=cwd,
            env=environment(**variables),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        running = Running(process, log)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
            running.last = running.said


class Running:
    """A command under way."""

    def __init__(self, process: subprocess.Popen[bytes], log: BinaryIO) -> None:
        self.process, self._log = process, log
        self.last = ""

    @property
    def said(self) -> str:
        """What stands on standard error so far."""
        if self._log.closed:
            return self.last
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", "replace")

    def wait_for(self, words: str) -> str:
        """Return what stands on standard error as soon as *words* are in it."""
        deadline = time.monotonic() + PATIENCE
        while words not in (said := self.said):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {said}"
            assert time.monotonic() < deadline, f"no {words!r} in: {said}"
            time.sleep(0.01)
        return said

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, sign: signal.Signals) -> None:
        self.process.send_signal(sign)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; returns the exit code, standard output and standard error."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), self.said


def call(*words: str, cwd: Path, **variables: str) -> tuple[int, str, str]:
    """Run the command in this process, which takes a tenth of the time; returns what `run` does."""
    out, err, known = io.StringIO(), io.StringIO(), set(sys.modules)
    with (
        contextlib.chdir(cwd),
        patch.dict(os.environ, environment(**variables), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(list(words))
        finally:  # as in a process of its own: the next call's module of that name is another
            for name in sys.modules.keys() - known:
                if "." not in name and Path(getattr(sys.modules[name], "__file__", None) or "/").parent == cwd:
                    del sys.modules[name]
    return code, out.getvalue(), err.getvalue()


def run(*words: str, cwd: Path, **variables: str) -> tuple[int, str, str]:
    """Run the command to its end; returns the exit code, standard output and standard error."""
    with started(*words, cwd=cwd, **variables) as running:
        return running.end()
