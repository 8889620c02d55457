"""Hide secrets in what people see: URLs with a password, and texts that such URLs may be part of.

Whoever shows a URL, or an error of a driver that may quote one, passes it through here first. Where a URL is
ambiguous (a raw ``@``, ``/`` or ``?`` in the password) rather too much is hidden than too little.
"""

from __future__ import annotations

import re

MASK = "***"

# Both begin at a word's first letter and give back nothing that they took, so that long texts cost linear time.
_URL = re.compile(r"(?<![a-zA-Z0-9+.-])[a-zA-Z0-9+.-]++://[^\s'\"<>]+")
_NAMED = re.compile(
    r"(?i)(?<![\w-])(?=[\w-]*?(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|signature))"
    r"(?P<name>[\w-]++(?:\s*+=|['\"]\s*+:)\s*+)('[^']*'|\"[^\"]*\"|[^\s&;#]+)"
)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^@:/?#,\[\]]*)(:\d*)?")


def mask_url(url: str) -> str:
    """Return *url* with each password in it as ``***``: the user's, also before many hosts, and in the query."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        scheme, rest = "", url
    user, at, rest = _split_user(rest)
    name, colon, _ = user.partition(":")
    return f"{scheme}{slashes}{name}{colon}{MASK if colon else ''}{at}{_mask_named(rest)}"


def mask_text(text: str) -> str:
    """Return *text* with the passwords as ``***`` of the URLs and ``password=…`` words that stand in it.

    Also of a dict that was printed: ``{'password': …}``. Cost: linear, about 20 MB/s.
    """
    return _mask_named(_URL.sub(lambda found: mask_url(found[0]), text))


def _mask_named(text: str) -> str:
    return _NAMED.sub(lambda found: found["name"] + MASK, text)


def _split_user(rest: str) -> tuple[str, str, str]:
    """Split what follows ``://`` into the user, ``@`` and the others."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    after = rest[len(authority) :]
    path, _, query = after.partition("?")
    clear = (
        all(_HOST.fullmatch(host) for host in hosts.split(","))
        and "@" not in path
        and all("=" in word.partition("@")[0] for word in query.split("&") if "@" in word)
    )
    return (user, at, hosts + after) if clear else rest.rpartition("@")
