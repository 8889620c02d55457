"""``--reload``: the worker is a child of this process, and begins anew when a file of the engine's package changes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from asyncworker.cli.log import log
from asyncworker.errors import SettingsError
from asyncworker.lifeline import Child
from asyncworker.settings import variable

LOOK_S = 0.25
Stamps = dict[Path, tuple[int, int]]


async def reloading(target: str | None) -> int:
    """Run this very command without ``--reload``, again after each change; returns its last exit code.

    A signal is passed on. A worker that ends by itself ends this, too, but after an error the next change is waited for.

    Raises:
        SettingsError: there is no target, or it has no files.
    """
    watched = Watched(target)
    program = [sys.executable, *(word for word in sys.orig_argv[1:] if word != "--reload")]
    environment = os.environ | {variable("reload"): "false"}  # it may stand in a file
    stopping = Stopping()
    while True:
        before = watched.stamps()
        child = stopping.child = Child(program, env=environment)
        log.info("watching %s", watched)
        while child.running and (stopping.asked or watched.stamps() == before):  # noqa: ASYNC110 - no file tells
            await asyncio.sleep(LOOK_S)
        if child.running:
            log.info("%s changed: starting anew", watched.changed(before))
            child.send(signal.SIGTERM)
            await asyncio.to_thread(child.wait)
            continue
        code = child.wait() or 0
        if stopping.asked or code == 0:
            return code
        log.error("the worker ended with exit code %d; waiting for a change", code)
        while watched.stamps() == before:
            if stopping.asked:
                return code
            await asyncio.sleep(LOOK_S)


class Stopping:
    """Pass on to the child what this process is told to do."""

    def __init__(self) -> None:
        self.asked = False
        self.child: Child | None = None
        for sign in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sign, self._stop)

    def _stop(self) -> None:
        self.asked = True
        if self.child is not None:
            self.child.send(signal.SIGTERM)


class Watched:
    """The Python files of the package that a target is in, or beside the module that it is."""

    def __init__(self, target: str | None) -> None:
        if not target:
            raise SettingsError("--reload watches the files of your engine: give it as module:name")
        top = target.partition(":")[0].partition(".")[0]
        found = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
        if found is None or not (found.origin or found.submodule_search_locations):
            raise SettingsError(f"{target!r}: there is no module {top!r} in {Path.cwd()} nor installed")
        self._package = found.submodule_search_locations is not None
        places = found.submodule_search_locations or [str(Path(found.origin or "").parent)]
        self._places = [Path(place) for place in places]

    def __str__(self) -> str:
        return ", ".join(str(place) for place in self._places)

    def stamps(self) -> Stamps:
        """Return when each file was written, and its size."""
        return dict(self._look())

    def changed(self, before: Stamps) -> str:
        """Name one file that is not as it was."""
        now = self.stamps()
        return next((path.name for path in sorted({*now, *before}) if now.get(path) != before.get(path)), "a file")

    def _look(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for place in self._places:
            for path in place.rglob("*.py") if self._package else place.glob("*.py"):
                try:
                    stat = path.stat()
                except FileNotFoundError:  # an editor is just putting another in its place
                    continue
                yield path, (stat.st_mtime_ns, stat.st_size)
