"""A web service as a look-up: ``https://api.example.org/cities/{key}``, which answers JSON.

Each key is asked for by itself, percent-encoded into its place. 404, 410 and 204 mean that nothing is known of it;
429, 502, 503 and 504, and a connection that breaks, are tried again. Redirects are not followed. Proxies and names
with passwords are those of the worker's environment (``HTTPS_PROXY``, ``~/.netrc``): a job carries no secrets.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from asyncworker.errors import BadParameters, SourceError
from asyncworker.secret import mask_url

MOST_BYTES = 256 * 2**10
TRIES = 3
PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
PLACE = "{key}"
_UNKNOWN = {204, 404, 410}
_AGAIN = {429, 502, 503, 504}


def open(url: str, key: str | None, timeout_s: float) -> HttpLookup:
    """Open a URL with ``{key}`` in its path or query.

    Raises:
        BadParameters: it has none, has a password, or *key* is named, which such a URL does not need.
    """
    parts = urlsplit(url)
    shown = mask_url(url)
    if key is not None:
        raise BadParameters(f"{shown} needs no name of a key: put {PLACE} where it goes")
    if "@" in parts.netloc:
        raise BadParameters(f"{shown} must not hold a name or password: put them into ~/.netrc of the workers")
    if not parts.hostname or PLACE in parts.netloc or url.count(PLACE) != 1 or PLACE in parts.fragment:
        raise BadParameters(f"{shown} must have {PLACE} once, in its path or query")
    return HttpLookup(url, timeout_s)


class HttpLookup:
    batch = 1

    def __init__(self, url: str, timeout_s: float) -> None:
        self.label = mask_url(url).partition("?")[0]
        self._before, _, self._after = url.partition(PLACE)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Any]:
        (key,) = keys
        url = f"{self._before}{quote(key, safe='')}{self._after}"
        for trial in range(1, TRIES + 1):
            try:
                pause_s = random.uniform(0, PAUSE_S * 2**trial)
                async with self._opened().get(url, allow_redirects=False) as answer:
                    if answer.status in _UNKNOWN:
                        return {}
                    if answer.status == 200:
                        return {key: self._decoded(await _body(answer))}
                    why = f"answers {answer.status}"
                    if answer.status not in _AGAIN:
                        break
                    asked = answer.headers.get("Retry-After", "")
                    pause_s = min(max(float(asked), pause_s), LONGEST_PAUSE_S) if asked.isdecimal() else pause_s
            except aiohttp.ClientError as exc:
                why = f"cannot be asked: {type(exc).__name__}"
            except TimeoutError:
                why = f"gives no answer within {self._timeout_s:g} s"
            if trial < TRIES:
                await asyncio.sleep(pause_s)
        raise SourceError(f"{self.label} {why}")

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _decoded(self, body: bytes) -> Any:
        if len(body) > MOST_BYTES:
            raise SourceError(f"{self.label} answers more than {MOST_BYTES:,} bytes")
        try:
            return msgspec.json.decode(body)
        except (ValueError, RecursionError) as exc:
            raise SourceError(f"{self.label} does not answer JSON") from exc


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in answer.content.iter_chunked(2**16):
        body += block
        if len(body) > MOST_BYTES:
            answer.close()
            break
    return bytes(body)
