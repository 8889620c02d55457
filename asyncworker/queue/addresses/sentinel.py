"""``redis+sentinel://host:port,host:port/service[/db]``: the Sentinels are asked who the master is.

Their own password, if any, is ``?sentinel_password=`` (and ``sentinel_username``).
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from asyncworker.errors import SettingsError
from asyncworker.queue.addresses.address import MISTAKE, Address, Asked, Refused


class Sentinels(Asked):
    """The master of one service."""

    usual_port = 26379

    def __init__(self, parts: SplitResult) -> None:
        self._service, _, database = parts.path.strip("/").partition("/")
        said = parse_qsl(parts.query)
        self._own = {name.removeprefix("sentinel_"): value for name, value in said if name.startswith("sentinel_")}
        query = urlencode([one for one in said if not one[0].startswith("sentinel_")])
        if not self._service:
            raise SettingsError(MISTAKE)
        super().__init__(parts._replace(query=query), database or "0")

    def _ask(self, patience: float) -> tuple[str, int]:
        a_try = patience / len(self._places)
        own = {**self._own, "socket_timeout": a_try, "socket_connect_timeout": a_try, "retry": Retry(NoBackoff(), 0)}
        sentinel = Sentinel(self._places, sentinel_kwargs=own)
        try:
            host, port = sentinel.discover_master(self._service)
        except AuthenticationError as exc:
            raise Refused(f"WRONGPASS {exc}") from exc
        except RedisError as exc:
            raise ConnectionError(str(exc)) from exc
        finally:
            for client in sentinel.sentinels:
                client.close()
        return host, port


def open(url: str, _key: str) -> Address:  # the room's word, as in `registry`
    """Return the address of the master of the service that a URL names."""
    return Sentinels(urlsplit(url))
