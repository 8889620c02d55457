"""``redis://[user:password@]host[:port][/db]`` and ``unix://[user:password@]/path``: what most write.

Read here, for redis-py takes 8 MB and 0.1 s of every process that imports it; see ``rediss.py`` for all that it knows.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from asyncworker.errors import SettingsError
from asyncworker.queue.addresses.address import MISTAKE, Address, Target


def open(url: str, _key: str) -> Address:  # the room's word, as in `registry`
    """Return the address that a URL without options says."""
    try:
        parts = urlsplit(url)
        host, port = unquote(parts.hostname or "localhost"), parts.port or 6379
    except ValueError:
        raise SettingsError(MISTAKE) from None  # its text may hold a part of the password
    path = unquote(parts.path)
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        if not path:
            raise SettingsError(MISTAKE)
        return Address(f"unix://{path}", Target(path=path, username=username, password=password))
    database = path.strip("/")
    if not (database or "0").isdecimal():
        raise SettingsError(MISTAKE)
    name = f"redis://{host}:{port}" + (f"/{int(database)}" if int(database or 0) else "")
    return Address(name, Target(host, port, username=username, password=password, database=int(database or 0)))
