"""``asyncworker daemon``: supervised workers, as many as there is work for."""

from __future__ import annotations

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.log import start_logging
from asyncworker.cli.supervise import FLAGS, supervise
from asyncworker.cli.target import engine_for


async def body(call: Call) -> int:
    """Keep as many worker processes as there is work for, until SIGTERM or Ctrl-C.

    TARGET is your engine as module:name. Workers are added while work waits longer than it should and processors and
    memory allow it, and drain when they are too many. One that dies is replaced at once.

    The first signal lets all workers drain, the second makes them hand back what they run; SIGHUP replaces one worker
    after another, for a new version of your code.
    """
    start_logging(call.settings.log_level, call.settings.log_format, call.err)
    return await supervise(call, engine_for(call), None)


COMMAND = command(
    "daemon",
    body,
    click.Argument(["app"], required=False, metavar="[TARGET]"),
    flags=FLAGS,
    examples="""
  asyncworker daemon shop:engine
  asyncworker daemon shop:engine --min-workers 2 --max-workers 8 --metrics-port 9191
  asyncworker daemon shop:engine --min-workers 0            no process while there is nothing to do""",
)
