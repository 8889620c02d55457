"""Where a Redis server is: said by a URL, or asked of those who know.

Every other file in this folder reads the URLs of its scheme: ``open(url, key)`` returns an address. One that is asked
for anew before each connection makes a fail-over to everybody else no more than a lost connection.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from asyncworker.errors import SettingsError, UnknownName
from asyncworker.registry import find

MISTAKE = (
    "this broker URL cannot be used; write redis://[user:password@]host[:port][/db], rediss://…, unix:///path, "
    "redis+sentinel://host[:port],…/service[/db] or redis+cluster://host[:port],…"
)


class Refused(Exception):
    """A server answers by an error; the text begins with its code."""


class Target(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """What to connect to: a path, or host and port; and as whom. ``secure`` makes the context of a TLS connection."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = ""
    database: int = 0
    client_name: str = ""
    keepalive: bool = True
    secure: Callable[[], ssl.SSLContext] | None = None

    def __repr__(self) -> str:
        return f"<Target {self.path or f'{self.host}:{self.port}'}>"

    def greeting(self) -> list[tuple[Any, ...]]:
        """Return the commands that a connection begins with."""
        commands: list[tuple[Any, ...]] = []
        if self.username or self.password:
            commands.append(("AUTH", self.username or "default", self.password))
        if self.client_name:
            commands.append(("CLIENT", "SETNAME", self.client_name))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands


class Address:
    """Where a server is. ``str`` of it can be shown: it has no password."""

    def __init__(self, name: str, target: Target) -> None:
        self._name = name
        self.target = target

    def __str__(self) -> str:
        return self._name

    async def here(self, patience: float) -> Target:
        """Return where the very server is.

        Raises:
            Refused, OSError: within *patience* seconds nobody said so.
        """
        return self.target

    def found(self, patience: float) -> Target:
        """Do as `here`, and block meanwhile."""
        return self.target


class Asked(Address, ABC):
    """An address that others know. What may differ from one to the next answer is the place alone."""

    usual_port = 6379

    def __init__(self, parts: SplitResult, database: str) -> None:
        self._user, at, hosts = parts.netloc.rpartition("@")
        self._user += at
        self._rest = f"/{database}" + (f"?{parts.query}" if parts.query else "")
        try:
            self._places = [self._place(host) for host in hosts.split(",")]
        except ValueError:
            raise SettingsError(MISTAKE) from None
        super().__init__(f"{parts.scheme}://{hosts}{parts.path}", self._at(*self._places[0]))

    async def here(self, patience: float) -> Target:
        return await asyncio.to_thread(self.found, patience)

    def found(self, patience: float) -> Target:
        return self._at(*self._ask(patience))

    @abstractmethod
    def _ask(self, patience: float) -> tuple[str, int]:
        """Return host and port, from those who know."""

    def _place(self, host: str) -> tuple[str, int]:
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError(host)
        return parts.hostname, parts.port or self.usual_port

    def _at(self, host: str, port: int) -> Target:
        place = f"[{host}]" if ":" in host else host
        return address_of(f"redis://{self._user}{place}:{port}{self._rest}").target


def address_of(url: str, key: str = "") -> Address:
    """Return the address that a URL says; *key* is one of our keys.

    Raises:
        SettingsError: no URL of a Redis server.
    """
    try:
        parts = urlsplit(url)
        room = find("address", "rediss" if parts.query and parts.scheme in {"redis", "unix"} else parts.scheme)
    except (ValueError, UnknownName):
        raise SettingsError(MISTAKE) from None  # its text may hold a part of the password
    address: Address = room.open(url, key)
    return address
