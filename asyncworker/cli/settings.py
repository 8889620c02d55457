"""``asyncworker settings``: each value, and where it came from."""

from __future__ import annotations

from asyncworker.cli.command import Call, command
from asyncworker.cli.table import show_table
from asyncworker.settings import SETTINGS, shown


def body(call: Call) -> None:
    """List all settings: the value that would be used here and now, and where it came from.

    Secrets are masked. A flag goes before a variable, that before a file, that before the default.
    """
    values = {name: getattr(call.settings, name) for name in SETTINGS}
    if call.settings.json:
        call.document(
            {
                name: {
                    "value": value if isinstance(value, (int, float)) or value is None else shown(name, value),
                    "from": call.origins[name],
                    "doc": SETTINGS[name].doc,
                }
                for name, value in values.items()
            }
        )
        return
    rows = [
        (name, "" if value in (None, ()) else shown(name, value), call.origins[name], SETTINGS[name].doc)
        for name, value in values.items()
    ]
    show_table(call, ("setting", "value", "from", "what it is"), rows)


COMMAND = command(
    "settings",
    body,
    flags=[name for name, setting in SETTINGS.items() if not setting.secret],
    examples="""
  asyncworker settings
  ASYNCWORKER_LEASE=5s asyncworker settings --json""",
)
