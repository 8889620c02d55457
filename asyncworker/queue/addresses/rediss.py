"""``rediss://…``, and any URL with options (``?db=2&ssl_ca_certs=…``), as redis-py reads them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import RedisError

from asyncworker.errors import SettingsError
from asyncworker.queue.addresses.address import MISTAKE, Address, Target


def open(url: str, _key: str) -> Address:  # the room's word, as in `registry`
    """Return the address that a URL says.

    Raises:
        SettingsError: no such URL, or an option that does not fit.
    """
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise SettingsError(MISTAKE) from None  # its text may hold a part of the password
    if (parts.scheme == "unix" and not place) or (
        parts.scheme != "unix" and not (parts.path.strip("/") or "0").isdecimal()
    ):
        raise SettingsError(MISTAKE)
    name = f"{parts.scheme}://{place}" + (f"/{options['db']}" if options.get("db") else "")
    kind = options.pop("connection_class", Connection)
    try:
        made = kind(**options)
    except (TypeError, RedisError):
        raise SettingsError(f"the URL of {name} has an option that does not fit") from None
    target: dict[str, Any] = {
        "username": made.username or "",
        "password": made.password or "",
        "database": made.db or 0,
        "client_name": made.client_name or "",
    }
    if isinstance(made, UnixDomainSocketConnection):
        return Address(name, Target(path=made.path, **target))
    if isinstance(made, SSLConnection):
        target["secure"] = made.ssl_context.get
    return Address(name, Target(made.host, made.port, keepalive=bool(made.socket_keepalive), **target))
