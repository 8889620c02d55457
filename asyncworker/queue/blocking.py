"""A connection to Redis for a thread that has nothing else to do: one command at a time, nothing is repeated."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Any, Self

import hiredis

from asyncworker.queue.addresses.address import Refused, Target
from asyncworker.queue.near import Near

PIECE = 65536


class Blocking:
    """An open connection; `close` it. Once a call was given up, or is lost, it is of no more use.

    Args:
        patience: seconds that the server may be silent.

    Raises:
        OSError: nobody is there. Refused: somebody is, and refuses.
    """

    def __init__(self, to: Target, patience: float) -> None:
        self._reader = hiredis.Reader(replyError=Refused)
        self._turn = threading.Lock()
        self._near = Near()
        self._ready = select.poll()
        if to.path:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(patience)
        else:
            self._socket = socket.create_connection((to.host, to.port), patience)
        try:
            if to.path:
                self._socket.connect(to.path)
            else:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if to.secure is not None:
                self._socket = to.secure().wrap_socket(self._socket, server_hostname=to.host)
            self._ready.register(self._socket, select.POLLIN)
            for command in to.greeting():
                self.ask(*command)
        except BaseException:
            self.close()
            raise

    def ask(self, *command: Any) -> Any:
        """Send a command and return the answer; may be called by one thread at a time.

        Raises:
            Refused: the answer is an error. OSError: there is none.
        """
        with self._turn:
            near = self._near.sent()
            self._socket.sendall(hiredis.pack_command(command))
            if near:
                while not self._ready.poll(0) and self._near.worth():
                    pass
            try:
                while (said := self._reader.gets()) is False:
                    data = self._socket.recv(PIECE)
                    if not data:
                        raise ConnectionError("the connection was closed")
                    self._reader.feed(data)
                self._near.answered()
            except hiredis.ProtocolError as exc:
                raise ConnectionError(f"no answer of a Redis server: {exc}") from exc
        if isinstance(said, Refused):
            raise said
        return said

    def close(self) -> None:
        """Hang up; a call under way in another thread ends at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._turn:
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
