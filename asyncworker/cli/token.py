"""``asyncworker token``: who may ask the daemon."""

from __future__ import annotations

import click

from asyncworker.cli.command import Call, command, group
from asyncworker.daemon.tokens import add_token
from asyncworker.errors import SettingsError


def add(call: Call, name: str) -> None:
    """Make a token of this NAME for --scope, and print it: this once, for the file has but its hash.

    "read" sees everything, "submit" enqueues, too, and "admin" does whatever can be done. The name stands in the
    daemon's audit. To take a token back, remove its line from the file; the daemon notices.
    """
    settings = call.settings
    if settings.http_tokens is None:
        raise SettingsError("name the file of tokens: --http-tokens FILE, or ASYNCWORKER_HTTP_TOKENS")
    made = add_token(settings.http_tokens, name, settings.scope)
    if settings.json:
        call.document({"name": name, "scope": settings.scope, "token": made})
    else:
        call.say(f"a token for {name}, scope {settings.scope}; it is not shown again:")
        call.show(made)


COMMAND = group(
    "token",
    "Look after who may ask the daemon.",
    command(
        "add",
        add,
        click.Argument(["name"]),
        flags=("http_tokens", "scope", "json"),
        examples="""
  asyncworker token add grafana --http-tokens tokens
  asyncworker token add deploy --scope admin""",
    ),
    examples="""
  asyncworker token add grafana --http-tokens tokens
  asyncworker daemon shop:engine --http-tokens tokens""",
)
