"""Tokens: who may ask the daemon, and for what. A file has their hashes; a token itself is shown once, when it is made.

    name  scope  sha256 of the token  when it was made

A line each, read anew when the file has changed. Tokens have 256 random bits, so that a plain hash of them says nothing
about them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import msgspec

from asyncworker.daemon.audit import LOCAL
from asyncworker.errors import SettingsError

log = logging.getLogger(__name__)

PREFIX = "awk_"
"""By which leaked tokens can be found."""
BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Scope(IntEnum):
    """What a token may do; each may do what those before it may, too."""

    OPEN = 0
    READ = 1
    SUBMIT = 2
    ADMIN = 3


SCOPES = {scope.name.lower(): scope for scope in Scope if scope}


class Token(msgspec.Struct, frozen=True):
    """A token as it is known: by its hash."""

    name: str
    scope: Scope
    digest: str


class Tokens:
    """The tokens of a file.

    Raises:
        SettingsError: it cannot be read, others than its owner may, or it has lines that are none.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._stamp, self._tokens = self._load()

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, given: str) -> Token | None:
        """Return the token that was given; None: nobody knows it. Takes as long whichever it is."""
        digest = digest_of(given)
        found = None
        for token in self._current():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _current(self) -> tuple[Token, ...]:
        """Return the tokens; none while the file cannot be used: one that was taken back must not come back."""
        try:
            if self._stamp != _stamp(self._path.stat()):
                self._stamp, self._tokens = self._load()
        except (OSError, SettingsError) as exc:
            if self._tokens:
                log.error("nobody is let in: %s", exc)  # noqa: TRY400 - it is foreseen
            self._stamp, self._tokens = (0, 0, 0), ()
        return self._tokens

    def _load(self) -> tuple[tuple[int, int, int], tuple[Token, ...]]:
        try:
            with self._path.open(encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                lines = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"cannot read the tokens in {str(self._path)!r}: {exc}") from exc
        if status.st_mode & 0o022:
            raise SettingsError(f"others than its owner may write to {str(self._path)!r}: chmod 600 it")
        told = [line for line in lines if line.strip() and not line.startswith("#")]
        return _stamp(status), tuple(_read(line, self._path) for line in told)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def add_token(path: str, name: str, scope: str) -> str:
    """Make a token, add its hash to the file, and return it.

    Raises:
        SettingsError: the file cannot be used, has a token of this name, or the name is none.
    """
    if not _NAME.fullmatch(name) or name == LOCAL:
        raise SettingsError(f"{name[:100]!r} is no name of a token: letters, digits and . _ @ - only, 64 at most")
    if scope not in SCOPES:
        raise SettingsError(f"{scope[:100]!r} is no scope: want one of {', '.join(SCOPES)}")
    file = Path(path)
    if file.exists() and any(token.name == name for token in Tokens(path)._tokens):  # noqa: SLF001 - of this very file
        raise SettingsError(f"{path!r} has a token {name!r} already; remove its line first")
    made = PREFIX + secrets.token_urlsafe(BYTES)
    line = f"{name} {scope} {digest_of(made)} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as opened:
            opened.write(line)
    except OSError as exc:
        raise SettingsError(f"cannot write the tokens to {path!r}: {exc.strerror}") from exc
    return made


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(line: str, path: Path) -> Token:
    name, scope, digest, *_ = [*line.split(), "", "", ""]
    if scope not in SCOPES or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise SettingsError(f"{str(path)!r}: a line about {name[:40]!r} is no token: want name, scope and sha256")
    return Token(name, SCOPES[scope], digest)
