"""Process: plain functions run in processes of their own, for what keeps a processor busy and holds the interpreter.

Each process runs one call at a time. A call that is cancelled (timeout, cancel, shutdown) ends at once, for its process
is killed and another takes its place; so a process that dies fails that call alone. They end with this process,
however it ends. A call costs two messages, about 0.1 ms; the first of a process also the imports of its module.

Large ``bytes``, and every other buffer (an array, a memoryview, numpy's arrays), go through shared memory and not through
the socket, there and back (`share.segment`): a parameter annotated ``memoryview`` is given the memory itself, read-only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from asyncworker.errors import DecodeError, SettingsError
from asyncworker.lifeline import Child
from asyncworker.processors import usable
from asyncworker.share.segment import load, unload
from asyncworker.share.wire import receive, send
from asyncworker.work.callee import Answer, Raised, Request, encode

_BEGIN = "import sys; sys.path[:] = sys.argv[2:]; from asyncworker.work.callee import serve; serve(int(sys.argv[1]))"
_decode = msgspec.msgpack.Decoder(Answer).decode


class ProcessExecutor:
    """Run plain functions in processes, which are made when needed and kept.

    Args:
        processes: how many there may be; None is one a usable processor. Further calls wait.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._most = processes or len(usable())
        self._open()

    def _open(self) -> None:
        self._room = asyncio.Semaphore(self._most)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    def bind(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Return what calls *function* in another process.

        Raises:
            SettingsError: it has no name there: it is local, a lambda, or part of the main script.
        """
        module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "<unnamed>")
        if "<" in name or module == "__main__":
            raise SettingsError(
                f"{module}.{name} cannot run in a process: put it at the top of a module that is imported,"
                " or give it executor='thread'"
            )

        async def call(*args: Any, **kwargs: Any) -> Any:
            rest, freight, segment = load([*args, *kwargs.values()])
            try:
                names = dict(zip(kwargs, rest[len(args) :], strict=True))
                request = encode(Request(module, name, rest[: len(args)], names, freight))
                return await self._ask(request, segment)
            finally:
                if segment >= 0:
                    os.close(segment)

        return call

    def close(self) -> None:
        ending, idle = self._all, self._idle
        self._open()
        for process in ending:
            process.child.send(signal.SIGKILL)
        for process in idle:
            process.close()
        for process in ending:
            process.child.wait(5)

    async def _ask(self, request: bytes, segment: int) -> Any:
        async with self._room:
            everyone, idle = self._all, self._idle
            process = idle.pop() if idle else _Process()
            everyone.add(process)
            try:
                answer, value = await process.ask(request, segment)
            except BaseException as exc:
                everyone.discard(process)
                process.close()
                if isinstance(exc, EOFError | OSError):
                    raise ChildProcessError(f"the process of this call ended: {process.fate()}") from exc
                if isinstance(exc, DecodeError):
                    raise DecodeError(f"the answer of a process cannot be read: {exc}") from exc
                raise
            idle.append(process)
        if answer.raised is not None:
            raise _error(answer.raised)
        return value


class _Process:
    """One process, and our end of the socket to it."""

    def __init__(self) -> None:
        self._wire, theirs = socket.socketpair()
        self._wire.setblocking(False)
        with theirs:
            path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - a text among texts
            program = [sys.executable, "-c", _BEGIN, str(theirs.fileno()), *path]
            self.child = Child(program, pass_fds=(theirs.fileno(),))

    async def ask(self, request: bytes, segment: int) -> tuple[Answer, Any]:
        """Send a request, with a segment or -1, and return its answer and value.

        Raises:
            EOFError, OSError: the process is gone. DecodeError: its answer is none.
        """
        await send(self._wire, request, segment)
        data, segment = await receive(self._wire)
        try:
            answer = _decode(data)
        except msgspec.DecodeError as exc:
            if segment >= 0:
                os.close(segment)
            raise DecodeError(str(exc)) from exc
        return answer, unload([answer.value], answer.freight, segment)[0]

    def close(self) -> None:
        """Kill it. Not while it is asked: then kill the child alone, and the call sees the end of its socket."""
        self.child.send(signal.SIGKILL)
        self._wire.close()

    def fate(self) -> str:
        code = self.child.wait(1)
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


def _error(raised: Raised) -> BaseException:
    """Return the error as it was raised there, where its class is known here; nothing is imported for it."""
    kind: Any = sys.modules.get(raised.module)
    for part in raised.name.split("."):
        kind = getattr(kind, part, None)
    if isinstance(kind, type) and issubclass(kind, Exception | SystemExit):
        try:
            error = kind.__new__(kind, *raised.args)
        except TypeError:  # it is made in a way of its own
            return RuntimeError(f"{raised.name}: {raised.text}")
        error.args = tuple(raised.args)
        vars(error).update(raised.state)
        return error
    return RuntimeError(f"{raised.name}: {raised.text}")


def open() -> ProcessExecutor:
    """Return the executor of plain functions that keep a processor busy."""
    return ProcessExecutor()
