"""``asyncworker worker``: run jobs until told to stop."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from types import ModuleType

import click

from asyncworker import __version__
from asyncworker.cli.command import Call, command
from asyncworker.cli.fleet_flags import FLAGS, MIB
from asyncworker.cli.line import duration
from asyncworker.cli.log import log, start_logging, tell
from asyncworker.cli.reload import reloading
from asyncworker.cli.target import engine_for
from asyncworker.daemon.ceiling import limit_memory
from asyncworker.daemon.health import WorkerHealth
from asyncworker.daemon.instruments import Instruments
from asyncworker.daemon.notify import notifying
from asyncworker.engine import Engine
from asyncworker.errors import SettingsError
from asyncworker.secret import mask_url
from asyncworker.work.executors.thread import THREAD_NAMES

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LINGER_S = 0.2
"""How long code that was told to end may live on, when all its jobs are handed back."""


async def body(call: Call) -> int:
    """Run the jobs of an engine, until SIGTERM or Ctrl-C; with --burst, until there are none.

    TARGET is your engine as module:name (a function without arguments may make it). Without one, the worker
    serves the built-in map/reduce functions.

    With --workers there are so many worker processes, or (auto) as many as there is work for; see 'asyncworker daemon'.

    The first signal stops claiming and waits for running jobs, for the grace period; the second hands them
    back at once. Keep the grace period shorter than what your supervisor allows (Kubernetes: 30 s).
    """
    settings = call.settings
    start_logging(settings.log_level, settings.log_format, call.err)
    if settings.reload:
        return await reloading(settings.app)
    engine = engine_for(call)
    if settings.workers:
        if settings.burst:
            raise SettingsError("--burst is for one worker: workers that end would be started again")
        number = None if settings.workers == "auto" else settings.workers
        code: int = await _part("supervise").supervise(call, engine, number)
        return code
    if settings.worker_memory_limit is not None:
        limit_memory(settings.worker_memory_limit * MIB)
    tell(engine.bus)
    async with AsyncExitStack() as opened:
        try:
            _ = engine.broker
            instruments = None if settings.no_profile else Instruments(engine)
            health = WorkerHealth(engine)
            served = settings.metrics_port is not None
            notes = [_part("telling").serve(opened, settings, engine, instruments, health)] if served else []
            log.info("%s", banner(engine, notes))
            asked = opened.enter_context(stopping(engine))
            if settings.supervisor is not None:
                await _part("telling").report(opened, settings, engine, instruments)
            else:
                await opened.enter_async_context(notifying(health.status, busy=lambda: not health.works))
            async with instruments or nullcontext():
                if not asked():  # a signal that came earlier finds no worker to stop
                    await engine.run(burst=settings.burst)
        finally:
            await engine.close()
    if await lingers():
        leave_soon()
    return 0


def _part(name: str) -> ModuleType:
    """Return a module of this folder that a plain worker does without."""
    return importlib.import_module(f"asyncworker.cli.{name}")


def banner(engine: Engine, notes: Iterable[str] = ()) -> str:
    """Return the line that says what this worker is and does."""
    own = sorted(name for name in engine.tasks if not name.startswith("asyncworker."))
    told = [
        f"asyncworker {__version__}: worker on {mask_url(engine.url)}",
        f"queues {', '.join(engine.queues)}",
        f"tasks {', '.join(own)} and the built-ins" if own else "tasks: the built-ins",
        f"concurrency {engine.concurrency}",
        f"lease {duration(engine.lease)}",
        f"grace period {duration(engine.grace_period)}",
        *notes,
    ]
    if engine.url == "memory://":
        told.append("memory:// lives in this process: nobody else will see its jobs")
    return "; ".join(told)


@contextmanager
def stopping(engine: Engine) -> Iterator[Callable[[], int]]:
    """Let the first signal drain the engine's worker, and the second stop it at once; yields what counts them.

    A supervisor has two more: SIGUSR1 drains without haste, and SIGUSR2 stops at once.
    """
    loop = asyncio.get_running_loop()
    asked, retired = 0, False

    def stop(sign: signal.Signals) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            log.info("%s: draining, for %s at most", sign.name, duration(engine.grace_period))
        else:
            log.info("%s again: handing running jobs back", sign.name)
        engine.stop(now=asked > 1)

    def retire() -> None:
        nonlocal retired
        retired = True
        log.info("SIGUSR1: draining, for as long as it takes")
        engine.stop(patient=True)

    for sign in SIGNALS:
        loop.add_signal_handler(sign, stop, sign)
    loop.add_signal_handler(signal.SIGUSR1, retire)
    loop.add_signal_handler(signal.SIGUSR2, lambda: engine.stop(now=True))
    try:
        yield lambda: asked + retired
    finally:
        for sign in (*SIGNALS, signal.SIGUSR1, signal.SIGUSR2):
            loop.remove_signal_handler(sign)


async def lingers() -> bool:
    """Return whether a job swallows its cancellation, or a thread hangs: Python would wait for them for ever."""
    jobs = asyncio.all_tasks() - {asyncio.current_task()}
    pool = asyncio.ensure_future(asyncio.get_running_loop().shutdown_default_executor())
    await asyncio.wait([pool], timeout=LINGER_S / 2)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAMES)]
    for thread in threads:
        thread.join(LINGER_S / 2 / len(threads))
    return bool(jobs) or not pool.done() or any(thread.is_alive() for thread in threads)


def leave_soon() -> None:
    """End this process soon, whatever still runs in it."""
    alarm = threading.Timer(LINGER_S, os._exit, [0])
    alarm.daemon = True
    alarm.start()


COMMAND = command(
    "worker",
    body,
    click.Argument(["app"], required=False, metavar="[TARGET]"),
    flags=(
        *FLAGS,
        "workers",
        "supervisor",
        "burst",
        "reload",
    ),
    examples="""
  asyncworker worker shop:engine
  asyncworker worker shop:engine --queues mail --concurrency 20 --metrics-port 9191
  asyncworker worker shop:engine --workers 4               four processes, supervised
  asyncworker worker shop:engine --reload                  while you write it
  asyncworker worker --broker redis://localhost:6379/0     the built-in functions alone
  ASYNCWORKER_APP=shop:engine asyncworker worker --burst""",
)
