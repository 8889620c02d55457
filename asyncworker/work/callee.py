"""Callee: the other side of `executors/process.py`, a process that is asked to call functions, one at a time.

Functions are found by the module and name under which they were registered; arguments, results and errors travel as
MessagePack through a socket that only the two processes hold. It ends when that socket does.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from functools import cache
from inspect import isroutine
from typing import Any

import msgspec

from asyncworker.work.signature import Signature

LENGTH = 8
"""Each message is its length, in so many bytes, and itself."""

encode = msgspec.msgpack.encode
_decode_request = msgspec.msgpack.Decoder(tuple[str, str, list[Any], dict[str, Any]]).decode


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


def serve(descriptor: int) -> None:
    """Answer what is asked through this socket until the other end is gone."""
    with socket.socket(fileno=descriptor) as wire:
        while request := _receive(wire):
            answer = _answer(request)
            wire.sendall(len(answer).to_bytes(LENGTH, "big") + answer)


def _receive(wire: socket.socket) -> bytes:
    head = wire.recv(LENGTH, socket.MSG_WAITALL)
    length = int.from_bytes(head, "big")
    data = bytearray()
    while len(data) < length and (more := wire.recv(min(length - len(data), 2**20))):
        data += more
    return bytes(data) if len(head) == LENGTH and len(data) == length else b""


def _answer(request: bytes) -> bytes:
    module, name, args, kwargs = _decode_request(request)
    try:
        function, signature = find(module, name)
        places, names = signature.convert(args, kwargs)
        return encode(Answer(function(*places, **names)))
    except BaseException as exc:
        return _told(exc)


def _told(exc: BaseException) -> bytes:
    kind = type(exc)
    text = ascii(str(exc)) if not str(exc).isprintable() else str(exc)
    raised = Raised(kind.__module__, kind.__qualname__, list(exc.args), vars(exc), text)
    try:
        return encode(Answer(raised=raised))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return encode(Answer(raised=Raised(raised.module, raised.name, [text], {}, text)))


@cache
def find(module: str, name: str) -> tuple[Callable[..., Any], Signature]:
    """Return a function by its module and qualified name, where there may stand a task made of it."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function = found if isroutine(found) else getattr(found, "__wrapped__", found)
    return function, Signature(function)
