"""``asyncworker run``: process a dataset, here and now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import click

from asyncworker import auto
from asyncworker.cli.command import Call, command
from asyncworker.cli.dataset import FLAGS, Request, request
from asyncworker.cli.local import local_workers, readers
from asyncworker.cli.summary import show_outcome
from asyncworker.cli.target import engine_for
from asyncworker.cli.watch import leave, resume, watch
from asyncworker.engine import Engine
from asyncworker.errors import JobFailed, SettingsError
from asyncworker.job import JobHandle
from asyncworker.mapreduce.job import Summary
from asyncworker.mapreduce.sources.several import several
from asyncworker.queue import server
from asyncworker.queue.brokers.embedded import EmbeddedBroker
from asyncworker.secret import mask_url

MEMORY, EMBEDDED = "memory://", "embedded://"


async def body(call: Call, sources: tuple[str, ...]) -> None:
    """Process a dataset, here and now: map its items, reduce what comes out, print the summary.

    SOURCE is a file (.csv, .jsonl, also .gz; .parquet), a folder, a URL (postgresql://…?dataset=NAME), a dataset's
    id in --database, or - for standard input: JSON Lines; for CSV write -- '-?format=csv' after the flags.
    Several are processed in one job, one after another.

    Without --broker it starts a server of its own and --workers processes (auto: one a processor), which all
    end with it. With --broker the job is left to the workers there, and Ctrl-C leaves it with them.
    Exit code 1: the job failed; the summary tells what did succeed. With --broker that is kept for a day, and --resume JOB
    does what is left; a SOURCE is only needed where the job was shipped from here.
    """
    async with running_engine(call) as engine:
        if call.settings.resume:
            async with running(call, engine) as run:
                await show_outcome(call, run.again(call.settings.resume, sources))
            return
        if not sources:
            raise SettingsError("which data? name a file, a folder, a URL, or - for standard input")
        asked = request(call, engine, sources)
        async with running(call, engine) as run:
            await show_outcome(call, run(asked))


class Run:
    """Submits jobs one after another, shows how they get on, and returns their summaries."""

    def __init__(self, call: Call, engine: Engine) -> None:
        self._call, self._engine = call, engine
        self._handle: JobHandle[Summary] | None = None

    async def __call__(self, asked: Request) -> Summary:
        self._handle = await asked.submit(self._call, self._engine)
        await watch(self._call, self._handle, asked.function)
        try:
            return await self._handle.result()
        except JobFailed:
            if self._engine.url == self._call.settings.broker:
                self._call.say(
                    f"what succeeded is kept for a day; this does the rest: {resume(self._call, self._handle.id)}"
                )
            raise

    async def again(self, job_id: str, sources: tuple[str, ...]) -> Summary:
        """Do what is left of a job."""
        self._handle = await self._engine.resume(job_id, several(*sources) if len(sources) > 1 else (*sources, None)[0])
        await watch(self._call, self._handle, "job")
        return await self._handle.result()

    async def interrupted(self) -> None:
        """Say what becomes of the job under way."""
        if self._handle is not None and self._engine.url == self._call.settings.broker:
            await leave(self._call, self._engine, self._handle)
        else:
            self._call.say("interrupted; nothing of the job is left")


@asynccontextmanager
async def running(call: Call, engine: Engine) -> AsyncIterator[Run]:
    """Have workers for the jobs that are run within."""
    run = Run(call, engine)
    try:
        async with workers(call, engine):
            yield run
    except asyncio.CancelledError:
        await run.interrupted()
        raise


@asynccontextmanager
async def running_engine(call: Call) -> AsyncIterator[Engine]:
    """Open an engine on the broker that was set, else on an embedded one, else on this process alone."""
    settings = call.settings
    url = settings.broker or (MEMORY if settings.workers == 0 else EMBEDDED)
    if url == EMBEDDED and not settings.broker:
        try:
            server.find_binary()
        except SettingsError as exc:
            call.say(f"working in this process alone: {exc}")
            url = MEMORY
    async with engine_for(call, broker=url) as engine:
        yield engine


@asynccontextmanager
async def workers(call: Call, engine: Engine) -> AsyncIterator[None]:
    """Have workers for what is submitted within: as many of our own as were asked for, or those who are there."""
    async with AsyncExitStack() as opened:
        if engine.url != MEMORY:
            embedded = isinstance(engine.broker, EmbeddedBroker)
            wanted = call.settings.workers
            number = auto.workers() if wanted == "auto" or (wanted is None and embedded) else wanted or 0
            if number:
                url = engine.broker.url if isinstance(engine.broker, EmbeddedBroker) else engine.url
                grace_s = 0.0 if embedded else engine.grace_period  # nobody else's job is on an embedded broker
                await opened.enter_async_context(local_workers(engine, call.settings, url, number, grace_s=grace_s))
            elif not readers(await engine.broker.depth([])):
                call.say(
                    f"no live worker reads {mask_url(engine.url)}, so the job waits for one: start it with"
                    " 'asyncworker worker', or here with --workers auto"
                )
        yield


COMMAND = command(
    "run",
    body,
    click.Argument(["sources"], nargs=-1, metavar="SOURCE..."),
    flags=(*FLAGS, "resume", "workers", "grace_period"),
    examples="""
  asyncworker run flights.csv --function data_validation --params rules.json
  asyncworker run flights.csv.gz --missing NA -f word_count -p '{"field": "carrier"}' --json
  asyncworker run rows.jsonl -f score --app shop:engine --broker redis://localhost:6379/0""",
)
