"""What a command is: a function, its arguments, and the settings that are its flags.

Every other file here that has ``COMMAND`` is one. A flag is a setting by its name, so that each can come from
a variable or a file as well; none has a default of its own. An argument may be a setting, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TextIO, TypeVar

import click
import msgspec

from asyncworker.cli.line import one_line
from asyncworker.secret import mask_text
from asyncworker.settings import DEFAULTS, SETTINGS, Loaded, Settings, flag, load, shown, variable

SHORT = {"queues": "-q", "concurrency": "-c", "workers": "-w", "burst": "-b", "function": "-f", "params": "-p"}
EVERYWHERE = ("no_color", "debug")


class Call:
    """One call of a command: its settings, and where it speaks.

    Results go to standard output, everything else to standard error. ``live``, ``drawn``: whether standard error
    and output are terminals that can be redrawn and drawn on; ``colour``: whether colours are wanted there.
    """

    def __init__(self, loaded: Loaded, out: TextIO, err: TextIO) -> None:
        self.settings: Settings = loaded.settings
        self.origins = loaded.origins
        self.out, self.err = out, err
        able = os.environ.get("TERM") != "dumb"
        self.live, self.drawn = able and err.isatty(), able and out.isatty()
        self.colour = not self.settings.no_color

    def say(self, text: str) -> None:
        """Tell a person something, on one line of standard error."""
        click.echo(one_line(mask_text(text)), file=self.err)

    def show(self, text: str) -> None:
        click.echo(text, file=self.out)

    def document(self, value: Any) -> None:
        """Print *value* as the one JSON document of this call."""
        data = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
        click.echo(data.decode(), file=self.out)


T = TypeVar("T")
Body = Callable[..., Coroutine[Any, Any, int | None] | int | None]


def command(
    name: str, body: Body, *arguments: click.Argument, flags: Sequence[str] = (), examples: str = ""
) -> click.Command:
    """Return a command that calls ``body(call, **arguments)`` (a function, or a coroutine function).

    Its result is the exit code, None is 0. The docstring of *body* is the help, and *examples* end it.
    """
    return click.Command(
        name,
        callback=partial(_run, body),
        params=[*arguments, *map(_option, dict.fromkeys((*flags, *EVERYWHERE))), _CONFIG],
        help=body.__doc__,
        epilog="\b\nExamples:\n" + examples.strip("\n"),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def group(name: str, doc: str, *verbs: click.Command, examples: str) -> click.Command:
    """Return a command that has verbs below it."""
    return click.Group(
        name,
        commands=verbs,
        help=doc,
        epilog="\b\nExamples:\n" + examples.strip("\n"),
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


_CONFIG = click.Option(["--config"], metavar="FILE", help="Settings in TOML; else ./asyncworker.toml, if it is there.")


def _option(name: str) -> click.Option:
    setting = SETTINGS[name]
    default = getattr(DEFAULTS, name)
    texts = [variable(name)]
    if default not in (None, False, ()):
        texts.append(f"default {shown(name, default)}")
    names = [SHORT[name]] if name in SHORT else []
    return click.Option(
        [*names, flag(name), name],
        is_flag=isinstance(default, bool),
        default=None,
        metavar=None if isinstance(default, bool) else setting.kind.word,
        help=f"{setting.doc} [{'; '.join(texts)}]",
    )


def _run(body: Body, **given: Any) -> int | None:
    typed = {name: given.pop(name) for name in ("config", *SETTINGS) if name in given}
    flags = {name: "true" if value is True else value for name, value in typed.items() if value is not None}
    done = body(Call(load(flags, os.environ), sys.stdout, sys.stderr), **given)
    if not isinstance(done, Coroutine):
        return done
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        try:
            return runner.run(_interruptible(done))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _interruptible(coroutine: Coroutine[Any, Any, T]) -> T:
    """Treat SIGTERM like Ctrl-C: cancel, so that what was opened is closed."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await coroutine


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on each platform
    except ImportError:
        return None
    return uvloop.new_event_loop
