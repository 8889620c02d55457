"""Callee: the other side of `executors/process.py`, a process that is asked to call functions, one at a time.

Functions are found by the module and name under which they were registered; arguments, results and errors travel as
MessagePack through a socket that only the two processes hold, large buffers through shared memory beside it
(`share.segment`). It ends when that socket does.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from typing import Any

import msgspec

from asyncworker.share.segment import Freight, load, unload
from asyncworker.share.wire import receive_now, send_now
from asyncworker.work.finder import find

encode = msgspec.msgpack.encode


class Request(msgspec.Struct, array_like=True):
    """A call: of what, and its arguments. Freight is numbered through, positional ones first."""

    module: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    freight: list[Freight] = []


_decode_request = msgspec.msgpack.Decoder(Request).decode


class Raised(msgspec.Struct, array_like=True):
    """An error on its way: its class by name, its arguments, and what else was put into it."""

    module: str
    name: str
    args: list[Any]
    state: dict[str, Any]
    text: str


class Answer(msgspec.Struct, array_like=True):
    """What became of a call."""

    value: Any = None
    raised: Raised | None = None
    freight: list[Freight] = []


def serve(descriptor: int) -> None:
    """Answer what is asked through this socket until the other end is gone."""
    with socket.socket(fileno=descriptor) as wire:
        while True:
            try:
                request, segment = receive_now(wire)
            except EOFError:
                return
            answer, segment = _answer(request, segment)
            send_now(wire, answer, segment)
            if segment >= 0:
                os.close(segment)


def _answer(data: bytes, segment: int) -> tuple[bytes, int]:
    request = _decode_request(data)
    try:
        function, signature = find(request.module, request.name)
        whole = unload([*request.args, *request.kwargs.values()], request.freight, segment)
        args, names = whole[: len(request.args)], whole[len(request.args) :]
        places, kwargs = signature.convert(args, dict(zip(request.kwargs, names, strict=True)))
        value = function(*places, **kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        (value,), freight, back = load([value])
        return encode(Answer(value, freight=freight)), back
    except BaseException as exc:
        return _told(exc), -1


def _told(exc: BaseException) -> bytes:
    kind = type(exc)
    text = ascii(str(exc)) if not str(exc).isprintable() else str(exc)
    raised = Raised(kind.__module__, kind.__qualname__, list(exc.args), vars(exc), text)
    try:
        return encode(Answer(raised=raised))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return encode(Answer(raised=Raised(raised.module, raised.name, [text], {}, text)))
