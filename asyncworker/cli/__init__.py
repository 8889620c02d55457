"""The command line: finds the command, runs it, and says in one line what went wrong.

A command is a file in this folder, imported when it is used. What it raises becomes an exit code here and
nowhere else: 0 done, 1 the work failed, 2 bad usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from asyncworker import __version__
from asyncworker.cli.line import one_line
from asyncworker.errors import (
    AsyncWorkerError,
    BadParameters,
    JobNotFound,
    JobTooBig,
    SettingsError,
    SourceError,
    UnknownName,
    nearest,
)
from asyncworker.secret import mask_text

COMMANDS = {
    "demo": "See it work: two jobs over real flights, on two processes.",
    "run": "Process a dataset, here and now.",
    "submit": "Leave a dataset with the workers and return at once.",
    "worker": "Run jobs until told to stop.",
    "daemon": "Keep as many workers as there is work for.",
    "token": "Look after who may ask the daemon.",
    "enqueue": "Call a task once, by name.",
    "jobs": "Count what waits and runs, and who works; list jobs.",
    "workers": "List who works, where and on what.",
    "status": "Show what is known about a job.",
    "result": "Wait for a job and print its result.",
    "report": "Show where the time of a map/reduce job went.",
    "cancel": "End a job for good.",
    "queues": "List queues, pause and bound them.",
    "schedule": "Look after what is enqueued by the calendar.",
    "strike": "Keep workers from starting a task, or some calls of it.",
    "dead": "Look after jobs that failed for good.",
    "top": "Watch what workers do, and where their time goes.",
    "explain": "Show which sizes were decided on, and because of what.",
    "functions": "List the processing functions, or explain one.",
    "bench": "Measure this installation.",
    "doctor": "Look Redis, database and machine over, and say how to mend them.",
    "settings": "List all settings, and where each value came from.",
    "export": "Print files for what watches and scales a fleet.",
}

TRUE = ("1", "true", "yes", "on")
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

MISTAKES = (SettingsError, UnknownName, BadParameters, SourceError, JobNotFound, JobTooBig)
"""Errors that only the person who typed can mend; any other error of ours means that the work failed."""


class Commands(click.Group):
    """The commands by name; none is imported before it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            if cmd_name.startswith("-"):
                return None
            close = nearest(cmd_name, COMMANDS)
            hint = f"did you mean {close!r}?" if close else "there are " + ", ".join(COMMANDS)
            raise click.UsageError(f"there is no command {cmd_name!r}; {hint}", ctx)
        command = importlib.import_module(f"{__name__}.{cmd_name}").COMMAND
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    invoke_without_command=True,
    epilog="""\b
Begin with:
  asyncworker demo
  asyncworker run flights.csv --function data_validation --params rules.json
  asyncworker COMMAND --help

Each flag has a variable (--broker is ASYNCWORKER_BROKER) and a key in asyncworker.toml.
Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration, 130 interrupted.""",
)
@click.version_option(__version__, message="asyncworker %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Map, reduce and queue coroutines over Redis."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; never raises, but for what ends the process."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = commands.main(typed, prog_name="asyncworker", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has enough; no word of complaint at the exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.ClickException as exc:
        where = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "asyncworker"
        return complain(f"{exc.format_message()} ({where} --help explains)")
    except Exception as exc:
        return say_why(exc, debug="--debug" in typed or os.environ.get("ASYNCWORKER_DEBUG") in TRUE)
    return code if isinstance(code, int) else DONE


def say_why(exc: Exception, *, debug: bool) -> int:
    """Say what went wrong and return the exit code."""
    if debug:
        click.echo(mask_text("".join(traceback.format_exception(exc))), err=True, nl=False)
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, AsyncWorkerError):
        return complain(str(exc), USAGE if isinstance(exc, MISTAKES) else FAILED)
    return complain(f"internal error: {type(exc).__name__}: {exc} (--debug shows the traceback)", FAILED)


def complain(message: str, code: int = USAGE) -> int:
    click.echo(f"asyncworker: {one_line(mask_text(message))}", err=True)
    return code
