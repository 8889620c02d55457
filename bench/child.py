"""Processes of a bench: started in a session of their own, talked to in JSON lines, ended by pid, never by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.environment import ROOT


class ChildError(RuntimeError):
    """A peer's process ended early or said something unexpected; the message has the end of its log."""


class Child:
    """A running process: `ask` it something, or wait for it to die."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self._log = process, log

    async def ask(self, **what: Any) -> dict[str, Any]:
        """Send one JSON line and return the one that comes back. Raises ChildError."""
        if self.process.stdin is None or self.process.stdout is None:
            raise ChildError("this child was not started to talk")
        try:
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            await self.process.stdin.drain()
            line = await self.process.stdout.readline()
            answer: dict[str, Any] = json.loads(line)
        except (ValueError, OSError) as exc:
            raise ChildError(f"no answer to {what}: {self.tail()}") from exc
        return answer

    async def died(self) -> None:
        """Raise `ChildError` when the process ends, which it should not."""
        code = await self.process.wait()
        raise ChildError(f"ended with {code}: {self.tail()}")

    def tail(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-5:])[-800:]


@asynccontextmanager
async def started(
    command: Sequence[str], env: Mapping[str, str], log: Path, *, talks: bool = False
) -> AsyncIterator[Child]:
    """Run *command* in the repository's root while the block runs; what it prints goes to *log*."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **env},
            cwd=ROOT,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else errors,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches the bench alone, which then ends its children
        )
    try:
        yield Child(process, log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process, grace: float = 1.0) -> None:
    """End a process of ours and its descendants: politely, then not."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        process.kill()
    finally:
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    await process.wait()
