"""Where a Redis server is: said by a URL, or asked of those who know.

``redis+sentinel://host:port,host:port/service[/db]`` asks Sentinels who the master is, ``redis+cluster://host:port,…``
asks nodes who has the slot of our keys, which all carry one hash tag. They are asked anew before each connection, so
a fail-over is to everybody else no more than a lost connection.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from asyncworker.errors import SettingsError

_URL = (
    "this broker URL cannot be used; write redis://[user:password@]host[:port][/db], rediss://…, unix:///path, "
    "redis+sentinel://host[:port],…/service[/db] or redis+cluster://host[:port],…"
)


class Address:
    """Where a server is. ``str`` of it can be shown: it has no password.

    Raises:
        SettingsError: no URL of a Redis server.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            place = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
            options = dict(parse_url(url))
        except ValueError:
            raise SettingsError(_URL) from None  # its text may hold a part of the password
        database = parts.path.strip("/")
        if (parts.scheme == "unix" and not place) or (parts.scheme != "unix" and not (database or "0").isdecimal()):
            raise SettingsError(_URL)
        self.url = url
        self._name = f"{parts.scheme}://{place}" + (f"/{options['db']}" if options.get("db") else "")
        self._kind: Any = options.pop("connection_class", Connection)
        quiet = {"protocol": 2, "driver_info": None, "socket_timeout": None, "socket_connect_timeout": None}
        self._options = {**options, **quiet, "retry": Retry(NoBackoff(), 0)}
        self.connection()

    def __str__(self) -> str:
        return self._name

    async def here(self, patience: float) -> Address:
        """Return the address of the very server.

        Raises:
            redis.exceptions.RedisError, OSError: within *patience* seconds nobody said where it is.
        """
        return self

    def found(self, patience: float) -> Address:
        """Do as `here`, and block meanwhile."""
        return self

    def connection(self) -> AbstractConnection:
        """Return a new connection, not yet open."""
        try:
            made = self._kind(**self._options)
        except (TypeError, RedisError):
            raise SettingsError(f"the URL of {self} has an option that does not fit") from None
        assert isinstance(made, AbstractConnection)
        return made

    def blocking(self, patience: float) -> redis.Redis:
        """Return a blocking client, not yet connected, that repeats nothing and waits *patience* seconds."""
        return redis.Redis.from_url(
            self.url,
            protocol=2,
            driver_info=None,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            retry=Retry(NoBackoff(), 0),
        )


class _Asked(Address, ABC):
    """An address that others know. What may differ from one to the next answer is the place alone."""

    usual_port = 6379

    def __init__(self, parts: SplitResult, database: str) -> None:
        self._user, at, hosts = parts.netloc.rpartition("@")
        self._user += at
        self._rest = f"/{database}" + (f"?{parts.query}" if parts.query else "")
        try:
            self._places = [self._place(host) for host in hosts.split(",")]
        except ValueError:
            raise SettingsError(_URL) from None
        super().__init__(self._url(*self._places[0]))
        self._name = f"{parts.scheme}://{hosts}{parts.path}"

    async def here(self, patience: float) -> Address:
        return await asyncio.to_thread(self.found, patience)

    def found(self, patience: float) -> Address:
        return Address(self._url(*self._ask(patience)))

    @abstractmethod
    def _ask(self, patience: float) -> tuple[str, int]:
        """Return host and port, from those who know."""

    def _place(self, host: str) -> tuple[str, int]:
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError(host)
        return parts.hostname, parts.port or self.usual_port

    def _url(self, host: str, port: int) -> str:
        return f"redis://{self._user}{f'[{host}]' if ':' in host else host}:{port}{self._rest}"


class Sentinels(_Asked):
    """The master of one service. Their own password, if any, is ``?sentinel_password=`` (and ``sentinel_username``)."""

    usual_port = 26379

    def __init__(self, parts: SplitResult) -> None:
        self._service, _, database = parts.path.strip("/").partition("/")
        said = parse_qsl(parts.query)
        self._own = {name.removeprefix("sentinel_"): value for name, value in said if name.startswith("sentinel_")}
        query = urlencode([one for one in said if not one[0].startswith("sentinel_")])
        if not self._service:
            raise SettingsError(_URL)
        super().__init__(parts._replace(query=query), database or "0")

    def _ask(self, patience: float) -> tuple[str, int]:
        a_try = patience / len(self._places)
        own = {**self._own, "socket_timeout": a_try, "socket_connect_timeout": a_try, "retry": Retry(NoBackoff(), 0)}
        sentinel = Sentinel(self._places, sentinel_kwargs=own)
        try:
            host, port = sentinel.discover_master(self._service)
        finally:
            for client in sentinel.sentinels:
                client.close()
        return host, port


class Cluster(_Asked):
    """The node of a cluster that has the slot of *key*."""

    def __init__(self, parts: SplitResult, key: str) -> None:
        if parts.path.strip("/"):
            raise SettingsError(_URL)
        super().__init__(parts, "0")
        self._slot = key_slot(key.encode())

    def _ask(self, patience: float) -> tuple[str, int]:
        error: Exception = RedisError(f"nobody has slot {self._slot}")
        for place in self._places:
            try:
                with Address(self._url(*place)).blocking(patience / len(self._places)) as node:
                    said = node.execute_command("CLUSTER SLOTS")
            except (RedisError, OSError) as exc:
                error = exc
                continue
            # An empty host is the one that was asked.
            owners = {
                range(first, last + 1): (owner[0].decode() or place[0], owner[1]) for first, last, owner, *_ in said
            }
            known = list(owners.values())
            self._places = [*known, *(other for other in self._places if other not in known)]
            for slots, owner in owners.items():
                if self._slot in slots:
                    return owner
        raise error


def address_of(url: str, key: str) -> Address:
    """Return the address that a URL says; *key* is one of our keys.

    Raises:
        SettingsError: no URL of a Redis server.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError(_URL) from None
    if parts.scheme == "redis+sentinel":
        return Sentinels(parts)
    if parts.scheme == "redis+cluster":
        return Cluster(parts, key)
    return Address(url)
